//! `cvt`, against exact integers and exact rational arithmetic.

mod harness;

use harness::exact::{BF16, F16, F32, F64, Format, ROUNDS, Round, float, floats};
use harness::{Form, Operands, many};
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive};
use proptest::prelude::*;

const INTEGERS: [(&str, u32, bool); 8] = [
    ("u8", 8, false),
    ("s8", 8, true),
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

const FLOATS: [(&str, Format); 3] = [("f16", F16), ("f32", F32), ("f64", F64)];

fn value(bits: u64, width: u32, signed: bool) -> i128 {
    let cut = i128::from(bits) & ((1i128 << width) - 1);
    if signed && cut >> (width - 1) & 1 != 0 {
        cut - (1i128 << width)
    } else {
        cut
    }
}

fn range(width: u32, signed: bool) -> (i128, i128) {
    if signed {
        (-(1i128 << (width - 1)), (1i128 << (width - 1)) - 1)
    } else {
        (0, (1i128 << width) - 1)
    }
}

fn cut(value: i128, width: u32) -> u64 {
    (value & ((1i128 << width) - 1)) as u64
}

/// 8-bit types live in 16-bit registers.
fn register(width: u32) -> u32 {
    width.max(16)
}

fn widths(width: u32) -> &'static [u32] {
    match register(width) {
        16 => &[16],
        32 => &[32],
        _ => &[64],
    }
}

fn check(
    text: String,
    result: u32,
    operand: u32,
    operands: &[Operands],
    expected: impl Fn(u64) -> u64,
) {
    let form = Form {
        text: text.leak(),
        result,
        operands: widths(operand),
    };
    form.check(operands, |[a, ..]| expected(a));
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

/// The number that seven bits of a float of 8 bits stand for; nothing where they are infinity or NaN.
fn e4m3(bits: u64) -> Option<BigRational> {
    (bits != 0x7f).then(|| eighths(bits & 7, bits >> 3, 7, 8))
}

fn e5m2(bits: u64) -> Option<BigRational> {
    (bits < 0x7c).then(|| eighths(bits & 3, bits >> 2, 15, 4))
}

/// `mantissa / parts`, with a leading one where the exponent is not zero, times a power of two.
fn eighths(mantissa: u64, exponent: u64, bias: i32, parts: u64) -> BigRational {
    let lead = if exponent == 0 { 0 } else { parts };
    let two = BigRational::from_integer(2.into());
    let power = num_traits::pow::Pow::pow(two, exponent.max(1) as i32 - bias);
    BigRational::new((lead + mantissa).into(), parts.into()) * power
}

/// The nearest number, the even one of two; the largest where there is none beyond.
fn nearest_byte(value: fn(u64) -> Option<BigRational>, exact: &BigRational) -> u64 {
    let numbers: Vec<BigRational> = (0..0x80).map_while(value).collect();
    let distance = |at: usize| (&numbers[at] - exact).abs();
    (0..numbers.len())
        .min_by(|&a, &b| distance(a).cmp(&distance(b)).then((a % 2).cmp(&(b % 2))))
        .unwrap() as u64
}

/// All bytes, back to `f16`.
#[test]
fn floats_from_8_bits() {
    let operands: Vec<harness::Operands> = (0..256)
        .map(|bits| [bits << 8 | (255 - bits), 0, 0, 0])
        .collect();
    for (name, value) in [
        ("e4m3x2", e4m3 as fn(u64) -> Option<BigRational>),
        ("e5m2x2", e5m2),
    ] {
        for relu in [false, true] {
            let words = if relu { "relu." } else { "" };
            let widen = |bits: u64| {
                let negative = bits >> 7 & 1;
                match value(bits & 0x7f) {
                    None if name == "e5m2x2" && bits & 0x7f == 0x7c && !(relu && negative == 1) => {
                        F16.infinity() | negative << 15
                    }
                    None if name == "e5m2x2" && bits & 0x7f == 0x7c => 0,
                    None => F16.nan(),
                    Some(_) if relu && negative == 1 => 0,
                    Some(exact) => F16.round(&exact, Round::Nearest) | negative << 15,
                }
            };
            let form = Form {
                text: format!("cvt.rn.{words}f16x2.{name} {{d}}, {{a}};").leak(),
                result: 32,
                operands: &[16],
            };
            form.check(&operands, |[a, ..]| widen(a >> 8) << 16 | widen(a & 0xff));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]

    #[test]
    fn integers_to_integers(operands in many()) {
        for (from, from_width, from_signed) in INTEGERS {
            for (to, to_width, to_signed) in INTEGERS {
                if from == to {
                    continue;
                }
                let result = register(to_width);
                // Narrow results are extended to their register by their sign.
                check(format!("cvt.{to}.{from} {{d}}, {{a}};"), result, from_width, &operands, |a| {
                    let narrow = cut(value(a, from_width, from_signed), to_width);
                    cut(value(narrow, to_width, to_signed), result)
                });
                let (from_low, from_high) = range(from_width, from_signed);
                let (low, high) = range(to_width, to_signed);
                // The assembler takes `.sat` only where it can make a difference.
                if from_low < low || from_high > high {
                    check(format!("cvt.sat.{to}.{from} {{d}}, {{a}};"), result, from_width, &operands, |a| {
                        cut(value(a, from_width, from_signed).clamp(low, high), result)
                    });
                }
            }
        }
    }

    #[test]
    fn integers_to_floats(operands in many()) {
        for (from, width, signed) in INTEGERS {
            for (to, format) in FLOATS {
                for (mode, round) in ROUNDS {
                    check(format!("cvt.{mode}.{to}.{from} {{d}}, {{a}};"), format.bits(), width, &operands, |a| {
                        format.round(&BigRational::from_integer(value(a, width, signed).into()), round)
                    });
                }
            }
        }
    }

    #[test]
    fn floats_to_integers(singles in floats(F32), doubles in floats(F64), halves in floats(F16)) {
        for (from, format, operands) in [("f32", F32, &singles), ("f64", F64, &doubles), ("f16", F16, &halves)] {
            for (to, width, signed) in INTEGERS {
                for (mode, round) in ROUNDS {
                    let result = register(width);
                    let (low, high) = range(width, signed);
                    check(format!("cvt.{mode}i.{to}.{from} {{d}}, {{a}};"), result, format.bits(), operands, |a| {
                        if format.is_nan(a) {
                            // The ISA: zero, unless `.f64` or a 64-bit integer takes part.
                            let top = format == F64 || width == 64;
                            return cut(value(if top { 1 << (width - 1) } else { 0 }, width, signed), result);
                        }
                        if !format.is_finite(a) {
                            return cut(if format.is_negative(a) { low } else { high }, result);
                        }
                        cut(integral(&format.value(a), round).clamp(low, high), result)
                    });
                }
            }
        }
        let flushed = |a| integral(&F32.value(F32.flush(a, true)), Round::Up).clamp(i32::MIN.into(), i32::MAX.into());
        check("cvt.rpi.ftz.s32.f32 {d}, {a};".into(), 32, 32, &singles, |a| {
            if F32.is_nan(a) { 0 } else { cut(flushed(a), 32) }
        });
    }

    #[test]
    fn floats_to_narrower_floats(singles in floats(F32), doubles in floats(F64)) {
        fn narrow(from: Format, to: Format, bits: u64, round: Round) -> u64 {
            let sign = if from.is_negative(bits) { to.sign() } else { 0 };
            if from.is_nan(bits) {
                to.nan()
            } else if !from.is_finite(bits) {
                to.infinity() | sign
            } else if from.is_zero(bits) {
                sign
            } else {
                to.round(&from.value(bits), round)
            }
        }
        for (mode, round) in ROUNDS {
            check(format!("cvt.{mode}.f16.f32 {{d}}, {{a}};"), 16, 32, &singles, |a| narrow(F32, F16, a, round));
            check(format!("cvt.{mode}.f16.f64 {{d}}, {{a}};"), 16, 64, &doubles, |a| narrow(F64, F16, a, round));
            check(format!("cvt.{mode}.f32.f64 {{d}}, {{a}};"), 32, 64, &doubles, |a| narrow(F64, F32, a, round));
            check(format!("cvt.{mode}.ftz.f32.f64 {{d}}, {{a}};"), 32, 64, &doubles, |a| F32.flush(narrow(F64, F32, a, round), true));
            check(format!("cvt.{mode}.sat.f32.f64 {{d}}, {{a}};"), 32, 64, &doubles, |a| F32.saturate(narrow(F64, F32, a, round)));
        }
        for (mode, round) in [("rn", Round::Nearest), ("rz", Round::Zero)] {
            check(format!("cvt.{mode}.bf16.f32 {{d}}, {{a}};"), 16, 32, &singles, |a| narrow(F32, BF16, a, round));
            check(format!("cvt.{mode}.relu.bf16.f32 {{d}}, {{a}};"), 16, 32, &singles, |a| {
                let result = narrow(F32, BF16, a, round);
                if BF16.is_negative(result) { 0 } else { result }
            });
            for (name, format) in [("f16x2", F16), ("bf16x2", BF16)] {
                let form = Form { text: format!("cvt.{mode}.{name}.f32 {{d}}, {{a}}, {{b}};").leak(), result: 32, operands: &[32, 32] };
                // The first source goes to the upper half.
                form.check(&singles, |[a, b, ..]| narrow(F32, format, a, round) << 16 | narrow(F32, format, b, round));
            }
        }
        // 10 of the 23 bits of mantissa are kept.
        check("cvt.rna.tf32.f32 {d}, {a};".into(), 32, 32, &singles, |a| {
            let tf32 = Format { exponent: 8, mantissa: 10 };
            if F32.is_nan(a) {
                F32.nan()
            } else if !F32.is_finite(a) || F32.is_zero(a) {
                a
            } else {
                tf32.round(&F32.value(a), Round::Away) << 13
            }
        });
    }

    /// `.satfinite`: the largest number where there would be infinity.
    #[test]
    fn saturated_to_finite(singles in floats(F32)) {
        let finite = |format: Format, bits: u64| {
            let largest = format.infinity() - 1;
            if !format.is_finite(bits) && !format.is_nan(bits) { largest | (bits & format.sign()) } else { bits }
        };
        let narrow = |format: Format, bits: u64, round: Round| {
            if F32.is_nan(bits) {
                return format.nan();
            }
            let sign = if F32.is_negative(bits) { format.sign() } else { 0 };
            let bits = if F32.is_finite(bits) { format.round(&F32.value(bits), round) | sign } else { format.infinity() | sign };
            finite(format, bits)
        };
        for (name, format) in [("f16", F16), ("bf16", BF16)] {
            for (mode, round) in [("rn", Round::Nearest), ("rz", Round::Zero)] {
                check(format!("cvt.{mode}.satfinite.{name}.f32 {{d}}, {{a}};"), 16, 32, &singles, |a| narrow(format, a, round));
                let form = Form { text: format!("cvt.{mode}.relu.satfinite.{name}x2.f32 {{d}}, {{a}}, {{b}};").leak(), result: 32, operands: &[32, 32] };
                form.check(&singles, |[a, b, ..]| {
                    let relu = |bits: u64| {
                        let result = narrow(format, bits, round);
                        if format.is_negative(result) { 0 } else { result }
                    };
                    relu(a) << 16 | relu(b)
                });
            }
        }
        check("cvt.rna.satfinite.tf32.f32 {d}, {a};".into(), 32, 32, &singles, |a| {
            let tf32 = Format { exponent: 8, mantissa: 10 };
            if F32.is_nan(a) { F32.nan() } else { narrow(tf32, a, Round::Away) << 13 }
        });
    }

    #[test]
    fn floats_of_8_bits(singles in floats(F32), halves in floats(F16)) {
        for (name, value) in [("e4m3x2", e4m3 as fn(u64) -> Option<BigRational>), ("e5m2x2", e5m2)] {
            for relu in [false, true] {
                let words = if relu { "relu." } else { "" };
                let round = |from: Format, bits: u64| {
                    if from.is_nan(bits) {
                        0x7f
                    } else if relu && from.is_negative(bits) {
                        0
                    } else {
                        nearest_byte(value, &from.value(bits).abs()) | u64::from(from.is_negative(bits)) << 7
                    }
                };
                let form = Form { text: format!("cvt.rn.satfinite.{words}{name}.f32 {{d}}, {{a}}, {{b}};").leak(), result: 16, operands: &[32, 32] };
                form.check(&singles, |[a, b, ..]| round(F32, a) << 8 | round(F32, b));
                let packed: Vec<harness::Operands> = halves.iter().map(|&[a, b, ..]| [a << 16 | b, 0, 0, 0]).collect();
                let form = Form { text: format!("cvt.rn.satfinite.{words}{name}.f16x2 {{d}}, {{a}};").leak(), result: 16, operands: &[32] };
                form.check(&packed, |[a, ..]| round(F16, a >> 16) << 8 | round(F16, a & 0xffff));
            }
        }
    }

    #[test]
    fn floats_to_wider_floats(singles in floats(F32), halves in floats(F16), brains in floats(BF16)) {
        fn widen(from: Format, to: Format, bits: u64) -> u64 {
            let sign = if from.is_negative(bits) { to.sign() } else { 0 };
            if from.is_nan(bits) {
                to.nan()
            } else if !from.is_finite(bits) {
                to.infinity() | sign
            } else {
                to.round(&from.value(bits), Round::Zero) | sign
            }
        }
        check("cvt.f64.f32 {d}, {a};".into(), 64, 32, &singles, |a| widen(F32, F64, a));
        check("cvt.ftz.f64.f32 {d}, {a};".into(), 64, 32, &singles, |a| widen(F32, F64, F32.flush(a, true)));
        check("cvt.f32.f16 {d}, {a};".into(), 32, 16, &halves, |a| widen(F16, F32, a));
        check("cvt.f64.f16 {d}, {a};".into(), 64, 16, &halves, |a| widen(F16, F64, a));
        check("cvt.f32.bf16 {d}, {a};".into(), 32, 16, &brains, |a| widen(BF16, F32, a));
        check("cvt.sat.f32.f32 {d}, {a};".into(), 32, 32, &singles, |a| F32.saturate(a));
    }

    #[test]
    fn floats_to_integral_floats(singles in floats(F32), doubles in floats(F64), halves in floats(F16)) {
        for (name, format, operands) in [("f32", F32, &singles), ("f64", F64, &doubles), ("f16", F16, &halves)] {
            for (mode, round) in ROUNDS {
                check(format!("cvt.{mode}i.{name}.{name} {{d}}, {{a}};"), format.bits(), format.bits(), operands, |a| {
                    if format.is_nan(a) {
                        return format.nan();
                    }
                    // Beyond 2^60 every number is integral.
                    let exact = format.value(a);
                    if !format.is_finite(a) || exact.abs() > BigRational::from_integer((1i64 << 60).into()) {
                        return a;
                    }
                    let whole = BigRational::from_integer(integral(&exact, round).into());
                    format.round(&whole, Round::Nearest) | a & format.sign()
                });
            }
        }
    }

    /// Registers may be wider than the types.
    #[test]
    fn wide_registers(operands in many()) {
        let form = Form { text: "cvt.s8.s32 {d}, {a};", result: 32, operands: &[32] };
        form.check(&operands, |[a, ..]| (a as i8 as i32 as u32).into());
        let form = Form { text: "cvt.u8.u32 {d}, {a};", result: 64, operands: &[64] };
        form.check(&operands, |[a, ..]| a & 0xff);
        let form = Form { text: "cvt.s64.s8 {d}, {a};", result: 64, operands: &[32] };
        form.check(&operands, |[a, ..]| a as i8 as i64 as u64);
    }

    #[test]
    fn packing(operands in many()) {
        for (name, bits, signed) in [("u16", 16, false), ("s16", 16, true)] {
            let form = Form { text: format!("cvt.pack.sat.{name}.s32 {{d}}, {{a}}, {{b}};").leak(), result: 32, operands: &[32, 32] };
            let (low, high) = range(bits, signed);
            let one = |x: u64| cut(value(x, 32, true).clamp(low, high), bits);
            form.check(&operands, |[a, b, ..]| one(a) << 16 | one(b));
        }
        for (name, bits, signed) in [("u8", 8, false), ("s8", 8, true)] {
            let form = Form { text: format!("cvt.pack.sat.{name}.s32.b32 {{d}}, {{a}}, {{b}}, {{c}};").leak(), result: 32, operands: &[32, 32, 32] };
            let (low, high) = range(bits, signed);
            let one = |x: u64| cut(value(x, 32, true).clamp(low, high), bits);
            form.check(&operands, |[a, b, c, _]| c << 16 & 0xffff_ffff | one(a) << 8 | one(b));
        }
    }

    #[test]
    fn generic_addresses(address in 0u64..1 << 40) {
        for space in ["global", "shared", "local", "const"] {
            let form = Form {
                text: format!("{{.reg .b64 g; cvta.{space}.u64 g, {{a}}; cvta.to.{space}.u64 {{d}}, g;}}").leak(),
                result: 64,
                operands: &[64],
            };
            form.check(&[[address, 0, 0, 0]], |[a, ..]| a);
        }
    }

    /// The oracle itself, against the host where the host knows the answer.
    #[test]
    fn oracle(a in float(F32), b in float(F32)) {
        let (x, y) = (f32::from_bits(a as u32), f32::from_bits(b as u32));
        let sum = F32.fma(a, None, Some(b), Round::Nearest);
        prop_assert!((x + y).is_nan() && F32.is_nan(sum) || (x + y).to_bits() == sum as u32);
        let quotient = F32.div(a, b, Round::Nearest);
        prop_assert!((x / y).is_nan() && F32.is_nan(quotient) || (x / y).to_bits() == quotient as u32);
    }
}
