//! Approximate functions: within the error that the ISA states, measured against `f64`, and exactly the ISA's tables for infinities,
//! zeros and NaN.

use std::f64::consts::PI;

use num_rational::BigRational;
use num_traits::{One as _, Signed as _, ToPrimitive as _};

use super::family::{Family, THREADS, random, uniform};
use super::float::{numbers, parts, shape};
use super::harness::Operands;
use super::harness::exact::{F64, Format, Round};
use super::syntax::Form;

fn to_f64(format: Format, bits: u64) -> f64 {
    if format.is_nan(bits) {
        return f64::NAN;
    }
    let magnitude = bits & !format.sign();
    let number = if format.is_finite(bits) {
        format.value(magnitude).to_f64().expect("a number")
    } else {
        f64::INFINITY
    };
    if format.is_negative(bits) {
        -number
    } else {
        number
    }
}

/// Whether a result is within `error` of the exact one. NaN, infinities and zeros must be what they are.
fn is_near(format: Format, ftz: bool, bits: u64, want: f64, error: f64) -> bool {
    if want.is_nan() {
        return bits == format.nan();
    }
    let got = to_f64(format, bits);
    let same_sign = got.is_sign_negative() == want.is_sign_negative();
    if want.is_infinite() || want == 0.0 {
        return got == want && same_sign;
    }
    if got.is_infinite() {
        return same_sign && want.abs() + error > to_f64(format, format.infinity() - 1);
    }
    if ftz {
        let smallest = to_f64(format, 1 << format.mantissa);
        if got == 0.0 {
            return same_sign && want.abs() - error < smallest;
        }
        return !format.is_subnormal(bits) && (got - want).abs() <= error;
    }
    (got - want).abs() <= error.max(to_f64(format, 1))
}

/// Numbers of every kind; for `ex2` also those with results from the smallest to the largest, and beyond.
fn operands(form: &Form) -> Vec<Operands> {
    let mut tuples = numbers(form);
    if form.opcode() == "ex2" {
        let (format, count) = shape(form.ty());
        let bias = ((1 << (format.exponent - 1)) - 1) as f64;
        let lowest = -bias - f64::from(format.mantissa) - 2.0;
        for (at, [first, ..]) in tuples.iter_mut().enumerate().skip(THREADS / 2) {
            // Every other result is about the smallest normal one.
            let highest = if at % 2 == 0 { bias } else { -bias };
            *first = 0;
            for place in 0..count {
                let exact = BigRational::from_float(random(lowest..highest + 3.0));
                let bits = format.round(&exact.expect("a number"), Round::Nearest);
                *first |= bits << (place * format.bits());
            }
        }
    }
    tuples
}

/// A function of one or two operands, and the error that is allowed for these and the exact result. An infinite one leaves the
/// result open.
fn near(
    syntax: &'static str,
    count: usize,
    function: impl Fn([f64; 2]) -> f64 + 'static,
    error: impl Fn([f64; 2], f64) -> f64 + 'static,
) -> Family {
    Family::new(
        syntax,
        uniform(count),
        operands,
        move |form, inputs, outputs| {
            let (format, _) = shape(form.ty());
            let ftz = form.has("ftz");
            for (operands, results) in inputs.iter().zip(outputs) {
                let results = parts(form.ty(), *results);
                for ((_, [a, b, ..]), (_, [got, ..])) in parts(form.ty(), *operands).zip(results) {
                    let operands = [a, b].map(|bits| to_f64(format, format.flush(bits, ftz)));
                    let want = function(operands);
                    let error = error(operands, want);
                    if error.is_finite() && !is_near(format, ftz, got, want, error) {
                        return Err(format!(
                            "{a:#x}, {b:#x} give {got:#x}, expected {want:e} to {error:e}"
                        ));
                    }
                }
            }
            Ok(())
        },
    )
}

/// A bound on the relative error, as a power of two.
fn relative(power: f64) -> impl Fn([f64; 2], f64) -> f64 {
    move |_, want| {
        if want.is_finite() {
            power.exp2() * want.abs()
        } else {
            0.0
        }
    }
}

fn absolute(power: f64) -> impl Fn([f64; 2], f64) -> f64 {
    move |_, _| power.exp2()
}

/// Of `sin` and `cos`.
fn periodic([x, _]: [f64; 2], _: f64) -> f64 {
    if x.abs() <= 2.0 * PI || x.is_infinite() {
        (-20.5f64).exp2()
    } else if x.abs() <= 100.0 * PI {
        (-14.7f64).exp2()
    } else if x.is_nan() {
        0.0
    } else {
        f64::INFINITY
    }
}

/// `a * (1 / b)`: beyond 2^126 the reciprocal is a zero.
fn quotient([a, b]: [f64; 2]) -> f64 {
    if b.abs() > 126f64.exp2() {
        a * 0f64.copysign(b)
    } else {
        a / b
    }
}

/// `f64` functions whose results have 20 bits of mantissa.
fn coarse(syntax: &'static str, function: fn(f64) -> f64) -> Family {
    Family::new(syntax, uniform(1), numbers, move |_, inputs, outputs| {
        for ([a, ..], [got, ..]) in inputs.iter().zip(outputs) {
            let want = function(f64::from_bits(F64.flush(*a, true)));
            let right = if want.is_nan() {
                *got == 0x7fff_ffff_0000_0000
            } else {
                let error = relative(-20.0)([0.0; 2], want);
                got & 0xffff_ffff == 0 && is_near(F64, true, *got, want, error)
            };
            if !right {
                return Err(format!("{a:#x} gives {got:#x}, expected about {want:e}"));
            }
        }
        Ok(())
    })
}

/// `x * d * d` is 1 but for two places of the last of 53 bits.
fn reciprocal_root() -> Family {
    Family::new(
        "rsqrt.approx.f64",
        uniform(1),
        numbers,
        |_, inputs, outputs| {
            for ([a, ..], [got, ..]) in inputs.iter().zip(outputs) {
                let right = if F64.is_zero(*a) {
                    *got == F64.infinity() | a & F64.sign()
                } else if F64.is_nan(*a) || F64.is_negative(*a) {
                    *got == F64.nan()
                } else if !F64.is_finite(*a) {
                    *got == 0
                } else {
                    let root = F64.value(*got);
                    let error = F64.value(*a) * &root * &root - BigRational::one();
                    let bound = BigRational::new(1.into(), (1u64 << 51).into());
                    error.abs() < bound && !F64.is_negative(*got)
                };
                if !right {
                    return Err(format!("{a:#x} gives {got:#x}"));
                }
            }
            Ok(())
        },
    )
}

pub fn families() -> Vec<Family> {
    vec![
        near("div.approx{.ftz}.f32", 2, quotient, relative(-22.0)),
        near("div.full{.ftz}.f32", 2, |[a, b]| a / b, relative(-22.0)),
        near("rcp.approx{.ftz}.f32", 1, |[x, _]| 1.0 / x, relative(-23.0)),
        near(
            "sqrt.approx{.ftz}.f32",
            1,
            |[x, _]| x.sqrt(),
            relative(-23.0),
        ),
        near(
            "rsqrt.approx{.ftz}.f32",
            1,
            |[x, _]| 1.0 / x.sqrt(),
            relative(-22.9),
        ),
        near("sin.approx{.ftz}.f32", 1, |[x, _]| x.sin(), periodic),
        near("cos.approx{.ftz}.f32", 1, |[x, _]| x.cos(), periodic),
        near(
            "lg2.approx{.ftz}.f32",
            1,
            |[x, _]| x.log2(),
            |[x, y], want| {
                if x > 0.5 && x < 2.0 {
                    absolute(-22.0)([x, y], want)
                } else {
                    relative(-22.0)([x, y], want)
                }
            },
        ),
        near(
            "ex2.approx{.ftz}.f32",
            1,
            |[x, _]| x.exp2(),
            relative(-22.0),
        ),
        near(
            "ex2.approx.{f16,f16x2}",
            1,
            |[x, _]| x.exp2(),
            relative(-9.9),
        ),
        near(
            "ex2.approx.ftz.{bf16,bf16x2}",
            1,
            |[x, _]| x.exp2(),
            relative(-7.0),
        ),
        near("tanh.approx.f32", 1, |[x, _]| x.tanh(), relative(-11.0)),
        near(
            "tanh.approx.{f16,f16x2}",
            1,
            |[x, _]| x.tanh(),
            absolute(-10.987),
        ),
        near(
            "tanh.approx.{bf16,bf16x2}",
            1,
            |[x, _]| x.tanh(),
            absolute(-8.0),
        ),
        coarse("rcp.approx.ftz.f64", |x| 1.0 / x),
        coarse("rsqrt.approx.ftz.f64", |x| 1.0 / x.sqrt()),
        reciprocal_root(),
    ]
}
