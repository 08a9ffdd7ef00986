//! Float functions that `core` does not have, and conversions of `f16` and `bf16` bits.

use crate::gpu_only;
#[cfg(target_arch = "nvptx64")]
use crate::llvm;
#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

#[cfg(target_arch = "nvptx64")]
macro_rules! unary_asm {
    ($ptx:literal, $x:expr) => {{
        let d: f32;
        // SAFETY: register arithmetic.
        unsafe {
            asm!(concat!($ptx, " {}, {};"), out(reg32) d, in(reg32) $x, options(pure, nomem, nostack, preserves_flags));
        }
        d
    }};
}

/// Float functions that have their own PTX instruction. Those called `_approx` have the error that the PTX ISA
/// states for the instruction; the others are correctly rounded. None flushes subnormal numbers to zero, unless
/// stated otherwise.
pub trait GpuFloat: Copy + sealed::Sealed {
    /// `self * b + c`, rounded once. PTX: `fma.rn.f32`; any architecture.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// The square root. PTX: `sqrt.rn.f32`; any architecture.
    fn sqrt(self) -> Self;
    /// The nearest integer, half to even. CUDA's `rintf`. PTX: `cvt.rni.f32.f32`; any architecture.
    fn rint(self) -> Self;
    /// The largest integer not above `self`. PTX: `cvt.rmi.f32.f32`; any architecture.
    fn floor(self) -> Self;
    /// The smallest integer not below `self`. PTX: `cvt.rpi.f32.f32`; any architecture.
    fn ceil(self) -> Self;
    /// The integer part: rounds towards zero. PTX: `cvt.rzi.f32.f32`; any architecture.
    fn trunc(self) -> Self;
    /// `1 / self`. PTX: `rcp.rn.f32`; any architecture.
    fn recip_rn(self) -> Self;
    /// `1 / self` within 1 ulp. PTX: `rcp.approx.f32`; any architecture.
    fn recip_approx(self) -> Self;
    /// `1 / sqrt(self)`, relative error at most 2^-22.9. PTX: `rsqrt.approx.f32`; any architecture.
    fn rsqrt_approx(self) -> Self;
    /// `2^self` within 2 ulp. PTX: `ex2.approx.f32`; any architecture.
    fn exp2_approx(self) -> Self;
    /// The base-2 logarithm, with an error of at most 2^-22. PTX: `lg2.approx.f32`; any architecture.
    fn log2_approx(self) -> Self;
    /// `tanh(self)`, relative error at most 2^-11. PTX: `tanh.approx.f32`; sm_75.
    fn tanh_approx(self) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
}

impl GpuFloat for f32 {
    #[gpu_only]
    fn mul_add(self, b: Self, c: Self) -> Self {
        llvm::fma_f32(self, b, c)
    }
    #[gpu_only]
    fn sqrt(self) -> Self {
        llvm::sqrt_f32(self)
    }
    #[gpu_only]
    fn rint(self) -> Self {
        llvm::rint_f32(self)
    }
    #[gpu_only]
    fn floor(self) -> Self {
        llvm::floor_f32(self)
    }
    #[gpu_only]
    fn ceil(self) -> Self {
        llvm::ceil_f32(self)
    }
    #[gpu_only]
    fn trunc(self) -> Self {
        llvm::trunc_f32(self)
    }
    #[gpu_only]
    fn recip_rn(self) -> Self {
        1.0 / self
    }
    #[gpu_only]
    fn recip_approx(self) -> Self {
        unary_asm!("rcp.approx.f32", self)
    }
    #[gpu_only]
    fn rsqrt_approx(self) -> Self {
        unary_asm!("rsqrt.approx.f32", self)
    }
    #[gpu_only]
    fn exp2_approx(self) -> Self {
        llvm::ex2_approx_f32(self)
    }
    #[gpu_only]
    fn log2_approx(self) -> Self {
        llvm::lg2_approx_f32(self)
    }
    #[gpu_only]
    fn tanh_approx(self) -> Self {
        unary_asm!("tanh.approx.f32", self)
    }
}

/// The value of an `f16` with these bits, exactly. PTX: `cvt.f32.f16`; sm_53.
#[gpu_only]
pub fn f16_to_f32(bits: u16) -> f32 {
    let d: f32;
    // SAFETY: register arithmetic.
    unsafe {
        asm!("cvt.f32.f16 {}, {};", out(reg32) d, in(reg16) bits, options(pure, nomem, nostack, preserves_flags));
    }
    d
}

/// The bits of the `f16` nearest to `x`, half to even; NaN gives `0x7fff`. PTX: `cvt.rn.f16.f32`; sm_53.
#[gpu_only]
pub fn f32_to_f16(x: f32) -> u16 {
    let d: u16;
    // SAFETY: register arithmetic.
    unsafe {
        asm!("cvt.rn.f16.f32 {}, {};", out(reg16) d, in(reg32) x, options(pure, nomem, nostack, preserves_flags));
    }
    d
}

/// The value of a `bf16` with these bits, exactly. PTX: `shl.b32`; any architecture.
#[gpu_only]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// The bits of the `bf16` nearest to `x`, half to even; NaN gives `0x7fff`. PTX: `cvt.rn.bf16.f32` from sm_80 on;
/// on older architectures, integer instructions with the same result.
#[gpu_only]
pub fn f32_to_bf16(x: f32) -> u16 {
    #[cfg(target_feature = "sm_80")]
    {
        let d: u16;
        // SAFETY: register arithmetic.
        unsafe {
            asm!("cvt.rn.bf16.f32 {}, {};", out(reg16) d, in(reg32) x, options(pure, nomem, nostack, preserves_flags));
        }
        d
    }
    #[cfg(not(target_feature = "sm_80"))]
    {
        let bits = x.to_bits();
        // Adding just under half of the dropped part, and one more where the kept part is odd, carries exactly when
        // round-to-nearest-even rounds up; the carry out of the mantissa is the next exponent, up to infinity.
        let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
        if x.is_nan() { 0x7fff } else { rounded }
    }
}

/// The bits of two `f16`, each rounded as by [`f32_to_f16`]: `low` in the low half. PTX: `cvt.rn.f16x2.f32` from sm_80
/// on; on older architectures, two conversions.
#[gpu_only]
pub fn f32_to_f16x2(low: f32, high: f32) -> u32 {
    #[cfg(target_feature = "sm_80")]
    {
        let d: u32;
        // SAFETY: register arithmetic.
        unsafe {
            asm!("cvt.rn.f16x2.f32 {}, {}, {};", out(reg32) d, in(reg32) high, in(reg32) low,
                options(pure, nomem, nostack, preserves_flags));
        }
        d
    }
    #[cfg(not(target_feature = "sm_80"))]
    {
        u32::from(f32_to_f16(high)) << 16 | u32::from(f32_to_f16(low))
    }
}

/// The bits of two `bf16`, each rounded as by [`f32_to_bf16`]: `low` in the low half. PTX: `cvt.rn.bf16x2.f32` from
/// sm_80 on; on older architectures, integer instructions.
#[gpu_only]
pub fn f32_to_bf16x2(low: f32, high: f32) -> u32 {
    #[cfg(target_feature = "sm_80")]
    {
        let d: u32;
        // SAFETY: register arithmetic.
        unsafe {
            asm!("cvt.rn.bf16x2.f32 {}, {}, {};", out(reg32) d, in(reg32) high, in(reg32) low,
                options(pure, nomem, nostack, preserves_flags));
        }
        d
    }
    #[cfg(not(target_feature = "sm_80"))]
    {
        u32::from(f32_to_bf16(high)) << 16 | u32::from(f32_to_bf16(low))
    }
}
