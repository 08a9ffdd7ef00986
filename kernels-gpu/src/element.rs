//! The float types that kernels read and write: `f32`, `f16`, `bf16`. Arithmetic is always f32.

use cuda_std::float;
use cuda_std::ptr::{U32x2, U32x4};
use half::{bf16, f16};

/// Elements that a thread loads or stores at a time: 32 bytes of f32, 16 of f16 or bf16.
pub const CHUNK: usize = 8;
/// Elements that a thread loads or stores at a time where four weights share a byte: 16 bytes of f32, 8 of f16 or bf16.
pub const QUAD: usize = 4;

/// A float whose type is known only at run time, behind a pointer. If it is read or written once per row, branching on the type costs nothing,
/// and a kernel for each type would triple the code to compile.
#[repr(transparent)]
pub struct AnyFloat(u8);

/// The type of an [`AnyFloat`].
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

/// A chunk as it is in memory; of two-byte elements, the first half.
pub type Words = [u32; CHUNK];

/// A float type in device memory.
pub trait Element: Copy {
    /// Reads `CHUNK` consecutive elements as they are in memory, without waiting for them to arrive.
    ///
    /// # Safety
    /// `source` is valid for `CHUNK` elements and 16-byte aligned.
    unsafe fn fetch_chunk(source: *const Self) -> Words;

    /// Widens elements that were fetched, exactly.
    fn widen_chunk(words: Words) -> [f32; CHUNK];

    /// Reads `CHUNK` consecutive elements and widens them, exactly.
    ///
    /// # Safety
    /// As [`Element::fetch_chunk`].
    #[inline(always)]
    unsafe fn load_chunk(source: *const Self) -> [f32; CHUNK] {
        // SAFETY: the caller's contract.
        Self::widen_chunk(unsafe { Self::fetch_chunk(source) })
    }

    /// Rounds `CHUNK` values and writes them.
    ///
    /// # Safety
    /// `target` is valid for `CHUNK` elements and 16-byte aligned.
    unsafe fn store_chunk(target: *mut Self, values: &[f32; CHUNK]);

    /// Reads `QUAD` consecutive elements and widens them, exactly.
    ///
    /// # Safety
    /// `source` is valid for `QUAD` elements and aligned to their total size.
    unsafe fn load_quad(source: *const Self) -> [f32; QUAD];

    /// Rounds `QUAD` values and writes them.
    ///
    /// # Safety
    /// `target` is valid for `QUAD` elements and aligned to their total size.
    unsafe fn store_quad(target: *mut Self, values: &[f32; QUAD]);

    /// Converts to f32, exactly.
    fn widen(self) -> f32;

    /// Rounds to nearest, ties to even.
    fn round(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn fetch_chunk(source: *const f32) -> Words {
        // SAFETY: the caller's contract; the second half starts 16 bytes after the first.
        let [U32x4(low), U32x4(high)] = unsafe { [*source.cast(), *source.add(QUAD).cast()] };
        core::array::from_fn(|i| if i < QUAD { low[i] } else { high[i - QUAD] })
    }

    #[inline(always)]
    fn widen_chunk(words: Words) -> [f32; CHUNK] {
        words.map(f32::from_bits)
    }

    #[inline(always)]
    unsafe fn store_chunk(target: *mut f32, values: &[f32; CHUNK]) {
        let [a, b, c, d, rest @ ..] = *values;
        // SAFETY: the caller's contract; the second half starts 16 bytes after the first.
        unsafe {
            f32::store_quad(target, &[a, b, c, d]);
            f32::store_quad(target.add(QUAD), &rest);
        }
    }

    #[inline(always)]
    unsafe fn load_quad(source: *const f32) -> [f32; QUAD] {
        // SAFETY: the caller's contract.
        let U32x4(words) = unsafe { *source.cast() };
        words.map(f32::from_bits)
    }

    #[inline(always)]
    unsafe fn store_quad(target: *mut f32, values: &[f32; QUAD]) {
        // SAFETY: the caller's contract.
        unsafe { *target.cast() = U32x4(values.map(f32::to_bits)) };
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn round(value: f32) -> f32 {
        value
    }
}

macro_rules! impl_half_precision {
    ($type:ty, $to_f32:path, $from_f32:path) => {
        impl Element for $type {
            #[inline(always)]
            unsafe fn fetch_chunk(source: *const $type) -> Words {
                // SAFETY: the caller's contract.
                let U32x4([a, b, c, d]) = unsafe { *source.cast() };
                [a, b, c, d, 0, 0, 0, 0]
            }

            #[inline(always)]
            fn widen_chunk(words: Words) -> [f32; CHUNK] {
                core::array::from_fn(|i| $to_f32((words[i / 2] >> (16 * (i % 2))) as u16))
            }

            #[inline(always)]
            unsafe fn store_chunk(target: *mut $type, values: &[f32; CHUNK]) {
                let words = core::array::from_fn(|i| Self::pair(values[2 * i], values[2 * i + 1]));
                // SAFETY: the caller's contract.
                unsafe { *target.cast() = U32x4(words) };
            }

            #[inline(always)]
            unsafe fn load_quad(source: *const $type) -> [f32; QUAD] {
                // SAFETY: the caller's contract.
                let U32x2(words) = unsafe { *source.cast() };
                core::array::from_fn(|i| $to_f32((words[i / 2] >> (16 * (i % 2))) as u16))
            }

            #[inline(always)]
            unsafe fn store_quad(target: *mut $type, values: &[f32; QUAD]) {
                let words = core::array::from_fn(|i| Self::pair(values[2 * i], values[2 * i + 1]));
                // SAFETY: the caller's contract.
                unsafe { *target.cast() = U32x2(words) };
            }

            #[inline(always)]
            fn widen(self) -> f32 {
                $to_f32(self.to_bits())
            }

            #[inline(always)]
            fn round(value: f32) -> $type {
                <$type>::from_bits($from_f32(value))
            }
        }

        impl Pair for $type {
            #[inline(always)]
            fn pair(low: f32, high: f32) -> u32 {
                u32::from($from_f32(low)) | u32::from($from_f32(high)) << 16
            }
        }
    };
}

/// A half-precision type, two values of which fill a word.
trait Pair {
    /// Rounds two values into a word.
    fn pair(low: f32, high: f32) -> u32;
}

impl_half_precision!(f16, float::f16_to_f32, float::f32_to_f16);
impl_half_precision!(bf16, float::bf16_to_f32, float::f32_to_bf16);

/// Evaluates an expression with `$type` as the float type that `$dtype` stands for, which is the same for all threads.
macro_rules! with_type {
    ($dtype:expr, $type:ident => $body:expr) => {
        if $dtype == Dtype::F32 as u32 {
            type $type = f32;
            $body
        } else if $dtype == Dtype::F16 as u32 {
            type $type = f16;
            $body
        } else {
            type $type = bf16;
            $body
        }
    };
}

impl AnyFloat {
    /// Reads element `index` of an array of type `dtype`, exactly.
    ///
    /// # Safety
    /// The element exists.
    #[inline(always)]
    pub unsafe fn read(array: *const Self, dtype: u32, index: usize) -> f32 {
        // SAFETY: the caller's contract.
        with_type!(dtype, T => unsafe { (*array.cast::<T>().add(index)).widen() })
    }

    /// Writes element `index` of an array of type `dtype`, rounded once.
    ///
    /// # Safety
    /// The element exists.
    #[inline(always)]
    pub unsafe fn write(array: *mut Self, dtype: u32, index: usize, value: f32) {
        // SAFETY: the caller's contract.
        with_type!(dtype, T => unsafe { *array.cast::<T>().add(index) = T::round(value) })
    }
}

/// A matrix of floats whose type is known only at run time. Its kernels are bound by memory traffic, so branching on the type
/// costs nothing, and a kernel for each type would triple the code to compile.
#[derive(Clone, Copy)]
pub struct Floats {
    start: *mut AnyFloat,
    dtype: u32,
    columns: u32,
}

impl Floats {
    /// A matrix with rows of `columns` elements from `start` on; a null `start` stands for an absent matrix.
    #[inline(always)]
    pub fn new(start: *const AnyFloat, dtype: u32, columns: u32) -> Self {
        Self {
            start: start.cast_mut(),
            dtype,
            columns,
        }
    }

    /// Whether the matrix is absent.
    #[inline(always)]
    pub fn is_null(&self) -> bool {
        self.start.is_null()
    }

    /// Elements per row.
    #[inline(always)]
    pub fn columns(&self) -> u32 {
        self.columns
    }

    /// `value`, rounded to the matrix's type.
    #[inline(always)]
    pub fn round(&self, value: f32) -> f32 {
        with_type!(self.dtype, T => T::round(value).widen())
    }

    /// Pointer to element `(row, column)`.
    #[inline(always)]
    fn at<T>(&self, row: usize, column: usize) -> *mut T {
        self.start
            .cast::<T>()
            .wrapping_add(row * self.columns as usize + column)
    }

    /// Chunk `chunk` of a row; elements past its end read as 0.
    ///
    /// `WHOLE` promises that rows consist of whole chunks, which are then always read with vector loads.
    ///
    /// # Safety
    /// The row exists, and the matrix is 16-byte aligned.
    #[inline(always)]
    pub unsafe fn load<const WHOLE: bool>(&self, row: usize, chunk: u32) -> [f32; CHUNK] {
        let first = chunk * CHUNK as u32;
        let len = self.columns.saturating_sub(first);
        if len == 0 {
            return [0.0; CHUNK];
        }
        with_type!(self.dtype, T => {
            let source: *const T = self.at(row, first as usize);
            // SAFETY: only elements of the row are accessed, and with a vector load only where it is aligned.
            unsafe {
                if WHOLE || len >= CHUNK as u32 && source.addr().is_multiple_of(16) {
                    T::load_chunk(source)
                } else {
                    core::array::from_fn(|i| {
                        if (i as u32) < len {
                            (*source.add(i)).widen()
                        } else {
                            0.0
                        }
                    })
                }
            }
        })
    }

    /// Chunk `chunk` of a row of whole chunks, for [`Floats::widen`]; zeros past its end.
    ///
    /// # Safety
    /// As [`Floats::load`]; rows consist of whole chunks.
    #[inline(always)]
    pub unsafe fn fetch(&self, row: usize, chunk: u32) -> Words {
        let first = chunk * CHUNK as u32;
        if first >= self.columns {
            return [0; CHUNK];
        }
        // SAFETY: the chunk is inside the row.
        with_type!(self.dtype, T => unsafe { T::fetch_chunk(self.at(row, first as usize)) })
    }

    /// The values of a chunk that was fetched.
    #[inline(always)]
    pub fn widen(&self, words: Words) -> [f32; CHUNK] {
        with_type!(self.dtype, T => T::widen_chunk(words))
    }

    /// Rounds and writes chunk `chunk` of a row; values past its end are dropped.
    ///
    /// # Safety
    /// As [`Floats::load`]; the matrix may be written, and no other thread accesses this chunk.
    #[inline(always)]
    pub unsafe fn store<const WHOLE: bool>(&self, row: usize, chunk: u32, values: &[f32; CHUNK]) {
        let first = chunk * CHUNK as u32;
        let len = self.columns.saturating_sub(first);
        if len == 0 {
            return;
        }
        with_type!(self.dtype, T => {
            let target: *mut T = self.at(row, first as usize);
            // SAFETY: as in `load`.
            unsafe {
                if WHOLE || len >= CHUNK as u32 && target.addr().is_multiple_of(16) {
                    T::store_chunk(target, values);
                } else {
                    for i in 0..CHUNK {
                        if (i as u32) < len {
                            *target.add(i) = T::round(values[i]);
                        }
                    }
                }
            }
        })
    }

    /// Up to `QUAD` of the `len` elements from `(row, column)` on, padded with zeros. `column` is a multiple of `QUAD`.
    ///
    /// # Safety
    /// The row has `len` elements from `column` on, and the matrix is 16-byte aligned.
    #[inline(always)]
    pub unsafe fn load_quad(&self, row: u32, column: u32, len: u32) -> [f32; QUAD] {
        with_type!(self.dtype, T => {
            let source: *const T = self.at(row as usize, column as usize);
            // SAFETY: only the `len` elements are accessed; quads are aligned if rows consist of whole quads.
            unsafe {
                if len >= QUAD as u32 && self.columns.is_multiple_of(QUAD as u32) {
                    T::load_quad(source)
                } else {
                    core::array::from_fn(|i| {
                        if (i as u32) < len {
                            (*source.add(i)).widen()
                        } else {
                            0.0
                        }
                    })
                }
            }
        })
    }

    /// Rounds the first `len` values, at most `QUAD`, and writes them from `(row, column)` on. `column` is a multiple of `QUAD`.
    ///
    /// # Safety
    /// As [`Floats::load_quad`]; the matrix may be written, and no other thread accesses these elements.
    #[inline(always)]
    pub unsafe fn store_quad(&self, row: u32, column: u32, len: u32, values: &[f32; QUAD]) {
        with_type!(self.dtype, T => {
            let target: *mut T = self.at(row as usize, column as usize);
            // SAFETY: as in `load_quad`.
            unsafe {
                if len >= QUAD as u32 && self.columns.is_multiple_of(QUAD as u32) {
                    T::store_quad(target, values);
                } else {
                    for i in 0..QUAD {
                        if (i as u32) < len {
                            *target.add(i) = T::round(values[i]);
                        }
                    }
                }
            }
        })
    }

    /// `N` elements of a row: `column`, `column + stride`, ...
    ///
    /// # Safety
    /// These elements exist.
    #[inline(always)]
    pub unsafe fn read_strided<const N: usize>(
        &self,
        row: usize,
        column: usize,
        stride: usize,
    ) -> [f32; N] {
        with_type!(self.dtype, T => {
            let first: *const T = self.at(row, column);
            // SAFETY: the caller's contract.
            core::array::from_fn(|i| unsafe { (*first.add(i * stride)).widen() })
        })
    }
}
