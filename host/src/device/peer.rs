//! Copies from buffer to buffer, on one device or between two.

use std::{ops::Range, sync::Arc};

use bytemuck::Pod;

use super::{
    Buffer, Device, DeviceError, Stream,
    driver::{DriverError, Pitched, RawStream},
};

impl Device {
    /// Whether this device can copy from the memory of `peer` without going through the host (peer access over NVLink or PCIe).
    ///
    /// # Errors
    ///
    /// [`DeviceError::Lost`], and any other error of the driver.
    pub fn can_access_peer(&self, peer: &Device) -> Result<bool, DeviceError> {
        if self == peer {
            return Ok(true);
        }
        let (core, other) = (self.core(), peer.core());
        core.usable()?;
        other.usable()?;
        core.check(core.driver.reaches(&*other.driver))
    }
}

impl<T: Pod> Buffer<T> {
    /// Submits a copy of another buffer of the same length, which may be on another device, to a stream of this buffer's
    /// device.
    ///
    /// On one device, or with peer access, this returns at once, and the copy is ordered with the stream's other work;
    /// [`Stream::wait`] orders it after work of the other device. Otherwise the copy goes through the host, after all work
    /// submitted with the two buffers, and is complete on return.
    ///
    /// # Errors
    ///
    /// [`DeviceError::CopyLength`], [`DeviceError::DeviceMismatch`] where the stream is not of this buffer's device,
    /// [`DeviceError::Capturing`] while it is being captured, [`DeviceError::Unsupported`] on a stream of the caller's.
    pub fn copy_from_buffer(
        &mut self,
        stream: &Stream,
        from: &Buffer<T>,
    ) -> Result<(), DeviceError> {
        if from.len() != self.len() {
            return Err(DeviceError::CopyLength {
                from: from.len(),
                to: self.len(),
            });
        }
        self.copy_range(stream, 0, from, 0..from.len())
    }

    /// As [`Buffer::copy_from_buffer`], from the elements `range` of `from` to this buffer's elements starting at `first`.
    ///
    /// # Errors
    ///
    /// As [`Buffer::copy_from_buffer`], but [`DeviceError::CopyRange`] where a range goes beyond its buffer, or ends before it starts.
    pub fn copy_range(
        &mut self,
        stream: &Stream,
        first: usize,
        from: &Buffer<T>,
        range: Range<usize>,
    ) -> Result<(), DeviceError> {
        const OPERATION: &str = "copy from a buffer";
        let within = |direction, range: &Range<usize>, buffer: &Self| {
            if range.start <= range.end && range.end <= buffer.len() {
                return Ok(());
            }
            Err(DeviceError::CopyRange {
                direction,
                start: range.start,
                end: range.end,
                len: buffer.len(),
            })
        };
        within("from", &range, from)?;
        let len = range.len();
        within("to", &(first..first.saturating_add(len)), self)?;
        stream.device().require("the buffer", self.device())?;
        if len == 0 {
            return Ok(());
        }
        let at = |first: usize| (first * size_of::<T>()) as u64;
        let (to_address, from_address) = (
            self.allocation().address() + at(first),
            from.allocation().address() + at(range.start),
        );
        let bytes = len * size_of::<T>();
        let (core, other) = (self.device().core(), from.device().core());
        let allocations = [self.allocation(), from.allocation()];
        if Arc::ptr_eq(core, other) {
            let all = |address| Pitched {
                address,
                pitch: bytes,
            };
            let submit = |raw: RawStream| {
                // SAFETY: the stream is alive as long as the borrow; both ranges are within allocations, which the marks of
                // the submission keep.
                unsafe {
                    core.driver
                        .copy_rows(raw, all(to_address), all(from_address), bytes, 1)
                }
            };
            return stream.submit_copy(OPERATION, 2 * bytes, allocations, submit);
        }
        if self.device().can_access_peer(from.device())? {
            return stream.submit_copy(
                OPERATION,
                2 * bytes,
                allocations,
                |raw: RawStream| -> Result<(), DriverError> {
                    // SAFETY: as above; the allocations are of these two drivers.
                    unsafe {
                        core.driver.copy_from_peer(
                            raw,
                            to_address,
                            &*other.driver,
                            from_address,
                            bytes,
                        )
                    }
                },
            );
        }
        stream.require_own(OPERATION)?;
        drop(stream.inner().lock_idle(OPERATION)?);
        let mut host = vec![0_u8; bytes];
        from.run(|core, stream, _| {
            // SAFETY: the range is within the allocation, whose earlier users are done; `host` outlives the stream's
            // synchronization, which `run` waits for.
            unsafe { core.driver.copy_to_host(stream, &mut *host, from_address) }
        })?;
        self.run(|core, stream, _| {
            // SAFETY: as above.
            unsafe { core.driver.copy_to_device(stream, to_address, &*host) }
        })
    }
}
