//! Running blocks.

// Loops run over the lanes of several rows at once.
#![allow(clippy::needless_range_loop)]

mod access;
mod asynchronous;
mod atomic;
mod barrier;
mod between;
mod block;
mod bulk;
mod call;
mod claims;
mod collective;
mod compare;
mod control;
mod copy;
mod data;
mod deadlock;
mod dependency;
mod division;
mod float;
mod format;
mod global;
mod grid;
mod integer;
mod lanes;
mod matrix;
mod mbarrier;
mod order;
mod print;
mod race;
mod record;
mod shadow;
mod shared;
mod stats;
mod stop;
mod together;
mod warp;

pub(crate) use grid::run;
pub(crate) use lanes::Row;

/// Generic addresses from here on are in shared memory.
pub(crate) const WINDOW_SHARED: u64 = 1 << 32;
/// Generic addresses from here on are in local memory.
pub(crate) const WINDOW_LOCAL: u64 = 2 << 32;
/// Generic addresses from here on are kernel parameters.
pub(crate) const WINDOW_PARAM: u64 = 3 << 32;
/// Generic addresses from here on are constants.
pub(crate) const WINDOW_CONST: u64 = 4 << 32;
/// Generic addresses from here on are in global memory.
pub(crate) const WINDOW_GLOBAL: u64 = 16 << 32;
