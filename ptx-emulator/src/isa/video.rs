//! SIMD video instructions: four bytes or two half-words of a register at once.

use super::types::Compare;

/// `vadd2`, `vadd4` and their like. Elements 0 to 3 of half-words, or 0 to 7 of bytes, are those of `a` and then those of `b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Video {
    pub(crate) op: VideoOp,
    /// Of an element: 8 or 16.
    pub(crate) bits: u32,
    pub(crate) a: VideoOperand,
    pub(crate) b: VideoOperand,
    pub(crate) end: VideoEnd,
    /// The elements of the result that are computed.
    pub(crate) mask: u8,
}

/// The elements that an operand is made of, from the lowest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VideoOperand {
    pub(crate) elements: [u8; 4],
    pub(crate) signed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VideoOp {
    Add,
    Sub,
    Average,
    AbsDiff,
    Min,
    Max,
    Set(Compare),
}

/// What becomes of the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VideoEnd {
    /// They replace elements of `c`.
    Merge,
    /// They do so after they were clamped to the type of the result.
    MergeClamped { signed: bool },
    /// They are added to `c`.
    Accumulate,
}
