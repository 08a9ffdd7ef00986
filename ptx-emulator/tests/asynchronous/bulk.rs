//! Copies that an mbarrier or a bulk group waits for.

use super::*;

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

/// Who waits for a copy knows what its thread did before it, not what it did since.
#[test]
fn copies_release_what_came_before_them() {
    let bulk = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd1], 16, [%r5];";
    for (announce, copy) in [
        (
            "mbarrier.arrive.expect_tx.shared.b64 _, [%r5], 16;",
            bulk.to_owned(),
        ),
        (
            "",
            "cp.async.ca.shared.global [%r2], [%rd1], 16; cp.async.mbarrier.arrive.noinc.shared.b64 [%r5];".to_owned(),
        ),
    ] {
        let body = |first: &str, last: &str| {
            format!(
                "@%p1 mbarrier.init.shared.b64 [%r5], 1; bar.sync 0;
setp.eq.u32 %p2, %r1, 32;
@%p2 bra other;
@!%p1 bra end;
{announce} {first} {copy} {last}
bra end;
other: {WAIT}
/*!*/ ld.shared.u32 %r6, [%r2+1024]; ld.shared.u32 %r7, [%r2]; st.global.u32 [%rd4], %r7;
end:"
            )
        };
        let store = "st.shared.u32 [%r2+1024], %r1;";
        assert_eq!(run(&body(store, ""), 64)[32], input()[0]);
        assert!(matches!(
            fault(&body("", store), 64),
            FaultKind::SharedRace { .. }
        ));
    }
}

/// Bytes that have landed because another thread waited are there for the thread that copied them once it waits as well.
#[test]
fn who_copies_has_to_wait() {
    let body = |announce: &str, copy: &str, wait: &str| {
        format!(
            "@%p1 mbarrier.init.shared.b64 [%r5], 1; @%p1 st.shared.u32 [%r5+8], 0; bar.sync 0;
setp.eq.u32 %p2, %r1, 32;
@%p2 bra other;
@!%p1 bra end;
{announce} {copy}
look: ld.relaxed.cta.shared.u32 %r8, [%r5+8]; setp.eq.u32 %p4, %r8, 0; @%p4 bra look;
{wait}
/*!*/ ld.shared.u32 %r6, [%r2]; st.global.u32 [%rd4], %r6;
bra end;
other: {WAIT} st.relaxed.cta.shared.u32 [%r5+8], 1;
end:"
        )
    };
    let announce = "mbarrier.arrive.expect_tx.shared.b64 _, [%r5], 16;";
    let bulk = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd1], 16, [%r5];";
    let single = "cp.async.ca.shared.global [%r2], [%rd1], 16; cp.async.mbarrier.arrive.noinc.shared.b64 [%r5];";
    let again = WAIT
        .replace("wait", "wait2")
        .replace("try_wait2", "try_wait");
    for (announce, copy, wait) in [
        (announce, bulk, again.as_str()),
        ("", single, again.as_str()),
        ("", single, "cp.async.wait_all;"),
    ] {
        assert_eq!(run(&body(announce, copy, wait), 64)[0], input()[0]);
        assert!(matches!(
            fault(&body(announce, copy, ""), 64),
            FaultKind::SharedRace { .. }
        ));
    }
}

/// As many copies out of shared memory as the threads of a block like to have under way.
#[test]
fn many_bulk_stores() {
    let body =
        "st.shared.v4.u32 [%r2], {1, 2, 3, 4}; mov.u32 %r6, 0; fence.proxy.async; bar.sync 0;
@!%p1 bra end;
next: cp.async.bulk.global.shared::cta.bulk_group [%rd2], [%r2], 16;
add.u32 %r6, %r6, 1; setp.le.u32 %p2, %r6, 65536; @%p2 bra next;
cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;
st.shared.u32 [%r2], 5;
end:";
    assert_eq!(
        run_with(body, 32, Config::default()).unwrap()[..4],
        [1, 2, 3, 4]
    );
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
                "mov.u32 %r9, 24; mbarrier.init.shared.b64 [%r5], 1;
/*!*/ cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes {operands};"
            ),
            1,
        )
    };
    assert!(invalid(
        &copy("[%r2], [%rd1], %r9, [%r5]"),
        "multiple of 16"
    ));
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

/// The inputs have 2048 bytes.
#[test]
fn a_prefetch_stays_within_its_allocation() {
    let prefetch = |operands: &str| {
        format!(
            "mov.u32 %r9, 24;\nmov.u32 %r10, 1048576;\n/*!*/ cp.async.bulk.prefetch.L2.global {operands};"
        )
    };
    run_with(&prefetch("[%rd1+1024], 1024"), 1, Config::default()).expect("within");
    let kind = |operands: &str| fault(&prefetch(operands), 1);
    assert_eq!(
        kind("[%rd1+1040], 1024"),
        FaultKind::OutOfBounds { size: 1024 }
    );
    assert_eq!(kind("[%rd1+8], 32"), FaultKind::Misaligned { required: 16 });
    assert!(invalid(
        &kind("[%rd1], %r9"),
        "24 bytes is not a multiple of 16"
    ));
    assert!(invalid(&kind("[%rd1], %r10"), "from 0 to 1048560"));
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
    // Others may read what has arrived after a barrier only. Without one the second warp is first.
    let read = |barrier: &str| {
        format!(
            "st.shared.u32 [%r3], %r1; fence.proxy.async.shared::cta; bar.sync 0;
/*!*/ @%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd2], [%r2], 256;
@%p1 cp.async.bulk.commit_group;
@%p1 cp.async.bulk.wait_group 0;
{barrier}
setp.ge.u32 %p2, %r1, 32;
@%p2 ld.global.u32 %r6, [%rd2+252];"
        )
    };
    run(&read("bar.sync 0;"), 64);
    let FaultKind::GlobalRace { other } = fault(&read(""), 64) else {
        panic!("a race goes unseen");
    };
    assert!(!other.write && other.thread == [32, 0, 0], "{other:?}");
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
