//! Weight matrices `[n, k]`: floats to ternary or binary, and between int8, the packed layouts and floats.
//!
//! Ternary: `scale = max(mean|w|, 1e-5)`, `t = clamp(rint(w * (1 / scale)), -1, 1)`. Binary: `b = 1` where `w > mean(w)`, else
//! `-1`, `scale = mean|w|`. Means are over the matrix or over each row. Back: `t * scale`.
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `weights`, `output` | `[n, k]` | f32, f16, bf16: `dtype` | 16 bytes |
//! | `abs_sums`, `sums` (or null) | `[n]` | f64 | 8 bytes |
//! | `scale`, `threshold` (or null) | `[n]` | f32 | 4 bytes |
//! | `values` | `[n, k]` | i8 | 4 bytes |
//! | `packed` | as the layout says | 2-bit codes | 4 bytes |
//! | `invalid` | 1 | u32 | 4 bytes |
//!
//! Threads, for the sums: a warp takes a row, lane `l` its columns `l, l + 32, ...`. They are f64, added in the order of the CPU
//! reference, so that the scales are the same bit for bit. For the rest: a block takes 4 rows, a warp 32 columns of them at a time, a lane
//! 4 columns (a *quad*) of one row: whole sectors of the floats, of the int8 values and of `Tiled`. Bound by bytes.

use crate::block::{FULL_WARP, WARP};
use crate::element::{Floats, QUAD};
use crate::gemv::AnyFloat;
use cuda_std::shared::SharedPtr;
use cuda_std::{intrinsics, kernel, shared_array, thread, warp};

/// The packed layouts, as kernels take them. `bitnet_cuda::layout` describes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Layout {
    /// Four columns a byte.
    RowMajor = 0,
    /// Microsoft's; codes are `w + 2`.
    Ladder = 1,
    /// This project's.
    Tiled = 2,
}

/// Rows that a block of threads takes.
pub const ROWS: u32 = 4;
/// Lanes that share a row.
const ROW_LANES: u32 = WARP / ROWS;
/// Columns that a warp takes at a time.
pub const WARP_COLUMNS: u32 = ROW_LANES * QUAD as u32;
/// Threads of a block, at most.
pub const MAX_THREADS: u32 = 256;
/// Rows whose sums a block takes.
pub const SUM_ROWS: u32 = MAX_THREADS / WARP;

const LANES: usize = WARP as usize;

/// A byte each for four weights.
const ONES: u32 = 0x0101_0101;
const SIGNS: u32 = 0x8080_8080;

/// Adds `value` of all lanes as the reference does: distance 16, 8, 4, 2, 1. All lanes get the sum.
///
/// # Safety
/// All lanes of the warp call it together.
#[inline(always)]
unsafe fn sum_of_warp(mut value: f64) -> f64 {
    let mut distance = WARP / 2;
    while distance > 0 {
        let bits = value.to_bits();
        // SAFETY: the caller's contract.
        let (low, high) = unsafe {
            (
                warp::warp_shuffle_xor(FULL_WARP, bits as u32, distance, WARP),
                warp::warp_shuffle_xor(FULL_WARP, (bits >> 32) as u32, distance, WARP),
            )
        };
        value += f64::from_bits(u64::from(low) | u64::from(high) << 32);
        distance /= 2;
    }
    value
}

/// Sums of the rows' magnitudes, and of the rows.
///
/// # Safety
/// A warp a row, blocks of [`MAX_THREADS`], on buffers as the module says.
#[inline(always)]
unsafe fn sum_rows(weights: Floats, abs_sums: *mut f64, sums: *mut f64, n: u32) {
    /// Loads in flight.
    const STEPS: usize = 8;
    let lane = (thread::thread_idx_x() % WARP) as usize;
    let row = (thread::block_idx_x() * SUM_ROWS + thread::thread_idx_x() / WARP) as usize;
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
    // SAFETY: columns are below `columns`; whole warps take rows, so all lanes reach the sums.
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

/// The mean of each row, or of all, rounded to f32; at least `least`.
///
/// # Safety
/// One block of [`MAX_THREADS`]; `sums` and `means` have `n` elements. `total` is this call's own.
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
        // NaN stays: it tells the host of a weight that is not finite.
        (if mean < f64::from(least) {
            f64::from(least)
        } else {
            mean
        }) as f32
    };
    // SAFETY: the caller's contract; `per_tensor` is the same for all threads, and all lanes of warp 0 add.
    unsafe {
        let mut of_all = 0.0;
        if per_tensor != 0 {
            if thread < WARP {
                let mut sum = 0.0f64;
                let mut row = thread;
                while row < n {
                    sum += *sums.add(row as usize);
                    row += WARP;
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

/// Four ternary weights as bytes -1, 0, 1, from bytes 0, 1, 2.
#[inline(always)]
fn codes_to_values(codes: u32) -> u32 {
    // With the sign bits set no byte borrows from the next.
    ((codes | SIGNS) - ONES) ^ SIGNS
}

/// The inverse of [`codes_to_values`]; other values than -1, 0, 1 become bytes above 2.
#[inline(always)]
fn values_to_codes(values: u32) -> u32 {
    // Without the sign bits no byte carries into the next.
    ((values & !SIGNS) + ONES) ^ (values & SIGNS)
}

/// Whether all bytes are 0, 1 or 2.
#[inline(always)]
fn are_codes(codes: u32) -> bool {
    codes & !(3 * ONES) == 0 && codes & (codes >> 1) & ONES == 0
}

/// A packed matrix.
#[derive(Clone, Copy)]
struct Packed {
    bytes: *mut u8,
    layout: u32,
    /// Padded as the layout says.
    n: u32,
    k: u32,
}

impl Packed {
    fn is_tiled(&self) -> bool {
        self.layout == Layout::Tiled as u32
    }

    /// Offset of the word that has a quad in its bytes, and the quad's lowest bit in each byte. Not for `RowMajor`.
    ///
    /// In `Tiled` a word is that quad of four rows, in `Ladder` the four quads of 16 columns of one row.
    #[inline(always)]
    fn word(&self, row: u32, column: u32) -> (usize, u32) {
        let tile = (row / 16) as usize;
        let row = row % 16;
        if self.is_tiled() {
            let block = tile * (self.k / 128) as usize + (column / 128) as usize;
            let byte = row / 4 * 128 + column % 128;
            (block * 512 + byte as usize, row % 4 * 2)
        } else {
            let block = tile * (self.k / 32) as usize + (column / 32) as usize;
            let word = row / 8 * 16 + column % 32 / 16 * 8 + row % 8;
            (block * 128 + word as usize * 4, column % 16 / 4 * 2)
        }
    }

    /// What the codes of the layout are larger by than 0, 1, 2.
    #[inline(always)]
    fn excess(&self) -> u32 {
        if self.layout == Layout::Ladder as u32 {
            ONES
        } else {
            0
        }
    }

    /// Offset of a `RowMajor` byte.
    #[inline(always)]
    fn byte_offset(&self, row: u32, column: u32) -> usize {
        row as usize * (self.k / 4) as usize + (column / 4) as usize
    }

    /// A quad as bytes 0, 1, 2.
    ///
    /// # Safety
    /// The quad is in the padded matrix.
    #[inline(always)]
    unsafe fn load(&self, row: u32, column: u32) -> u32 {
        // SAFETY: the caller's contract; words are whole in the layouts that have them.
        unsafe {
            if self.layout == Layout::RowMajor as u32 {
                let byte = u32::from(*self.bytes.add(self.byte_offset(row, column)));
                (byte | byte << 6 | byte << 12 | byte << 18) & (3 * ONES)
            } else {
                let (offset, shift) = self.word(row, column);
                let word: u32 = *self.bytes.add(offset).cast();
                (word >> shift & (3 * ONES)) - self.excess()
            }
        }
    }

    /// Writes this lane's quad, which is 0, 1, 2 in bytes, if it is in the padded matrix.
    ///
    /// # Safety
    /// All lanes of the warp call it together, with the quads that [`for_each_quad`] gives them.
    #[inline(always)]
    unsafe fn store(&self, row: u32, column: u32, codes: u32) {
        let inside = row < self.n && column < self.k;
        if self.layout == Layout::RowMajor as u32 {
            if inside {
                let byte = codes | codes >> 6 | codes >> 12 | codes >> 18;
                // SAFETY: the quad is in the matrix.
                unsafe { *self.bytes.add(self.byte_offset(row, column)) = byte as u8 };
            }
            return;
        }
        let (offset, shift) = self.word(row, column);
        let mut word = (codes + self.excess()) << shift;
        // The lanes whose quads share a word: four rows, or four neighbours in a row.
        let distance = if self.is_tiled() { ROW_LANES } else { 1 };
        // SAFETY: all lanes are here, as the layout is the same for all; the padded matrix has whole words.
        unsafe {
            word |= warp::warp_shuffle_xor(FULL_WARP, word, distance, WARP);
            word |= warp::warp_shuffle_xor(FULL_WARP, word, 2 * distance, WARP);
            if shift == 0 && inside {
                *self.bytes.add(offset).cast() = word;
            }
        }
    }
}

/// Calls `each` with the row and the column of every quad of this lane in `columns` columns, all lanes together.
#[inline(always)]
fn for_each_quad(columns: u32, mut each: impl FnMut(u32, u32)) {
    let (warp, lane) = (thread::thread_idx_x() / WARP, thread::thread_idx_x() % WARP);
    let row = thread::block_idx_x() * ROWS + lane / ROW_LANES;
    let mut first = warp * WARP_COLUMNS;
    while first < columns {
        each(row, first + lane % ROW_LANES * QUAD as u32);
        first += thread::block_dim_x() / WARP * WARP_COLUMNS;
    }
}

/// Elements of a quad that are in an `[n, k]` matrix.
#[inline(always)]
fn quad_len((n, k): (u32, u32), row: u32, column: u32) -> u32 {
    if row < n && column < k { k - column } else { 0 }
}

/// How a float becomes a code.
#[derive(Clone, Copy)]
struct Quantizer {
    scale: *const f32,
    threshold: *const f32,
}

/// Quantizes this block's rows into the `Tiled` layout.
///
/// # Safety
/// A block for [`ROWS`] rows of the padded matrix, on buffers as the module says.
#[inline(always)]
unsafe fn quantize(weights: Floats, quantizer: Quantizer, packed: Packed, n: u32) {
    for_each_quad(packed.k, |row, column| {
        // SAFETY: the scale and the threshold are those of a row that is there; all lanes store together.
        unsafe {
            let len = quad_len((n, weights.columns()), row, column);
            let mut codes = ONES;
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
                        // Limited before 1 is added, which could overflow.
                        intrinsics::float_to_int_rn(values[i] * parameter).clamp(-1, 1) + 1
                    };
                    codes |= (code as u32) << (8 * i);
                }
            }
            packed.store(row, column, codes);
        }
    });
}

/// Packs this block's rows of int8 values.
///
/// # Safety
/// As [`quantize`].
#[inline(always)]
unsafe fn pack(values: *const i8, packed: Packed, invalid: *mut u32, shape: (u32, u32)) {
    let k = shape.1;
    for_each_quad(packed.k, |row, column| {
        let len = quad_len(shape, row, column);
        let source = values.wrapping_add(row as usize * k as usize + column as usize);
        // SAFETY: only the `len` elements that are there are read; quads are aligned where rows are whole quads. All lanes store
        // together. Threads that find an invalid value write the same word to `invalid`.
        unsafe {
            let mut codes = ONES;
            if len >= QUAD as u32 && k.is_multiple_of(QUAD as u32) {
                codes = values_to_codes(*source.cast());
            } else if len > 0 {
                let mut quad = 0;
                for i in 0..QUAD {
                    if (i as u32) < len {
                        quad |= u32::from(*source.add(i) as u8) << (8 * i);
                    }
                }
                codes = values_to_codes(quad);
            }
            if !are_codes(codes) {
                *invalid = 1;
                codes = ONES;
            }
            packed.store(row, column, codes);
        }
    });
}

/// Unpacks this block's rows to int8 values.
///
/// # Safety
/// As [`quantize`].
#[inline(always)]
unsafe fn unpack(packed: Packed, values: *mut i8, shape: (u32, u32)) {
    let k = shape.1;
    for_each_quad(k, |row, column| {
        let len = quad_len(shape, row, column);
        if len == 0 {
            return;
        }
        let target = values.wrapping_add(row as usize * k as usize + column as usize);
        // SAFETY: only the `len` elements that are there are written; quads are aligned where rows are whole quads.
        unsafe {
            let quad = codes_to_values(packed.load(row, column));
            if k.is_multiple_of(QUAD as u32) {
                *target.cast() = quad;
            } else {
                for i in 0..QUAD {
                    if (i as u32) < len {
                        *target.add(i) = (quad >> (8 * i)) as i8;
                    }
                }
            }
        }
    });
}

/// Copies this block's rows to another layout.
///
/// # Safety
/// As [`quantize`], for the padded rows of `target`.
#[inline(always)]
unsafe fn convert(source: Packed, target: Packed) {
    for_each_quad(target.k, |row, column| {
        // SAFETY: only quads that `source` has are read; what it has beyond the matrix is weight 0, as in `target`.
        unsafe {
            let codes = if row < source.n && column < source.k {
                source.load(row, column)
            } else {
                ONES
            };
            target.store(row, column, codes);
        }
    });
}

/// Unpacks this block's rows and multiplies them with their scales.
///
/// # Safety
/// As [`quantize`].
#[inline(always)]
unsafe fn dequantize(packed: Packed, scale: *const f32, output: Floats) {
    let k = output.columns();
    for_each_quad(k, |row, column| {
        let len = quad_len((packed.n, k), row, column);
        if len == 0 {
            return;
        }
        // SAFETY: the quad's row is there, and has a scale.
        unsafe {
            let quad = codes_to_values(packed.load(row, column));
            let scale = *scale.add(row as usize);
            let floats = core::array::from_fn(|i| f32::from((quad >> (8 * i)) as i8) * scale);
            output.store_quad(row, column, len, &floats);
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
    // SAFETY: the host launches it on buffers as the module says.
    unsafe { sum_rows(Floats::new(weights, dtype, k), abs_sums, sums, n) }
}

/// Scales from `abs_sums`, at least `least`, and thresholds from `sums` where there are any; of each row, or of all (`per_tensor`).
/// One block; see the module.
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
    // SAFETY: the host launches it on buffers as the module says; whether there are sums is the same for all threads.
    unsafe {
        means(abs_sums, scale, abs_total, (n, k), per_tensor, least);
        if !sums.is_null() {
            means(sums, threshold, total, (n, k), per_tensor, f32::MIN);
        }
    }
}

/// Quantization to ternary, or to binary where there is a threshold, the second pass; see the module.
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
    // SAFETY: the host launches it on buffers as the module says.
    unsafe { quantize(Floats::new(weights, dtype, k), quantizer, packed, n) }
}

/// Packed weights as floats; see the module.
#[kernel(launch_bounds(MAX_THREADS, 4))]
pub unsafe fn dequantize_weights(
    packed: *const u8,
    scale: *const f32,
    output: *mut AnyFloat,
    dtype: u32,
    layout: u32,
    n: u32,
    k: u32,
    k_padded: u32,
) {
    let packed = Packed {
        bytes: packed.cast_mut(),
        layout,
        n,
        k: k_padded,
    };
    // SAFETY: the host launches it on buffers as the module says.
    unsafe { dequantize(packed, scale, Floats::new(output, dtype, k)) }
}

/// Ternary int8 values to a layout; sets `invalid` where one is not ternary. See the module.
#[kernel(launch_bounds(MAX_THREADS, 4))]
pub unsafe fn pack_ternary(
    values: *const i8,
    packed: *mut u8,
    invalid: *mut u32,
    layout: u32,
    n: u32,
    k: u32,
    n_padded: u32,
    k_padded: u32,
) {
    let packed = Packed {
        bytes: packed,
        layout,
        n: n_padded,
        k: k_padded,
    };
    // SAFETY: the host launches it on buffers as the module says.
    unsafe { pack(values, packed, invalid, (n, k)) }
}

/// Packed weights to int8 values; see the module.
#[kernel(launch_bounds(MAX_THREADS, 4))]
pub unsafe fn unpack_ternary(
    packed: *const u8,
    values: *mut i8,
    layout: u32,
    n: u32,
    k: u32,
    k_padded: u32,
) {
    let packed = Packed {
        bytes: packed.cast_mut(),
        layout,
        n,
        k: k_padded,
    };
    // SAFETY: the host launches it on buffers as the module says.
    unsafe { unpack(packed, values, (n, k)) }
}

/// Packed weights to another layout. Sizes are padded, as each layout says. See the module.
#[kernel(launch_bounds(MAX_THREADS, 4))]
pub unsafe fn convert_layout(
    source: *const u8,
    target: *mut u8,
    source_layout: u32,
    source_n: u32,
    source_k: u32,
    target_layout: u32,
    target_n: u32,
    target_k: u32,
) {
    let source = Packed {
        bytes: source.cast_mut(),
        layout: source_layout,
        n: source_n,
        k: source_k,
    };
    let target = Packed {
        bytes: target,
        layout: target_layout,
        n: target_n,
        k: target_k,
    };
    // SAFETY: the host launches it on buffers as the module says.
    unsafe { convert(source, target) }
}
