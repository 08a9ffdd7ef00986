//! One-instruction integer and conversion functions.

use crate::gpu_only;
#[cfg(target_arch = "nvptx64")]
use crate::llvm;
#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

/// `c` plus the dot product of the four signed bytes of `a` with the four signed bytes of `b`, modulo 2^32.
/// PTX: `dp4a.s32.s32`; sm_61.
#[gpu_only]
pub fn dp4a(a: i32, b: i32, c: i32) -> i32 {
    llvm::idp4a_s_s(a, b, c)
}

/// `c` plus the dot product of the four signed bytes of `a` with the four unsigned bytes of `b`, modulo 2^32.
/// PTX: `dp4a.s32.u32`; sm_61.
#[gpu_only]
pub fn dp4a_s8u8(a: i32, b: u32, c: i32) -> i32 {
    llvm::idp4a_s_u(a, b as i32, c)
}

/// `c` plus the dot product of the four unsigned bytes of `a` with the four signed bytes of `b`, modulo 2^32.
/// PTX: `dp4a.u32.s32`; sm_61.
#[gpu_only]
pub fn dp4a_u8s8(a: u32, b: i32, c: i32) -> i32 {
    llvm::idp4a_u_s(a as i32, b, c)
}

/// `c` plus the dot product of the four unsigned bytes of `a` with the four unsigned bytes of `b`, modulo 2^32.
/// PTX: `dp4a.u32.u32`; sm_61.
#[gpu_only]
pub fn dp4a_u8u8(a: u32, b: u32, c: u32) -> u32 {
    llvm::idp4a_u_u(a as i32, b as i32, c as i32) as u32
}

/// Any bitwise function of three words: bit `i` of the result is bit `(a_i << 2) | (b_i << 1) | c_i` of `LUT`.
/// `LUT` is that function applied to `0xf0`, `0xcc` and `0xaa`. PTX: `lop3.b32`; sm_50.
#[gpu_only]
pub fn lop3<const LUT: u8>(a: u32, b: u32, c: u32) -> u32 {
    let d: u32;
    // SAFETY: register arithmetic.
    unsafe {
        asm!("lop3.b32 {}, {}, {}, {}, {};", out(reg32) d, in(reg32) a, in(reg32) b, in(reg32) c, const LUT as u32,
            options(pure, nomem, nostack, preserves_flags));
    }
    d
}

/// Picks four of the eight bytes of `b:a` (`a` is bytes 0 to 3): byte `i` of the result is the byte that
/// nibble `i` of `selector` selects; if bit 3 of the nibble is set, eight copies of that byte's sign bit.
/// CUDA's `__byte_perm`. PTX: `prmt.b32`; any architecture.
#[gpu_only]
pub fn byte_perm(a: u32, b: u32, selector: u32) -> u32 {
    llvm::prmt(a as i32, b as i32, selector as i32) as u32
}

/// The `len` bits of `value` from bit `start` up, zero-extended; `start` and `len` modulo 256.
/// PTX: `bfe.u32`; any architecture.
#[gpu_only]
pub fn bfe_u32(value: u32, start: u32, len: u32) -> u32 {
    let d: u32;
    // SAFETY: register arithmetic.
    unsafe {
        asm!("bfe.u32 {}, {}, {}, {};", out(reg32) d, in(reg32) value, in(reg32) start, in(reg32) len,
            options(pure, nomem, nostack, preserves_flags));
    }
    d
}

/// The `len` bits of `value` from bit `start` up, sign-extended; `start` and `len` modulo 256.
/// PTX: `bfe.s32`; any architecture.
#[gpu_only]
pub fn bfe_i32(value: i32, start: u32, len: u32) -> i32 {
    let d: i32;
    // SAFETY: register arithmetic.
    unsafe {
        asm!("bfe.s32 {}, {}, {}, {};", out(reg32) d, in(reg32) value, in(reg32) start, in(reg32) len,
            options(pure, nomem, nostack, preserves_flags));
    }
    d
}

/// `x` rounded to the nearest integer, half to even, clamped to the range of `i32`; 0 for NaN. CUDA's
/// `__float2int_rn`. PTX: `cvt.rni.s32.f32`; any architecture.
#[gpu_only]
pub fn float_to_int_rn(x: f32) -> i32 {
    let d: i32;
    // SAFETY: register arithmetic.
    unsafe {
        asm!("cvt.rni.s32.f32 {}, {};", out(reg32) d, in(reg32) x, options(pure, nomem, nostack, preserves_flags));
    }
    d
}

/// `x` rounded to the nearest integer, half to even, clamped to -128..=127; 0 for NaN. Sign-extended.
/// PTX: `cvt.rni.sat.s8.f32`; any architecture.
#[gpu_only]
pub fn float_to_i8_rn_sat(x: f32) -> i32 {
    let d: i32;
    // SAFETY: register arithmetic.
    unsafe {
        asm!("cvt.rni.sat.s8.f32 {}, {};", out(reg32) d, in(reg32) x, options(pure, nomem, nostack, preserves_flags));
    }
    d
}

/// Two integers, each clamped to -128..=127, as bytes: `b` is byte 0 of the result, `a` is byte 1, and the low
/// half of `c` becomes bytes 2 and 3. Two calls pack four integers. PTX: `cvt.pack.sat.s8.s32.b32`; sm_72.
#[gpu_only]
pub fn pack_sat_i8(a: i32, b: i32, c: u32) -> u32 {
    let d: u32;
    // SAFETY: register arithmetic.
    unsafe {
        asm!("cvt.pack.sat.s8.s32.b32 {}, {}, {}, {};", out(reg32) d, in(reg32) a, in(reg32) b, in(reg32) c,
            options(pure, nomem, nostack, preserves_flags));
    }
    d
}
