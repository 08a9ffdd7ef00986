//! W2A8 matrix-vector product for up to 8 tokens, on `Tiled` and on `Ladder` weights.
//!
//! `y[m, n] = (sum_k u[n, k] * q[m, k] - bias_of_codes * sum[m]) / s[m] * row_scale[n] (+ bias[n]) (+ residual[m, n])`, with
//! unsigned codes `u = w + bias_of_codes`: the dot product of the weights is that of the codes less a multiple of the sum of
//! the activations, which quantization has left in `sum`. No lane subtracts anything before the end.
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `weights` | `[n_padded, k_padded]`, packed | 2-bit codes | 16 bytes |
//! | `activations` | `[TOKENS, k_pitch]`: rows beyond `tokens` are read, too | i8 | 16 bytes |
//! | `activation_scale`, `activation_sum` | `[tokens]` | f32, i32 | 4 bytes |
//! | `row_scale`, `bias` (or null) | `[n]` | f32 | 4 bytes |
//! | `residual` (or null), `output` | `[tokens, n]` | what `dtype` says: f32, f16, bf16 | its element |
//!
//! Both layouts are made of *units* of 16 bytes, 4 rows x 16 columns, which meet four words of activations. Of a `Tiled` unit,
//! byte `k` holds the codes of the four rows in column `k`. Masks that leave one, two, three and all four rows in a word,
//! `d0 += dp4a(w & 0x03030303, q)`, `d1 += dp4a(w & 0x0f0f0f0f, q)`, `d2 += dp4a(w & 0x3f3f3f3f, q)`, `d3 += dp4a(w, q)`, give
//! the rows' dot products as `d0`, `(d1 - d0) / 4`, `(d2 - d1) / 16` and `(d3 - d2) / 64`, once, at the end: 16 weights cost
//! four `dp4a` and three ands, and four accumulators serve a lane's whole column.
//!
//! ```text
//! a warp's load, 512 bytes: 16 rows (a tile) x 128 columns (a step)
//!            columns 0..15   16..31   ...   112..127
//! rows 0..3        lane 0    lane 1         lane 7       the lane -> unit map of Tiled; Ladder's is a permutation of it
//! rows 4..7        lane 8    lane 9         lane 15
//! rows 8..11       lane 16   ...
//! rows 12..15      lane 24   ...            lane 31
//! ```
//!
//! A block computes `TILES` tiles; its `WARPS` warps take the steps of K in turn, and their sums meet in shared memory. Every
//! weight byte is read once, in whole 128-byte lines. Bound by those bytes while enough of them are in flight: `STEPS * TILES`
//! loads are issued before the first is used.

pub mod entries;
mod epilogue;
mod layout;
pub mod normed;

#[cfg(not(target_arch = "nvptx64"))]
pub use entries::{INT8XINT2, Int8xInt2Variant, LADDER, TILED, Variant};
pub use entries::{Int8xInt2Params, Params};

use crate::block;
use cuda_std::ptr::{self, U32x4};
use cuda_std::{intrinsics, shared_array, thread, warp};
use epilogue::Epilogue;
use layout::Layout;

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Columns of a step: 8 units.
pub const STEP_COLUMNS: usize = 128;
/// Bytes of a tile's step.
const STEP_BYTES: usize = TILE_ROWS * STEP_COLUMNS / 4;
/// Rows of a unit.
const UNIT_ROWS: usize = 4;
const UNIT_COLUMNS: usize = 16;
const UNIT_BYTES: usize = 16;
/// Words of a unit, and of the activations that it meets.
const UNIT_WORDS: usize = 4;
/// Room in shared memory for the sums of a block's warps: 4 KiB, so that the blocks of a multiprocessor find room.
const PARTIAL_SUMS: usize = 1024;
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
}

impl Shape {
    /// Threads a block.
    pub const fn threads(&self) -> u32 {
        32 * self.warps
    }

    /// The largest padded K: beyond it 64 times a lane's sum of a row could overflow.
    ///
    /// In each of its `K / 128 / warps` steps a lane adds 16 products of a code up to 3 and an activation down to -128. What
    /// else an accumulator holds may wrap around: it is subtracted again.
    pub const fn max_k(&self) -> u64 {
        let steps = i32::MAX as u64 / (64 * 16 * 3 * 128);
        steps * self.warps as u64 * STEP_COLUMNS as u64
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
}

/// Adds `STEPS` units of each of a lane's tiles. All weight loads come before the first use.
///
/// # Safety
/// `weights[tile] + step * weight_stride` and, of each token, `activations + step * activation_stride` are valid for a unit.
#[inline(always)]
unsafe fn accumulate<
    L: Layout,
    E: Epilogue,
    const TILES: usize,
    const WARPS: usize,
    const STEPS: usize,
    const TOKENS: usize,
>(
    weights: [*const u8; TILES],
    activations: *const i8,
    problem: &Problem,
    sums: &mut [[L::Sums; TILES]; TOKENS],
    activation_sums: &mut [i32; TOKENS],
) {
    let (weight_stride, activation_stride) = (WARPS * STEP_BYTES, WARPS * STEP_COLUMNS);
    let mut units = [[[0u32; UNIT_WORDS]; TILES]; STEPS];
    unroll!(step < STEPS <= 8, {
        for tile in 0..TILES {
            // SAFETY: the caller's contract.
            units[step][tile] =
                unsafe { ptr::load_nc_streaming_v4(weights[tile].add(step * weight_stride).cast()) }.0;
        }
    });
    unroll!(step < STEPS <= 8, {
        let mut activations = activations.wrapping_add(step * activation_stride);
        unroll!(token < TOKENS <= 8, {
            if token > 0 {
                activations = opaque(activations.wrapping_add(problem.k_pitch as usize));
            }
            // SAFETY: the caller's contract.
            let U32x4(q) = unsafe { *activations.cast() };
            for word in 0..UNIT_WORDS {
                if E::SUMS_ACTIVATIONS {
                    activation_sums[token] = intrinsics::dp4a(0x0101_0101, q[word] as i32, activation_sums[token]);
                }
                for tile in 0..TILES {
                    L::add(&mut sums[token][tile], &units[step][tile], word, q[word] as i32);
                }
            }
        });
    });
}

/// The same pointer, of which LLVM forgets how it came about. It would keep one for each token otherwise, in registers that
/// eight tokens' sums need.
#[inline(always)]
#[cfg(target_arch = "nvptx64")]
fn opaque(mut pointer: *const i8) -> *const i8 {
    // SAFETY: no instruction.
    unsafe {
        core::arch::asm!("/* {0} */", inout(reg64) pointer, options(pure, nomem, nostack, preserves_flags));
    }
    pointer
}

#[cfg(not(target_arch = "nvptx64"))]
fn opaque(pointer: *const i8) -> *const i8 {
    pointer
}

/// Adds each of `COUNT` values over the lanes that differ in the bits `lane_bits`, and leaves every lane with its share of
/// the totals in front: those from [`first_value`] on, `COUNT / 8` of them and at least one.
///
/// Each round a lane keeps one half of its values and hands the other to the lane across; with one value left, both keep it.
///
/// # Safety
/// All lanes of the warp call it together.
#[inline(always)]
unsafe fn reduce_scatter<const COUNT: usize>(values: &mut [i32; COUNT], lane_bits: [u32; 3]) {
    let lane = warp::lane_id();
    unroll!(round < 3 <= 3, {
        let bit = lane_bits[round];
        let half = COUNT >> (round + 1);
        if half == 0 {
            // SAFETY: the caller's contract.
            values[0] += unsafe { warp::warp_shuffle_xor(block::FULL_WARP, values[0], bit, block::WARP) };
        } else {
            // All ones in the upper lanes. Arithmetic, because of an `if` here LLVM has made two paths with a shuffle in each
            // (docs/toolchain.md).
            let upper = -i32::from(lane & bit != 0);
            unroll!(i < half <= 16, {
                let swap = (values[i] ^ values[i + half]) & upper;
                let (keep, send) = (values[i] ^ swap, values[i + half] ^ swap);
                // SAFETY: the caller's contract.
                values[i] = keep + unsafe { warp::warp_shuffle_xor(block::FULL_WARP, send, bit, block::WARP) };
            });
        }
    });
}

/// Index of the first total that [`reduce_scatter`] leaves a lane with.
#[inline(always)]
fn first_value<const COUNT: usize>(lane: usize, lane_bits: [u32; 3]) -> usize {
    let mut first = 0;
    for (round, bit) in lane_bits.into_iter().enumerate() {
        first += (COUNT >> (round + 1)) * usize::from(lane as u32 & bit != 0);
    }
    first
}

/// The rows of this block. `COUNT` is `TOKENS * TILES * 4`, the sums of a lane.
///
/// # Safety
/// Launched with `32 * WARPS` threads and a block for each `TILES` tiles, on buffers as the module says; `problem.tokens` is
/// at most `TOKENS`.
#[inline(always)]
unsafe fn gemv<
    L: Layout,
    E: Epilogue,
    const TILES: usize,
    const WARPS: usize,
    const STEPS: usize,
    const TOKENS: usize,
    const COUNT: usize,
>(
    problem: Problem,
    epilogue: E,
) {
    const {
        assert!(
            STEPS <= 8
                && TOKENS <= MAX_TOKENS
                && COUNT == TOKENS * TILES * UNIT_ROWS
                && COUNT.is_power_of_two()
                && WARPS * 32 * if COUNT > 8 { COUNT / 8 } else { 1 } <= PARTIAL_SUMS
        )
    };
    let thread = thread::thread_idx_x() as usize;
    let (warp, lane) = (thread / 32, thread % 32);
    let first_tile = thread::block_idx_x() as usize * TILES;
    let k = problem.k as usize;
    let mut column = (warp * STEP_COLUMNS + L::sixteen(lane) * UNIT_COLUMNS) as u32;

    // Tiles beyond what there is repeat the last one, and write nothing.
    let last_tile = (problem.n as usize - 1) / TILE_ROWS;
    // SAFETY: tiles up to the last exist, and where the pointers are used, `column` is below `k`.
    let (mut weights, mut activations) = unsafe {
        let step = problem.weights.add(warp * STEP_BYTES + lane * UNIT_BYTES);
        let weights: [_; TILES] = core::array::from_fn(|tile| {
            step.add((first_tile + tile).min(last_tile) * (k / 4 * TILE_ROWS))
        });
        (weights, problem.activations.add(column as usize))
    };

    let mut sums = [[L::ZERO; TILES]; TOKENS];
    let mut activation_sums = [0; TOKENS];
    // Steps that all lanes of this warp have.
    let mut whole_steps = (k / STEP_COLUMNS + WARPS - 1 - warp) / WARPS;
    // SAFETY: in the first loop the next `STEPS` steps exist, in the second this lane's next unit does.
    unsafe {
        while STEPS > 1 && whole_steps >= STEPS {
            accumulate::<L, E, TILES, WARPS, STEPS, TOKENS>(
                weights,
                activations,
                &problem,
                &mut sums,
                &mut activation_sums,
            );
            weights = weights.map(|p| p.add(STEPS * WARPS * STEP_BYTES));
            activations = activations.add(STEPS * WARPS * STEP_COLUMNS);
            column += (STEPS * WARPS * STEP_COLUMNS) as u32;
            whole_steps -= STEPS;
        }
        while column < problem.k {
            accumulate::<L, E, TILES, WARPS, 1, TOKENS>(
                weights,
                activations,
                &problem,
                &mut sums,
                &mut activation_sums,
            );
            weights = weights.map(|p| p.add(WARPS * STEP_BYTES));
            activations = activations.add(WARPS * STEP_COLUMNS);
            column += (WARPS * STEP_COLUMNS) as u32;
        }
    }

    // Index of a value: (token * TILES + tile) * UNIT_ROWS + row.
    let mut values = [0; COUNT];
    unroll!(token < TOKENS <= 8, {
        for tile in 0..TILES {
            let rows = L::rows(sums[token][tile]);
            for row in 0..UNIT_ROWS {
                // Each lane's columns of the activations, so that all of a row's lanes subtract them once.
                let own = if E::SUMS_ACTIVATIONS { L::CODE_BIAS * activation_sums[token] } else { 0 };
                values[(token * TILES + tile) * UNIT_ROWS + row] = rows[row] - own;
            }
        }
    });
    // SAFETY: the loops above have ended for all lanes of the warp.
    unsafe { reduce_scatter(&mut values, L::COLUMN_BITS) };
    let kept = if COUNT > 8 { COUNT / 8 } else { 1 };
    // With 4 values, two lanes are left with the same one.
    let writes = |lane: usize| COUNT >= 8 || lane as u32 & L::COLUMN_BITS[2] == 0;

    if WARPS == 1 {
        if writes(lane) {
            for i in 0..kept {
                // SAFETY: the caller's contract.
                unsafe {
                    write::<L, E, TILES, COUNT>(&problem, &epilogue, first_tile, lane, i, values[i])
                };
            }
        }
        return;
    }
    // `[warp][kept][lane]`, so that a warp's accesses are consecutive.
    let partial = shared_array![i32; PARTIAL_SUMS];
    // SAFETY: each place is written by one thread, and read after the barrier that all threads reach.
    unsafe {
        for i in 0..kept {
            partial
                .add(((warp * kept + i) * 32 + lane) as u32)
                .write(values[i]);
        }
        thread::sync_threads();
        let mut index = thread;
        while index < kept * 32 {
            let mut sum = 0;
            for warp in 0..WARPS {
                sum += partial.add((warp * kept * 32 + index) as u32).read();
            }
            if writes(index % 32) {
                write::<L, E, TILES, COUNT>(
                    &problem,
                    &epilogue,
                    first_tile,
                    index % 32,
                    index / 32,
                    sum,
                );
            }
            index += 32 * WARPS;
        }
    }
}

/// Hands total `i` of those that a lane was left with to the epilogue, where it is one of the matrix.
///
/// # Safety
/// The pointers are as the module says.
#[inline(always)]
unsafe fn write<L: Layout, E: Epilogue, const TILES: usize, const COUNT: usize>(
    problem: &Problem,
    epilogue: &E,
    first_tile: usize,
    lane: usize,
    i: usize,
    sum: i32,
) {
    let value = first_value::<COUNT>(lane, L::COLUMN_BITS) + i;
    let (token, tile, row) = (
        value / UNIT_ROWS / TILES,
        value / UNIT_ROWS % TILES,
        value % UNIT_ROWS,
    );
    let row = (first_tile + tile) * TILE_ROWS + L::row_group(lane) * UNIT_ROWS + row;
    if row < problem.n as usize && token < problem.tokens as usize {
        // SAFETY: just checked.
        unsafe { epilogue.write::<L>(problem, token, row, sum) };
    }
}
