//! Floating-point instructions on rows. The common modes have loops of their own, which vectorise.

use super::lanes::{Row, map1, map2, map3};
use crate::arith::{convert, float};
use crate::isa::{Conversion, FloatMode, FloatOp, Rounding, Type};

/// One `f32` instruction.
pub(crate) fn f32_op(op: FloatOp, mode: FloatMode, a: &Row, b: &Row, c: &Row) -> Row {
    let plain = FloatMode::default();
    match op {
        FloatOp::Add if mode == plain => map2(a, b, |a, b| float::add(a, b, plain)),
        FloatOp::Add => map2(a, b, |a, b| float::add(a, b, mode)),
        FloatOp::Sub if mode == plain => map2(a, b, |a, b: f32| float::add(a, -b, plain)),
        FloatOp::Sub => map2(a, b, |a, b: f32| float::add(a, -b, mode)),
        FloatOp::Mul if mode == plain => map2(a, b, |a, b| float::mul(a, b, plain)),
        FloatOp::Mul => map2(a, b, |a, b| float::mul(a, b, mode)),
        FloatOp::Fma if mode == plain => map3(a, b, c, |a, b, c| float::fma(a, b, c, plain)),
        FloatOp::Fma => map3(a, b, c, |a, b, c| float::fma(a, b, c, mode)),
        FloatOp::Div => map2(a, b, |a, b| float::div(a, b, mode)),
        FloatOp::DivApprox => map2(a, b, |a, b| float::div_approximate(a, b, mode)),
        FloatOp::Min => map2(a, b, |a, b| float::min_max(a, b, false, mode)),
        FloatOp::Max => map2(a, b, |a, b| float::min_max(a, b, true, mode)),
        FloatOp::Sqrt => map1(a, |a| float::sqrt(a, mode)),
        FloatOp::Rcp => map1(a, |a| float::div(1.0, a, mode)),
        FloatOp::Neg => map1(a, |a: f32| -float::flush(a, mode.ftz)),
        FloatOp::Abs => map1(a, |a: f32| float::flush(a, mode.ftz).abs()),
        FloatOp::Copysign => map2(a, b, |a: f32, b: f32| b.copysign(a)),
        FloatOp::Rsqrt
        | FloatOp::Sin
        | FloatOp::Cos
        | FloatOp::Lg2
        | FloatOp::Ex2
        | FloatOp::Tanh => map1(a, |a| float::approximate(op, a, mode)),
    }
}

/// `cvt`.
pub(crate) fn cvt(conversion: Conversion, a: &Row) -> Row {
    let Conversion {
        to,
        from,
        rounding,
        integral,
        ftz,
        sat,
        relu,
        satfinite,
        register_bits,
    } = conversion;
    let special = integral || ftz || sat || relu || satfinite || rounding != Rounding::Nearest;
    match (from, to, register_bits) {
        (Type::S(32), Type::F32, _) if !special => map1(a, |a: i32| a as f32),
        (Type::U(32), Type::F32, _) if !special => map1(a, |a: u32| a as f32),
        (Type::U(32), Type::U(64) | Type::S(64), 64) if !sat => map1(a, |a: u32| u64::from(a)),
        (Type::S(32), Type::S(64) | Type::U(64), 64) if !sat => map1(a, |a: i32| i64::from(a)),
        (Type::U(64) | Type::S(64), Type::U(32) | Type::S(32), 32) if !sat => {
            map1(a, |a: u64| a as u32)
        }
        _ => map1(a, |bits: u64| convert::convert(conversion, bits)),
    }
}
