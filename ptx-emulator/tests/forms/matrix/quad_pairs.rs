//! `mma.m8n8k4` on `.f16`: four products of a warp, each of its own quad pair, by the formulas of the ISA.

use super::fragments::{exact_sum, factors, matrices};
use crate::family::{Code, Family, random};
use crate::harness::exact::{F16, F32};
use crate::harness::{Arg, Bench, HEADER, line};
use crate::syntax::Form;
use half::f16;

/// Row and column of element `i` of a lane's part of `a`.
fn position_of_a(layout: &str, lane: usize, i: usize) -> (usize, usize) {
    let lower = if lane < 16 { 0 } else { 4 };
    match layout {
        "row" => (lane % 4 + lower, i),
        _ => (i % 4 + lower, lane % 4),
    }
}

/// Likewise of `b`.
fn position_of_b(layout: &str, lane: usize, i: usize) -> (usize, usize) {
    let right = if lane < 16 { 0 } else { 4 };
    match layout {
        "row" => (lane % 4, i + right),
        _ => (i, lane % 4 + right),
    }
}

/// Likewise of `c` and `d`.
fn position_of_c(ty: &str, lane: usize, i: usize) -> (usize, usize) {
    let lower = if lane < 16 { 0 } else { 4 };
    match ty {
        "f16" => (lane % 4 + lower, i),
        _ => (
            (lane & 0b1) + (i & 0b10) + lower,
            (i & 0b100) + (lane & 0b10) + (i & 0b1),
        ),
    }
}

/// Lanes 0 to 3 and 16 to 19 compute the first product, lanes 4 to 7 and 20 to 23 the second one, and so on.
fn product_of(lane: usize) -> usize {
    lane / 4 % 4
}

/// Registers of 8 elements.
fn sum_registers(ty: &str) -> usize {
    if ty == "f16" { 4 } else { 8 }
}

/// A kernel in which each lane loads its registers and stores those of the sum.
fn kernel([a, b]: [&str; 2], d: &str, c: &str) -> String {
    let inputs = 4 + sum_registers(c);
    let names = |registers: std::ops::Range<usize>| {
        let names: Vec<_> = registers.map(|at| format!("%r{at}")).collect();
        format!("{{{}}}", names.join(", "))
    };
    let loads: String = (0..inputs)
        .map(|i| format!("ld.global.b32 %r{}, [%rd3+{}];\n", 10 + i, 4 * i))
        .collect();
    let stores: String = (0..sum_registers(d))
        .map(|i| format!("st.global.b32 [%rd4+{}], %r{};\n", 4 * i, 30 + i))
        .collect();
    format!(
        "{HEADER}
.visible .entry k(.param .u64 input, .param .u64 output)
{{
.reg .b32 %r<40>;
.reg .b64 %rd<6>;
ld.param.u64 %rd1, [input];
ld.param.u64 %rd2, [output];
mov.u32 %r1, %laneid;
mul.wide.u32 %rd3, %r1, 64;
add.u64 %rd4, %rd2, %rd3;
add.u64 %rd3, %rd1, %rd3;
{loads}
mma.sync.aligned.m8n8k4.{a}.{b}.{d}.f16.f16.{c} {}, {}, {}, {};
{stores}
ret;
}}
",
        names(30..30 + sum_registers(d)),
        names(10..12),
        names(12..14),
        names(14..10 + inputs),
    )
}

/// Runs one form on four products and compares every element of every lane.
fn check(products: &[[Vec<Vec<u64>>; 3]], layouts: [&str; 2], d: &str, c: &str) {
    let mut input = vec![0u32; 32 * 16];
    for lane in 0..32 {
        let [a, b, addend] = &products[product_of(lane)];
        let mut put = |word: usize, shift: usize, value: u64| {
            input[lane * 16 + word] |= (value as u32) << shift;
        };
        for i in 0..4 {
            let (row, column) = position_of_a(layouts[0], lane, i);
            put(i / 2, i % 2 * 16, a[row][column] & 0xffff);
            let (row, column) = position_of_b(layouts[1], lane, i);
            put(2 + i / 2, i % 2 * 16, b[row][column] & 0xffff);
        }
        for i in 0..8 {
            let (row, column) = position_of_c(c, lane, i);
            let value = addend[row][column];
            match c {
                "f16" => put(4 + i / 2, i % 2 * 16, value & 0xffff),
                _ => put(4 + i, 0, value & 0xffff_ffff),
            }
        }
    }
    let mut output = vec![0u32; 32 * 16];
    let ptx = kernel(layouts, d, c);
    Bench::new(&ptx)
        .run(
            "k",
            line(32),
            &mut [Arg::Words(&mut input), Arg::Words(&mut output)],
        )
        .unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    for lane in 0..32 {
        let [a, b, addend] = &products[product_of(lane)];
        for i in 0..8 {
            let got = match d {
                "f16" => output[lane * 16 + i / 2] >> (i % 2 * 16) & 0xffff,
                _ => output[lane * 16 + i],
            };
            let (row, column) = position_of_c(d, lane, i);
            let left: Vec<u64> = a[row][..4].iter().map(|bits| bits & 0xffff).collect();
            let right: Vec<u64> = b[..4].iter().map(|row| row[column] & 0xffff).collect();
            let addend = addend[row][column];
            let want = match (d, c) {
                ("f16", _) => exact_sum(F16, F16, &left, &right, addend & 0xffff),
                (_, "f16") => {
                    let widened = f16::from_bits(addend as u16).to_f32().to_bits();
                    exact_sum(F16, F32, &left, &right, widened.into())
                }
                _ => exact_sum(F16, F32, &left, &right, addend & 0xffff_ffff),
            };
            assert_eq!(
                u64::from(got),
                want,
                "{layouts:?} {d} {c}: lane {lane}, element {i}: {left:x?} {right:x?} {addend:#x} give {got:#x}, expected {want:#x}"
            );
        }
    }
}

/// The registers of a form, for the loader.
fn code(form: &Form) -> Code {
    let [.., d, _, _, c] = form.words[..] else {
        panic!("{form}");
    };
    let factor = (2, 32);
    super::unspecified(
        (sum_registers(d), 32),
        factor,
        factor,
        (sum_registers(c), 32),
    )
}

pub fn families() -> Vec<Family> {
    let syntax = "mma.sync.aligned.m8n8k4.{row,col}.{row,col}.{f32.f16.f16.f32,f32.f16.f16.f16,f16.f16.f16.f16}";
    vec![Family::apart(syntax, code, |form| {
        let [.., a_layout, b_layout, d, _, _, c] = form.words[..] else {
            panic!("{form}");
        };
        for _ in 0..3 {
            let addend = if c == "f16" { F16 } else { F32 };
            let four = proptest::collection::vec(matrices(factors(F16), factors(addend)), 4);
            check(&random(four), [a_layout, b_layout], d, c);
        }
    })]
}
