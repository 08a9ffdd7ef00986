//! A layer captured as a graph, replayed on new input, and updated to read another buffer.

use bitnet_cuda::device::{Buffer, Device, Graph};
use bitnet_cuda::ops::{BitLinear, OpError, QuantizedActivations, quantize_activations};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::auto()?;
    let stream = device.default_stream();
    let (n, k) = (64, 256);
    let weights: Vec<f32> = (0..n * k).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
    let layer = BitLinear::from_weights(&device, &weights, n, k)?;
    let mut x = Buffer::<f32>::zeroed(&device, k)?;
    let mut quantized = QuantizedActivations::uninit(&device, 1, k)?;
    let mut y = Buffer::<f32>::uninit(&device, n)?;
    let mut graph = Graph::capture(&stream, |stream| -> Result<(), OpError> {
        quantize_activations(stream, &x, &mut quantized)?;
        layer.forward_quantized(stream, &quantized, &mut y)
    })?;
    println!("{}: captured {}", device.name(), graph.kernels().join(", "));
    for step in 1..=3 {
        // A replay works on the current contents of the graph's buffers.
        let input: Vec<f32> = (0..k).map(|i| (i % 8 * step) as f32).collect();
        x.copy_from_slice(&input)?;
        graph.launch(&stream)?;
        println!("step {step}: {:?}", &y.to_vec()?[..3]);
    }

    // The same kernels with another input buffer: an update is much cheaper than another graph.
    let other = Buffer::from_slice(&device, &vec![1.0_f32; k])?;
    graph.update(&stream, |stream| -> Result<(), OpError> {
        quantize_activations(stream, &other, &mut quantized)?;
        layer.forward_quantized(stream, &quantized, &mut y)
    })?;
    graph.launch(&stream)?;
    println!("updated: {:?}", &y.to_vec()?[..3]);
    Ok(())
}
