//! `Ladder`: the layout of the W2A8 GPU kernel in Microsoft's BitNet repository.
//!
//! The matrix is cut into blocks of 16 rows x 32 columns, blocks in row-major order, 128 bytes a block. A block's 32
//! little-endian words hold 16 weights each: word `t` has row `8 (t / 16) + t % 8` and the 16 columns from
//! `16 ((t % 16) / 8)`. Inside a word, weight `e` is in bits `8 (e % 4) + 2 (e / 4)`, as code `w + 2` (1, 2 or 3).
//! It suits kernels that hold eight rows a warp and turn codes into signed bytes before multiplying.

use super::blocks;

/// Rows of a block.
pub const BLOCK_ROWS: usize = 16;
/// Columns of a block.
pub const BLOCK_COLUMNS: usize = 32;
/// Bytes of a block.
pub const BLOCK_BYTES: usize = BLOCK_ROWS * BLOCK_COLUMNS / 4;

const ZERO: u8 = 2;

/// Byte index and lowest bit of the code at (row, column).
pub(super) fn address(padded_k: usize, row: usize, column: usize) -> (usize, u32) {
    let block = row / BLOCK_ROWS * (padded_k / BLOCK_COLUMNS) + column / BLOCK_COLUMNS;
    let (r, c) = (row % BLOCK_ROWS, column % BLOCK_COLUMNS);
    let (word, element) = (r / 8 * 16 + c / 16 * 8 + r % 8, c % 16);
    (
        block * BLOCK_BYTES + word * 4 + element % 4,
        2 * (element / 4) as u32,
    )
}

/// Row and first column, inside the block, of word `t`.
fn word_position(t: usize) -> (usize, usize) {
    (t / 16 * 8 + t % 8, t % 16 / 8 * 16)
}

/// Packs up to 16 rows of `k` weights.
pub(super) fn pack_tile(rows: &[i8], k: usize, packed: &mut [u8]) {
    blocks::pack_tile::<BLOCK_COLUMNS>(rows, k, packed, word_position, ZERO);
}

/// The inverse of [`pack_tile`].
pub(super) fn unpack_tile(packed: &[u8], k: usize, rows: &mut [i8]) {
    blocks::unpack_tile::<BLOCK_COLUMNS>(packed, k, rows, word_position, ZERO);
}
