//! Activation quantization: absmax to int8, per token or per tensor, and back.
//!
//! `s = 127 / max(max |x|, 1e-5)`, `q[k] = clamp(rint(x[k] * s), -128, 127)`, ties to even; and `sum_k q[k]` of each token,
//! which products with unsigned weight codes subtract. Dequantization: `q / s`.
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `input`, `output` | `[tokens, k]` | f32, f16, bf16: `dtype` | 16 bytes; rows of whole chunks are faster |
//! | `values` | `[tokens, k_padded]`, zeros from column `k` on | i8 | 8 bytes |
//! | `scale` | `[tokens]` | f32 | 4 bytes |
//! | `sum` | `[tokens]` | i32 | 4 bytes |
//! | `partial` | `[partials]`, bits of the largest `abs(x)` of each block | i32 | 4 bytes |
//!
//! Threads: a block processes a token; thread `t` processes chunks `t`, `t + block_dim`, ... of 8 elements. Per token, it keeps them in
//! registers, those of wide rows in shared memory, between the maximum and the rounding, so that memory is read once. Per tensor, the
//! maximum of the whole input is needed before the first rounding: `quantize_tensor_absmax` writes one number per block, and every block
//! of `quantize_tensor` takes the largest of them. Bound by memory bandwidth: one read of `x` (two per tensor), one write of `q`.
//!
//! The maximum is taken over the bits of `|x|` as integers. These have the same order as the floats, with NaN above infinity: a
//! token with a NaN gets a NaN scale, one with an infinity gets the scale 0, and its products are NaN.

use crate::block::{self, MAX_WARPS};
use crate::element::{AnyFloat, Floats};
use crate::grid;
#[cfg(not(target_arch = "nvptx64"))]
use crate::row::Variant;
use crate::row::{ANY, CHUNK, MAX_THREADS, WIDE, WIDE_IN_REGISTERS, WideRow};
use cuda_std::ptr::U32x2;
use cuda_std::{intrinsics, kernel, shared_array, thread};

/// The lower bound of `max|x|`.
const MIN_ABSMAX: f32 = 1e-5;
const ABS_BITS: u32 = 0x7fff_ffff;

/// Maximum number of blocks of `quantize_tensor_absmax`, hence of values that each block of `quantize_tensor` reads.
pub const MAX_PARTIALS: u32 = 512;

/// The largest `|x|` of a chunk, or `start` if it is larger; as bits.
#[inline(always)]
pub(crate) fn absmax_bits(values: &[f32; CHUNK], start: i32) -> i32 {
    let mut largest = start;
    for value in values {
        largest = largest.max((value.to_bits() & ABS_BITS) as i32);
    }
    largest
}

/// The scale `s` of values whose largest magnitude has these bits. NaN passes through.
#[inline(always)]
fn scale_of(absmax: i32) -> f32 {
    let absmax = f32::from_bits(absmax as u32);
    127.0
        / if absmax < MIN_ABSMAX {
            MIN_ABSMAX
        } else {
            absmax
        }
}

/// The scale that all threads of a block share, from each thread's largest magnitude.
///
/// # Safety
/// All threads of the block call it together.
#[inline(always)]
pub(crate) unsafe fn agree_on_scale(absmax: i32) -> f32 {
    let scratch = shared_array![i32; MAX_WARPS];
    // SAFETY: the caller's contract, and the array is used nowhere else.
    scale_of(unsafe { block::max_i32(scratch, absmax) })
}

/// The destination of rows that a block has computed.
pub(crate) trait Sink: Copy {
    /// Whether values are multiplied with a scale that depends on the largest of them.
    const SCALED: bool;
    /// Chunks of a wide row that a thread keeps in registers, 0 or 1.
    const WIDE_IN_REGISTERS: u32 = WIDE_IN_REGISTERS;
    /// What a block knows about its row once it is complete.
    type Finished;

    /// Elements per row, including padding.
    fn len(&self) -> u32;

    /// Writes chunk `chunk` of a row, if it exists; returns `sum` plus the chunk's contribution to the row's sum.
    ///
    /// # Safety
    /// `row` is a row of the launch, and no other thread accesses this chunk.
    unsafe fn store(
        &self,
        row: usize,
        chunk: u32,
        values: &[f32; CHUNK],
        scale: f32,
        sum: i32,
    ) -> i32;

    /// Completes the row as a whole, given each thread's part of the sum.
    ///
    /// # Safety
    /// All threads of the block call it together; `row` is a row of the launch.
    unsafe fn finish(&self, row: usize, scale: f32, sum: i32) -> Self::Finished;
}

/// Quantizes a chunk; returns its bytes, and `sum` plus their sum.
///
/// No value is larger than the one that determined the scale, so all products are within -127.5..127.5. Adding `1.5 * 2^23` rounds such a
/// product as `rint` does, and leaves the integer in the low byte. (`cvt` to an integer would take the slower pipe of reciprocals and roots.) Only
/// where the scale is 0 or NaN may products be NaN; then every value is 0.
#[inline(always)]
pub(crate) fn round_chunk(values: &[f32; CHUNK], scale: f32, mut sum: i32) -> (U32x2, i32) {
    const INTEGERS: f32 = 12_582_912.0;
    /// Byte 0 of each of two words, as bytes 0 and 1.
    const LOW_BYTES: u32 = 0x0040;
    /// The low halves of two words.
    const LOW_HALVES: u32 = 0x5410;
    let valid = if scale > 0.0 { u32::MAX } else { 0 };
    let mut words = [0; 2];
    for half in 0..2 {
        let q: [u32; 4] =
            core::array::from_fn(|i| (values[4 * half + i] * scale + INTEGERS).to_bits());
        let low = intrinsics::byte_perm(q[0], q[1], LOW_BYTES);
        let high = intrinsics::byte_perm(q[2], q[3], LOW_BYTES);
        words[half] = intrinsics::byte_perm(low, high, LOW_HALVES) & valid;
        sum = intrinsics::dp4a(words[half] as i32, 0x0101_0101, sum);
    }
    (U32x2(words), sum)
}

/// The quantized tokens of a launch.
#[derive(Clone, Copy)]
pub(crate) struct Quantized {
    pub values: *mut i8,
    pub scale: *mut f32,
    pub sum: *mut i32,
    pub k_padded: u32,
}

impl Sink for Quantized {
    const SCALED: bool = true;
    type Finished = ();

    #[inline(always)]
    fn len(&self) -> u32 {
        self.k_padded
    }

    #[inline(always)]
    unsafe fn store(
        &self,
        row: usize,
        chunk: u32,
        values: &[f32; CHUNK],
        scale: f32,
        sum: i32,
    ) -> i32 {
        let first = chunk * CHUNK as u32;
        if first >= self.k_padded {
            return sum;
        }
        let (words, sum) = round_chunk(values, scale, sum);
        // SAFETY: the chunk is inside the row, and rows are a multiple of 8 bytes long.
        unsafe {
            let target = self
                .values
                .add(row * self.k_padded as usize + first as usize);
            *target.cast() = words;
        }
        sum
    }

    #[inline(always)]
    unsafe fn finish(&self, row: usize, scale: f32, sum: i32) {
        let scratch = shared_array![i32; MAX_WARPS];
        // SAFETY: the caller's contract, and the array is used nowhere else.
        unsafe {
            let sum = block::sum_i32(scratch, sum);
            if thread::thread_idx_x() == 0 {
                *self.scale.add(row) = scale;
                *self.sum.add(row) = sum;
            }
        }
    }
}

/// Quantizes a token whose row fits in `CHUNKS` chunks per thread; reads it once.
///
/// # Safety
/// Launched with one block per token, on buffers as the module describes.
#[inline(always)]
unsafe fn quantize_resident<const CHUNKS: usize>(input: Floats, output: Quantized) {
    let (thread, threads) = (thread::thread_idx_x(), thread::block_dim_x());
    let token = thread::block_idx_x() as usize;
    let mut values = [[0.0; CHUNK]; CHUNKS];
    let mut absmax = 0;
    // SAFETY: the row is the token's, and each of its chunks belongs to one thread.
    unsafe {
        unroll!(i < CHUNKS <= 4, {
            values[i] = input.load::<ANY>(token, thread + i as u32 * threads);
            absmax = absmax_bits(&values[i], absmax);
        });
        let scale = agree_on_scale(absmax);
        let mut sum = 0;
        unroll!(i < CHUNKS <= 4, {
            let chunk = thread + i as u32 * threads;
            sum = output.store(token, chunk, &values[i], scale, sum);
        });
        output.finish(token, scale, sum);
    }
}

/// Quantizes a token with a row of any width; reads what a [`WideRow`] keeps once, and the rest twice.
///
/// # Safety
/// As [`quantize_resident`].
#[inline(always)]
unsafe fn quantize_wide_row(input: Floats, output: Quantized) {
    let token = thread::block_idx_x() as usize;
    // SAFETY: as in `quantize_resident`; nothing else uses dynamic shared memory.
    unsafe {
        let mut row = WideRow::new(WIDE_IN_REGISTERS, 0);
        let absmax = absmax_of_row(input, token, output.k_padded, 0, &mut row);
        quantize_row(input, output, token, agree_on_scale(absmax), &row);
    }
}

/// The largest magnitude of this thread's chunks up to column `len`, or `absmax` if it is larger. Keeps the chunks in `row`.
#[inline(always)]
unsafe fn absmax_of_row(
    input: Floats,
    token: usize,
    len: u32,
    mut absmax: i32,
    row: &mut WideRow,
) -> i32 {
    let (mut i, mut chunk) = (0, thread::thread_idx_x());
    while chunk * (CHUNK as u32) < len {
        // SAFETY: `token` is a token of the launch.
        let values = unsafe { input.load::<ANY>(token, chunk) };
        absmax = absmax_bits(&values, absmax);
        row.write(i, &values);
        i += 1;
        chunk += thread::block_dim_x();
    }
    absmax
}

/// Quantizes a token whose scale is known; what `row` keeps of it is up to date.
#[inline(always)]
unsafe fn quantize_row(input: Floats, output: Quantized, token: usize, scale: f32, row: &WideRow) {
    let mut sum = 0;
    let (mut i, mut chunk) = (0, thread::thread_idx_x());
    // SAFETY: `token` is a token of the launch, and each chunk belongs to one thread.
    unsafe {
        while chunk * (CHUNK as u32) < output.k_padded {
            let values = if row.keeps(i) {
                row.read(i)
            } else {
                input.load::<ANY>(token, chunk)
            };
            sum = output.store(token, chunk, &values, scale, sum);
            i += 1;
            chunk += thread::block_dim_x();
        }
        output.finish(token, scale, sum);
    }
}

/// Writes the largest magnitude in the tokens `block_idx`, `block_idx + grid_dim`, ... to `partial`.
///
/// # Safety
/// Launched on buffers as the module describes; `partial` has one element per block.
#[inline(always)]
unsafe fn absmax(input: Floats, partial: *mut i32, tokens: u32) {
    let mut absmax = 0;
    let mut token = thread::block_idx_x();
    // SAFETY: `token` is below `tokens`; all threads of the block reach the reduction.
    unsafe {
        while token < tokens {
            let len = input.columns();
            absmax = absmax_of_row(input, token as usize, len, absmax, &mut WideRow::none());
            token += thread::grid_dim_x();
        }
        let scratch = shared_array![i32; MAX_WARPS];
        let largest = block::max_i32(scratch, absmax);
        if thread::thread_idx_x() == 0 {
            *partial.add(thread::block_idx_x() as usize) = largest;
        }
    }
}

/// Quantizes a token with the scale of the whole tensor.
///
/// # Safety
/// Launched with one block per token, on buffers as the module describes.
#[inline(always)]
unsafe fn tensor(input: Floats, partial: *const i32, output: Quantized, partials: u32) {
    let mut absmax = 0;
    let mut i = thread::thread_idx_x();
    // SAFETY: `i` is below `partials`, and the row is the token's.
    unsafe {
        while i < partials {
            absmax = absmax.max(*partial.add(i as usize));
            i += thread::block_dim_x();
        }
        let token = thread::block_idx_x() as usize;
        let scale = agree_on_scale(absmax);
        quantize_row(input, output, token, scale, &WideRow::none());
    }
}

/// Divides a token's values by its scale.
///
/// # Safety
/// Launched with one block per token, on buffers as the module describes.
#[inline(always)]
unsafe fn dequantize(values: *const i8, scale: *const f32, output: Floats, k_padded: u32) {
    let token = thread::block_idx_x() as usize;
    // SAFETY: the rows are the token's, those of `values` consist of whole chunks, and each chunk belongs to one thread.
    unsafe {
        let scale = *scale.add(token);
        let values = values.add(token * k_padded as usize);
        let mut chunk = thread::thread_idx_x();
        while chunk * (CHUNK as u32) < output.columns() {
            let U32x2(words) = *values.add(chunk as usize * CHUNK).cast();
            let floats = core::array::from_fn(|i| {
                let q = (words[i / 4] >> (8 * (i % 4))) as i8;
                f32::from(q) / scale
            });
            output.store::<ANY>(token, chunk, &floats);
            chunk += thread::block_dim_x();
        }
    }
}

/// Parameters of the kernels that quantize per token, as [`cuda_std::kernel::Kernel::Params`].
pub type Params = (*const AnyFloat, u32, *mut i8, *mut f32, *mut i32, u32, u32);

/// Defines the kernels that quantize per token: the entry points, and the list for the host.
macro_rules! variants {
    ($($name:ident $chunks:expr;)*) => {
        /// The kernels that quantize per token, in order of preference; the last accepts any row.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const VARIANTS: &[Variant<Params>] =
            &[$(Variant { chunks: $chunks, whole: ANY, entry: crate::Entry::of::<$name>() }),*];
        $(
            /// Quantization per token; see the module.
            #[kernel(launch_bounds(MAX_THREADS, 1))]
            pub unsafe fn $name(
                input: *const AnyFloat,
                dtype: u32,
                values: *mut i8,
                scale: *mut f32,
                sum: *mut i32,
                k: u32,
                k_padded: u32,
            ) {
                grid::synchronize_and_trigger();
                let input = Floats::new(input, dtype, k);
                let output = Quantized { values, scale, sum, k_padded };
                // SAFETY: the host launches it on buffers as the module describes.
                unsafe {
                    if $chunks == WIDE {
                        quantize_wide_row(input, output);
                    } else {
                        quantize_resident::<$chunks>(input, output);
                    }
                }
            }
        )*
    };
}

variants! {
    quantize_c1 1;
    quantize_c2 2;
    quantize_c4 4;
    quantize_wide WIDE;
}

/// Largest magnitudes, the first step of quantization per tensor; see the module.
#[kernel(launch_bounds(MAX_THREADS, 1))]
pub unsafe fn quantize_tensor_absmax(
    input: *const AnyFloat,
    dtype: u32,
    partial: *mut i32,
    tokens: u32,
    k: u32,
) {
    grid::synchronize_and_trigger();
    // SAFETY: the host launches it on buffers as the module describes.
    unsafe { absmax(Floats::new(input, dtype, k), partial, tokens) }
}

/// Quantization per tensor, the second step; see the module.
#[kernel(launch_bounds(MAX_THREADS, 1))]
pub unsafe fn quantize_tensor(
    input: *const AnyFloat,
    dtype: u32,
    partial: *const i32,
    values: *mut i8,
    scale: *mut f32,
    sum: *mut i32,
    partials: u32,
    k: u32,
    k_padded: u32,
) {
    grid::synchronize_and_trigger();
    let output = Quantized {
        values,
        scale,
        sum,
        k_padded,
    };
    // SAFETY: the host launches it on buffers as the module describes.
    unsafe { tensor(Floats::new(input, dtype, k), partial, output, partials) }
}

/// Quantized activations as floats; see the module.
#[kernel(launch_bounds(MAX_THREADS, 1))]
pub unsafe fn dequantize_activations(
    values: *const i8,
    scale: *const f32,
    output: *mut AnyFloat,
    dtype: u32,
    k: u32,
    k_padded: u32,
) {
    grid::synchronize_and_trigger();
    // SAFETY: the host launches it on buffers as the module describes.
    unsafe { dequantize(values, scale, Floats::new(output, dtype, k), k_padded) }
}
