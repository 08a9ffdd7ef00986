//! `Ladder`: the layout of the W2A8 GPU kernel in Microsoft's BitNet repository.
//!
//! The matrix is divided into blocks of 16 rows x 32 columns, in row-major order, 128 bytes each. A block's 32 little-endian
//! words hold 16 weights each: word `t` has row `8 (t / 16) + t % 8` and the 16 columns from `16 ((t % 16) / 8)`. Inside a word,
//! weight `e` is in bits `8 (e % 4) + 2 (e / 4)`, as code `w + 2` (1, 2 or 3). It suits kernels that process eight rows per warp
//! and expand codes to signed bytes before multiplying.

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
    for (i, bytes) in packed.chunks_exact_mut(BLOCK_BYTES).enumerate() {
        let block = blocks::gather::<BLOCK_COLUMNS>(rows, k, i * BLOCK_COLUMNS);
        let (words, _) = bytes.as_chunks_mut::<4>();
        for (t, word) in words.iter_mut().enumerate() {
            let (row, column) = word_position(t);
            let (sixteens, _) = block[row].as_chunks::<16>();
            *word = interleave(&sixteens[column / 16]).to_le_bytes();
        }
    }
}

/// The inverse of [`pack_tile`].
pub(super) fn unpack_tile(packed: &[u8], k: usize, rows: &mut [i8]) {
    for (i, bytes) in packed.chunks_exact(BLOCK_BYTES).enumerate() {
        let mut block = [[0; BLOCK_COLUMNS]; BLOCK_ROWS];
        let (words, _) = bytes.as_chunks::<4>();
        for (t, word) in words.iter().enumerate() {
            let (row, column) = word_position(t);
            let (sixteens, _) = block[row].as_chunks_mut::<16>();
            sixteens[column / 16] = deinterleave(u32::from_le_bytes(*word));
        }
        blocks::scatter(&block, rows, k, i * BLOCK_COLUMNS);
    }
}

/// Codes of 16 weights in a word: weight `4i + b` in bits `2i` of byte `b`.
fn interleave(weights: &[i8; 16]) -> u32 {
    let (fours, _) = weights.as_chunks::<4>();
    fours.iter().enumerate().fold(0, |word, (i, four)| {
        let codes = four.map(|w| (w as u8).wrapping_add(ZERO));
        word | u32::from_le_bytes(codes) << (2 * i)
    })
}

/// The inverse of [`interleave`].
fn deinterleave(word: u32) -> [i8; 16] {
    let mut weights = [0; 16];
    let (fours, _) = weights.as_chunks_mut::<4>();
    for (i, four) in fours.iter_mut().enumerate() {
        let codes = (word >> (2 * i) & 0x0303_0303).to_le_bytes();
        *four = codes.map(|code| code.wrapping_sub(ZERO) as i8);
    }
    weights
}
