use crate::device::{Buffer, Device, DeviceError, HybridMemoryPool};
use bytemuck::Pod;

/// A device's memory, from its pool where it has one.
#[derive(Debug, Clone, Copy)]
pub struct MemoryManager<'a>(&'a Device);

impl<'a> MemoryManager<'a> {
    pub(super) fn new(device: &'a Device) -> Self {
        Self(device)
    }

    /// `len` elements whose content is not defined until something writes them.
    ///
    /// # Errors
    /// When the memory is not there, or the device is lost.
    #[track_caller]
    pub fn allocate<T: Pod>(&self, len: usize) -> Result<Buffer<T>, DeviceError> {
        Buffer::uninit(self.0, len)
    }

    /// A copy of a host slice on the device.
    ///
    /// # Errors
    /// As [`MemoryManager::allocate`].
    #[track_caller]
    pub fn copy_to_device<T: Pod>(&self, host: &[T]) -> Result<Buffer<T>, DeviceError> {
        Buffer::from_slice(self.0, host)
    }

    /// A copy of a buffer on the host, after the work that writes it.
    ///
    /// # Errors
    /// When that work failed.
    pub fn copy_to_host<T: Pod>(&self, buffer: &Buffer<T>) -> Result<Vec<T>, DeviceError> {
        buffer.to_vec()
    }

    /// The pool.
    pub fn pool(&self) -> Option<HybridMemoryPool> {
        self.0.pool()
    }
}
