use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
};

use crate::device::core::lock;

/// How much of a pool's memory is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PressureLevel {
    /// Below the first share of [`MemoryPoolConfig::pressure`](super::MemoryPoolConfig::pressure).
    Low,
    /// From the first share on.
    Moderate,
    /// From the second share on.
    High,
    /// From the third share on.
    Critical,
}

const LEVELS: [PressureLevel; 4] = [
    PressureLevel::Low,
    PressureLevel::Moderate,
    PressureLevel::High,
    PressureLevel::Critical,
];

type Callback = Arc<dyn Fn(PressureLevel) + Send + Sync>;

/// The level, and who wants to know when it changes.
pub(super) struct Pressure {
    /// Bytes in use from which each level but the first begins.
    thresholds: [usize; 3],
    level: AtomicU8,
    callbacks: Mutex<Vec<Callback>>,
}

impl Pressure {
    pub(super) fn new(capacity: usize, shares: [f64; 3]) -> Self {
        Self {
            thresholds: shares.map(|share| (capacity as f64 * share).ceil() as usize),
            level: AtomicU8::new(0),
            callbacks: Mutex::default(),
        }
    }

    pub(super) fn level(&self) -> PressureLevel {
        LEVELS[usize::from(self.level.load(Ordering::Relaxed))]
    }

    pub(super) fn register(&self, callback: Box<dyn Fn(PressureLevel) + Send + Sync>) {
        lock(&self.callbacks).push(callback.into());
    }

    /// Notes the bytes in use; called with no lock held, because callbacks may use the pool.
    #[inline]
    pub(super) fn update(&self, in_use: usize) {
        let known = self.level.load(Ordering::Relaxed);
        let [moderate, high, critical] = self.thresholds;
        let level =
            u8::from(in_use >= moderate) + u8::from(in_use >= high) + u8::from(in_use >= critical);
        if level != known && self.level.swap(level, Ordering::Relaxed) != level {
            self.call_back(level);
        }
    }

    #[cold]
    fn call_back(&self, level: u8) {
        let callbacks = lock(&self.callbacks).clone();
        for callback in callbacks {
            let called = catch_unwind(AssertUnwindSafe(|| callback(LEVELS[usize::from(level)])));
            if called.is_err() {
                tracing::warn!(level = ?LEVELS[usize::from(level)], "a callback for memory pressure panicked");
            }
        }
    }
}

impl fmt::Debug for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pressure")
            .field("level", &self.level())
            .finish_non_exhaustive()
    }
}
