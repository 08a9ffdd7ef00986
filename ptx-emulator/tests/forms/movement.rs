//! `mov`: registers, parts of registers, and numbers as they may be written.

use super::family::{Code, Family, gives, gives_all, integers, uniform};
use super::harness::Operands;
use super::integer::cut;
use super::syntax::Form;

fn whole(form: &Form, operands: Operands) -> u64 {
    cut(operands[0].into(), form.ty().bits)
}

fn parts(count: u32) -> impl Fn(&Form) -> u32 {
    move |form| form.ty().bits / count
}

/// `mov.b64 d, {a, b}` and its like: the first part is the lowest.
fn packed(syntax: &'static str, count: u32) -> Family {
    let part = parts(count);
    let list = if count == 2 {
        "{a}, {b}"
    } else {
        "{a}, {b}, {c}, {e}"
    };
    Family::new(
        syntax,
        move |form| {
            let widths = vec![part(form); count as usize];
            Code::new(
                format!("{{form}} {{d}}, {{{list}}};"),
                &[form.ty().bits],
                &widths,
            )
        },
        integers,
        gives(move |form, operands| {
            let bits = parts(count)(form);
            (0..count)
                .map(|i| cut(operands[i as usize].into(), bits) << (bits * i))
                .sum()
        }),
    )
}

fn unpacked(syntax: &'static str, count: u32) -> Family {
    let part = parts(count);
    let list = if count == 2 {
        "{d}, {d1}"
    } else {
        "{d}, {d1}, {d2}, {d3}"
    };
    Family::new(
        syntax,
        move |form| {
            let widths = vec![part(form); count as usize];
            Code::new(
                format!("{{form}} {{{list}}}, {{a}};"),
                &widths,
                &[form.ty().bits],
            )
        },
        integers,
        gives_all(move |form, [a, ..]| {
            let bits = parts(count)(form);
            std::array::from_fn(|i| match i as u32 {
                i if i < count => cut((a >> (bits * i)).into(), bits),
                _ => 0,
            })
        }),
    )
}

/// A part that nobody wants.
fn half(text: &'static str, upper: bool) -> Family {
    Family::new(
        "mov.{b32,b64}",
        move |form| Code::new(text, &[form.ty().bits / 2], &[form.ty().bits]),
        integers,
        gives(move |form, [a, ..]| {
            let bits = form.ty().bits / 2;
            cut((if upper { a >> bits } else { a }).into(), bits)
        }),
    )
}

/// An instruction with a number in it.
fn number(syntax: &'static str, text: &'static str, meaning: fn(u64) -> u64) -> Family {
    Family::new(
        syntax,
        move |form| Code::new(text, &[form.ty().bits], &[form.ty().bits]),
        integers,
        gives(move |form, [a, ..]| cut(meaning(a).into(), form.ty().bits)),
    )
}

pub fn families() -> Vec<Family> {
    vec![
        Family::new(
            "mov.{b16,u16,s16,b32,u32,s32,f32,b64,u64,s64,f64}",
            uniform(1),
            integers,
            gives(whole),
        ),
        Family::new(
            "mov.pred",
            uniform(1),
            |form| {
                integers(form)
                    .into_iter()
                    .map(|[a, ..]| [a & 1, 0, 0, 0])
                    .collect()
            },
            gives(whole),
        ),
        packed("mov.{b32,b64}", 2),
        packed("mov.b64", 4),
        unpacked("mov.{b32,b64}", 2),
        unpacked("mov.b64", 4),
        half("{form} {{d}, _}, {a};", false),
        half("{form} {_, {d}}, {a};", true),
        number("mov.{u32,u64}", "{form} {d}, -5;", |_| 5u64.wrapping_neg()),
        number("mov.f32", "{form} {d}, 0f3F800000;", |_| {
            1f32.to_bits().into()
        }),
        number("mov.f32", "{form} {d}, -1.5;", |_| {
            (-1.5f32).to_bits().into()
        }),
        number("mov.f64", "{form} {d}, 0d3FF0000000000000;", |_| {
            1f64.to_bits()
        }),
        number("mov.f64", "{form} {d}, 2.5e-3;", |_| 2.5e-3f64.to_bits()),
        number("add.s64", "{form} {d}, {a}, 0x7fffffffffffffff;", |a| {
            a.wrapping_add(i64::MAX as u64)
        }),
        number("add.s32", "{form} {d}, {a}, 0b101;", |a| a.wrapping_add(5)),
        number("add.s32", "{form} {d}, {a}, 017;", |a| a.wrapping_add(15)),
        number("add.s32", "{form} {d}, {a}, 17U;", |a| a.wrapping_add(17)),
    ]
}
