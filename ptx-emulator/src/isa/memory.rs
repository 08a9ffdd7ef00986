//! Loads, stores, atomics and fences.

use super::op::Slot;
use super::types::Type;

/// Spaces that generic addressing reaches through a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    Global,
    Shared,
    Local,
    Const,
    Param,
}

/// Space named by a load or store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessSpace {
    Generic,
    Global,
    Const,
    Shared,
    Local,
    /// Parameters of the kernel.
    KernelParam,
    /// Parameters of device functions, which live in the frame.
    FrameParam,
}

/// Operands of a load, store or atomic. The address is `src[0]` plus `offset`.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) space: AccessSpace,
    pub(crate) offset: i64,
    /// Bytes of an element.
    pub(crate) bytes: u8,
    /// Sign-extend an element to its register.
    pub(crate) signed: bool,
    /// Rows of the elements: destinations of a load, sources of a store or of an atomic on a vector.
    pub(crate) elements: Vec<Slot>,
    /// Rows that an atomic on a vector gives its old elements to.
    pub(crate) results: Vec<Slot>,
    /// Widths of the destination registers.
    pub(crate) register_bits: u8,
    /// The bytes of a load that matter, the first one in bit 0: others may never have been written.
    pub(crate) used_bytes: u32,
    pub(crate) ordering: Ordering,
    pub(crate) scope: Scope,
    /// `.nc`: what it reads must not change during the launch.
    pub(crate) non_coherent: bool,
    pub(crate) atomic: Option<AtomicOp>,
}

/// Memory-model strength of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordering {
    Weak,
    /// `.volatile`, `.relaxed`.
    Relaxed,
    Acquire,
    Release,
    AcqRel,
}

/// `fence`, which orders strong reads before it with what follows, or what comes before it with strong writes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) scope: Scope,
    pub(crate) acquire: bool,
    pub(crate) release: bool,
}

impl Fence {
    /// In both ways.
    pub(crate) fn both(scope: Scope) -> Self {
        Self {
            scope,
            acquire: true,
            release: true,
        }
    }
}

/// Threads that a strong access or a fence is ordered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of the block. A cluster is one block here.
    Block,
    /// All of the launch.
    Device,
}

/// What an atomic computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AtomicOp {
    pub(crate) kind: AtomicKind,
    pub(crate) ty: Type,
    /// `.noftz`: subnormal numbers of `.f32` stay.
    pub(crate) no_ftz: bool,
    /// `red`: no result.
    pub(crate) reduction: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtomicKind {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}
