//! `Tiled`: the layout of this project's own kernels.
//!
//! Codes are unsigned, `u = w + 1` in {0, 1, 2}, so that `dot(w, a) = dot(u, a) - sum(a)`: the sum of a token's
//! activations is known from its quantization, and no lane subtracts anything.
//!
//! The matrix is padded with weight 0 to a multiple of 16 rows and 128 columns, and cut into blocks of 16 x 128: row
//! tile after row tile, and by ascending column within one. A block is 512 bytes:
//!
//! ```text
//! offset  g*128 + c*16    16-byte unit: rows 4g .. 4g+3 (g in 0..4), columns 16c .. 16c+15 (c in 0..8)
//!         + j*4           little-endian word j (0..4): row 4g + j
//!         + b, bits 2i    code of column 16c + 4i + b   (byte b, slot i, each 0..4)
//! ```
//!
//! What that buys:
//! - `word & (0x03030303 << 2i)` is four codes (times `4^i`) that pair with the four activations of columns
//!   `16c+4i ..+3`, which are one aligned 32-bit word of the int8 vector: activations stay in natural order, and
//!   `dp4a.u32.s32` takes the masked word as it is.
//! - A lane that loads a unit (one 128-bit load) needs one 128-bit load of activations for it, since its four rows share
//!   the columns; the eight lanes of a row group read 128 consecutive activations.
//! - A warp takes a block: 512 contiguous bytes, four full cache lines in one request, and a row tile is contiguous
//!   from its first column to its last.
//! - Units are Ladder's: a Ladder block has the same words in another order, with codes one larger. One kernel serves both.

use super::blocks;

/// Rows of a block.
pub const BLOCK_ROWS: usize = 16;
/// Columns of a block.
pub const BLOCK_COLUMNS: usize = 128;
/// Bytes of a block.
pub const BLOCK_BYTES: usize = BLOCK_ROWS * BLOCK_COLUMNS / 4;

/// Bytes of the units of four rows.
const GROUP_BYTES: usize = 4 * BLOCK_COLUMNS / 4;
const UNIT_BYTES: usize = 16;
const ZERO: u8 = 1;

/// Byte index and lowest bit of the code at (row, column).
pub(super) fn address(padded_k: usize, row: usize, column: usize) -> (usize, u32) {
    let block = row / BLOCK_ROWS * (padded_k / BLOCK_COLUMNS) + column / BLOCK_COLUMNS;
    let (r, c) = (row % BLOCK_ROWS, column % BLOCK_COLUMNS);
    let word = r / 4 * GROUP_BYTES + c / 16 * UNIT_BYTES + r % 4 * 4;
    (block * BLOCK_BYTES + word + c % 4, 2 * (c % 16 / 4) as u32)
}

/// Row and first column, inside the block, of word `t`.
fn word_position(t: usize) -> (usize, usize) {
    (t / 32 * 4 + t % 4, t % 32 / 4 * 16)
}

/// Packs up to 16 rows of `k` weights.
pub(super) fn pack_tile(rows: &[i8], k: usize, packed: &mut [u8]) {
    blocks::pack_tile::<BLOCK_COLUMNS>(rows, k, packed, word_position, ZERO);
}

/// The inverse of [`pack_tile`].
pub(super) fn unpack_tile(packed: &[u8], k: usize, rows: &mut [i8]) {
    blocks::unpack_tile::<BLOCK_COLUMNS>(packed, k, rows, word_position, ZERO);
}
