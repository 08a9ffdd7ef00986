//! A memory pool with a limit: callbacks as it fills, a report of live buffers with their source lines, and trimming.

use bitnet_cuda::device::{Buffer, Device, DeviceError, MemoryPoolConfig, TrackingLevel};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::auto()?;
    let pool = device.enable_pool(MemoryPoolConfig {
        chunk_bytes: 4 << 20,
        max_bytes: Some(16 << 20),
        tracking: TrackingLevel::Detailed,
        ..MemoryPoolConfig::default()
    })?;
    pool.register_pressure_callback(|level| println!("pressure is {level:?} now"));
    let mut buffers = Vec::new();
    let refused = loop {
        match Buffer::<f32>::uninit(&device, 500_000) {
            Ok(buffer) => buffers.push(buffer),
            Err(error @ DeviceError::PoolExhausted { .. }) => break error,
            Err(error) => return Err(error.into()),
        }
    };
    println!("{refused}");
    buffers.truncate(1);
    println!("{}", pool.leak_report());
    println!("trimmed: {} bytes", pool.trim(0)?);
    println!("{:#?}", pool.metrics());
    Ok(())
}
