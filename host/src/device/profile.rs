use std::sync::{Arc, Mutex, Weak};

use super::{core::lock, launch::LaunchConfig};

/// What one launch did, as the emulator counted it.
#[derive(Debug, Clone)]
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

/// Collects the reports of launches while someone wants them.
#[derive(Debug, Default)]
pub(super) struct Profiler(Mutex<Vec<Weak<Mutex<Vec<LaunchReport>>>>>);

impl Profiler {
    /// Runs `work` and returns the reports of all launches on the device meanwhile.
    pub(super) fn collect<R>(&self, work: impl FnOnce() -> R) -> (R, Vec<LaunchReport>) {
        let reports = Arc::new(Mutex::default());
        {
            let mut collections = lock(&self.0);
            collections.retain(|collection| collection.strong_count() > 0);
            collections.push(Arc::downgrade(&reports));
        }
        let result = work();
        let reports = std::mem::take(&mut *lock(&reports));
        (result, reports)
    }

    pub(super) fn add(&self, report: impl Fn() -> LaunchReport) {
        for collection in lock(&self.0).iter().filter_map(Weak::upgrade) {
            lock(&collection).push(report());
        }
    }
}

/// What a launch did to the buffer behind one of its arguments.
///
/// Where the device has a memory pool, buffers share the driver's allocations, and this is what the launch did to the whole
/// allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
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
