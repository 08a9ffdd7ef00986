//! Matrix products by a warp on tensor cores: `D = A B + C` with A of unsigned bytes, B of signed bytes, C and D of i32.
//!
//! Each lane holds a part of each matrix, its *fragment*. With `g = lane / 4` and `t = lane % 4`, byte `i` of a word of A or B and
//! element `i` of C or D are
//!
//! | fragment | row | column |
//! |---|---|---|
//! | A, word 0 (2) | `g` | `4t + i` (`+ 16`) |
//! | A, word 1 (3) of [`mma_m16n8k32_u8_s8`] | `g + 8` | `4t + i` (`+ 16`) |
//! | B, word 0 (1) | `4t + i` (`+ 16`) | `g` |
//! | C, elements 0, 1 | `g` | `2t + i` |
//! | C, elements 2, 3 | `g + 8` | `2t + i - 2` |
//!
//! Sums wrap around modulo 2^32.

use crate::gpu_only;
#[cfg(target_arch = "nvptx64")]
use crate::llvm;

/// Multiplies 8 x 16 by 16 x 8. A and B have one word per lane, C and D two elements. PTX: `mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32`; sm_75.
///
/// # Safety
/// All 32 lanes of the warp call it together.
#[gpu_only]
pub unsafe fn mma_m8n8k16_u8_s8(a: u32, b: u32, [c0, c1]: [i32; 2]) -> [i32; 2] {
    // SAFETY: the caller's promise.
    let llvm::Two(d0, d1) = unsafe { llvm::mma_m8n8k16_u8_s8(a as i32, b as i32, c0, c1) };
    [d0, d1]
}

/// Multiplies 16 x 32 by 32 x 8. PTX: `mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32`; sm_80.
///
/// # Safety
/// As [`mma_m8n8k16_u8_s8`].
#[cfg(any(target_feature = "sm_80", not(target_arch = "nvptx64")))]
#[gpu_only]
pub unsafe fn mma_m16n8k32_u8_s8(a: [u32; 4], b: [u32; 2], c: [i32; 4]) -> [i32; 4] {
    let ([a0, a1, a2, a3], [b0, b1]) = (a.map(|word| word as i32), b.map(|word| word as i32));
    let [c0, c1, c2, c3] = c;
    // SAFETY: the caller's promise.
    let llvm::Four(d0, d1, d2, d3) =
        unsafe { llvm::mma_m16n8k32_u8_s8(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3) };
    [d0, d1, d2, d3]
}
