//! W2A8 matrix-vector product on the `Tiled` weight layout, M = 1.
//!
//! `y[m, n] = (sum_k u[n, k] * q[m, k] - sum[m]) / s[m] * row_scale[n] (+ bias[n])`, with codes `u = w + 1` in {0, 1, 2}: the
//! dot product of the weights is that of the codes less the sum of the activations, which quantization has left in `sum`.
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `weights` | `[n_padded / 16, k_blocks]` blocks of 512 bytes | 2-bit codes | 16 bytes |
//! | `activations` | `[tokens, 128 * k_blocks]` | i8 | 16 bytes |
//! | `activation_scale`, `activation_sum` | `[tokens]` | f32, i32 | 4 bytes |
//! | `row_scale`, `bias` (or null) | `[n]` | f32 | 4 bytes |
//! | `output` | `[tokens, n]` | f32, f16, bf16 | its element |
//!
//! A block of the layout holds 16 rows x 128 columns; a row's 32 bytes are two *units* of 16 bytes, 64 columns each. Slot `i`
//! (bits `2i`, `2i + 1` of every byte) of word `j` of a unit pairs with activation word `4j + i` of those 64 columns, so that
//! `word & (0x03030303 << 2i)` goes straight into `dp4a`. Its products come out `4^i` times too large; each slot has an
//! accumulator of its own, shifted once at the end.
//!
//! ```text
//! warp, LANES = 4, ROWS = 2      unit 0   unit 1   unit 2   unit 3   unit 4 ...   (next step: + WARPS * LANES)
//!                     row 0      lane 0   lane 1   lane 2   lane 3   the next warp
//!                     row 1      lane 4   lane 5   lane 6   lane 7
//!                     ...
//!                     row 8      lane 0   lane 1   lane 2   lane 3   the second of each lane's ROWS = 2 rows
//! ```
//!
//! Every lane count reads whole 32-byte sectors, each once. Bound by the bytes of the weights while enough of them are in
//! flight: `STEPS` loads a row are issued before the first is used.

use crate::block;
use crate::element::Element;
use cuda_std::ptr::{self, U32x4};
use cuda_std::{intrinsics, kernel, shared_array, thread};
use half::{bf16, f16};

/// Bytes of a unit: 64 columns of a row.
const UNIT: usize = 16;
/// Columns of a unit, and so bytes of the activations that it meets.
const UNIT_COLUMNS: usize = 64;
/// Bytes of a layout block: 16 rows of two units.
const BLOCK: usize = 512;
/// Columns of a layout block.
pub const BLOCK_COLUMNS: usize = 2 * UNIT_COLUMNS;
/// Rows of a layout block.
pub const BLOCK_ROWS: usize = 16;
/// Bytes from a row to the next inside a layout block.
const ROW_PITCH: usize = 2 * UNIT;
const SLOTS: usize = 4;
const SLOT_MASK: u32 = 0x0303_0303;

/// What a variant is made of; the host chooses by these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Lanes of a warp that share a row.
    pub lanes: u32,
    /// Rows a lane.
    pub rows: u32,
    /// Warps a block; they split K.
    pub warps: u32,
    /// Weight loads a row that a lane issues before it uses the first.
    pub steps: u32,
}

impl Shape {
    /// Rows of the matrix that a block computes: a divisor of 16.
    pub const fn rows_per_block(&self) -> u32 {
        32 / self.lanes * self.rows
    }

    /// Threads a block.
    pub const fn threads(&self) -> u32 {
        32 * self.warps
    }

    /// The largest padded K: beyond it the accumulator of slot 3 (64 times too large) could overflow in a lane.
    ///
    /// A lane adds `K / (lanes * warps) / 4` products of at most `2 * 128 * 64` to a slot.
    pub const fn max_k(&self) -> u64 {
        let products = (i32::MAX as u64) / (2 * 128 * 64);
        products * 4 * (self.lanes * self.warps) as u64 / 128 * 128
    }
}

/// One launch's pointers and sizes.
#[derive(Clone, Copy)]
struct Problem<T> {
    weights: *const u8,
    activations: *const i8,
    activation_scale: *const f32,
    activation_sum: *const i32,
    row_scale: *const f32,
    bias: *const f32,
    output: *mut T,
    n: u32,
    k_blocks: u32,
}

type Accumulators<const ROWS: usize> = [[i32; SLOTS]; ROWS];

/// Adds `STEPS` units of each of a lane's rows. All weight loads come before the first use.
///
/// # Safety
/// `weights + step * weight_stride + row * row_stride` and `activations + step * activation_stride` are valid for a unit each.
#[inline(always)]
unsafe fn accumulate<const ROWS: usize, const STEPS: usize>(
    weights: *const u8,
    row_stride: usize,
    weight_stride: usize,
    activations: *const i8,
    activation_stride: usize,
    sums: &mut Accumulators<ROWS>,
) {
    let mut units = [[[0u32; 4]; ROWS]; STEPS];
    unroll!(step < STEPS, {
        for row in 0..ROWS {
            // SAFETY: the caller's contract.
            units[step][row] = unsafe {
                ptr::load_nc_streaming_v4(
                    weights.add(step * weight_stride + row * row_stride).cast(),
                )
            }
            .0;
        }
    });
    unroll!(step < STEPS, {
        for word in 0..4 {
            // SAFETY: the caller's contract.
            let U32x4(q) = unsafe { *activations.add(step * activation_stride + 16 * word).cast() };
            for row in 0..ROWS {
                for slot in 0..SLOTS {
                    let codes = units[step][row][word] & (SLOT_MASK << (2 * slot));
                    sums[row][slot] = intrinsics::dp4a_u8s8(codes, q[slot] as i32, sums[row][slot]);
                }
            }
        }
    });
}

/// The rows of this block for token `block_idx_y`.
///
/// # Safety
/// Launched with `32 * WARPS` threads, `n_padded / rows_per_block` blocks in x and `tokens` in y, on buffers as the module says.
#[inline(always)]
unsafe fn gemv<
    T: Element,
    const LANES: usize,
    const ROWS: usize,
    const WARPS: usize,
    const STEPS: usize,
>(
    problem: Problem<T>,
) {
    const {
        assert!(
            LANES.is_power_of_two()
                && LANES >= 2
                && ROWS <= LANES
                && BLOCK_ROWS.is_multiple_of(32 / LANES * ROWS)
        )
    };
    let rows_per_pass = 32 / LANES;
    let rows_per_block = rows_per_pass * ROWS;
    let thread = thread::thread_idx_x() as usize;
    let (warp, lane) = (thread / 32, thread % 32);
    let (lane_row, lane_unit) = (lane / LANES, lane % LANES);
    let token = thread::block_idx_y() as usize;
    let block_row = thread::block_idx_x() as usize * rows_per_block;
    let k_blocks = problem.k_blocks as usize;

    let units = 2 * k_blocks;
    let stride = WARPS * LANES;
    let mut unit = warp * LANES + lane_unit;
    // SAFETY: `block_row + lane_row` is below the padded N and `unit`, wherever it is used, below the units of a row.
    let (mut weights, mut activations) = unsafe {
        let tile = problem.weights.add(
            block_row / BLOCK_ROWS * k_blocks * BLOCK
                + (block_row % BLOCK_ROWS + lane_row) * ROW_PITCH,
        );
        let token = problem.activations.add(token * k_blocks * 2 * UNIT_COLUMNS);
        (
            tile.add(unit / 2 * BLOCK + unit % 2 * UNIT),
            token.add(unit * UNIT_COLUMNS),
        )
    };
    let row_stride = rows_per_pass * ROW_PITCH;
    let weight_stride = stride / 2 * BLOCK;
    let activation_stride = stride * UNIT_COLUMNS;

    let mut sums = [[0; SLOTS]; ROWS];
    let mut whole_steps = (units / stride) as u32;
    // SAFETY: in the first loop all lanes' units of the next `STEPS` steps exist, in the second this lane's next unit does.
    unsafe {
        while whole_steps >= STEPS as u32 {
            accumulate::<ROWS, STEPS>(
                weights,
                row_stride,
                weight_stride,
                activations,
                activation_stride,
                &mut sums,
            );
            weights = weights.add(STEPS * weight_stride);
            activations = activations.add(STEPS * activation_stride);
            unit += STEPS * stride;
            whole_steps -= STEPS as u32;
        }
        while unit < units {
            accumulate::<ROWS, 1>(
                weights,
                row_stride,
                weight_stride,
                activations,
                activation_stride,
                &mut sums,
            );
            weights = weights.add(weight_stride);
            activations = activations.add(activation_stride);
            unit += stride;
        }
    }

    // Lane `r` of a row group keeps row `r` of the group's rows, for `r < ROWS`.
    let mut kept = 0;
    for (row, slots) in sums.iter().enumerate() {
        let scaled = slots[0] + (slots[1] >> 2) + (slots[2] >> 4) + (slots[3] >> 6);
        // SAFETY: the loops above have ended for all lanes of the warp.
        let sum = unsafe { block::reduce_lanes::<LANES>(scaled, |a, b| a + b) };
        if lane_unit == row {
            kept = sum;
        }
    }
    let kept_row = lane_unit * rows_per_pass + lane_row;
    if WARPS == 1 {
        if lane_unit < ROWS {
            // SAFETY: the caller's contract.
            unsafe { write(problem, token, block_row + kept_row, kept) };
        }
        return;
    }
    let partial = shared_array![i32; BLOCK_ROWS * 32];
    // SAFETY: each slot is written by one thread, and read after the barrier that all threads reach.
    unsafe {
        if lane_unit < ROWS {
            partial
                .add((warp * rows_per_block + kept_row) as u32)
                .write(kept);
        }
        thread::sync_threads();
        if thread < rows_per_block {
            let mut sum = 0;
            for warp in 0..WARPS {
                sum += partial.add((warp * rows_per_block + thread) as u32).read();
            }
            write(problem, token, block_row + thread, sum);
        }
    }
}

/// Scales and writes one output. Each operation rounds in f32, the result once to `T`.
///
/// # Safety
/// The pointers are as the module says.
#[inline(always)]
unsafe fn write<T: Element>(problem: Problem<T>, token: usize, row: usize, sum: i32) {
    let n = problem.n as usize;
    if row >= n {
        return;
    }
    // SAFETY: `row < n`, and `token` is one of the grid's.
    unsafe {
        let dot = (sum - *problem.activation_sum.add(token)) as f32;
        let mut y = dot / *problem.activation_scale.add(token) * *problem.row_scale.add(row);
        if !problem.bias.is_null() {
            y += *problem.bias.add(row);
        }
        *problem.output.add(token * n + row) = T::round(y);
    }
}

/// Parameters of a GEMV kernel for output type `T`, as [`cuda_std::kernel::Kernel::Params`].
pub type Params<T> = (
    *const u8,
    *const i8,
    *const f32,
    *const i32,
    *const f32,
    *const f32,
    *mut T,
    u32,
    u32,
);

/// A shape and its kernels, one for each output type.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// How threads map to the matrix.
    pub shape: Shape,
    /// Writes f32.
    pub f32: crate::Entry<Params<f32>>,
    /// Writes f16.
    pub f16: crate::Entry<Params<f16>>,
    /// Writes bf16.
    pub bf16: crate::Entry<Params<bf16>>,
}

macro_rules! entry {
    ($name:ident, $type:ty, $lanes:literal $rows:literal $warps:literal $steps:literal, $min_blocks:literal) => {
        /// W2A8 GEMV; see the module.
        #[kernel(launch_bounds(32 * $warps, $min_blocks))]
        pub unsafe fn $name(
            weights: *const u8,
            activations: *const i8,
            activation_scale: *const f32,
            activation_sum: *const i32,
            row_scale: *const f32,
            bias: *const f32,
            output: *mut $type,
            n: u32,
            k_blocks: u32,
        ) {
            let problem = Problem {
                weights,
                activations,
                activation_scale,
                activation_sum,
                row_scale,
                bias,
                output,
                n,
                k_blocks,
            };
            // SAFETY: the host launches it on buffers as the module says.
            unsafe { gemv::<$type, $lanes, $rows, $warps, $steps>(problem) }
        }
    };
}

/// Lists the shapes: three entry points each, and the list for the host.
macro_rules! variants {
    ($($lanes:literal lanes, $rows:literal rows, $warps:literal warps, $steps:literal steps, $min_blocks:literal blocks: $f32:ident $f16:ident $bf16:ident;)*) => {
        /// The compiled variants.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const VARIANTS: &[Variant] = &[$(Variant {
            shape: Shape { lanes: $lanes, rows: $rows, warps: $warps, steps: $steps },
            f32: crate::Entry::of::<$f32>(),
            f16: crate::Entry::of::<$f16>(),
            bf16: crate::Entry::of::<$bf16>(),
        }),*];
        $(
            entry!($f32, f32, $lanes $rows $warps $steps, $min_blocks);
            entry!($f16, f16, $lanes $rows $warps $steps, $min_blocks);
            entry!($bf16, bf16, $lanes $rows $warps $steps, $min_blocks);
        )*
    };
}

// The blocks a multiprocessor bound the registers, and so how many of the loads ptxas keeps in flight.
variants! {
    4 lanes, 2 rows, 1 warps, 4 steps, 32 blocks: gemv_l4_r2_w1_f32 gemv_l4_r2_w1_f16 gemv_l4_r2_w1_bf16;
    4 lanes, 2 rows, 2 warps, 5 steps, 16 blocks: gemv_l4_r2_w2_f32 gemv_l4_r2_w2_f16 gemv_l4_r2_w2_bf16;
    8 lanes, 4 rows, 1 warps, 2 steps, 32 blocks: gemv_l8_r4_w1_f32 gemv_l8_r4_w1_f16 gemv_l8_r4_w1_bf16;
    4 lanes, 2 rows, 4 warps, 3 steps, 8 blocks: gemv_l4_r2_w4_f32 gemv_l4_r2_w4_f16 gemv_l4_r2_w4_bf16;
    4 lanes, 1 rows, 8 warps, 2 steps, 6 blocks: gemv_l4_r1_w8_f32 gemv_l4_r1_w8_f16 gemv_l4_r1_w8_bf16;
    16 lanes, 2 rows, 8 warps, 4 steps, 4 blocks: gemv_l16_r2_w8_f32 gemv_l16_r2_w8_f16 gemv_l16_r2_w8_bf16;
}
