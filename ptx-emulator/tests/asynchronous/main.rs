//! `cp.async`, alone and in bulk, and `mbarrier`: what arrives, when it may be read, and what is done wrong with them.

#[path = "../harness/mod.rs"]
mod harness;

mod bulk;
mod copies;
mod phases;

use harness::{Arg, Bench, EACH_CHECK_OFF, HEADER, line};
use ptx_emulator::{Checks, Config, FaultKind, LaunchConfig, LaunchError, Module};

/// A kernel over an input and an output buffer. `%r1` is the thread, `%rd3` and `%rd4` its words there, `%r3` its word of `cells`.
fn kernel(body: &str) -> String {
    format!(
        "{HEADER}
.visible .entry k(.param .u64 input, .param .u64 output)
{{
.reg .pred %p<8>;
.reg .b32 %r<32>;
.reg .b64 %rd<16>;
.shared .align 16 .b8 cells[4096];
.shared .align 8 .b64 bars[8];
ld.param.u64 %rd1, [input];
ld.param.u64 %rd2, [output];
mov.u32 %r1, %tid.x;
mov.u32 %r2, cells;
mad.lo.u32 %r3, %r1, 4, %r2;
mad.lo.u32 %r4, %r1, 16, %r2;
mov.u32 %r5, bars;
mul.wide.u32 %rd5, %r1, 4;
add.u64 %rd3, %rd1, %rd5;
add.u64 %rd4, %rd2, %rd5;
mul.wide.u32 %rd6, %r1, 16;
add.u64 %rd6, %rd1, %rd6;
setp.eq.u32 %p1, %r1, 0;
{body}
ret;
}}
"
    )
}

fn input() -> Vec<u32> {
    (0..512u32)
        .map(|i| i.wrapping_mul(0x9e37_79b9) ^ 0x55)
        .collect()
}

fn run_with(body: &str, threads: u32, config: Config) -> Result<Vec<u32>, LaunchError> {
    let mut output = vec![0; 512];
    Bench::with(&kernel(body), config).run(
        "k",
        line(threads),
        &mut [Arg::Words(&mut input()), Arg::Words(&mut output)],
    )?;
    Ok(output)
}

/// What a correct kernel gives, whatever is checked.
fn run(body: &str, threads: u32) -> Vec<u32> {
    let checked_for = |checks| {
        let config = Config {
            checks,
            ..Config::default()
        };
        run_with(body, threads, config)
            .unwrap_or_else(|error| panic!("{checks:?}: {error}\n{body}"))
    };
    let with_all = checked_for(Checks::ALL);
    for checks in EACH_CHECK_OFF.into_iter().chain([Checks::NONE]) {
        assert_eq!(checked_for(checks), with_all, "{body}");
    }
    with_all
}

/// The fault of a kernel, which must be at the line marked `/*!*/`.
fn fault(body: &str, threads: u32) -> FaultKind {
    match run_with(body, threads, Config::default()) {
        Err(LaunchError::Fault(fault)) => {
            assert!(fault.instruction.contains("/*!*/"), "{fault}");
            fault.kind
        }
        other => panic!("{other:?}\n{body}"),
    }
}

fn invalid(kind: &FaultKind, words: &str) -> bool {
    matches!(kind, FaultKind::InvalidOperand { reason } if reason.contains(words))
}

/// Blocks do not see each other's copies and mbarriers, one after the other or on several cores.
#[test]
fn every_block_starts_afresh() {
    let ptx = kernel(
        "@%p1 mbarrier.init.shared.b64 [%r5], 32; bar.sync 0;
cp.async.ca.shared.global [%r3], [%rd3], 4;
mbarrier.arrive.shared.b64 %rd7, [%r5];
mov.u32 %r8, %ctaid.x; mul.wide.u32 %rd8, %r8, 128; add.u64 %rd8, %rd4, %rd8; st.global.u32 [%rd8], %r1;",
    );
    for threads in [1, 2] {
        let config = Config {
            threads,
            ..Config::default()
        };
        let shape = LaunchConfig {
            grid: [6, 1, 1],
            ..line(32)
        };
        Bench::with(&ptx, config)
            .run(
                "k",
                shape,
                &mut [Arg::Words(&mut input()), Arg::Words(&mut vec![0; 192])],
            )
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn refused() {
    for (body, words) in [
        (
            "cp.sync.ca.shared.global [%r3], [%rd3], 4;",
            "unknown instruction",
        ),
        ("cp.async.shared.global [%r3], [%rd3], 4;", "cache operator"),
        (
            "cp.async.ca.global.shared [%rd3], [%r3], 4;",
            "from `.global`",
        ),
        ("cp.async.ca.shared.global [%r3], [%rd3], 3;", "4, 8 or 16"),
        (
            "cp.async.ca.shared.global [%r3], [%rd3], %r1;",
            "4, 8 or 16",
        ),
        ("cp.async.cg.shared.global [%r3], [%rd3], 8;", "16 bytes"),
        (
            "cp.async.ca.shared.global [%r3], [%rd3], 4, %rd1;",
            "`%rd1` is .b64",
        ),
        (
            "cp.async.ca.shared.global [%r3], [%rd3];",
            "number of operands",
        ),
        (
            "cp.async.ca.shared.global [%r3], [%rd3], 8, 9;",
            "9 is not from 0 to 8",
        ),
        ("cp.async.commit_group 1;", "0 operands"),
        ("cp.async.wait_group %r1;", "integer literal"),
        ("cp.async.wait_group 8589934592;", "too many"),
        ("cp.async.mbarrier.noinc.b64 [%rd1];", "`.arrive`"),
        (
            "cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [%r3], [%rd3, {%r1}], [%r5];",
            "`.tensor` is not supported",
        ),
        ("cp.async.bulk.prefetch.L2 [%rd3], 16;", "`.L2.global`"),
        (
            "cp.async.bulk.prefetch.L2.global [%rd3], 24;",
            "24 is not a multiple of 16",
        ),
        (
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r3], [%rd3], 8, [%r5];",
            "8 is not a multiple of 16",
        ),
        (
            "cp.async.bulk.global.shared::cta.bulk_group [%rd3], [%r3], -16;",
            "-16 is not a multiple of 16 from 0 to 1048560",
        ),
        (
            "cp.async.bulk.global.shared::cta.bulk_group [%rd3], [%r3], 1048576;",
            "from 0 to 1048560",
        ),
        (
            "cp.async.bulk.shared.global.mbarrier::complete_tx::bytes [%r3], [%rd3], 16, [%r5];",
            "this way",
        ),
        (
            "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r3], [%r3], 16, [%r5];",
            "this way",
        ),
        (
            "mbarrier.arrive.shared::cluster.b64 %rd1, [%r5];",
            "`.shared::cluster`",
        ),
        ("mbarrier.arrive.release.shared.b64 %rd1, [%r5];", "a scope"),
        (
            "cp.async.bulk.shared::cluster.global.bulk_group [%r3], [%rd3], 16;",
            "this way",
        ),
        (
            "cp.async.bulk.global.shared::cta.bulk_group [%rd3], [%r3];",
            "number of operands",
        ),
        (
            "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%rd3], [%r3], 16;",
            "cp.reduce",
        ),
        ("mbarrier.frob.b64 [%rd1];", "an action"),
        ("mbarrier.init.b32 [%rd1], 1;", ".b32 is not a type"),
        ("mbarrier.init.global.b64 [%rd1], 1;", "`.global`"),
        ("mbarrier.init.shared.b64 [%r5];", "number of operands"),
        ("mbarrier.init.shared.b64 [%r5], 0;", "0 is not from 1"),
        (
            "mbarrier.init.shared.b64 [%r5], 1048576;",
            "1048576 is not from 1 to 1048575",
        ),
        ("mbarrier.arrive.shared.b64 _, [%r5], 0;", "0 is not from 1"),
        (
            "mbarrier.test_wait.parity.shared.b64 %p1, [%r5], 2;",
            "2 is not from 0 to 1",
        ),
        (
            "mbarrier.arrive.expect_tx.shared.b64 _, [%r5];",
            "needs a count",
        ),
        (
            "mbarrier.arrive.noComplete.expect_tx.shared.b64 _, [%r5], 1;",
            "exclude each other",
        ),
        (
            "mbarrier.test_wait.shared.b64 %p1, [%r5], %r1;",
            "`%r1` is .b32",
        ),
        (
            "mbarrier.test_wait.parity.shared.b64 %p1, [%r5], 1, 1000;",
            "number of operands",
        ),
        (
            "mbarrier.test_wait.release.shared.b64 %p1, [%r5], %rd1;",
            "`.release`",
        ),
        ("fence.proxy.tensormap::generic.release.gpu;", "a proxy"),
        ("fence.mbarrier_init.release.gpu;", "`.release.cluster`"),
    ] {
        match Module::parse(&kernel(body)) {
            Err(error) => assert!(error.message.contains(words), "{body}: {error}"),
            Ok(_) => panic!("accepted: {body}"),
        }
    }
}
