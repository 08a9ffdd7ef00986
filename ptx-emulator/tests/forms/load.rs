//! Loads, against the bytes that lie where they load from.

use super::family::{Code, Family, fixed_bytes, gives_all, shared_integers};
use super::harness::Operands;
use super::integer::{cut, low};
use super::syntax::Form;

/// Every type, alone and in vectors of up to 16 bytes.
macro_rules! shapes {
    () => {
        ".{b8,u8,s8,b16,u16,s16,b32,u32,s32,f32,b64,u64,s64,f64,v2.b8,v2.u8,v2.s8,v2.b16,v2.u16,v2.s16,v2.b32,v2.u32,v2.s32,v2.f32,\
v2.b64,v2.u64,v2.s64,v2.f64,v4.b8,v4.u8,v4.s8,v4.b16,v4.u16,v4.s16,v4.b32,v4.u32,v4.s32,v4.f32}"
    };
}
pub(super) use shapes;

macro_rules! orders {
    () => {
        "{.weak,.volatile,.relaxed.cta,.relaxed.cluster,.relaxed.gpu,.relaxed.sys,.acquire.cta,.acquire.cluster,.acquire.gpu,\
.acquire.sys}"
    };
}

macro_rules! operators {
    () => {
        "ca,cg,cs,lu,cv"
    };
}

macro_rules! priorities {
    () => {
        ".L1::evict_normal,.L1::evict_unchanged,.L1::evict_first,.L1::evict_last,.L1::no_allocate"
    };
}
pub(super) use priorities;

macro_rules! sizes {
    () => {
        "L2::64B,.L2::128B,.L2::256B"
    };
}

/// The number of elements.
pub fn count(form: &Form) -> usize {
    match form.one_of(&["v2", "v4", "v8"]) {
        Some("v2") => 2,
        Some("v4") => 4,
        Some(_) => 8,
        None => 1,
    }
}

/// A cache policy in `%policy`, and what it is as an operand, where the form has one.
pub fn policy(form: &Form) -> (&'static str, &'static str) {
    if form.has("L2::cache_hint") {
        let make = ".reg .b64 %policy;\ncreatepolicy.fractional.L2::evict_first.b64 %policy;\n";
        (make, ", %policy")
    } else {
        ("", "")
    }
}

/// Loads from an address after some preparation. One element goes to registers of 64 bits and of its own width, two
/// to registers of 64 bits, four to registers of their own width.
fn code(form: &Form, prepare: &str, address: &str) -> Code {
    let register = form.ty().register();
    let (make, policy) = policy(form);
    let load = |to: &str| format!("{{form}} {to}, [{address}]{policy};\n");
    let (text, results) = match count(form) {
        1 => (load("{d}") + &load("{d1}"), vec![64, register]),
        2 => (load("{{d}, {d1}}"), vec![64; 2]),
        _ => (load("{{d}, {d1}, {d2}, {d3}}"), vec![register; 4]),
    };
    Code::new(format!("{make}{prepare}{text}"), &results, &[64, 64])
}

/// The registers of [`code`] after a load of some bytes.
fn loaded(form: &Form, bytes: [u8; 16]) -> Operands {
    let ty = form.ty();
    let all = u128::from_le_bytes(bytes);
    let element = |index: usize, width: u32| {
        let bits = (all >> (index as u32 * ty.bits)) as u64;
        cut(low(bits, ty.bits, ty.is_signed()), width)
    };
    match count(form) {
        1 => [element(0, 64), element(0, ty.register()), 0, 0],
        2 => [element(0, 64), element(1, 64), 0, 0],
        _ => std::array::from_fn(|index| element(index, ty.register())),
    }
}

/// The first two operands, as they lie in memory.
pub fn stored([a, b, ..]: Operands) -> [u8; 16] {
    (u128::from(b) << 64 | u128::from(a)).to_le_bytes()
}

/// Loads of a thread's first two operands from where `prepare` put them.
fn own(syntax: &'static str, prepare: &'static str, address: &'static str) -> Family {
    Family::new(
        syntax,
        move |form| code(form, prepare, address),
        shared_integers(),
        gives_all(|form, operands| loaded(form, stored(operands))),
    )
}

const TO_SHARED: &str = "st.shared.v2.b64 [%shared], {{a}, {b}};\n";
const TO_LOCAL: &str = "st.local.v2.b64 [%local], {{a}, {b}};\n";

/// An address among the constants, another one in each thread.
const TO_CONSTANTS: &str = ".reg .b64 %at, %first;
and.b64 %at, {a}, 48;
mov.b64 %first, constants;
add.s64 %at, %at, %first;
";

/// Through a function that returns what it gets.
const CALL: &str = ".param .align 16 .b8 there[16];
.param .align 16 .b8 back[16];
st.param.v2.b64 [there], {{a}, {b}};
call (back), same, (there);
";

fn at(offset: usize) -> [u8; 16] {
    fixed_bytes()[offset..][..16].try_into().expect("16 bytes")
}

fn constant(syntax: &'static str) -> Family {
    Family::new(
        syntax,
        |form| code(form, TO_CONSTANTS, "%at"),
        shared_integers(),
        gives_all(|form, operands| loaded(form, at(operands[0] as usize & 48))),
    )
}

fn kernel_parameter(syntax: &'static str) -> Family {
    Family::new(
        syntax,
        |form| code(form, "", "block+32"),
        shared_integers(),
        gives_all(|form, _| loaded(form, at(32))),
    )
}

pub fn families() -> Vec<Family> {
    vec![
        own(
            concat!("ld", orders!(), "{.global}", shapes!()),
            "",
            "{input}",
        ),
        own(
            concat!(
                "ld",
                orders!(),
                ".{shared,shared::cta,shared::cluster}",
                shapes!()
            ),
            TO_SHARED,
            "%shared",
        ),
        // Generic addresses of other memory.
        own(
            concat!("ld", orders!(), shapes!()),
            TO_SHARED,
            "%shared_generic",
        ),
        own(concat!("ld{.weak}", shapes!()), TO_LOCAL, "%local_generic"),
        own(
            concat!("ld{.weak,.volatile}.local", shapes!()),
            TO_LOCAL,
            "%local",
        ),
        own(
            concat!("ld{.weak}.{param,param::func}", shapes!()),
            CALL,
            "back",
        ),
        kernel_parameter(concat!("ld{.weak}.{param,param::entry}", shapes!())),
        constant(concat!("ld{.weak}.const", shapes!())),
        own(concat!("ld.global.nc", shapes!()), "", "{input}"),
        own(
            "ld.mmio.{relaxed,acquire}.sys{.global}.{b8,u8,s8,b16,u16,s16,b32,u32,s32,f32,b64,u64,s64,f64}",
            "",
            "{input}",
        ),
        own(
            "ldu{.global}.{b8,u8,s8,b16,u16,s16,b32,u32,s32,f32,b64,u64,s64,f64,v2.b8,v2.u8,v2.s8,v2.b16,v2.u16,v2.s16,v2.b32,v2.u32,\
v2.s32,v2.f32,v2.b64,v2.u64,v2.s64,v2.f64,v4.b8,v4.u8,v4.s8,v4.b16,v4.u16,v4.s16,v4.b32,v4.u32,v4.s32,v4.f32}",
            "",
            "{input}",
        ),
        // Hints have nothing to do with the type.
        own(
            concat!(
                "ld{.weak}{.global}{.ca,.cg,.cs,.lu,.cv,",
                priorities!(),
                "}{.L2::cache_hint}{.",
                sizes!(),
                "}.{b32,v4.f32}"
            ),
            "",
            "{input}",
        ),
        own(
            concat!(
                "ld.{relaxed,acquire}.{cta,cluster,gpu,sys}{.global}{",
                priorities!(),
                "}{.L2::cache_hint}{.",
                sizes!(),
                "}.{b32,v4.f32}"
            ),
            "",
            "{input}",
        ),
        own(
            concat!("ld.volatile{.global}{.", sizes!(), "}.{b32,v4.f32}"),
            "",
            "{input}",
        ),
        own(
            concat!(
                "ld.global.nc{.ca,.cg,.cs,",
                priorities!(),
                "}{.L2::cache_hint}{.",
                sizes!(),
                "}.{b32,v4.f32}"
            ),
            "",
            "{input}",
        ),
        own(
            concat!(
                "ld{.weak}.{shared,shared::cta,shared::cluster}.{",
                operators!(),
                "}.{b32,v4.f32}"
            ),
            TO_SHARED,
            "%shared",
        ),
        own(
            concat!("ld{.weak}.local.{", operators!(), "}.{b32,v4.f32}"),
            TO_LOCAL,
            "%local",
        ),
        own(
            concat!(
                "ld{.weak}.{param,param::func}.{",
                operators!(),
                "}.{b32,v4.f32}"
            ),
            CALL,
            "back",
        ),
        kernel_parameter(concat!(
            "ld{.weak}.{param,param::entry}.{",
            operators!(),
            "}.{b32,v4.f32}"
        )),
        constant(concat!("ld{.weak}.const.{", operators!(), "}.{b32,v4.f32}")),
    ]
}
