//! Floating-point arithmetic, against exact rational arithmetic.

mod harness;

use harness::exact::{BF16, F16, F32, F64, Format, ROUNDS, Round, floats};
use harness::{Form, Operands};
use proptest::prelude::*;

fn check(
    text: String,
    format: Format,
    count: usize,
    operands: &[Operands],
    expected: impl Fn(Operands) -> u64,
) {
    let operands_bits: &'static [u32] = match format.bits() {
        16 => &[16; 3],
        32 => &[32; 3],
        _ => &[64; 3],
    };
    let form = Form {
        text: text.leak(),
        result: format.bits(),
        operands: &operands_bits[..count],
    };
    form.check(operands, expected);
}

/// Sums, products, quotients and roots in every rounding.
fn arithmetic(name: &str, format: Format, operands: &[Operands], ftz: bool, sat: bool) {
    let modifiers = match (ftz, sat) {
        (false, false) => "",
        (true, false) => ".ftz",
        (false, true) => ".sat",
        (true, true) => ".ftz.sat",
    };
    let flush = |bits| format.flush(bits, ftz);
    let finish = |bits: u64| {
        let bits = flush(bits);
        if sat { format.saturate(bits) } else { bits }
    };
    for (mode, round) in ROUNDS {
        check(
            format!("add.{mode}{modifiers}.{name} {{d}}, {{a}}, {{b}};"),
            format,
            2,
            operands,
            |[a, b, ..]| finish(format.fma(flush(a), None, Some(flush(b)), round)),
        );
        check(
            format!("sub.{mode}{modifiers}.{name} {{d}}, {{a}}, {{b}};"),
            format,
            2,
            operands,
            |[a, b, ..]| finish(format.fma(flush(a), None, Some(flush(b) ^ format.sign()), round)),
        );
        check(
            format!("mul.{mode}{modifiers}.{name} {{d}}, {{a}}, {{b}};"),
            format,
            2,
            operands,
            |[a, b, ..]| finish(format.fma(flush(a), Some(flush(b)), None, round)),
        );
        check(
            format!("fma.{mode}{modifiers}.{name} {{d}}, {{a}}, {{b}}, {{c}};"),
            format,
            3,
            operands,
            |[a, b, c, _]| finish(format.fma(flush(a), Some(flush(b)), Some(flush(c)), round)),
        );
        if sat {
            continue;
        }
        check(
            format!("div.{mode}{modifiers}.{name} {{d}}, {{a}}, {{b}};"),
            format,
            2,
            operands,
            |[a, b, ..]| finish(format.div(flush(a), flush(b), round)),
        );
        let one = format.round(&num_traits::One::one(), Round::Nearest);
        check(
            format!("rcp.{mode}{modifiers}.{name} {{d}}, {{a}};"),
            format,
            1,
            operands,
            |[a, ..]| finish(format.div(one, flush(a), round)),
        );
        check(
            format!("sqrt.{mode}{modifiers}.{name} {{d}}, {{a}};"),
            format,
            1,
            operands,
            |[a, ..]| {
                let a = flush(a);
                if format.is_zero(a) || a == format.infinity() {
                    a
                } else if format.is_nan(a) || format.is_negative(a) {
                    format.nan()
                } else {
                    finish(format.sqrt(&format.value(a), round))
                }
            },
        );
    }
}

/// The ISA's rule: a number wins over NaN, and -0 is less than +0.
fn min_max(format: Format, max: bool, a: u64, b: u64) -> u64 {
    match (format.is_nan(a), format.is_nan(b)) {
        (true, true) => format.nan(),
        (true, false) => b,
        (false, true) => a,
        (false, false) => {
            // Infinities count as the next power of two, which is enough to order them.
            let key = |bits: u64| (format.value(bits), !format.is_negative(bits));
            if (key(a) > key(b)) == max { a } else { b }
        }
    }
}

fn comparisons(name: &str, format: Format, operands: &[Operands]) {
    for (op, ordering, unordered) in [
        ("eq", &[0][..], false),
        ("ne", &[-1, 1], false),
        ("lt", &[-1], false),
        ("le", &[-1, 0], false),
        ("gt", &[1], false),
        ("ge", &[0, 1], false),
        ("equ", &[0], true),
        ("neu", &[-1, 1], true),
        ("ltu", &[-1], true),
        ("leu", &[-1, 0], true),
        ("gtu", &[1], true),
        ("geu", &[0, 1], true),
        ("num", &[-1, 0, 1], false),
        ("nan", &[], true),
    ] {
        let form = Form {
            text: format!("setp.{op}.{name} {{d}}, {{a}}, {{b}};").leak(),
            result: 1,
            operands: match format.bits() {
                16 => &[16, 16],
                32 => &[32, 32],
                _ => &[64, 64],
            },
        };
        form.check(operands, |[a, b, ..]| {
            if format.is_nan(a) || format.is_nan(b) {
                return unordered.into();
            }
            let order = format.value(a).cmp(&format.value(b)) as i8;
            ordering.contains(&order).into()
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn f32_arithmetic(operands in floats(F32)) {
        arithmetic("f32", F32, &operands, false, false);
    }

    #[test]
    fn f32_flushed(operands in floats(F32)) {
        arithmetic("f32", F32, &operands, true, false);
    }

    #[test]
    fn f32_saturated(operands in floats(F32)) {
        arithmetic("f32", F32, &operands, false, true);
        arithmetic("f32", F32, &operands, true, true);
    }

    #[test]
    fn f64_arithmetic(operands in floats(F64)) {
        arithmetic("f64", F64, &operands[..24], false, false);
    }

    #[test]
    fn minimum_and_maximum(singles in floats(F32), doubles in floats(F64), halves in floats(F16), brains in floats(BF16)) {
        for (name, format, operands) in [("f32", F32, &singles), ("f64", F64, &doubles), ("f16", F16, &halves), ("bf16", BF16, &brains)] {
            for (op, max) in [("min", false), ("max", true)] {
                check(format!("{op}.{name} {{d}}, {{a}}, {{b}};"), format, 2, operands, |[a, b, ..]| min_max(format, max, a, b));
                if format == F64 {
                    continue;
                }
                check(format!("{op}.NaN.{name} {{d}}, {{a}}, {{b}};"), format, 2, operands, |[a, b, ..]| {
                    if format.is_nan(a) || format.is_nan(b) { format.nan() } else { min_max(format, max, a, b) }
                });
                check(format!("{op}.xorsign.abs.{name} {{d}}, {{a}}, {{b}};"), format, 2, operands, |[a, b, ..]| {
                    let magnitude = format.sign() - 1;
                    let chosen = min_max(format, max, a & magnitude, b & magnitude);
                    if format.is_nan(chosen) { format.nan() } else { chosen & magnitude | (a ^ b) & format.sign() }
                });
            }
        }
        check("min.ftz.f32 {d}, {a}, {b};".into(), F32, 2, &singles, |[a, b, ..]| min_max(F32, false, F32.flush(a, true), F32.flush(b, true)));
    }

    #[test]
    fn signs(singles in floats(F32), doubles in floats(F64), halves in floats(F16), brains in floats(BF16)) {
        for (name, format, operands) in [("f32", F32, &singles), ("f64", F64, &doubles), ("f16", F16, &halves), ("bf16", BF16, &brains)] {
            check(format!("neg.{name} {{d}}, {{a}};"), format, 1, operands, |[a, ..]| a ^ format.sign());
            check(format!("abs.{name} {{d}}, {{a}};"), format, 1, operands, |[a, ..]| a & (format.sign() - 1));
        }
        check("neg.ftz.f32 {d}, {a};".into(), F32, 1, &singles, |[a, ..]| F32.flush(a, true) ^ F32.sign());
        check("abs.ftz.f32 {d}, {a};".into(), F32, 1, &singles, |[a, ..]| F32.flush(a, true) & (F32.sign() - 1));
        check("copysign.f32 {d}, {a}, {b};".into(), F32, 2, &singles, |[a, b, ..]| a & F32.sign() | b & (F32.sign() - 1));
        check("copysign.f64 {d}, {a}, {b};".into(), F64, 2, &doubles, |[a, b, ..]| a & F64.sign() | b & (F64.sign() - 1));
    }

    #[test]
    fn ordering(singles in floats(F32), doubles in floats(F64), halves in floats(F16), brains in floats(BF16)) {
        comparisons("f32", F32, &singles);
        comparisons("f64", F64, &doubles);
        comparisons("f16", F16, &halves);
        comparisons("bf16", BF16, &brains);
        let form = Form { text: "setp.lt.ftz.f32 {d}, {a}, {b};", result: 1, operands: &[32, 32] };
        form.check(&singles, |[a, b, ..]| {
            let (a, b) = (F32.flush(a, true), F32.flush(b, true));
            u64::from(!F32.is_nan(a) && !F32.is_nan(b) && F32.value(a) < F32.value(b))
        });
        let form = Form { text: "set.gt.u32.f32 {d}, {a}, {b};", result: 32, operands: &[32, 32] };
        form.check(&singles, |[a, b, ..]| {
            if !F32.is_nan(a) && !F32.is_nan(b) && F32.value(a) > F32.value(b) { 0xffff_ffff } else { 0 }
        });
        let greater = |format: Format, a: u64, b: u64| !format.is_nan(a) && !format.is_nan(b) && format.value(a) > format.value(b);
        for (result, yes) in [("u16", 0xffff), ("s16", 0xffff), ("u32", 0xffff_ffff), ("s32", 0xffff_ffff), ("f16", 0x3c00), ("bf16", 0x3f80)] {
            for (name, format, operands) in [("f16", F16, &halves), ("bf16", BF16, &brains)] {
                if (result, name) == ("f16", "bf16") {
                    continue;
                }
                let bits = if result.ends_with("32") { 32 } else { 16 };
                let form = Form { text: format!("set.gt.{result}.{name} {{d}}, {{a}}, {{b}};").leak(), result: bits, operands: &[16, 16] };
                form.check(operands, |[a, b, ..]| if greater(format, a, b) { yes } else { 0 });
            }
        }
        for (text, yes) in [("set.gt.f32.f32 {d}, {a}, {b};", 0x3f80_0000), ("set.gt.s32.f32 {d}, {a}, {b};", 0xffff_ffff), ("set.gt.f16.f32 {d}, {a}, {b};", 0x3c00), ("set.gt.bf16.f32 {d}, {a}, {b};", 0x3f80)] {
            let form = Form { text, result: if yes < 0x10000 { 16 } else { 32 }, operands: &[32, 32] };
            form.check(&singles, |[a, b, ..]| if greater(F32, a, b) { yes } else { 0 });
        }
    }

    #[test]
    fn tests_of_kind(singles in floats(F32), doubles in floats(F64)) {
        for (name, format, operands) in [("f32", F32, &singles), ("f64", F64, &doubles)] {
            for (kind, holds) in [
                ("finite", Format::is_finite as fn(Format, u64) -> bool),
                ("infinite", |format, bits| !format.is_finite(bits) && !format.is_nan(bits)),
                ("number", |format, bits| !format.is_nan(bits)),
                ("notanumber", Format::is_nan),
                ("normal", |format, bits| format.is_finite(bits) && !format.is_zero(bits) && !format.is_subnormal(bits)),
                ("subnormal", Format::is_subnormal),
            ] {
                let form = Form {
                    text: format!("testp.{kind}.{name} {{d}}, {{a}};").leak(),
                    result: 1,
                    operands: if format == F32 { &[32] } else { &[64] },
                };
                form.check(operands, |[a, ..]| holds(format, a).into());
            }
        }
    }

    #[test]
    fn halves(halves in floats(F16), brains in floats(BF16)) {
        for (name, format, operands) in [("f16", F16, &halves), ("bf16", BF16, &brains)] {
            check(format!("add.{name} {{d}}, {{a}}, {{b}};"), format, 2, operands, |[a, b, ..]| format.fma(a, None, Some(b), Round::Nearest));
            check(format!("sub.rn.{name} {{d}}, {{a}}, {{b}};"), format, 2, operands, |[a, b, ..]| format.fma(a, None, Some(b ^ 0x8000), Round::Nearest));
            check(format!("mul.{name} {{d}}, {{a}}, {{b}};"), format, 2, operands, |[a, b, ..]| format.fma(a, Some(b), None, Round::Nearest));
            check(format!("fma.rn.{name} {{d}}, {{a}}, {{b}}, {{c}};"), format, 3, operands, |[a, b, c, _]| format.fma(a, Some(b), Some(c), Round::Nearest));
            check(format!("fma.rn.relu.{name} {{d}}, {{a}}, {{b}}, {{c}};"), format, 3, operands, |[a, b, c, _]| {
                let result = format.fma(a, Some(b), Some(c), Round::Nearest);
                if format.is_negative(result) { 0 } else { result }
            });
        }
        let flush = |bits| F16.flush(bits, true);
        check("add.ftz.f16 {d}, {a}, {b};".into(), F16, 2, &halves, |[a, b, ..]| flush(F16.fma(flush(a), None, Some(flush(b)), Round::Nearest)));
        check("mul.ftz.sat.f16 {d}, {a}, {b};".into(), F16, 2, &halves, |[a, b, ..]| F16.saturate(flush(F16.fma(flush(a), Some(flush(b)), None, Round::Nearest))));
        check("fma.rn.sat.f16 {d}, {a}, {b}, {c};".into(), F16, 3, &halves, |[a, b, c, _]| F16.saturate(F16.fma(a, Some(b), Some(c), Round::Nearest)));
    }

    /// Pairs are two lanes that do not know of each other.
    #[test]
    fn pairs(halves in floats(F16), brains in floats(BF16)) {
        for (name, format, operands) in [("f16x2", F16, &halves), ("bf16x2", BF16, &brains)] {
            let packed: Vec<Operands> = operands.chunks_exact(2).map(|two| {
                std::array::from_fn(|index| two[1][index] << 16 | two[0][index])
            }).collect();
            let each = |operands: Operands, f: &dyn Fn(Operands) -> u64| {
                f(operands.map(|bits| bits >> 16 & 0xffff)) << 16 | f(operands.map(|bits| bits & 0xffff))
            };
            let run = |text: String, count: usize, f: &dyn Fn(Operands) -> u64| {
                let form = Form { text: text.leak(), result: 32, operands: &[32, 32, 32][..count] };
                form.check(&packed, |operands| each(operands, f));
            };
            run(format!("add.{name} {{d}}, {{a}}, {{b}};"), 2, &|[a, b, ..]| format.fma(a, None, Some(b), Round::Nearest));
            run(format!("mul.{name} {{d}}, {{a}}, {{b}};"), 2, &|[a, b, ..]| format.fma(a, Some(b), None, Round::Nearest));
            run(format!("fma.rn.{name} {{d}}, {{a}}, {{b}}, {{c}};"), 3, &|[a, b, c, _]| format.fma(a, Some(b), Some(c), Round::Nearest));
            run(format!("max.{name} {{d}}, {{a}}, {{b}};"), 2, &|[a, b, ..]| min_max(format, true, a, b));
            run(format!("neg.{name} {{d}}, {{a}};"), 1, &|[a, ..]| a ^ 0x8000);
            let one = format.round(&num_traits::One::one(), Round::Nearest);
            for (result, yes) in [(name, one), ("u32", 0xffff), ("s32", 0xffff)] {
                run(format!("set.le.{result}.{name} {{d}}, {{a}}, {{b}};"), 2, &|[a, b, ..]| {
                    if !format.is_nan(a) && !format.is_nan(b) && format.value(a) <= format.value(b) { yes } else { 0 }
                });
            }
            for (half, shift) in [("{d}|_", 0), ("_|{d}", 16)] {
                let form = Form { text: format!("setp.ge.{name} {half}, {{a}}, {{b}};").leak(), result: 1, operands: &[32, 32] };
                form.check(&packed, |[a, b, ..]| {
                    let (a, b) = (a >> shift & 0xffff, b >> shift & 0xffff);
                    u64::from(!format.is_nan(a) && !format.is_nan(b) && format.value(a) >= format.value(b))
                });
            }
        }
    }
}

/// Approximate functions: within the error that the ISA states, measured against `f64`.
#[test]
fn approximate_functions() {
    type Function = fn(f64) -> f64;
    let positive: Vec<f32> = (1..4000).map(|i| i as f32 * 0.037).collect();
    let around: Vec<f32> = (-2000..2000).map(|i| i as f32 * 0.00311).collect();
    let cases: [(&str, Function, &[f32], f64, f64); 8] = [
        ("rcp.approx.f32", |x| 1.0 / x, &positive, 1.2e-7, 0.0),
        ("sqrt.approx.f32", f64::sqrt, &positive, 1.2e-7, 0.0),
        (
            "rsqrt.approx.f32",
            |x| 1.0 / x.sqrt(),
            &positive,
            1.8e-7,
            0.0,
        ),
        ("ex2.approx.f32", f64::exp2, &around, 2.4e-7, 0.0),
        ("lg2.approx.f32", f64::log2, &positive, 2.4e-7, 4.8e-7),
        ("sin.approx.f32", f64::sin, &around, 0.0, 5.0e-7),
        ("cos.approx.f32", f64::cos, &around, 0.0, 5.0e-7),
        ("tanh.approx.f32", f64::tanh, &around, 4.9e-4, 0.0),
    ];
    for (name, function, inputs, relative, absolute) in cases {
        let form = Form {
            text: format!("{name} {{d}}, {{a}};").leak(),
            result: 32,
            operands: &[32],
        };
        let operands: Vec<Operands> = inputs
            .iter()
            .map(|x| [x.to_bits().into(), 0, 0, 0])
            .collect();
        for (&x, got) in inputs.iter().zip(form.run(&operands)) {
            let want = function(x.into());
            let error = (f64::from(f32::from_bits(got as u32)) - want).abs();
            assert!(
                error <= absolute + relative * want.abs(),
                "{name} of {x}: off by {error:e}"
            );
        }
    }
}

#[test]
fn approximate_functions_of_special_values() {
    let (infinity, nan) = (0x7f80_0000u64, 0x7fff_ffffu64);
    let (minus_infinity, minus_zero) = (0xff80_0000u64, 0x8000_0000u64);
    let one = 0x3f80_0000;
    // The tables of the ISA.
    for (name, cases) in [
        (
            "rcp.approx.f32",
            &[
                (infinity, 0),
                (minus_zero, minus_infinity),
                (0, infinity),
                (minus_infinity, minus_zero),
                (nan, nan),
            ][..],
        ),
        (
            "sqrt.approx.f32",
            &[
                (minus_infinity, nan),
                (minus_zero, minus_zero),
                (0, 0),
                (infinity, infinity),
            ],
        ),
        (
            "rsqrt.approx.f32",
            &[
                (minus_infinity, nan),
                (minus_zero, minus_infinity),
                (0, infinity),
                (infinity, 0),
                (nan, nan),
            ],
        ),
        (
            "ex2.approx.f32",
            &[
                (minus_infinity, 0),
                (0, one),
                (minus_zero, one),
                (infinity, infinity),
                (nan, nan),
            ],
        ),
        (
            "ex2.approx.ftz.f32",
            &[(0x8000_0001, one), (0x0000_0001, one)],
        ),
        (
            "lg2.approx.f32",
            &[
                (minus_infinity, nan),
                (0, minus_infinity),
                (minus_zero, minus_infinity),
                (infinity, infinity),
            ],
        ),
        (
            "sin.approx.f32",
            &[
                (minus_infinity, nan),
                (minus_zero, minus_zero),
                (0, 0),
                (infinity, nan),
            ],
        ),
        (
            "cos.approx.f32",
            &[
                (minus_infinity, nan),
                (minus_zero, one),
                (0, one),
                (infinity, nan),
            ],
        ),
        (
            "tanh.approx.f32",
            &[
                (minus_infinity, 0xbf80_0000),
                (minus_zero, minus_zero),
                (infinity, one),
            ],
        ),
    ] {
        let form = Form {
            text: format!("{name} {{d}}, {{a}};").leak(),
            result: 32,
            operands: &[32],
        };
        let operands: Vec<Operands> = cases.iter().map(|&(x, _)| [x, 0, 0, 0]).collect();
        for (&(x, want), got) in cases.iter().zip(form.run(&operands)) {
            assert_eq!(got, want, "{name} of {x:#x}");
        }
    }
}

/// `div.approx` and `div.full`, within 2 ulp.
#[test]
fn approximate_division() {
    for name in ["div.approx.f32", "div.full.f32", "div.approx.ftz.f32"] {
        let form = Form {
            text: format!("{name} {{d}}, {{a}}, {{b}};").leak(),
            result: 32,
            operands: &[32, 32],
        };
        let pairs: Vec<(f32, f32)> = (1..2000)
            .map(|i| (i as f32 * 1.7, 1000.5 - i as f32 * 0.3))
            .collect();
        let operands: Vec<Operands> = pairs
            .iter()
            .map(|(a, b)| [a.to_bits().into(), b.to_bits().into(), 0, 0])
            .collect();
        for (&(a, b), got) in pairs.iter().zip(form.run(&operands)) {
            let want = f64::from(a) / f64::from(b);
            let got = f64::from(f32::from_bits(got as u32));
            assert!(
                (got - want).abs() <= 2.4e-7 * want.abs(),
                "{name}: {a} / {b} = {got}"
            );
        }
    }
}

#[test]
fn approximate_halves() {
    let inputs: Vec<f32> = (-300..300).map(|i| i as f32 / 64.0).collect();
    for (name, function, bits) in [
        ("ex2.approx.f16", f64::exp2 as fn(f64) -> f64, F16),
        ("tanh.approx.f16", f64::tanh, F16),
        ("ex2.approx.ftz.bf16", f64::exp2, BF16),
        ("tanh.approx.bf16", f64::tanh, BF16),
    ] {
        let form = Form {
            text: format!("{name} {{d}}, {{a}};").leak(),
            result: 16,
            operands: &[16],
        };
        let exact = |x: f32| num_rational::BigRational::from_float(x).unwrap();
        let operands: Vec<Operands> = inputs
            .iter()
            .map(|&x| [bits.round(&exact(x), Round::Nearest), 0, 0, 0])
            .collect();
        for (operand, got) in operands.iter().zip(form.run(&operands)) {
            let x = num_traits::ToPrimitive::to_f64(&bits.value(operand[0])).unwrap();
            let got = num_traits::ToPrimitive::to_f64(&bits.value(got)).unwrap();
            let want = function(x);
            let unit = if bits == F16 { 9.8e-4 } else { 7.8e-3 };
            assert!(
                (got - want).abs() <= unit * want.abs() + 1e-7,
                "{name} of {x}: {got}, {want}"
            );
        }
    }
}

/// The `f64` reciprocals that give 20 bits of mantissa.
#[test]
fn coarse_reciprocals() {
    for (name, function) in [
        ("rcp.approx.ftz.f64", (|x| 1.0 / x) as fn(f64) -> f64),
        ("rsqrt.approx.ftz.f64", |x| 1.0 / x.sqrt()),
    ] {
        let form = Form {
            text: format!("{name} {{d}}, {{a}};").leak(),
            result: 64,
            operands: &[64],
        };
        let inputs: Vec<f64> = (1..500).map(|i| f64::from(i) * 0.73).collect();
        let operands: Vec<Operands> = inputs.iter().map(|x| [x.to_bits(), 0, 0, 0]).collect();
        for (&x, got) in inputs.iter().zip(form.run(&operands)) {
            assert_eq!(got & 0xffff_ffff, 0, "{name} of {x}");
            let error = (f64::from_bits(got) / function(x) - 1.0).abs();
            assert!(
                error < 1.0 / f64::from(1 << 20),
                "{name} of {x}: off by {error:e}"
            );
        }
    }
}
