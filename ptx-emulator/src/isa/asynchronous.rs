//! Asynchronous copies, and the mbarriers that say when they are done.

use super::memory::AccessSpace;
use super::op::{Pred, PredSlot};

/// Most bytes of one bulk copy: machine code has 16 bits for a sixteenth of them, and ptxas refuses more where it sees them.
pub(crate) const MAX_BULK_BYTES: u64 = 0xffff * 16;

/// Operands are in [`Inst::src`](super::Inst::src), in the order of the PTX; results in [`Inst::dst`](super::Inst::dst).
#[derive(Debug, Clone, Copy)]
pub(crate) enum AsyncOp {
    /// `cp.async`: destination, source, and the bytes to read, where the PTX says.
    Copy {
        bytes: u8,
        to: Place,
        from: i64,
        has_size: bool,
        /// Where true, nothing is read and the destination is filled with zeros.
        ignore: Option<Pred>,
    },
    Commit,
    /// All but the last `keep` groups are done; `None` waits for what is not in a group as well.
    Wait {
        keep: Option<u32>,
    },
    /// `cp.async.mbarrier.arrive`.
    ArriveAfterCopies {
        at: Place,
        /// `.noinc`: the arrival is one of those that the mbarrier expects.
        counted: bool,
    },
    /// `cp.async.bulk` to shared memory: destination, source, bytes, mbarrier.
    BulkLoad {
        to: Place,
        from: i64,
        at: Place,
    },
    /// `cp.async.bulk` to global memory: destination, source, bytes.
    BulkStore {
        to: i64,
        from: Place,
    },
    /// `cp.async.bulk.prefetch`: source and bytes.
    BulkPrefetch {
        from: i64,
    },
    BulkCommit,
    BulkWait {
        keep: u32,
    },
    Mbarrier {
        op: MbarrierOp,
        at: Place,
    },
}

impl AsyncOp {
    /// Whether it changes nothing that another thread could wait for.
    pub(crate) fn only_looks(&self) -> bool {
        matches!(
            self,
            Self::BulkPrefetch { .. }
                | Self::Mbarrier {
                    op: MbarrierOp::Wait { .. },
                    ..
                }
        )
    }
}

/// State space and constant part of an address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) space: AccessSpace,
    pub(crate) offset: i64,
}

/// Most arrivals, and most bytes, that an mbarrier counts.
pub(crate) const MBARRIER_MOST: u32 = (1 << 20) - 1;

/// Address in `src[0]`, count in `src[1]`, where there is one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MbarrierOp {
    Init,
    Invalidate,
    ExpectTx,
    CompleteTx,
    /// The count is 1, or in `src[1]`.
    Arrive {
        has_count: bool,
        /// The count in `src[1]` is of bytes to expect first.
        expect_tx: bool,
        drop: bool,
        no_complete: bool,
        release: bool,
    },
    /// State or parity in `src[1]`.
    Wait {
        parity: bool,
        acquire: bool,
        dst: PredSlot,
    },
}
