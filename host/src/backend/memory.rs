use crate::device::{Buffer, Device, DeviceError, HybridMemoryPool};
use bytemuck::Pod;

/// Allocates and copies a device's memory; from its pool, if it has one.
#[derive(Debug, Clone, Copy)]
pub struct MemoryManager<'a>(&'a Device);

impl<'a> MemoryManager<'a> {
    pub(super) fn new(device: &'a Device) -> Self {
        Self(device)
    }

    /// Allocates `len` elements, whose content is undefined until something writes them.
    ///
    /// # Errors
    /// When there is not enough memory, or the device is lost.
    #[track_caller]
    pub fn allocate<T: Pod>(&self, len: usize) -> Result<Buffer<T>, DeviceError> {
        Buffer::uninit(self.0, len)
    }

    /// Allocates a buffer and copies a host slice to it.
    ///
    /// # Errors
    /// As [`MemoryManager::allocate`].
    #[track_caller]
    pub fn copy_to_device<T: Pod>(&self, host: &[T]) -> Result<Buffer<T>, DeviceError> {
        Buffer::from_slice(self.0, host)
    }

    /// Copies a buffer to the host, after waiting for the work that writes it.
    ///
    /// # Errors
    /// When that work failed.
    pub fn copy_to_host<T: Pod>(&self, buffer: &Buffer<T>) -> Result<Vec<T>, DeviceError> {
        buffer.to_vec()
    }

    /// The device's memory pool, if it has one.
    pub fn pool(&self) -> Option<HybridMemoryPool> {
        self.0.pool()
    }
}
