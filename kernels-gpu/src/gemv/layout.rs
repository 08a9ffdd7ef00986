//! The weight layouts that the products support.

use super::{UNIT_ROWS, UNIT_WORDS};
use cuda_std::intrinsics;

/// Which unit of a step each lane processes, and what the unit's words mean.
pub(super) trait Layout {
    /// `u - w`.
    const CODE_BIAS: i32;
    /// The bits of the lane index that distinguish the lanes of a row group.
    const COLUMN_BITS: [u32; 3];
    /// A lane's accumulators for the four rows of a unit.
    type Sums: Copy;
    /// The accumulators before the first product.
    const ZERO: Self::Sums;
    /// Row group (0..4) of a lane.
    fn row_group(lane: usize) -> usize;
    /// Group of 16 columns (0..8) of a lane.
    fn column_group(lane: usize) -> usize;
    /// Adds the products with activation word `word` (0..4).
    fn add(sums: &mut Self::Sums, unit: &[u32; UNIT_WORDS], word: usize, q: i32);
    /// The dot products of the four rows.
    fn rows(sums: Self::Sums) -> [i32; UNIT_ROWS];

    /// Whether K may end with a partial step.
    const HAS_PARTIAL_STEPS: bool;
    /// Index, within a step, of the unit with this row group and this group of 16 columns.
    fn unit(row_group: usize, column_group: usize) -> usize;
    /// The bytes to multiply with activation word `word` (0..4): four sums of rows, from which [`Layout::of_sums`] computes the rows.
    fn of_columns(unit: &[u32; UNIT_WORDS], word: usize) -> [u32; UNIT_ROWS];
    /// The four rows' dot products, from those of the words of [`Layout::of_columns`].
    fn of_sums(sums: [i32; UNIT_ROWS]) -> [i32; UNIT_ROWS];
}

/// Row group after row group: see host/src/layout/tiled.rs.
pub(super) enum Tiled {}

impl Tiled {
    /// The bits of a byte that each of the sums `d0` to `d3` includes (`gemv` module).
    const MASKS: [u32; UNIT_ROWS] = [0x0303_0303, 0x0f0f_0f0f, 0x3f3f_3f3f, 0xffff_ffff];
}

impl Layout for Tiled {
    const CODE_BIAS: i32 = 1;
    const COLUMN_BITS: [u32; 3] = [1, 2, 4];
    /// `d0` to `d3` in the description of the `gemv` module.
    type Sums = [i32; UNIT_ROWS];
    const ZERO: Self::Sums = [0; UNIT_ROWS];

    #[inline(always)]
    fn row_group(lane: usize) -> usize {
        lane / 8
    }

    #[inline(always)]
    fn column_group(lane: usize) -> usize {
        lane % 8
    }

    #[inline(always)]
    fn add(sums: &mut Self::Sums, unit: &[u32; UNIT_WORDS], word: usize, q: i32) {
        for row in 0..UNIT_ROWS {
            sums[row] = intrinsics::dp4a_u8s8(unit[word] & Self::MASKS[row], q, sums[row]);
        }
    }

    #[inline(always)]
    fn rows([d0, d1, d2, d3]: Self::Sums) -> [i32; UNIT_ROWS] {
        [
            d0,
            d1.wrapping_sub(d0) >> 2,
            d2.wrapping_sub(d1) >> 4,
            d3.wrapping_sub(d2) >> 6,
        ]
    }

    const HAS_PARTIAL_STEPS: bool = false;

    #[inline(always)]
    fn unit(row_group: usize, column_group: usize) -> usize {
        row_group * 8 + column_group
    }

    #[inline(always)]
    fn of_columns(unit: &[u32; UNIT_WORDS], word: usize) -> [u32; UNIT_ROWS] {
        Self::MASKS.map(|mask| unit[word] & mask)
    }

    #[inline(always)]
    fn of_sums(sums: [i32; UNIT_ROWS]) -> [i32; UNIT_ROWS] {
        Self::rows(sums)
    }
}

/// Blocks of 16 x 32, 128 bytes each, four per step: see host/src/layout/ladder.rs. Each word of a unit belongs to one row; bits `2i` and
/// `2i + 1` of its bytes are multiplied with activation word `i`, which gives products `4^i` times too large.
pub(super) enum Ladder {}

impl Layout for Ladder {
    const CODE_BIAS: i32 = 2;
    const COLUMN_BITS: [u32; 3] = [2, 8, 16];
    /// Indexed by row, then by activation word.
    type Sums = [[i32; UNIT_WORDS]; UNIT_ROWS];
    const ZERO: Self::Sums = [[0; UNIT_WORDS]; UNIT_ROWS];

    #[inline(always)]
    fn row_group(lane: usize) -> usize {
        lane / 4 % 2 * 2 + lane % 2
    }

    #[inline(always)]
    fn column_group(lane: usize) -> usize {
        lane / 8 * 2 + lane / 2 % 2
    }

    #[inline(always)]
    fn add(sums: &mut Self::Sums, unit: &[u32; UNIT_WORDS], word: usize, q: i32) {
        for row in 0..UNIT_ROWS {
            let codes = unit[row] & (0x0303_0303 << (2 * word));
            sums[row][word] = intrinsics::dp4a_u8s8(codes, q, sums[row][word]);
        }
    }

    #[inline(always)]
    fn rows(sums: Self::Sums) -> [i32; UNIT_ROWS] {
        sums.map(|[x1, x4, x16, x64]| x1 + (x4 >> 2) + (x16 >> 4) + (x64 >> 6))
    }

    const HAS_PARTIAL_STEPS: bool = true;

    #[inline(always)]
    fn unit(row_group: usize, column_group: usize) -> usize {
        row_group % 2 + column_group % 2 * 2 + row_group / 2 * 4 + column_group / 2 * 8
    }

    #[inline(always)]
    fn of_columns(unit: &[u32; UNIT_WORDS], word: usize) -> [u32; UNIT_ROWS] {
        unit.map(|codes| codes >> (2 * word) & 0x0303_0303)
    }

    #[inline(always)]
    fn of_sums(sums: [i32; UNIT_ROWS]) -> [i32; UNIT_ROWS] {
        sums
    }
}
