use super::{super::error::DeviceError, buddy, tracking::TrackingLevel};

/// How a [`HybridMemoryPool`](super::HybridMemoryPool) manages its memory.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryPoolConfig {
    /// Bytes that the pool asks the driver for at a time; a power of two of at least 1 MiB. Default 64 MiB. Where
    /// so much is not left, it asks for less.
    pub chunk_bytes: usize,
    /// Most bytes that the pool holds at once; `None` for as many as the driver gives. Default `None`. Buffers of up to 768 KiB take
    /// 1 MiB for each size class in use, and a layer has buffers of several classes: a pool of a few MiB is soon exhausted.
    pub max_bytes: Option<usize>,
    /// Bytes taken from the driver when the pool is made, in whole MiB: where `max_bytes` is no multiple of that, the rest of it is left
    /// to the driver. Default 0.
    pub initial_bytes: usize,
    /// Bytes of dropped buffers that may wait for the work that uses them; beyond it, allocations wait for that work.
    /// Default 256 MiB.
    pub max_pending_bytes: usize,
    /// As `chunk_bytes`, for pinned host memory. Default 8 MiB.
    pub pinned_chunk_bytes: usize,
    /// As `max_bytes`, for pinned host memory. Default `None`.
    pub max_pinned_bytes: Option<usize>,
    /// What is recorded of each allocation. Default [`TrackingLevel::Basic`].
    pub tracking: TrackingLevel,
    /// Shares of `max_bytes` (or of the device's memory) in use from which pressure is moderate, high and critical;
    /// ascending, in 0..=1. Default 0.7, 0.85, 0.95.
    pub pressure: [f64; 3],
}

impl Default for MemoryPoolConfig {
    fn default() -> Self {
        Self {
            chunk_bytes: 64 << 20,
            max_bytes: None,
            initial_bytes: 0,
            max_pending_bytes: 256 << 20,
            pinned_chunk_bytes: 8 << 20,
            max_pinned_bytes: None,
            tracking: TrackingLevel::Basic,
            pressure: [0.7, 0.85, 0.95],
        }
    }
}

impl MemoryPoolConfig {
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        let invalid = |option, value: String, expected| DeviceError::InvalidConfig {
            option,
            value,
            expected,
        };
        for (option, chunk) in [
            ("chunk_bytes", self.chunk_bytes),
            ("pinned_chunk_bytes", self.pinned_chunk_bytes),
        ] {
            if !chunk.is_power_of_two() || chunk < buddy::MIN_BLOCK {
                let expected = "a power of two of at least 1 MiB";
                return Err(invalid(option, chunk.to_string(), expected));
            }
        }
        for (option, most) in [
            ("max_bytes", self.max_bytes),
            ("max_pinned_bytes", self.max_pinned_bytes),
        ] {
            if let Some(most) = most
                && most < buddy::MIN_BLOCK
            {
                return Err(invalid(option, most.to_string(), "at least 1 MiB"));
            }
        }
        if self.max_bytes.is_some_and(|most| most < self.initial_bytes) {
            let value = self.initial_bytes.to_string();
            return Err(invalid("initial_bytes", value, "at most max_bytes"));
        }
        let [moderate, high, critical] = self.pressure;
        if !(0.0 <= moderate && moderate <= high && high <= critical && critical <= 1.0) {
            let value = format!("{:?}", self.pressure);
            return Err(invalid(
                "pressure",
                value,
                "three ascending shares in 0..=1",
            ));
        }
        Ok(())
    }
}
