use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, ThreadId},
};

use super::{core::lock, launch::LaunchConfig, sync::Mutex};

/// What one launch did, as the emulator counted it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LaunchReport {
    /// Name of the kernel.
    pub kernel: String,
    /// The launch's shape.
    pub config: LaunchConfig,
    /// What the launch did to each buffer passed to it.
    pub arguments: Vec<ArgumentTraffic>,
    /// Instructions by class, memory requests and sectors, bank conflicts, divergence.
    pub counters: ptx_emulator::Counters,
    /// The counts of every PTX line that was executed.
    pub lines: Vec<ptx_emulator::LineCounts>,
}

/// A submission as the library knows it on every device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Submitted {
    /// Name of the kernel, of all kernels of a graph, or of a copy.
    pub(crate) name: String,
    /// Bytes of the elements stated for its arguments, each once.
    pub(crate) bytes: usize,
    /// 1, or a graph's.
    pub(crate) launches: usize,
}

/// Collects what launches leave while someone wants it.
#[derive(Debug)]
pub(super) struct Collector<T> {
    /// How many want it, so that a launch takes no lock where nobody does.
    wanted: AtomicUsize,
    collections: Mutex<Vec<Collection<T>>>,
}

#[derive(Debug)]
struct Collection<T> {
    /// Whose launches; `None` for those of all threads.
    thread: Option<ThreadId>,
    values: Weak<Mutex<Vec<T>>>,
}

impl<T> Default for Collector<T> {
    fn default() -> Self {
        Self {
            wanted: AtomicUsize::new(0),
            collections: Mutex::default(),
        }
    }
}

impl<T> Collector<T> {
    /// Runs `work` and returns what launches of one thread, or of all, left meanwhile.
    pub(super) fn collect<R>(
        &self,
        thread: Option<ThreadId>,
        work: impl FnOnce() -> R,
    ) -> (R, Vec<T>) {
        struct Wanted<'a>(&'a AtomicUsize);
        impl Drop for Wanted<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let values = Arc::new(Mutex::new(Vec::new()));
        {
            let mut collections = lock(&self.collections);
            collections.retain(|collection| collection.values.strong_count() > 0);
            collections.push(Collection {
                thread,
                values: Arc::downgrade(&values),
            });
        }
        self.wanted.fetch_add(1, Ordering::Relaxed);
        let wanted = Wanted(&self.wanted);
        let result = work();
        drop(wanted);
        let values = std::mem::take(&mut *lock(&values));
        (result, values)
    }

    pub(super) fn add(&self, value: impl Fn() -> T) {
        if self.wanted.load(Ordering::Relaxed) == 0 {
            return;
        }
        let here = thread::current().id();
        for collection in lock(&self.collections).iter() {
            if collection.thread.is_none_or(|thread| thread == here)
                && let Some(values) = collection.values.upgrade()
            {
                lock(&values).push(value());
            }
        }
    }
}

/// What a launch did to the buffer behind one of its arguments.
///
/// Where the device has a memory pool, buffers share the driver's allocations, and this is what the launch did to the whole
/// allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArgumentTraffic {
    /// Index of the kernel's argument, from 0.
    pub index: usize,
    /// Device address that was passed.
    pub address: u64,
    /// Size of the buffer in bytes.
    pub len: usize,
    /// Bytes read, as [`GlobalCounters::bytes_read`](ptx_emulator::GlobalCounters::bytes_read) counts them.
    pub bytes_read: u64,
    /// Bytes written, counted likewise.
    pub bytes_written: u64,
    /// Sectors of 32 bytes that were read.
    pub sectors_read: u64,
    /// Sectors of 32 bytes that were written.
    pub sectors_written: u64,
}
