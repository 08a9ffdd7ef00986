//! Integer instructions, each form against exact arithmetic on `i128`.

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

/// A form of two or three operands of one type, with its meaning in exact integers.
macro_rules! uniform {
    ($name:ident, $count:tt, [$($ty:ident),*], $text:literal, $meaning:expr) => {
        mod $name {
            use super::*;
            $(
                proptest! {
                    #![proptest_config(ProptestConfig::with_cases(8))]
                    #[test]
                    fn $ty(operands in many()) {
                        let ty = stringify!($ty);
                        let (signed, width) = (&ty[..1] == "s", ty[1..].parse::<u32>().unwrap());
                        let widths: &'static [u32] = match width {
                            16 => &[16; $count],
                            32 => &[32; $count],
                            _ => &[64; $count],
                        };
                        let form = Form {
                            text: concat!($text, ".", stringify!($ty), " {d}, ", uniform!(@list $count), ";"),
                            result: width,
                            operands: widths,
                        };
                        let meaning: fn([i128; 3], u32, bool) -> i128 = $meaning;
                        form.check(&operands, |[a, b, c, _]| {
                            let exact = [a, b, c].map(|bits| value(bits, width, signed));
                            cut(meaning(exact, width, signed), width)
                        });
                    }
                }
            )*
        }
    };
    (@list 1) => { "{a}" };
    (@list 2) => { "{a}, {b}" };
    (@list 3) => { "{a}, {b}, {c}" };
}

uniform!(
    add,
    2,
    [u16, s16, u32, s32, u64, s64],
    "add",
    |[a, b, _], _, _| a + b
);
uniform!(
    sub,
    2,
    [u16, s16, u32, s32, u64, s64],
    "sub",
    |[a, b, _], _, _| a - b
);
uniform!(
    mul_lo,
    2,
    [u16, s16, u32, s32, u64, s64],
    "mul.lo",
    |[a, b, _], _, _| a.wrapping_mul(b)
);
uniform!(
    mul_hi,
    2,
    [u16, s16, u32, s32, s64],
    "mul.hi",
    |[a, b, _], w, _| (a * b) >> w
);
uniform!(
    mad_lo,
    3,
    [u16, s16, u32, s32, u64, s64],
    "mad.lo",
    |[a, b, c], _, _| { a.wrapping_mul(b).wrapping_add(c) }
);
uniform!(
    mad_hi,
    3,
    [u16, s16, u32, s32, s64],
    "mad.hi",
    |[a, b, c], w, _| ((a * b) >> w) + c
);
uniform!(
    min,
    2,
    [u16, s16, u32, s32, u64, s64],
    "min",
    |[a, b, _], _, _| a.min(b)
);
uniform!(
    max,
    2,
    [u16, s16, u32, s32, u64, s64],
    "max",
    |[a, b, _], _, _| a.max(b)
);
uniform!(
    sad,
    3,
    [u16, s16, u32, s32, u64, s64],
    "sad",
    |[a, b, c], _, _| c + (a - b).abs()
);
uniform!(neg, 1, [s16, s32, s64], "neg", |[a, ..], _, _| -a);
uniform!(abs, 1, [s16, s32, s64], "abs", |[a, ..], _, _| a.abs());
uniform!(and, 2, [b16, b32, b64], "and", |[a, b, _], _, _| a & b);
uniform!(or, 2, [b16, b32, b64], "or", |[a, b, _], _, _| a | b);
uniform!(xor, 2, [b16, b32, b64], "xor", |[a, b, _], _, _| a ^ b);
uniform!(not, 1, [b16, b32, b64], "not", |[a, ..], _, _| !a);
uniform!(
    cnot,
    1,
    [b16, b32, b64],
    "cnot",
    |[a, ..], _, _| i128::from(a == 0)
);
uniform!(brev, 1, [b32, b64], "brev", |[a, ..], w, _| {
    (0..w).map(|bit| (a >> bit & 1) << (w - 1 - bit)).sum()
});
uniform!(min_relu, 2, [s32], "min.relu", |[a, b, _], _, _| a
    .min(b)
    .max(0));
uniform!(max_relu, 2, [s32], "max.relu", |[a, b, _], _, _| a
    .max(b)
    .max(0));
uniform!(add_sat, 2, [s32], "add.sat", |[a, b, _], _, _| (a + b)
    .clamp(i32::MIN.into(), i32::MAX.into()));
uniform!(sub_sat, 2, [s32], "sub.sat", |[a, b, _], _, _| (a - b)
    .clamp(i32::MIN.into(), i32::MAX.into()));
uniform!(mad_hi_sat, 3, [s32], "mad.hi.sat", |[a, b, c], _, _| (((a
    * b)
    >> 32)
    + c)
    .clamp(i32::MIN.into(), i32::MAX.into()));

/// The low 24 bits, as `mul24` takes them.
fn low24(value: i128, signed: bool) -> i128 {
    self::value((value & 0xff_ffff) as u64, 24, signed)
}
uniform!(
    mul24_lo,
    2,
    [u32, s32],
    "mul24.lo",
    |[a, b, _], _, s| low24(a, s) * low24(b, s)
);
uniform!(mul24_hi, 2, [u32, s32], "mul24.hi", |[a, b, _], _, s| {
    (low24(a, s) * low24(b, s)) >> 16
});
uniform!(
    mad24_lo,
    3,
    [u32, s32],
    "mad24.lo",
    |[a, b, c], _, s| low24(a, s) * low24(b, s) + c
);
uniform!(mad24_hi, 3, [u32, s32], "mad24.hi", |[a, b, c], _, s| {
    ((low24(a, s) * low24(b, s)) >> 16) + c
});

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

    /// Pairs of 16 bits are two numbers that do not know of each other.
    #[test]
    fn pairs(operands in many()) {
        type Half = fn(i128, i128) -> i128;
        let forms: [(&str, bool, Half); 8] = [
            ("add.u16x2", false, |a, b| a + b),
            ("add.s16x2", true, |a, b| a + b),
            ("min.u16x2", false, |a, b| a.min(b)),
            ("max.u16x2", false, |a, b| a.max(b)),
            ("min.s16x2", true, |a, b| a.min(b)),
            ("max.s16x2", true, |a, b| a.max(b)),
            ("min.s16x2.relu", true, |a, b| a.min(b).max(0)),
            ("max.relu.s16x2", true, |a, b| a.max(b).max(0)),
        ];
        for (name, signed, f) in forms {
            let form = Form { text: format!("{name} {{d}}, {{a}}, {{b}};").leak(), result: 32, operands: &[32, 32] };
            form.check(&operands, |[a, b, ..]| {
                let half = |shift: u32| cut(f(value(a >> shift, 16, signed), value(b >> shift, 16, signed)), 16) << shift;
                half(16) | half(0)
            });
        }
    }

    #[test]
    fn mul_hi_u64(operands in many()) {
        check("mul.hi.u64 {d}, {a}, {b};", 64, &[64, 64], &operands, |[a, b, ..]| {
            ((u128::from(a) * u128::from(b)) >> 64) as u64
        });
    }

    #[test]
    fn wide(operands in many()) {
        for (text, width, signed) in [
            ("mul.wide.u16 {d}, {a}, {b};", 16, false),
            ("mul.wide.s16 {d}, {a}, {b};", 16, true),
            ("mul.wide.u32 {d}, {a}, {b};", 32, false),
            ("mul.wide.s32 {d}, {a}, {b};", 32, true),
        ] {
            let widths: &[u32] = if width == 16 { &[16, 16] } else { &[32, 32] };
            check(text, 2 * width, widths, &operands, |[a, b, ..]| {
                cut(value(a, width, signed) * value(b, width, signed), 2 * width)
            });
        }
        for (text, width, signed) in [
            ("mad.wide.u16 {d}, {a}, {b}, {c};", 16, false),
            ("mad.wide.s16 {d}, {a}, {b}, {c};", 16, true),
            ("mad.wide.u32 {d}, {a}, {b}, {c};", 32, false),
            ("mad.wide.s32 {d}, {a}, {b}, {c};", 32, true),
        ] {
            let widths: &[u32] = if width == 16 { &[16, 16, 32] } else { &[32, 32, 64] };
            check(text, 2 * width, widths, &operands, |[a, b, c, _]| {
                let product = value(a, width, signed) * value(b, width, signed);
                cut(product + value(c, 2 * width, signed), 2 * width)
            });
        }
    }

    #[test]
    fn division(mut operands in many()) {
        for (div, rem, width, signed) in [
            ("div.u16 {d}, {a}, {b};", "rem.u16 {d}, {a}, {b};", 16, false),
            ("div.s16 {d}, {a}, {b};", "rem.s16 {d}, {a}, {b};", 16, true),
            ("div.u32 {d}, {a}, {b};", "rem.u32 {d}, {a}, {b};", 32, false),
            ("div.s32 {d}, {a}, {b};", "rem.s32 {d}, {a}, {b};", 32, true),
            ("div.u64 {d}, {a}, {b};", "rem.u64 {d}, {a}, {b};", 64, false),
            ("div.s64 {d}, {a}, {b};", "rem.s64 {d}, {a}, {b};", 64, true),
        ] {
            for tuple in &mut operands {
                if cut(tuple[1].into(), width) == 0 {
                    tuple[1] = 7;
                }
            }
            let widths: &[u32] = match width {
                16 => &[16, 16],
                32 => &[32, 32],
                _ => &[64, 64],
            };
            check(div, width, widths, &operands, |[a, b, ..]| {
                cut(value(a, width, signed) / value(b, width, signed), width)
            });
            check(rem, width, widths, &operands, |[a, b, ..]| {
                cut(value(a, width, signed) % value(b, width, signed), width)
            });
        }
    }

    #[test]
    fn shifts(operands in many()) {
        for (text, width, signed, left) in [
            ("shl.b16 {d}, {a}, {b};", 16, false, true),
            ("shl.b32 {d}, {a}, {b};", 32, false, true),
            ("shl.b64 {d}, {a}, {b};", 64, false, true),
            ("shr.u16 {d}, {a}, {b};", 16, false, false),
            ("shr.s16 {d}, {a}, {b};", 16, true, false),
            ("shr.u32 {d}, {a}, {b};", 32, false, false),
            ("shr.b32 {d}, {a}, {b};", 32, false, false),
            ("shr.s32 {d}, {a}, {b};", 32, true, false),
            ("shr.u64 {d}, {a}, {b};", 64, false, false),
            ("shr.s64 {d}, {a}, {b};", 64, true, false),
        ] {
            let widths: &[u32] = match width {
                16 => &[16, 32],
                32 => &[32, 32],
                _ => &[64, 32],
            };
            check(text, width, widths, &operands, |[a, b, ..]| {
                let amount = (b as u32).min(width);
                let exact = value(a, width, signed);
                // Bits that are shifted out to the left never come back, so 64 bits of room are enough.
                cut(if left { (a as i128) << amount } else { exact >> amount }, width)
            });
        }
    }

    #[test]
    fn funnel_shifts(operands in many()) {
        for (text, left, clamp) in [
            ("shf.l.wrap.b32 {d}, {a}, {b}, {c};", true, false),
            ("shf.l.clamp.b32 {d}, {a}, {b}, {c};", true, true),
            ("shf.r.wrap.b32 {d}, {a}, {b}, {c};", false, false),
            ("shf.r.clamp.b32 {d}, {a}, {b}, {c};", false, true),
        ] {
            check(text, 32, &[32, 32, 32], &operands, |[a, b, c, _]| {
                let (a, b, c) = (a as u32, b as u32, c as u32);
                let n = if clamp { c.min(32) } else { c % 32 };
                u64::from(match (left, n) {
                    (true, 0) => b,
                    (true, 32) => a,
                    (true, n) => b << n | a >> (32 - n),
                    (false, 0) => a,
                    (false, 32) => b,
                    (false, n) => b << (32 - n) | a >> n,
                })
            });
        }
    }

    #[test]
    fn bit_counts(operands in many()) {
        check("clz.b32 {d}, {a};", 32, &[32], &operands, |[a, ..]| {
            (0..32).rev().take_while(|bit| a >> bit & 1 == 0).count() as u64
        });
        check("clz.b64 {d}, {a};", 32, &[64], &operands, |[a, ..]| {
            (0..64).rev().take_while(|bit| a >> bit & 1 == 0).count() as u64
        });
        check("popc.b32 {d}, {a};", 32, &[32], &operands, |[a, ..]| {
            (0..32).map(|bit| a >> bit & 1).sum()
        });
        check("popc.b64 {d}, {a};", 32, &[64], &operands, |[a, ..]| {
            (0..64).map(|bit| a >> bit & 1).sum()
        });
    }

    /// The ISA's own loops.
    #[test]
    fn bit_fields(operands in many()) {
        fn bfe(a: u64, b: u64, c: u64, width: u32, signed: bool) -> u64 {
            let (position, length) = (b as u32 & 0xff, c as u32 & 0xff);
            let top = width - 1;
            let sign = signed && length != 0 && a >> (position + length - 1).min(top) & 1 != 0;
            (0..width).fold(0, |d, i| {
                let bit = if i < length && position + i <= top {
                    a >> (position + i) & 1 != 0
                } else {
                    sign
                };
                d | u64::from(bit) << i
            })
        }
        fn bfi(a: u64, b: u64, c: u64, e: u64, width: u32) -> u64 {
            let (position, length) = (c as u32 & 0xff, e as u32 & 0xff);
            (0..length).fold(b & u64::MAX >> (64 - width), |f, i| {
                if position + i < width {
                    let at = position + i;
                    f & !(1 << at) | (a >> i & 1) << at
                } else {
                    f
                }
            })
        }
        check("bfe.u32 {d}, {a}, {b}, {c};", 32, &[32, 32, 32], &operands, |[a, b, c, _]| bfe(a, b, c, 32, false));
        check("bfe.s32 {d}, {a}, {b}, {c};", 32, &[32, 32, 32], &operands, |[a, b, c, _]| bfe(a, b, c, 32, true));
        check("bfe.u64 {d}, {a}, {b}, {c};", 64, &[64, 32, 32], &operands, |[a, b, c, _]| bfe(a, b, c, 64, false));
        check("bfe.s64 {d}, {a}, {b}, {c};", 64, &[64, 32, 32], &operands, |[a, b, c, _]| bfe(a, b, c, 64, true));
        // A length up to 63 only: the loop above shifts `a` by it.
        let short: Vec<Operands> = operands.iter().map(|&[a, b, c, e]| [a, b, c, e & 0xff3f]).collect();
        check("bfi.b32 {d}, {a}, {b}, {c}, {e};", 32, &[32, 32, 32, 32], &short, |[a, b, c, e]| bfi(a, b, c, e, 32));
        check("bfi.b64 {d}, {a}, {b}, {c}, {e};", 64, &[64, 64, 32, 32], &short, |[a, b, c, e]| bfi(a, b, c, e, 64));
    }

    #[test]
    fn bit_search(operands in many()) {
        for (text, width, signed, amount) in [
            ("bfind.u32 {d}, {a};", 32u32, false, false),
            ("bfind.s32 {d}, {a};", 32, true, false),
            ("bfind.u64 {d}, {a};", 64, false, false),
            ("bfind.s64 {d}, {a};", 64, true, false),
            ("bfind.shiftamt.u32 {d}, {a};", 32, false, true),
            ("bfind.shiftamt.s64 {d}, {a};", 64, true, true),
        ] {
            let widths: &[u32] = if width == 32 { &[32] } else { &[64] };
            check(text, 32, widths, &operands, |[a, ..]| {
                let a = if signed && a >> (width - 1) & 1 != 0 { !a } else { a };
                match (0u32..width).rev().find(|bit| a >> bit & 1 != 0) {
                    None => u32::MAX.into(),
                    Some(bit) if amount => (width - 1 - bit).into(),
                    Some(bit) => bit.into(),
                }
            });
        }
        check("fns.b32 {d}, {a}, {b}, {c};", 32, &[32, 32, 32],
            &operands.iter().map(|&[a, b, c, _]| [a, b % 32, (c as i32 % 40) as u32 as u64, 0]).collect::<Vec<_>>(),
            |[mask, base, offset, _]| {
                let offset = offset as i32;
                let set = |bit: &u64| mask >> bit & 1 != 0;
                let found = match offset {
                    0 => Some(base).filter(set),
                    1.. => (base..32).filter(set).nth(offset as usize - 1),
                    _ => (0..=base).rev().filter(set).nth(-offset as usize - 1),
                };
                found.unwrap_or(u32::MAX.into())
            });
    }

    #[test]
    fn masks_and_extensions(operands in many()) {
        let small: Vec<Operands> = operands.iter().map(|&[a, b, c, _]| [a % 40, b % 40, c, 0]).collect();
        check("bmsk.clamp.b32 {d}, {a}, {b};", 32, &[32, 32], &small, |[a, b, ..]| {
            (0..32).filter(|bit| *bit >= a && *bit < a + b).map(|bit| 1 << bit).sum()
        });
        check("bmsk.wrap.b32 {d}, {a}, {b};", 32, &[32, 32], &small, |[a, b, ..]| {
            let (a, b) = (a % 32, b % 32);
            (0..32).filter(|bit| *bit >= a && *bit < a + b).map(|bit| 1 << bit).sum()
        });
        check("szext.wrap.s32 {d}, {c}, {b};", 32, &[32, 32, 32], &small, |[_, b, c, _]| {
            match b as u32 % 32 {
                0 => 0,
                bits => cut(value(c, bits, true), 32),
            }
        });
        check("szext.clamp.u32 {d}, {c}, {b};", 32, &[32, 32, 32], &small, |[_, b, c, _]| {
            match (b as u32).min(32) {
                0 => 0,
                bits => cut(value(c, bits, false), 32),
            }
        });
    }

    #[test]
    fn lop3(operands in many()) {
        macro_rules! tables {
            ($($lut:literal)*) => {$(
                check(concat!("lop3.b32 {d}, {a}, {b}, {c}, ", $lut, ";"), 32, &[32, 32, 32], &operands, |[a, b, c, _]| {
                    (0..32).fold(0, |d, bit| {
                        let row = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | c >> bit & 1;
                        d | ($lut >> row & 1) << bit
                    })
                });
            )*};
        }
        tables!(0x00 0x01 0x17 0x3c 0x80 0x96 0xca 0xd8 0xe8 0xfe 0xff);
    }

    /// The table of the ISA, most significant byte first.
    #[test]
    fn prmt(operands in many()) {
        let bytes = |a: u64, b: u64| -> [u8; 8] { (b << 32 | a & 0xffff_ffff).to_le_bytes() };
        check("prmt.b32 {d}, {a}, {b}, {c};", 32, &[32, 32, 32], &operands, |[a, b, c, _]| {
            let bytes = bytes(a, b);
            (0..4).map(|place| {
                let selector = c >> (4 * place) & 15;
                let byte = bytes[selector as usize % 8];
                let byte = match (selector >= 8, byte >= 128) {
                    (false, _) => byte,
                    (true, true) => 0xff,
                    (true, false) => 0,
                };
                u64::from(byte) << (8 * place)
            }).sum()
        });
        for (text, table) in [
            ("prmt.b32.f4e {d}, {a}, {b}, {c};", [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]),
            ("prmt.b32.b4e {d}, {a}, {b}, {c};", [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]]),
            ("prmt.b32.rc8 {d}, {a}, {b}, {c};", [[0; 4], [1; 4], [2; 4], [3; 4]]),
            ("prmt.b32.ecl {d}, {a}, {b}, {c};", [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]]),
            ("prmt.b32.ecr {d}, {a}, {b}, {c};", [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]]),
            ("prmt.b32.rc16 {d}, {a}, {b}, {c};", [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]]),
        ] {
            check(text, 32, &[32, 32, 32], &operands, |[a, b, c, _]| {
                let bytes = bytes(a, b);
                table[c as usize % 4].iter().fold(0, |d, &index: &usize| d << 8 | u64::from(bytes[index]))
            });
        }
    }

    #[test]
    fn dot_products(operands in many()) {
        for (text, a_signed, b_signed) in [
            ("dp4a.u32.u32 {d}, {a}, {b}, {c};", false, false),
            ("dp4a.u32.s32 {d}, {a}, {b}, {c};", false, true),
            ("dp4a.s32.u32 {d}, {a}, {b}, {c};", true, false),
            ("dp4a.s32.s32 {d}, {a}, {b}, {c};", true, true),
        ] {
            check(text, 32, &[32, 32, 32], &operands, |[a, b, c, _]| {
                let byte = |x: u64, i: u32, signed| value(x >> (8 * i), 8, signed);
                let dot: i128 = (0..4).map(|i| byte(a, i, a_signed) * byte(b, i, b_signed)).sum();
                cut(dot + i128::from(c), 32)
            });
        }
        for (text, a_signed, b_signed, first) in [
            ("dp2a.lo.u32.u32 {d}, {a}, {b}, {c};", false, false, 0),
            ("dp2a.lo.s32.u32 {d}, {a}, {b}, {c};", true, false, 0),
            ("dp2a.hi.u32.s32 {d}, {a}, {b}, {c};", false, true, 2),
            ("dp2a.hi.s32.s32 {d}, {a}, {b}, {c};", true, true, 2),
        ] {
            check(text, 32, &[32, 32, 32], &operands, |[a, b, c, _]| {
                let dot: i128 = (0..2)
                    .map(|i| value(a >> (16 * i), 16, a_signed) * value(b >> (8 * (i + first)), 8, b_signed))
                    .sum();
                cut(dot + i128::from(c), 32)
            });
        }
    }

    #[test]
    fn carries(operands in many()) {
        check("{.reg .b32 lo; add.cc.u32 lo, {a}, {b}; addc.u32 {d}, {c}, {e};}", 32, &[32; 4], &operands, |[a, b, c, e]| {
            let low = (a & 0xffff_ffff) + (b & 0xffff_ffff);
            cut(i128::from(c) + i128::from(e) + i128::from(low >> 32), 32)
        });
        check("{.reg .b32 lo; sub.cc.u32 lo, {a}, {b}; subc.cc.u32 {d}, {c}, {e};}", 32, &[32; 4], &operands, |[a, b, c, e]| {
            let borrow = a as u32 != b as u32 && (a as u32) < b as u32;
            cut(i128::from(c) - i128::from(e) - i128::from(borrow), 32)
        });
        // A product of 64 by 64 bits, by halves.
        check("{.reg .b32 lo; mad.lo.cc.u32 lo, {a}, {b}, {c}; madc.hi.u32 {d}, {a}, {b}, {e};}", 32, &[32; 4], &operands, |[a, b, c, e]| {
            let product = (a & 0xffff_ffff) * (b & 0xffff_ffff);
            let low = (product & 0xffff_ffff) + (c & 0xffff_ffff);
            cut(i128::from(product >> 32) + i128::from(e) + i128::from(low >> 32), 32)
        });
        check("{.reg .b64 lo; add.cc.u64 lo, {a}, {b}; addc.u64 {d}, {c}, {e};}", 64, &[64; 4], &operands, |[a, b, c, e]| {
            let low = u128::from(a) + u128::from(b);
            cut(i128::from(c) + i128::from(e) + (low >> 64) as i128, 64)
        });
    }

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

    #[test]
    fn moves(operands in many()) {
        check("mov.b32 {d}, {a};", 32, &[32], &operands, |[a, ..]| cut(a.into(), 32));
        check("mov.b64 {d}, {{a}, {b}};", 64, &[32, 32], &operands, |[a, b, ..]| b << 32 | a & 0xffff_ffff);
        check("mov.b32 {d}, {{a}, {b}};", 32, &[16, 16], &operands, |[a, b, ..]| (b & 0xffff) << 16 | a & 0xffff);
        check("mov.b64 {d}, {{a}, {b}, {c}, {e}};", 64, &[16; 4], &operands, |all| {
            all.iter().rev().fold(0, |d, part| d << 16 | part & 0xffff)
        });
        check("mov.b64 {_, {d}}, {a};", 32, &[64], &operands, |[a, ..]| a >> 32);
        check("mov.b32 {{d}, _}, {a};", 16, &[32], &operands, |[a, ..]| a & 0xffff);
        check("mov.pred {d}, {a};", 1, &[1], &operands, |[a, ..]| u64::from(a != 0));
        check("mov.u32 {d}, -5;", 32, &[32], &operands, |_| 0xffff_fffb);
        check("add.s64 {d}, {a}, 0x7fffffffffffffff;", 64, &[64], &operands, |[a, ..]| a.wrapping_add(i64::MAX as u64));
        check("add.s32 {d}, {a}, 0b101;", 32, &[32], &operands, |[a, ..]| (a as u32).wrapping_add(5).into());
        check("add.s32 {d}, {a}, 017;", 32, &[32], &operands, |[a, ..]| (a as u32).wrapping_add(15).into());
        check("add.s32 {d}, {a}, 17U;", 32, &[32], &operands, |[a, ..]| (a as u32).wrapping_add(17).into());
    }
}
