//! Work that this library does not launch itself, such as kernels of other libraries, on a stream of a device.

use std::ffi::c_void;
use std::sync::Arc;

use super::{
    Buffer, DeviceError, DeviceKind, Function, Stream, buffer::Allocation, driver::DriverError,
    queue::Work,
};

/// How another library's call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed with {name} ({code})")]
pub struct ForeignError {
    /// The function that was called.
    pub call: &'static str,
    /// Its error, by name.
    pub name: String,
    /// Its error, by number.
    pub code: i32,
}

/// Memory of a [`Buffer`], whatever its type: what foreign work reads or writes.
#[derive(Debug, Clone, Copy)]
pub struct ForeignUse<'a>(&'a Arc<Allocation>);

impl<T: bytemuck::Pod> Buffer<T> {
    /// Device address of the first element, for a driver or library that takes raw pointers.
    ///
    /// On the emulated device it is an address in the emulator's memory, which nothing else can use. The address is valid as long
    /// as the buffer; pass the buffer to [`Stream::submit_foreign`] so that it outlives the work.
    pub fn device_ptr(&self) -> u64 {
        self.allocation().address()
    }

    /// Declares this buffer as used by foreign work.
    pub fn foreign_use(&self) -> ForeignUse<'_> {
        ForeignUse(self.allocation())
    }
}

impl Function {
    /// The driver's handle, a `CUfunction` on a GPU; valid as long as the device is open.
    pub fn raw_handle(&self) -> *mut c_void {
        self.info().raw.0 as *mut c_void
    }
}

impl Stream {
    /// Submits work of another library: calls `submit` with the driver's handle of the stream (a `CUstream`, which is the same as
    /// a `cudaStream_t`), with the device's context current on this thread.
    ///
    /// The work is ordered with the stream's other work, is recorded like a launch while the stream is being captured, and keeps
    /// the buffers in `uses` alive until it is done. Errors refer to it as `name`.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] on the emulated device, [`DeviceError::DeviceMismatch`] for another device's buffer,
    /// [`DeviceError::Driver`] with what `submit` returned.
    ///
    /// # Safety
    /// `submit` must submit work to no other stream, leave the context current, and neither destroy nor keep the handle. The work
    /// must access device memory only inside the buffers of `uses` (or memory that outlives it and that no buffer of this library
    /// owns), and write to a buffer only if the caller holds it mutably. If the stream is being captured, it must be possible to
    /// replay the work as long as the buffers of `uses` live.
    pub unsafe fn submit_foreign(
        &self,
        name: &str,
        uses: &[ForeignUse<'_>],
        submit: impl FnOnce(*mut c_void) -> Result<(), ForeignError>,
    ) -> Result<(), DeviceError> {
        if self.device().kind() != DeviceKind::Cuda {
            return Err(DeviceError::Unsupported {
                operation: "work of another library",
                device: self.device().name().to_owned(),
            });
        }
        for (index, used) in uses.iter().enumerate() {
            if !Arc::ptr_eq(used.0.core(), self.device().core()) {
                let what = format!("buffer {index} of {name}");
                return Err(self.device().mismatch(what, used.0.core()));
            }
        }
        let core = self.device().core();
        let bytes = uses.iter().map(|used| used.0.len()).sum();
        self.submit(
            Work::named(name, bytes),
            uses.iter().map(|used| used.0),
            |raw| {
                core.driver.make_current()?;
                submit(raw.0 as *mut c_void).map_err(|ForeignError { call, name, code }| {
                    DriverError::Code { call, name, code }
                })
            },
        )
    }
}
