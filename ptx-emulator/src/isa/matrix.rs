//! Matrix instructions: what all lanes of a warp compute or move together.

use super::memory::AccessSpace;
use super::op::Slot;
use super::types::Rounding;

/// `mma.sync`: `d = a * b + c` with `a` of `m` x `k`, `b` of `k` x 8. Each operand is spread over the lanes of the warp.
#[derive(Debug, Clone)]
pub(crate) struct Mma {
    /// 8 or 16.
    pub(crate) m: u8,
    pub(crate) k: u8,
    pub(crate) kind: MmaKind,
    pub(crate) a: Vec<Slot>,
    pub(crate) b: Vec<Slot>,
    pub(crate) c: Vec<Slot>,
    pub(crate) d: Vec<Slot>,
}

impl Mma {
    /// Rows that are read.
    pub(crate) fn sources(&self) -> impl Iterator<Item = Slot> + '_ {
        [&self.a, &self.b, &self.c].into_iter().flatten().copied()
    }
}

/// Element types of `mma.sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MmaKind {
    /// Integers of 4 or 8 bits, summed in 32.
    Int {
        bits: u8,
        a_signed: bool,
        b_signed: bool,
        /// `.satfinite`: the sum is clamped, where it would wrap around otherwise.
        saturate: bool,
    },
    Float {
        input: MmaInput,
        /// The accumulator is `.f16`, otherwise `.f32`.
        half_sum: bool,
    },
    Double(Rounding),
    /// `.m8n8k4` on `.f16`: each quad pair (lanes `4 * p` to `4 * p + 3`, and those 16 further up) has its own product.
    QuadPairs {
        /// `a` is `.col`: a lane has part of a column of it, otherwise a row.
        a_column: bool,
        /// `b` is `.row`: a lane has part of a row of it, otherwise a column.
        b_row: bool,
        /// `c` is `.f16`, otherwise `.f32`.
        half_addend: bool,
        /// `d` is `.f16`, otherwise `.f32`.
        half_sum: bool,
    },
}

/// Floats that are multiplied and summed exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MmaInput {
    F16,
    BF16,
    TF32,
}

impl MmaKind {
    /// Bits of an element of `a` and `b`.
    pub(crate) fn input_bits(self) -> u8 {
        match self {
            Self::Int { bits, .. } => bits,
            Self::Float {
                input: MmaInput::TF32,
                ..
            } => 32,
            Self::Float { .. } | Self::QuadPairs { .. } => 16,
            Self::Double(_) => 64,
        }
    }
}

/// `ldmatrix` and `stmatrix`: 8x8 matrices of 16-bit elements. Lane `8 * i + r` has the address of row `r` of matrix `i`.
#[derive(Debug, Clone)]
pub(crate) struct MatrixMove {
    pub(crate) store: bool,
    pub(crate) transpose: bool,
    pub(crate) space: AccessSpace,
    pub(crate) address: Slot,
    pub(crate) offset: i64,
    /// One row for each matrix.
    pub(crate) elements: Vec<Slot>,
}

impl MatrixMove {
    /// The lanes whose address is used.
    pub(crate) fn address_lanes(&self) -> u32 {
        u32::MAX >> (32 - 8 * self.elements.len())
    }
}
