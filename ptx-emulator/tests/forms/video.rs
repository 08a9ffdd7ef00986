//! SIMD video instructions, an element at a time.

use super::family::{Code, Family, gives, integers};
use super::harness::Operands;
use super::syntax::Form;

/// The elements of `a` and then those of `b` that make an operand, from the highest one of the text, as a type has them.
fn elements([a, b, ..]: Operands, text: &str, bits: u32, signed: bool) -> Vec<i64> {
    let bytes: Vec<u8> = [a as u32, b as u32]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    text.bytes()
        .rev()
        .map(|digit| {
            let index = usize::from(digit - b'0');
            match (bits, signed) {
                (8, false) => bytes[index].into(),
                (8, true) => (bytes[index] as i8).into(),
                (_, false) => u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).into(),
                (_, true) => i16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).into(),
            }
        })
        .collect()
}

fn compute(form: &Form, x: i64, y: i64) -> i64 {
    match form.opcode().trim_end_matches(['2', '4']) {
        "vadd" => x + y,
        "vsub" => x - y,
        "vavrg" if x + y < 0 => (x + y).div_euclid(2),
        "vavrg" => (x + y + 1) / 2,
        "vabsdiff" => x.max(y) - x.min(y),
        "vmin" => x.min(y),
        "vmax" => x.max(y),
        _ => match form.one_of(&["eq", "ne", "lt", "le", "gt", "ge"]).unwrap() {
            "eq" => (x == y).into(),
            "ne" => (x != y).into(),
            "lt" => (x < y).into(),
            "le" => (x <= y).into(),
            "gt" => (x > y).into(),
            _ => (x >= y).into(),
        },
    }
}

/// What a form gives, whose operands and result are made of these elements.
fn expected(form: &Form, operands: Operands, mask: &str, a: &str, b: &str) -> u64 {
    let bits = if form.opcode().ends_with('4') { 8 } else { 16 };
    let mut types = form.types().rev().map(|ty| ty.is_signed());
    let (b_signed, a_signed) = (types.next().unwrap(), types.next().unwrap());
    let signed = types.next().unwrap_or(false);
    let (low, high) = if signed {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    };
    let a = elements(operands, a, bits, a_signed);
    let b = elements(operands, b, bits, b_signed);
    let mut result = operands[2] as u32;
    for digit in mask.bytes() {
        let index = usize::from(digit - b'0');
        let mut value = compute(form, a[index], b[index]);
        if form.has("add") {
            result = result.wrapping_add(value as u32);
            continue;
        }
        if form.has("sat") {
            value = value.clamp(low, high);
        }
        let mut bytes = result.to_le_bytes();
        let width = bits as usize / 8;
        bytes[width * index..][..width].copy_from_slice(&value.to_le_bytes()[..width]);
        result = u32::from_le_bytes(bytes);
    }
    result.into()
}

/// Forms whose result and operands are registers with these elements; where there are none, all of them.
fn family(syntax: &'static str, selectors: [&'static str; 3]) -> Family {
    let [mask, a, b] = selectors;
    Family::new(
        syntax,
        move |form| {
            let letter = if form.opcode().ends_with('4') {
                "b"
            } else {
                "h"
            };
            let selector = |text: &str| match text {
                "" => String::new(),
                text => format!(".{letter}{text}"),
            };
            let text = format!(
                "{{form}} {{d}}{}, {{a}}{}, {{b}}{}, {{c}};",
                selector(mask),
                selector(a),
                selector(b)
            );
            Code::new(text, &[32], &[32, 32, 32])
        },
        integers,
        gives(move |form, operands| {
            let all = if form.opcode().ends_with('4') {
                ["3210", "3210", "7654"]
            } else {
                ["10", "10", "32"]
            };
            let [mask, a, b] = std::array::from_fn(|index| match selectors[index] {
                "" => all[index],
                text => text,
            });
            expected(form, operands, mask, a, b)
        }),
    )
}

pub fn families() -> Vec<Family> {
    let all = ["", "", ""];
    let mut families = Vec::new();
    for syntax in [
        "vadd4.{u32,s32}.{u32,s32}.{u32,s32}{.sat,.add}",
        "vsub4.{u32,s32}.{u32,s32}.{u32,s32}{.sat,.add}",
        "vavrg4.{u32,s32}.{u32,s32}.{u32,s32}{.sat,.add}",
        "vabsdiff4.{u32,s32}.{u32,s32}.{u32,s32}{.sat,.add}",
        "vmin4.{u32,s32}.{u32,s32}.{u32,s32}{.sat,.add}",
        "vmax4.{u32,s32}.{u32,s32}.{u32,s32}{.sat,.add}",
        "vset4.{u32,s32}.{u32,s32}.{eq,ne,lt,le,gt,ge}{.add}",
    ] {
        families.push(family(syntax, all));
        families.push(family(syntax, ["20", "7016", "3364"]));
    }
    for syntax in [
        "vadd2.{u32,s32}.{u32,s32}.{u32,s32}{.sat,.add}",
        "vsub2.{u32,s32}.{u32,s32}.{u32,s32}{.sat,.add}",
        "vavrg2.{u32,s32}.{u32,s32}.{u32,s32}{.sat,.add}",
        "vabsdiff2.{u32,s32}.{u32,s32}.{u32,s32}{.sat,.add}",
        "vmin2.{u32,s32}.{u32,s32}.{u32,s32}{.sat,.add}",
        "vmax2.{u32,s32}.{u32,s32}.{u32,s32}{.sat,.add}",
        "vset2.{u32,s32}.{u32,s32}.{eq,ne,lt,le,gt,ge}{.add}",
    ] {
        families.push(family(syntax, all));
        families.push(family(syntax, ["1", "31", "02"]));
    }
    families
}

#[test]
fn selectors_that_are_refused() {
    for (instruction, words) in [
        (
            "vadd4.u32.u32.u32 %r0.b02, %r1, %r2, %r3;",
            "in descending order",
        ),
        (
            "vadd4.u32.u32.u32 %r0.b4, %r1, %r2, %r3;",
            "in descending order",
        ),
        (
            "vadd4.u32.u32.u32 %r0, %r1.b765, %r2, %r3;",
            "an operand is made of 4 elements",
        ),
        (
            "vadd4.u32.u32.u32 %r0, %r1.b8765, %r2, %r3;",
            "`.b8765` does not choose elements",
        ),
        (
            "vadd4.u32.u32.u32 %r0, %r1.h10, %r2, %r3;",
            "`.h10` does not choose elements",
        ),
        (
            "vadd2.u32.u32.u32 %r0, %r1.h14, %r2, %r3;",
            "`.h14` does not choose elements",
        ),
        (
            "vadd2.u32.u32.u32 %r0, %r1, 5, %r3;",
            "operands must be registers",
        ),
        (
            "vadd2.u32.u32.u32 %r0, %r1, %r2, 5;",
            "`c` must be a register",
        ),
    ] {
        super::refused(&format!(".reg .b32 %r<4>; {instruction}"), words);
    }
}
