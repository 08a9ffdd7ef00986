//! `mma`, `ldmatrix` and `stmatrix`, against the ISA's tables of which lane holds which element and exact sums.

#[path = "../harness/mod.rs"]
mod harness;

mod fragments;
mod quad_pairs;
mod random;

use harness::{Arg, Bench, HEADER, line, parse};
use ptx_emulator::{Checks, Config, FaultKind, LaunchError, Module};

fn small_kernel(body: &str) -> String {
    format!(
        "{HEADER}
.visible .entry k(.param .u64 output)
{{
.reg .pred %p<4>;
.reg .b32 %r<16>;
.reg .f32 %f<8>;
.reg .f64 %d<8>;
.reg .b64 %rd<4>;
.shared .align 16 .b8 cells[512];
mov.u32 %r1, %tid.x;
mov.u32 %r2, cells;
mov.u32 %r3, 0;
setp.lt.u32 %p1, %r1, 31;
{body}
ret;
}}
"
    )
}

fn run_small(body: &str, threads: u32, checks: Checks) -> Result<Vec<u32>, LaunchError> {
    let mut output = vec![0; 64];
    let config = Config {
        checks,
        ..Config::default()
    };
    Bench::with(&small_kernel(body), config).run(
        "k",
        line(threads),
        &mut [Arg::Words(&mut output)],
    )?;
    Ok(output)
}

#[test]
fn bad_use_is_found() {
    let mma =
        "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r4, %r5}, {%r3}, {%r3}, {%r3, %r3};";
    let fault = |body: &str, threads| match run_small(body, threads, Checks::ALL) {
        Err(LaunchError::Fault(fault)) => fault.kind,
        other => panic!("{body}: {other:?}"),
    };
    run_small(mma, 64, Checks::ALL).unwrap();
    // A lane that goes another way, has exited, or never was.
    let missing = FaultKind::InactiveLane { lane: 31 };
    assert_eq!(fault(&format!("@%p1 {mma}"), 32), missing);
    assert_eq!(fault(&format!("@!%p1 exit; {mma}"), 32), missing);
    assert_eq!(fault(mma, 31), missing);
    let load = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r2];";
    assert_eq!(fault(load, 31), missing);
    assert_eq!(
        fault(
            "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r4, %r5}, {%r9}, {%r3}, {%r3, %r3};",
            32
        ),
        FaultKind::UninitializedRegister {
            register: "%r9".into()
        }
    );
    assert_eq!(fault(load, 32), FaultKind::UninitializedMemory { size: 16 });
    let row = "mad.lo.u32 %r6, %r1, 16, %r2; st.shared.v4.u32 [%r6], {%r3, %r3, %r3, %r3};";
    let wait = "bar.warp.sync -1;";
    let load = "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r4, %r5},";
    run_small(&format!("{row} {wait} {load} [%r6];"), 32, Checks::ALL).unwrap();
    assert_eq!(
        fault(&format!("{row} {wait} {load} [%r6+8];"), 32),
        FaultKind::Misaligned { required: 16 }
    );
    assert_eq!(
        fault(&format!("{row} {wait} {load} [%r6+512];"), 32),
        FaultKind::OutOfBounds { size: 16 }
    );
    // The addresses of lanes that provide none do not matter.
    let wild = "setp.lt.u32 %p2, %r1, 16; @!%p2 mov.u32 %r6, 3;";
    run_small(
        &format!("{row} {wait} {wild} {load} [%r6];"),
        32,
        Checks::ALL,
    )
    .unwrap();
    assert!(matches!(
        fault(
            &format!(
                "{row} ld.param.u64 %rd1, [output]; ldmatrix.sync.aligned.m8n8.x1.b16 {{%r4}}, [%rd1];"
            ),
            32
        ),
        FaultKind::InvalidOperand { .. }
    ));
    // A lane reads what its neighbours wrote, with nothing between.
    assert!(matches!(
        fault(&format!("{row} xor.b32 %r6, %r6, 16; {load} [%r6];"), 32),
        FaultKind::SharedRace { .. }
    ));
}

/// A matrix whose elements say where they are, transposed in registers.
#[test]
fn transposed_in_registers() {
    let body = "shr.u32 %r4, %r1, 2; and.b32 %r5, %r1, 3; shl.b32 %r5, %r5, 1; mad.lo.u32 %r6, %r4, 8, %r5;
mad.lo.u32 %r7, %r6, 0x10001, 0x10000;
movmatrix.sync.aligned.m8n8.trans.b16 %r8, %r7;
ld.param.u64 %rd1, [output]; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd1, %rd1, %rd2; st.global.u32 [%rd1], %r8;";
    let output = run_small(body, 32, Checks::ALL).unwrap();
    for (lane, got) in output[..32].iter().enumerate() {
        // Element (r, c) is 8 r + c; the lane has two neighbours of a row of the transposed matrix.
        let (row, column) = (lane as u32 / 4, lane as u32 % 4 * 2);
        let element = |row: u32, column: u32| 8 * column + row;
        assert_eq!(*got, element(row, column) | element(row, column + 1) << 16);
    }
    let Err(LaunchError::Fault(fault)) = run_small(
        &format!("@%p1 {}", "movmatrix.sync.aligned.m8n8.trans.b16 %r8, %r1;"),
        32,
        Checks::ALL,
    ) else {
        panic!("a lane is missing");
    };
    assert_eq!(fault.kind, FaultKind::InactiveLane { lane: 31 });
}

#[test]
fn unchecked_rows_are_left_out() {
    let body = "mad.lo.u32 %r6, %r1, 16, %r2; st.shared.v4.u32 [%r6], {%r1, %r1, %r1, %r1};
setp.eq.u32 %p2, %r1, 0; @%p2 mov.u32 %r6, 8000;
ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r6];
ld.param.u64 %rd1, [output]; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd1, %rd1, %rd2; st.global.u32 [%rd1], %r4;";
    let output = run_small(body, 32, Checks::NONE).unwrap();
    let want: Vec<u32> = (0..32).map(|lane| lane / 4).collect();
    assert_eq!(output[..32], want);
}

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
    ] {
        match Module::parse(&small_kernel(body)) {
            Err(error) => assert!(error.message.contains(words), "{body}: {error}"),
            Ok(_) => panic!("accepted: {body}"),
        }
    }
    // Results that nobody wants, and literals to add, are fine.
    parse(&small_kernel(
        "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {_, %r5}, {%r3}, {%r3}, {0, 1};",
    ));
}
