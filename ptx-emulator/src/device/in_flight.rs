//! Programmatic dependent launch: what a launch finds under way when it starts, and what it did before it waited for that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::report::AllocationTraffic;

/// What launches that the next one may overlap did to global memory, by the base of the allocation.
#[derive(Debug, Default)]
pub(crate) struct InFlight(BTreeMap<u64, Touched>);

/// An allocation, and the last kernels that read and wrote it.
#[derive(Debug, Default)]
struct Touched {
    len: u64,
    reader: Option<Arc<str>>,
    writer: Option<Arc<str>>,
}

impl InFlight {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets everything: all launches are complete.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets an allocation that is freed.
    pub(crate) fn forget(&mut self, base: u64) {
        self.0.remove(&base);
    }

    /// Records what a launch touched; forgets the launches before it first, if they are `complete`.
    pub(crate) fn add(&mut self, kernel: &str, traffic: &[AllocationTraffic], complete: bool) {
        if complete {
            self.clear();
        }
        let kernel: Arc<str> = kernel.into();
        for allocation in traffic {
            let touched = self.0.entry(allocation.base).or_default();
            touched.len = allocation.len;
            if allocation.sectors_read > 0 {
                touched.reader = Some(Arc::clone(&kernel));
            }
            if allocation.sectors_written > 0 {
                touched.writer = Some(Arc::clone(&kernel));
            }
        }
    }

    /// The kernel that an access has to wait for, and whether that one writes.
    pub(crate) fn conflict(&self, address: u64, write: bool) -> Option<(&Arc<str>, bool)> {
        let (base, touched) = self.0.range(..=address).next_back()?;
        if address - base >= touched.len {
            return None;
        }
        let writer = touched.writer.as_ref().map(|kernel| (kernel, true));
        let reader = touched.reader.as_ref().map(|kernel| (kernel, false));
        writer.or(reader.filter(|_| write))
    }
}

/// An access before `griddepcontrol.wait` to what an earlier launch may still use.
#[derive(Debug, Clone)]
pub(crate) struct EarlyAccess {
    pub(crate) block: u32,
    pub(crate) warp: u32,
    pub(crate) lane: u32,
    pub(crate) site: usize,
    pub(crate) address: u64,
    /// The earlier launch's kernel.
    pub(crate) other: Arc<str>,
    /// Whether it wrote there.
    pub(crate) wrote: bool,
}

/// One launch, as far as it may overlap those before it.
#[derive(Debug)]
pub(crate) struct Overlap {
    /// The launch may start while others are under way: there are some, and the kernel has `griddepcontrol.wait`.
    pub(crate) early: bool,
    waited: AtomicBool,
    first: Mutex<Option<EarlyAccess>>,
}

impl Overlap {
    pub(crate) fn new(early: bool) -> Self {
        Self {
            early,
            waited: AtomicBool::new(false),
            first: Mutex::default(),
        }
    }

    /// A block has waited, and until then kept the next launch from starting.
    pub(crate) fn note_wait(&self) {
        self.waited.store(true, Relaxed);
    }

    /// Whether the launches before this one are complete when the next one starts: a single block that waits for them keeps it.
    pub(crate) fn completes_earlier(&self) -> bool {
        !self.early || self.waited.load(Relaxed)
    }

    /// Keeps the first access of the lowest warp, which does not depend on the order in which blocks and warps run.
    pub(crate) fn note(&self, access: EarlyAccess) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |access: &EarlyAccess| (access.block, access.warp);
        if first
            .as_ref()
            .is_none_or(|known| place(&access) < place(known))
        {
            *first = Some(access);
        }
    }

    pub(crate) fn first(&self) -> Option<EarlyAccess> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.clone()
    }
}
