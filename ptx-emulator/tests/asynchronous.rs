//! `cp.async`, alone and in bulk, and `mbarrier`: what arrives, when it may be read, and what is done wrong with them.

mod harness;

use harness::{Arg, Bench, HEADER, line};
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

fn run(body: &str, threads: u32) -> Vec<u32> {
    run_with(body, threads, Config::default()).unwrap_or_else(|error| panic!("{error}\n{body}"))
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

#[test]
fn copies_of_every_size() {
    let input = input();
    for (copy, size) in [
        ("cp.async.ca.shared.global [%r3], [%rd3], 4;", 4),
        (
            "cp.async.ca.shared::cta.global.L2::128B [%r3+4], [%rd3+0], 4, 4;",
            4,
        ),
    ] {
        let at = if copy.contains("+4") { 4 } else { 0 };
        let got = run(
            &format!(
                "{copy} cp.async.wait_all;\nld.shared.u32 %r6, [%r3+{at}]; st.global.u32 [%rd4], %r6;"
            ),
            64,
        );
        assert_eq!(got[..64], input[..64], "{copy} {size}");
    }
    // 8 bytes for each thread.
    let got = run(
        "mad.lo.u32 %r6, %r1, 8, %r2; add.u64 %rd7, %rd3, %rd5; add.u64 %rd8, %rd4, %rd5;
cp.async.ca.shared.global [%r6], [%rd7], 8; cp.async.commit_group; cp.async.wait_group 0;
ld.shared.v2.u32 {%r7, %r8}, [%r6]; st.global.v2.u32 [%rd8], {%r7, %r8};",
        64,
    );
    assert_eq!(got[..128], input[..128]);
    // 16 bytes, of which as many are read as the thread's number modulo 17, or as a predicate allows.
    let store = "cp.async.wait_all; sub.u64 %rd7, %rd6, %rd1; add.u64 %rd7, %rd7, %rd2;
ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r4]; st.global.v4.u32 [%rd7], {%r10, %r11, %r12, %r13};";
    let whole: Vec<u8> = input.iter().flat_map(|word| word.to_le_bytes()).collect();
    for (copy, size) in [
        (
            "cp.async.ca.shared.global [%r4], [%rd6], 16;",
            (|_| 16) as fn(usize) -> usize,
        ),
        ("cp.async.cg.shared.global [%r4], [%rd6], 16;", |_| 16),
        (
            "rem.u32 %r6, %r1, 17; cp.async.cg.shared.global [%r4], [%rd6], 16, %r6;",
            |thread| thread % 17,
        ),
        (
            "setp.lt.u32 %p2, %r1, 9; cp.async.cg.shared.global [%r4], [%rd6], 16, %p2;",
            |thread| if thread < 9 { 0 } else { 16 },
        ),
        (
            "setp.lt.u32 %p2, %r1, 9; cp.async.cg.shared.global [%r4], [%rd6], 16, !%p2;",
            |thread| if thread < 9 { 16 } else { 0 },
        ),
        (
            "mov.b64 %rd8, 0; cp.async.cg.shared.global.L2::cache_hint [%r4], [%rd6], 16, %rd8;",
            |_| 16,
        ),
    ] {
        let got = run(&format!("{copy}\n{store}"), 128);
        for thread in 0..128 {
            let mut want = [0; 16];
            let size = size(thread);
            want[..size].copy_from_slice(&whole[16 * thread..][..size]);
            let got: Vec<u8> = got[4 * thread..][..4]
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect();
            assert_eq!(got, want, "{copy} {thread}");
        }
    }
}

/// A tail is filled with zeros without reading past the buffer, whose last 16 bytes are words 508 to 511.
#[test]
fn nothing_is_read_where_nothing_is_asked_for() {
    let body = |size: u32| {
        format!(
            "add.u64 %rd7, %rd1, 2048; /*!*/ cp.async.cg.shared.global [%r4], [%rd7], 16, {size};"
        )
    };
    run(&body(0), 1);
    assert_eq!(fault(&body(4), 1), FaultKind::OutOfBounds { size: 4 });
}

#[test]
fn groups() {
    let copies = "cp.async.ca.shared.global [%r3], [%rd3], 4; cp.async.commit_group;
cp.async.ca.shared.global [%r3+1024], [%rd3+4], 4; cp.async.commit_group; cp.async.commit_group;
cp.async.ca.shared.global [%r3+2048], [%rd3+8], 4;";
    let load = |at: u32| format!("/*!*/ ld.shared.u32 %r6, [%r3+{at}]; st.global.u32 [%rd4], %r6;");
    for (wait, readable) in [
        ("cp.async.wait_group 3;", 0),
        ("cp.async.wait_group 2;", 1),
        ("cp.async.wait_group 1;", 2),
        ("cp.async.wait_group 0;", 2),
        ("cp.async.wait_all;", 3),
        ("cp.async.commit_group; cp.async.wait_group 0;", 3),
    ] {
        for at in 0..3u32 {
            let body = format!("{copies}\n{wait}\n{}", load(1024 * at));
            if at < readable {
                assert_eq!(
                    run(&body, 96)[..96],
                    input()[at as usize..][..96],
                    "{wait} {at}"
                );
            } else {
                assert_eq!(
                    fault(&body, 96),
                    FaultKind::UnfinishedCopy { writes: true },
                    "{wait} {at}"
                );
            }
        }
    }
}

/// Without the check, what is read too early is what was there before.
#[test]
fn early_reads_unchecked() {
    let body = "st.shared.u32 [%r3], 77; cp.async.ca.shared.global [%r3], [%rd3], 4;
ld.shared.u32 %r6, [%r3]; cp.async.wait_all; ld.shared.u32 %r7, [%r3]; add.u32 %r6, %r6, %r7; st.global.u32 [%rd4], %r6;";
    let config = Config {
        checks: Checks {
            races: false,
            ..Checks::ALL
        },
        ..Config::default()
    };
    let got = run_with(body, 32, config).unwrap();
    let want: Vec<u32> = input()[..32]
        .iter()
        .map(|word| word.wrapping_add(77))
        .collect();
    assert_eq!(got[..32], want);
    // Copies over each other then arrive in their order.
    let twice =
        "cp.async.ca.shared.global [%r3], [%rd3], 4; cp.async.ca.shared.global [%r3], [%rd3+4], 4;
cp.async.wait_all; ld.shared.u32 %r6, [%r3]; st.global.u32 [%rd4], %r6;";
    let config = Config {
        checks: Checks::NONE,
        ..Config::default()
    };
    assert_eq!(run_with(twice, 32, config).unwrap()[..32], input()[1..33]);
}

#[test]
fn copies_and_races() {
    let copy = "cp.async.ca.shared.global [%r3], [%rd3], 4; cp.async.wait_all;";
    let neighbour =
        "xor.b32 %r7, %r3, 128; /*!*/ ld.shared.u32 %r6, [%r7]; st.global.u32 [%rd4], %r6;";
    // A wait is for the thread's own copies: others need a barrier.
    let got = run(&format!("{copy} bar.sync 0;\n{neighbour}"), 64);
    let want: Vec<u32> = (0..64).map(|thread| input()[thread ^ 32]).collect();
    assert_eq!(got[..64], want);
    assert!(matches!(
        fault(&format!("{copy}\n{neighbour}"), 64),
        FaultKind::SharedRace { .. } | FaultKind::UninitializedMemory { .. }
    ));
    assert_eq!(
        fault(
            &format!("cp.async.ca.shared.global [%r3], [%rd3], 4; bar.sync 0;\n{neighbour}"),
            64
        ),
        FaultKind::UnfinishedCopy { writes: true }
    );
    // A copy into what others still read: which of the two is found first depends on who runs first.
    let reuse = |between: &str| {
        let body = format!(
            "st.shared.u32 [%r3], %r1; bar.sync 0; xor.b32 %r7, %r3, 128; ld.shared.u32 %r6, [%r7]; {between}
cp.async.ca.shared.global [%r3], [%rd3], 4;\nbar.sync 0; cp.async.wait_all;"
        );
        run_with(&body, 64, Config::default())
    };
    reuse("bar.sync 0;").unwrap();
    let Err(LaunchError::Fault(fault_of_reuse)) = reuse("") else {
        panic!("a race goes unseen");
    };
    assert!(matches!(
        fault_of_reuse.kind,
        FaultKind::SharedRace { .. } | FaultKind::UnfinishedCopy { writes: true }
    ));
    // Two copies into one place, and a store into one.
    assert_eq!(
        fault("/*!*/ cp.async.ca.shared.global [%r2], [%rd3], 4;", 2),
        FaultKind::UnfinishedCopy { writes: true }
    );
    assert_eq!(
        fault(
            "cp.async.ca.shared.global [%r3], [%rd3], 4;\n/*!*/ st.shared.u32 [%r3], 1;",
            2
        ),
        FaultKind::UnfinishedCopy { writes: true }
    );
    assert_eq!(
        fault(
            "cp.async.ca.shared.global [%r3], [%rd3], 4;\n/*!*/ atom.shared.add.u32 %r6, [%r3], 1;",
            2
        ),
        FaultKind::UnfinishedCopy { writes: true }
    );
}

#[test]
fn bad_copies() {
    let kind = |copy: &str| fault(&format!("/*!*/ {copy}"), 1);
    assert_eq!(
        kind("cp.async.ca.shared.global [%r3+2], [%rd3], 4;"),
        FaultKind::Misaligned { required: 4 }
    );
    assert_eq!(
        kind("cp.async.ca.shared.global [%r3], [%rd3+8], 16;"),
        FaultKind::Misaligned { required: 16 }
    );
    assert_eq!(
        kind("cp.async.ca.shared.global [%r3+8192], [%rd3], 4;"),
        FaultKind::OutOfBounds { size: 4 }
    );
    assert_eq!(
        kind("cp.async.ca.shared.global [%r3], [%rd3+-4], 4;"),
        FaultKind::OutOfBounds { size: 4 }
    );
    assert!(invalid(
        &kind("cp.async.ca.shared.global [%r3], [%rd3], 4, 5;"),
        "5 bytes of 4"
    ));
    let fresh = kernel("/*!*/ cp.async.ca.shared.global [%r3], [%rd4], 4;");
    let outcome = Bench::new(&fresh).run(
        "k",
        line(1),
        &mut [Arg::Words(&mut input()), Arg::Fresh(&mut vec![0; 4])],
    );
    let Err(LaunchError::Fault(fault)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(fault.kind, FaultKind::UninitializedMemory { size: 4 });
}

#[test]
fn copies_are_counted() {
    let mut output = vec![0; 512];
    let report = Bench::new(&kernel(
        "cp.async.cg.shared.global [%r4], [%rd6], 16; cp.async.wait_all;",
    ))
    .run(
        "k",
        line(64),
        &mut [Arg::Words(&mut input()), Arg::Words(&mut output)],
    )
    .unwrap();
    let global = report.counters.global;
    assert_eq!(
        (global.load_requests, global.load_sectors, global.bytes_read),
        (2, 32, 1024)
    );
    assert_eq!(report.counters.shared.bytes_written, 1024);
    assert_eq!(report.counters.warp.load_global, 2);
}

/// Phases of an mbarrier by state and by parity, with every way to arrive.
#[test]
fn phases() {
    // One thread plays all parts; the result has a bit for each wait that was over.
    let steps = [
        // Two arrivals end phase 0; the state that the first gives is of phase 0, with 2 pending.
        ("mbarrier.init.shared.b64 [%r5], 2;", None),
        (
            "mbarrier.test_wait.parity.shared.b64 %p2, [%r5], 0;",
            Some(false),
        ),
        (
            "mbarrier.test_wait.parity.shared.b64 %p2, [%r5], 1;",
            Some(true),
        ),
        ("mbarrier.arrive.shared.b64 %rd7, [%r5];", None),
        (
            "mbarrier.test_wait.shared.b64 %p2, [%r5], %rd7;",
            Some(false),
        ),
        (
            "mbarrier.pending_count.b64 %r6, %rd7; setp.eq.u32 %p2, %r6, 2;",
            Some(true),
        ),
        (
            "mbarrier.arrive.release.cta.shared::cta.b64 %rd8, [%r5], 1;",
            None,
        ),
        (
            "mbarrier.pending_count.b64 %r6, %rd8; setp.eq.u32 %p2, %r6, 1;",
            Some(true),
        ),
        (
            "mbarrier.test_wait.shared.b64 %p2, [%r5], %rd7;",
            Some(true),
        ),
        (
            "mbarrier.try_wait.acquire.cta.shared::cta.b64 %p2, [%r5], %rd8, 100;",
            Some(true),
        ),
        (
            "mbarrier.try_wait.parity.shared.b64 %p2, [%r5], 0;",
            Some(true),
        ),
        (
            "mbarrier.try_wait.parity.shared.b64 %p2, [%r5], 1;",
            Some(false),
        ),
        // Phase 1: bytes are awaited as well, and one thread leaves for good.
        ("mbarrier.arrive.expect_tx.shared.b64 _, [%r5], 48;", None),
        ("mbarrier.arrive_drop.shared.b64 _, [%r5];", None),
        (
            "mbarrier.test_wait.parity.shared.b64 %p2, [%r5], 1;",
            Some(false),
        ),
        (
            "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r5], 16;",
            None,
        ),
        ("mbarrier.complete_tx.shared::cta.b64 [%r5], 48;", None),
        (
            "mbarrier.test_wait.parity.shared.b64 %p2, [%r5], 1;",
            Some(false),
        ),
        ("mbarrier.complete_tx.shared::cta.b64 [%r5], 16;", None),
        (
            "mbarrier.test_wait.parity.shared.b64 %p2, [%r5], 1;",
            Some(true),
        ),
        // Phase 2 is left with one arrival.
        ("mbarrier.arrive.shared.b64 %rd7, [%r5];", None),
        (
            "mbarrier.pending_count.b64 %r6, %rd7; setp.eq.u32 %p2, %r6, 1;",
            Some(true),
        ),
        (
            "mbarrier.test_wait.parity.shared.b64 %p2, [%r5], 0;",
            Some(true),
        ),
        // Invalidated, it is memory again, and can be another one.
        (
            "mbarrier.inval.shared.b64 [%r5]; st.shared.u64 [%r5], 5; mbarrier.init.shared.b64 [%r5], 3;",
            None,
        ),
        (
            "mbarrier.arrive.noComplete.shared.b64 %rd7, [%r5], 2;",
            None,
        ),
        (
            "mbarrier.test_wait.shared.b64 %p2, [%r5], %rd7;",
            Some(false),
        ),
        ("mbarrier.arrive.shared.b64 _, [%r5];", None),
        (
            "mbarrier.test_wait.shared.b64 %p2, [%r5], %rd7;",
            Some(true),
        ),
        (
            "mbarrier.arrive_drop.noComplete.shared.b64 %rd7, [%r5], 1;",
            None,
        ),
        (
            "cvt.u64.u32 %rd9, %r5; cvta.shared.u64 %rd9, %rd9; mbarrier.arrive.b64 %rd7, [%rd9], 2;",
            None,
        ),
        ("mbarrier.test_wait.b64 %p2, [%rd9], %rd7;", Some(true)),
        ("mbarrier.arrive_drop.shared.b64 %rd7, [%r5], 2;", None),
        ("mbarrier.test_wait.b64 %p2, [%rd9], %rd7;", Some(true)),
    ];
    let mut body = "mov.u64 %rd10, 0;\n".to_owned();
    let (mut want, mut bit) = (0u64, 0);
    for (step, over) in steps {
        body += step;
        if let Some(over) = over {
            body += " selp.u64 %rd11, 1, 0, %p2;";
            body += &format!(" shl.b64 %rd11, %rd11, {bit}; or.b64 %rd10, %rd10, %rd11;");
            want |= u64::from(over) << bit;
            bit += 1;
        }
        body.push('\n');
    }
    body += "st.global.u64 [%rd4], %rd10;";
    let got = run(&body, 1);
    assert_eq!(u64::from(got[0]) | u64::from(got[1]) << 32, want);
}

#[test]
fn bad_mbarriers() {
    let after = |body: &str| {
        fault(
            &format!("mbarrier.init.shared.b64 [%r5], 2;\n/*!*/ {body}"),
            1,
        )
    };
    assert!(invalid(
        &after("mbarrier.init.shared.b64 [%r5], 2;"),
        "ordinary access"
    ));
    assert!(invalid(
        &after("st.shared.u32 [%r5+4], 2;"),
        "ordinary access"
    ));
    assert!(invalid(
        &after("ld.shared.u64 %rd7, [%r5];"),
        "ordinary access"
    ));
    assert!(invalid(
        &after("mbarrier.init.shared.b64 [%r5+8], 0;"),
        "must be from 1"
    ));
    assert!(invalid(
        &after("mbarrier.arrive.shared.b64 %rd7, [%r5], 3;"),
        "3 arrivals where 2"
    ));
    assert!(invalid(
        &after("mbarrier.arrive.noComplete.shared.b64 %rd7, [%r5], 2;"),
        "complete the phase"
    ));
    assert!(invalid(
        &after("mbarrier.test_wait.parity.shared.b64 %p2, [%r5], 2;"),
        "parity is 2"
    ));
    assert!(invalid(
        &after("mbarrier.test_wait.shared.b64 %p2, [%r5], 0;"),
        "the state"
    ));
    assert!(invalid(
        &after("mbarrier.expect_tx.relaxed.cta.shared.b64 [%r5], 1048576;"),
        "must be from 0"
    ));
    let nothing = "mov.u32 %r6, 0; st.shared.v2.u32 [%r5+8], {%r6, %r6};\n/*!*/ mbarrier.arrive.shared.b64 %rd7, [%r5+8];";
    assert!(invalid(&fault(nothing, 1), "no mbarrier"));
    assert_eq!(
        fault("/*!*/ mbarrier.arrive.shared.b64 %rd7, [%r5];", 1),
        FaultKind::UninitializedMemory { size: 8 }
    );
    assert_eq!(
        after("mbarrier.arrive.shared.b64 %rd7, [%r5+4];"),
        FaultKind::Misaligned { required: 8 }
    );
    assert!(invalid(
        &after("mbarrier.arrive.b64 %rd7, [%rd1];"),
        "not in shared memory"
    ));
    // A state two phases old.
    let old = "mbarrier.init.shared.b64 [%r5], 1; mbarrier.arrive.shared.b64 %rd7, [%r5]; mbarrier.arrive.shared.b64 _, [%r5];
/*!*/ mbarrier.test_wait.shared.b64 %p2, [%r5], %rd7;";
    assert!(invalid(&fault(old, 1), "previous phase"));
    // Others use it before they can know that it is ready.
    let race = |between: &str| {
        format!(
            "@%p1 mbarrier.init.shared.b64 [%r5], 64; setp.eq.u32 %p2, %r1, 32; {between}\n/*!*/ @%p2 mbarrier.arrive.shared.b64 %rd7, [%r5];"
        )
    };
    run(&race("bar.sync 0;"), 64);
    assert!(matches!(fault(&race(""), 64), FaultKind::SharedRace { .. }));
}

const WAIT: &str = "wait: mbarrier.try_wait.parity.shared.b64 %p3, [%r5], 0; @!%p3 bra wait;";

/// All threads copy, and wait for everybody's copies at one mbarrier.
#[test]
fn arrivals_after_copies() {
    for (init, arrive) in [
        // The arrivals of the copies are those that are expected.
        ("64", "cp.async.mbarrier.arrive.noinc.shared.b64 [%r5];"),
        // The copies' arrivals come on top of the threads' own.
        (
            "64",
            "cp.async.mbarrier.arrive.shared.b64 [%r5]; mbarrier.arrive.shared.b64 _, [%r5];",
        ),
    ] {
        let body = |arrive: &str| {
            format!(
                "@%p1 mbarrier.init.shared.b64 [%r5], {init}; bar.sync 0;
cp.async.ca.shared.global [%r3], [%rd3], 4; {arrive}
{WAIT}
xor.b32 %r7, %r3, 128;
/*!*/ ld.shared.u32 %r6, [%r7]; st.global.u32 [%rd4], %r6;"
            )
        };
        for seed in [None, Some(3), Some(4)] {
            let config = Config {
                seed,
                ..Config::default()
            };
            let got = run_with(&body(arrive), 64, config).unwrap();
            let want: Vec<u32> = (0..64).map(|thread| input()[thread ^ 32]).collect();
            assert_eq!(got[..64], want);
        }
        // Threads that arrive for themselves say nothing about their copies.
        assert_eq!(
            fault(&body("mbarrier.arrive.shared.b64 _, [%r5];"), 64),
            FaultKind::UnfinishedCopy { writes: true }
        );
    }
}

#[test]
fn bulk_loads() {
    let body = |announce: &str, bytes: u32, wait: &str| {
        format!(
            "@%p1 mbarrier.init.shared.b64 [%r5], 1; fence.mbarrier_init.release.cluster; fence.proxy.async; bar.sync 0;
@!%p1 bra skip;
{announce}
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2+64], [%rd1+32], {bytes}, [%r5];
skip: mov.u32 %r7, 0;
{wait}
/*!*/ ld.shared.u32 %r6, [%r3+64]; st.global.u32 [%rd4], %r6;"
        )
    };
    let announce = "mbarrier.arrive.expect_tx.shared.b64 _, [%r5], 512;";
    for seed in [None, Some(3), Some(4)] {
        let config = Config {
            seed,
            ..Config::default()
        };
        let got = run_with(&body(announce, 512, WAIT), 128, config).unwrap();
        assert_eq!(got[..128], input()[8..136]);
    }
    // Bytes that were not announced: the phase ends without them.
    let silent = "mbarrier.arrive.shared.b64 _, [%r5];";
    assert_eq!(
        fault(&body(silent, 512, WAIT), 128),
        FaultKind::UnfinishedCopy { writes: true }
    );
    assert_eq!(
        fault(&body(announce, 512, "bar.sync 0;"), 128),
        FaultKind::UnfinishedCopy { writes: true }
    );
    // One thread waits: the others need a barrier of their own.
    let one_waits = format!("@!%p1 bra go; {WAIT} go: mov.u32 %r7, 0;");
    run(
        &body(announce, 512, &format!("{one_waits} bar.sync 0;")),
        128,
    );
    // What is found depends on who runs first: the bytes are not there yet, or another warp has waited for them.
    let Err(LaunchError::Fault(unwaited)) =
        run_with(&body(announce, 512, &one_waits), 128, Config::default())
    else {
        panic!("a missing barrier goes unseen");
    };
    assert!(matches!(
        unwaited.kind,
        FaultKind::SharedRace { .. }
            | FaultKind::UnfinishedCopy { .. }
            | FaultKind::UninitializedMemory { .. }
    ));
    let copy = |operands: &str| {
        fault(
            &format!(
                "mbarrier.init.shared.b64 [%r5], 1;
/*!*/ cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes {operands};"
            ),
            1,
        )
    };
    assert!(invalid(&copy("[%r2], [%rd1], 24, [%r5]"), "multiple of 16"));
    assert_eq!(
        copy("[%r2+8], [%rd1], 32, [%r5]"),
        FaultKind::Misaligned { required: 16 }
    );
    assert_eq!(
        copy("[%r2], [%rd1+8], 32, [%r5]"),
        FaultKind::Misaligned { required: 16 }
    );
    assert_eq!(
        copy("[%r2], [%rd1+2032], 32, [%r5]"),
        FaultKind::OutOfBounds { size: 32 }
    );
    assert_eq!(
        copy("[%r2+8192], [%rd1], 32, [%r5]"),
        FaultKind::OutOfBounds { size: 32 }
    );
    assert!(invalid(&copy("[%r2], [%rd1], 32, [%r5+8]"), "no mbarrier"));
}

#[test]
fn bulk_stores() {
    let body = |wait: &str| {
        format!(
            "mad.lo.u32 %r6, %r1, 7, 3; st.shared.u32 [%r3], %r6; fence.proxy.async.shared::cta; bar.sync 0;
@%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd2+16], [%r2], 256;
@%p1 cp.async.bulk.commit_group;
{wait} bar.sync 0;
/*!*/ st.shared.u32 [%r3], 0;"
        )
    };
    let want: Vec<u32> = (0..64).map(|thread| thread * 7 + 3).collect();
    for wait in [
        "cp.async.bulk.wait_group.read 0;",
        "cp.async.bulk.wait_group 0;",
    ] {
        assert_eq!(run(&body(wait), 64)[4..68], want);
    }
    // The source may still be read.
    for wait in ["", "cp.async.bulk.wait_group.read 1;"] {
        assert_eq!(
            fault(&body(wait), 64),
            FaultKind::UnfinishedCopy { writes: false }
        );
    }
    let copy = |operands: &str| {
        fault(
            &format!("/*!*/ cp.async.bulk.global.shared::cta.bulk_group {operands};"),
            1,
        )
    };
    assert_eq!(
        copy("[%rd2], [%r2], 16"),
        FaultKind::UninitializedMemory { size: 16 }
    );
    assert_eq!(
        copy("[%rd2+4], [%r2], 16"),
        FaultKind::Misaligned { required: 16 }
    );
    assert_eq!(
        copy("[%rd2+2048], [%r2], 16"),
        FaultKind::OutOfBounds { size: 16 }
    );
}

/// A producer warp fills a ring of two stages with bulk copies; a consumer warp empties it. Each stage has a full and an
/// empty mbarrier, and parities that turn with every round.
#[test]
fn ring_of_stages() {
    let ptx = kernel(
        "@!%p1 bra ready;
mbarrier.init.shared.b64 [%r5], 1; mbarrier.init.shared.b64 [%r5+8], 1;
mbarrier.init.shared.b64 [%r5+16], 32; mbarrier.init.shared.b64 [%r5+24], 32;
fence.mbarrier_init.release.cluster;
ready: bar.sync 0;
mov.u32 %r10, 0; mov.u32 %r11, 0;
setp.ge.u32 %p2, %r1, 32;
@%p2 bra consume;
@!%p1 bra done;
produce:
and.b32 %r12, %r10, 1; shr.u32 %r13, %r10, 1; and.b32 %r13, %r13, 1; xor.b32 %r13, %r13, 1;
mad.lo.u32 %r14, %r12, 8, %r5;
empty: mbarrier.try_wait.parity.shared.b64 %p3, [%r14+16], %r13; @!%p3 bra empty;
mbarrier.arrive.expect_tx.shared.b64 _, [%r14], 128;
mad.lo.u32 %r15, %r12, 128, %r2;
mul.wide.u32 %rd7, %r10, 128; add.u64 %rd7, %rd1, %rd7;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r15], [%rd7], 128, [%r14];
add.u32 %r10, %r10, 1; setp.lt.u32 %p4, %r10, 16; @%p4 bra produce;
bra done;
consume:
and.b32 %r12, %r10, 1; shr.u32 %r13, %r10, 1; and.b32 %r13, %r13, 1;
mad.lo.u32 %r14, %r12, 8, %r5;
full: mbarrier.try_wait.parity.shared.b64 %p3, [%r14], %r13; @!%p3 bra full;
mad.lo.u32 %r15, %r12, 128, %r3;
ld.shared.u32 %r16, [%r15+-128];
mad.lo.u32 %r11, %r11, 3, %r16;
mbarrier.arrive.shared.b64 _, [%r14+16];
add.u32 %r10, %r10, 1; setp.lt.u32 %p4, %r10, 16; @%p4 bra consume;
st.global.u32 [%rd4], %r11;
done: mov.u32 %r9, 0;",
    );
    for seed in [None, Some(1), Some(2), Some(3)] {
        let config = Config {
            seed,
            ..Config::default()
        };
        let mut output = vec![0; 512];
        Bench::with(&ptx, config)
            .run(
                "k",
                line(64),
                &mut [Arg::Words(&mut input()), Arg::Words(&mut output)],
            )
            .unwrap_or_else(|error| panic!("{error}"));
        let input = input();
        for lane in 0..32 {
            let want = (0..16).fold(0u32, |sum, stage| {
                sum.wrapping_mul(3).wrapping_add(input[stage * 32 + lane])
            });
            assert_eq!(output[32 + lane], want);
        }
    }
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
        ("cp.async.commit_group 1;", "0 operands"),
        ("cp.async.wait_group %r1;", "integer literal"),
        ("cp.async.wait_group 8589934592;", "too many"),
        ("cp.async.mbarrier.noinc.b64 [%rd1];", "`.arrive`"),
        (
            "cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [%r3], [%rd3, {%r1}], [%r5];",
            "expected",
        ),
        (
            "cp.async.bulk.prefetch.L2.global [%rd3], 16;",
            "`.prefetch`",
        ),
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
