use std::{fmt, marker::PhantomData, ptr, slice, sync::Arc};

use bytemuck::Pod;

use super::{
    Buffer, Device, DeviceError, Stream,
    buffer::Allocation,
    driver::{DriverError, MemorySpace, RawStream},
};

/// A typed array in page-locked host memory, for copies that do not block.
///
/// [`Buffer::copy_from_pinned`] and [`Buffer::copy_to_pinned`] submit a copy to a stream and return. There is no guard object for
/// a copy in flight: [`as_slice`](Self::as_slice) and [`as_mut_slice`](Self::as_mut_slice) wait for the copies, and a dropped
/// buffer's memory is kept until they are done.
///
/// Page-locking is slow, and the memory is no longer available for paging. A device with a pool ([`Device::enable_pool`]) keeps
/// locked memory for later pinned buffers.
///
/// Can be sent to and read from any thread. After a fault of its device, a buffer without copies in flight can still be read.
///
/// ```
/// use bitnet_cuda::device::{Buffer, Device, PinnedBuffer};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Device::auto()?;
/// let stream = device.new_stream()?;
/// let input = PinnedBuffer::from_slice(&device, &[1.0_f32, 2.0, 3.0])?;
/// let mut on_device = Buffer::uninit(&device, 3)?;
/// let mut output = PinnedBuffer::zeroed(&device, 3)?;
/// on_device.copy_from_pinned(&stream, &input)?;
/// on_device.copy_to_pinned(&stream, &mut output)?; // neither has waited
/// assert_eq!(output.as_slice()?, [1.0, 2.0, 3.0]); // this does
/// # Ok(())
/// # }
/// ```
pub struct PinnedBuffer<T> {
    /// Dropped before the device, whose end waits for what uses the pool's dropped blocks.
    allocation: Arc<Allocation>,
    device: Device,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Pod> PinnedBuffer<T> {
    /// Allocates `len` elements of all-zero bytes.
    ///
    /// # Errors
    ///
    /// [`DeviceError::PinnedMemory`] if the system does not lock that much memory, [`DeviceError::Lost`] on a lost device.
    #[track_caller]
    pub fn zeroed(device: &Device, len: usize) -> Result<Self, DeviceError> {
        let mut buffer = Self::stale(device, len)?;
        buffer.as_mut_slice()?.fill(T::zeroed());
        Ok(buffer)
    }

    /// Allocates a copy of a slice.
    ///
    /// # Errors
    ///
    /// As [`PinnedBuffer::zeroed`].
    #[track_caller]
    pub fn from_slice(device: &Device, values: &[T]) -> Result<Self, DeviceError> {
        let mut buffer = Self::stale(device, values.len())?;
        buffer.as_mut_slice()?.copy_from_slice(values);
        Ok(buffer)
    }

    /// Allocates elements of whatever bytes the memory has: it is zeroed when it comes from the system.
    #[track_caller]
    fn stale(device: &Device, len: usize) -> Result<Self, DeviceError> {
        let bytes = Buffer::<T>::bytes(len)?;
        let allocation = Allocation::new(device.core(), MemorySpace::PinnedHost, bytes)?;
        assert!(
            allocation.address().is_multiple_of(align_of::<T>() as u64),
            "pinned blocks are aligned to 256 bytes"
        );
        Ok(Self {
            device: device.clone(),
            allocation,
            len,
            element: PhantomData,
        })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device whose copies it serves.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The elements, after waiting for the copies that were submitted with this buffer.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Lost`] if such a copy, or work before it, failed; [`DeviceError::Capturing`] while the stream of such a
    /// copy is being captured.
    pub fn as_slice(&self) -> Result<&[T], DeviceError> {
        self.allocation.in_flight().wait(self.device.core())?;
        // SAFETY: the allocation is at least so long and aligned, its bytes are initialized from the start, and any bytes are
        // a `T`. No copy writes to it: those submitted are done, and a new one needs `&mut self`.
        Ok(unsafe { slice::from_raw_parts(self.as_ptr(), self.len) })
    }

    /// The elements for writing, after waiting like [`PinnedBuffer::as_slice`].
    ///
    /// # Errors
    ///
    /// As [`PinnedBuffer::as_slice`].
    pub fn as_mut_slice(&mut self) -> Result<&mut [T], DeviceError> {
        self.allocation.in_flight().wait(self.device.core())?;
        // SAFETY: as for `as_slice`; and no copy reads it, as a new one needs `&self`.
        Ok(unsafe { slice::from_raw_parts_mut(self.as_ptr(), self.len) })
    }

    fn as_ptr(&self) -> *mut T {
        ptr::with_exposed_provenance_mut(self.allocation.address() as usize)
    }

    fn as_bytes(&self) -> *mut [u8] {
        ptr::slice_from_raw_parts_mut(self.as_ptr().cast(), self.allocation.len())
    }
}

impl<T: Pod> Buffer<T> {
    /// Submits a copy of a pinned buffer of the same length, and returns.
    ///
    /// Like a launch, the copy is ordered with the other work of the stream, and not with other streams.
    ///
    /// # Errors
    ///
    /// [`DeviceError::LengthMismatch`], [`DeviceError::DeviceMismatch`]; [`DeviceError::Capturing`] while the stream is being
    /// captured, because a graph could be replayed while a slice of the pinned buffer is changed; [`DeviceError::Unsupported`] on
    /// a caller's stream, for the same reason.
    pub fn copy_from_pinned(
        &mut self,
        stream: &Stream,
        from: &PinnedBuffer<T>,
    ) -> Result<(), DeviceError> {
        let (core, address) = (self.device().core(), self.allocation().address());
        self.submit_pinned("copy from pinned memory", stream, from, |raw| {
            // SAFETY: both ranges are whole allocations of this device, which the marks of the submission keep; pinned memory
            // that is marked is neither written nor freed.
            unsafe { core.driver.copy_to_device(raw, address, from.as_bytes()) }
        })
    }

    /// Submits a copy to a pinned buffer of the same length, and returns; [`PinnedBuffer::as_slice`] waits for it.
    ///
    /// # Errors
    ///
    /// As [`Buffer::copy_from_pinned`].
    pub fn copy_to_pinned(
        &self,
        stream: &Stream,
        to: &mut PinnedBuffer<T>,
    ) -> Result<(), DeviceError> {
        let (core, address) = (self.device().core(), self.allocation().address());
        self.submit_pinned("copy to pinned memory", stream, to, |raw| {
            // SAFETY: as above; pinned memory that is marked is not accessed.
            unsafe { core.driver.copy_to_host(raw, to.as_bytes(), address) }
        })
    }

    fn submit_pinned(
        &self,
        operation: &'static str,
        stream: &Stream,
        pinned: &PinnedBuffer<T>,
        submit: impl FnOnce(RawStream) -> Result<(), DriverError>,
    ) -> Result<(), DeviceError> {
        self.require_len(pinned.len)?;
        stream.device().require("the buffer", self.device())?;
        stream
            .device()
            .require("the pinned buffer", &pinned.device)?;
        let allocations = [self.allocation(), &pinned.allocation];
        stream.submit_copy(operation, self.size_bytes(), allocations, submit)
    }
}

impl<T> fmt::Debug for PinnedBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedBuffer")
            .field("type", &std::any::type_name::<T>())
            .field("len", &self.len)
            .field("device", &self.device)
            .finish()
    }
}
