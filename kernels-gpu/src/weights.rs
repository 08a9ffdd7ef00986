//! Weight quantization: floats `[n, k]` to ternary or binary, written directly in the `Tiled` layout.
//!
//! Ternary: `scale = max(mean|w|, 1e-5)`, `t = clamp(rint(w * (1 / scale)), -1, 1)`. Binary: `b = 1` where `w > mean(w)`, else
//! `-1`; `scale = mean|w|`. Means are taken over the matrix or over each row.
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `weights` | `[n, k]` | f32, f16, bf16: `dtype` | 16 bytes |
//! | `abs_sums`, `sums` (or null) | `[n]` | f64 | 8 bytes |
//! | `scale`, `threshold` (or null) | `[n]` | f32 | 4 bytes |
//! | `packed` | as `Tiled` defines | 2-bit codes | 4 bytes |
//!
//! Threads, for the sums: a warp processes a row, lane `l` its columns `l, l + 32, ...`. Sums are f64, added in the order of the CPU
//! reference, so that the scales are the same, bit for bit. For the values: as in the `packed` module. Bound by memory bandwidth.

use crate::element::{AnyFloat, Floats, QUAD};
use crate::packed::{self, Layout, MAX_THREADS, Packed, ZEROS};
use cuda_std::shared::SharedPtr;
use cuda_std::warp::{FULL_MASK, WARP_SIZE};
use cuda_std::{intrinsics, kernel, shared_array, thread, warp};

/// Rows whose sums a block computes.
pub const SUM_ROWS: u32 = MAX_THREADS / WARP_SIZE;

const LANES: usize = WARP_SIZE as usize;

/// Sums `value` over all lanes in the order of the reference: at distances 16, 8, 4, 2, 1. All lanes get the sum.
///
/// # Safety
/// All lanes of the warp call it together.
#[inline(always)]
unsafe fn sum_of_warp(mut value: f64) -> f64 {
    let mut distance = WARP_SIZE / 2;
    while distance > 0 {
        let bits = value.to_bits();
        // SAFETY: the caller's contract.
        let (low, high) = unsafe {
            (
                warp::warp_shuffle_xor(FULL_MASK, bits as u32, distance, WARP_SIZE),
                warp::warp_shuffle_xor(FULL_MASK, (bits >> 32) as u32, distance, WARP_SIZE),
            )
        };
        value += f64::from_bits(u64::from(low) | u64::from(high) << 32);
        distance /= 2;
    }
    value
}

/// Sums the magnitudes of each row, and its values.
///
/// # Safety
/// Launched with one warp per row, in blocks of [`MAX_THREADS`], on buffers as the module describes.
#[inline(always)]
unsafe fn sum_rows(weights: Floats, abs_sums: *mut f64, sums: *mut f64, n: u32) {
    /// Loads in flight.
    const STEPS: usize = 8;
    let lane = (thread::thread_idx_x() % WARP_SIZE) as usize;
    let row = (thread::block_idx_x() * SUM_ROWS + thread::thread_idx_x() / WARP_SIZE) as usize;
    if row >= n as usize {
        return;
    }
    let (mut abs_sum, mut sum) = (0.0f64, 0.0f64);
    let mut add = |value: f32| {
        abs_sum += f64::from(value.abs());
        sum += f64::from(value);
    };
    let columns = weights.columns() as usize;
    let mut column = lane;
    // SAFETY: only columns below `columns` are read; a warp processes one row, so all its lanes reach the sums.
    unsafe {
        while column + (STEPS - 1) * LANES < columns {
            let values: [f32; STEPS] = weights.read_strided(row, column, LANES);
            values.into_iter().for_each(&mut add);
            column += STEPS * LANES;
        }
        while column < columns {
            let [value] = weights.read_strided(row, column, LANES);
            add(value);
            column += LANES;
        }
        let (abs_sum, sum) = (sum_of_warp(abs_sum), sum_of_warp(sum));
        if lane == 0 {
            *abs_sums.add(row) = abs_sum;
            if !sums.is_null() {
                *sums.add(row) = sum;
            }
        }
    }
}

/// The mean of each row, or of the whole matrix, rounded to f32; at least `least`.
///
/// # Safety
/// Launched as one block of [`MAX_THREADS`]; `sums` and `means` have `n` elements. `total` is used by this call only.
#[inline(always)]
unsafe fn means(
    sums: *const f64,
    means: *mut f32,
    total: SharedPtr<u64>,
    (n, k): (u32, u32),
    per_tensor: u32,
    least: f32,
) {
    let thread = thread::thread_idx_x();
    let mean = |sum: f64, count: u64| {
        let mean = sum / count as f64;
        // NaN is kept: it tells the host that a weight is not finite.
        (if mean < f64::from(least) {
            f64::from(least)
        } else {
            mean
        }) as f32
    };
    // SAFETY: the caller's contract; `per_tensor` is the same for all threads, and all lanes of warp 0 take part in the sum.
    unsafe {
        let mut of_all = 0.0;
        if per_tensor != 0 {
            if thread < WARP_SIZE {
                let mut sum = 0.0f64;
                let mut row = thread;
                while row < n {
                    sum += *sums.add(row as usize);
                    row += WARP_SIZE;
                }
                let sum = sum_of_warp(sum);
                if thread == 0 {
                    total.write(sum.to_bits());
                }
            }
            thread::sync_threads();
            of_all = mean(f64::from_bits(total.read()), u64::from(n) * u64::from(k));
        }
        let mut row = thread;
        while row < n {
            *means.add(row as usize) = if per_tensor != 0 {
                of_all
            } else {
                mean(*sums.add(row as usize), u64::from(k))
            };
            row += thread::block_dim_x();
        }
    }
}

/// The parameters that map a float to a code.
#[derive(Clone, Copy)]
struct Quantizer {
    scale: *const f32,
    threshold: *const f32,
}

/// Quantizes this block's rows into the `Tiled` layout.
///
/// # Safety
/// Launched with one block per [`packed::ROWS`] rows of the padded matrix, on buffers as the module describes.
#[inline(always)]
unsafe fn quantize(weights: Floats, quantizer: Quantizer, target: Packed, n: u32) {
    packed::for_each_quad(target.k, |row, column| {
        // SAFETY: scale and threshold are read only for existing rows; all lanes store together.
        unsafe {
            let len = packed::quad_len((n, weights.columns()), row, column);
            let mut codes = ZEROS;
            if len > 0 {
                codes = 0;
                let values = weights.load_quad(row, column, len);
                let binary = !quantizer.threshold.is_null();
                let parameter = if binary {
                    *quantizer.threshold.add(row as usize)
                } else {
                    1.0 / *quantizer.scale.add(row as usize)
                };
                for i in 0..QUAD {
                    let code = if i as u32 >= len {
                        1
                    } else if binary {
                        if values[i] > parameter { 2 } else { 0 }
                    } else {
                        // Clamped before 1 is added, which could overflow.
                        intrinsics::float_to_int_rn(values[i] * parameter).clamp(-1, 1) + 1
                    };
                    codes |= (code as u32) << (8 * i);
                }
            }
            target.store(row, column, codes);
        }
    });
}

/// Sums of rows in f64, the first pass of quantization; see the module.
#[kernel(launch_bounds(MAX_THREADS, 4))]
pub unsafe fn weight_sums(
    weights: *const AnyFloat,
    dtype: u32,
    abs_sums: *mut f64,
    sums: *mut f64,
    n: u32,
    k: u32,
) {
    // SAFETY: the host launches it on buffers as the module describes.
    unsafe { sum_rows(Floats::new(weights, dtype, k), abs_sums, sums, n) }
}

/// Scales from `abs_sums`, at least `least`, and thresholds from `sums` unless it is null; per row, or for the matrix (`per_tensor`).
/// Launched as one block; see the module.
#[kernel(launch_bounds(MAX_THREADS, 1))]
pub unsafe fn weight_scales(
    abs_sums: *const f64,
    sums: *const f64,
    scale: *mut f32,
    threshold: *mut f32,
    n: u32,
    k: u32,
    per_tensor: u32,
    least: f32,
) {
    let (abs_total, total) = (shared_array![u64; 1], shared_array![u64; 1]);
    // SAFETY: the host launches it on buffers as the module describes; all threads agree on whether `sums` is null.
    unsafe {
        means(abs_sums, scale, abs_total, (n, k), per_tensor, least);
        if !sums.is_null() {
            means(sums, threshold, total, (n, k), per_tensor, f32::MIN);
        }
    }
}

/// Quantization to ternary, or to binary if `threshold` is not null, the second pass; see the module.
#[kernel(launch_bounds(MAX_THREADS, 4))]
pub unsafe fn quantize_weights(
    weights: *const AnyFloat,
    dtype: u32,
    scale: *const f32,
    threshold: *const f32,
    packed: *mut u8,
    n: u32,
    k: u32,
    n_padded: u32,
    k_padded: u32,
) {
    let packed = Packed {
        bytes: packed,
        layout: Layout::Tiled as u32,
        n: n_padded,
        k: k_padded,
    };
    let quantizer = Quantizer { scale, threshold };
    // SAFETY: the host launches it on buffers as the module describes.
    unsafe { quantize(Floats::new(weights, dtype, k), quantizer, packed, n) }
}
