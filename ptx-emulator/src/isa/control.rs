//! Calls, and what the lanes of a warp, the warps of a block and grids do together.

use super::op::{Pred, PredSlot};

/// A call. Argument and result bytes are copied between the frames of caller and callee.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) target: CallTarget,
    /// For each argument, its place in the caller's parameter bytes.
    pub(crate) arguments: Vec<ParamPlace>,
    /// For each result, likewise.
    pub(crate) results: Vec<ParamPlace>,
    /// The function is declared `.noreturn`.
    pub(crate) noreturn: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum CallTarget {
    Function(u32),
    /// Address in `src[0]`; the functions it may be, or empty where the PTX does not say.
    Indirect(Vec<u32>),
    /// A function of the CUDA device runtime.
    Builtin(Builtin),
    /// Declared, but not defined.
    Undefined,
}

/// Device functions that CUDA's driver provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    /// `__assertfail`, which ends the kernel.
    AssertFail,
    /// `vprintf`, to which `printf` comes down.
    Vprintf,
}

/// Bytes within a frame's parameter area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParamPlace {
    pub(crate) offset: u32,
    pub(crate) size: u32,
}

/// `bar` and `barrier`: barrier number in `src[0]`, thread count in `src[1]` where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BarrierOp {
    pub(crate) kind: BarrierKind,
    pub(crate) has_count: bool,
    pub(crate) aligned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    Sync,
    Arrive,
    RedPopc { src: Pred },
    RedAnd { dst: PredSlot, src: Pred },
    RedOr { dst: PredSlot, src: Pred },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReduxOp {
    Add,
    MinU,
    MaxU,
    MinS,
    MaxS,
    And,
    Or,
    Xor,
}

/// What a grid says of the launches before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GridDependency {
    /// Wait until those before it are complete.
    Wait,
    /// Let the next one start.
    LaunchDependents,
}
