//! Stores, against the bytes that are there afterwards.

use super::family::{Code, Family, gives_all, shared_integers};
use super::harness::Operands;
use super::load::{count, policy, priorities, shapes, stored};
use super::syntax::Form;

macro_rules! orders {
    () => {
        "{.weak,.volatile,.relaxed.cta,.relaxed.cluster,.relaxed.gpu,.relaxed.sys,.release.cta,.release.cluster,.release.gpu,\
.release.sys}"
    };
}

/// What is there before.
const BEFORE: u64 = 0xe1e2_e3e4_e5e6_e7e8;

/// The elements of a store: one or two are the first operands, in registers of 64 bits; four are parts of them, in registers
/// of their own width, or of 16 bits for bytes.
fn elements(form: &Form) -> (String, &'static str) {
    let halves = |names: &str, word: &str| format!("mov.b64 {names}, {word};\n");
    match (count(form), form.ty().register()) {
        (1, _) => (String::new(), "{a}"),
        (2, _) => (String::new(), "{{a}, {b}}"),
        (_, 32) => (
            ".reg .b32 %e<4>;\n".to_owned()
                + &halves("{%e0, %e1}", "{a}")
                + &halves("{%e2, %e3}", "{b}"),
            "{%e0, %e1, %e2, %e3}",
        ),
        _ => (
            ".reg .b16 %e<4>;\n".to_owned() + &halves("{%e0, %e1, %e2, %e3}", "{a}"),
            "{%e0, %e1, %e2, %e3}",
        ),
    }
}

/// Stores to the second 16 bytes of an address, and takes what is there from the 8 bytes before them to the 8 bytes after them.
fn code(form: &Form, space: &str, address: &str) -> Code {
    let (take, elements) = elements(form);
    let (make, policy) = policy(form);
    let fill: String = [8, 16, 24, 32]
        .iter()
        .map(|at| format!("st{space}.b64 [{address}+{at}], {BEFORE};\n"))
        .collect();
    let read: String = [("{d}", 8), ("{d1}", 16), ("{d2}", 24), ("{d3}", 32)]
        .iter()
        .map(|(result, at)| format!("ld{space}.b64 {result}, [{address}+{at}];\n"))
        .collect();
    Code::new(
        format!("{make}{take}{fill}{{form}} [{address}+16], {elements}{policy};\n{read}"),
        &[64; 4],
        &[64; 2],
    )
}

/// As [`code`], to an argument of a function that returns it.
fn argument(form: &Form) -> Code {
    let (take, elements) = elements(form);
    let text = format!(
        "{take}.param .align 16 .b8 there[16];
.param .align 16 .b8 back[16];
st.param.b64 [there], {BEFORE};
st.param.b64 [there+8], {BEFORE};
{{form}} [there], {elements};
call (back), same, (there);
mov.b64 {{d}}, {BEFORE};
mov.b64 {{d3}}, {BEFORE};
ld.param.v2.b64 {{{{d1}}, {{d2}}}}, [back];
"
    );
    Code::new(text, &[64; 4], &[64; 2])
}

/// The bytes of a store's elements, and those around them that it leaves alone.
fn written(form: &Form, operands: Operands) -> Operands {
    let width = form.ty().bits as usize / 8;
    let sources = stored(operands);
    // Where an element starts in the operands.
    let stride = match count(form) {
        1 | 2 => 8,
        _ => form.ty().register() as usize / 8,
    };
    let mut words = [BEFORE.to_le_bytes(); 4];
    let bytes = words.as_flattened_mut();
    for element in 0..count(form) {
        let to = 8 + element * width;
        bytes[to..to + width].copy_from_slice(&sources[element * stride..][..width]);
    }
    words.map(u64::from_le_bytes)
}

fn stores(syntax: &'static str, space: &'static str, address: &'static str) -> Family {
    Family::new(
        syntax,
        move |form| code(form, space, address),
        shared_integers(),
        gives_all(written),
    )
}

pub fn families() -> Vec<Family> {
    let arguments = |syntax| Family::new(syntax, argument, shared_integers(), gives_all(written));
    vec![
        stores(
            concat!("st", orders!(), "{.global}", shapes!()),
            ".global",
            "%global",
        ),
        stores(
            concat!(
                "st",
                orders!(),
                ".{shared,shared::cta,shared::cluster}",
                shapes!()
            ),
            ".shared",
            "%shared",
        ),
        // Generic addresses of other memory.
        stores(concat!("st", orders!(), shapes!()), "", "%shared_generic"),
        stores(concat!("st{.weak}", shapes!()), "", "%local_generic"),
        stores(
            concat!("st{.weak,.volatile}.local", shapes!()),
            ".local",
            "%local",
        ),
        arguments(concat!("st{.weak}.{param,param::func}", shapes!())),
        stores(
            "st.mmio.{relaxed,release}.sys{.global}.{b8,u8,s8,b16,u16,s16,b32,u32,s32,f32,b64,u64,s64,f64}",
            ".global",
            "%global",
        ),
        // Hints have nothing to do with the type.
        stores(
            concat!(
                "st{.weak}{.global}{.wb,.cg,.cs,.wt,",
                priorities!(),
                "}{.L2::cache_hint}.{b32,v4.f32}"
            ),
            ".global",
            "%global",
        ),
        stores(
            concat!(
                "st.{relaxed,release}.{cta,cluster,gpu,sys}{.global}{",
                priorities!(),
                "}{.L2::cache_hint}.{b32,v4.f32}"
            ),
            ".global",
            "%global",
        ),
        stores(
            "st{.weak}.{shared,shared::cta,shared::cluster}.{wb,cg,cs,wt}.{b32,v4.f32}",
            ".shared",
            "%shared",
        ),
        stores(
            "st{.weak}.local.{wb,cg,cs,wt}.{b32,v4.f32}",
            ".local",
            "%local",
        ),
        arguments("st{.weak}.{param,param::func}.{wb,cg,cs,wt}.{b32,v4.f32}"),
    ]
}
