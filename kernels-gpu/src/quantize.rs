//! Activation quantization, per token: absmax to int8.
//!
//! `s = 127 / max(max_k |x[k]|, 1e-5)`, `q[k] = clamp(rint(x[k] * s), -128, 127)`, ties to even; and `sum_k q[k]`,
//! which a product with unsigned weight codes subtracts.
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `input` | `[tokens, k]` | f32, f16, bf16 | its element; 16 bytes are faster |
//! | `quantized` | `[tokens, k_padded]`, zeros from column `k` on | i8 | 8 bytes |
//! | `scale` | `[tokens]` | f32 | 4 bytes |
//! | `sum` | `[tokens]` | i32 | 4 bytes |
//!
//! Threads: a block takes a token; thread `t` takes chunks `t`, `t + block`, ... of 8 elements and keeps them in registers
//! between the maximum and the rounding, so that memory is read once. Bound by bytes: one read of `x`, one write of `q`.
//!
//! The maximum is taken over the bits of `|x|` as integers, which order floats as their values do and put NaN above
//! infinity: a token with a NaN gets a NaN scale, one with an infinity the scale 0, and its products are NaN.

use crate::block::{self, MAX_WARPS, WARP};
pub use crate::element::CHUNK;
use crate::element::Element;
use cuda_std::{intrinsics, kernel, shared_array, thread};
use half::{bf16, f16};

/// The clamp of `max|x|` from below.
const MIN_ABSMAX: f32 = 1e-5;
/// Two words, moved by one 64-bit instruction.
#[repr(C, align(8))]
struct U32x2([u32; 2]);

const ABS_BITS: u32 = 0x7fff_ffff;

/// Chunk `chunk` of a row of `k` elements; elements past the end read as 0.
#[inline(always)]
unsafe fn load_chunk<T: Element>(row: *const T, chunk: u32, k: u32) -> [f32; CHUNK] {
    let first = chunk * CHUNK as u32;
    // SAFETY: only elements below `k` are touched, and the vector load only where it is aligned.
    unsafe {
        let source = row.add(first as usize);
        if first + CHUNK as u32 <= k && source.addr().is_multiple_of(16) {
            T::load_chunk(source)
        } else {
            core::array::from_fn(|i| {
                if first + (i as u32) < k {
                    (*source.add(i)).widen()
                } else {
                    0.0
                }
            })
        }
    }
}

/// Largest `|x|` of a chunk, as bits.
#[inline(always)]
fn absmax_bits(values: &[f32; CHUNK], start: i32) -> i32 {
    let mut largest = start;
    for value in values {
        largest = largest.max((value.to_bits() & ABS_BITS) as i32);
    }
    largest
}

/// Rounds a chunk and writes it; returns `sum` plus its elements.
#[inline(always)]
unsafe fn store_quantized(target: *mut i8, values: &[f32; CHUNK], scale: f32, mut sum: i32) -> i32 {
    let mut words = [0u32; 2];
    for half in 0..2 {
        for byte in 0..4 {
            let q = intrinsics::float_to_i8_rn_sat(values[4 * half + byte] * scale);
            words[half] |= u32::from(q as u8) << (8 * byte);
        }
        sum = intrinsics::dp4a(words[half] as i32, 0x0101_0101, sum);
    }
    // SAFETY: the caller's contract: `CHUNK` bytes, 8-byte aligned.
    unsafe { *target.cast() = U32x2(words) };
    sum
}

/// The scale `s` of a token whose largest `|x|` has these bits. NaN passes through.
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

/// A token whose row fits `CHUNKS` chunks a thread: read once.
#[inline(always)]
unsafe fn quantize_resident<T: Element, const CHUNKS: usize>(problem: Problem<T>) {
    let (thread, threads) = (thread::thread_idx_x(), thread::block_dim_x());
    let mut row = [[0.0; CHUNK]; CHUNKS];
    let mut absmax = 0;
    // SAFETY: the pointers are the token's, and each chunk below `k_padded` is written by one thread.
    unsafe {
        let (input, quantized) = problem.row();
        unroll!(i < CHUNKS <= 4, {
            row[i] = load_chunk(input, thread + i as u32 * threads, problem.k);
            absmax = absmax_bits(&row[i], absmax);
        });
        let scale = problem.agree_on_scale(absmax);
        let mut sum = 0;
        unroll!(i < CHUNKS <= 4, {
            let first = (thread + i as u32 * threads) * CHUNK as u32;
            if first < problem.k_padded {
                sum = store_quantized(quantized.add(first as usize), &row[i], scale, sum);
            }
        });
        problem.write_token(scale, sum);
    }
}

/// A token of any length: read twice.
#[inline(always)]
unsafe fn quantize_streaming<T: Element>(problem: Problem<T>) {
    let (thread, threads) = (thread::thread_idx_x(), thread::block_dim_x());
    let chunks = problem.k_padded / CHUNK as u32;
    let mut absmax = 0;
    // SAFETY: as in `quantize_resident`.
    unsafe {
        let (input, quantized) = problem.row();
        let mut chunk = thread;
        while chunk < chunks {
            absmax = absmax_bits(&load_chunk(input, chunk, problem.k), absmax);
            chunk += threads;
        }
        let scale = problem.agree_on_scale(absmax);
        let mut sum = 0;
        let mut chunk = thread;
        while chunk < chunks {
            let target = quantized.add(chunk as usize * CHUNK);
            sum = store_quantized(target, &load_chunk(input, chunk, problem.k), scale, sum);
            chunk += threads;
        }
        problem.write_token(scale, sum);
    }
}

/// One launch's pointers and sizes.
#[derive(Clone, Copy)]
struct Problem<T> {
    input: *const T,
    quantized: *mut i8,
    scale: *mut f32,
    sum: *mut i32,
    k: u32,
    k_padded: u32,
}

impl<T: Element> Problem<T> {
    /// This block's token: its input and its output.
    #[inline(always)]
    unsafe fn row(&self) -> (*const T, *mut i8) {
        let token = thread::block_idx_x() as usize;
        // SAFETY: the grid has a block for each token.
        unsafe {
            (
                self.input.add(token * self.k as usize),
                self.quantized.add(token * self.k_padded as usize),
            )
        }
    }

    /// The token's scale, from each thread's largest `|x|`.
    #[inline(always)]
    unsafe fn agree_on_scale(&self, absmax: i32) -> f32 {
        let scratch = shared_array![i32; MAX_WARPS];
        // SAFETY: all threads call it, and this is the array's one use.
        scale_of(unsafe { block::reduce_block(scratch, absmax, |a, b| a.max(b)) })
    }

    /// Writes the token's scale and sum, from each thread's part of the sum.
    #[inline(always)]
    unsafe fn write_token(&self, scale: f32, sum: i32) {
        let scratch = shared_array![i32; MAX_WARPS];
        let token = thread::block_idx_x() as usize;
        // SAFETY: all threads call it, this is the array's one use, and `token` is one of the grid's.
        unsafe {
            let sum = block::reduce_block(scratch, sum, |a, b| a + b);
            if thread::thread_idx_x() == 0 {
                *self.scale.add(token) = scale;
                *self.sum.add(token) = sum;
            }
        }
    }
}

/// Parameters of a quantization kernel for input type `T`, as [`cuda_std::kernel::Kernel::Params`].
pub type Params<T> = (*const T, *mut i8, *mut f32, *mut i32, u32, u32);

/// Chunks a thread that the streaming kernels stand for: rows of any length.
const STREAMING: usize = 0;

/// Threads of a block, at most.
pub const MAX_THREADS: u32 = MAX_WARPS as u32 * WARP;

/// Lists the variants of an input type: the entry points, and the list for the host.
macro_rules! variants {
    ($list:ident, $type:ty: $($name:ident $chunks:expr;)*) => {
        /// The compiled variants, by ascending number of elements that a thread can hold.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const $list: &[Variant<$type>] = &[$(Variant { chunks: $chunks, entry: crate::Entry::of::<$name>() }),*];
        $(
            /// Activation quantization per token; see the module.
            #[kernel(launch_bounds(MAX_THREADS, 1))]
            pub unsafe fn $name(input: *const $type, quantized: *mut i8, scale: *mut f32, sum: *mut i32, k: u32, k_padded: u32) {
                let problem = Problem { input, quantized, scale, sum, k, k_padded };
                // SAFETY: the host launches it on buffers as the module says.
                unsafe {
                    if $chunks == STREAMING {
                        quantize_streaming(problem);
                    } else {
                        quantize_resident::<$type, $chunks>(problem);
                    }
                }
            }
        )*
    };
}

/// A quantization kernel and the rows that it takes.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug)]
pub struct Variant<T> {
    chunks: usize,
    /// The kernel.
    pub entry: crate::Entry<Params<T>>,
}

#[cfg(not(target_arch = "nvptx64"))]
impl<T> Variant<T> {
    /// The longest padded row that a block of `threads` threads can take; `None` where any length is.
    pub const fn max_k_padded(&self, threads: u32) -> Option<usize> {
        match self.chunks {
            STREAMING => None,
            chunks => Some(chunks * CHUNK * threads as usize),
        }
    }
}

variants! { F32, f32:
    quantize_f32_c1 1;
    quantize_f32_c2 2;
    quantize_f32_c4 4;
    quantize_f32_streaming STREAMING;
}
variants! { F16, f16:
    quantize_f16_c1 1;
    quantize_f16_c2 2;
    quantize_f16_c4 4;
    quantize_f16_streaming STREAMING;
}
variants! { BF16, bf16:
    quantize_bf16_c1 1;
    quantize_bf16_c2 2;
    quantize_bf16_c4 4;
    quantize_bf16_streaming STREAMING;
}
