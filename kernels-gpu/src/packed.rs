//! Packed ternary matrices `[n, k]`: from and to int8 values, from one layout to another, and to floats (`t * scale`).
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `packed`, `source`, `target` | as the layout says | 2-bit codes | 4 bytes |
//! | `values` | `[n, k]` | i8 | 4 bytes |
//! | `scale` | `[n]` | f32 | 4 bytes |
//! | `output` | `[n, k]` | f32, f16, bf16: `dtype` | 16 bytes |
//! | `invalid` | 1 | u32 | 4 bytes |
//!
//! Threads: a block takes 4 rows, a warp 32 columns of them at a time, a lane 4 columns (a *quad*) of one row: whole sectors of the
//! floats, of the int8 values and of `Tiled`. Bound by bytes.

use crate::block::{FULL_WARP, WARP};
use crate::element::{AnyFloat, Floats, QUAD};
use cuda_std::atomic::atomic_fetch_max_relaxed_u32_device;
use cuda_std::{kernel, thread, warp};

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

/// Four weights 0 as bytes 0, 1, 2, which stand for -1, 0, 1.
pub(crate) const ZEROS: u32 = 0x0101_0101;
const ONES: u32 = 0x0101_0101;
const SIGNS: u32 = 0x8080_8080;

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
pub(crate) struct Packed {
    pub bytes: *mut u8,
    pub layout: u32,
    /// Padded as the layout says.
    pub n: u32,
    pub k: u32,
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
pub(crate) fn for_each_quad(columns: u32, mut each: impl FnMut(u32, u32)) {
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
pub(crate) fn quad_len((n, k): (u32, u32), row: u32, column: u32) -> u32 {
    if row < n && column < k { k - column } else { 0 }
}

/// Packs this block's rows of int8 values.
///
/// # Safety
/// A block for [`ROWS`] rows of the padded matrix, on buffers as the module says.
#[inline(always)]
unsafe fn pack(values: *const i8, packed: Packed, invalid: *mut u32, shape: (u32, u32)) {
    let k = shape.1;
    for_each_quad(packed.k, |row, column| {
        let len = quad_len(shape, row, column);
        let source = values.wrapping_add(row as usize * k as usize + column as usize);
        // SAFETY: only the `len` elements that are there are read; quads are aligned where rows are whole quads. All lanes store
        // together. Several may find an invalid value, hence the atomic operation.
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
/// As [`pack`], for the padded rows of `target`.
#[inline(always)]
unsafe fn convert(source: Packed, target: Packed) {
    for_each_quad(target.k, |row, column| {
        // SAFETY: only quads that `source` has are read; what it has beyond the matrix is weight 0, as in `target`.
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

/// Unpacks this block's rows and multiplies them with their scales.
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
        // SAFETY: the quad's row is there, and has a scale.
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
