//! What Ladder and Tiled share: blocks of 16 rows, and 16 codes interleaved in a 32-bit word.

use super::TILE_ROWS;

/// A block of weights, zero where the matrix ends.
pub(super) type Block<const COLUMNS: usize> = [[i8; COLUMNS]; TILE_ROWS];

/// Copies the block that starts at `column` out of up to 16 rows of `k` weights.
pub(super) fn gather<const COLUMNS: usize>(rows: &[i8], k: usize, column: usize) -> Block<COLUMNS> {
    let mut block = [[0; COLUMNS]; TILE_ROWS];
    let width = COLUMNS.min(k - column);
    for (to, from) in block.iter_mut().zip(rows.chunks_exact(k)) {
        to[..width].copy_from_slice(&from[column..column + width]);
    }
    block
}

/// Copies a block to where it belongs in up to 16 rows of `k` weights, and drops its padding.
pub(super) fn scatter<const COLUMNS: usize>(
    block: &Block<COLUMNS>,
    rows: &mut [i8],
    k: usize,
    column: usize,
) {
    let width = COLUMNS.min(k - column);
    for (from, to) in block.iter().zip(rows.chunks_exact_mut(k)) {
        to[column..column + width].copy_from_slice(&from[..width]);
    }
}

/// Codes `w + zero` of 16 weights in a word: weight `4i + b` in bits `2i` of byte `b`.
///
/// `word >> 2i & 0x03030303` is then four codes in the order of four int8 activations in a 32-bit word.
pub(super) fn interleave(weights: &[i8; 16], zero: u8) -> u32 {
    let (fours, _) = weights.as_chunks::<4>();
    fours.iter().enumerate().fold(0, |word, (i, four)| {
        let codes = four.map(|w| (w as u8).wrapping_add(zero));
        word | u32::from_le_bytes(codes) << (2 * i)
    })
}

/// The inverse of [`interleave`].
pub(super) fn deinterleave(word: u32, zero: u8) -> [i8; 16] {
    let mut weights = [0; 16];
    let (fours, _) = weights.as_chunks_mut::<4>();
    for (i, four) in fours.iter_mut().enumerate() {
        let codes = (word >> (2 * i) & 0x0303_0303).to_le_bytes();
        *four = codes.map(|code| code.wrapping_sub(zero) as i8);
    }
    weights
}
