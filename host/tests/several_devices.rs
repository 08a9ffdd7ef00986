//! A layer over several devices gives what one device gives, bit for bit.

use bitnet_cuda::backend::{Split, SplitLinear};
use bitnet_cuda::device::{
    Buffer, Device, DeviceError, EmulatedConfig, MemoryPoolConfig, PinnedBuffer,
};
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{BitLinear, OpError};
use bitnet_cuda::reference::RowScales;

mod fake;

/// Two kinds of emulated GPU, and what `BITNET_TEST_DEVICE` names.
fn devices() -> Vec<Device> {
    let name = std::env::var("BITNET_TEST_DEVICE").unwrap_or_else(|_| "emulated".to_owned());
    let ampere = EmulatedConfig {
        compute_capability: (8, 0),
        ..EmulatedConfig::default()
    };
    vec![
        Device::from_name(&name).unwrap(),
        Device::emulated_with(ampere).unwrap(),
        Device::emulated().unwrap(),
    ]
}

/// The bits of the layer's output, with input and output on a device.
fn on_device(layer: &SplitLinear, device: &Device, input: &[f32], len: usize) -> Vec<u32> {
    let stream = device.new_stream().unwrap();
    let mut x = Buffer::<f32>::uninit(device, input.len()).unwrap();
    let mut y = Buffer::<f32>::uninit(device, len).unwrap();
    let pinned = PinnedBuffer::from_slice(device, input).unwrap();
    // On a GPU the input is still to come when the layer is called.
    x.copy_from_pinned(&stream, &pinned).unwrap();
    layer.forward_on(&stream, &x, &mut y).unwrap();
    let output = y.to_vec().unwrap();
    output.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn both_splits_equal_one_device() {
    let mut devices = devices();
    both_splits(&devices);
    // Two GPUs that reach each other's memory, one that does not, and an emulator.
    if let Some([a, b, c]) = fake::gpus([2, 4, 5]) {
        devices.truncate(1);
        devices.extend([a.clone(), b.clone(), c]);
        both_splits(&devices);
        assert!(a.can_access_peer(&b).unwrap());
    }
    // With pools no drop waits, and no part goes through the host: what orders the streams is events alone.
    if let Some(gpus) = fake::gpus([6, 8]) {
        for gpu in &gpus {
            gpu.enable_pool(MemoryPoolConfig::default()).unwrap();
        }
        both_splits(&gpus);
    }
}

fn both_splits(devices: &[Device]) {
    for (m, n, k) in [(1, 100, 200), (5, 64, 128), (9, 33, 70), (2, 7, 40)] {
        let mut random = fastrand::Rng::with_seed((m * n * k) as u64);
        let ternary: Vec<i8> = (0..n * k).map(|_| random.i8(-1..=1)).collect();
        let scales =
            RowScales::per_row(&(0..n).map(|_| 0.5 + random.f32()).collect::<Vec<_>>()).unwrap();
        let input: Vec<f32> = (0..m * k).map(|_| random.f32() * 4.0 - 2.0).collect();
        let packed = PackedWeights::pack(Layout::Tiled, &ternary, n, k).unwrap();

        let one = BitLinear::from_packed(&devices[0], &packed, &scales).unwrap();
        let x = Buffer::from_slice(&devices[0], &input).unwrap();
        let mut y = Buffer::<f32>::uninit(&devices[0], m * n).unwrap();
        one.forward(&devices[0].default_stream(), &x, &mut y)
            .unwrap();
        let expected: Vec<u32> = y
            .to_vec()
            .unwrap()
            .iter()
            .map(|value| value.to_bits())
            .collect();

        for split in [Split::Rows, Split::Batch] {
            let layer = SplitLinear::new(devices, &packed, &scales, split).unwrap();
            let output: Vec<u32> = layer
                .forward(&input)
                .unwrap()
                .iter()
                .map(|value| value.to_bits())
                .collect();
            assert_eq!(output, expected, "{split:?} of {m} x {n} x {k}");
            let parts = if split == Split::Rows {
                n.div_ceil(16).min(devices.len())
            } else {
                devices.len()
            };
            assert_eq!(layer.devices().count(), parts);
            // With input and output on each of them, and on a device that has no part.
            for device in devices.iter().chain([&Device::emulated().unwrap()]) {
                assert_eq!(on_device(&layer, device, &input, m * n), expected);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let devices = devices();
    let packed = PackedWeights::pack(Layout::Tiled, &[1; 64], 2, 32).unwrap();
    let scales = RowScales::per_tensor(2, 1.0).unwrap();
    let layer = SplitLinear::new(&devices, &packed, &scales, Split::Batch).unwrap();
    for len in [0, 31, 33] {
        assert!(
            matches!(layer.forward(&vec![1.0; len]), Err(OpError::Tokens { .. })),
            "{len}"
        );
    }
    let [here, there] = [0, 1].map(|index| {
        let device: &Device = &devices[index];
        let of = |len| Buffer::<f32>::zeroed(device, len).unwrap();
        (device.default_stream(), of(32), of(2), of(3))
    });
    let forward = |x: &Buffer<f32>, y: &mut Buffer<f32>| layer.forward_on(&here.0, x, y);
    let (mut y, mut far, mut longer) = (here.2, there.2, here.3);
    assert_eq!((layer.n(), layer.k()), (2, 32));
    for error in [forward(&there.1, &mut y), forward(&here.1, &mut far)] {
        assert!(
            matches!(
                error,
                Err(OpError::Device(DeviceError::DeviceMismatch { .. }))
            ),
            "{error:?}"
        );
    }
    assert!(matches!(
        forward(&here.1, &mut longer),
        Err(OpError::Length { .. })
    ));
    forward(&here.1, &mut y).unwrap();
    assert!(matches!(
        SplitLinear::new(&[], &packed, &scales, Split::Rows),
        Err(OpError::NoDevice)
    ));
    let three = RowScales::per_tensor(3, 1.0).unwrap();
    for error in [
        SplitLinear::new(&devices, &packed, &three, Split::Rows).map(drop),
        BitLinear::from_packed(&devices[0], &packed, &three).map(drop),
    ] {
        assert_eq!(
            error.unwrap_err().to_string(),
            "`scales.n()` = 3, but the weight matrix has 2"
        );
    }
}
