//! `f16` and `bf16` arithmetic.
//!
//! Every operand is exact in `f64`. Sums are rounded to odd there and once more to the result, which is then the
//! correctly rounded one.

use super::float::{add_odd, approximate_f64};
use crate::isa::{FloatMode, FloatOp, HalfType};

/// The NaN that 16-bit instructions produce.
pub(crate) const NAN: u16 = 0x7fff;

/// The number that 16 bits stand for.
#[inline(always)]
pub(crate) fn value(bits: u16, ty: HalfType) -> f32 {
    match ty {
        HalfType::F16 => half::f16::from_bits(bits).to_f32(),
        HalfType::BF16 => half::bf16::from_bits(bits).to_f32(),
    }
}

/// Rounds an `f64` to `f32` to odd.
pub(crate) fn narrow_odd(x: f64) -> f32 {
    let nearest = x as f32;
    let bits = nearest.to_bits();
    let back = f64::from(nearest);
    if back == x || x.is_nan() || bits & 1 != 0 {
        nearest
    } else if back.abs() > x.abs() {
        f32::from_bits(bits - 1)
    } else {
        f32::from_bits(bits + 1)
    }
}

/// Rounds to nearest even; NaN becomes canonical.
#[inline(always)]
pub(crate) fn round(x: f32, ty: HalfType) -> u16 {
    if x.is_nan() {
        return NAN;
    }
    match ty {
        HalfType::F16 => half::f16::from_f32(x).to_bits(),
        HalfType::BF16 => half::bf16::from_f32(x).to_bits(),
    }
}

/// `.ftz`: below the smallest normal number, `0x0400` or `0x0080`.
pub(crate) fn flush(bits: u16, ty: HalfType, ftz: bool) -> u16 {
    let smallest = match ty {
        HalfType::F16 => 0x0400,
        HalfType::BF16 => 0x0080,
    };
    if ftz && bits & 0x7fff < smallest {
        bits & 0x8000
    } else {
        bits
    }
}

fn is_nan(bits: u16, ty: HalfType) -> bool {
    value(bits, ty).is_nan()
}

/// One instruction on one 16-bit lane.
pub(crate) fn op(op: FloatOp, ty: HalfType, mode: FloatMode, a: u16, b: u16, c: u16) -> u16 {
    let [a, b, c] = [a, b, c].map(|bits| flush(bits, ty, mode.ftz));
    let [x, y, z] = [a, b, c].map(|bits| f64::from(value(bits, ty)));
    let result = match op {
        FloatOp::Neg => return a ^ 0x8000,
        FloatOp::Abs => return a & 0x7fff,
        FloatOp::Min | FloatOp::Max => return min_max(ty, mode, a, b, op == FloatOp::Max),
        FloatOp::Add => add_odd(x, y),
        FloatOp::Sub => add_odd(x, -y),
        FloatOp::Mul => x * y,
        FloatOp::Fma => add_odd(x * y, z),
        op => approximate_f64(op, x),
    };
    let rounded = flush(round(narrow_odd(result), ty), ty, mode.ftz);
    let one = round(1.0, ty);
    let negative = rounded & 0x8000 != 0;
    if mode.sat {
        return if is_nan(rounded, ty) || negative {
            0
        } else {
            rounded.min(one)
        };
    }
    if mode.relu && negative {
        return 0;
    }
    rounded
}

fn min_max(ty: HalfType, mode: FloatMode, a: u16, b: u16, max: bool) -> u16 {
    let sign = (a ^ b) & 0x8000;
    let (a, b) = if mode.xorsign_abs {
        (a & 0x7fff, b & 0x7fff)
    } else {
        (a, b)
    };
    let result = match (is_nan(a, ty), is_nan(b, ty)) {
        (false, false) => {
            let (x, y) = (value(a, ty), value(b, ty));
            if x == y {
                if max { a & b } else { a | b }
            } else if (x < y) != max {
                a
            } else {
                b
            }
        }
        (true, false) if !mode.nan => b,
        (false, true) if !mode.nan => a,
        _ => return NAN,
    };
    if mode.xorsign_abs {
        (result & 0x7fff) | sign
    } else {
        result
    }
}
