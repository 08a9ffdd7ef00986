//! Atomics and reductions, each thread on its own bytes, against plain arithmetic.

use super::family::{Code, Family, gives_all, random};
use super::harness::Operands;
use super::harness::exact::{BF16, F16, F32, F64, Format, float};
use super::integer::{cut, value};
use super::load::{count, policy};
use super::syntax::{Form, Type};

macro_rules! scopes {
    () => {
        "{.cta,.cluster,.gpu,.sys}"
    };
}

macro_rules! scalars {
    () => {
        ".{add.u32,add.s32,add.u64,add.f32,add.noftz.f32,add.f64,add.noftz.f16,add.noftz.f16x2,add.noftz.bf16,add.noftz.bf16x2,\
min.u32,min.s32,min.u64,min.s64,max.u32,max.s32,max.u64,max.s64,and.b32,and.b64,or.b32,or.b64,xor.b32,xor.b64,inc.u32,dec.u32}"
    };
}

/// One form for each operation.
macro_rules! some_scalars {
    () => {
        ".{add.u32,add.noftz.f16x2,min.u32,max.u32,and.b32,or.b32,xor.b32,inc.u32,dec.u32}"
    };
}

macro_rules! vectors {
    () => {
        ".{add.v2.f32,add.v4.f32,add.noftz.v2.f32,add.noftz.v4.f32}"
    };
}

macro_rules! half_vectors {
    () => {
        ".{add,min,max}.noftz.{v2.f16,v2.bf16,v2.f16x2,v2.bf16x2,v4.f16,v4.bf16,v4.f16x2,v4.bf16x2,v8.f16,v8.bf16}"
    };
}

/// The format of a type's numbers, if they are floats.
fn format(ty: Type) -> Option<Format> {
    match ty.name {
        "f16" | "f16x2" => Some(F16),
        "bf16" | "bf16x2" => Some(BF16),
        "f32" => Some(F32),
        "f64" => Some(F64),
        _ => None,
    }
}

/// A number of at most 32 bits.
fn widen(bits: u64, format: Format) -> f64 {
    let field = (bits & ((1 << format.mantissa) - 1)) as f64;
    let exponent = ((bits & format.infinity()) >> format.mantissa) as i32;
    let bias = (1 << (format.exponent - 1)) - 1;
    let unit = |exponent: i32| 2f64.powi(exponent - bias - format.mantissa as i32);
    let magnitude = match exponent {
        _ if format.is_nan(bits) => f64::NAN,
        _ if !format.is_finite(bits) => f64::INFINITY,
        0 => field * unit(1),
        exponent => (field + 2f64.powi(format.mantissa as i32)) * unit(exponent),
    };
    if format.is_negative(bits) {
        -magnitude
    } else {
        magnitude
    }
}

/// The nearest number of at most 32 bits, to even between two.
fn narrow(x: f64, format: Format) -> u64 {
    if x.is_nan() {
        return format.nan();
    }
    let bias = (1 << (format.exponent - 1)) - 1;
    let exponent = ((x.abs().to_bits() >> 52) as i32 - 1023).max(1 - bias);
    let unit = 2f64.powi(exponent - format.mantissa as i32);
    // In units of the last place, which run on from one exponent to the next.
    let steps = (x.abs() / unit).round_ties_even() as u64;
    let first = ((exponent + bias - 1) as u64) << format.mantissa;
    let bits = first.saturating_add(steps).min(format.infinity());
    if x.is_sign_negative() {
        bits | format.sign()
    } else {
        bits
    }
}

/// The sum, or the lesser or greater number. `f64` has more than twice the bits of the narrower formats, so that to
/// round a sum twice is to round it once.
fn float_result(form: &Form, old: u64, b: u64, format: Format, flush: bool) -> u64 {
    let flush = flush && format == F32 && !form.has("noftz");
    if form.has("add") {
        if format == F64 {
            let sum = f64::from_bits(old) + f64::from_bits(b);
            return if sum.is_nan() {
                F64.nan()
            } else {
                sum.to_bits()
            };
        }
        let [old, b] = [old, b].map(|bits| widen(format.flush(bits, flush), format));
        return format.flush(narrow(old + b, format), flush);
    }
    match (format.is_nan(old), format.is_nan(b)) {
        (true, true) => format.nan(),
        (true, false) => b,
        (false, true) => old,
        (false, false) => {
            let [x, y] = [old, b].map(|bits| widen(bits, format));
            // Zeros are ordered by their sign.
            let less = x < y || (x == y && format.is_negative(old));
            if less == form.has("min") { old } else { b }
        }
    }
}

/// What is there afterwards, of one element.
fn result(form: &Form, old: u64, b: u64, c: u64, flush: bool) -> u64 {
    let ty = form.ty();
    if let Some(format) = format(ty) {
        let mask = u64::MAX >> (64 - format.bits());
        return (0..ty.bits)
            .step_by(format.bits() as usize)
            .map(|shift| {
                let (old, b) = (old >> shift & mask, b >> shift & mask);
                float_result(form, old, b, format, flush) << shift
            })
            .sum();
    }
    let numbers = [old, b, c].map(|bits| value(bits, ty));
    let [old, b, c] = numbers;
    let operations: [(&str, i128); 10] = [
        ("add", old + b),
        ("min", old.min(b)),
        ("max", old.max(b)),
        ("and", old & b),
        ("or", old | b),
        ("xor", old ^ b),
        ("exch", b),
        ("cas", if old == b { c } else { old }),
        ("inc", if old >= b { 0 } else { old + 1 }),
        ("dec", if old == 0 || old > b { b } else { old - 1 }),
    ];
    let (_, new) = operations
        .into_iter()
        .find(|(operation, _)| form.has(operation))
        .expect("an operation");
    cut(new, ty.bits)
}

/// What is there before in 16 bytes, the first and the last operand; and the elements of the other operand, the second and third
/// one, or those of `.cas`.
fn code(form: &Form, space: &str, address: &str) -> Code {
    let bits = form.ty().bits;
    let (make, policy) = policy(form);
    let before = format!("st{space}.v2.b64 [{address}], {{{{a}}, {{e}}}};\n");
    let after = format!("ld{space}.v2.b64 {{{{d2}}, {{d3}}}}, [{address}];\n");
    let count = count(form);
    let mut text = String::new();
    let list = |name: &str| {
        let names: Vec<_> = (0..count).map(|index| format!("%{name}{index}")).collect();
        if count == 1 {
            names[0].clone()
        } else {
            format!("{{{}}}", names.join(", "))
        }
    };
    for name in ["old", "new", "other"] {
        text += &format!(".reg .b{bits} %{name}<{count}>;\n");
    }
    // Elements and the words that they are parts of.
    let each = 64 / bits as usize;
    let mut words = Vec::new();
    for first in (0..count.max(each)).step_by(each) {
        let name = |name: &str| -> String {
            let parts: Vec<_> = (first..first + each)
                .map(|index| match index {
                    index if index < count => format!("%{name}{index}"),
                    _ => "_".to_owned(),
                })
                .collect();
            match each {
                1 => parts[0].clone(),
                _ => format!("{{{}}}", parts.join(", ")),
            }
        };
        words.push((name("new"), name("old"), name("other")));
    }
    for (word, (new, _, other)) in ["{b}", "{c}"].iter().zip(&words) {
        text += &format!("mov.b64 {new}, {word};\n");
        if form.has("cas") {
            text += &format!("mov.b64 {other}, {{c}};\n");
        }
    }
    let (old, new) = (list("old"), list("new"));
    let to = if form.opcode() == "red" {
        String::new()
    } else {
        format!("{old}, ")
    };
    let other = if form.has("cas") {
        format!(", {}", list("other"))
    } else {
        String::new()
    };
    let mut returned = "mov.b64 {d}, 0;\nmov.b64 {d1}, 0;\n".to_owned();
    if form.opcode() == "atom" {
        for (result, (_, old, _)) in ["{d}", "{d1}"].iter().zip(&words) {
            // What is no element is 0.
            returned += &zero_extended(result, old, bits);
        }
    }
    Code::new(
        format!(
            "{text}{make}{before}{{form}} {to}[{address}], {new}{other}{policy};\n{after}{returned}"
        ),
        &[64; 4],
        &[64; 4],
    )
}

/// Elements to a word.
fn zero_extended(result: &str, elements: &str, bits: u32) -> String {
    if !elements.contains('_') {
        return format!("mov.b64 {result}, {elements};\n");
    }
    let zero = format!(".reg .b{bits} %zero;\nmov.b{bits} %zero, 0;\n");
    format!(
        "{zero}mov.b64 {result}, {};\n",
        elements.replace('_', "%zero")
    )
}

/// The old elements, and all bytes afterwards. On global memory additions of `.f32` flush subnormal
/// numbers to zero, but for `.noftz`.
fn expected(form: &Form, [a, b, c, e]: Operands, flush: bool) -> Operands {
    let bits = form.ty().bits;
    let mask = u128::from(u64::MAX >> (64 - bits));
    let before = u128::from(e) << 64 | u128::from(a);
    let operand = u128::from(c) << 64 | u128::from(b);
    let (mut old, mut after) = (0, before);
    for index in 0..count(form) as u32 {
        let shift = index * bits;
        let [seen, b] = [before, operand].map(|all| (all >> shift & mask) as u64);
        let new = u128::from(result(form, seen, b, c, flush));
        old |= u128::from(seen) << shift;
        after = after & !(mask << shift) | new << shift;
    }
    if form.opcode() == "red" {
        old = 0;
    }
    [
        old as u64,
        (old >> 64) as u64,
        after as u64,
        (after >> 64) as u64,
    ]
}

/// Numbers of the form's type in all parts of the operands; for integers, some first and second ones are equal.
fn operands(form: &Form) -> Vec<Operands> {
    let mut operands = super::family::integers(form);
    if let Some(format) = format(form.ty()) {
        let each = (64 / format.bits()) as usize;
        let numbers = random(proptest::collection::vec(
            float(format),
            4 * each * operands.len(),
        ));
        let mut words = numbers.chunks(each).map(|parts| {
            parts.iter().rev().fold(0u64, |word, &part| {
                word.checked_shl(format.bits()).unwrap_or(0) | part
            })
        });
        for word in operands.iter_mut().flatten() {
            *word = words.next().expect("a word");
        }
    } else {
        for tuple in operands.iter_mut().step_by(3) {
            tuple[1] = tuple[0];
        }
    }
    operands
}

fn on(syntax: &'static str, space: &'static str, address: &'static str) -> Family {
    // Drawn once for each type.
    let drawn = std::cell::RefCell::new(std::collections::HashMap::new());
    Family::new(
        syntax,
        move |form| code(form, space, address),
        move |form| {
            let mut drawn = drawn.borrow_mut();
            let known = drawn.entry(form.ty().name);
            known.or_insert_with(|| operands(form)).clone()
        },
        gives_all(move |form, operands| expected(form, operands, space == ".global")),
    )
}

pub fn families() -> Vec<Family> {
    macro_rules! atom {
        ($space:literal, $forms:expr) => {
            concat!(
                "atom{.relaxed,.acquire,.release,.acq_rel}",
                scopes!(),
                $space,
                $forms
            )
        };
    }
    macro_rules! red {
        ($space:literal, $forms:expr) => {
            concat!("red{.relaxed,.release}", scopes!(), $space, $forms)
        };
    }
    let mut families = Vec::new();
    for syntax in [
        atom!("{.global}", scalars!()),
        atom!("{.global}", ".{exch.b32,exch.b64,cas.b16,cas.b32,cas.b64}"),
        atom!("{.global}", vectors!()),
        atom!("{.global}", half_vectors!()),
        red!("{.global}", scalars!()),
        red!("{.global}", vectors!()),
        red!("{.global}", half_vectors!()),
        // The hint has nothing to do with the type.
        concat!(
            "atom{.relaxed,.acquire,.release,.acq_rel}",
            scopes!(),
            "{.global}.L2::cache_hint",
            some_scalars!()
        ),
        concat!(
            "atom{.relaxed,.acquire,.release,.acq_rel}",
            scopes!(),
            "{.global}.L2::cache_hint.exch.b32"
        ),
        concat!(
            "atom{.relaxed,.acquire,.release,.acq_rel}",
            scopes!(),
            "{.global}.L2::cache_hint.{add.v2.f32,add.noftz.v4.f16x2,min.noftz.v4.f16x2,max.noftz.v2.bf16}"
        ),
        concat!(
            "red{.relaxed,.release}",
            scopes!(),
            "{.global}.L2::cache_hint",
            some_scalars!()
        ),
        concat!(
            "red{.relaxed,.release}",
            scopes!(),
            "{.global}.L2::cache_hint.{add.v2.f32,add.noftz.v4.f16x2,min.noftz.v4.f16x2,max.noftz.v2.bf16}"
        ),
    ] {
        families.push(on(syntax, ".global", "%global"));
    }
    for syntax in [
        atom!(".{shared,shared::cta,shared::cluster}", scalars!()),
        atom!(
            ".{shared,shared::cta,shared::cluster}",
            ".{exch.b32,exch.b64,cas.b16,cas.b32,cas.b64}"
        ),
        red!(".{shared,shared::cta,shared::cluster}", scalars!()),
    ] {
        families.push(on(syntax, ".shared", "%shared"));
    }
    // Generic addresses of shared memory.
    for syntax in [
        concat!("atom", scalars!()),
        "atom.{exch.b32,exch.b64,cas.b16,cas.b32,cas.b64}",
        concat!("red", scalars!()),
    ] {
        families.push(on(syntax, "", "%shared_generic"));
    }
    families
}
