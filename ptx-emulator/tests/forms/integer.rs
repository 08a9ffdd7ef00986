//! Integer arithmetic, against exact integers.

use super::family::{Code, Family, gives, integers, uniform};
use super::harness::Operands;
use super::syntax::{Form, Type};

/// The value of the low bits of a type's width, signed or not.
pub fn value(bits: u64, ty: Type) -> i128 {
    low(bits, ty.bits, ty.is_signed())
}

/// The value of the low bits.
pub fn low(bits: u64, width: u32, signed: bool) -> i128 {
    let cut = i128::from(bits) & ((1i128 << width) - 1);
    if signed && cut >> (width - 1) & 1 != 0 {
        cut - (1i128 << width)
    } else {
        cut
    }
}

/// The low bits of a number.
pub fn cut(value: i128, width: u32) -> u64 {
    (value & ((1i128 << width) - 1)) as u64
}

/// Operands and result of one type, with the meaning in exact integers.
pub fn exact(syntax: &'static str, count: usize, meaning: fn(&Form, [i128; 3]) -> i128) -> Family {
    Family::new(
        syntax,
        uniform(count),
        integers,
        gives(move |form, [a, b, c, _]| {
            let ty = form.ty();
            cut(
                meaning(form, [a, b, c].map(|bits| value(bits, ty))),
                ty.bits,
            )
        }),
    )
}

/// The high half of a product: of `.u64` it does not fit `i128`.
fn high(form: &Form, a: i128, b: i128) -> i128 {
    let bits = form.ty().bits;
    if form.ty().name == "u64" {
        ((a as u128 * b as u128) >> bits) as i128
    } else {
        (a * b) >> bits
    }
}

fn clamp_s32(value: i128) -> i128 {
    value.clamp(i32::MIN.into(), i32::MAX.into())
}

/// The low 24 bits, as `mul24` takes them.
fn low24(form: &Form, value: i128) -> i128 {
    low((value & 0xff_ffff) as u64, 24, form.ty().is_signed())
}

/// The product of `mul24` and `mad24`.
fn product24(form: &Form, a: i128, b: i128) -> i128 {
    let product = low24(form, a) * low24(form, b);
    if form.has("hi") {
        product >> 16
    } else {
        product
    }
}

/// `{form} {d}, {a}, …`, the result and the last of three operands twice as wide.
fn wide(count: usize) -> impl Fn(&Form) -> Code {
    move |form| {
        let bits = form.ty().bits;
        match count {
            2 => Code::new("{form} {d}, {a}, {b};", &[2 * bits], &[bits, bits]),
            _ => Code::new(
                "{form} {d}, {a}, {b}, {c};",
                &[2 * bits],
                &[bits, bits, 2 * bits],
            ),
        }
    }
}

/// Integers of which the second is a divisor.
fn divisions(form: &Form) -> Vec<Operands> {
    let mut operands = integers(form);
    for [_, divisor, ..] in &mut operands {
        if value(*divisor, form.ty()) == 0 {
            *divisor = 7;
        }
    }
    operands
}

/// Pairs of 16 bits are two numbers that do not know of each other.
fn pairs(syntax: &'static str, meaning: fn(&Form, i128, i128) -> i128) -> Family {
    Family::new(
        syntax,
        uniform(2),
        integers,
        gives(move |form, [a, b, ..]| {
            let signed = form.ty().is_signed();
            let half = |shift: u32| {
                let exact = meaning(
                    form,
                    low(a >> shift, 16, signed),
                    low(b >> shift, 16, signed),
                );
                cut(exact, 16) << shift
            };
            half(16) | half(0)
        }),
    )
}

pub fn families() -> Vec<Family> {
    vec![
        exact("add.{u16,s16,u32,s32,u64,s64}", 2, |_, [a, b, _]| a + b),
        exact("sub.{u16,s16,u32,s32,u64,s64}", 2, |_, [a, b, _]| a - b),
        exact("add.sat.s32", 2, |_, [a, b, _]| clamp_s32(a + b)),
        exact("sub.sat.s32", 2, |_, [a, b, _]| clamp_s32(a - b)),
        exact("mul.lo.{u16,s16,u32,s32,u64,s64}", 2, |_, [a, b, _]| {
            a.wrapping_mul(b)
        }),
        exact("mul.hi.{u16,s16,u32,s32,u64,s64}", 2, |form, [a, b, _]| {
            high(form, a, b)
        }),
        exact("mad.lo.{u16,s16,u32,s32,u64,s64}", 3, |_, [a, b, c]| {
            a.wrapping_mul(b).wrapping_add(c)
        }),
        exact("mad.hi.{u16,s16,u32,s32,u64,s64}", 3, |form, [a, b, c]| {
            high(form, a, b) + c
        }),
        exact("mad.hi.sat.s32", 3, |form, [a, b, c]| {
            clamp_s32(high(form, a, b) + c)
        }),
        Family::new(
            "mul.wide.{u16,s16,u32,s32}",
            wide(2),
            integers,
            gives(|form, [a, b, ..]| {
                cut(
                    value(a, form.ty()) * value(b, form.ty()),
                    2 * form.ty().bits,
                )
            }),
        ),
        Family::new(
            "mad.wide.{u16,s16,u32,s32}",
            wide(3),
            integers,
            gives(|form, [a, b, c, _]| {
                // Signs do not matter to the low bits of a sum.
                cut(
                    value(a, form.ty()) * value(b, form.ty()) + i128::from(c),
                    2 * form.ty().bits,
                )
            }),
        ),
        exact("mul24.{lo,hi}.{u32,s32}", 2, |form, [a, b, _]| {
            product24(form, a, b)
        }),
        exact("mad24.{lo,hi}.{u32,s32}", 3, |form, [a, b, c]| {
            product24(form, a, b) + c
        }),
        exact("mad24.hi.sat.s32", 3, |form, [a, b, c]| {
            clamp_s32(product24(form, a, b) + c)
        }),
        exact("sad.{u16,s16,u32,s32,u64,s64}", 3, |_, [a, b, c]| {
            c + (a - b).abs()
        }),
        Family::new(
            "div.{u16,s16,u32,s32,u64,s64}",
            uniform(2),
            divisions,
            gives(|form, [a, b, ..]| {
                cut(value(a, form.ty()) / value(b, form.ty()), form.ty().bits)
            }),
        ),
        Family::new(
            "rem.{u16,s16,u32,s32,u64,s64}",
            uniform(2),
            divisions,
            gives(|form, [a, b, ..]| {
                cut(value(a, form.ty()) % value(b, form.ty()), form.ty().bits)
            }),
        ),
        exact("abs.{s16,s32,s64}", 1, |_, [a, ..]| a.abs()),
        exact("neg.{s16,s32,s64}", 1, |_, [a, ..]| -a),
        exact("min.{u16,s16,u32,s32,u64,s64}", 2, |_, [a, b, _]| a.min(b)),
        exact("max.{u16,s16,u32,s32,u64,s64}", 2, |_, [a, b, _]| a.max(b)),
        exact("min.relu.s32", 2, |_, [a, b, _]| a.min(b).max(0)),
        exact("max.relu.s32", 2, |_, [a, b, _]| a.max(b).max(0)),
        pairs("add.{u16x2,s16x2}", |_, a, b| a + b),
        pairs("min.{u16x2,s16x2}", |_, a, b| a.min(b)),
        pairs("max.{u16x2,s16x2}", |_, a, b| a.max(b)),
        pairs("min.relu.s16x2", |_, a, b| a.min(b).max(0)),
        pairs("max.relu.s16x2", |_, a, b| a.max(b).max(0)),
    ]
}
