//! Operands of memory instructions as they may be written: numbers, `_`, and addresses by name and with offsets.

use super::family::{Code, Family, fixed_bytes, gives_all, shared_integers};
use super::harness::Operands;

fn family(
    syntax: &'static str,
    text: &'static str,
    results: &'static [u32],
    expected: fn(Operands) -> Operands,
) -> Family {
    Family::new(
        syntax,
        move |_| Code::new(text, results, &[64; 2]),
        shared_integers(),
        gives_all(move |_, operands| expected(operands)),
    )
}

/// What a store of a number leaves of 8 bytes that were all ones.
fn number(syntax: &'static str, number: &'static str, left: u64) -> Family {
    Family::new(
        syntax,
        move |_| {
            let text = format!(
                "st.weak.global.b64 [%global], -1;
{{form}} [%global], {number};
ld.global.b64 {{d}}, [%global];"
            );
            Code::new(text, &[64], &[])
        },
        shared_integers(),
        gives_all(move |_, _| [left, 0, 0, 0]),
    )
}

/// What a reduction, or an atomic whose result nobody wants, makes of the first operand.
fn update(syntax: &'static str, operands: &'static str, meaning: fn(u64) -> u64) -> Family {
    Family::new(
        syntax,
        move |_| {
            let text = format!(
                "st.global.b64 [%global], {{a}};
{{form}} {operands};
ld.global.b64 {{d}}, [%global];"
            );
            Code::new(text, &[64], &[64])
        },
        shared_integers(),
        gives_all(move |_, [a, ..]| [meaning(a), 0, 0, 0]),
    )
}

const HIGH: u64 = 0xffff_ffff_0000_0000;

fn addresses() -> Vec<Family> {
    vec![
        family("ld.const.b64", "{form} {d}, [constants+24];", &[64], |_| {
            let bytes = fixed_bytes()[24..32].try_into().expect("8 bytes");
            [u64::from_le_bytes(bytes), 0, 0, 0]
        }),
        family("ld.param.b64", "{form} {d}, [block+16+-8];", &[64], |_| {
            let bytes = fixed_bytes()[8..16].try_into().expect("8 bytes");
            [u64::from_le_bytes(bytes), 0, 0, 0]
        }),
        family(
            "ld.local.b64",
            "st.local.b64 [own+8], {a};\n{form} {d}, [own+8];",
            &[64],
            |[a, ..]| [a, 0, 0, 0],
        ),
        family(
            "ld.b64",
            "st.local.b64 [own+8], {a};\n{form} {d}, [own+8];",
            &[64],
            |[a, ..]| [a, 0, 0, 0],
        ),
        family(
            "st.b64",
            "{form} [own+8], {a};\nld.local.b64 {d}, [own+8];",
            &[64],
            |[a, ..]| [a, 0, 0, 0],
        ),
        family(
            "ld.shared.b64",
            ".reg .b64 %end;\ncvt.u64.u32 %end, %shared;\nadd.u64 %end, %end, 64;
st.shared.b64 [%shared+8], {a};\n{form} {d}, [%end+-56];",
            &[64],
            |[a, ..]| [a, 0, 0, 0],
        ),
    ]
}

fn parts_of_vectors() -> Vec<Family> {
    vec![
        family(
            "ld.global.v2.b32",
            "{form} {_, {d}}, [{input}];",
            &[32],
            |[a, ..]| [a >> 32, 0, 0, 0],
        ),
        family(
            "ld.global.v4.u16",
            "{form} {{d}, _, _, {d1}}, [{input}];",
            &[16, 16],
            |[a, ..]| [a & 0xffff, a >> 48, 0, 0],
        ),
        family(
            "st.global.v2.b64",
            "{form} [%global], {{a}, 7};\nld.global.v2.b64 {{d}, {d1}}, [%global];",
            &[64, 64],
            |[a, ..]| [a, 7, 0, 0],
        ),
        family(
            "atom.global.add.v2.f32",
            "st.global.b64 [%global], 0;
.reg .b32 %old;
{form} {_, %old}, [%global], {0f3F800000, 0f40000000};
{form} {%old, _}, [%global], {0f3F800000, 0f40000000};
mov.b64 {d}, {%old, %old};
ld.global.b64 {d1}, [%global];",
            &[64, 64],
            |_| {
                let pair = |low: f32, high: f32| {
                    u64::from(high.to_bits()) << 32 | u64::from(low.to_bits())
                };
                [pair(1.0, 1.0), pair(2.0, 4.0), 0, 0]
            },
        ),
    ]
}

pub fn families() -> Vec<Family> {
    let mut families = addresses();
    families.extend(parts_of_vectors());
    families.extend([
        number("st.global.{b8,u8,s8}", "-5", !4),
        number("st.global.{b16,u16,s16}", "0x1234", !0xffff | 0x1234),
        number("st.global.{b32,u32,s32}", "7", HIGH | 7),
        number("st.global.{b64,u64,s64}", "-9", !8),
        number("st.global.f32", "0f3F800000", HIGH | 0x3f80_0000),
        number("st.global.f32", "-1.5", HIGH | 0xbfc0_0000),
        number(
            "st.global.f32",
            "/** half a thousand **/ 5e2",
            HIGH | u64::from(500f32.to_bits()),
        ),
        number("st.global.f64", "0.25", 0.25f64.to_bits()),
        number("st.global.f64", "-0d4004000000000000", (-2.5f64).to_bits()),
        number("st.global.f64", "1.5e+3 /***/", 1500f64.to_bits()),
        update("red.global.add.u32", "[%global], 7", |a| {
            a & HIGH | u64::from((a as u32).wrapping_add(7))
        }),
        update("atom.global.add.u64", "_, [%global], -3", |a| {
            a.wrapping_sub(3)
        }),
        update("atom.global.or.b32", "_, [%global+4], 0x80", |a| {
            a | 0x80_0000_0000
        }),
        update("atom.global.exch.b32", "_, [%global], 6", |a| a & HIGH | 6),
        update("atom.global.cas.b64", "_, [%global], {a}, 11", |_| 11),
    ]);
    families
}
