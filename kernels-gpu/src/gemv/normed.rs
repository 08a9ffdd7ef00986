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
//! | dynamic shared memory | [`shared_bytes`]: the int8 values, then the sums of two groups; then a wide row | | |
//!
//! The grid is at most what the device can run at once: block `b` computes groups `b`, `b + grid_dim`, ... of `TILES` tiles of 16 rows, and the
//! norm once. `early` is 1 if it may start before the preceding kernel has ended, and then it prefetches its weights. Of K, each warp computes the
//! columns that it has quantized itself; the warps add up their sums in shared memory. If the row is one chunk per thread (up to 8192), these are
//! two steps of 128 columns, so that all weights of a group are in flight at once: those of the first group while the norm is computed, those of
//! the next while one is multiplied and reduced. Bound by the norm's latency and instructions if there are few groups per block, else by weight
//! bytes.

use super::epilogue::{Operands, Rows};
use super::layout::{Layout, Tiled};
use super::one_token::{first_value, reduce_scatter};
use super::{STEP_BYTES, STEP_COLUMNS, TILE_ROWS, UNIT_BYTES, UNIT_COLUMNS, UNIT_ROWS, UNIT_WORDS};
use crate::block;
use crate::element::{AnyFloat, Floats, Words};
use crate::grid;
use crate::norm::{Norm, Source};
use crate::quantize::{self, Sink};
use crate::row::{ANY, CHUNK, MAX_THREADS, WHOLE, WIDE};
use core::mem::MaybeUninit;
use cuda_std::ptr::{self, U32x2, U32x4};
use cuda_std::shared::{self, SharedPtr};
use cuda_std::warp::{self, FULL_MASK, WARP_SIZE};
use cuda_std::{kernel, thread};

/// Steps that a warp computes together, and whose weights it loads together: those of the activations that its lanes quantize, a chunk each.
const STEPS: usize = WARP_SIZE as usize * CHUNK / STEP_COLUMNS;

/// Maximum number of registers per thread: each thread's share with `MAX_THREADS` threads per block.
pub const REGISTERS: u32 = 64;

/// Dynamic shared memory, in bytes, of a block; `k` is the padded width.
pub const fn shared_bytes(k: u32) -> u32 {
    k + 2 * size_of::<i32>() as u32 * WARP_SIZE
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

/// The token, of which this thread may have fetched its only chunk before.
#[derive(Clone, Copy)]
struct Token<const WHOLE: bool> {
    input: Floats,
    fetched: Option<Words>,
}

impl<const WHOLE: bool> Source for Token<WHOLE> {
    #[inline(always)]
    unsafe fn load(&self, token: usize, chunk: u32, _first: bool) -> [f32; CHUNK] {
        match self.fetched {
            Some(words) => self.input.widen(words),
            // SAFETY: the caller's contract.
            None => unsafe { self.input.load::<WHOLE>(token, chunk) },
        }
    }
}

/// The weights, as a lane loads them.
#[derive(Clone, Copy)]
struct Weights<const TILES: usize> {
    /// This lane's unit of its warp's first step of the first tile.
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

    /// This lane's unit of its warp's first step of each tile of a group. Tiles past the last repeat the last one; their results are not written.
    #[inline(always)]
    fn of_group(&self, group: u32) -> [*const u8; TILES] {
        let tile_bytes = self.steps * STEP_BYTES as u32;
        core::array::from_fn(|tile| {
            let index = (group * TILES as u32 + tile as u32).min(self.tiles - 1);
            self.first
                .wrapping_add(index as usize * tile_bytes as usize)
        })
    }
}

/// Loads a lane's units of the step `step` steps after that of `units`.
///
/// # Safety
/// The units exist.
#[inline(always)]
unsafe fn load<const TILES: usize>(units: [*const u8; TILES], step: usize) -> Units<TILES> {
    // SAFETY: the caller's contract.
    units.map(|unit| unsafe { ptr::load_nc_streaming_v4(unit.add(step * STEP_BYTES).cast()) }.0)
}

/// Has L2 fetch what the block loads first of its first group's weights. Not a method of [`Weights`]: with those made before the token is
/// loaded, launches that do not prefetch would compute their addresses before it, too.
///
/// # Safety
/// The weights are as the module describes, and the group exists.
#[cfg(target_feature = "sm_90")]
#[inline(always)]
unsafe fn prefetch<const TILES: usize>(weights: *const u8, group: u32, n: u32, k: u32) {
    let first = group * TILES as u32;
    let tiles = (n.div_ceil(TILE_ROWS as u32) - first).min(TILES as u32);
    let steps = k / STEP_COLUMNS as u32;
    // All of them, or those of the only tile: in either case they are contiguous.
    let loaded = steps.min(thread::block_dim_x() / WARP_SIZE * STEPS as u32);
    // SAFETY: the caller's contract.
    unsafe {
        let start = weights.add((first * steps) as usize * STEP_BYTES);
        ptr::prefetch_l2_bulk(start, tiles * loaded * STEP_BYTES as u32);
    }
}

/// Normalizes and quantizes the token, and computes this block's rows. `COUNT` is `TILES * 4`, the number of sums per lane.
///
/// # Safety
/// Launched with as many threads as the norm has chunks, in whole warps and at most [`MAX_THREADS`], on buffers as the module describes.
#[inline(always)]
unsafe fn normed<const TILES: usize, const COUNT: usize, const CHUNKS: usize, const WHOLE: bool>(
    norm: Norm<WHOLE>,
    input: Floats,
    weights: *const u8,
    rows: Rows,
    n: u32,
    k: u32,
    is_early: bool,
) {
    const {
        assert!(COUNT == TILES * UNIT_ROWS && COUNT <= 8 && TILES * TILE_ROWS <= WARP_SIZE as usize)
    };
    let rows_of_group = const { (TILES * TILE_ROWS) as u32 };
    let (thread, warps) = (thread::thread_idx_x(), thread::block_dim_x() / WARP_SIZE);
    let (warp, lane) = (thread / WARP_SIZE, thread % WARP_SIZE);
    let values: SharedPtr<U32x2> = shared::dynamic_shared_mem();
    let mut group = thread::block_idx_x();
    let groups = n.div_ceil(rows_of_group);
    let own_step = warp * STEPS as u32;
    let mut step = own_step;
    // The warp that writes the group's outputs: a different one each time, since the others go on to the next group.
    let mut writer = 0;
    // SAFETY: here and below, the caller's contract; all threads reach the barriers, because they agree on `group`.
    unsafe {
        #[cfg(target_feature = "sm_90")]
        if is_early {
            if thread == 0 {
                prefetch::<TILES>(weights, group, n, k);
                rows.prefetch((group * rows_of_group) as usize);
            }
            norm.prefetch();
        }
        grid::synchronize_and_trigger();
        // What the norm waits for is loaded first, and converted after the other loads, which would otherwise wait for it.
        let (fetched, gamma) = if CHUNKS == WIDE {
            (None, None)
        } else {
            (Some(input.fetch(0, thread)), Some(norm.gamma(thread)))
        };
        let weights = Weights::<TILES> {
            first: weights.add(own_step as usize * STEP_BYTES + lane as usize * UNIT_BYTES),
            tiles: n.div_ceil(TILE_ROWS as u32),
            steps: k / STEP_COLUMNS as u32,
        };
        let mut next = weights.of_group(group);
        // Of steps that exist, and read only for those.
        let mut units = [MaybeUninit::<Units<TILES>>::uninit(); STEPS];
        unroll!(i < STEPS <= 2, {
            if weights.has(group, step + i as u32) {
                units[i].write(load(next, i));
            }
        });
        // A lane has the same row of each group, and the same place for its sum.
        let mut own_sum = values.cast::<i32>().add(k / 4 + lane);
        let mut other_sum = own_sum.add(WARP_SIZE);
        let value = first_value::<COUNT>(lane as usize, Tiled::COLUMN_BITS);
        let own_row = value / UNIT_ROWS * TILE_ROWS
            + Tiled::row_group(lane as usize) * UNIT_ROWS
            + value % UNIT_ROWS;
        let own_row = own_row as u32;
        // With 4 sums, two lanes hold the same total.
        let has_row = COUNT == 8 || lane & Tiled::COLUMN_BITS[2] == 0;
        if !is_early {
            rows.prefetch((group * rows_of_group) as usize);
            // Of the parameters, this thread has loaded its part of gamma.
            if CHUNKS == WIDE || !norm.beta.is_null() {
                norm.prefetch();
            }
        }
        let quantized = InShared { values, k };
        let used = shared_bytes(k);
        // The norm's barriers are between this and the additions of other warps.
        if warp == 0 {
            own_sum.write(0);
            other_sum.write(0);
        }
        let token = Token::<WHOLE> { input, fetched };
        let (scale, of_warp) = norm.run::<_, _, CHUNKS>(0, token, gamma, quantized, used);
        // A warp reads only activations that it has written.
        warp::sync_warp(FULL_MASK);

        let activations = values
            .cast::<U32x4>()
            .add(Tiled::column_group(lane as usize) as u32);
        loop {
            let row = group * rows_of_group + own_row;
            let is_writer = warp == writer && has_row;
            let operands = if is_writer && row < n {
                rows.operands(row as usize, row as usize)
            } else {
                Operands::default()
            };
            let mut sums = [Tiled::ZERO; TILES];
            let mut is_last = false;
            while !is_last {
                let first = step;
                step += STEPS as u32 * warps;
                // With a chunk per thread, the block has a warp for every two steps.
                is_last = CHUNKS != WIDE || step >= weights.steps;
                if is_last {
                    step = own_step;
                    group += thread::grid_dim_x();
                    next = weights.of_group(group);
                    writer = if writer + 1 < warps { writer + 1 } else { 0 };
                    if group < groups {
                        rows.prefetch((group * rows_of_group) as usize);
                    }
                } else {
                    next = next.map(|unit| unit.wrapping_add(warps as usize * STEPS * STEP_BYTES));
                }
                unroll!(i < STEPS <= 2, {
                    if first + (i as u32) < weights.steps {
                        let column = (first + i as u32) * (STEP_COLUMNS / UNIT_COLUMNS) as u32;
                        let U32x4(q) = activations.add(column).read();
                        let units = units[i].assume_init_ref();
                        for word in 0..UNIT_WORDS {
                            for tile in 0..TILES {
                                Tiled::add(&mut sums[tile], &units[tile], word, q[word] as i32);
                            }
                        }
                    }
                    // Loads into the registers that have just become free.
                    if weights.has(group, step + i as u32) {
                        units[i].write(load(next, i));
                    }
                });
            }

            let mut totals = [0; COUNT];
            for tile in 0..TILES {
                let rows = Tiled::rows(sums[tile]);
                for row in 0..UNIT_ROWS {
                    totals[tile * UNIT_ROWS + row] = rows[row];
                }
            }
            reduce_scatter(&mut totals, Tiled::COLUMN_BITS);
            if has_row {
                // Each warp subtracts the sum of what it has quantized; over all warps, that is the token's sum.
                own_sum.atomic_add(totals[0] - Tiled::CODE_BIAS * of_warp);
            }
            // One barrier per group suffices: the sums of the next group are added up elsewhere, and those of the one after it only after
            // another barrier.
            thread::sync_threads();
            if is_writer {
                let dot = own_sum.read();
                own_sum.write(0);
                if row < n {
                    rows.write(row as usize, operands, dot, scale);
                }
            }
            if group >= groups {
                break;
            }
            (own_sum, other_sum) = (other_sum, own_sum);
        }
    }
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
                early: u32,
            ) {
                let norm = Norm::<$whole> { kind: norm, gamma, beta, eps, width };
                let input = Floats::new(input, input_dtype, width);
                let rows = Rows { row_scale, bias, activation, residual, output, dtype };
                // SAFETY: the host launches it on buffers as the module describes.
                unsafe {
                    normed::<$tiles, { $tiles * UNIT_ROWS }, $chunks, $whole>(norm, input, weights, rows, n, k, early != 0)
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
