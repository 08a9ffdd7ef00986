//! `mbarrier`: its phases, and what is done wrong with it.

use super::*;

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
        // Phase 3: the bytes are there before anybody expects them, and some are expected only after the arrival.
        ("mbarrier.complete_tx.shared::cta.b64 [%r5], 16;", None),
        ("mbarrier.arrive.shared.b64 %rd7, [%r5];", None),
        (
            "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r5], 12;",
            None,
        ),
        (
            "mbarrier.test_wait.parity.shared.b64 %p2, [%r5], 1;",
            Some(false),
        ),
        (
            "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r5], 4;",
            None,
        ),
        (
            "mbarrier.test_wait.parity.shared.b64 %p2, [%r5], 1;",
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
        "has to be invalidated"
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
        &after("mov.u32 %r9, 0; mbarrier.init.shared.b64 [%r5+8], %r9;"),
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
        &after("mov.u32 %r9, 2; mbarrier.test_wait.parity.shared.b64 %p2, [%r5], %r9;"),
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
    assert_eq!(
        after("mbarrier.inval.shared.b64 [%r5]; ld.shared.u64 %rd7, [%r5];"),
        FaultKind::UninitializedMemory { size: 8 }
    );
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
    // A lane may invalidate what its warp has waited at, and not what another warp may still look at.
    let end = |body: &str| {
        format!(
            "@%p1 mbarrier.init.shared.b64 [%r5], 64;
            bar.sync 0;
            mbarrier.arrive.shared.b64 %rd7, [%r5];
            wait:
            mbarrier.test_wait.shared.b64 %p2, [%r5], %rd7;
            @!%p2 bra wait;
            {body}\n/*!*/ @%p1 mbarrier.inval.shared.b64 [%r5];"
        )
    };
    run(&end("bar.sync 0;"), 64);
    run(&end("").replace("[%r5], 64", "[%r5], 32"), 32);
    assert!(matches!(fault(&end(""), 64), FaultKind::SharedRace { .. }));
}
