//! Carries between instructions: each form with the carry before it and the carry after it.

use super::family::{Code, Family, gives_all, integers};
use super::harness::Operands;
use super::integer::{cut, value};
use super::syntax::{Form, Type};

/// What an instruction adds to `c`, a number that wraps around: its other operands, or their product's low or high half.
fn addend(form: &Form, a: u64, b: u64) -> u64 {
    let ty = form.ty();
    if form.has("lo") {
        cut(i128::from(a).wrapping_mul(i128::from(b)), ty.bits)
    } else if form.has("hi") {
        let product = match ty.name {
            "u64" => return ((u128::from(a) * u128::from(b)) >> 64) as u64,
            _ => value(a, ty) * value(b, ty),
        };
        cut(product >> ty.bits, ty.bits)
    } else {
        cut(a.into(), ty.bits)
    }
}

/// The sum's low bits, and its carry. Signs do not matter to either.
fn sum(ty: Type, a: u64, b: u64, carry: u64) -> (u64, u64) {
    let [a, b] = [a, b].map(|bits| u128::from(cut(bits.into(), ty.bits)));
    let sum = a + b + u128::from(carry);
    (
        sum as u64 & u64::MAX >> (64 - ty.bits),
        (sum >> ty.bits) as u64,
    )
}

/// The difference's low bits, and 1 if something had to be borrowed.
fn difference(ty: Type, a: u64, b: u64, borrow: u64) -> (u64, u64) {
    let [a, b] = [a, b].map(|bits| i128::from(cut(bits.into(), ty.bits)));
    let difference = a - b - i128::from(borrow);
    (cut(difference, ty.bits), u64::from(difference < 0))
}

/// A sum or difference of `{c}` and `{e}` sets the carry, the form uses it or not, and the last instruction shows what it is then.
fn between(form: &Form, instruction: &str, [first, last]: [&str; 2]) -> Code {
    let (ty, bits) = (form.ty().name, form.ty().bits);
    let text = format!(
        "{{.reg .b{bits} %first; {first}.cc.{ty} %first, {{c}}, {{e}}; {instruction} {last}.{ty} {{d1}}, 0, 0;}}"
    );
    Code::new(text, &[bits, bits], &[bits; 4])
}

fn sums(syntax: &'static str, instruction: &'static str) -> Family {
    Family::new(
        syntax,
        move |form| between(form, instruction, ["add", "addc"]),
        integers,
        gives_all(|form, [a, b, c, e]: Operands| {
            let ty = form.ty();
            let (_, before) = sum(ty, c, e, 0);
            let carry_in = if form.opcode().ends_with('c') {
                before
            } else {
                0
            };
            let other = if form.opcode().starts_with("mad") {
                c
            } else {
                b
            };
            let (result, after) = sum(ty, addend(form, a, b), other, carry_in);
            [result, if form.has("cc") { after } else { before }, 0, 0]
        }),
    )
}

fn differences(syntax: &'static str) -> Family {
    Family::new(
        syntax,
        |form| between(form, "{form} {d}, {a}, {b};", ["sub", "subc"]),
        integers,
        gives_all(|form, [a, b, c, e]: Operands| {
            let ty = form.ty();
            let (_, before) = difference(ty, c, e, 0);
            let borrow_in = if form.opcode() == "subc" { before } else { 0 };
            let (result, after) = difference(ty, a, b, borrow_in);
            let shown = if form.has("cc") { after } else { before };
            // The last instruction subtracts it from zero.
            [result, cut(-i128::from(shown), ty.bits), 0, 0]
        }),
    )
}

/// A sum, or a difference as the sum with the complement: what is left of a difference is carried like a sum's, so that the one can
/// follow the other. nvcc divides numbers of 128 bits in this way.
fn step(form: &str, ty: Type, a: u64, b: u64, carry: Option<u64>) -> (u64, u64) {
    match form {
        "sub" => sum(ty, a, !b, carry.unwrap_or(1)),
        _ => sum(ty, a, b, carry.unwrap_or(0)),
    }
}

/// A sum or difference between two others of either kind.
fn mixed(syntax: &'static str, [first, last]: [&'static str; 2]) -> Family {
    Family::new(
        syntax,
        move |form| between(form, "{form} {d}, {a}, {b};", [first, last]),
        integers,
        gives_all(move |form, [a, b, c, e]: Operands| {
            let ty = form.ty();
            let (_, before) = step(first, ty, c, e, None);
            let kind = &form.opcode()[..3];
            let (result, after) = step(
                kind,
                ty,
                a,
                b,
                form.opcode().ends_with('c').then_some(before),
            );
            let shown = if form.has("cc") { after } else { before };
            [result, step(&last[..3], ty, 0, 0, Some(shown)).0, 0, 0]
        }),
    )
}

pub fn families() -> Vec<Family> {
    let mut families = vec![
        sums("add.cc.{u32,s32,u64,s64}", "{form} {d}, {a}, {b};"),
        sums("addc{.cc}.{u32,s32,u64,s64}", "{form} {d}, {a}, {b};"),
        sums(
            "mad.{lo,hi}.cc.{u32,s32,u64,s64}",
            "{form} {d}, {a}, {b}, {c};",
        ),
        sums(
            "madc.{lo,hi}{.cc}.{u32,s32,u64,s64}",
            "{form} {d}, {a}, {b}, {c};",
        ),
        differences("sub.cc.{u32,s32,u64,s64}"),
        differences("subc{.cc}.{u32,s32,u64,s64}"),
    ];
    for syntax in [
        "add.cc.{u32,s32,u64,s64}",
        "addc{.cc}.{u32,s32,u64,s64}",
        "sub.cc.{u32,s32,u64,s64}",
        "subc{.cc}.{u32,s32,u64,s64}",
    ] {
        for first in ["add", "sub"] {
            for last in ["addc", "subc"] {
                families.push(mixed(syntax, [first, last]));
            }
        }
    }
    families
}
