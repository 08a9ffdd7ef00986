//! `Tiled`: the layout of this project's own kernels.
//!
//! Codes are unsigned, `u = w + 1` in {0, 1, 2}, so that `dot(w, a) = dot(u, a) - sum(a)`: the sum of a token's activations is
//! known from its quantization, so the codes need not be made signed.
//!
//! The matrix is padded with weight 0 to a multiple of 16 rows and 128 columns, and divided into blocks of 16 x 128: one row tile
//! after the other, and by ascending column within each. A block is 512 bytes:
//!
//! ```text
//! offset  g*128 + c    byte: column c (0..128), rows 4g .. 4g+3 (g in 0..4)
//!         bits 2i      code of row 4g + i   (i in 0..4)
//! ```
//!
//! Consequences:
//! - A word is four columns of four rows, and pairs with one word of int8 activations in their natural order. The dot products of
//!   the rows are differences of `dp4a` with the word and three masks of it (`& 0x03030303`, `& 0x0f0f0f0f`, `& 0x3f3f3f3f`):
//!   three ands for four `dp4a`, and four accumulators for four rows.
//! - A lane that loads 16 bytes (one 128-bit load) needs one 128-bit load of activations, since its four rows share the columns;
//!   the eight lanes of a row group read 128 consecutive activations.
//! - A warp loads a block, 512 contiguous bytes, as four full cache lines in one request, and a row tile is contiguous from its
//!   first column to its last.

use super::blocks;

/// Rows of a block.
pub const BLOCK_ROWS: usize = 16;
/// Columns of a block.
pub const BLOCK_COLUMNS: usize = 128;
/// Bytes of a block.
pub const BLOCK_BYTES: usize = BLOCK_ROWS * BLOCK_COLUMNS / 4;

/// Rows whose codes share a byte.
const GROUP_ROWS: usize = 4;
const ZERO: u8 = 1;

/// Byte index and lowest bit of the code at (row, column).
pub(super) fn address(padded_k: usize, row: usize, column: usize) -> (usize, u32) {
    let block = row / BLOCK_ROWS * (padded_k / BLOCK_COLUMNS) + column / BLOCK_COLUMNS;
    let (r, c) = (row % BLOCK_ROWS, column % BLOCK_COLUMNS);
    let byte = r / GROUP_ROWS * BLOCK_COLUMNS + c;
    (block * BLOCK_BYTES + byte, 2 * (r % GROUP_ROWS) as u32)
}

/// Packs up to 16 rows of `k` weights.
pub(super) fn pack_tile(rows: &[i8], k: usize, packed: &mut [u8]) {
    for (i, bytes) in packed.chunks_exact_mut(BLOCK_BYTES).enumerate() {
        let block = blocks::gather::<BLOCK_COLUMNS>(rows, k, i * BLOCK_COLUMNS);
        for (group, bytes) in block
            .chunks_exact(GROUP_ROWS)
            .zip(bytes.chunks_exact_mut(BLOCK_COLUMNS))
        {
            for (column, byte) in bytes.iter_mut().enumerate() {
                let code = |row: usize| (group[row][column] as u8).wrapping_add(ZERO) << (2 * row);
                *byte = code(0) | code(1) | code(2) | code(3);
            }
        }
    }
}

/// The inverse of [`pack_tile`].
pub(super) fn unpack_tile(packed: &[u8], k: usize, rows: &mut [i8]) {
    for (i, bytes) in packed.chunks_exact(BLOCK_BYTES).enumerate() {
        let mut block = [[0; BLOCK_COLUMNS]; BLOCK_ROWS];
        for (group, bytes) in block
            .chunks_exact_mut(GROUP_ROWS)
            .zip(bytes.chunks_exact(BLOCK_COLUMNS))
        {
            for (row, weights) in group.iter_mut().enumerate() {
                for (weight, byte) in weights.iter_mut().zip(bytes) {
                    *weight = (byte >> (2 * row) & 3).wrapping_sub(ZERO) as i8;
                }
            }
        }
        blocks::scatter(&block, rows, k, i * BLOCK_COLUMNS);
    }
}
