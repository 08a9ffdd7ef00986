//! Packed ternary matrices `[n, k]`: conversion from and to int8 values, between layouts, and to floats (`t * scale`).
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `packed`, `source`, `target` | as the layout defines | 2-bit codes | 4 bytes |
//! | `values` | `[n, k]` | i8 | 4 bytes |
//! | `scale` | `[n]` | f32 | 4 bytes |
//! | `output` | `[n, k]` | f32, f16, bf16: `dtype` | 16 bytes |
//! | `invalid` | 1 | u32 | 4 bytes |
//!
//! Threads: a block processes 4 rows, a warp 32 columns of them at a time, a lane 4 columns (a *quad*) of one row. Warps thus access
//! whole sectors of the floats, of the int8 values and of `Tiled`. Bound by memory bandwidth.

use crate::element::{AnyFloat, Floats, QUAD};
use cuda_std::atomic::atomic_fetch_max_relaxed_u32_device;
use cuda_std::warp::{FULL_MASK, WARP_SIZE};
use cuda_std::{kernel, thread, warp};

/// The packed layouts, with the numbers that are passed to kernels. `bitnet_cuda::layout` describes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Layout {
    /// Four columns of a row per byte.
    RowMajor = 0,
    /// Microsoft's layout; codes are `w + 2`.
    Ladder = 1,
    /// This project's layout.
    Tiled = 2,
}

/// Rows that a block of threads processes.
pub const ROWS: u32 = 4;
/// Lanes that share a row.
const ROW_LANES: u32 = WARP_SIZE / ROWS;
/// Columns that a warp processes at a time.
pub const WARP_COLUMNS: u32 = ROW_LANES * QUAD as u32;
/// Maximum number of threads per block.
pub const MAX_THREADS: u32 = 256;

/// Four zero weights as codes; the bytes 0, 1, 2 stand for -1, 0, 1.
pub(crate) const ZEROS: u32 = 0x0101_0101;
const ONES: u32 = 0x0101_0101;
const SIGNS: u32 = 0x8080_8080;

/// Four ternary weights as bytes -1, 0, 1, from bytes 0, 1, 2.
#[inline(always)]
fn codes_to_values(codes: u32) -> u32 {
    // With the sign bits set, no byte borrows from the next.
    ((codes | SIGNS) - ONES) ^ SIGNS
}

/// The inverse of [`codes_to_values`]; values other than -1, 0, 1 become bytes above 2.
#[inline(always)]
fn values_to_codes(values: u32) -> u32 {
    // Without the sign bits, no byte carries into the next.
    ((values & !SIGNS) + ONES) ^ (values & SIGNS)
}

/// Whether all bytes are 0, 1 or 2.
#[inline(always)]
fn are_codes(codes: u32) -> bool {
    codes & !(3 * ONES) == 0 && codes & (codes >> 1) & ONES == 0
}

/// A packed matrix.
#[derive(Clone, Copy)]
pub(crate) struct Packed {
    pub bytes: *mut u8,
    pub layout: u32,
    /// Padded as the layout requires.
    pub n: u32,
    pub k: u32,
}

impl Packed {
    fn is_tiled(&self) -> bool {
        self.layout == Layout::Tiled as u32
    }

    /// Byte offset of the word that holds a quad, one column per byte, and the quad's lowest bit in each byte. Not for `RowMajor`.
    ///
    /// A word of `Tiled` holds this quad of four rows, a word of `Ladder` the four quads of 16 columns of one row.
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

    /// In each byte, the difference between the layout's codes and 0, 1, 2.
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

    /// Loads a quad, as bytes 0, 1, 2.
    ///
    /// # Safety
    /// The quad is in the padded matrix.
    #[inline(always)]
    unsafe fn load(&self, row: u32, column: u32) -> u32 {
        // SAFETY: the caller's contract; layouts that are read in words consist of whole words.
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

    /// Writes this lane's quad, given as bytes 0, 1, 2, if it is inside the padded matrix.
    ///
    /// # Safety
    /// All lanes of the warp call it together, with the quads that [`for_each_quad`] gives them.
    #[inline(always)]
    pub unsafe fn store(&self, row: u32, column: u32, codes: u32) {
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
        // Distance between the lanes whose quads share a word: four rows, or four neighbours in a row.
        let distance = if self.is_tiled() { ROW_LANES } else { 1 };
        // SAFETY: all lanes take part, because the layout is the same for all; the padded matrix consists of whole words.
        unsafe {
            word |= warp::warp_shuffle_xor(FULL_MASK, word, distance, WARP_SIZE);
            word |= warp::warp_shuffle_xor(FULL_MASK, word, 2 * distance, WARP_SIZE);
            if shift == 0 && inside {
                *self.bytes.add(offset).cast() = word;
            }
        }
    }
}

/// Calls `each` with the row and column of every quad of this lane within `columns` columns; the lanes of a warp make the calls together.
#[inline(always)]
pub(crate) fn for_each_quad(columns: u32, mut each: impl FnMut(u32, u32)) {
    let (warp, lane) = (
        thread::thread_idx_x() / WARP_SIZE,
        thread::thread_idx_x() % WARP_SIZE,
    );
    let row = thread::block_idx_x() * ROWS + lane / ROW_LANES;
    let mut first = warp * WARP_COLUMNS;
    while first < columns {
        each(row, first + lane % ROW_LANES * QUAD as u32);
        first += thread::block_dim_x() / WARP_SIZE * WARP_COLUMNS;
    }
}

/// Elements from the start of a quad to the end of its row in an `[n, k]` matrix; 0 outside the matrix.
#[inline(always)]
pub(crate) fn quad_len((n, k): (u32, u32), row: u32, column: u32) -> u32 {
    if row < n && column < k { k - column } else { 0 }
}

/// Packs this block's rows of int8 values.
///
/// # Safety
/// Launched with one block per [`ROWS`] rows of the padded matrix, on buffers as the module describes.
#[inline(always)]
unsafe fn pack(values: *const i8, packed: Packed, invalid: *mut u32, shape: (u32, u32)) {
    let k = shape.1;
    for_each_quad(packed.k, |row, column| {
        let len = quad_len(shape, row, column);
        let source = values.wrapping_add(row as usize * k as usize + column as usize);
        // SAFETY: only the `len` existing elements are read; quads are aligned if rows consist of whole quads. All lanes store
        // together. Several threads may find an invalid value, hence the atomic operation.
        unsafe {
            let mut codes = ZEROS;
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
                atomic_fetch_max_relaxed_u32_device(invalid, 1);
                codes = ZEROS;
            }
            packed.store(row, column, codes);
        }
    });
}

/// Unpacks this block's rows to int8 values.
///
/// # Safety
/// As [`pack`].
#[inline(always)]
unsafe fn unpack(packed: Packed, values: *mut i8, shape: (u32, u32)) {
    let k = shape.1;
    for_each_quad(k, |row, column| {
        let len = quad_len(shape, row, column);
        if len == 0 {
            return;
        }
        let target = values.wrapping_add(row as usize * k as usize + column as usize);
        // SAFETY: only the `len` existing elements are written; quads are aligned if rows consist of whole quads.
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
/// As [`pack`], for the padded rows of `target`.
#[inline(always)]
unsafe fn convert(source: Packed, target: Packed) {
    for_each_quad(target.k, |row, column| {
        // SAFETY: only quads inside `source` are read; its padding is weight 0, as in `target`.
        unsafe {
            let codes = if row < source.n && column < source.k {
                source.load(row, column)
            } else {
                ZEROS
            };
            target.store(row, column, codes);
        }
    });
}

/// Unpacks this block's rows and multiplies them by their scales.
///
/// # Safety
/// As [`pack`].
#[inline(always)]
unsafe fn dequantize(packed: Packed, scale: *const f32, output: Floats) {
    let k = output.columns();
    for_each_quad(k, |row, column| {
        let len = quad_len((packed.n, k), row, column);
        if len == 0 {
            return;
        }
        // SAFETY: the quad's row exists and has a scale.
        unsafe {
            let quad = codes_to_values(packed.load(row, column));
            let scale = *scale.add(row as usize);
            let floats = core::array::from_fn(|i| f32::from((quad >> (8 * i)) as i8) * scale);
            output.store_quad(row, column, len, &floats);
        }
    });
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
    // SAFETY: the host launches it on buffers as the module describes.
    unsafe { dequantize(packed, scale, Floats::new(output, dtype, k)) }
}

/// Packs ternary int8 values; sets `invalid` to 1 if a value is not ternary. See the module.
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
    // SAFETY: the host launches it on buffers as the module describes.
    unsafe { pack(values, packed, invalid, (n, k)) }
}

/// Unpacks packed weights to int8 values; see the module.
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
    // SAFETY: the host launches it on buffers as the module describes.
    unsafe { unpack(packed, values, (n, k)) }
}

/// Converts packed weights to another layout. Sizes are padded as each layout requires. See the module.
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
    // SAFETY: the host launches it on buffers as the module describes.
    unsafe { convert(source, target) }
}
