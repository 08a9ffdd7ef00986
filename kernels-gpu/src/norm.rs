//! RMSNorm and LayerNorm of each token, with the addition of a residual before and quantization after it, in one pass over memory.
//!
//! RMSNorm: `x / sqrt(mean(x^2) + eps) * gamma`; LayerNorm: `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * gamma + beta`.
//! With a residual, `residual += x` comes first, rounded to the residual's type, and the stored sum is normalized. Quantization is that
//! of the `quantize` module, applied to values that have not been rounded to f16 or bf16 in between.
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `input`, `residual` (or null), `output` | `[tokens, width]` | f32, f16, bf16: `dtype` | 16 bytes; rows of whole chunks are faster |
//! | `gamma`, `beta` (or null) | `[width]` in the order of [`parameter_index`], zeros up to a multiple of [`PARAMETER_BLOCK`] | f32 | 16 bytes |
//! | `values`, `scale`, `sum` | as in the `quantize` module, with `width` as `k` | | |
//!
//! Threads: a block processes a token; thread `t` processes chunks `t`, `t + block_dim`, ... of 8 elements and keeps them in registers
//! from the first read to the last write. The `_wide` kernels keep all but the first in shared memory; what does not fit there is read
//! again in each step. Bound by memory bandwidth.
//!
//! Sums are f32, added in a fixed order: pairs, then pairs of pairs within a chunk; the chunks of a thread in ascending order; lanes and
//! warps with shuffles. Division and square root are correctly rounded, so the results are the same on every device, bit for bit.

use crate::block::{self, MAX_WARPS};
use crate::element::{AnyFloat, Element, Floats, QUAD};
use crate::grid;
use crate::quantize::{self, Quantized, Sink};
#[cfg(not(target_arch = "nvptx64"))]
use crate::row::Variant;
use crate::row::{ANY, CHUNK, MAX_THREADS, WHOLE, WIDE, WideRow};
#[cfg(target_feature = "sm_90")]
use cuda_std::ptr;
use cuda_std::warp::WARP_SIZE;
use cuda_std::{GpuFloat, kernel, shared_array, thread};

/// The values to normalize.
pub(crate) trait Source: Copy {
    /// Loads chunk `chunk` of a token, with zeros past its end. `first` is true for the first of possibly several loads of a chunk.
    ///
    /// # Safety
    /// `token` is a token of the launch, no other thread accesses this chunk, and its first load has `first` set.
    unsafe fn load(&self, token: usize, chunk: u32, first: bool) -> [f32; CHUNK];
}

/// `input`, or its sum with `residual`.
#[derive(Clone, Copy)]
pub(crate) struct Input<const WHOLE: bool> {
    pub input: Floats,
    pub residual: Floats,
}

impl<const WHOLE: bool> Source for Input<WHOLE> {
    #[inline(always)]
    unsafe fn load(&self, token: usize, chunk: u32, first: bool) -> [f32; CHUNK] {
        let Self { input, residual } = *self;
        let adds = !residual.is_null();
        // SAFETY: the row is the token's, and each of its chunks belongs to one thread, which reads what it has written itself.
        unsafe {
            if adds && !first {
                return residual.load::<WHOLE>(token, chunk);
            }
            let mut values = input.load::<WHOLE>(token, chunk);
            if adds {
                let other = residual.load::<WHOLE>(token, chunk);
                for i in 0..CHUNK {
                    values[i] = residual.round(other[i] + values[i]);
                }
                residual.store::<WHOLE>(token, chunk, &values);
            }
            values
        }
    }
}

/// The normalized floats, without quantization.
#[derive(Clone, Copy)]
struct Output<const WHOLE: bool>(Floats);

impl<const WHOLE: bool> Sink for Output<WHOLE> {
    const SCALED: bool = false;
    type Finished = ();

    #[inline(always)]
    fn len(&self) -> u32 {
        self.0.columns()
    }

    #[inline(always)]
    unsafe fn store(
        &self,
        row: usize,
        chunk: u32,
        values: &[f32; CHUNK],
        _scale: f32,
        sum: i32,
    ) -> i32 {
        // SAFETY: the caller's contract.
        unsafe { self.0.store::<WHOLE>(row, chunk, values) };
        sum
    }

    #[inline(always)]
    unsafe fn finish(&self, _row: usize, _scale: f32, _sum: i32) {}
}

/// The kinds of norm, with the numbers that are passed to kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// RMSNorm.
    Rms = 0,
    /// LayerNorm.
    Layer = 1,
}

/// Elements of gamma or beta whose order is changed together: a warp's chunks.
pub const PARAMETER_BLOCK: usize = CHUNK * WARP_SIZE as usize;

/// Distance between the halves of a chunk of gamma or beta.
const HALF: usize = PARAMETER_BLOCK / 2;

/// Where the first half of chunk `chunk` of gamma or beta is stored. Of each block, the first halves of all chunks come first, then the second
/// halves, so that each of a warp's two loads is contiguous.
const fn first_half(chunk: u32) -> usize {
    let of_whole_blocks = chunk / WARP_SIZE * WARP_SIZE;
    (chunk + of_whole_blocks) as usize * QUAD
}

/// Where element `element` of gamma or beta is stored.
#[cfg(not(target_arch = "nvptx64"))]
pub const fn parameter_index(element: usize) -> usize {
    let of_chunk = element % CHUNK;
    first_half((element / CHUNK) as u32) + of_chunk / QUAD * HALF + of_chunk % QUAD
}

/// The norm of a launch.
#[derive(Clone, Copy)]
pub(crate) struct Norm<const WHOLE: bool> {
    pub kind: u32,
    pub gamma: *const f32,
    pub beta: *const f32,
    pub eps: f32,
    pub width: u32,
}

/// The sum of eight squares, added pairwise.
#[inline(always)]
fn squares(values: &[f32; CHUNK]) -> f32 {
    let pair = |i: usize| GpuFloat::mul_add(values[i], values[i], values[i + 1] * values[i + 1]);
    (pair(0) + pair(2)) + (pair(4) + pair(6))
}

/// The sum of eight values, added pairwise.
#[inline(always)]
fn sum(values: &[f32; CHUNK]) -> f32 {
    let pair = |i: usize| values[i] + values[i + 1];
    (pair(0) + pair(2)) + (pair(4) + pair(6))
}

impl<const WHOLE: bool> Norm<WHOLE> {
    fn is_layer(&self) -> bool {
        self.kind == Kind::Layer as u32
    }

    /// From sm_90 on, the first block has L2 fetch gamma and beta, which no block needs before the first reduction of its token. Called before
    /// the wait for the preceding grid.
    ///
    /// # Safety
    /// Launched on buffers as the module describes.
    #[inline(always)]
    pub unsafe fn prefetch(&self) {
        #[cfg(target_feature = "sm_90")]
        if thread::thread_idx_x() == 0 && thread::block_idx_x() == 0 {
            let bytes = self.width.next_multiple_of(PARAMETER_BLOCK as u32) * 4;
            let prefetch = |parameter: *const f32| {
                if !parameter.is_null() {
                    // SAFETY: gamma and beta are padded to whole blocks.
                    unsafe { ptr::prefetch_l2_bulk(parameter, bytes.min(ptr::MAX_BULK_BYTES)) };
                }
            };
            prefetch(self.gamma);
            prefetch(self.beta);
        }
    }

    /// The token's mean, from each thread's part of the sum.
    #[inline(always)]
    unsafe fn mean(&self, sum: f32) -> f32 {
        let scratch = shared_array![f32; MAX_WARPS];
        // SAFETY: all threads call it, and the array is used nowhere else.
        let sum = unsafe { block::sum_f32(scratch, sum) };
        sum / self.width as f32
    }

    /// The factor for the token's values, `1 / sqrt(mean(x^2) + eps)`, from each thread's part of the sum of squares.
    #[inline(always)]
    unsafe fn inverse(&self, squares: f32) -> f32 {
        let scratch = shared_array![f32; MAX_WARPS];
        // SAFETY: all threads call it, and the array is used nowhere else.
        let squares = unsafe { block::sum_f32(scratch, squares) };
        1.0 / GpuFloat::sqrt(squares / self.width as f32 + self.eps)
    }

    /// `values - mean`, but zeros past the end of the row.
    #[inline(always)]
    fn centre(&self, values: &[f32; CHUNK], chunk: u32, mean: f32) -> [f32; CHUNK] {
        let first = chunk * CHUNK as u32;
        core::array::from_fn(|i| {
            let element = if WHOLE { first } else { first + i as u32 };
            if element < self.width {
                values[i] - mean
            } else {
                0.0
            }
        })
    }

    /// A chunk of gamma; zeros past the end of the row.
    #[inline(always)]
    pub unsafe fn gamma(&self, chunk: u32) -> [f32; CHUNK] {
        if self.gamma.is_null() {
            return [1.0; CHUNK];
        }
        // SAFETY: the caller's contract.
        unsafe { self.parameter(self.gamma, chunk) }
    }

    /// A chunk of beta, or zeros.
    #[inline(always)]
    unsafe fn beta(&self, chunk: u32) -> [f32; CHUNK] {
        if self.beta.is_null() {
            return [0.0; CHUNK];
        }
        // SAFETY: the caller's contract.
        unsafe { self.parameter(self.beta, chunk) }
    }

    #[inline(always)]
    unsafe fn parameter(&self, parameter: *const f32, chunk: u32) -> [f32; CHUNK] {
        if chunk * CHUNK as u32 >= self.width {
            return [0.0; CHUNK];
        }
        // SAFETY: gamma and beta are padded to whole blocks.
        let halves = unsafe {
            let first = parameter.add(first_half(chunk));
            [f32::load_quad(first), f32::load_quad(first.add(HALF))]
        };
        core::array::from_fn(|i| halves[i / QUAD][i % QUAD])
    }

    /// Multiplies centred values by `inverse` and gamma, and adds beta. Zeros past the end of the row stay zero.
    #[inline(always)]
    fn scale(
        &self,
        values: &[f32; CHUNK],
        inverse: f32,
        gamma: impl FnOnce() -> [f32; CHUNK],
        beta: impl FnOnce() -> [f32; CHUNK],
    ) -> [f32; CHUNK] {
        let gamma = gamma();
        let mut y = core::array::from_fn(|i| values[i] * inverse * gamma[i]);
        // Adding 0 would turn -0 into 0.
        if !self.beta.is_null() {
            let beta = beta();
            y = core::array::from_fn(|i| y[i] + beta[i]);
        }
        y
    }

    /// Normalizes a token, with all threads of the block.
    ///
    /// `gamma` is this thread's chunk of gamma, if it was loaded before, which saves latency; with several chunks per thread it is not used. It
    /// costs registers and therefore, with many tokens, bytes in flight.
    ///
    /// # Safety
    /// Launched on buffers as the module describes; no other block writes this token's. `CHUNKS` chunks per thread hold a padded row, or `CHUNKS`
    /// is [`WIDE`]. Dynamic shared memory from byte `used` on, a multiple of 16, is used for nothing else.
    #[inline(always)]
    pub unsafe fn run<S: Source, K: Sink, const CHUNKS: usize>(
        &self,
        token: usize,
        source: S,
        gamma: Option<[f32; CHUNK]>,
        sink: K,
        used: u32,
    ) -> K::Finished {
        // SAFETY: the caller's contract.
        unsafe {
            if CHUNKS == WIDE {
                self.run_wide(
                    token,
                    source,
                    sink,
                    WideRow::new(K::WIDE_IN_REGISTERS, used),
                )
            } else {
                self.run_resident::<S, K, CHUNKS>(token, source, gamma, sink)
            }
        }
    }

    #[inline(always)]
    unsafe fn run_resident<S: Source, K: Sink, const CHUNKS: usize>(
        &self,
        token: usize,
        source: S,
        gamma: Option<[f32; CHUNK]>,
        sink: K,
    ) -> K::Finished {
        let (thread, threads) = (thread::thread_idx_x(), thread::block_dim_x());
        let mut values = [[0.0; CHUNK]; CHUNKS];
        // SAFETY: each chunk belongs to one thread; all threads agree on whether it is a LayerNorm.
        unsafe {
            unroll!(i < CHUNKS <= 4, {
                values[i] = source.load(token, thread + i as u32 * threads, true);
            });
            if self.is_layer() {
                let mut total = 0.0;
                unroll!(i < CHUNKS <= 4, {
                    total += sum(&values[i]);
                });
                let mean = self.mean(total);
                unroll!(i < CHUNKS <= 4, {
                    values[i] = self.centre(&values[i], thread + i as u32 * threads, mean);
                });
            }
            let mut total = 0.0;
            unroll!(i < CHUNKS <= 4, {
                total += squares(&values[i]);
            });
            let inverse = self.inverse(total);
            let mut absmax = 0;
            unroll!(i < CHUNKS <= 4, {
                let chunk = thread + i as u32 * threads;
                let gamma = || match gamma {
                    Some(gamma) if CHUNKS == 1 => gamma,
                    _ => self.gamma(chunk),
                };
                values[i] = self.scale(&values[i], inverse, gamma, || self.beta(chunk));
                absmax = quantize::absmax_bits(&values[i], absmax);
            });
            let scale = if K::SCALED {
                quantize::agree_on_scale(absmax)
            } else {
                1.0
            };
            let mut sum = 0;
            unroll!(i < CHUNKS <= 4, {
                sum = sink.store(token, thread + i as u32 * threads, &values[i], scale, sum);
            });
            sink.finish(token, scale, sum)
        }
    }

    #[inline(always)]
    unsafe fn run_wide<S: Source, K: Sink>(
        &self,
        token: usize,
        source: S,
        sink: K,
        mut row: WideRow,
    ) -> K::Finished {
        // One loop for all steps, so that the source's code is generated once.
        const MEAN: u32 = 0;
        const INVERSE: u32 = 1;
        const ABSMAX: u32 = 2;
        const STORE: u32 = 3;
        let start = if self.is_layer() { MEAN } else { INVERSE };
        let (mut mean, mut inverse, mut scale) = (0.0, 0.0, 1.0);
        let mut step = start;
        loop {
            let (mut total, mut absmax, mut rounded) = (0.0, 0, 0);
            let (mut i, mut chunk) = (0, thread::thread_idx_x());
            // SAFETY: each chunk belongs to one thread, and is loaded and written in the first step; the step is the same for all threads.
            unsafe {
                while chunk * (CHUNK as u32) < sink.len() {
                    // A chunk that is kept is as the step before has left it.
                    let is_kept = step != start && row.keeps(i);
                    let mut values = if is_kept {
                        row.read(i)
                    } else {
                        source.load(token, chunk, step == start)
                    };
                    if self.is_layer() && (step == INVERSE || step > INVERSE && !is_kept) {
                        values = self.centre(&values, chunk, mean);
                    }
                    if step == ABSMAX || step == STORE && !(K::SCALED && is_kept) {
                        values =
                            self.scale(&values, inverse, || self.gamma(chunk), || self.beta(chunk));
                    }
                    match step {
                        MEAN => total += sum(&values),
                        INVERSE => total += squares(&values),
                        ABSMAX => absmax = quantize::absmax_bits(&values, absmax),
                        _ => rounded = sink.store(token, chunk, &values, scale, rounded),
                    }
                    if step != STORE {
                        row.write(i, &values);
                    }
                    i += 1;
                    chunk += thread::block_dim_x();
                }
                match step {
                    MEAN => mean = self.mean(total),
                    INVERSE => inverse = self.inverse(total),
                    ABSMAX => scale = quantize::agree_on_scale(absmax),
                    _ => return sink.finish(token, scale, rounded),
                }
            }
            step += if step == INVERSE && !K::SCALED { 2 } else { 1 };
        }
    }
}

/// Parameters of the kernels that normalize, as [`cuda_std::kernel::Kernel::Params`].
pub type Params = (
    *const AnyFloat,
    *mut AnyFloat,
    *const f32,
    *const f32,
    *mut AnyFloat,
    u32,
    f32,
    u32,
    u32,
);
/// Parameters of the kernels that normalize and quantize.
pub type QuantizeParams = (
    *const AnyFloat,
    *mut AnyFloat,
    u32,
    *const f32,
    *const f32,
    *mut i8,
    *mut f32,
    *mut i32,
    f32,
    u32,
    u32,
    u32,
);

/// Defines the kernels: the entry points, and the lists for the host.
macro_rules! variants {
    ($($norm:ident $quantize:ident $chunks:expr, $whole:expr;)*) => {
        /// The kernels that normalize, in order of preference; the last accepts any row.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const VARIANTS: &[Variant<Params>] =
            &[$(Variant { chunks: $chunks, whole: $whole, entry: crate::Entry::of::<$norm>() }),*];
        /// The kernels that normalize and quantize, likewise.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const QUANTIZE_VARIANTS: &[Variant<QuantizeParams>] =
            &[$(Variant { chunks: $chunks, whole: $whole, entry: crate::Entry::of::<$quantize>() }),*];
        $(
            /// RMSNorm or LayerNorm; see the module.
            #[kernel(launch_bounds(MAX_THREADS, 1))]
            pub unsafe fn $norm(
                input: *const AnyFloat,
                residual: *mut AnyFloat,
                gamma: *const f32,
                beta: *const f32,
                output: *mut AnyFloat,
                dtype: u32,
                eps: f32,
                kind: u32,
                width: u32,
            ) {
                let norm = Norm::<$whole> { kind, gamma, beta, eps, width };
                // SAFETY: the host launches it on buffers as the module describes.
                unsafe { norm.prefetch() };
                grid::synchronize_and_trigger();
                let floats = |start| Floats::new(start, dtype, width);
                let source = Input::<$whole> { input: floats(input), residual: floats(residual) };
                // SAFETY: the host launches it on buffers as the module describes.
                unsafe {
                    let token = thread::block_idx_x() as usize;
                    norm.run::<_, _, $chunks>(token, source, None, Output::<$whole>(floats(output)), 0)
                }
            }

            /// RMSNorm or LayerNorm, then quantization; see the module.
            #[kernel(launch_bounds(MAX_THREADS, 1))]
            pub unsafe fn $quantize(
                input: *const AnyFloat,
                residual: *mut AnyFloat,
                dtype: u32,
                gamma: *const f32,
                beta: *const f32,
                values: *mut i8,
                scale: *mut f32,
                sum: *mut i32,
                eps: f32,
                kind: u32,
                width: u32,
                k_padded: u32,
            ) {
                let norm = Norm::<$whole> { kind, gamma, beta, eps, width };
                // SAFETY: the host launches it on buffers as the module describes.
                unsafe { norm.prefetch() };
                grid::synchronize_and_trigger();
                let floats = |start| Floats::new(start, dtype, width);
                let source = Input::<$whole> { input: floats(input), residual: floats(residual) };
                let output = Quantized { values, scale, sum, k_padded };
                // SAFETY: the host launches it on buffers as the module describes.
                unsafe { norm.run::<_, _, $chunks>(thread::block_idx_x() as usize, source, None, output, 0) }
            }
        )*
    };
}

variants! {
    norm_c1 norm_quantize_c1 1, WHOLE;
    norm_c3 norm_quantize_c3 3, WHOLE;
    norm_c1_any norm_quantize_c1_any 1, ANY;
    norm_wide norm_quantize_wide WIDE, ANY;
}
