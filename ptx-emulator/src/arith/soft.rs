//! Directed rounding and rare conversions, by arbitrary-precision arithmetic.
//!
//! The host computes to nearest only. What asks for another direction goes through `rustc_apfloat`, which is
//! slower and exact.

use rustc_apfloat::ieee::{BFloat, Double, Half, Single};
use rustc_apfloat::{Float, FloatConvert, Round};

use crate::isa::{Rounding, Type};

fn direction(rounding: Rounding) -> Round {
    match rounding {
        Rounding::Nearest => Round::NearestTiesToEven,
        Rounding::NearestAway => Round::NearestTiesToAway,
        Rounding::Zero => Round::TowardZero,
        Rounding::Down => Round::TowardNegative,
        Rounding::Up => Round::TowardPositive,
    }
}

fn double(value: f64) -> Double {
    Double::from_bits(u128::from(value.to_bits()))
}

fn to_f64(value: Double) -> f64 {
    f64::from_bits(value.to_bits() as u64)
}

pub(crate) fn add(a: f64, b: f64, rounding: Rounding) -> f64 {
    to_f64(double(a).add_r(double(b), direction(rounding)).value)
}

pub(crate) fn mul(a: f64, b: f64, rounding: Rounding) -> f64 {
    to_f64(double(a).mul_r(double(b), direction(rounding)).value)
}

pub(crate) fn div(a: f64, b: f64, rounding: Rounding) -> f64 {
    to_f64(double(a).div_r(double(b), direction(rounding)).value)
}

pub(crate) fn fma(a: f64, b: f64, c: f64, rounding: Rounding) -> f64 {
    to_f64(
        double(a)
            .mul_add_r(double(b), double(c), direction(rounding))
            .value,
    )
}

fn widen<T: Float + FloatConvert<Double>>(bits: u64) -> Double {
    let mut inexact = false;
    T::from_bits(u128::from(bits)).convert(&mut inexact).value
}

fn narrow<T: Float>(value: Double, rounding: Rounding) -> u64
where
    Double: FloatConvert<T>,
{
    let mut inexact = false;
    let result: T = value.convert_r(direction(rounding), &mut inexact).value;
    result.to_bits() as u64
}

/// The bits of a float as an `f64`, which holds every narrower format exactly.
pub(crate) fn float_value(bits: u64, ty: Type) -> f64 {
    to_f64(match ty {
        Type::F16 => widen::<Half>(bits & 0xffff),
        Type::BF16 => widen::<BFloat>(bits & 0xffff),
        Type::F64 => return f64::from_bits(bits),
        _ => return f64::from(f32::from_bits(bits as u32)),
    })
}

/// Rounds to a narrower format; returns its bits. NaN is the caller's business.
pub(crate) fn round_float(value: f64, to: Type, rounding: Rounding) -> u64 {
    match to {
        Type::F16 => narrow::<Half>(double(value), rounding),
        Type::BF16 => narrow::<BFloat>(double(value), rounding),
        Type::F64 => value.to_bits(),
        _ => narrow::<Single>(double(value), rounding),
    }
}

/// Rounds an integer to a float; returns its bits.
pub(crate) fn round_int(value: i128, to: Type, rounding: Rounding) -> u64 {
    let rounding = direction(rounding);
    (match to {
        Type::F16 => Half::from_i128_r(value, rounding).value.to_bits(),
        Type::BF16 => BFloat::from_i128_r(value, rounding).value.to_bits(),
        Type::F64 => Double::from_i128_r(value, rounding).value.to_bits(),
        _ => Single::from_i128_r(value, rounding).value.to_bits(),
    }) as u64
}
