//! Streams, memory and contexts that the caller has created with the CUDA runtime or the driver API.

use std::{ffi::c_void, ptr};

use bytemuck::Pod;
use cust_lazy::ffi::{self, CUcontext};

use super::{
    Buffer, Device, DeviceError, DeviceKind, Stream,
    buffer::Allocation,
    driver::{MemoryRange, Pitched, RawStream},
    queue::Work,
};

/// Physical memory is mapped in multiples of this (`cuMemGetAllocationGranularity` on all GPUs so far).
const MAPPING_GRANULARITY: u64 = 2 << 20;

impl Stream {
    /// A stream that the caller has created: `handle` is a `CUstream` or `cudaStream_t`. Null is CUDA's legacy default stream,
    /// and the only one on the emulated device.
    ///
    /// Launches and copies work as on any stream. Events and capturing are left to the owner of the stream, who may capture it at
    /// any time. Waiting for work on such a stream waits for the whole device, since the stream may have been destroyed by then.
    ///
    /// # Errors
    ///
    /// [`DeviceError::ForeignStream`] for a handle that is not null on the emulated device.
    ///
    /// # Safety
    ///
    /// `handle` must be null or a stream of the device's primary context that lives as long as the `Stream` and its clones.
    pub unsafe fn from_raw(device: &Device, handle: *mut c_void) -> Result<Self, DeviceError> {
        device.core().usable()?;
        let handle = handle.addr() as u64;
        if device.kind() == DeviceKind::Emulated && handle != 0 {
            return Err(DeviceError::ForeignStream {
                handle,
                device: device.name().to_owned(),
            });
        }
        Ok(Self::from_parts(
            device,
            device.0.of_callers.clone(),
            RawStream(handle),
        ))
    }

    /// Submits a copy of `rows` rows of `width` bytes from `from`, where they lie one after the other, to rows of `pitch` bytes.
    ///
    /// # Errors
    ///
    /// As [`Stream::copy_to_columns`].
    pub(crate) fn copy_to_pitched<T: Pod>(
        &self,
        to: &mut Buffer<T>,
        pitch: usize,
        from: &Buffer<T>,
        width: usize,
        rows: usize,
    ) -> Result<(), DeviceError> {
        self.copy_to_columns(to, 0, pitch, from, width, rows)
    }

    /// As [`Stream::copy_to_pitched`], to each row from byte `first` on.
    ///
    /// # Errors
    ///
    /// [`DeviceError::DeviceMismatch`], and [`DeviceError::Capturing`] while the stream is being captured by
    /// [`Graph::capture`](super::Graph::capture), whose graphs hold launches only.
    pub(crate) fn copy_to_columns<T: Pod>(
        &self,
        to: &mut Buffer<T>,
        first: usize,
        pitch: usize,
        from: &Buffer<T>,
        width: usize,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let fits = |buffer: &Buffer<T>, pitch: usize| {
            rows.checked_mul(pitch)
                .is_some_and(|needed| needed <= buffer.size_bytes())
        };
        if self.inner().is_capturing() {
            return Err(DeviceError::Capturing {
                operation: "copying to padded rows",
            });
        }
        self.device().require("the padded rows", to.device())?;
        self.device().require("the rows to copy", from.device())?;
        assert!(first + width <= pitch && fits(to, pitch) && fits(from, width));
        let (to, from) = (to.allocation(), from.allocation());
        let target = Pitched {
            address: to.address() + first as u64,
            pitch,
        };
        let source = Pitched {
            address: from.address(),
            pitch: width,
        };
        let core = self.device().core();
        let work = Work::named("copy", 2 * width * rows);
        self.submit(work, [to, from].into_iter(), |raw| {
            // SAFETY: the stream is alive as long as `self`, and the rows are within the buffers, as just checked.
            unsafe { core.driver.copy_rows(raw, target, source, width, rows) }
        })
    }

    /// Submits a fill of a buffer with bytes of value `value`.
    pub(crate) fn fill<T: Pod>(
        &self,
        buffer: &mut Buffer<T>,
        value: u8,
    ) -> Result<(), DeviceError> {
        let allocation = buffer.allocation();
        let core = self.device().core();
        let work = Work::named("fill", allocation.len());
        self.submit(work, [allocation].into_iter(), |raw| {
            // SAFETY: the stream is alive as long as `self`, and the range is the whole allocation.
            unsafe {
                core.driver
                    .fill(raw, allocation.address(), value, allocation.len())
            }
        })
    }
}

impl<T: Pod> Buffer<T> {
    /// `len` elements of memory that the caller has allocated and will free, for example with `cudaMalloc`.
    ///
    /// The range is checked against the allocations that the device or driver knows. Dropping the buffer does nothing.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NotDeviceMemory`] if part of it is not memory of the device, [`DeviceError::MisalignedPointer`].
    ///
    /// # Safety
    ///
    /// The memory must stay allocated as long as the buffer exists and work submitted with it runs. Meanwhile nothing else may
    /// write it, or read what such work writes, unless ordered by a stream or a wait.
    pub unsafe fn from_raw(device: &Device, address: u64, len: usize) -> Result<Self, DeviceError> {
        device.core().usable()?;
        let bytes = Self::bytes(len)?;
        let whole = device.range_of(address, bytes as u64)?;
        if !address.is_multiple_of(align_of::<T>() as u64) {
            return Err(DeviceError::MisalignedPointer {
                address,
                alignment: align_of::<T>(),
            });
        }
        let allocation = Allocation::of_caller(device.core(), whole, address, bytes);
        Ok(Self::from_allocation(device, allocation, len))
    }
}

impl Device {
    /// The allocation that holds all of a range.
    fn range_of(&self, address: u64, bytes: u64) -> Result<MemoryRange, DeviceError> {
        let core = self.core();
        let find = |address| core.check(core.driver.range_of(address));
        let first = find(address)?;
        let refused = || DeviceError::NotDeviceMemory {
            address,
            bytes,
            device: self.name().to_owned(),
            allocation: first.map(|range| (range.base, range.len as u64)),
        };
        let whole = first.filter(|_| address != 0).ok_or_else(refused)?;
        let end = address.checked_add(bytes).ok_or_else(refused)?;
        let mut covered = whole.base + whole.len as u64;
        while covered < end {
            // One tensor may lie across several mappings (`cuMemMap`), which the driver reports one by one.
            let next = find(covered)?.filter(|next| {
                next.base == covered
                    && covered.is_multiple_of(MAPPING_GRANULARITY)
                    && (next.len as u64).is_multiple_of(MAPPING_GRANULARITY)
            });
            covered += next.ok_or_else(refused)?.len as u64;
        }
        Ok(whole)
    }

    /// Waits until all work in the device's context is done, including work on callers' streams.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Lost`] where work failed.
    pub fn synchronize_context(&self) -> Result<(), DeviceError> {
        let core = self.core();
        core.usable()?;
        core.check(core.driver.synchronize())
    }

    /// The GPU whose context is current on this thread, which is the CUDA runtime's current device; `None` without a current
    /// context.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoDriver`] without a usable NVIDIA driver, and as [`Device::cuda`].
    pub fn current_cuda() -> Result<Option<Self>, DeviceError> {
        let count = Self::cuda_count()?;
        let mut device = 0;
        // SAFETY: `device` is valid for the write.
        if unsafe { ffi::cuCtxGetDevice(&mut device) } != 0 {
            return Ok(None);
        }
        // CUDA's device handles are the ordinals.
        match usize::try_from(device) {
            Ok(ordinal) if ordinal < count => Self::cuda(ordinal).map(Some),
            _ => Ok(None),
        }
    }
}

/// The CUDA context that was current on this thread, restored on drop.
///
/// Each call into a GPU leaves that GPU's context current. This restores the context of a program that uses CUDA itself.
#[derive(Debug)]
#[must_use = "the context is restored when this is dropped"]
pub struct CurrentContext(Option<CUcontext>);

impl CurrentContext {
    /// Saves the current context. Without a driver there is none.
    pub fn save() -> Self {
        let mut context = ptr::null_mut();
        // SAFETY: `context` is valid for the write.
        let found =
            Device::cuda_count().is_ok() && unsafe { ffi::cuCtxGetCurrent(&mut context) } == 0;
        Self(found.then_some(context))
    }
}

impl Drop for CurrentContext {
    fn drop(&mut self) {
        if let Some(context) = self.0 {
            // SAFETY: the context was current on this thread; null is none. Where it has been destroyed meanwhile, the
            // driver says so, and there is nothing to restore.
            unsafe { ffi::cuCtxSetCurrent(context) };
        }
    }
}
