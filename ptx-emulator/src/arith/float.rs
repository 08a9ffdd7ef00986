//! `f32` and `f64` arithmetic (PTX ISA, "Floating Point Instructions").
//!
//! Results are the ISA's, whatever the host: NaN results are canonical, and directed roundings, `.ftz` and `.sat` are
//! exact. The approximate functions (`ex2.approx` and its like) give the correctly rounded result, or one that differs
//! from it by the double rounding of an `f64` evaluation; hardware may differ within the error that the ISA states.

use super::soft;
use crate::isa::{FloatMode, FloatOp, FloatTest, Rounding};

/// The NaN that `f32` instructions produce.
pub(crate) const NAN_F32: u32 = 0x7fff_ffff;
/// The NaN that `f64` instructions produce here. The ISA leaves it open; this is what hardware gives for an invalid operation.
pub(crate) const NAN_F64: u64 = 0xfff8_0000_0000_0000;

/// `.ftz` of one operand or result.
#[inline(always)]
pub(crate) fn flush(x: f32, ftz: bool) -> f32 {
    if ftz && x.abs() < f32::MIN_POSITIVE {
        f32::from_bits(x.to_bits() & 0x8000_0000)
    } else {
        x
    }
}

#[inline(always)]
fn finish(x: f32, mode: FloatMode) -> f32 {
    let x = flush(x, mode.ftz);
    if mode.sat {
        // NaN becomes +0 as well.
        return if x > 0.0 { x.min(1.0) } else { 0.0 };
    }
    if x.is_nan() {
        return f32::from_bits(NAN_F32);
    }
    x
}

/// `a + b` in `f64`, rounded to odd: an inexact sum whose last bit is even moves to the neighbour on the side of the
/// exact sum. Rounding that to 51 bits or fewer, in any direction, then gives what the exact sum would give.
#[inline(always)]
pub(crate) fn add_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    // Knuth's two-sum: the exact error of the addition.
    let b_part = sum - a;
    let error = (a - (sum - b_part)) + (b - b_part);
    let bits = sum.to_bits();
    if error.abs() > 0.0 && bits & 1 == 0 && sum.is_finite() {
        let outward = (error > 0.0) == (sum > 0.0);
        f64::from_bits(if outward { bits + 1 } else { bits - 1 })
    } else {
        sum
    }
}

/// Rounds an `f64` to `f32` in any direction.
#[inline(always)]
pub(crate) fn narrow(x: f64, rounding: Rounding) -> f32 {
    let nearest = x as f32;
    if rounding == Rounding::Nearest {
        return nearest;
    }
    direct(nearest, f64::from(nearest) - x, rounding)
}

/// Moves a result that was rounded to nearest into another direction; `error` has the sign of result minus exact value.
#[inline(always)]
fn direct(nearest: f32, error: f64, rounding: Rounding) -> f32 {
    let down = match rounding {
        Rounding::Down => true,
        Rounding::Up => false,
        Rounding::Zero => nearest > 0.0 || (nearest == 0.0 && error < 0.0),
        Rounding::Nearest | Rounding::NearestAway => return nearest,
    };
    if down && error > 0.0 {
        nearest.next_down()
    } else if !down && error < 0.0 {
        nearest.next_up()
    } else {
        nearest
    }
}

/// The sign of an exact zero sum: negative when rounding down, unless both terms are positive zeros.
#[inline(always)]
fn zero_sum(sum: f64, a: f64, b: f64, rounding: Rounding) -> f64 {
    if rounding == Rounding::Down && sum == 0.0 && (a.is_sign_negative() || b.is_sign_negative()) {
        -0.0
    } else {
        sum
    }
}

#[inline(always)]
pub(crate) fn add(a: f32, b: f32, mode: FloatMode) -> f32 {
    let (a, b) = (flush(a, mode.ftz), flush(b, mode.ftz));
    let sum = if mode.rounding == Rounding::Nearest {
        a + b
    } else {
        let (a, b) = (f64::from(a), f64::from(b));
        narrow(zero_sum(add_odd(a, b), a, b, mode.rounding), mode.rounding)
    };
    finish(sum, mode)
}

#[inline(always)]
pub(crate) fn mul(a: f32, b: f32, mode: FloatMode) -> f32 {
    let (a, b) = (flush(a, mode.ftz), flush(b, mode.ftz));
    let product = if mode.rounding == Rounding::Nearest {
        a * b
    } else {
        narrow(f64::from(a) * f64::from(b), mode.rounding)
    };
    finish(product, mode)
}

#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32, mode: FloatMode) -> f32 {
    let (a, b, c) = (flush(a, mode.ftz), flush(b, mode.ftz), flush(c, mode.ftz));
    // The product of two 24-bit significands is exact in 53 bits.
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = zero_sum(add_odd(product, c), product, c, mode.rounding);
    finish(narrow(sum, mode.rounding), mode)
}

pub(crate) fn div(a: f32, b: f32, mode: FloatMode) -> f32 {
    let (a, b) = (flush(a, mode.ftz), flush(b, mode.ftz));
    let quotient = a / b;
    if mode.rounding == Rounding::Nearest || !b.is_finite() || !a.is_finite() || b == 0.0 {
        return finish(quotient, mode);
    }
    // quotient - a / b has the sign of (quotient * b - a) / b. The product is exact; infinity stays above all.
    let error = (f64::from(quotient) * f64::from(b) - f64::from(a)) * f64::from(b.signum());
    finish(direct(quotient, error, mode.rounding), mode)
}

/// `a * (1 / b)`: the reciprocal of what is beyond 2^126 is subnormal, and counts as zero.
pub(crate) fn div_approximate(a: f32, b: f32, mode: FloatMode) -> f32 {
    const LARGEST: f32 = 1.0 / f32::MIN_POSITIVE;
    if b.abs() > LARGEST {
        mul(a, 0f32.copysign(b), mode)
    } else {
        div(a, b, mode)
    }
}

pub(crate) fn sqrt(x: f32, mode: FloatMode) -> f32 {
    let x = flush(x, mode.ftz);
    let root = x.sqrt();
    if mode.rounding == Rounding::Nearest || !root.is_finite() {
        return finish(root, mode);
    }
    let error = f64::from(root) * f64::from(root) - f64::from(x);
    finish(direct(root, error, mode.rounding), mode)
}

#[inline(always)]
pub(crate) fn min_max(a: f32, b: f32, max: bool, mode: FloatMode) -> f32 {
    let (mut a, mut b) = (flush(a, mode.ftz), flush(b, mode.ftz));
    let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
    if mode.xorsign_abs {
        (a, b) = (a.abs(), b.abs());
    }
    let result = if a.is_nan() || b.is_nan() {
        match (mode.nan, a.is_nan(), b.is_nan()) {
            (false, true, false) => b,
            (false, false, true) => a,
            _ => return f32::from_bits(NAN_F32),
        }
    } else if (a < b) != max && a != b {
        a
    } else if a != b {
        b
    } else if max {
        // Equal numbers have the same bits, except the two zeros.
        f32::from_bits(a.to_bits() & b.to_bits())
    } else {
        f32::from_bits(a.to_bits() | b.to_bits())
    };
    if mode.xorsign_abs {
        f32::from_bits((result.to_bits() & 0x7fff_ffff) | sign)
    } else {
        result
    }
}

/// Functions of one operand that the ISA approximates.
pub(crate) fn approximate(op: FloatOp, x: f32, mode: FloatMode) -> f32 {
    let x = flush(x, mode.ftz);
    finish(approximate_f64(op, f64::from(x)) as f32, mode)
}

pub(crate) fn approximate_f64(op: FloatOp, x: f64) -> f64 {
    match op {
        FloatOp::Rcp => 1.0 / x,
        FloatOp::Sqrt => x.sqrt(),
        FloatOp::Rsqrt => 1.0 / x.sqrt(),
        FloatOp::Sin => x.sin(),
        FloatOp::Cos => x.cos(),
        FloatOp::Lg2 => x.log2(),
        FloatOp::Ex2 => x.exp2(),
        FloatOp::Tanh => x.tanh(),
        _ => f64::NAN,
    }
}

fn finish_f64(x: f64, mode: FloatMode) -> f64 {
    if mode.sat {
        return if x > 0.0 { x.min(1.0) } else { 0.0 };
    }
    if x.is_nan() {
        f64::from_bits(NAN_F64)
    } else {
        x
    }
}

/// One `f64` instruction.
pub(crate) fn op_f64(op: FloatOp, mode: FloatMode, a: f64, b: f64, c: f64) -> f64 {
    let nearest = mode.rounding == Rounding::Nearest;
    let result = match op {
        FloatOp::Add if nearest => a + b,
        FloatOp::Add => soft::add(a, b, mode.rounding),
        FloatOp::Sub if nearest => a - b,
        FloatOp::Sub => soft::add(a, -b, mode.rounding),
        FloatOp::Mul if nearest => a * b,
        FloatOp::Mul => soft::mul(a, b, mode.rounding),
        FloatOp::Fma if nearest => a.mul_add(b, c),
        FloatOp::Fma => soft::fma(a, b, c, mode.rounding),
        FloatOp::Div if nearest => a / b,
        FloatOp::Div => soft::div(a, b, mode.rounding),
        FloatOp::Rcp if mode.ftz => return upper_half(1.0 / flush_f64(a)),
        FloatOp::Rcp if nearest => 1.0 / a,
        FloatOp::Rcp => soft::div(1.0, a, mode.rounding),
        FloatOp::Rsqrt if mode.ftz => return upper_half(1.0 / flush_f64(a).sqrt()),
        FloatOp::Sqrt => return sqrt_f64(a, mode),
        FloatOp::Min | FloatOp::Max => return min_max_f64(a, b, op == FloatOp::Max),
        FloatOp::Neg => return -a,
        FloatOp::Abs => return a.abs(),
        FloatOp::Copysign => return b.copysign(a),
        op => approximate_f64(op, a),
    };
    finish_f64(result, mode)
}

fn flush_f64(x: f64) -> f64 {
    if x.abs() < f64::MIN_POSITIVE {
        f64::from_bits(x.to_bits() & 1 << 63)
    } else {
        x
    }
}

/// `rcp.approx.ftz.f64` and `rsqrt.approx.ftz.f64` give 20 bits of mantissa and 32 zero bits, of NaN too.
fn upper_half(x: f64) -> f64 {
    let x = flush_f64(x);
    if x.is_nan() {
        return f64::from_bits(0x7fff_ffff_0000_0000);
    }
    f64::from_bits(x.to_bits() & 0xffff_ffff_0000_0000)
}

fn sqrt_f64(x: f64, mode: FloatMode) -> f64 {
    let root = x.sqrt();
    if !root.is_finite() || root == 0.0 {
        return finish_f64(root, mode);
    }
    // The residual of a correctly rounded root is exact where it does not underflow; scale so that it cannot.
    let (scaled_root, scaled_x) = if x < 1e-200 {
        (root * 2f64.powi(300), x * 2f64.powi(300) * 2f64.powi(300))
    } else {
        (root, x)
    };
    let error = scaled_root.mul_add(scaled_root, -scaled_x);
    match mode.rounding {
        Rounding::Up if error < 0.0 => root.next_up(),
        Rounding::Down | Rounding::Zero if error > 0.0 => root.next_down(),
        _ => root,
    }
}

fn min_max_f64(a: f64, b: f64, max: bool) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => f64::from_bits(NAN_F64),
        (true, false) => b,
        (false, true) => a,
        (false, false) if a == b => f64::from_bits(if max {
            a.to_bits() & b.to_bits()
        } else {
            a.to_bits() | b.to_bits()
        }),
        (false, false) => {
            if (a < b) != max {
                a
            } else {
                b
            }
        }
    }
}

/// `testp`.
pub(crate) fn test(test: FloatTest, x: f64, subnormal: bool) -> bool {
    match test {
        FloatTest::Finite => x.is_finite(),
        FloatTest::Infinite => x.is_infinite(),
        FloatTest::Number => !x.is_nan(),
        FloatTest::NotANumber => x.is_nan(),
        FloatTest::Normal => x.is_finite() && x != 0.0 && !subnormal,
        FloatTest::Subnormal => subnormal,
    }
}
