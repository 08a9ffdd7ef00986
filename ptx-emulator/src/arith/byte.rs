//! 8-bit floats.

use super::half;
use crate::isa::{ByteFloat, HalfType, Rounding, Type};

/// Largest number of a type, as bits.
fn largest(ty: ByteFloat) -> u8 {
    match ty {
        ByteFloat::E4M3 => 0x7e,
        ByteFloat::E5M2 => 0x7b,
    }
}

/// Rounds to nearest even; what is too large becomes the largest number, NaN the type's `0x7f`.
pub(crate) fn round(x: f32, ty: ByteFloat, relu: bool) -> u8 {
    if x.is_nan() {
        return 0x7f;
    }
    if relu && x.is_sign_negative() {
        return 0;
    }
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let x = f64::from(x.abs());
    // The smallest exponent of a normal number, and the bits of the mantissa.
    let (least, mantissa) = match ty {
        ByteFloat::E4M3 => (-6, 3),
        ByteFloat::E5M2 => (-14, 2),
    };
    let exponent = if x == 0.0 {
        least
    } else {
        ((x.to_bits() >> 52) as i32 - 1023).max(least)
    };
    // A multiple of the last place: exact, as both are within the range of `f64`.
    let units = (x * 2f64.powi(mantissa - exponent)).round_ties_even();
    let bits = units + f64::from((exponent - least) << mantissa);
    sign | (bits.min(f64::from(largest(ty))) as u8)
}

/// The `f16` of the same value; NaN becomes canonical.
pub(crate) fn widen(bits: u8, ty: ByteFloat, relu: bool) -> u16 {
    let magnitude = bits & 0x7f;
    let value = match ty {
        ByteFloat::E5M2 => {
            let bits = u16::from(magnitude) << 8;
            f64::from(half::value(bits, HalfType::F16))
        }
        ByteFloat::E4M3 if magnitude == 0x7f => f64::NAN,
        ByteFloat::E4M3 => {
            let (exponent, mantissa) = (i32::from(magnitude >> 3), f64::from(magnitude & 7));
            if exponent == 0 {
                mantissa * 2f64.powi(-9)
            } else {
                (8.0 + mantissa) * 2f64.powi(exponent - 10)
            }
        }
    };
    if value.is_nan() {
        return half::NAN;
    }
    if bits >= 0x80 && relu {
        return 0;
    }
    let magnitude = super::soft::round_float(value, Type::F16, Rounding::Nearest) as u16;
    u16::from(bits & 0x80) << 8 | magnitude
}
