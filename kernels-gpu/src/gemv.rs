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

use crate::block;
use crate::element::Element;
use cuda_std::ptr::{self, U32x4};
use cuda_std::{intrinsics, kernel, shared_array, thread, warp};
use half::{bf16, f16};

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

/// Which lane has which unit of a step, and what its words mean.
trait Layout {
    /// `u - w`.
    const CODE_BIAS: i32;
    /// The bits of the lane index that tell a row group's lanes apart.
    const COLUMN_BITS: [u32; 3];
    /// A lane's accumulators for a unit's four rows.
    type Sums: Copy;
    const ZERO: Self::Sums;
    /// Row group (0..4) of a lane.
    fn row_group(lane: usize) -> usize;
    /// Sixteen of columns (0..8) of a lane.
    fn sixteen(lane: usize) -> usize;
    /// Adds the products of activation word `word` (0..4).
    fn add(sums: &mut Self::Sums, unit: &[u32; UNIT_WORDS], word: usize, q: i32);
    /// The dot products of the four rows.
    fn rows(sums: Self::Sums) -> [i32; UNIT_ROWS];
}

/// Row group after row group: see host/src/layout/tiled.rs.
enum Tiled {}

impl Layout for Tiled {
    const CODE_BIAS: i32 = 1;
    const COLUMN_BITS: [u32; 3] = [1, 2, 4];
    /// `d0` to `d3` of the module's description.
    type Sums = [i32; UNIT_ROWS];
    const ZERO: Self::Sums = [0; UNIT_ROWS];

    #[inline(always)]
    fn row_group(lane: usize) -> usize {
        lane / 8
    }

    #[inline(always)]
    fn sixteen(lane: usize) -> usize {
        lane % 8
    }

    #[inline(always)]
    fn add(sums: &mut Self::Sums, unit: &[u32; UNIT_WORDS], word: usize, q: i32) {
        let codes = unit[word];
        sums[0] = intrinsics::dp4a_u8s8(codes & 0x0303_0303, q, sums[0]);
        sums[1] = intrinsics::dp4a_u8s8(codes & 0x0f0f_0f0f, q, sums[1]);
        sums[2] = intrinsics::dp4a_u8s8(codes & 0x3f3f_3f3f, q, sums[2]);
        sums[3] = intrinsics::dp4a_u8s8(codes, q, sums[3]);
    }

    #[inline(always)]
    fn rows([d0, d1, d2, d3]: Self::Sums) -> [i32; UNIT_ROWS] {
        [
            d0,
            d1.wrapping_sub(d0) >> 2,
            d2.wrapping_sub(d1) >> 4,
            d3.wrapping_sub(d2) >> 6,
        ]
    }
}

/// Blocks of 16 x 32, 128 bytes each, four to a step: see host/src/layout/ladder.rs. A word is a row; bits `2i`, `2i + 1` of its
/// bytes meet activation word `i`, and give products `4^i` times too large.
enum Ladder {}

impl Layout for Ladder {
    const CODE_BIAS: i32 = 2;
    const COLUMN_BITS: [u32; 3] = [2, 8, 16];
    /// For each row, by activation word.
    type Sums = [[i32; UNIT_WORDS]; UNIT_ROWS];
    const ZERO: Self::Sums = [[0; UNIT_WORDS]; UNIT_ROWS];

    #[inline(always)]
    fn row_group(lane: usize) -> usize {
        lane / 4 % 2 * 2 + lane % 2
    }

    #[inline(always)]
    fn sixteen(lane: usize) -> usize {
        lane / 8 * 2 + lane / 2 % 2
    }

    #[inline(always)]
    fn add(sums: &mut Self::Sums, unit: &[u32; UNIT_WORDS], word: usize, q: i32) {
        for row in 0..UNIT_ROWS {
            let codes = unit[row] & (0x0303_0303 << (2 * word));
            sums[row][word] = intrinsics::dp4a_u8s8(codes, q, sums[row][word]);
        }
    }

    #[inline(always)]
    fn rows(sums: Self::Sums) -> [i32; UNIT_ROWS] {
        sums.map(|[x1, x4, x16, x64]| x1 + (x4 >> 2) + (x16 >> 4) + (x64 >> 6))
    }
}

/// A float of a type that is only known at run time, behind a pointer. It is read and written once a row, so that a branch
/// costs nothing, and a kernel for each type would be three times the code to compile.
#[repr(transparent)]
pub struct AnyFloat(u8);

/// What an [`AnyFloat`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Dtype {
    /// IEEE binary32.
    F32 = 0,
    /// IEEE binary16.
    F16 = 1,
    /// bfloat16.
    Bf16 = 2,
}

impl AnyFloat {
    /// Element `index` of an array of type `dtype`, exactly.
    ///
    /// # Safety
    /// There is such an element.
    #[inline(always)]
    unsafe fn read(array: *const Self, dtype: u32, index: usize) -> f32 {
        // SAFETY: the caller's contract.
        unsafe {
            if dtype == Dtype::F32 as u32 {
                (*array.cast::<f32>().add(index)).widen()
            } else if dtype == Dtype::F16 as u32 {
                (*array.cast::<f16>().add(index)).widen()
            } else {
                (*array.cast::<bf16>().add(index)).widen()
            }
        }
    }

    /// Writes element `index` of an array of type `dtype`, rounded once.
    ///
    /// # Safety
    /// There is such an element.
    #[inline(always)]
    unsafe fn write(array: *mut Self, dtype: u32, index: usize, value: f32) {
        // SAFETY: the caller's contract.
        unsafe {
            if dtype == Dtype::F32 as u32 {
                *array.cast::<f32>().add(index) = value;
            } else if dtype == Dtype::F16 as u32 {
                *array.cast::<f16>().add(index) = f16::round(value);
            } else {
                *array.cast::<bf16>().add(index) = bf16::round(value);
            }
        }
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

/// What becomes of the sums.
trait Epilogue: Copy {
    /// Whether the sums of the activations are not known and have to be computed beside the products.
    const SUMS_ACTIVATIONS: bool;

    /// Writes one output. `sum` is that of the codes' products, or of the weights' where `SUMS_ACTIVATIONS`.
    ///
    /// # Safety
    /// `token` and `row` are in the matrices that the pointers belong to.
    unsafe fn write<L: Layout>(&self, problem: &Problem, token: usize, row: usize, sum: i32);
}

/// Scale, bias and residual, each operation rounded in f32, the result once to the output's type.
#[derive(Clone, Copy)]
struct Scaled {
    activation_scale: *const f32,
    activation_sum: *const i32,
    row_scale: *const f32,
    bias: *const f32,
    residual: *const AnyFloat,
    output: *mut AnyFloat,
    dtype: u32,
}

impl Epilogue for Scaled {
    const SUMS_ACTIVATIONS: bool = false;

    #[inline(always)]
    unsafe fn write<L: Layout>(&self, problem: &Problem, token: usize, row: usize, sum: i32) {
        let index = token * problem.n as usize + row;
        // SAFETY: the caller's contract.
        unsafe {
            let dot = (sum - L::CODE_BIAS * *self.activation_sum.add(token)) as f32;
            let mut y = dot / *self.activation_scale.add(token) * *self.row_scale.add(row);
            if !self.bias.is_null() {
                y += *self.bias.add(row);
            }
            if !self.residual.is_null() {
                y += AnyFloat::read(self.residual, self.dtype, index);
            }
            AnyFloat::write(self.output, self.dtype, index, y);
        }
    }
}

/// The operands of Microsoft's `bitlinear_int8xint2`: bf16 scales of the token and of `rows_per_scale` rows, bf16 out.
#[derive(Clone, Copy)]
struct Int8xInt2 {
    activation_scale: *const bf16,
    row_scale: *const bf16,
    rows_per_scale: u32,
    output: *mut bf16,
}

impl Epilogue for Int8xInt2 {
    const SUMS_ACTIVATIONS: bool = true;

    #[inline(always)]
    unsafe fn write<L: Layout>(&self, problem: &Problem, token: usize, row: usize, sum: i32) {
        let group = row as u32 / self.rows_per_scale;
        // SAFETY: the caller's contract; the host has seen to a scale for each group.
        unsafe {
            let y = sum as f32 / (*self.activation_scale.add(token)).widen()
                * (*self.row_scale.add(group as usize)).widen();
            *self.output.add(token * problem.n as usize + row) = bf16::round(y);
        }
    }
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

/// Parameters of a GEMV kernel, as [`cuda_std::kernel::Kernel::Params`].
pub type Params = (
    *const u8,
    *const i8,
    *const f32,
    *const i32,
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

/// A kernel and its shape.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// How threads map to the matrix.
    pub shape: Shape,
    /// The kernel.
    pub entry: crate::Entry<Params>,
}

/// Lists the variants of a layout: the entry points, and the list for the host.
macro_rules! variants {
    ($list:ident, $layout:ty: $(
        $name:ident: $tokens:literal tokens, $tiles:literal tiles, $warps:literal warps, $steps:literal steps, $blocks:literal blocks;
    )*) => {
        /// The compiled variants for this layout.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const $list: &[Variant] = &[$(Variant {
            shape: Shape { tiles: $tiles, warps: $warps, steps: $steps, tokens: $tokens },
            entry: crate::Entry::of::<$name>(),
        }),*];
        $(
            /// W2A8 GEMV; see the module.
            #[kernel(launch_bounds(32 * $warps, $blocks))]
            pub unsafe fn $name(
                weights: *const u8,
                activations: *const i8,
                activation_scale: *const f32,
                activation_sum: *const i32,
                row_scale: *const f32,
                bias: *const f32,
                residual: *const AnyFloat,
                output: *mut AnyFloat,
                dtype: u32,
                n: u32,
                k: u32,
                k_pitch: u32,
                tokens: u32,
            ) {
                const COUNT: usize = $tokens * $tiles * UNIT_ROWS;
                let problem = Problem { weights, activations, n, k, k_pitch, tokens };
                let epilogue = Scaled {
                    activation_scale, activation_sum, row_scale, bias, residual, output, dtype,
                };
                // SAFETY: the host launches it on buffers as the module says.
                unsafe { gemv::<$layout, Scaled, $tiles, $warps, $steps, $tokens, COUNT>(problem, epilogue) }
            }
        )*
    };
}

// `blocks` a multiprocessor bound the registers to 64, and so how many of the loads ptxas keeps in flight.
variants! { TILED, Tiled:
    gemv_m1_t1_w1: 1 tokens, 1 tiles, 1 warps, 4 steps, 32 blocks;
    gemv_m1_t2_w1: 1 tokens, 2 tiles, 1 warps, 2 steps, 32 blocks;
    gemv_m1_t1_w2: 1 tokens, 1 tiles, 2 warps, 5 steps, 16 blocks;
    gemv_m1_t1_w4: 1 tokens, 1 tiles, 4 warps, 5 steps, 8 blocks;
    gemv_m1_t1_w8: 1 tokens, 1 tiles, 8 warps, 4 steps, 4 blocks;
    gemv_m1_t1_w32: 1 tokens, 1 tiles, 32 warps, 2 steps, 1 blocks;
    gemv_m2_t1_w2: 2 tokens, 1 tiles, 2 warps, 5 steps, 16 blocks;
    gemv_m2_t1_w8: 2 tokens, 1 tiles, 8 warps, 2 steps, 4 blocks;
    gemv_m2_t1_w32: 2 tokens, 1 tiles, 32 warps, 1 steps, 1 blocks;
    gemv_m4_t1_w2: 4 tokens, 1 tiles, 2 warps, 1 steps, 16 blocks;
    gemv_m4_t1_w8: 4 tokens, 1 tiles, 8 warps, 1 steps, 4 blocks;
    gemv_m8_t1_w2: 8 tokens, 1 tiles, 2 warps, 1 steps, 10 blocks;
    gemv_m8_t1_w4: 8 tokens, 1 tiles, 4 warps, 1 steps, 5 blocks;
}
variants! { LADDER, Ladder:
    gemv_ladder_m1_t1_w2: 1 tokens, 1 tiles, 2 warps, 5 steps, 16 blocks;
    gemv_ladder_m1_t1_w8: 1 tokens, 1 tiles, 8 warps, 4 steps, 4 blocks;
    gemv_ladder_m1_t1_w32: 1 tokens, 1 tiles, 32 warps, 2 steps, 1 blocks;
}

/// Parameters of an `int8xint2` kernel, as [`cuda_std::kernel::Kernel::Params`].
pub type Int8xInt2Params = (
    *const i8,
    *const u8,
    *mut bf16,
    *const bf16,
    *const bf16,
    u32,
    u32,
    u32,
    u32,
);

/// An `int8xint2` kernel and its shape.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug)]
pub struct Int8xInt2Variant {
    /// How threads map to the matrix.
    pub shape: Shape,
    /// The kernel.
    pub entry: crate::Entry<Int8xInt2Params>,
}

macro_rules! int8xint2_variants {
    ($($name:ident: $warps:literal warps, $steps:literal steps, $blocks:literal blocks;)*) => {
        /// The compiled variants of what Microsoft's `bitlinear_int8xint2` computes, for a token a block of the grid's y.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const INT8XINT2: &[Int8xInt2Variant] = &[$(Int8xInt2Variant {
            shape: Shape { tiles: 1, warps: $warps, steps: $steps, tokens: 1 },
            entry: crate::Entry::of::<$name>(),
        }),*];
        $(
            /// `y[m, n] = sum_k q[m, k] w[n, k] / s[m] * ws[n / rows_per_scale]` on `Ladder` weights.
            ///
            /// `activations` `[tokens, k_pitch]`, 16-byte aligned, as `k_pitch` is; `k` a multiple of 32; `output` `[tokens, n]`.
            #[kernel(launch_bounds(32 * $warps, $blocks))]
            pub unsafe fn $name(
                activations: *const i8,
                weights: *const u8,
                output: *mut bf16,
                activation_scale: *const bf16,
                row_scale: *const bf16,
                rows_per_scale: u32,
                n: u32,
                k: u32,
                k_pitch: u32,
            ) {
                let token = thread::block_idx_y() as usize;
                // SAFETY: the host launches it on buffers as stated above, with a block in y for each token.
                unsafe {
                    let problem = Problem {
                        weights, activations: activations.add(token * k_pitch as usize), n, k, k_pitch, tokens: 1,
                    };
                    let epilogue = Int8xInt2 {
                        activation_scale: activation_scale.add(token),
                        row_scale,
                        rows_per_scale,
                        output: output.add(token * n as usize),
                    };
                    gemv::<Ladder, Int8xInt2, 1, $warps, $steps, 1, UNIT_ROWS>(problem, epilogue)
                }
            }
        )*
    };
}

int8xint2_variants! {
    int8xint2_w2: 2 warps, 4 steps, 16 blocks;
    int8xint2_w8: 8 warps, 4 steps, 4 blocks;
    int8xint2_w32: 32 warps, 1 steps, 1 blocks;
}
