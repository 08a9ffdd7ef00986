use std::{fmt, sync::Arc};

use super::{
    Device,
    buffer::Allocation,
    driver::{DriverError, RawStream},
    error::DeviceError,
    event::Event,
    launch::{self, KernelArg, LaunchConfig},
    module::Function,
    queue::{StreamInner, Work},
};

/// A queue of work on one device. Work runs in the order of submission, asynchronously on a GPU.
///
/// Two streams run independently, unless [`wait`](Self::wait) orders them. Blocking copies of a [`Buffer`](super::Buffer) wait
/// for the streams that use the buffer, so no manual synchronization is needed.
///
/// A `Stream` is a cheap handle; clones are the same queue. It can be used from several threads at once; their submissions then
/// interleave. Dropping the last handle does not wait: submitted work completes, and what it uses stays alive until then.
#[derive(Clone)]
pub struct Stream {
    device: Device,
    inner: Arc<StreamInner>,
    /// What work is submitted to: the stream of `inner`, or one of the caller's.
    raw: RawStream,
    /// Whether launches through this handle may be programmatic.
    programmatic: bool,
}

impl Stream {
    pub(super) fn new(device: &Device) -> Result<Self, DeviceError> {
        let inner = StreamInner::new(device.core())?;
        Ok(Self::from_inner(device, inner))
    }

    pub(super) fn from_inner(device: &Device, inner: Arc<StreamInner>) -> Self {
        let raw = inner.raw.unwrap_or(RawStream(0));
        Self::from_parts(device, inner, raw)
    }

    pub(super) fn from_parts(device: &Device, inner: Arc<StreamInner>, raw: RawStream) -> Self {
        Self {
            device: device.clone(),
            inner,
            raw,
            programmatic: true,
        }
    }

    /// Another handle of the same queue, through which no kernel is launched early, whatever [`Device::programmatic_launch`]
    /// says: each starts when the preceding one has finished, also in a graph that is captured through it.
    pub fn in_turn(&self) -> Self {
        Self {
            programmatic: false,
            ..self.clone()
        }
    }

    /// Whether a kernel that can start early is launched so: [`Device::programmatic_launch`], unless the handle is of
    /// [`Stream::in_turn`].
    pub(crate) fn launches_early(&self) -> bool {
        self.programmatic && self.device.programmatic_launch()
    }

    /// The device that the stream belongs to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Waits until all work submitted so far is done.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Lost`] where that work failed, [`DeviceError::Capturing`] while the stream is being
    /// captured.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        if self.inner.raw.is_some() {
            return self.inner.synchronize();
        }
        let core = &self.inner.core;
        core.usable()?;
        // SAFETY: the caller of `from_raw` keeps the stream alive.
        core.check(unsafe { core.driver.synchronize_stream(self.raw) })
    }

    /// Records an event at this point of the stream.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] on a stream of the caller's; see [`Stream::from_raw`].
    pub fn record(&self) -> Result<Event, DeviceError> {
        self.require_own("recording an event on a stream of the caller")?;
        let (raw, submission) = self
            .inner
            .submit_other("recording an event", |core, stream| {
                // SAFETY: the stream is alive as long as `self`.
                unsafe { core.driver.record_event(stream) }
            })?;
        Ok(Event::new(&self.device, &self.inner, raw, submission))
    }

    /// Makes all work submitted from now on wait for the event, without blocking the calling thread.
    ///
    /// The event may belong to another device. If one of the two is a GPU and the other is emulated, the calling thread waits.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] on a stream of the caller's; see [`Stream::from_raw`].
    pub fn wait(&self, event: &Event) -> Result<(), DeviceError> {
        self.require_own("waiting for an event on a stream of the caller")?;
        let (core, other) = (self.device.core(), event.device().core());
        other.usable()?;
        if core.driver.kind() != other.driver.kind() {
            // Nothing else knows both.
            return event.synchronize();
        }
        self.inner
            .submit_other("waiting for an event", |core, stream| {
                // SAFETY: stream and event are alive as long as the borrows, and the event is of the driver that it is said to.
                unsafe {
                    if *event.device() == self.device {
                        core.driver.wait_event(stream, event.raw())
                    } else {
                        core.driver
                            .wait_peer_event(stream, &*other.driver, event.raw())
                    }
                }
            })?;
        Ok(())
    }

    /// Launches a kernel: checks the launch, submits it and returns.
    ///
    /// The allocations stay alive until the kernel is done.
    pub(crate) fn launch(
        &self,
        function: &Function,
        config: LaunchConfig,
        args: &[KernelArg<'_>],
    ) -> Result<(), DeviceError> {
        let parameters = launch::check(&self.device, function, &config, args)?;
        let core = &self.inner.core;
        let early = function.info().waits && !config.cooperative && self.launches_early();
        let submit = |stream| {
            // SAFETY: `check` has established that function, arguments and limits are this device's. The
            // allocations are kept alive by the marks below, or by the capture.
            unsafe {
                core.driver.launch(
                    stream,
                    function.name(),
                    function.info(),
                    &config,
                    early,
                    &parameters,
                )
            }
        };
        let pointers = args.iter().filter_map(|arg| match arg {
            KernelArg::Pointer {
                allocation, bytes, ..
            } => Some((*allocation, *bytes)),
            KernelArg::Scalar { .. } => None,
        });
        let work = Work {
            name: Arc::clone(function.shared_name()),
            config: Some(config),
            bytes: pointers.clone().map(|(_, bytes)| bytes).sum(),
            launches: 1,
        };
        self.submit(work, pointers.map(|(allocation, _)| allocation), submit)
    }

    /// Submits work that uses the allocations, or collects it where the stream is being captured.
    pub(super) fn submit<'a>(
        &self,
        work: Work,
        allocations: impl Iterator<Item = &'a Arc<Allocation>>,
        submit: impl FnOnce(RawStream) -> Result<(), DriverError>,
    ) -> Result<(), DeviceError> {
        self.inner.submit(self.raw, work, allocations, submit)
    }

    /// Submits a copy, which no graph can have.
    pub(super) fn submit_copy(
        &self,
        operation: &'static str,
        bytes: usize,
        allocations: [&Arc<Allocation>; 2],
        submit: impl FnOnce(RawStream) -> Result<(), DriverError>,
    ) -> Result<(), DeviceError> {
        self.require_own(operation)?;
        let mut queue = self.inner.lock_idle(operation)?;
        if allocations[0].len() == 0 {
            return Ok(());
        }
        let in_flight = allocations.iter().map(|allocation| allocation.in_flight());
        let work = Work::named(operation, bytes);
        self.inner
            .submit_now(&mut queue, self.raw, work, in_flight, submit)
    }

    /// Fails where the stream is one of the caller's.
    pub(super) fn require_own(&self, operation: &'static str) -> Result<(), DeviceError> {
        match self.inner.raw {
            Some(_) => Ok(()),
            None => Err(DeviceError::Unsupported {
                operation,
                device: self.device.name().to_owned(),
            }),
        }
    }

    /// Whether the next launch is known to run after all earlier ones: not during a capture, and not on a caller's stream, because all callers'
    /// streams share one record.
    pub(crate) fn orders_its_launches(&self) -> bool {
        self.inner.raw.is_some() && !self.inner.is_capturing()
    }

    pub(super) fn raw(&self) -> RawStream {
        self.raw
    }

    pub(super) fn inner(&self) -> &Arc<StreamInner> {
        &self.inner
    }
}

/// Whether both are handles of the same queue.
impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) && self.raw == other.raw
    }
}

impl Eq for Stream {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({}, {:#x})", self.inner.core.name, self.raw.0)
    }
}
