//! What Ladder and Tiled share: blocks of 16 rows, padded with weight 0 where the matrix ends.

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
