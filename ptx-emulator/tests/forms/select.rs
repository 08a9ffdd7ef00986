//! `selp` and `slct`.

use super::family::{Code, Family, gives, integers};
use super::float::numbers;
use super::harness::Operands;
use super::harness::exact::F32;
use super::syntax::Form;

/// `{form} d, a, b, c` with a selector of some bits.
fn selection(form: &Form, bits: u32) -> Code {
    let selected = form.types().next().expect("a type").bits;
    let operands = [selected, selected, bits];
    Code::new("{form} {d}, {a}, {b}, {c};", &[selected], &operands)
}

fn chosen(form: &Form, [a, b, ..]: Operands, first: bool) -> u64 {
    let bits = form.types().next().expect("a type").bits;
    (if first { a } else { b }) & (u64::MAX >> (64 - bits))
}

/// Any bits to choose from, floats of every kind to choose by.
fn by_floats(form: &Form) -> Vec<Operands> {
    integers(form)
        .iter()
        .zip(numbers(form))
        .map(|(&[a, b, ..], [c, ..])| [a, b, c, 0])
        .collect()
}

pub fn families() -> Vec<Family> {
    vec![
        Family::new(
            "selp.{u16,s16,b16,u32,s32,b32,u64,s64,b64,f32,f64}",
            |form| selection(form, 1),
            |form| {
                let mut tuples = integers(form);
                for [_, _, selector, _] in &mut tuples {
                    *selector &= 1;
                }
                tuples
            },
            gives(|form, operands| chosen(form, operands, operands[2] != 0)),
        ),
        Family::new(
            "slct.{u16,s16,b16,u32,s32,b32,u64,s64,b64,f32,f64}.s32",
            |form| selection(form, 32),
            integers,
            gives(|form, operands| chosen(form, operands, operands[2] as i32 >= 0)),
        ),
        Family::new(
            "slct{.ftz}.{u16,s16,b16,u32,s32,b32,u64,s64,b64,f32,f64}.f32",
            |form| selection(form, 32),
            by_floats,
            gives(|form, operands| {
                let selector = F32.flush(operands[2], form.has("ftz"));
                // Not below zero: -0 is zero, NaN is neither.
                let below = F32.is_negative(selector) && !F32.is_zero(selector);
                chosen(form, operands, !F32.is_nan(selector) && !below)
            }),
        ),
    ]
}
