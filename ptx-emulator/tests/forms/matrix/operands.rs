//! What the operands of matrix instructions may be, and combinations of words that are far from any form.

use crate::family::kernel;
use crate::harness::parse;

const REGISTERS: &str = ".reg .b32 %r<16>; .reg .f32 %f<8>; .reg .b64 %rd<4>; ";

#[test]
fn refused() {
    for (body, words) in [
        (
            "mma.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r4, %r5}, {%r3}, {%r3}, {%r3, %r3};",
            "`.sync.aligned`",
        ),
        (
            "mma.sync.aligned.m8n8k16.col.col.s32.s8.s8.s32 {%r4, %r5}, {%r3}, {%r3}, {%r3, %r3};",
            "`.row.col`",
        ),
        (
            "mma.sync.aligned.m8n8k4.row.col.f32.bf16.bf16.f32 {%f1}, {%r3}, {%r3}, {%f1};",
            "m8n8k4 is not supported",
        ),
        (
            "mma.sync.aligned.m8n8k4.row.f32.f16.f16.f32 {%f1}, {%r3}, {%r3}, {%f1};",
            "two layouts",
        ),
        (
            "mma.sync.aligned.m8n8k4.col.row.f16.f16.f16.f32 {%r4}, {%r3, %r3}, {%r3, %r3}, {%f1};",
            "must be the same",
        ),
        (
            "mma.sync.aligned.m8n8k4.col.row.f16.f16.f16.f16 {%r4, %r5, %r6, %r7}, {%r3}, {%r3, %r3}, {%r3, %r3, %r3, %r3};",
            "takes 2 registers",
        ),
        (
            "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%f1}, {%r3}, {%r3}, {%f1};",
            "four types",
        ),
        (
            "mma.sync.aligned.m8n8k16.row.col.s32.s8.s4.s32 {%r4, %r5}, {%r3}, {%r3}, {%r3, %r3};",
            "combination of types",
        ),
        (
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f16 {%f1, %f2, %f3, %f4}, {%r3, %r3}, {%r3}, {%r3, %r3};",
            "must be the same",
        ),
        (
            "mma.sync.aligned.m16n8k8.row.col.satfinite.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r3, %r3}, {%r3}, {%f1, %f2, %f3, %f4};",
            "`.satfinite`",
        ),
        (
            "mma.sync.aligned.m16n8k8.row.col.rz.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r3, %r3}, {%r3}, {%f1, %f2, %f3, %f4};",
            "`.f64`",
        ),
        (
            "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r4}, {%r3}, {%r3}, {%r3, %r3};",
            "takes 2 registers",
        ),
        (
            "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r4, %r5}, %r3, {%r3}, {%r3, %r3};",
            "with 1 registers",
        ),
        (
            "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r4, %r5}, {5}, {%r3}, {%r3, %r3};",
            "in registers",
        ),
        (
            "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4}, {%f1, %f2}, {%f3}, {%f1, %f2, %f3, %f4};",
            "`%f1` is .f32",
        ),
        (
            "ldmatrix.sync.aligned.m16n16.x1.shared.b8 {%r4, %r5}, [%r2];",
            "`.m8n8`",
        ),
        (
            "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%r4, %r5}, [%r2];",
            "number of matrices",
        ),
        (
            "ldmatrix.sync.aligned.m8n8.x1.global.b16 {%r4}, [%rd1];",
            "`.shared`",
        ),
        (
            "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r4}, [%r2];",
            "takes 2 registers",
        ),
        (
            "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%f1}, [%r2];",
            "`%f1` is .f32",
        ),
        ("movmatrix.sync.aligned.m8n8.b16 %r4, %r5;", "`.m8n8.trans`"),
        (
            "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r2], {7};",
            "in registers",
        ),
        (
            "movmatrix.sync.aligned.m8n8.trans.b16 %r4, 7;",
            "in a register",
        ),
    ] {
        crate::refused(&format!("{REGISTERS}{body}"), words);
    }
}

/// Results that nobody wants, and literals to add.
#[test]
fn taken() {
    let body = "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {_, %r5}, {%r3}, {%r3}, {0, 1};";
    parse(&kernel(&format!("{{ {REGISTERS}{body} }}")));
}
