//! `Tiled`: the layout of this project's own kernels.
//!
//! Codes are unsigned, `u = w + 1` in {0, 1, 2}, so that `dot(w, a) = dot(u, a) - sum(a)`: the sum of a token's
//! activations is known from its quantization, and no lane subtracts anything.
//!
//! The matrix is padded with weight 0 to a multiple of 16 rows and 128 columns, and cut into blocks of 16 x 128: row
//! tile after row tile, and by ascending column within one. A block is 512 bytes:
//!
//! ```text
//! offset  r*32 + h*16     16-byte unit: row r (0..16), columns 64h .. 64h+63 (h = 0, 1)
//!         + j*4           little-endian word j (0..4): columns 64h+16j .. 64h+16j+15
//!         + b, bits 2i    code of column 64h + 16j + 4i + b   (byte b, slot i, each 0..4)
//! ```
//!
//! What that buys:
//! - `word & (0x03030303 << 2i)` is four codes (times `4^i`) that pair with the four activations of columns
//!   `64h+16j+4i ..+3`, which are one aligned 32-bit word of the int8 vector: activations stay in natural order, and
//!   `dp4a.u32.s32` takes the masked word as it is.
//! - A 32-byte sector is one row's 128 columns, so any number of lanes a row (2, 4, 8, 16, 32) reads whole sectors
//!   with 128-bit loads.
//! - A warp that takes 16 rows x 2 halves reads 512 contiguous bytes: four full cache lines in one request.

use super::blocks::{self, deinterleave, interleave};

/// Rows of a block.
pub const BLOCK_ROWS: usize = 16;
/// Columns of a block.
pub const BLOCK_COLUMNS: usize = 128;
/// Bytes of a block.
pub const BLOCK_BYTES: usize = BLOCK_ROWS * BLOCK_COLUMNS / 4;

const ROW_BYTES: usize = BLOCK_COLUMNS / 4;
const ZERO: u8 = 1;

/// Byte index and lowest bit of the code at (row, column).
pub(super) fn address(padded_k: usize, row: usize, column: usize) -> (usize, u32) {
    let block = row / BLOCK_ROWS * (padded_k / BLOCK_COLUMNS) + column / BLOCK_COLUMNS;
    let (r, c) = (row % BLOCK_ROWS, column % BLOCK_COLUMNS);
    // Half and word together: words of a row are in column order, 16 columns each.
    (
        block * BLOCK_BYTES + r * ROW_BYTES + c / 16 * 4 + c % 4,
        2 * (c % 16 / 4) as u32,
    )
}

/// Packs up to 16 rows of `k` weights.
pub(super) fn pack_tile(rows: &[i8], k: usize, packed: &mut [u8]) {
    let (packed, _) = packed.as_chunks_mut::<BLOCK_BYTES>();
    for (i, bytes) in packed.iter_mut().enumerate() {
        let block = blocks::gather::<BLOCK_COLUMNS>(rows, k, i * BLOCK_COLUMNS);
        let (words, _) = bytes.as_chunks_mut::<4>();
        let (sixteens, _) = block.as_flattened().as_chunks::<16>();
        for (word, weights) in words.iter_mut().zip(sixteens) {
            *word = interleave(weights, ZERO).to_le_bytes();
        }
    }
}

/// The inverse of [`pack_tile`].
pub(super) fn unpack_tile(packed: &[u8], k: usize, rows: &mut [i8]) {
    let (packed, _) = packed.as_chunks::<BLOCK_BYTES>();
    for (i, bytes) in packed.iter().enumerate() {
        let mut block = [[0; BLOCK_COLUMNS]; BLOCK_ROWS];
        let (words, _) = bytes.as_chunks::<4>();
        let (sixteens, _) = block.as_flattened_mut().as_chunks_mut::<16>();
        for (word, weights) in words.iter().zip(sixteens) {
            *weights = deinterleave(u32::from_le_bytes(*word), ZERO);
        }
        blocks::scatter(&block, rows, k, i * BLOCK_COLUMNS);
    }
}
