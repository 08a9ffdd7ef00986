//! W2A8 products of up to 8 tokens, on `Tiled` and on `Ladder` weights.
//!
//! `y[m, n] = act((sum_k u[n, k] * q[m, k] - bias_of_codes * sum[m]) / s[m] * row_scale[n] (+ bias[n])) (+ residual[m, n])`, with
//! unsigned codes `u = w + bias_of_codes`: the dot product of the weights is that of the codes less a multiple of the sum of
//! the activations, which quantization has left in `sum`. No lane subtracts anything before the end.
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `weights` | `[n_padded, k_padded]`, packed | 2-bit codes | 16 bytes |
//! | `activations` | `[tokens, k_pitch]` | i8 | 16 bytes |
//! | `activation_scale`, `activation_sum` | `[tokens]` | f32, i32 | 4 bytes |
//! | `row_scale`, `bias` (or null) | `[n]` | f32 | 4 bytes |
//! | `residual` (or null), `output` | `[tokens, n]` | what `dtype` says: f32, f16, bf16 | its element |
//! | `workspace` (null where `SPLITS` is 1) | [`Shape::workspace_len`] | u32, zeros in the first `n / 16` | 4 bytes |
//!
//! Both layouts are made of *units* of 16 bytes, 4 rows x 16 columns, which meet four words of activations. Of a `Tiled` unit,
//! byte `k` holds the codes of the four rows in column `k`. Masks that leave one, two, three and all four rows in a word,
//! `d0 += dot(w & 0x03030303, q)`, `d1 += dot(w & 0x0f0f0f0f, q)`, `d2 += dot(w & 0x3f3f3f3f, q)`, `d3 += dot(w, q)`, give
//! the rows' dot products as `d0`, `(d1 - d0) / 4`, `(d2 - d1) / 16` and `(d3 - d2) / 64`, once, at the end.
//!
//! - `one_token`: `dp4a`. 16 weights cost four of them and three ands; four accumulators serve a lane's whole column.
//! - `tokens`: `mma` for up to 8 tokens. The words `w & mask` are its fragments as they are.
//!
//! Either way the warps of a block split K, and so do `SPLITS` blocks, and their sums meet in `block_sums`. Every weight byte is read
//! once, in whole sectors. Bound by those bytes while enough of them are in flight: `STEPS * TILES` loads are issued before the first
//! is used.

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

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Columns of a step: 8 units.
pub const STEP_COLUMNS: usize = 128;
/// Bytes for each tile that a block of one token has L2 fetch at its start, on sm_90 and later: enough for one warp a processor to have as much on its way as
/// DRAM delivers in its latency; more would be in the way of other blocks.
pub const PREFETCHED_BYTES: usize = 16 << 10;
/// Bytes of a tile's step: a warp's load.
pub const STEP_BYTES: usize = TILE_ROWS * STEP_COLUMNS / 4;
/// Rows of a unit.
const UNIT_ROWS: usize = 4;
const UNIT_COLUMNS: usize = 16;
const UNIT_BYTES: usize = 16;
/// Words of a unit, and of the activations that it meets.
const UNIT_WORDS: usize = 4;
/// The most tokens of a launch.
pub const MAX_TOKENS: usize = 8;

/// How threads map to the matrix; the host chooses a variant by these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tiles of 16 rows a block.
    pub tiles: u32,
    /// Warps a block; they split K.
    pub warps: u32,
    /// Steps of 128 columns whose loads a warp issues together.
    pub steps: u32,
    /// Tokens, at most.
    pub tokens: u32,
    /// Blocks that split K further: the grid's second dimension.
    pub splits: u32,
}

impl Shape {
    /// Threads a block.
    pub const fn threads(&self) -> u32 {
        32 * self.warps
    }

    /// The largest padded K: beyond it 64 times an accumulator's sum of a row could overflow.
    ///
    /// In each of its steps an accumulator adds products of a code up to 3 and an activation down to -128: a lane's 16, or a row's 128.
    /// What else it holds may wrap around: it is subtracted again.
    pub const fn max_k(&self) -> u64 {
        let products = if self.tokens == 1 {
            16
        } else {
            STEP_COLUMNS as u64
        };
        let steps = i32::MAX as u64 / (64 * products * 3 * 128);
        steps * (self.warps * self.splits) as u64 * STEP_COLUMNS as u64
    }

    /// Blocks for `n` rows: the grid's first dimension.
    pub const fn blocks(&self, n: u32) -> u32 {
        n.div_ceil(self.tiles * TILE_ROWS as u32)
    }

    /// Dynamic shared memory of a block in bytes.
    pub const fn shared_bytes(&self) -> u32 {
        4 * self.warps * block_sums::warp_len(self.tiles, self.tokens)
    }

    /// Words of the workspace for `n` rows, 0 where it needs none. The first `n / 16`, rounded up, have to be 0; a launch leaves them so.
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
    /// Columns of the layout, padded.
    k: u32,
    /// From a token's activations to the next one's.
    k_pitch: u32,
    tokens: u32,
    workspace: *mut u32,
}

/// Has L2 fetch the first bytes of this block's first `TILES` tiles, [`PREFETCHED_BYTES`] for each, and the token's activations, where there are any; only
/// then waits for the grid in front. What that one still writes, activations above all, is right when it is loaded: its writes meet the same L2. Where
/// it did not leave them there, each step of a warp would else wait for memory anew.
///
/// # Safety
/// All threads of the block call it; weights of the shape `(n, k)` and as many activations as columns are valid, and no block in the grid's x is
/// without tiles.
#[inline(always)]
unsafe fn follow<const TILES: usize>(
    weights: *const u8,
    activations: Option<*const i8>,
    (n, k): (u32, u32),
) {
    #[cfg(target_feature = "sm_90")]
    if thread::thread_idx_x() == 0 && thread::block_idx_y() == 0 {
        let tile_bytes = k * (TILE_ROWS / 4) as u32;
        let first = thread::block_idx_x() * TILES as u32;
        let tiles = n.div_ceil(TILE_ROWS as u32) - first;
        let bytes = tile_bytes * tiles.min(TILES as u32);
        // SAFETY: the tiles exist, one behind the other; their size is a multiple of 128 bytes.
        unsafe {
            let start = weights.add(first as usize * tile_bytes as usize);
            ptr::prefetch_l2_bulk(start, bytes.min(PREFETCHED_BYTES as u32 * TILES as u32));
            if let (0, Some(activations)) = (first, activations) {
                // Both are multiples of 16.
                ptr::prefetch_l2_bulk(activations, k.min(ptr::MAX_BULK_BYTES));
            }
        }
    }
    #[cfg(not(target_feature = "sm_90"))]
    let _ = (weights, activations, n, k);
    grid::follow();
}
