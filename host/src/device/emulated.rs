use super::{DeviceError, driver::Driver};

/// What GPU an emulated device stands for, and how strictly it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmulatedConfig {
    /// Compute capability, major and minor. Default 9.0.
    pub compute_capability: (u32, u32),
    /// Device memory in bytes. Default 8 GiB, taken from the host's only as buffers need it.
    pub memory_bytes: usize,
    /// Host threads that run blocks; 0 takes one a CPU core. Default 0.
    pub threads: usize,
}

impl Default for EmulatedConfig {
    fn default() -> Self {
        Self {
            compute_capability: (9, 0),
            memory_bytes: 8 << 30,
            threads: 0,
        }
    }
}

/// The emulator as a driver.
#[derive(Debug)]
pub(super) enum EmulatedDriver {}

impl EmulatedDriver {
    pub(super) fn new(_config: EmulatedConfig) -> Result<(Box<dyn Driver>, String), DeviceError> {
        Err(DeviceError::Unsupported {
            operation: "opening",
            device: "emulated".to_owned(),
        })
    }
}
