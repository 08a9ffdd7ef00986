//! Two streams that work independently, and a third that waits for both with events.

use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::ops::BitLinear;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::auto()?;
    let (n, k) = (64, 256);
    let weights = |seed: usize| -> Vec<f32> {
        (0..n * k)
            .map(|i| ((i * 37 + seed) % 101) as f32 - 50.0)
            .collect()
    };
    let layers = [
        BitLinear::from_weights(&device, &weights(1), n, k)?,
        BitLinear::from_weights(&device, &weights(2), n, k)?,
    ];
    let second = BitLinear::from_weights(&device, &weights(3)[..n * n], n, n)?;
    let x = Buffer::from_slice(&device, &vec![0.5_f32; k])?;

    let streams = [device.new_stream()?, device.new_stream()?];
    let joined = device.new_stream()?;
    let mut hidden = [
        Buffer::<f32>::uninit(&device, n)?,
        Buffer::<f32>::uninit(&device, n)?,
    ];
    for ((stream, layer), hidden) in streams.iter().zip(&layers).zip(&mut hidden) {
        layer.forward(stream, &x, hidden)?;
        // Work submitted to `joined` from here on runs after this point of `stream`; no thread waits.
        joined.wait(&stream.record()?)?;
    }
    let mut y = [
        Buffer::<f32>::uninit(&device, n)?,
        Buffer::<f32>::uninit(&device, n)?,
    ];
    for (hidden, y) in hidden.iter().zip(&mut y) {
        second.forward(&joined, hidden, y)?;
    }
    joined.synchronize()?;
    println!(
        "{}: {:?} and {:?}",
        device.name(),
        &y[0].to_vec()?[..2],
        &y[1].to_vec()?[..2]
    );
    Ok(())
}
