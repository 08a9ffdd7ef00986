//! One layer split over all GPUs, or over two emulated devices if there are none.

use bitnet_cuda::backend::{Split, SplitLinear};
use bitnet_cuda::device::Device;
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::RowScales;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let devices: Vec<Device> = match Device::cuda_count() {
        Ok(count) if count > 0 => (0..count).map(Device::cuda).collect::<Result<_, _>>()?,
        _ => vec![Device::emulated()?, Device::emulated()?],
    };
    let (m, n, k) = (4, 96, 256);
    let ternary: Vec<i8> = (0..n * k).map(|i| (i * 37 % 3) as i8 - 1).collect();
    let packed = PackedWeights::pack(Layout::Tiled, &ternary, n, k)?;
    let scales = RowScales::per_tensor(n, 0.02)?;
    let input: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.0).collect();
    let one = SplitLinear::new(&devices[..1], &packed, &scales, Split::Batch)?.forward(&input)?;
    for split in [Split::Rows, Split::Batch] {
        let layer = SplitLinear::new(&devices, &packed, &scales, split)?;
        let names: Vec<_> = layer.devices().map(Device::name).collect();
        let equal = layer.forward(&input)? == one;
        println!(
            "{split:?} over {}: equal to one device: {equal}",
            names.join(", ")
        );
    }
    Ok(())
}
