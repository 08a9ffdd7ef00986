//! What is behind the handles of a stream: how far it is, what it captures, and what it was given last.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, PoisonError},
};

use super::{
    buffer::Allocation,
    core::{Core, lock},
    driver::{DriverError, RawGraph, RawStream},
    error::DeviceError,
    in_flight::{InFlight, Moment},
    launch::{LaunchConfig, LaunchRecord},
    profile::Submitted,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// How many launches a stream remembers for the report of a fault.
const REMEMBERED_LAUNCHES: usize = 16;

pub(super) struct StreamInner {
    pub(super) core: Arc<Core>,
    /// `None` in the one that stands for all streams of callers, of which nobody tells when they are destroyed.
    pub(super) raw: Option<RawStream>,
    completed: AtomicU64,
    /// Number of the capture going on, 0 for none.
    capturing: AtomicU64,
    /// Held during each submission, so that a launch is either in a capture or not.
    queue: Mutex<Queue>,
    /// The last launches not known to be complete, by submission.
    recent: Mutex<VecDeque<Launched>>,
}

/// What an error says of a launch, as long as it shares the name.
struct Launched {
    submission: u64,
    name: Arc<str>,
    config: Option<LaunchConfig>,
    sequence: u64,
}

#[derive(Default)]
pub(super) struct Queue {
    submitted: u64,
    launches: u64,
    captures: u64,
    capture: Option<Capture>,
}

/// What was launched since the capture began.
#[derive(Default)]
pub(super) struct Capture {
    pub(super) kernels: Vec<Arc<str>>,
    pub(super) allocations: Vec<Arc<Allocation>>,
    pub(super) bytes: usize,
}

/// What is submitted, as errors and profiles name it.
pub(super) struct Work {
    pub(super) name: Arc<str>,
    /// The shape of a launch.
    pub(super) config: Option<LaunchConfig>,
    /// Bytes that it touches of its buffers.
    pub(super) bytes: usize,
    /// 1, or a graph's.
    pub(super) launches: usize,
}

impl Work {
    /// Work that is no launch.
    pub(super) fn named(name: impl Into<Arc<str>>, bytes: usize) -> Self {
        Self {
            name: name.into(),
            config: None,
            bytes,
            launches: 1,
        }
    }
}

impl StreamInner {
    pub(super) fn new(core: &Arc<Core>) -> Result<Arc<Self>, DeviceError> {
        core.usable()?;
        let raw = core.check(core.driver.create_stream())?;
        Ok(Self::with_raw(core, Some(raw)))
    }

    /// What stands for all streams of callers.
    pub(super) fn of_callers(core: &Arc<Core>) -> Arc<Self> {
        Self::with_raw(core, None)
    }

    fn with_raw(core: &Arc<Core>, raw: Option<RawStream>) -> Arc<Self> {
        let stream = Arc::new(Self {
            core: Arc::clone(core),
            raw,
            completed: AtomicU64::new(0),
            capturing: AtomicU64::new(0),
            queue: Mutex::default(),
            recent: Mutex::default(),
        });
        core.register(&stream);
        stream
    }

    /// Submits work that uses the allocations, or collects it where a capture is going on.
    pub(super) fn submit<'a>(
        self: &Arc<Self>,
        raw: RawStream,
        work: Work,
        allocations: impl Iterator<Item = &'a Arc<Allocation>>,
        submit: impl FnOnce(RawStream) -> Result<(), DriverError>,
    ) -> Result<(), DeviceError> {
        let core = &self.core;
        let mut queue = lock(&self.queue);
        core.usable()?;
        let captures = queue.captures;
        if let Some(capture) = &mut queue.capture {
            core.check(submit(raw))?;
            capture.kernels.push(work.name);
            capture.bytes += work.bytes;
            for allocation in allocations {
                capture.allocations.push(Arc::clone(allocation));
                allocation.in_flight().mark(self, Moment::Capture(captures));
            }
            return Ok(());
        }
        let in_flight = allocations.map(|allocation| allocation.in_flight());
        self.submit_now(&mut queue, raw, work, in_flight, submit)
    }

    /// Submits work outside a capture, which the queue's guard excludes.
    pub(super) fn submit_now<'a>(
        self: &Arc<Self>,
        queue: &mut Queue,
        raw: RawStream,
        work: Work,
        in_flight: impl Iterator<Item = &'a InFlight>,
        submit: impl FnOnce(RawStream) -> Result<(), DriverError>,
    ) -> Result<(), DeviceError> {
        let submission = queue.submitted + 1;
        {
            // Recorded before, because the driver may report the launch's fault with the launch.
            let mut recent = lock(&self.recent);
            if recent.len() == REMEMBERED_LAUNCHES {
                recent.pop_front();
            }
            queue.launches += 1;
            recent.push_back(Launched {
                submission,
                name: Arc::clone(&work.name),
                config: work.config,
                sequence: queue.launches,
            });
        }
        let submitted = self.core.check(submit(raw));
        if submitted.is_err() {
            lock(&self.recent).retain(|launched| launched.submission != submission);
            queue.launches -= 1;
            return submitted;
        }
        self.core.submitted.add(|| Submitted {
            name: work.name.to_string(),
            bytes: work.bytes,
            launches: work.launches,
        });
        queue.submitted = submission;
        for used in in_flight {
            used.mark(self, Moment::Submission(submission));
        }
        if self.core.driver.synchronous() {
            self.complete(submission);
        }
        Ok(())
    }

    /// Submits work that nothing is marked with, and that cannot be captured; also returns the number of the submission in front of it.
    pub(super) fn submit_other<T>(
        &self,
        operation: &'static str,
        submit: impl FnOnce(&Core, RawStream) -> Result<T, DriverError>,
    ) -> Result<(T, u64), DeviceError> {
        let queue = self.lock_idle(operation)?;
        let result = self.core.check(submit(&self.core, self.own()))?;
        Ok((result, queue.submitted))
    }

    /// Locks the queue of a usable device, unless it is being captured.
    pub(super) fn lock_idle(
        &self,
        operation: &'static str,
    ) -> Result<MutexGuard<'_, Queue>, DeviceError> {
        self.core.usable()?;
        let queue = lock(&self.queue);
        match queue.capture {
            Some(_) => Err(DeviceError::Capturing { operation }),
            None => Ok(queue),
        }
    }

    /// Runs a blocking copy or fill on this stream.
    pub(super) fn run_blocking(
        &self,
        submit: impl FnOnce(&Core, RawStream) -> Result<(), DriverError>,
    ) -> Result<(), DeviceError> {
        self.submit_other("a blocking copy", submit)?;
        self.synchronize()
    }

    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        let submitted = self.lock_idle("waiting for the stream")?.submitted;
        let done = match self.raw {
            // SAFETY: the stream is alive as long as `self`.
            Some(raw) => unsafe { self.core.driver.synchronize_stream(raw) },
            None if submitted <= self.completed.load(Ordering::Acquire) => return Ok(()),
            None => self.core.driver.synchronize(),
        };
        self.core.check(done)?;
        self.complete(submitted);
        Ok(())
    }

    /// The driver's stream, in operations that [`Stream::require_own`](super::Stream::require_own) guards.
    fn own(&self) -> RawStream {
        self.raw.expect("not for streams of callers")
    }

    /// Notes that everything up to a submission is done.
    pub(super) fn complete(&self, submission: u64) {
        self.completed.fetch_max(submission, Ordering::AcqRel);
        lock(&self.recent).retain(|launched| launched.submission > submission);
    }

    pub(super) fn begin_capture(&self) -> Result<(), DeviceError> {
        let mut queue = self.lock_idle("beginning another capture")?;
        // SAFETY: the stream is alive as long as `self`.
        let begun = unsafe { self.core.driver.begin_capture(self.own()) };
        self.core.check(begun)?;
        queue.captures += 1;
        queue.capture = Some(Capture::default());
        self.capturing.store(queue.captures, Ordering::Release);
        Ok(())
    }

    /// Ends the capture and returns what was captured, with the driver's executable graph of it: `into`, which is
    /// alive, where that can take it.
    pub(super) fn end_capture(
        &self,
        into: Option<RawGraph>,
    ) -> Result<(Capture, RawGraph), DeviceError> {
        let mut queue = lock(&self.queue);
        let capture = queue.capture.take().unwrap_or_default();
        self.capturing.store(0, Ordering::Release);
        let ended = self.core.usable().and_then(|()| {
            // SAFETY: the stream is alive as long as `self`, and the caller says so of the graph.
            self.core
                .check(unsafe { self.core.driver.end_capture(self.own(), into) })
        });
        drop(queue);
        self.core.release_orphans();
        Ok((capture, ended?))
    }

    /// Names of the launches captured so far.
    pub(super) fn captured(&self) -> Vec<Arc<str>> {
        let queue = lock(&self.queue);
        let capture = queue.capture.as_ref();
        capture.map_or_else(Vec::new, |capture| capture.kernels.clone())
    }

    /// Ends a capture whose graph nobody wants.
    pub(super) fn abandon_capture(&self) {
        if let Ok((_, graph)) = self.end_capture(None) {
            // SAFETY: the graph has just been made and was never launched.
            let destroyed = unsafe { self.core.driver.destroy_graph(graph) };
            if let Err(error) = self.core.check(destroyed) {
                tracing::warn!(%error, "a graph could not be destroyed");
            }
        }
    }

    pub(super) fn is_capturing(&self) -> bool {
        self.capturing.load(Ordering::Acquire) != 0
    }

    pub(super) fn is_past(&self, moment: Moment) -> bool {
        match moment {
            Moment::Submission(number) => number <= self.completed.load(Ordering::Acquire),
            Moment::Capture(number) => number != self.capturing.load(Ordering::Acquire),
        }
    }

    pub(super) fn is_of_other_lost(&self, core: &Core) -> bool {
        !std::ptr::eq(Arc::as_ptr(&self.core), core) && self.core.is_lost()
    }

    pub(super) fn wait_for(&self, moment: Moment) -> Result<(), DeviceError> {
        match moment {
            _ if self.is_past(moment) => Ok(()),
            Moment::Submission(_) => self.synchronize(),
            Moment::Capture(_) => Err(DeviceError::Capturing {
                operation: "reading, writing or freeing a buffer of the graph",
            }),
        }
    }

    pub(super) fn pending_launches(&self) -> Vec<LaunchRecord> {
        lock(&self.recent)
            .iter()
            .map(|launched| LaunchRecord {
                kernel: launched.name.to_string(),
                config: launched.config,
                sequence: launched.sequence,
            })
            .collect()
    }
}

impl Drop for StreamInner {
    fn drop(&mut self) {
        let queue = self.queue.get_mut().unwrap_or_else(PoisonError::into_inner);
        if queue.submitted > self.completed.load(Ordering::Acquire) {
            self.core.leave_unwaited();
        }
        if let Some(raw) = self.raw
            && !self.core.is_lost()
        {
            // SAFETY: no handle is left. The driver lets submitted work complete.
            let destroyed = unsafe { self.core.driver.destroy_stream(raw) };
            if let Err(error) = self.core.check(destroyed) {
                tracing::warn!(%error, "a stream could not be destroyed");
            }
        }
    }
}

impl fmt::Debug for StreamInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamInner")
            .field("raw", &self.raw)
            .finish_non_exhaustive()
    }
}
