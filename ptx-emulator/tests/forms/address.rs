//! `cvta` and `isspacep`: addresses of spaces and generic ones.

use super::family::{Code, Family, gives, gives_all, integers};
use super::harness::{Arg, Bench, HEADER, line};
use super::syntax::Form;

/// A form's space: how to get an address of it and the generic one of the same bytes, and what loads from it.
fn space(form: &Form) -> (&'static str, &'static str) {
    match form.words[form.words.len() - 1 - usize::from(form.has("u64"))] {
        "global" => (
            "mov.b64 %own, %global; mov.b64 %generic, %global;",
            "ld.global.b64",
        ),
        "local" => (
            "cvt.u64.u32 %own, %local; mov.b64 %generic, %local_generic;",
            "ld.local.b64",
        ),
        "shared" | "shared::cta" | "shared::cluster" => (
            "cvt.u64.u32 %own, %shared; mov.b64 %generic, %shared_generic;",
            "ld.shared.b64",
        ),
        other => panic!("no space {other}"),
    }
}

/// What is stored by one address is loaded by the other.
fn conversion(form: &Form) -> Code {
    let (addresses, load) = space(form);
    let convert = if form.has("to") {
        "{form} %own, %generic;"
    } else {
        "{form} %generic, %own;"
    };
    Code::new(
        format!(
            "{{ .reg .b64 %own, %generic; {addresses} {convert} st.b64 [%generic], {{a}}; {load} {{d}}, [%own]; }}"
        ),
        &[64],
        &[64],
    )
}

/// As [`conversion`], of a kernel parameter, which nobody stores to.
fn of_parameter(form: &Form) -> Code {
    let convert = if form.has("to") {
        "cvta.param.u64 %generic, %own; {form} %own, %generic;"
    } else {
        "{form} %generic, %own;"
    };
    Code::new(
        format!("{{ .reg .b64 %own, %generic; mov.b64 %own, inputs; {convert} ld.b64 {{d}}, [%generic]; ld.param.b64 {{d1}}, [%own]; }}
ld.param.b64 {{d2}}, [inputs];"),
        &[64; 3],
        &[],
    )
}

/// Of global, shared and local memory and of a parameter.
fn is_in_space() -> Family {
    Family::new(
        "isspacep.{global,shared,shared::cta,shared::cluster,local,param,param::entry}",
        |_| {
            Code::new(
                "{ .reg .b64 %generic; mov.b64 %generic, inputs; cvta.param.u64 %generic, %generic;
{form} {d}, %global; {form} {d1}, %shared_generic; {form} {d2}, %local_generic; {form} {d3}, %generic; }",
                &[1; 4],
                &[],
            )
        },
        integers,
        gives_all(|form, _| match form.words[1] {
            // The window of parameters is in that of global memory.
            "global" => [1, 0, 0, 1],
            "local" => [0, 0, 1, 0],
            "param" | "param::entry" => [0, 0, 0, 1],
            _ => [0, 1, 0, 0],
        }),
    )
}

/// A kernel with a constant: what it makes of the address `%own`, and of the buffer's, `%buffer`.
fn of_constant(body: &str) -> Vec<u32> {
    let ptx = format!(
        "{HEADER}
.const .b64 fixed = 0x123456789abcdef0;
.visible .entry constants(.param .u64 output)
{{
.reg .pred %p<4>;
.reg .b64 %own, %generic, %buffer, %value;
.reg .b32 %word;
ld.param.u64 %buffer, [output];
mov.u64 %own, fixed;
{body}
ret;
}}
"
    );
    let mut output = vec![0; 2];
    let run = Bench::new(&ptx).run("constants", line(1), &mut [Arg::Words(&mut output)]);
    run.unwrap_or_else(|error| panic!("{body}: {error}"));
    output
}

fn constants(syntax: &'static str) -> Family {
    Family::apart(
        syntax,
        |form| match form.opcode() {
            "cvta" => Code::new("{form} {d}, {a};", &[64], &[64]),
            _ => Code::new("{form} {d}, {a};", &[1], &[64]),
        },
        |form| {
            let (body, expected) = match (form.opcode(), form.has("to")) {
                ("cvta", false) => (
                    format!("{form} %generic, %own; ld.b64 %value, [%generic]; st.global.b64 [%buffer], %value;"),
                    [0x9abc_def0, 0x1234_5678],
                ),
                ("cvta", true) => (
                    format!("cvta.const.u64 %generic, %own; {form} %own, %generic; ld.const.b64 %value, [%own]; st.global.b64 [%buffer], %value;"),
                    [0x9abc_def0, 0x1234_5678],
                ),
                _ => (
                    format!("cvta.const.u64 %generic, %own; {form} %p0, %generic; selp.b32 %word, 1, 0, %p0; st.global.b32 [%buffer], %word;
{form} %p0, %buffer; selp.b32 %word, 1, 0, %p0; st.global.b32 [%buffer+4], %word;"),
                    [1, 0],
                ),
            };
            assert_eq!(of_constant(&body), expected, "{form}");
        },
    )
}

pub fn families() -> Vec<Family> {
    vec![
        Family::new(
            "cvta{.to}.{global,shared,shared::cta,shared::cluster,local}.u64",
            conversion,
            integers,
            gives(|_, [a, ..]| a),
        ),
        Family::new(
            "cvta{.to}.{param,param::entry}.u64",
            of_parameter,
            integers,
            |_, _, outputs| {
                let [first, ..] = outputs[0];
                let right = outputs
                    .iter()
                    .all(|&[d, d1, d2, _]| first != 0 && [d, d1, d2] == [first; 3]);
                right
                    .then_some(())
                    .ok_or_else(|| format!("{:x?}", outputs[0]))
            },
        ),
        is_in_space(),
        constants("cvta{.to}.const.u64"),
        constants("isspacep.const"),
    ]
}

/// A constant's address is not one of global memory.
#[test]
fn constants_are_not_global() {
    let body = "cvta.const.u64 %generic, %own; isspacep.global %p0, %generic; selp.b32 %word, 1, 0, %p0; st.global.b32 [%buffer], %word;
isspacep.global %p0, %buffer; selp.b32 %word, 1, 0, %p0; st.global.b32 [%buffer+4], %word;";
    assert_eq!(of_constant(body), [0, 1]);
}
