use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Weak},
};

use super::{
    Device, DeviceError, EmulatedConfig, Inner, core::lock, cuda::CudaDriver,
    emulated::EmulatedDriver, sync::Mutex,
};

/// The oldest architecture that this library has PTX for; [`Device::auto`] passes over older GPUs.
const OLDEST_COMPUTE_CAPABILITY: (u32, u32) = (7, 5);

/// The GPUs that are open, by ordinal, so that opening one twice gives the same device.
static OPEN: LazyLock<Mutex<HashMap<usize, Weak<Inner>>>> = LazyLock::new(Mutex::default);

impl Device {
    /// Opens a GPU by the driver's ordinal, or returns it if it is already open.
    ///
    /// If the open device was lost to a fault, its context is reset and the GPU is opened again; the old handles stay lost. After
    /// some faults the driver refuses that until the process ends, and its error is returned.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoDriver`] without a usable NVIDIA driver, [`DeviceError::NoSuchDevice`] for an ordinal without a GPU.
    pub fn cuda(ordinal: usize) -> Result<Self, DeviceError> {
        let mut open = lock(&OPEN);
        let known = open.get(&ordinal).and_then(Weak::upgrade).map(Device);
        if let Some(device) = &known
            && !device.is_lost()
        {
            return Ok(device.clone());
        }
        if let Some(lost) = &known {
            lost.core().driver.retire();
        }
        let (driver, name) = CudaDriver::open(ordinal, known.is_some())?;
        if let Some(lost) = &known {
            lost.core().driver.context_destroyed();
        }
        let device = Self::new(Box::new(driver), name)?;
        open.insert(ordinal, Arc::downgrade(&device.0));
        Ok(device)
    }

    /// Opens a GPU without making it the one that [`Device::cuda`] returns, so that its streams and its pool are its own.
    #[cfg(test)]
    pub(super) fn unshared_cuda(ordinal: usize) -> Result<Self, DeviceError> {
        let (driver, name) = CudaDriver::open(ordinal, false)?;
        Self::new(Box::new(driver), name)
    }

    /// How many GPUs the CUDA driver lists.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoDriver`] without a usable NVIDIA driver.
    pub fn cuda_count() -> Result<usize, DeviceError> {
        CudaDriver::count()
    }

    /// Creates an emulated device with the default configuration. Each call creates a new device.
    ///
    /// # Errors
    ///
    /// None: the default configuration describes a GPU.
    pub fn emulated() -> Result<Self, DeviceError> {
        Self::emulated_with(EmulatedConfig::default())
    }

    /// Creates an emulated device. Each call creates a new device.
    ///
    /// # Errors
    ///
    /// [`DeviceError::InvalidConfig`] for a configuration that is not that of a GPU.
    pub fn emulated_with(config: EmulatedConfig) -> Result<Self, DeviceError> {
        let (driver, name) = EmulatedDriver::new(config, None)?;
        Self::new(Box::new(driver), name)
    }

    /// Creates an emulated device for which the library chooses the same kernels as for `gpu`: multiprocessors, caches, clocks
    /// and limits of [`Device::capabilities`] are those of `gpu`, compute capability and memory those of `config`.
    ///
    /// # Errors
    ///
    /// As [`Device::emulated_with`].
    pub fn emulated_like(gpu: &Self, config: EmulatedConfig) -> Result<Self, DeviceError> {
        let (driver, name) = EmulatedDriver::new(config, Some(gpu.capabilities()))?;
        Self::new(Box::new(driver), name)
    }

    /// Opens the first usable GPU, else the emulator, and reports in one `tracing` line which and why.
    ///
    /// # Errors
    ///
    /// As [`Device::emulated`], if there is no usable GPU.
    pub fn auto() -> Result<Self, DeviceError> {
        let reason = match Self::first_gpu() {
            Ok(device) => {
                tracing::info!(device = device.name(), "using the first usable GPU");
                return Ok(device);
            }
            Err(reason) => reason,
        };
        let device = Self::emulated()?;
        tracing::info!(
            device = device.name(),
            reason,
            "using the emulator, as there is no usable GPU"
        );
        Ok(device)
    }

    /// Opens the device of that name: `auto`, `emulated`, `cuda` (the first GPU) or `cuda:<ordinal>`.
    ///
    /// # Errors
    ///
    /// [`DeviceError::UnknownDevice`] for any other name, and as [`Device::cuda`].
    pub fn from_name(name: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::UnknownDevice {
            name: name.to_owned(),
        };
        match name {
            "auto" => Self::auto(),
            "emulated" => Self::emulated(),
            "cuda" => Self::cuda(0),
            _ => {
                let ordinal = name.strip_prefix("cuda:").ok_or_else(unknown)?;
                Self::cuda(ordinal.parse().map_err(|_| unknown())?)
            }
        }
    }

    /// The first GPU that opens and is new enough, or why there is none.
    fn first_gpu() -> Result<Self, String> {
        let count = Self::cuda_count().map_err(|error| error.to_string())?;
        let mut reasons = Vec::new();
        for ordinal in 0..count {
            match Self::cuda(ordinal) {
                Ok(device) if device.compute_capability() >= OLDEST_COMPUTE_CAPABILITY => {
                    return Ok(device);
                }
                Ok(device) => {
                    let (major, minor) = device.compute_capability();
                    reasons.push(format!("{} is sm_{major}{minor}, too old", device.name()));
                }
                Err(error) => reasons.push(error.to_string()),
            }
        }
        if reasons.is_empty() {
            reasons.push("the driver lists no GPU".to_owned());
        }
        Err(reasons.join("; "))
    }
}
