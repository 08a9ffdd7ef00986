use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::device::{
    core::lock,
    sync::{
        Mutex,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
};

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
        let thresholds = shares.map(|share| (capacity as f64 * share).ceil() as usize);
        // Without a byte in use.
        let reached = thresholds.iter().filter(|&&bytes| bytes == 0).count();
        Self {
            thresholds,
            level: AtomicU8::new(reached as u8),
            callbacks: Mutex::default(),
        }
    }

    pub(super) fn level(&self) -> PressureLevel {
        LEVELS[usize::from(self.level.load(Ordering::Relaxed))]
    }

    pub(super) fn register(&self, callback: Box<dyn Fn(PressureLevel) + Send + Sync>) {
        lock(&self.callbacks).push(callback.into());
    }

    /// Notes that the bytes in use have changed; called with no lock held, because callbacks may use the pool.
    #[inline]
    pub(super) fn update(&self, in_use: &AtomicUsize) {
        let level = self.level_of(in_use);
        if level != self.level.load(Ordering::SeqCst) {
            self.change(level, in_use);
        }
    }

    fn level_of(&self, in_use: &AtomicUsize) -> u8 {
        let in_use = in_use.load(Ordering::SeqCst);
        let [moderate, high, critical] = self.thresholds;
        u8::from(in_use >= moderate) + u8::from(in_use >= high) + u8::from(in_use >= critical)
    }

    #[cold]
    fn change(&self, mut level: u8, in_use: &AtomicUsize) {
        loop {
            if self.level.swap(level, Ordering::SeqCst) != level {
                self.call_back(level);
            }
            // Another thread may have changed the bytes since they were read, and found its level here already.
            let now = self.level_of(in_use);
            if now == level {
                return;
            }
            level = now;
        }
    }

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
