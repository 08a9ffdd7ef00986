//! W2A8 matrix products of up to 8 tokens with `Tiled` or `Ladder` weights.
//!
//! `y[m, n] = act((sum_k u[n, k] * q[m, k] - bias_of_codes * sum[m]) / s[m] * row_scale[n] (+ bias[n])) (+ residual[m, n])`, with
//! unsigned codes `u = w + bias_of_codes`: the dot product of the weights is that of the codes minus a multiple of the sum of
//! the activations, which quantization has stored in `sum`. Nothing is subtracted before the end.
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `weights` | `[n_padded, k_padded]`, packed | 2-bit codes | 16 bytes |
//! | `activations` | `[tokens, k_pitch]` | i8 | 16 bytes |
//! | `activation_scale`, `activation_sum` | `[tokens]` | f32, i32 | 4 bytes |
//! | `row_scale`, `bias` (or null) | `[n]` | f32 | 4 bytes |
//! | `residual` (or null), `output` | `[tokens, n]` | f32, f16, bf16: `dtype` | one element |
//! | `workspace` (null if `SPLITS` is 1) | [`Shape::workspace_len`] | u32, zeros in the first `ceil(n / 16)` | 4 bytes |
//!
//! Both layouts consist of *units* of 16 bytes, 4 rows x 16 columns, which are multiplied with four words of activations. In a `Tiled`
//! unit, byte `k` holds the codes of the four rows in column `k`. Masks keep one, two, three or all four rows of a word:
//! `d0 += dot(w & 0x03030303, q)`, `d1 += dot(w & 0x0f0f0f0f, q)`, `d2 += dot(w & 0x3f3f3f3f, q)`, `d3 += dot(w, q)`. At the end, the
//! rows' dot products are `d0`, `(d1 - d0) / 4`, `(d2 - d1) / 16` and `(d3 - d2) / 64`.
//!
//! - `one_token`: `dp4a`. 16 `Tiled` weights take four `dp4a` and three `and`; a lane has four accumulators per tile.
//! - `tokens`: `mma`, for up to 8 tokens. The words `w & mask` are its fragments without further shuffling.
//!
//! In both, K is split across the warps of a block and across `SPLITS` blocks, and `block_sums` adds up their sums. Every weight byte
//! is read once, in whole sectors. The kernels are bound by these bytes as long as enough of them are in flight: a warp issues
//! `STEPS * TILES` loads before it uses the first.

mod block_sums;
pub mod entries;
mod epilogue;
mod layout;
pub mod normed;
mod one_token;
mod tokens;

#[cfg(not(target_arch = "nvptx64"))]
pub use entries::{INT8XINT2, Int8xInt2Variant, LADDER, TILED, Variant};
pub use entries::{Int8xInt2Params, Params};

use crate::grid;
#[cfg(target_feature = "sm_90")]
use cuda_std::{ptr, thread};

/// Rows per tile.
pub const TILE_ROWS: usize = 16;
/// Columns per step: 8 units.
pub const STEP_COLUMNS: usize = 128;
/// Bytes of one step of one tile: one 128-bit load per lane.
pub const STEP_BYTES: usize = TILE_ROWS * STEP_COLUMNS / 4;
/// Rows per unit.
const UNIT_ROWS: usize = 4;
const UNIT_COLUMNS: usize = 16;
const UNIT_BYTES: usize = 16;
/// Words per unit, and words of activations that a unit is multiplied with.
const UNIT_WORDS: usize = 4;
/// Maximum number of tokens per block.
pub const MAX_TOKENS: usize = 8;

/// How threads map to the matrix; the host chooses a variant by these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tiles of 16 rows per block.
    pub tiles: u32,
    /// Warps per block; they split K.
    pub warps: u32,
    /// Steps of 128 columns per batch, whose loads a warp issues together.
    pub steps: u32,
    /// Maximum number of tokens.
    pub tokens: u32,
    /// Blocks that K is split across: the grid's y dimension.
    pub splits: u32,
}

impl Shape {
    /// Threads per block.
    pub const fn threads(&self) -> u32 {
        32 * self.warps
    }

    /// The largest supported padded K. Beyond it, 64 times an accumulator's sum for one row could overflow.
    ///
    /// In each step an accumulator adds 16 products of a row (one token) or 128 (several), each of a code up to 3 and an activation down
    /// to -128. Whatever else it holds may wrap around, because it is subtracted again.
    pub const fn max_k(&self) -> u64 {
        let products = if self.tokens == 1 {
            16
        } else {
            STEP_COLUMNS as u64
        };
        let steps = i32::MAX as u64 / (64 * products * 3 * 128);
        steps * (self.warps * self.splits) as u64 * STEP_COLUMNS as u64
    }

    /// Blocks for `n` rows: the grid's x dimension.
    pub const fn blocks(&self, n: u32) -> u32 {
        n.div_ceil(self.tiles * TILE_ROWS as u32)
    }

    /// Dynamic shared memory per block, in bytes.
    pub const fn shared_bytes(&self) -> u32 {
        4 * self.warps * block_sums::warp_len(self.tiles, self.tokens)
    }

    /// Words of workspace for `n` rows; 0 if none is needed. The first `n / 16` words, rounded up, must be zero; every launch leaves them zero.
    pub const fn workspace_len(&self, n: u32) -> usize {
        if self.splits == 1 {
            return 0;
        }
        let sums = self.tiles as usize * TILE_ROWS * self.tokens as usize;
        block_sums::counters(n) as usize + self.blocks(n) as usize * self.splits as usize * sums
    }
}

/// The matrices of a launch.
#[derive(Clone, Copy)]
struct Problem {
    weights: *const u8,
    activations: *const i8,
    n: u32,
    /// Columns of the weight layout, including padding.
    k: u32,
    /// Distance between two tokens' activations.
    k_pitch: u32,
    tokens: u32,
    /// Bytes for each tile, a multiple of 16, that blocks prefetch into L2 before they wait for the preceding grid. With several tokens it only
    /// matters whether it is 0.
    prefetched_bytes: u32,
    workspace: *mut u32,
}

/// Pointers to a lane's units and activations of one step.
#[derive(Clone, Copy)]
struct Place<const UNITS: usize, const DISTANCE: usize> {
    weights: [*const u8; UNITS],
    activations: *const i8,
}

impl<const UNITS: usize, const DISTANCE: usize> Place<UNITS, DISTANCE> {
    /// The place `steps` of this warp's steps further on.
    #[inline(always)]
    fn after(self, steps: usize) -> Self {
        Self {
            weights: self
                .weights
                .map(|p| p.wrapping_add(steps * DISTANCE * STEP_BYTES)),
            activations: self
                .activations
                .wrapping_add(steps * DISTANCE * STEP_COLUMNS),
        }
    }
}

/// Prefetches the first `TILES * prefetched_bytes` bytes of this block's tiles, and the token's activations, into L2; then waits for the
/// preceding grid. That grid may still be writing the activations: its writes go to the same L2, so a later load sees them. Activations
/// that are not in L2 yet would otherwise make each step of a warp wait for memory again.
///
/// # Safety
/// All threads of the block call it; the problem's weights and activations are valid, and every block along the grid's x has at least one tile.
#[inline(always)]
unsafe fn prefetch_and_synchronize<const TILES: usize>(problem: &Problem) {
    #[cfg(target_feature = "sm_90")]
    if thread::thread_idx_x() == 0 && thread::block_idx_y() == 0 {
        let &Problem {
            weights,
            activations,
            n,
            k,
            prefetched_bytes,
            ..
        } = problem;
        let first = thread::block_idx_x() * TILES as u32;
        // SAFETY: the tiles exist and are contiguous; their size is a multiple of 128 bytes, and that of the activations one of 16.
        unsafe {
            if prefetched_bytes > 0 {
                let tile_bytes = k * (TILE_ROWS / 4) as u32;
                let tiles = n.div_ceil(TILE_ROWS as u32) - first;
                let bytes = tile_bytes * tiles.min(TILES as u32);
                let start = weights.add(first as usize * tile_bytes as usize);
                ptr::prefetch_l2_bulk(start, bytes.min(prefetched_bytes * TILES as u32));
            }
            if first == 0 {
                ptr::prefetch_l2_bulk(activations, k.min(ptr::MAX_BULK_BYTES));
            }
        }
    }
    #[cfg(not(target_feature = "sm_90"))]
    let _ = problem.prefetched_bytes;
    grid::synchronize_and_trigger();
}
