//! `setp` and `set`, against the order of integers.

use std::cmp::Ordering;

use super::family::{Code, Family, gives, gives_all, integers};
use super::float::{drawn, shape};
use super::harness::Operands;
use super::integer::value;
use super::syntax::{Form, Type};

/// Comparisons with the orders in which they hold, and whether they hold where there is none.
const COMPARISONS: [(&str, &[Ordering], bool); 18] = {
    use Ordering::{Equal, Greater, Less};
    [
        ("eq", &[Equal], false),
        ("ne", &[Less, Greater], false),
        ("lt", &[Less], false),
        ("le", &[Less, Equal], false),
        ("gt", &[Greater], false),
        ("ge", &[Greater, Equal], false),
        ("lo", &[Less], false),
        ("ls", &[Less, Equal], false),
        ("hi", &[Greater], false),
        ("hs", &[Greater, Equal], false),
        ("equ", &[Equal], true),
        ("neu", &[Less, Greater], true),
        ("ltu", &[Less], true),
        ("leu", &[Less, Equal], true),
        ("gtu", &[Greater], true),
        ("geu", &[Greater, Equal], true),
        ("num", &[Less, Equal, Greater], false),
        ("nan", &[], true),
    ]
};

fn is_float(ty: Type) -> bool {
    ty.name.contains('f')
}

/// Whether the comparison of a form holds for two numbers of a type.
fn holds(form: &Form, ty: Type, a: u64, b: u64) -> bool {
    let order = if is_float(ty) {
        let (format, _) = shape(ty);
        let [a, b] = [a, b].map(|bits| format.flush(bits, form.has("ftz")));
        let ordered = !format.is_nan(a) && !format.is_nan(b);
        // Bits below the sign are in the order of magnitudes, and the zeros are one number.
        let number = |bits: u64| {
            let magnitude = i128::from(bits & !format.sign());
            if format.is_negative(bits) {
                -magnitude
            } else {
                magnitude
            }
        };
        ordered.then(|| number(a).cmp(&number(b)))
    } else {
        Some(value(a, ty).cmp(&value(b, ty)))
    };
    let (_, orders, unordered) = COMPARISONS
        .iter()
        .find(|(name, ..)| *name == form.words[1])
        .expect("a comparison");
    order.map_or(*unordered, |order| orders.contains(&order))
}

/// The same, combined with the predicate in `c`; of a pair, for the lower and the upper number.
fn outcomes(form: &Form, [a, b, c, _]: Operands, negated: bool) -> Vec<bool> {
    let ty = form.ty();
    let count = if is_float(ty) { shape(ty).1 } else { 1 };
    let bits = ty.bits / count;
    let mask = u64::MAX >> (64 - bits);
    (0..count)
        .map(|place| {
            let [a, b] = [a, b].map(|whole| whole >> (place * bits) & mask);
            let result = holds(form, ty, a, b) != negated;
            let with = (c & 1 != 0) != is_negated(form);
            match form.one_of(&["and", "or", "xor"]) {
                Some("and") => result && with,
                Some("or") => result || with,
                Some(_) => result != with,
                None => result,
            }
        })
        .collect()
}

/// `.xor` forms take the predicate negated.
fn is_negated(form: &Form) -> bool {
    form.has("xor")
}

/// `{form} destination, a, b` and the predicate where there is one to combine with, for each destination.
fn code(form: &Form, destinations: &[&str], results: &[u32]) -> Code {
    let bits = form.ty().register();
    let with = match form.one_of(&["and", "or", "xor"]) {
        Some(_) if is_negated(form) => ", !{c}",
        Some(_) => ", {c}",
        None => "",
    };
    let operands = [bits, bits, 1];
    let count = if with.is_empty() { 2 } else { 3 };
    let text: String = destinations
        .iter()
        .map(|destination| format!("{{form}} {destination}, {{a}}, {{b}}{with};"))
        .collect();
    Code::new(text, results, &operands[..count])
}

/// Operands of the type that is compared, equal ones among them.
fn compared(form: &Form) -> Vec<Operands> {
    let ty = form.ty();
    let mut tuples = if is_float(ty) {
        drawn(ty)
    } else {
        let mut tuples = integers(form);
        for [a, b, ..] in tuples.iter_mut().step_by(4) {
            *b = *a;
        }
        tuples
    };
    for [_, _, predicate, drawn] in &mut tuples {
        *predicate = *drawn & 1;
    }
    tuples
}

/// Numbers of 16 bits have one predicate, pairs one for each; of the others the second is that of the negated comparison.
fn setp(syntax: &'static str) -> Family {
    let single = |form: &Form| matches!(form.ty().name, "f16" | "bf16");
    Family::new(
        syntax,
        move |form| {
            if single(form) {
                code(form, &["{d}"], &[1])
            } else {
                code(form, &["{d}|{d1}", "{d2}", "_|{d3}"], &[1; 4])
            }
        },
        compared,
        gives_all(move |form, operands| {
            let results = outcomes(form, operands, false);
            if single(form) {
                return [results[0].into(), 0, 0, 0];
            }
            let second = match results[..] {
                [_] => outcomes(form, operands, true)[0],
                _ => results[1],
            };
            [results[0], second, results[0], second].map(u64::from)
        }),
    )
}

/// All bits of an integer, or 1 of a float; of a pair, in each half.
fn set(syntax: &'static str) -> Family {
    Family::new(
        syntax,
        |form| {
            let result = form.types().next().expect("a type of the result");
            code(form, &["{d}"], &[result.register()])
        },
        compared,
        gives(|form, operands| {
            let result = form.types().next().expect("a type of the result");
            let outcomes = outcomes(form, operands, false);
            let bits = result.bits / outcomes.len() as u32;
            let yes = match result.name {
                "f16" | "f16x2" => 0x3c00,
                "bf16" | "bf16x2" => 0x3f80,
                "f32" => 0x3f80_0000,
                _ => u64::MAX >> (64 - bits),
            };
            let halves = outcomes.iter().zip(0u32..);
            halves
                .map(|(&holds, place)| (u64::from(holds) * yes) << (place * bits))
                .sum()
        }),
    )
}

pub fn families() -> Vec<Family> {
    vec![
        setp("setp.{eq,ne,lt,le,gt,ge,lo,ls,hi,hs}{.and,.or,.xor}.{u16,u32,u64}"),
        setp("setp.{eq,ne,lt,le,gt,ge}{.and,.or,.xor}.{s16,s32,s64}"),
        setp("setp.{eq,ne}{.and,.or,.xor}.{b16,b32,b64}"),
        setp(
            "setp.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}{.and,.or,.xor}{.ftz}.{f16,f16x2,f32}",
        ),
        setp(
            "setp.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}{.and,.or,.xor}.{bf16,bf16x2,f64}",
        ),
        set(
            "set.{eq,ne,lt,le,gt,ge,lo,ls,hi,hs}{.and,.or,.xor}.{u32,s32,f16,bf16,f32}.{u16,u32,u64}",
        ),
        set("set.{eq,ne,lt,le,gt,ge}{.and,.or,.xor}.{u32,s32,f16,bf16,f32}.{s16,s32,s64}"),
        set("set.{eq,ne}{.and,.or,.xor}.{u32,s32,f16,bf16,f32}.{b16,b32,b64}"),
        set(
            "set.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}{.and,.or,.xor}{.ftz}.{u16,s16,u32,s32,f16}.f16",
        ),
        set(
            "set.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}{.and,.or,.xor}{.ftz}.{u32,s32,f16x2}.f16x2",
        ),
        set(
            "set.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}{.and,.or,.xor}{.ftz}.{u32,s32,f16,f32}.f32",
        ),
        set(
            "set.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}{.and,.or,.xor}.bf16.{f16,f32}",
        ),
        set(
            "set.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}{.and,.or,.xor}.{u32,s32,f16,bf16,f32}.f64",
        ),
        set(
            "set.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}{.and,.or,.xor}.{u16,s16,u32,s32,bf16}.bf16",
        ),
        set(
            "set.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}{.and,.or,.xor}.{u32,s32,bf16x2}.bf16x2",
        ),
    ]
}
