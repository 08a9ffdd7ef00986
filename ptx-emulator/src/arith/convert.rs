//! `cvt`.

use super::float::{NAN_F32, NAN_F64};
use super::half;
use super::soft;
use crate::isa::{Conversion, HalfType, Rounding, Type};

/// The NaN of `f32` as an `f64`: what conversions from narrower floats give.
const WIDENED_NAN: u64 = 0x7fff_ffff_e000_0000;

/// Converts one lane. The result is extended to the destination register.
pub(crate) fn convert(conversion: Conversion, bits: u64) -> u64 {
    let Conversion { to, from, .. } = conversion;
    let result = match (from.is_float(), to.is_float()) {
        (false, false) => int_to_int(conversion, bits),
        (false, true) => int_to_float(conversion, bits),
        (true, false) => float_to_int(conversion, bits),
        (true, true) => return float_to_float(conversion, bits),
    };
    match conversion.register_bits {
        64 => result,
        bits => result & ((1 << bits) - 1),
    }
}

/// The integer that the low bits of a register stand for.
fn int_value(bits: u64, ty: Type) -> i128 {
    let unused = 64 - u32::from(ty.bits());
    match ty {
        Type::S(_) => i128::from((bits << unused) as i64 >> unused),
        _ => i128::from(bits << unused >> unused),
    }
}

/// Smallest and largest value of an integer type.
fn range(ty: Type) -> (i128, i128) {
    let bits = u32::from(ty.bits());
    match ty {
        Type::S(_) => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
        _ => (0, (1i128 << bits) - 1),
    }
}

/// Cuts to the width of the type, and extends to 64 bits by its sign.
fn extend(value: i128, ty: Type) -> u64 {
    int_value(value as u64, ty) as u64
}

fn int_to_int(conversion: Conversion, bits: u64) -> u64 {
    let mut value = int_value(bits, conversion.from);
    if conversion.sat {
        let (low, high) = range(conversion.to);
        value = value.clamp(low, high);
    }
    extend(value, conversion.to)
}

fn int_to_float(conversion: Conversion, bits: u64) -> u64 {
    let value = int_value(bits, conversion.from);
    let result = match (conversion.to, conversion.rounding) {
        // `as` rounds to nearest even.
        (Type::F32, Rounding::Nearest) => u64::from((value as f32).to_bits()),
        (Type::F64, Rounding::Nearest) => (value as f64).to_bits(),
        (to, rounding) => soft::round_int(value, to, rounding),
    };
    if conversion.sat {
        saturate(result, conversion.to)
    } else {
        result
    }
}

/// Rounds to an integral value.
fn round_integral(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::NearestAway => x.round(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
    }
}

fn flush_f32(x: f64) -> f64 {
    if x.abs() < f64::from(f32::MIN_POSITIVE) {
        0.0f64.copysign(x)
    } else {
        x
    }
}

fn source(conversion: Conversion, bits: u64) -> f64 {
    let x = match conversion.from {
        Type::F16 => f64::from(half::value(bits as u16, HalfType::F16)),
        Type::BF16 => f64::from(half::value(bits as u16, HalfType::BF16)),
        from => soft::float_value(bits, from),
    };
    if conversion.ftz && conversion.from == Type::F32 {
        flush_f32(x)
    } else {
        x
    }
}

/// Out-of-range values are clamped. NaN gives 0, except where `f64` or a 64-bit integer takes part: there it gives the
/// highest bit alone.
fn float_to_int(conversion: Conversion, bits: u64) -> u64 {
    let Conversion { to, from, .. } = conversion;
    let x = source(conversion, bits);
    if x.is_nan() {
        let top_bit = from == Type::F64 || to.bits() == 64;
        return if top_bit {
            extend(1i128 << (to.bits() - 1), to)
        } else {
            0
        };
    }
    let (low, high) = range(to);
    // Casts from float to `i128` saturate, so infinities are clamped as well.
    let value = (round_integral(x, conversion.rounding) as i128).clamp(low, high);
    extend(value, to)
}

fn saturate(bits: u64, ty: Type) -> u64 {
    let x = soft::float_value(bits, ty);
    if x > 1.0 {
        soft::round_float(1.0, ty, Rounding::Nearest)
    } else if x > 0.0 {
        bits
    } else {
        0
    }
}

fn float_to_float(conversion: Conversion, bits: u64) -> u64 {
    let Conversion { to, rounding, .. } = conversion;
    let mut x = source(conversion, bits);
    if conversion.integral {
        x = round_integral(x, rounding);
    }
    if x.is_nan() {
        return match to {
            _ if conversion.sat => 0,
            Type::F16 | Type::BF16 => u64::from(half::NAN),
            Type::F64 if conversion.from == Type::F64 => NAN_F64,
            Type::F64 => WIDENED_NAN,
            _ => u64::from(NAN_F32),
        };
    }
    let mut result = match (to, rounding) {
        (Type::TF32, _) => tf32(x as f32, rounding),
        (Type::F32, Rounding::Nearest) => u64::from((x as f32).to_bits()),
        (Type::F16, Rounding::Nearest) => {
            u64::from(half::round(half::narrow_odd(x), HalfType::F16))
        }
        (Type::BF16, Rounding::Nearest) => {
            u64::from(half::round(half::narrow_odd(x), HalfType::BF16))
        }
        _ => soft::round_float(x, to, rounding),
    };
    if conversion.ftz && to == Type::F32 && result & 0x7f80_0000 == 0 {
        result &= 0x8000_0000;
    }
    if conversion.relu && x.is_sign_negative() {
        return 0;
    }
    if conversion.sat {
        return saturate(result, to);
    }
    if conversion.satfinite {
        let (infinity, largest) = match to {
            Type::F16 => (0x7c00, 0x7bff),
            Type::BF16 => (0x7f80, 0x7f7f),
            // Of `.tf32`, the mantissa has 10 bits.
            _ => (0x7f80_0000, 0x7f7f_e000),
        };
        let sign = result & (u64::from(to.bits() == 16) << 15 | u64::from(to.bits() == 32) << 31);
        if result & !sign == infinity {
            return sign | largest;
        }
    }
    result
}

/// Rounds to the 10 mantissa bits of `.tf32`, in the upper bits of an `f32`.
fn tf32(x: f32, rounding: Rounding) -> u64 {
    let bits = x.to_bits();
    if x.is_infinite() {
        return u64::from(bits);
    }
    let added = match rounding {
        Rounding::NearestAway => 0x1000,
        Rounding::Zero => 0,
        _ => 0x0fff + (bits >> 13 & 1),
    };
    u64::from((bits + added) & !0x1fff)
}

/// `cvt.pack.sat`: clamps to `bits` bits.
pub(crate) fn pack_element(value: u32, bits: u8, signed: bool) -> u32 {
    let ty = if signed { Type::S(bits) } else { Type::U(bits) };
    let (low, high) = range(ty);
    let clamped = i128::from(value as i32).clamp(low, high);
    clamped as u32 & (u32::MAX >> (32 - u32::from(bits)))
}
