//! Measures the kernel variants for a shape, stores the result in a file, and uses it in a layer.

use bitnet_cuda::device::Device;
use bitnet_cuda::launch::tune::{TuneCache, TuneConfig, tune_gemv};
use bitnet_cuda::ops::BitLinear;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::auto()?;
    let (m, n, k) = (1, 256, 512);
    // By default, layers use `TuneCache::user()`, which `bitnet tune` writes.
    let cache = TuneCache::at(std::env::temp_dir().join("bitnet-example"));
    let weights: Vec<f32> = (0..n * k).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
    let layer = BitLinear::from_weights(&device, &weights, n, k)?.with_tuning(None);
    println!("before: {:?}", layer.choice(m));

    let tuning = tune_gemv(&device, (m, n, k), &TuneConfig::default(), |_, _| {})?;
    for candidate in &tuning.candidates {
        println!(
            "{:16} {:10.2} {}",
            candidate.variant.name(),
            candidate.cost.value,
            candidate.cost.unit.name()
        );
    }
    cache.store(&tuning)?;
    println!("after:  {:?}", layer.with_tuning(Some(&cache)).choice(m));
    println!("stored in {}", cache.path().display());
    Ok(())
}
