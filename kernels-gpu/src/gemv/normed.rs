//! RMSNorm or LayerNorm of one token, its quantization and its product with `Tiled` weights, in one kernel.
//!
//! The formulas are those of the `norm`, `quantize` and `gemv` modules, and so are the results, bit for bit: every block normalizes and
//! quantizes the token into shared memory, using the code of `norm` with the same number of threads, and then computes its rows.
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `input` | `[width]` | f32, f16, bf16: `input_dtype` | 16 bytes; whole chunks of 8 are faster |
//! | `gamma`, `beta` (or null) | as in the `norm` module | f32 | 16 bytes |
//! | `weights` | `[n_padded, k]`, packed, `k` being `width` padded to steps of 128 | 2-bit codes | 16 bytes |
//! | `row_scale`, `bias` (or null) | `[n]` | f32 | 4 bytes |
//! | `residual` (or null), `output` | `[n]` | f32, f16, bf16: `dtype` | one element |
//! | dynamic shared memory | [`shared_bytes`]: the int8 values, then the warps' sums of two groups; then a wide row | | |
//!
//! The grid is at most what the device can run at once: block `b` computes groups `b`, `b + grid_dim`, ... of `TILES` tiles of 16 rows, and the
//! norm once. The warps of a block split K. If the row is one chunk per thread (up to 8192), a warp has at most two steps of 128 columns, so that all
//! weights of a group are in flight at once: those of the first group while the norm is computed, those of the next while one is multiplied and
//! reduced. Bound by the norm's latency and instructions if there are few groups per block, else by weight bytes.

use super::epilogue::{Operands, Rows};
use super::layout::{Layout, Tiled};
use super::one_token::{first_value, reduce_scatter};
use super::{STEP_BYTES, STEP_COLUMNS, TILE_ROWS, UNIT_BYTES, UNIT_COLUMNS, UNIT_ROWS, UNIT_WORDS};
use crate::block::{self, WARP};
use crate::element::{AnyFloat, Floats};
use crate::grid;
use crate::norm::{Input, Norm};
use crate::quantize::{self, Sink};
use crate::row::{ANY, CHUNK, MAX_THREADS, WHOLE, WIDE};
use core::mem::MaybeUninit;
use cuda_std::ptr::{self, U32x2, U32x4};
use cuda_std::shared::{self, SharedPtr};
use cuda_std::{kernel, thread, warp};

/// Steps of a tile whose weights a warp loads together.
const STEPS: usize = 2;

/// Maximum number of registers per thread: each thread's share with `MAX_THREADS` threads per block.
pub const REGISTERS: u32 = 64;

/// Dynamic shared memory, in bytes, of a block of `threads` threads that computes `tiles` tiles at a time; `k` is the padded width.
pub const fn shared_bytes(k: u32, threads: u32, tiles: u32) -> u32 {
    k + 2 * 4 * tiles * TILE_ROWS as u32 * (threads / WARP)
}

/// Chunks of a wide token that a thread has in registers: weights need them.
pub const WIDE_IN_REGISTERS: u32 = 0;

/// Quantized activations in shared memory.
#[derive(Clone, Copy)]
struct InShared {
    values: SharedPtr<U32x2>,
    k: u32,
}

impl Sink for InShared {
    const SCALED: bool = true;
    const WIDE_IN_REGISTERS: u32 = WIDE_IN_REGISTERS;
    /// The token's scale, and the sum of the values that this warp has written.
    type Finished = (f32, i32);

    #[inline(always)]
    fn len(&self) -> u32 {
        self.k
    }

    #[inline(always)]
    unsafe fn store(
        &self,
        _row: usize,
        chunk: u32,
        values: &[f32; CHUNK],
        scale: f32,
        sum: i32,
    ) -> i32 {
        if chunk * CHUNK as u32 >= self.k {
            return sum;
        }
        let (bytes, sum) = quantize::round_chunk(values, scale, sum);
        // SAFETY: the chunk is inside the row, and belongs to this thread.
        unsafe { self.values.add(chunk).write(bytes) };
        sum
    }

    #[inline(always)]
    unsafe fn finish(&self, _row: usize, scale: f32, sum: i32) -> (f32, i32) {
        // SAFETY: the caller's contract.
        (scale, unsafe { block::sum_warp(sum) })
    }
}

/// A lane's view of the weights.
#[derive(Clone, Copy)]
struct Weights<const TILES: usize> {
    /// This lane's unit of the first step of the first tile.
    first: *const u8,
    tiles: u32,
    /// Steps of a tile.
    steps: u32,
}

/// A lane's units of a step, by tile.
type Units<const TILES: usize> = [[u32; UNIT_WORDS]; TILES];

impl<const TILES: usize> Weights<TILES> {
    /// Whether a group has a step.
    #[inline(always)]
    fn has(&self, group: u32, step: u32) -> bool {
        step < self.steps && group * (TILES as u32) < self.tiles
    }

    /// A lane's units of a step of a group, which has it. Tiles past the last repeat the last one; their results are not written.
    #[inline(always)]
    fn units(&self, group: u32, step: u32) -> [*const U32x4; TILES] {
        core::array::from_fn(|tile| {
            let index = (group * TILES as u32 + tile as u32).min(self.tiles - 1);
            let offset = (index as usize * self.steps as usize + step as usize) * STEP_BYTES;
            self.first.wrapping_add(offset).cast()
        })
    }

    /// Loads a lane's units of a step of a group.
    ///
    /// # Safety
    /// The group has the step; the weights are as the module describes.
    #[inline(always)]
    unsafe fn load(&self, group: u32, step: u32) -> Units<TILES> {
        // SAFETY: the units exist.
        self.units(group, step)
            .map(|unit| unsafe { ptr::load_nc_streaming_v4(unit) }.0)
    }
}

/// Normalizes and quantizes the token, and computes this block's rows. `COUNT` is `TILES * 4`, the number of sums per lane.
///
/// # Safety
/// Launched with as many threads as the norm has chunks, in whole warps and at most [`MAX_THREADS`], on buffers as the module describes.
#[inline(always)]
unsafe fn normed<
    const TILES: usize,
    const COUNT: usize,
    const CHUNKS: usize,
    const WHOLE: bool,
    const EARLY: bool,
>(
    norm: Norm<WHOLE>,
    input: Input<WHOLE>,
    weights: *const u8,
    rows: Rows,
    n: u32,
    k: u32,
) {
    const { assert!(COUNT == TILES * UNIT_ROWS && COUNT <= 8 && TILES * TILE_ROWS <= WARP as usize) };
    let rows_of_group = const { (TILES * TILE_ROWS) as u32 };
    let (thread, warps) = (thread::thread_idx_x(), thread::block_dim_x() / WARP);
    let (warp, lane) = (thread / WARP, thread % WARP);
    let values: SharedPtr<U32x2> = shared::dynamic_shared_mem();
    let mut partial = values.cast::<i32>().add(k / 4);
    let mut other_partial = partial.add(rows_of_group * warps);

    let mut group = thread::block_idx_x();
    let groups = n.div_ceil(rows_of_group);
    let mut step = warp;
    // The warp that writes the group's outputs: a different one each time, since the others go on to the next group.
    let mut writer = 0;
    // SAFETY: here and below, the caller's contract; all threads reach the barriers, because they agree on `group`.
    unsafe {
        let weights = Weights::<TILES> {
            first: weights.add(lane as usize * UNIT_BYTES),
            tiles: n.div_ceil(TILE_ROWS as u32),
            steps: k / STEP_COLUMNS as u32,
        };
        // Each lane prefetches what it loads after the wait. One thread could prefetch for all, but its warp would then arrive late at the norm's
        // barriers; nor is it worth a branch to have one warp prefetch the rows' operands.
        rows.prefetch((group * rows_of_group) as usize);
        #[cfg(target_feature = "sm_90")]
        unroll!(i < STEPS <= 2, {
            let step = step + i as u32 * warps;
            if weights.has(group, step) {
                for unit in weights.units(group, step) {
                    ptr::prefetch_l2(unit);
                }
            }
        });
        norm.prefetch();
        grid::follow();
        // The row of a group that this lane writes, or one past the last.
        let row_of = |group: u32, writer: u32| {
            if warp == writer && lane < rows_of_group {
                group * rows_of_group + lane
            } else {
                u32::MAX
            }
        };
        let load = |row: u32| {
            if row < n {
                rows.operands(row as usize, row as usize)
            } else {
                Operands::default()
            }
        };
        // Of steps that exist, and read only for those.
        let mut units = [MaybeUninit::<Units<TILES>>::uninit(); STEPS];
        unroll!(i < STEPS <= 2, {
            let step = step + i as u32 * warps;
            if weights.has(group, step) {
                units[i].write(weights.load(group, step));
            }
        });
        let quantized = InShared { values, k };
        let used = shared_bytes(k, thread::block_dim_x(), TILES as u32);
        let (scale, own_sum) = norm.run::<_, _, CHUNKS, EARLY>(0, input, quantized, used);
        let mut next_row = row_of(group, writer);
        let mut next_operands = load(next_row);
        thread::sync_threads();

        let activations = values
            .cast::<U32x4>()
            .add(Tiled::sixteen(lane as usize) as u32);
        while group < groups {
            let (operands, row, writes) = (next_operands, next_row, warp == writer);
            let mut sums = [Tiled::ZERO; TILES];
            let mut is_last = false;
            while !is_last {
                let first = step;
                step += STEPS as u32 * warps;
                // With a chunk per thread, the block has a warp for every two steps.
                is_last = CHUNKS != WIDE || step >= weights.steps;
                if is_last {
                    step = warp;
                    group += thread::grid_dim_x();
                    writer = if writer + 1 < warps { writer + 1 } else { 0 };
                    next_row = row_of(group, writer);
                    next_operands = load(next_row);
                }
                unroll!(i < STEPS <= 2, {
                    let distance = i as u32 * warps;
                    if first + distance < weights.steps {
                        let column = (first + distance) * (STEP_COLUMNS / UNIT_COLUMNS) as u32;
                        let U32x4(q) = activations.add(column).read();
                        let units = units[i].assume_init_ref();
                        for word in 0..UNIT_WORDS {
                            for tile in 0..TILES {
                                Tiled::add(&mut sums[tile], &units[tile], word, q[word] as i32);
                            }
                        }
                    }
                    // Loads into the registers that have just become free.
                    if weights.has(group, step + distance) {
                        units[i].write(weights.load(group, step + distance));
                    }
                });
            }

            let mut totals = [0; COUNT];
            for tile in 0..TILES {
                for (row, total) in Tiled::rows(sums[tile]).into_iter().enumerate() {
                    totals[tile * UNIT_ROWS + row] = total;
                }
            }
            reduce_scatter(&mut totals, Tiled::COLUMN_BITS);
            // With 4 sums, two lanes hold the same total.
            if COUNT == 8 || lane & Tiled::COLUMN_BITS[2] == 0 {
                let value = first_value::<COUNT>(lane as usize, Tiled::COLUMN_BITS);
                let row = value / UNIT_ROWS * TILE_ROWS
                    + Tiled::row_group(lane as usize) * UNIT_ROWS
                    + value % UNIT_ROWS;
                // Each warp subtracts the sum of what it has quantized; over all warps, that is the token's sum.
                partial
                    .add(warp * rows_of_group + row as u32)
                    .write(totals[0] - Tiled::CODE_BIAS * own_sum);
            }
            // One barrier per group suffices: the sums of the next group are written elsewhere.
            thread::sync_threads();
            if writes {
                let dot = sum_rows::<TILES>(partial, warps, lane);
                if row < n {
                    rows.write(row as usize, operands, dot, scale);
                }
            }
            (partial, other_partial) = (other_partial, partial);
        }
    }
}

/// The sum over the warps for row `lane % (TILES * 16)` of a group, to be called by a whole warp. With fewer rows than lanes, the lanes of a row share the
/// warps' sums.
///
/// # Safety
/// `partial` holds `[warps, TILES * 16]` sums.
#[inline(always)]
unsafe fn sum_rows<const TILES: usize>(partial: SharedPtr<i32>, warps: u32, lane: u32) -> i32 {
    /// Sums of a lane that are loaded together.
    const BATCH: usize = 8;
    let rows = const { (TILES * TILE_ROWS) as u32 };
    let sharing = WARP / rows;
    let (row, share) = (lane % rows, lane / rows);
    let (mut dot, mut first) = (0, 0);
    // SAFETY: the caller's contract.
    unsafe {
        while first < warps {
            unroll!(i < BATCH <= 8, {
                let warp = first + i as u32 * sharing + share;
                if warp < warps {
                    dot += partial.add(warp * rows + row).read();
                }
            });
            first += BATCH as u32 * sharing;
        }
        if sharing == 2 {
            dot += warp::warp_shuffle_xor(block::FULL_WARP, dot, rows, WARP);
        }
    }
    dot
}

/// Parameters of the kernels, as [`cuda_std::kernel::Kernel::Params`].
pub type Params = (
    *const AnyFloat,
    u32,
    *const f32,
    *const f32,
    f32,
    u32,
    u32,
    *const u8,
    *const f32,
    *const f32,
    *const AnyFloat,
    *mut AnyFloat,
    u32,
    u32,
    u32,
    u32,
);

/// A kernel, the tokens that it accepts, and how many rows it computes at a time.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy)]
pub struct Variant {
    /// The kernel, and the tokens that it accepts.
    pub row: crate::row::Variant<Params>,
    /// Tiles of 16 rows that a block computes at a time.
    pub tiles: u32,
}

/// Defines the kernels: the entry points, and the list for the host.
macro_rules! variants {
    ($($name:ident: $tiles:literal tiles, $chunks:expr, $whole:expr;)*) => {
        /// The kernels: first those that keep the token in registers, by ascending number of rows at a time; the last accepts any token.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const VARIANTS: &[Variant] = &[$(Variant {
            row: crate::row::Variant { chunks: $chunks, whole: $whole, entry: crate::Entry::of::<$name>() },
            tiles: $tiles,
        }),*];
        $(
            /// Norm, quantization and product of one token; see the module.
            #[kernel(launch_bounds(MAX_THREADS, 1))]
            pub unsafe fn $name(
                input: *const AnyFloat,
                input_dtype: u32,
                gamma: *const f32,
                beta: *const f32,
                eps: f32,
                norm: u32,
                width: u32,
                weights: *const u8,
                row_scale: *const f32,
                bias: *const f32,
                residual: *const AnyFloat,
                output: *mut AnyFloat,
                dtype: u32,
                activation: u32,
                n: u32,
                k: u32,
            ) {
                let norm = Norm::<$whole> { kind: norm, gamma, beta, eps, width };
                let floats = |start| Floats::new(start, input_dtype, width);
                let input = Input::<$whole> { input: floats(input), residual: floats(core::ptr::null()) };
                let rows = Rows { row_scale, bias, activation, residual, output, dtype };
                // SAFETY: the host launches it on buffers as the module describes.
                unsafe {
                    normed::<$tiles, { $tiles * UNIT_ROWS }, $chunks, $whole, { $chunks != WIDE }>(norm, input, weights, rows, n, k)
                }
            }
        )*
    };
}

variants! {
    norm_gemv_c1_t1: 1 tiles, 1, WHOLE;
    norm_gemv_c1_t2: 2 tiles, 1, WHOLE;
    norm_gemv_wide_t1: 1 tiles, WIDE, ANY;
}
