//! Comparisons and selections of integers, each form against exact arithmetic on `i128`.

mod harness;

use harness::{Form, Operands, many};
use proptest::prelude::*;

/// The value of the low bits, signed or not.
fn value(bits: u64, width: u32, signed: bool) -> i128 {
    let cut = i128::from(bits) & ((1i128 << width) - 1);
    if signed && cut >> (width - 1) & 1 != 0 {
        cut - (1i128 << width)
    } else {
        cut
    }
}

fn cut(value: i128, width: u32) -> u64 {
    (value & ((1i128 << width) - 1)) as u64
}

/// Forms whose operands differ in type. The closure gets the raw bits.
fn check(
    text: &'static str,
    result: u32,
    widths: &'static [u32],
    operands: &[Operands],
    expected: impl Fn(Operands) -> u64,
) {
    let form = Form {
        text,
        result,
        operands: widths,
    };
    form.check(operands, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn comparisons(operands in many()) {
        macro_rules! compare {
            ($($op:literal $meaning:expr;)*) => {$(
                for (text, width, signed) in [
                    (concat!("setp.", $op, ".u16 {d}, {a}, {b};"), 16, false),
                    (concat!("setp.", $op, ".s16 {d}, {a}, {b};"), 16, true),
                    (concat!("setp.", $op, ".u32 {d}, {a}, {b};"), 32, false),
                    (concat!("setp.", $op, ".s32 {d}, {a}, {b};"), 32, true),
                    (concat!("setp.", $op, ".u64 {d}, {a}, {b};"), 64, false),
                    (concat!("setp.", $op, ".s64 {d}, {a}, {b};"), 64, true),
                ] {
                    let widths: &[u32] = match width {
                        16 => &[16, 16],
                        32 => &[32, 32],
                        _ => &[64, 64],
                    };
                    let meaning: fn(&i128, &i128) -> bool = $meaning;
                    check(text, 1, widths, &operands, |[a, b, ..]| {
                        meaning(&value(a, width, signed), &value(b, width, signed)).into()
                    });
                }
            )*};
        }
        compare! {
            "eq" i128::eq;
            "ne" i128::ne;
            "lt" i128::lt;
            "le" i128::le;
            "gt" i128::gt;
            "ge" i128::ge;
        }
        for (text, op) in [
            ("setp.lo.u32 {d}, {a}, {b};", u32::lt as fn(&u32, &u32) -> bool),
            ("setp.ls.u32 {d}, {a}, {b};", u32::le),
            ("setp.hi.u32 {d}, {a}, {b};", u32::gt),
            ("setp.hs.u32 {d}, {a}, {b};", u32::ge),
        ] {
            check(text, 1, &[32, 32], &operands, |[a, b, ..]| op(&(a as u32), &(b as u32)).into());
        }
    }

    #[test]
    fn combined_comparisons(operands in many()) {
        let operands: Vec<Operands> = operands.iter().map(|&[a, b, c, _]| [a, b, c & 1, 0]).collect();
        let less = |a: u64, b: u64| (a as i32) < b as i32;
        check("setp.lt.and.s32 {d}, {a}, {b}, {c};", 1, &[32, 32, 1], &operands, |[a, b, c, _]| (less(a, b) & (c != 0)).into());
        check("setp.lt.or.s32 {d}, {a}, {b}, {c};", 1, &[32, 32, 1], &operands, |[a, b, c, _]| (less(a, b) | (c != 0)).into());
        check("setp.lt.xor.s32 {d}, {a}, {b}, !{c};", 1, &[32, 32, 1], &operands, |[a, b, c, _]| (less(a, b) ^ (c == 0)).into());
        // The second predicate is that of the negated comparison.
        check("{.reg .pred first; setp.lt.and.s32 first|{d}, {a}, {b}, {c};}", 1, &[32, 32, 1], &operands, |[a, b, c, _]| (!less(a, b) & (c != 0)).into());
        check("set.lt.u32.s32 {d}, {a}, {b};", 32, &[32, 32], &operands, |[a, b, ..]| if less(a, b) { 0xffff_ffff } else { 0 });
        check("set.lt.f32.s32 {d}, {a}, {b};", 32, &[32, 32], &operands, |[a, b, ..]| if less(a, b) { 0x3f80_0000 } else { 0 });
        check("{.reg .pred q; and.pred q, {c}, {c}; not.pred {d}, q;}", 1, &[32, 32, 1], &operands, |[_, _, c, _]| u64::from(c == 0));
        check("{.reg .pred q, r; setp.eq.s32 q, {a}, {b}; or.pred r, q, {c}; xor.pred {d}, r, q;}", 1, &[32, 32, 1], &operands, |[a, b, c, _]| {
            let q = a as u32 == b as u32;
            ((q | (c != 0)) ^ q).into()
        });
        check("{.reg .pred q; lop3.or.b32 _|{d}, {a}, {b}, {b}, 0x96, {c};}", 1, &[32, 32, 1], &operands, |[a, _, c, _]| {
            // a ^ b ^ b
            u64::from(a as u32 != 0 || c != 0)
        });
    }

    #[test]
    fn selection(operands in many()) {
        let choices: Vec<Operands> = operands.iter().map(|&[a, b, c, _]| [a, b, c & 1, 0]).collect();
        check("selp.b16 {d}, {a}, {b}, {c};", 16, &[16, 16, 1], &choices, |[a, b, c, _]| if c != 0 { a & 0xffff } else { b & 0xffff });
        check("selp.b32 {d}, {a}, {b}, {c};", 32, &[32, 32, 1], &choices, |[a, b, c, _]| cut(if c != 0 { a } else { b }.into(), 32));
        check("selp.f32 {d}, {a}, {b}, {c};", 32, &[32, 32, 1], &choices, |[a, b, c, _]| cut(if c != 0 { a } else { b }.into(), 32));
        check("selp.b64 {d}, {a}, {b}, {c};", 64, &[64, 64, 1], &choices, |[a, b, c, _]| if c != 0 { a } else { b });
        check("slct.u32.s32 {d}, {a}, {b}, {c};", 32, &[32, 32, 32], &operands, |[a, b, c, _]| cut(if c as i32 >= 0 { a } else { b }.into(), 32));
        check("slct.b64.f32 {d}, {a}, {b}, {c};", 64, &[64, 64, 32], &operands, |[a, b, c, _]| if f32::from_bits(c as u32) >= 0.0 { a } else { b });
    }
}
