//! Float arithmetic that rounds, signs, tests and extremes, against exact rational arithmetic.

use super::family::{Code, Family, THREADS, gives, random, uniform};
use super::harness::Operands;
use super::harness::exact::{BF16, F16, F32, F64, Format, ROUNDS, Round, floats, specials};
use super::syntax::{Form, Type};
use num_traits::One as _;

/// The format of a type's numbers, and how many there are in a register.
pub fn shape(ty: Type) -> (Format, u32) {
    match ty.name {
        "f16" => (F16, 1),
        "f16x2" => (F16, 2),
        "bf16" => (BF16, 1),
        "bf16x2" => (BF16, 2),
        "f32" => (F32, 1),
        "f64" => (F64, 1),
        name => panic!("{name} is no float"),
    }
}

/// As [`drawn`], of a form's type.
pub fn numbers(form: &Form) -> Vec<Operands> {
    drawn(form.ty())
}

/// Tuples of a type, each number of a register drawn by itself; every special number is there as the first operand.
pub fn drawn(ty: Type) -> Vec<Operands> {
    let (format, count) = shape(ty);
    let specials = specials(format).into_iter();
    let specials: Vec<u64> = specials
        .flat_map(|bits| [bits, bits | format.sign()])
        .collect();
    let mut tuples = vec![[0; 4]; THREADS];
    for place in 0..count {
        let mut drawn = random(floats(format));
        for ([first, ..], special) in drawn.iter_mut().zip(&specials) {
            *first = *special;
        }
        for (tuple, part) in tuples.iter_mut().zip(drawn) {
            for (whole, bits) in tuple.iter_mut().zip(part) {
                *whole |= bits << (place * format.bits());
            }
        }
    }
    tuples
}

/// The numbers of a register, one after the other.
pub fn parts(ty: Type, operands: Operands) -> impl Iterator<Item = (u32, Operands)> {
    let (format, count) = shape(ty);
    let mask = u64::MAX >> (64 - format.bits());
    (0..count).map(move |place| {
        let shift = place * format.bits();
        (shift, operands.map(|bits| bits >> shift & mask))
    })
}

/// Each number of a register by itself: numbers of a pair do not know of each other.
pub fn each(
    syntax: &'static str,
    count: usize,
    meaning: impl Fn(&Form, Format, [u64; 3]) -> u64 + 'static,
) -> Family {
    Family::new(
        syntax,
        uniform(count),
        numbers,
        gives(move |form, operands| {
            let (format, _) = shape(form.ty());
            parts(form.ty(), operands)
                .map(|(shift, [a, b, c, _])| meaning(form, format, [a, b, c]) << shift)
                .fold(0, |whole, part| whole | part)
        }),
    )
}

/// The direction that a form names; to nearest where it names none.
pub fn direction(form: &Form) -> Round {
    let named = ROUNDS.iter().find(|(name, _)| form.has(name));
    named.map_or(Round::Nearest, |&(_, round)| round)
}

/// What is rounded: `.ftz` goes for operands and result, `.sat` and `.relu` come last.
pub fn rounded(
    syntax: &'static str,
    count: usize,
    exact: fn(Format, [u64; 3], Round) -> u64,
) -> Family {
    each(syntax, count, move |form, format, operands| {
        let flush = |bits| format.flush(bits, form.has("ftz"));
        let result = flush(exact(format, operands.map(flush), direction(form)));
        if form.has("sat") {
            format.saturate(result)
        } else if form.has("relu") && format.is_negative(result) {
            0
        } else {
            result
        }
    })
}

pub fn add(format: Format, [a, b, _]: [u64; 3], round: Round) -> u64 {
    format.fma(a, None, Some(b), round)
}

pub fn sub(format: Format, [a, b, _]: [u64; 3], round: Round) -> u64 {
    format.fma(a, None, Some(b ^ format.sign()), round)
}

pub fn mul(format: Format, [a, b, _]: [u64; 3], round: Round) -> u64 {
    format.fma(a, Some(b), None, round)
}

pub fn fma(format: Format, [a, b, c]: [u64; 3], round: Round) -> u64 {
    format.fma(a, Some(b), Some(c), round)
}

fn div(format: Format, [a, b, _]: [u64; 3], round: Round) -> u64 {
    format.div(a, b, round)
}

fn rcp(format: Format, [a, ..]: [u64; 3], round: Round) -> u64 {
    let one = format.round(&num_rational::BigRational::one(), Round::Nearest);
    format.div(one, a, round)
}

fn sqrt(format: Format, [a, ..]: [u64; 3], round: Round) -> u64 {
    if format.is_zero(a) || a == format.infinity() {
        a
    } else if format.is_nan(a) || format.is_negative(a) {
        format.nan()
    } else {
        format.sqrt(&format.value(a), round)
    }
}

/// `min` or `max`: a number wins over NaN unless `.NaN` is there, and -0 is less than +0.
pub fn extreme(form: &Form, format: Format, [a, b, _]: [u64; 3]) -> u64 {
    let magnitude = if form.has("xorsign") {
        format.sign() - 1
    } else {
        u64::MAX
    };
    let [x, y] = [a, b].map(|bits| format.flush(bits, form.has("ftz")) & magnitude);
    let chosen = match (format.is_nan(x), format.is_nan(y)) {
        (true, false) if !form.has("NaN") => y,
        (false, true) if !form.has("NaN") => x,
        (false, false) => {
            // Infinities count as the next power of two, which is enough to order them.
            let key = |bits: u64| (format.value(bits), !format.is_negative(bits));
            if (key(x) > key(y)) == (form.opcode() == "max") {
                x
            } else {
                y
            }
        }
        _ => return format.nan(),
    };
    if form.has("xorsign") {
        chosen | (a ^ b) & format.sign()
    } else {
        chosen
    }
}

/// `neg` or `abs`, of NaN too.
pub fn sign(form: &Form, format: Format, [a, ..]: [u64; 3]) -> u64 {
    let flushed = format.flush(a, form.has("ftz"));
    if form.opcode() == "neg" {
        flushed ^ format.sign()
    } else {
        flushed & !format.sign()
    }
}

fn test(form: &Form, format: Format, bits: u64) -> bool {
    match form.words[1] {
        "finite" => format.is_finite(bits),
        "infinite" => !format.is_finite(bits) && !format.is_nan(bits),
        "number" => !format.is_nan(bits),
        "notanumber" => format.is_nan(bits),
        "normal" => format.is_finite(bits) && !format.is_zero(bits) && !format.is_subnormal(bits),
        "subnormal" => format.is_subnormal(bits),
        other => panic!("no test {other}"),
    }
}

pub fn families() -> Vec<Family> {
    vec![
        rounded("add{.rn,.rz,.rm,.rp}{.ftz}{.sat}.f32", 2, add),
        rounded("sub{.rn,.rz,.rm,.rp}{.ftz}{.sat}.f32", 2, sub),
        rounded("mul{.rn,.rz,.rm,.rp}{.ftz}{.sat}.f32", 2, mul),
        rounded("fma.{rn,rz,rm,rp}{.ftz}{.sat}.f32", 3, fma),
        rounded("mad.{rn,rz,rm,rp}{.ftz}{.sat}.f32", 3, fma),
        rounded("add{.rn,.rz,.rm,.rp}.f64", 2, add),
        rounded("sub{.rn,.rz,.rm,.rp}.f64", 2, sub),
        rounded("mul{.rn,.rz,.rm,.rp}.f64", 2, mul),
        rounded("fma.{rn,rz,rm,rp}.f64", 3, fma),
        rounded("mad.{rn,rz,rm,rp}.f64", 3, fma),
        rounded("div.{rn,rz,rm,rp}{.ftz}.f32", 2, div),
        rounded("div.{rn,rz,rm,rp}.f64", 2, div),
        rounded("rcp.{rn,rz,rm,rp}{.ftz}.f32", 1, rcp),
        rounded("rcp.{rn,rz,rm,rp}.f64", 1, rcp),
        rounded("sqrt.{rn,rz,rm,rp}{.ftz}.f32", 1, sqrt),
        rounded("sqrt.{rn,rz,rm,rp}.f64", 1, sqrt),
        each("min{.ftz}{.NaN}{.xorsign.abs}.f32", 2, extreme),
        each("max{.ftz}{.NaN}{.xorsign.abs}.f32", 2, extreme),
        each("min.f64", 2, extreme),
        each("max.f64", 2, extreme),
        each("neg{.ftz}.f32", 1, sign),
        each("abs{.ftz}.f32", 1, sign),
        each("neg.f64", 1, sign),
        each("abs.f64", 1, sign),
        each("copysign.{f32,f64}", 2, |_, format, [a, b, _]| {
            a & format.sign() | b & !format.sign()
        }),
        Family::new(
            "testp.{finite,infinite,number,notanumber,normal,subnormal}.{f32,f64}",
            |form| Code::new("{form} {d}, {a};", &[1], &[form.ty().bits]),
            numbers,
            gives(|form, [a, ..]| test(form, shape(form.ty()).0, a).into()),
        ),
    ]
}

/// The oracle itself, against the host where the host knows the answer.
#[test]
fn oracle() {
    for [a, b, ..] in random(floats(F32)) {
        let (x, y) = (f32::from_bits(a as u32), f32::from_bits(b as u32));
        for (host, exact) in [
            (x + y, F32.fma(a, None, Some(b), Round::Nearest)),
            (x * y, F32.fma(a, Some(b), None, Round::Nearest)),
            (x / y, F32.div(a, b, Round::Nearest)),
        ] {
            assert!(
                host.is_nan() && F32.is_nan(exact) || u64::from(host.to_bits()) == exact,
                "{x:e} and {y:e}: {exact:#x}"
            );
        }
    }
}
