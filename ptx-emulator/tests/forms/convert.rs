//! `cvt`, against exact integers and exact rational arithmetic.

use num_rational::BigRational;
use num_traits::{Signed as _, ToPrimitive as _};

use super::family::{Code, Family, gives, gives_all, integers};
use super::float::{drawn, shape};
use super::harness::Operands;
use super::harness::exact::{F16, F32, F64, Format, ROUNDS, Round};
use super::integer::{cut, low, value};
use super::syntax::{Form, Type};

/// `.tf32`, whose numbers are the upper bits of 32.
const TF32: Format = Format {
    exponent: 8,
    mantissa: 10,
};

/// Types of result and source.
fn types(form: &Form) -> (Type, Type) {
    let mut types = form.types();
    (
        types.next().expect("a result"),
        types.next().expect("a source"),
    )
}

fn is_float(ty: Type) -> bool {
    ty.name.contains('f')
}

fn sources(form: &Form) -> Vec<Operands> {
    let (_, from) = types(form);
    if is_float(from) {
        drawn(from)
    } else {
        integers(form)
    }
}

/// The direction of `.rn` and its like, or of `.rni` and its like.
fn direction(form: &Form) -> Round {
    if form.has("rna") {
        return Round::Away;
    }
    let named = ROUNDS.iter().find(|(name, _)| {
        form.words
            .iter()
            .any(|word| word.trim_end_matches('i') == *name)
    });
    named.map_or(Round::Nearest, |&(_, round)| round)
}

fn is_integral(form: &Form) -> bool {
    form.one_of(&["rni", "rzi", "rmi", "rpi"]).is_some()
}

fn integral(exact: &BigRational, round: Round) -> i128 {
    let floor = exact.floor();
    let fraction = exact - &floor;
    let half = BigRational::new(1.into(), 2.into());
    let low = floor
        .to_integer()
        .to_i128()
        .unwrap_or(if exact.is_negative() {
            i128::MIN / 2
        } else {
            i128::MAX / 2
        });
    let up = match round {
        Round::Down => false,
        Round::Up => fraction.is_positive(),
        Round::Zero => exact.is_negative() && fraction.is_positive(),
        Round::Nearest | Round::Away => fraction > half || (fraction == half && low % 2 != 0),
    };
    low + i128::from(up)
}

fn range(ty: Type) -> (i128, i128) {
    if ty.is_signed() {
        (-(1i128 << (ty.bits - 1)), (1i128 << (ty.bits - 1)) - 1)
    } else {
        (0, (1i128 << ty.bits) - 1)
    }
}

/// The integer in a register of some bits, to which it is extended by its sign.
fn extended(exact: i128, ty: Type, register: u32) -> u64 {
    cut(value(cut(exact, ty.bits), ty), register)
}

fn to_integer(form: &Form, bits: u64, register: u32) -> u64 {
    let (to, from) = types(form);
    let (lowest, highest) = range(to);
    if !is_float(from) {
        let exact = value(bits, from);
        let clamped = if form.has("sat") {
            exact.clamp(lowest, highest)
        } else {
            exact
        };
        return extended(clamped, to, register);
    }
    let (format, _) = shape(from);
    let bits = format.flush(bits, form.has("ftz"));
    let exact = if format.is_nan(bits) {
        // The ISA: zero, unless `.f64` or a 64-bit integer takes part.
        let top = format == F64 || to.bits == 64;
        if top { 1 << (to.bits - 1) } else { 0 }
    } else if !format.is_finite(bits) {
        if format.is_negative(bits) {
            lowest
        } else {
            highest
        }
    } else {
        integral(&format.value(bits), direction(form)).clamp(lowest, highest)
    };
    extended(exact, to, register)
}

/// A float in another format, or integral in its own. `.satfinite`: the largest number where there would be infinity.
fn reformatted(form: &Form, from: Format, to: Format, bits: u64) -> u64 {
    let bits = if from == F32 {
        from.flush(bits, form.has("ftz"))
    } else {
        bits
    };
    let sign = if from.is_negative(bits) { to.sign() } else { 0 };
    let magnitude = bits & !from.sign();
    let result = if from.is_nan(bits) {
        to.nan()
    } else if magnitude == from.infinity() {
        to.infinity() | sign
    } else {
        let exact = from.value(bits);
        // Beyond 2^60 every number is integral.
        let is_small = exact.abs() < BigRational::from_integer((1i64 << 60).into());
        let exact = if is_integral(form) && is_small {
            BigRational::from_integer(integral(&exact, direction(form)).into())
        } else {
            exact
        };
        to.round(&exact, direction(form)) | sign
    };
    let result = if to == F32 {
        to.flush(result, form.has("ftz"))
    } else {
        result
    };
    if to.is_nan(result) {
        return match to {
            _ if form.has("sat") => 0,
            // The ISA leaves it open; `ptxas` makes this of the NaN of `.f32`, 0x7fffffff.
            F64 if from != F64 => 0x7fff_ffff_e000_0000,
            _ => to.nan(),
        };
    }
    if form.has("relu") && to.is_negative(result) {
        0
    } else if form.has("sat") {
        to.saturate(result)
    } else if form.has("satfinite") && !to.is_finite(result) {
        (to.infinity() - 1) | result & to.sign()
    } else {
        result
    }
}

fn to_float(form: &Form, bits: u64) -> u64 {
    let (to, from) = types(form);
    if to.name == "tf32" {
        let result = reformatted(form, F32, TF32, bits);
        return if TF32.is_nan(result) {
            F32.nan()
        } else {
            result << 13
        };
    }
    let (format, _) = shape(to);
    if is_float(from) {
        return reformatted(form, shape(from).0, format, bits);
    }
    let exact = BigRational::from_integer(value(bits, from).into());
    let result = format.round(&exact, direction(form));
    if form.has("sat") {
        format.saturate(result)
    } else {
        result
    }
}

fn scalar(syntax: &'static str) -> Family {
    Family::new(
        syntax,
        |form| {
            let (to, from) = types(form);
            Code::new("{form} {d}, {a};", &[to.register()], &[from.register()])
        },
        sources,
        gives(|form, [a, ..]| {
            let (to, _) = types(form);
            if is_float(to) {
                to_float(form, a)
            } else {
                to_integer(form, a, to.register())
            }
        }),
    )
}

/// Registers may be wider than the types: results are extended to them.
fn wide(syntax: &'static str) -> Family {
    Family::new(
        syntax,
        |_| Code::new("{form} {d}, {a};", &[64], &[64]),
        sources,
        gives(|form, [a, ..]| to_integer(form, a, 64)),
    )
}

/// Two numbers of 32 bits to a pair: the first goes to the upper half.
fn pair(syntax: &'static str) -> Family {
    Family::new(
        syntax,
        |_| Code::new("{form} {d}, {a}, {b};", &[32], &[32, 32]),
        sources,
        gives(|form, [a, b, ..]| {
            let (format, _) = shape(types(form).0);
            reformatted(form, F32, format, a) << 16 | reformatted(form, F32, format, b)
        }),
    )
}

/// The number that seven bits of a float of 8 bits stand for; nothing where they are infinity or NaN.
fn byte_value(ty: Type, bits: u64) -> Option<BigRational> {
    let is_e4m3 = ty.name == "e4m3x2";
    let (mantissa, bias) = if is_e4m3 { (3, 7) } else { (2, 15) };
    let finite = if is_e4m3 { bits != 0x7f } else { bits < 0x7c };
    let exponent = bits >> mantissa;
    let lead = if exponent == 0 { 0 } else { 1 << mantissa };
    let two = BigRational::from_integer(2.into());
    let power = num_traits::pow::Pow::pow(two, exponent.max(1) as i32 - bias - mantissa);
    let significand = lead + (bits & ((1 << mantissa) - 1));
    finite.then(|| BigRational::from_integer(significand.into()) * power)
}

/// The nearest number, the even one of two; the largest where there is none beyond.
fn nearest_byte(ty: Type, exact: &BigRational) -> u64 {
    let numbers: Vec<BigRational> = (0..0x80).map_while(|bits| byte_value(ty, bits)).collect();
    let distance = |at: usize| (&numbers[at] - exact).abs();
    (0..numbers.len())
        .min_by(|&a, &b| distance(a).cmp(&distance(b)).then((a % 2).cmp(&(b % 2))))
        .expect("numbers") as u64
}

fn to_byte(form: &Form, from: Format, bits: u64) -> u64 {
    if from.is_nan(bits) {
        0x7f
    } else if form.has("relu") && from.is_negative(bits) {
        0
    } else {
        let magnitude = nearest_byte(types(form).0, &from.value(bits).abs());
        magnitude | u64::from(from.is_negative(bits)) << 7
    }
}

fn from_byte(form: &Form, bits: u64) -> u64 {
    let (_, from) = types(form);
    let negative = bits >> 7 & 1;
    let magnitude = match byte_value(from, bits & 0x7f) {
        Some(exact) => F16.round(&exact, Round::Nearest),
        None if bits & 0x7f == 0x7c => F16.infinity(),
        None => return F16.nan(),
    };
    if form.has("relu") && negative != 0 {
        0
    } else {
        magnitude | negative << 15
    }
}

/// Every byte, once as the upper and once as the lower one of a pair.
fn every_byte() -> Vec<Operands> {
    let pairs: Vec<u64> = (0..256).map(|byte| byte << 8 | (255 - byte)).collect();
    pairs.as_chunks::<4>().0.to_vec()
}

/// `cvt.pack`: two clamped numbers, and above them the low bits of a third operand.
fn packed(syntax: &'static str, count: usize) -> Family {
    Family::new(
        syntax,
        move |_| {
            let list = if count == 3 { ", {c}" } else { "" };
            Code::new(
                format!("{{form}} {{d}}, {{a}}, {{b}}{list};"),
                &[32],
                &[32, 32, 32][..count],
            )
        },
        integers,
        gives(move |form, [a, b, c, _]| {
            let (to, _) = types(form);
            let (lowest, highest) = range(to);
            let one = |bits| cut(low(bits, 32, true).clamp(lowest, highest), to.bits);
            let above = if count == 3 { c } else { 0 };
            cut(
                i128::from(above) << (2 * to.bits) | i128::from(one(a) << to.bits | one(b)),
                32,
            )
        }),
    )
}

pub fn families() -> Vec<Family> {
    vec![
        scalar("cvt.{u8,s8,u16,s16,u32,s32,u64,s64}.{u8,s8,u16,s16,u32,s32,u64,s64}"),
        wide("cvt.{u8,s8,u16,s16,u32,s32,u64,s64}.{u8,s8,u16,s16,u32,s32,u64,s64}"),
        // `.sat` is there where it can make a difference.
        scalar("cvt.sat.u8.{s8,u16,s16,u32,s32,u64,s64}"),
        scalar("cvt.sat.s8.{u8,u16,s16,u32,s32,u64,s64}"),
        scalar("cvt.sat.u16.{s8,s16,u32,s32,u64,s64}"),
        scalar("cvt.sat.s16.{u16,u32,s32,u64,s64}"),
        scalar("cvt.sat.u32.{s8,s16,s32,u64,s64}"),
        scalar("cvt.sat.s32.{u32,u64,s64}"),
        scalar("cvt.sat.u64.{s8,s16,s32,s64}"),
        scalar("cvt.sat.s64.u64"),
        scalar("cvt.{rn,rz,rm,rp}{.sat}.{f16,f64}.{u8,s8,u16,s16,u32,s32,u64,s64}"),
        scalar("cvt.{rn,rz,rm,rp}{.ftz}{.sat}.f32.{u8,s8,u16,s16,u32,s32,u64,s64}"),
        scalar("cvt.{rn,rz,rm,rp}.bf16.{u16,s16,u32,s32,u64,s64}"),
        scalar("cvt.{rni,rzi,rmi,rpi}{.sat}.{u8,s8,u16,s16,u32,s32,u64,s64}.{f16,f64}"),
        scalar("cvt.{rni,rzi,rmi,rpi}{.ftz}{.sat}.{u8,s8,u16,s16,u32,s32,u64,s64}.f32"),
        scalar("cvt.{rni,rzi,rmi,rpi}.{u16,s16,u32,s32,u64,s64}.bf16"),
        scalar("cvt{.rni,.rzi,.rmi,.rpi}{.sat}.f16.f16"),
        scalar("cvt{.rni,.rzi,.rmi,.rpi}{.sat}.f64.f64"),
        scalar("cvt{.rni,.rzi,.rmi,.rpi}{.ftz}{.sat}.f32.f32"),
        scalar("cvt{.rni,.rzi,.rmi,.rpi}.bf16.bf16"),
        scalar("cvt{.ftz}{.sat}.f32.f16"),
        scalar("cvt{.ftz}{.sat}.f64.f32"),
        scalar("cvt{.sat}.f64.f16"),
        scalar("cvt{.ftz}.f32.bf16"),
        scalar("cvt.f64.bf16"),
        scalar("cvt.{rn,rz,rm,rp}{.ftz}{.sat}.{f16.f32,f32.f64}"),
        scalar("cvt.{rn,rz,rm,rp}{.sat}.f16.f64"),
        scalar("cvt.{rn,rz,rm,rp}{.ftz}.bf16.f32"),
        scalar("cvt.{rn,rz,rm,rp}.{bf16.f64,bf16.f16,f16.bf16}"),
        scalar("cvt.{rn,rz}.{relu,satfinite,relu.satfinite}.{f16,bf16}.f32"),
        scalar("cvt.{rn,rz}{.relu}.tf32.f32"),
        scalar("cvt.rna{.satfinite}.tf32.f32"),
        pair("cvt.{rn,rz}{.relu}{.satfinite}.{f16x2,bf16x2}.f32"),
        Family::new(
            "cvt.rn.satfinite{.relu}.{e4m3x2,e5m2x2}.f32",
            |_| Code::new("{form} {d}, {a}, {b};", &[16], &[32, 32]),
            sources,
            gives(|form, [a, b, ..]| to_byte(form, F32, a) << 8 | to_byte(form, F32, b)),
        ),
        Family::new(
            "cvt.rn.satfinite{.relu}.{e4m3x2,e5m2x2}.f16x2",
            |_| Code::new("{form} {d}, {a};", &[16], &[32]),
            sources,
            gives(|form, [a, ..]| {
                to_byte(form, F16, a >> 16) << 8 | to_byte(form, F16, a & 0xffff)
            }),
        ),
        Family::new(
            "cvt.rn{.relu}.f16x2.{e4m3x2,e5m2x2}",
            |_| {
                let each = ["{d}, {a}", "{d1}, {b}", "{d2}, {c}", "{d3}, {e}"];
                let text = each.map(|operands| format!("{{form}} {operands};"));
                Code::new(text.concat(), &[32; 4], &[16; 4])
            },
            |_| every_byte(),
            gives_all(|form, operands| {
                operands.map(|pair| from_byte(form, pair >> 8) << 16 | from_byte(form, pair & 0xff))
            }),
        ),
        packed("cvt.pack.sat.{u16,s16}.s32", 2),
        packed("cvt.pack.sat.{u2,s2,u4,s4,u8,s8}.s32.b32", 3),
    ]
}
