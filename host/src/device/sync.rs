//! Locks and atomics: the standard library's, or those of `shuttle`, which runs a test in many interleavings of its threads.

#[cfg(shuttle)]
pub(super) use shuttle::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(shuttle))]
pub(super) use std::sync::{Mutex, MutexGuard, atomic};
