//! Logic, shifts, bit fields, permutations and dot products, bit by bit.

use super::family::{Code, Family, gives, gives_all, integers, uniform};
use super::harness::Operands;
use super::integer::{cut, exact, low, value};
use super::syntax::Form;

/// Each bit of the result from the bits of the operands.
fn bitwise(syntax: &'static str, count: usize, meaning: fn(bool, bool) -> bool) -> Family {
    Family::new(
        syntax,
        uniform(count),
        integers,
        gives(move |form, [a, b, ..]| {
            (0..form.ty().bits)
                .map(|bit| u64::from(meaning(a >> bit & 1 != 0, b >> bit & 1 != 0)) << bit)
                .sum()
        }),
    )
}

/// As [`bitwise`], on predicates.
fn predicates(syntax: &'static str, count: usize, meaning: fn(bool, bool) -> bool) -> Family {
    Family::new(
        syntax,
        uniform(count),
        bits_of_a_pair,
        gives(move |_, [a, b, ..]| meaning(a != 0, b != 0).into()),
    )
}

/// Pairs of predicates.
fn bits_of_a_pair(form: &Form) -> Vec<Operands> {
    integers(form)
        .into_iter()
        .map(|[a, ..]| [a & 1, a >> 1 & 1, 0, 0])
        .collect()
}

/// `{form} {d}, {a}, …`: bits of the result and of each operand.
fn operands(result: fn(u32) -> u32, widths: fn(u32) -> &'static [u32]) -> impl Fn(&Form) -> Code {
    move |form| {
        let bits = form.ty().bits;
        let list: String = ["a", "b", "c", "e"]
            .iter()
            .zip(widths(bits))
            .map(|(name, _)| format!(", {{{name}}}"))
            .collect();
        Code::new(
            format!("{{form}} {{d}}{list};"),
            &[result(bits)],
            widths(bits),
        )
    }
}

/// An operand and an amount of 32 bits.
fn amount(bits: u32) -> &'static [u32] {
    match bits {
        16 => &[16, 32],
        32 => &[32, 32],
        _ => &[64, 32],
    }
}

fn one_to_word(form: &Form) -> Code {
    Code::new("{form} {d}, {a};", &[32], &[form.ty().bits])
}

fn three_words(_: u32) -> &'static [u32] {
    &[32, 32, 32]
}

/// Amounts below 40.
fn small(form: &Form) -> Vec<Operands> {
    integers(form)
        .into_iter()
        .map(|[a, b, c, _]| [a % 40, b % 40, c, 0])
        .collect()
}

fn funnel_shift(form: &Form, [a, b, c, _]: Operands) -> u64 {
    let (a, b, c) = (a as u32, b as u32, c as u32);
    let n = if form.has("clamp") { c.min(32) } else { c % 32 };
    u64::from(match (form.has("l"), n) {
        (true, 0) => b,
        (true, 32) => a,
        (true, n) => b << n | a >> (32 - n),
        (false, 0) => a,
        (false, 32) => b,
        (false, n) => b << (32 - n) | a >> n,
    })
}

/// The ISA's own loop.
fn extract(form: &Form, [a, b, c, _]: Operands) -> u64 {
    let (position, length) = (b as u32 & 0xff, c as u32 & 0xff);
    let top = form.ty().bits - 1;
    let signed = form.ty().is_signed();
    let sign = signed && length != 0 && a >> (position + length - 1).min(top) & 1 != 0;
    (0..=top).fold(0, |d, i| {
        let bit = if i < length && position + i <= top {
            a >> (position + i) & 1 != 0
        } else {
            sign
        };
        d | u64::from(bit) << i
    })
}

/// The ISA's own loop.
fn insert(form: &Form, [a, b, c, e]: Operands) -> u64 {
    let width = form.ty().bits;
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

/// A length up to 63 only: [`insert`] shifts by it.
fn short_fields(form: &Form) -> Vec<Operands> {
    integers(form)
        .into_iter()
        .map(|[a, b, c, e]| [a, b, c, e & 0xff3f])
        .collect()
}

fn find_top(form: &Form, [a, ..]: Operands) -> u64 {
    let width = form.ty().bits;
    let negative = form.ty().is_signed() && a >> (width - 1) & 1 != 0;
    let a = if negative { !a } else { a };
    match (0..width).rev().find(|bit| a >> bit & 1 != 0) {
        None => u32::MAX.into(),
        Some(bit) if form.has("shiftamt") => (width - 1 - bit).into(),
        Some(bit) => bit.into(),
    }
}

fn find_nth_set([mask, base, offset, _]: Operands) -> u64 {
    let offset = offset as i32;
    let set = |bit: &u64| mask >> bit & 1 != 0;
    let found = match offset {
        0 => Some(base).filter(set),
        1.. => (base..32).filter(set).nth(offset as usize - 1),
        _ => (0..=base).rev().filter(set).nth(-offset as usize - 1),
    };
    found.unwrap_or(u32::MAX.into())
}

fn bases_and_offsets(form: &Form) -> Vec<Operands> {
    integers(form)
        .into_iter()
        .map(|[a, b, c, _]| [a, b % 32, (c as i32 % 40) as u32 as u64, 0])
        .collect()
}

fn table(lut: u64) -> Family {
    let text = move |_: &Form| {
        Code::new(
            format!("{{form}} {{d}}, {{a}}, {{b}}, {{c}}, {lut};"),
            &[32],
            &[32; 3],
        )
    };
    Family::new(
        "lop3.b32",
        text,
        integers,
        gives(move |_, operands| by_table(lut, operands)),
    )
}

/// Bits where a table of eight rows says so.
fn by_table(lut: u64, [a, b, c, _]: Operands) -> u64 {
    (0..32).fold(0, |d, bit| {
        let row = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | c >> bit & 1;
        d | (lut >> row & 1) << bit
    })
}

/// `.and` and `.or` combine whether the result is not zero with a predicate.
fn table_with_predicate(lut: u64) -> Family {
    Family::new(
        "lop3.{and,or}.b32",
        move |_| {
            let results = ["{d}|{d1}", "_|{d2}"];
            let text = results
                .map(|results| format!("{{form}} {results}, {{a}}, {{b}}, {{c}}, {lut}, {{e}};"));
            Code::new(text.concat(), &[32, 1, 1], &[32, 32, 32, 1])
        },
        |form| {
            let last_bit = |[a, b, c, e]: Operands| [a, b, c, e & 1];
            integers(form).into_iter().map(last_bit).collect()
        },
        gives_all(move |form, operands| {
            let result = by_table(lut, operands);
            let predicate = operands[3] != 0;
            let combined = match form.has("and") {
                true => result != 0 && predicate,
                false => result != 0 || predicate,
            };
            [result, combined.into(), combined.into(), 0]
        }),
    )
}

fn permute([a, b, c, _]: Operands) -> u64 {
    let bytes = bytes(a, b);
    (0..4)
        .map(|place| {
            let selector = c >> (4 * place) & 15;
            let byte = bytes[selector as usize % 8];
            let byte = match (selector >= 8, byte >= 128) {
                (false, _) => byte,
                (true, true) => 0xff,
                (true, false) => 0,
            };
            u64::from(byte) << (8 * place)
        })
        .sum()
}

fn bytes(a: u64, b: u64) -> [u8; 8] {
    (b << 32 | a & 0xffff_ffff).to_le_bytes()
}

/// The ISA's tables, most significant byte first.
fn permute_by_mode(form: &Form, [a, b, c, _]: Operands) -> u64 {
    let (_, table) = [
        (
            "f4e",
            [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]],
        ),
        (
            "b4e",
            [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]],
        ),
        ("rc8", [[0; 4], [1; 4], [2; 4], [3; 4]]),
        (
            "ecl",
            [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]],
        ),
        (
            "ecr",
            [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]],
        ),
        (
            "rc16",
            [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]],
        ),
    ]
    .into_iter()
    .find(|(mode, _)| form.has(mode))
    .expect("a mode");
    let bytes = bytes(a, b);
    table[c as usize % 4]
        .iter()
        .fold(0, |d, &index: &usize| d << 8 | u64::from(bytes[index]))
}

/// The sum of products of parts of the operands: `count` of them, of so many bits in `a`, and of 8 in `b` from part `first` on.
fn dot(form: &Form, [a, b, c, _]: Operands, count: u32, a_bits: u32, first: u32) -> u64 {
    let mut types = form.types();
    let (a_type, b_type) = (types.next().unwrap(), types.next().unwrap());
    let sum: i128 = (0..count)
        .map(|i| {
            let a = low(a >> (a_bits * i), a_bits, a_type.is_signed());
            a * low(b >> (8 * (first + i)), 8, b_type.is_signed())
        })
        .sum();
    cut(sum + i128::from(c), 32)
}

pub fn families() -> Vec<Family> {
    let mut families = vec![
        bitwise("and.{b16,b32,b64}", 2, |a, b| a && b),
        bitwise("or.{b16,b32,b64}", 2, |a, b| a || b),
        bitwise("xor.{b16,b32,b64}", 2, |a, b| a != b),
        bitwise("not.{b16,b32,b64}", 1, |a, _| !a),
        predicates("and.pred", 2, |a, b| a && b),
        predicates("or.pred", 2, |a, b| a || b),
        predicates("xor.pred", 2, |a, b| a != b),
        predicates("not.pred", 1, |a, _| !a),
        exact("cnot.{b16,b32,b64}", 1, |_, [a, ..]| i128::from(a == 0)),
        exact("brev.{b32,b64}", 1, |form, [a, ..]| {
            let width = form.ty().bits;
            (0..width)
                .map(|bit| (a >> bit & 1) << (width - 1 - bit))
                .sum()
        }),
        // Bits that are shifted out to the left never come back, so 64 bits of room are enough.
        Family::new(
            "shl.{b16,b32,b64}",
            operands(|bits| bits, amount),
            integers,
            gives(|form, [a, b, ..]| {
                let bits = form.ty().bits;
                cut(i128::from(a) << (b as u32).min(bits), bits)
            }),
        ),
        Family::new(
            "shr.{b16,u16,s16,b32,u32,s32,b64,u64,s64}",
            operands(|bits| bits, amount),
            integers,
            gives(|form, [a, b, ..]| {
                let bits = form.ty().bits;
                cut(value(a, form.ty()) >> (b as u32).min(bits), bits)
            }),
        ),
        Family::new(
            "shf.{l,r}.{wrap,clamp}.b32",
            operands(|_| 32, three_words),
            integers,
            gives(funnel_shift),
        ),
        Family::new(
            "clz.{b32,b64}",
            one_to_word,
            integers,
            gives(|form, [a, ..]| {
                (0..form.ty().bits)
                    .rev()
                    .take_while(|bit| a >> bit & 1 == 0)
                    .count() as u64
            }),
        ),
        Family::new(
            "popc.{b32,b64}",
            one_to_word,
            integers,
            gives(|form, [a, ..]| (0..form.ty().bits).map(|bit| a >> bit & 1).sum()),
        ),
        Family::new(
            "bfind{.shiftamt}.{u32,s32,u64,s64}",
            one_to_word,
            integers,
            gives(find_top),
        ),
        Family::new(
            "bfe.{u32,s32,u64,s64}",
            operands(
                |bits| bits,
                |bits| {
                    if bits == 32 {
                        &[32, 32, 32]
                    } else {
                        &[64, 32, 32]
                    }
                },
            ),
            integers,
            gives(extract),
        ),
        Family::new(
            "bfi.{b32,b64}",
            operands(
                |bits| bits,
                |bits| {
                    if bits == 32 {
                        &[32, 32, 32, 32]
                    } else {
                        &[64, 64, 32, 32]
                    }
                },
            ),
            short_fields,
            gives(insert),
        ),
        Family::new(
            "fns.b32",
            operands(|_| 32, three_words),
            bases_and_offsets,
            gives(|_, operands| find_nth_set(operands)),
        ),
        Family::new(
            "bmsk.{clamp,wrap}.b32",
            uniform(2),
            small,
            gives(|form, [a, b, ..]| {
                let (a, b) = if form.has("wrap") {
                    (a % 32, b % 32)
                } else {
                    (a, b)
                };
                (0..32)
                    .filter(|bit| (a..a + b).contains(bit))
                    .map(|bit| 1 << bit)
                    .sum()
            }),
        ),
        Family::new(
            "szext.{clamp,wrap}.{u32,s32}",
            |_| Code::new("{form} {d}, {c}, {b};", &[32], &[32, 32, 32]),
            small,
            gives(|form, [_, b, c, _]| {
                let bits = if form.has("wrap") {
                    b as u32 % 32
                } else {
                    (b as u32).min(32)
                };
                if bits == 0 {
                    0
                } else {
                    cut(low(c, bits, form.ty().is_signed()), 32)
                }
            }),
        ),
        Family::new(
            "prmt.b32",
            operands(|_| 32, three_words),
            integers,
            gives(|_, operands| permute(operands)),
        ),
        Family::new(
            "prmt.b32.{f4e,b4e,rc8,ecl,ecr,rc16}",
            operands(|_| 32, three_words),
            integers,
            gives(permute_by_mode),
        ),
        Family::new(
            "dp4a.{u32,s32}.{u32,s32}",
            operands(|_| 32, three_words),
            integers,
            gives(|form, operands| dot(form, operands, 4, 8, 0)),
        ),
        Family::new(
            "dp2a.{lo,hi}.{u32,s32}.{u32,s32}",
            operands(|_| 32, three_words),
            integers,
            gives(|form, operands| dot(form, operands, 2, 16, if form.has("hi") { 2 } else { 0 })),
        ),
    ];
    families.extend((0..256).map(table));
    families.extend([0x00, 0x01, 0x80, 0x96, 0xff].map(table_with_predicate));
    families
}

#[test]
fn fields_that_are_refused() {
    for (instruction, words) in [
        (
            "bfe.u32 %r0, %r1, 256, 1;",
            "`bfe.u32`: 256 is not from 0 to 255",
        ),
        ("bfe.s64 %rd0, %rd1, 0, 256;", "256 is not from 0 to 255"),
        ("bfi.b32 %r0, %r1, %r2, -1, 1;", "-1 is not from 0 to 255"),
    ] {
        let scope = format!(".reg .b32 %r<3>; .reg .b64 %rd<2>; {instruction}");
        super::refused(&scope, words);
    }
}
