//! Devices, their memory, streams, events, graphs and modules: one interface, two drivers.
//!
//! A [`Device`] is an NVIDIA GPU, reached through the CUDA driver, or the PTX emulator on the CPU. Both run the
//! same PTX, and everything above the driver call (limits, argument checks, ownership, what a fault leaves
//! behind) is the same code.
//!
//! # Ownership
//!
//! Every object keeps its device open, and objects can be dropped in any order. Memory, graphs and code stay alive until the work
//! submitted with them is done: a stream counts its submissions, each buffer and graph remembers the last one that used it, and
//! its drop waits for that one.
//!
//! # Threads
//!
//! All types except [`CurrentContext`], which concerns one thread, are `Send` and `Sync`. On a GPU each call makes the device's
//! primary context current on the calling thread and leaves it current, as the CUDA runtime does.
//!
//! # Faults
//!
//! Work runs asynchronously on a GPU, so a kernel's fault appears in a later call. It is reported as [`DeviceError::Lost`] with
//! the launches that may have caused it; from then on, every call on that device returns the same error and nothing reaches the
//! driver. [`Device::cuda`] opens the GPU again, if the driver allows it. The emulator reports a fault in the launch itself.

mod buffer;
mod capabilities;
mod core;
mod cuda;
mod driver;
mod emulated;
mod error;
mod event;
mod external;
mod foreign;
mod graph;
mod in_flight;
mod launch;
mod module;
mod open;
mod pages;
mod peer;
mod pinned;
mod pool;
mod profile;
mod queue;
mod stream;
mod sync;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
    thread,
};

pub use self::{
    buffer::Buffer,
    capabilities::{Capabilities, DeviceKind},
    driver::MemorySpace,
    emulated::EmulatedConfig,
    error::DeviceError,
    event::Event,
    external::CurrentContext,
    foreign::{ForeignError, ForeignUse},
    graph::Graph,
    launch::{LaunchConfig, LaunchRecord},
    module::{Function, Module},
    pinned::PinnedBuffer,
    pool::{
        HybridMemoryPool, LeakReport, LiveAllocation, MemoryMetrics, MemoryPoolConfig,
        PressureLevel, TrackingLevel, WeakMemoryPool,
    },
    profile::{ArgumentTraffic, LaunchReport},
    stream::Stream,
};
pub(crate) use self::{launch::KernelArg, profile::Submitted};

use self::{
    core::{Core, lock},
    driver::Driver,
    module::ModuleInner,
    pool::Pool,
    queue::StreamInner,
    sync::{Mutex, atomic::Ordering},
};

/// A device's memory, as [`Device::memory_info`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Bytes that can be allocated.
    pub free_bytes: usize,
    /// All of the device's bytes.
    pub total_bytes: usize,
}

/// An open device: a GPU or the emulator.
///
/// A cheap handle; clones refer to the same device, and `==` compares devices. The device is closed when the last handle and the
/// last object created on it are dropped.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

/// A handle that does not keep its device open; see [`Device::downgrade`].
#[derive(Debug, Clone)]
pub struct WeakDevice(Weak<Inner>);

impl WeakDevice {
    /// The device, if it is still open.
    pub fn upgrade(&self) -> Option<Device> {
        self.0.upgrade().map(Device)
    }
}

struct Inner {
    core: Arc<Core>,
    default_stream: Arc<StreamInner>,
    /// Runs blocking copies, so that they work while other streams are being captured.
    transfers: Arc<StreamInner>,
    /// Stands for all streams that callers have made.
    of_callers: Arc<StreamInner>,
    modules: Mutex<HashMap<Arc<str>, Arc<ModuleInner>>>,
    /// The same modules by the address of a text that lives as long as the program: hashing the text takes longer
    /// than a launch.
    static_modules: Mutex<HashMap<usize, Arc<ModuleInner>>>,
}

impl Device {
    fn new(driver: Box<dyn Driver>, name: String) -> Result<Self, DeviceError> {
        let core = Core::new(driver, name);
        Ok(Self(Arc::new(Inner {
            default_stream: StreamInner::new(&core)?,
            transfers: StreamInner::new(&core)?,
            of_callers: StreamInner::of_callers(&core),
            core,
            modules: Mutex::default(),
            static_modules: Mutex::default(),
        })))
    }

    /// A handle that does not keep the device open.
    pub fn downgrade(&self) -> WeakDevice {
        WeakDevice(Arc::downgrade(&self.0))
    }

    /// The device's name, such as `cuda:0 (NVIDIA H200)` or `emulated (sm_90)`.
    pub fn name(&self) -> &str {
        &self.0.core.name
    }

    /// Whether this is a GPU or the emulator.
    pub fn kind(&self) -> DeviceKind {
        self.0.core.driver.kind()
    }

    /// Compute capability, major and minor: `(9, 0)` for sm_90.
    pub fn compute_capability(&self) -> (u32, u32) {
        self.capabilities().compute_capability
    }

    /// What the device can do.
    pub fn capabilities(&self) -> &Capabilities {
        self.0.core.driver.capabilities()
    }

    /// Whether this library's kernels use programmatic dependent launch: a kernel starts before the preceding one on its stream
    /// has finished, prefetches its weights into L2, waits for the preceding kernel, and only then reads and writes memory.
    /// Results are the same; launch latency and the latency of the first loads are hidden behind the preceding kernel.
    pub fn programmatic_launch(&self) -> bool {
        self.0.core.programmatic_launch.load(Ordering::Relaxed)
    }

    /// Turns [`programmatic_launch`](Self::programmatic_launch) on or off, for later launches and captures, through all handles
    /// of this device. It is on by default if [`Capabilities::programmatic_launch`] says that it is possible, unless the
    /// environment has `BITNET_PROGRAMMATIC_LAUNCH=0`, and stays off if it is not possible.
    pub fn set_programmatic_launch(&self, on: bool) {
        let on = on && self.capabilities().programmatic_launch;
        let flag = &self.0.core.programmatic_launch;
        flag.store(on, Ordering::Relaxed);
    }

    /// How much device memory there is. Memory held by a pool is not free.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Lost`] on a lost device.
    pub fn memory_info(&self) -> Result<MemoryInfo, DeviceError> {
        self.0.core.usable()?;
        let (free_bytes, total_bytes) = self.0.core.check(self.0.core.driver.memory_info())?;
        Ok(MemoryInfo {
            free_bytes,
            total_bytes,
        })
    }

    /// Whether the device was lost to a fault; see [`DeviceError::Lost`].
    pub fn is_lost(&self) -> bool {
        self.0.core.is_lost()
    }

    /// The device's default stream.
    ///
    /// It is an ordinary stream and does not wait for others, unlike CUDA's legacy default stream.
    pub fn default_stream(&self) -> Stream {
        Stream::from_inner(self, Arc::clone(&self.0.default_stream))
    }

    /// Creates a stream.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver creates no more streams, [`DeviceError::Lost`] on a lost device.
    pub fn new_stream(&self) -> Result<Stream, DeviceError> {
        Stream::new(self)
    }

    /// Waits until the work submitted so far on all streams is done.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Lost`] if work failed, [`DeviceError::Capturing`] while a stream is being captured.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.0.core.synchronize_streams()
    }

    /// Loads PTX text, or returns the module already loaded from the same text.
    ///
    /// # Errors
    ///
    /// [`DeviceError::PtxTarget`] for PTX of an architecture that the device cannot run, [`DeviceError::InvalidPtx`] with the
    /// compiler's message for invalid PTX.
    pub fn load_module(&self, ptx: &str) -> Result<Module, DeviceError> {
        let core = &self.0.core;
        core.usable()?;
        // Locked during the compilation, so that two threads do not compile the same text.
        let mut modules = lock(&self.0.modules);
        let inner = match modules.get(ptx) {
            Some(inner) => Arc::clone(inner),
            None => {
                module::require_target(ptx, self)?;
                let ptx: Arc<str> = ptx.into();
                let raw = core.check(core.driver.load_module(&ptx))?;
                let inner = Arc::new(ModuleInner::new(raw, Arc::clone(&ptx)));
                modules.insert(ptx, Arc::clone(&inner));
                inner
            }
        };
        Ok(Module::from_inner(self, inner))
    }

    /// [`Device::load_module`] of a text that is part of the program, at the cost of a look-up after the first time.
    pub(crate) fn load_static_module(&self, ptx: &'static str) -> Result<Module, DeviceError> {
        self.0.core.usable()?;
        // A `&'static str` is never freed, so its address names it.
        let address = ptx.as_ptr().addr();
        if let Some(inner) = lock(&self.0.static_modules).get(&address) {
            return Ok(Module::from_inner(self, Arc::clone(inner)));
        }
        let module = self.load_module(ptx)?;
        lock(&self.0.static_modules).insert(address, module.inner());
        Ok(module)
    }

    /// Runs `work` and returns its result with the emulator's counts of each launch on this device meanwhile, in the order of
    /// completion, including the launches of replayed graphs.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] on a GPU, which does not count.
    pub fn profile<R>(
        &self,
        work: impl FnOnce() -> R,
    ) -> Result<(R, Vec<LaunchReport>), DeviceError> {
        match self.0.core.driver.profiler() {
            Some(profiler) => Ok(profiler.collect(None, work)),
            None => Err(DeviceError::Unsupported {
                operation: "counting instructions and traffic",
                device: self.name().to_owned(),
            }),
        }
    }

    /// Runs `work` and returns what this thread submitted on this device meanwhile, with the emulator's counts of it.
    pub(crate) fn observe<R>(
        &self,
        work: impl FnOnce() -> R,
    ) -> (R, Vec<Submitted>, Vec<LaunchReport>) {
        let core = self.core();
        let here = Some(thread::current().id());
        let ((result, reports), submitted) =
            core.submitted
                .collect(here, || match core.driver.profiler() {
                    Some(profiler) => profiler.collect(here, work),
                    None => (work(), Vec::new()),
                });
        (result, submitted, reports)
    }

    fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    fn transfers(&self) -> &StreamInner {
        &self.0.transfers
    }

    /// Fails where `what` belongs to another device than this one.
    pub(crate) fn require(&self, what: &str, found: &Device) -> Result<(), DeviceError> {
        if self == found {
            Ok(())
        } else {
            Err(self.mismatch(what.to_owned(), found.core()))
        }
    }

    fn mismatch(&self, what: String, found: &Core) -> DeviceError {
        DeviceError::DeviceMismatch {
            what,
            found: found.name.clone(),
            expected: self.name().to_owned(),
        }
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.core, &other.0.core)
    }
}

impl Eq for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.name())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let was_lost = self.core.is_lost();
        if let Err(error) = self.core.finish() {
            if !was_lost {
                tracing::warn!(%error, "the device's last work could not be waited for: its code and its pool stay until the context ends");
            }
            // What is pending names streams, which hold the core, which holds the pool.
            self.core.pools().for_each(Pool::abandon);
            return;
        }
        self.core.release_orphans();
        for pool in self.core.pools() {
            if let Err(error) = pool.close(&self.core) {
                tracing::warn!(%error, "the pool's memory could not be freed");
            }
        }
        for module in lock(&self.modules).values() {
            // SAFETY: the device is idle, and every handle to the module held this device open.
            let unloaded = unsafe { self.core.driver.unload_module(module.raw()) };
            if let Err(error) = self.core.check(unloaded) {
                tracing::warn!(%error, "a module could not be unloaded");
            }
        }
    }
}
