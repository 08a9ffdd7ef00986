//! What Ladder and Tiled share: blocks of 16 rows, made of words that hold 16 columns of one row each.

use super::TILE_ROWS;

/// Row and first column, inside a block, of the word with this index.
type WordPosition = fn(usize) -> (usize, usize);

/// Packs up to 16 rows of `k` weights, block after block of `COLUMNS` columns; weight 0 where the matrix ends.
pub(super) fn pack_tile<const COLUMNS: usize>(
    rows: &[i8],
    k: usize,
    packed: &mut [u8],
    position: WordPosition,
    zero: u8,
) {
    for (i, bytes) in packed.chunks_exact_mut(TILE_ROWS * COLUMNS / 4).enumerate() {
        let column = i * COLUMNS;
        let width = COLUMNS.min(k - column);
        let mut block = [[0; COLUMNS]; TILE_ROWS];
        for (to, from) in block.iter_mut().zip(rows.chunks_exact(k)) {
            to[..width].copy_from_slice(&from[column..column + width]);
        }
        let (words, _) = bytes.as_chunks_mut::<4>();
        for (t, word) in words.iter_mut().enumerate() {
            let (row, column) = position(t);
            let (sixteens, _) = block[row].as_chunks::<16>();
            *word = interleave(&sixteens[column / 16], zero).to_le_bytes();
        }
    }
}

/// The inverse of [`pack_tile`]; padding is dropped.
pub(super) fn unpack_tile<const COLUMNS: usize>(
    packed: &[u8],
    k: usize,
    rows: &mut [i8],
    position: WordPosition,
    zero: u8,
) {
    for (i, bytes) in packed.chunks_exact(TILE_ROWS * COLUMNS / 4).enumerate() {
        let mut block = [[0; COLUMNS]; TILE_ROWS];
        let (words, _) = bytes.as_chunks::<4>();
        for (t, word) in words.iter().enumerate() {
            let (row, column) = position(t);
            let (sixteens, _) = block[row].as_chunks_mut::<16>();
            sixteens[column / 16] = deinterleave(u32::from_le_bytes(*word), zero);
        }
        let column = i * COLUMNS;
        let width = COLUMNS.min(k - column);
        for (from, to) in block.iter().zip(rows.chunks_exact_mut(k)) {
            to[column..column + width].copy_from_slice(&from[..width]);
        }
    }
}

/// Codes `w + zero` of 16 weights in a word: weight `4i + b` in bits `2i` of byte `b`.
///
/// `word >> 2i & 0x03030303` is then four codes in the order of four int8 activations in a 32-bit word.
fn interleave(weights: &[i8; 16], zero: u8) -> u32 {
    let (fours, _) = weights.as_chunks::<4>();
    fours.iter().enumerate().fold(0, |word, (i, four)| {
        let codes = four.map(|w| (w as u8).wrapping_add(zero));
        word | u32::from_le_bytes(codes) << (2 * i)
    })
}

/// The inverse of [`interleave`].
fn deinterleave(word: u32, zero: u8) -> [i8; 16] {
    let mut weights = [0; 16];
    let (fours, _) = weights.as_chunks_mut::<4>();
    for (i, four) in fours.iter_mut().enumerate() {
        let codes = (word >> (2 * i) & 0x0303_0303).to_le_bytes();
        *four = codes.map(|code| code.wrapping_sub(zero) as i8);
    }
    weights
}
