//! Why execution stopped, before it is known where.

use crate::fault::{FaultKind, Space};

/// A fault within one instruction.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) kind: FaultKind,
    pub(crate) lane: u32,
    pub(crate) access: Option<(Space, u64)>,
}

/// Faults are rare and large.
pub(crate) type Step<T> = Result<T, Box<Stop>>;

impl Stop {
    pub(crate) fn lane<T>(kind: FaultKind, lane: u32) -> Step<T> {
        Err(Box::new(Self {
            kind,
            lane,
            access: None,
        }))
    }

    /// The first of some lanes.
    pub(crate) fn first<T>(kind: FaultKind, lanes: u32) -> Step<T> {
        Self::lane(kind, lanes.trailing_zeros() & 31)
    }

    pub(crate) fn access<T>(kind: FaultKind, lane: u32, space: Space, address: u64) -> Step<T> {
        Err(Box::new(Self {
            kind,
            lane,
            access: Some((space, address)),
        }))
    }
}
