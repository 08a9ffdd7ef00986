//! The part of a device that everything made on it shares: its driver, and whether it is lost.

use std::{
    env,
    sync::{Arc, OnceLock, PoisonError, Weak},
};

use super::{
    buffer::Allocation,
    driver::{Driver, DriverError, MemorySpace, RawGraph},
    error::DeviceError,
    in_flight::InFlight,
    launch::LaunchRecord,
    pool::Pool,
    profile::{Collector, Submitted},
    queue::StreamInner,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

/// Set to `0`, this environment variable has devices open with programmatic launches off.
const PROGRAMMATIC_LAUNCH: &str = "BITNET_PROGRAMMATIC_LAUNCH";

/// Locks a mutex whose data stays consistent even where a holder panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Not `Debug`, so that nothing that holds it can derive that: it would print all that the device has, an emulated one's memory included.
pub(super) struct Core {
    pub(super) driver: Box<dyn Driver>,
    /// As errors name the device, such as `cuda:0 (NVIDIA H200)`.
    pub(super) name: String,
    /// Whether kernels that wait by themselves are launched early.
    pub(super) programmatic_launch: AtomicBool,
    lost: OnceLock<(String, Vec<LaunchRecord>)>,
    streams: Mutex<Vec<Weak<StreamInner>>>,
    /// Whether a stream has gone whose work nobody has waited for.
    unwaited: AtomicBool,
    orphans: Mutex<Vec<Orphan>>,
    /// For profiles.
    pub(super) submitted: Collector<Submitted>,
    /// Where buffers come from, if not from the driver; `pinned_pool` is set before `pool`, with `enabling_pool` locked.
    pub(super) pool: OnceLock<Pool>,
    pub(super) pinned_pool: OnceLock<Pool>,
    pub(super) enabling_pool: Mutex<()>,
}

/// Something whose owner is gone, but which work on the device may still use.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) resource: Resource,
    pub(super) in_flight: InFlight,
    /// What the resource needs as long as it exists.
    pub(super) allocations: Vec<Arc<Allocation>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Resource {
    Memory(MemorySpace, u64),
    Graph(RawGraph),
}

impl Core {
    pub(super) fn new(driver: Box<dyn Driver>, name: String) -> Arc<Self> {
        let can = driver.capabilities().programmatic_launch;
        let wanted = env::var_os(PROGRAMMATIC_LAUNCH).is_none_or(|value| value != "0");
        Arc::new(Self {
            driver,
            name,
            programmatic_launch: AtomicBool::new(can && wanted),
            lost: OnceLock::new(),
            streams: Mutex::default(),
            unwaited: AtomicBool::new(false),
            orphans: Mutex::default(),
            submitted: Collector::default(),
            pool: OnceLock::new(),
            pinned_pool: OnceLock::new(),
            enabling_pool: Mutex::default(),
        })
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// Fails once the device is lost, so that no call reaches a context that is gone.
    #[inline]
    pub(super) fn usable(&self) -> Result<(), DeviceError> {
        match self.lost.get() {
            None => Ok(()),
            Some(lost) => Err(self.lost_error(lost)),
        }
    }

    #[cold]
    fn lost_error(&self, (cause, launches): &(String, Vec<LaunchRecord>)) -> DeviceError {
        DeviceError::Lost {
            device: self.name.clone(),
            cause: cause.clone(),
            launches: launches.clone(),
        }
    }

    /// Turns a driver's error into the library's, and remembers a fault.
    pub(super) fn check<T>(&self, result: Result<T, DriverError>) -> Result<T, DeviceError> {
        result.map_err(|error| self.translate(error))
    }

    fn translate(&self, error: DriverError) -> DeviceError {
        let device = self.name.clone();
        match error {
            DriverError::OutOfMemory { requested } => {
                let (free, total) = self.driver.memory_info().unwrap_or_default();
                DeviceError::OutOfMemory {
                    device,
                    requested,
                    free,
                    total,
                }
            }
            DriverError::PinnedMemory { requested, reason } => DeviceError::PinnedMemory {
                device,
                requested,
                reason,
            },
            DriverError::Fault { cause } => {
                if let Some(lost) = self.lost.get() {
                    return self.lost_error(lost);
                }
                // Before the cell is being set: this may be the last to hold a stream, whose drop may come here again.
                let launches = self.pending_launches();
                self.lost_error(self.lost.get_or_init(|| (cause, launches)))
            }
            DriverError::InvalidPtx { log } => DeviceError::InvalidPtx { device, log },
            DriverError::NoSuchKernel { kernel } => DeviceError::NoSuchKernel { kernel },
            DriverError::UnknownParameters { kernel, reason } => {
                DeviceError::UnknownParameters { kernel, reason }
            }
            DriverError::LaunchRefused { kernel, reason } => DeviceError::LaunchRefused {
                device,
                kernel,
                reason,
            },
            DriverError::ReadOnlyArgument {
                kernel,
                index,
                bytes,
            } => DeviceError::ReadOnlyArgument {
                kernel,
                index,
                bytes,
            },
            DriverError::Code { call, name, code } => DeviceError::Driver {
                device,
                call,
                name,
                code,
            },
        }
    }

    /// The pool that memory of that space comes from, if not from the driver.
    pub(super) fn pool_of(&self, space: MemorySpace) -> Option<&Pool> {
        match space {
            MemorySpace::Device => self.pool.get(),
            MemorySpace::PinnedHost => self.pinned_pool.get(),
        }
    }

    pub(super) fn pools(&self) -> impl Iterator<Item = &Pool> {
        [&self.pool, &self.pinned_pool]
            .into_iter()
            .filter_map(OnceLock::get)
    }

    pub(super) fn register(&self, stream: &Arc<StreamInner>) {
        let mut streams = lock(&self.streams);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(stream));
    }

    pub(super) fn streams(&self) -> Vec<Arc<StreamInner>> {
        lock(&self.streams)
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Waits for what was submitted to the streams that there are.
    pub(super) fn synchronize_streams(&self) -> Result<(), DeviceError> {
        self.streams()
            .iter()
            .try_for_each(|stream| stream.synchronize())
    }

    /// Notes that a stream goes with work that is not known to be done.
    pub(super) fn leave_unwaited(&self) {
        self.unwaited.store(true, Ordering::Release);
    }

    /// Waits for everything that was ever submitted, and for nothing else where that can be told: waiting for the whole context would wait for other
    /// libraries' work, and spoil a graph that one of them captures.
    pub(super) fn finish(&self) -> Result<(), DeviceError> {
        self.usable()?;
        if self.unwaited.load(Ordering::Acquire) {
            return self.check(self.driver.synchronize());
        }
        self.synchronize_streams()
    }

    fn pending_launches(&self) -> Vec<LaunchRecord> {
        self.streams()
            .iter()
            .flat_map(|stream| stream.pending_launches())
            .collect()
    }

    /// Gives a resource back to the driver as soon as no work can use it: at once where that is possible,
    /// later where one of its streams is being captured just now.
    pub(super) fn release(&self, orphan: Orphan) {
        if self.is_lost() {
            return;
        }
        match orphan.in_flight.wait(self) {
            Ok(()) => {
                // SAFETY: the owner is gone and no submitted work uses the resource any more.
                let released = unsafe {
                    match orphan.resource {
                        Resource::Memory(space, address) => self.driver.free_in(space, address),
                        Resource::Graph(graph) => self.driver.destroy_graph(graph),
                    }
                };
                // The resource was the last to need them.
                drop(orphan.allocations);
                if let Err(error) = self.check(released) {
                    tracing::warn!(%error, resource = ?orphan.resource, "could not be released");
                }
            }
            Err(DeviceError::Capturing { .. }) => lock(&self.orphans).push(orphan),
            // Either the fault has freed everything, or the driver cannot say that the work is done: then
            // keeping the resource is the sound choice.
            Err(error) => {
                tracing::warn!(%error, resource = ?orphan.resource, "could not be released");
            }
        }
    }

    /// Releases what had to wait for the end of a capture.
    pub(super) fn release_orphans(&self) {
        let orphans = std::mem::take(&mut *lock(&self.orphans));
        for orphan in orphans {
            self.release(orphan);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn a_device_forgets_the_streams_that_are_gone() {
        let device = Device::emulated().expect("the default configuration is valid");
        let kept = || lock(&device.core().streams).len();
        let before = kept();
        for _ in 0..100 {
            device.new_stream().unwrap();
            // The last one goes with the next.
            assert!(kept() <= before + 1);
        }
    }
}
