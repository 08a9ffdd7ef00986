use std::sync::Arc;

use super::{Device, driver::RawEvent, error::DeviceError, queue::StreamInner};

/// A point in a stream's work, created by [`Stream::record`](super::Stream::record).
///
/// It can be waited for and measured from any thread, and dropped at any time.
#[derive(Debug)]
pub struct Event {
    device: Device,
    stream: Arc<StreamInner>,
    raw: RawEvent,
    submission: u64,
}

impl Event {
    pub(super) fn new(
        device: &Device,
        stream: &Arc<StreamInner>,
        raw: RawEvent,
        submission: u64,
    ) -> Self {
        Self {
            device: device.clone(),
            stream: Arc::clone(stream),
            raw,
            submission,
        }
    }

    /// The device that the event belongs to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn raw(&self) -> RawEvent {
        self.raw
    }

    /// Waits until the stream has reached this point.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Lost`] if work before it failed.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        let core = self.device.core();
        core.usable()?;
        // SAFETY: the event is alive as long as `self`.
        core.check(unsafe { core.driver.synchronize_event(self.raw) })?;
        self.stream.complete(self.submission);
        Ok(())
    }

    /// Milliseconds of device time from this event to `end`, after waiting for both; `None` on the emulated device, which has no
    /// clock.
    ///
    /// # Errors
    ///
    /// [`DeviceError::DeviceMismatch`] if `end` belongs to another device, [`DeviceError::Lost`] if work before one of them
    /// failed.
    pub fn elapsed_ms(&self, end: &Event) -> Result<Option<f32>, DeviceError> {
        self.device.require("the end event", &end.device)?;
        self.synchronize()?;
        end.synchronize()?;
        let core = self.device.core();
        // SAFETY: both events are of this device, as just checked, alive and completed.
        core.check(unsafe { core.driver.elapsed_ms(self.raw, end.raw) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let core = self.device.core();
        if !core.is_lost() {
            // SAFETY: no handle is left. A stream that still waits for the event is not disturbed.
            if let Err(error) = core.check(unsafe { core.driver.destroy_event(self.raw) }) {
                tracing::warn!(%error, "an event could not be destroyed");
            }
        }
    }
}
