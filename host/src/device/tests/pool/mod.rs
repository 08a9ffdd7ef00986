//! The memory pool: what it hands out, when it hands it out again, and what it gives back.

mod blocks;
mod limits;

use super::*;

const MIB: usize = 1 << 20;

fn config() -> MemoryPoolConfig {
    MemoryPoolConfig {
        chunk_bytes: 8 * MIB,
        tracking: TrackingLevel::Standard,
        ..MemoryPoolConfig::default()
    }
}

/// Buffers of the device come from a pool of its own.
fn pooled(device: &Device, config: MemoryPoolConfig) -> HybridMemoryPool {
    device
        .enable_pool(config)
        .expect("the device has no pool yet")
}

fn bytes(device: &Device, len: usize) -> Buffer<u8> {
    Buffer::uninit(device, len).expect("there is memory")
}
