//! The float types that kernels read and write: `f32`, `f16`, `bf16`. Arithmetic is always f32.

use cuda_std::float;
use cuda_std::ptr::U32x4;
use half::{bf16, f16};

/// Elements a thread moves at a time: 32 bytes of f32, 16 of f16 or bf16.
pub const CHUNK: usize = 8;

/// A float type in device memory.
pub trait Element: Copy {
    /// Reads `CHUNK` consecutive elements and widens them, exactly.
    ///
    /// # Safety
    /// `source` is valid for `CHUNK` elements and 16-byte aligned.
    unsafe fn load_chunk(source: *const Self) -> [f32; CHUNK];

    /// Widens, exactly.
    fn widen(self) -> f32;

    /// Rounds half to even.
    fn round(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load_chunk(source: *const f32) -> [f32; CHUNK] {
        let source = source.cast::<U32x4>();
        // SAFETY: the caller's contract; the second half starts 16 bytes on.
        let (U32x4(low), U32x4(high)) = unsafe { (*source, *source.add(1)) };
        core::array::from_fn(|i| f32::from_bits(if i < 4 { low[i] } else { high[i - 4] }))
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
            unsafe fn load_chunk(source: *const $type) -> [f32; CHUNK] {
                // SAFETY: the caller's contract.
                let U32x4(words) = unsafe { *source.cast() };
                core::array::from_fn(|i| $to_f32((words[i / 2] >> (16 * (i % 2))) as u16))
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
    };
}

impl_half_precision!(f16, float::f16_to_f32, float::f32_to_f16);
impl_half_precision!(bf16, float::bf16_to_f32, float::f32_to_bf16);
