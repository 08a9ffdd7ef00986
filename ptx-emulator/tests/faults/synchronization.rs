//! Barriers and shuffles that some threads do not take part in, and lanes that part where they must not.

use ptx_emulator::{Checks, Config, FaultKind, LaunchConfig, LaunchError, WaitReason};

use super::harness::{HEADER, line};
use super::{fault, kernel, marked_line, outcome, silent};

#[test]
fn divergent_barrier() {
    let found = fault(
        "setp.lt.u32 %p1, %r1, 8;
        @%p1 bra other;
        /*!*/ bar.sync 0;
        bra end;
        other:
        bar.sync 0;
        end:",
        32,
    );
    assert_eq!(
        found.kind,
        FaultKind::DivergentBarrier {
            active: 0xffff_ff00,
            expected: u32::MAX
        }
    );
    let guarded = fault("setp.lt.u32 %p1, %r1, 8;\n/*!*/ @%p1 bar.sync 0;", 32);
    assert!(matches!(guarded.kind, FaultKind::DivergentBarrier { .. }));
}

/// Lanes that part where `.uni` says that they go on together.
#[test]
fn divergent_uniform() {
    let leaving = "setp.lt.u32 %p1, %r1, 8;";
    let odd = "and.b32 %r6, %r1, 1;";
    for (body, active) in [
        (format!("{leaving}\n/*!*/ @%p1 bra.uni end;\nend:"), 0xff),
        (
            format!("{leaving}\n/*!*/ @!%p1 bra.uni end;\nend:"),
            0xffff_ff00,
        ),
        (format!("{leaving}\n/*!*/ @%p1 ret.uni;"), 0xff),
        (
            format!(
                "{odd}\nlist: .branchtargets one, two;\n/*!*/ brx.idx.uni %r6, list;\none:\ntwo:"
            ),
            0x5555_5555,
        ),
        (format!("{leaving}\n/*!*/ @%p1 call.uni nothing;"), 0xff),
        (
            format!(
                "{odd}
list: .calltargets nothing, neither;
setp.eq.u32 %p1, %r6, 0;
mov.u64 %rd4, nothing;
mov.u64 %rd5, neither;
selp.b64 %rd4, %rd4, %rd5, %p1;
/*!*/ call.uni %rd4, list;"
            ),
            0x5555_5555,
        ),
    ] {
        let functions = ".func nothing() { ret; }\n.func neither() { ret; }\n.visible .entry";
        let ptx = kernel(&body).replacen(".visible .entry", functions, 1);
        let Err(LaunchError::Fault(found)) = outcome(&ptx, line(32), Config::default()) else {
            panic!("{body} is taken");
        };
        let executing = u32::MAX;
        assert_eq!(
            found.kind,
            FaultKind::DivergentUniform { active, executing }
        );
        assert_eq!(found.ptx_line, marked_line(&ptx));
        // With the check off, and without `.uni`, lanes go their ways.
        let config = Config {
            checks: Checks {
                synchronization: false,
                ..Checks::ALL
            },
            ..Config::default()
        };
        outcome(&ptx, line(32), config).unwrap();
        outcome(&ptx.replace(".uni", ""), line(32), Config::default()).unwrap();
    }
}

#[test]
fn barrier_that_some_threads_never_reach() {
    let found = fault(
        "setp.ge.u32 %p1, %r1, 32;
        @%p1 exit;
        /*!*/ bar.sync 0;",
        64,
    );
    assert_eq!(
        found.kind,
        FaultKind::BarrierNotReached {
            barrier: 0,
            arrived: 32,
            expected: 64
        }
    );
    let other = fault(
        "setp.ge.u32 %p1, %r1, 32;
        @%p1 bra second;
        /*!*/ bar.sync 1;
        bra end;
        second:
        bar.sync 2;
        end:",
        64,
    );
    assert!(matches!(
        other.kind,
        FaultKind::BarrierNotReached { barrier: 1, .. }
    ));
    // With the check off, threads that have exited count as arrived.
    let config = Config {
        checks: Checks {
            synchronization: false,
            ..Checks::ALL
        },
        ..Config::default()
    };
    let body = "setp.ge.u32 %p1, %r1, 32; @%p1 exit; bar.sync 0;";
    outcome(&kernel(body), line(64), config).unwrap();
}

#[test]
fn invalid_barriers() {
    for body in [
        "mov.u32 %r6, 16;\n/*!*/ bar.sync %r6;",
        "mov.u32 %r6, 40;\n/*!*/ bar.sync 0, %r6;",
        "/*!*/ bar.sync %r1;",
        "and.b32 %r6, %r1, 1;\n/*!*/ barrier.sync.aligned %r6, 32;",
        // Threads may name a barrier each, but not tell one barrier different things.
        "and.b32 %r6, %r1, 1; mad.lo.u32 %r6, %r6, 32, 32;\n/*!*/ barrier.sync 0, %r6;",
    ] {
        let found = fault(body, 64);
        assert!(
            matches!(found.kind, FaultKind::InvalidBarrier { .. }),
            "{found}"
        );
    }
}

#[test]
fn shuffles_of_inactive_lanes() {
    // Half of the warp is elsewhere.
    let found = fault(
        "setp.ge.u32 %p1, %r1, 16;
        @%p1 bra end;
        /*!*/ shfl.sync.bfly.b32 %r6, %r1, 16, 0x1f, -1;
        end:",
        32,
    );
    assert_eq!(found.kind, FaultKind::InactiveLane { lane: 16 });
    // With the check off, lanes go on without those that cannot come.
    let config = Config {
        checks: Checks {
            synchronization: false,
            ..Checks::ALL
        },
        ..Config::default()
    };
    let body = "setp.ge.u32 %p1, %r1, 16;
        @%p1 bra end;
        shfl.sync.bfly.b32 %r6, %r1, 16, 0x1f, -1;
        shfl.sync.bfly.b32 %r7, %r1, 1, 0x1f, -1;
        mad.lo.u32 %r6, %r6, 100, %r7;
        st.global.u32 [%rd3], %r6;
        end:
        bar.sync 0;";
    let output = outcome(&kernel(body), line(64), config).unwrap();
    let want: Vec<u32> = (0..16)
        .map(|lane| 100 * lane + (lane ^ 1))
        .chain([0; 48])
        .collect();
    assert_eq!(output[..64], want);
    // A lane that has exited.
    let exited = fault(
        "setp.eq.u32 %p1, %r1, 5;
        @%p1 exit;
        /*!*/ shfl.sync.bfly.b32 %r6, %r1, 1, 0x1f, -1;",
        32,
    );
    assert_eq!(exited.kind, FaultKind::InactiveLane { lane: 5 });
    assert_eq!(exited.thread, [4, 0, 0]);
    // A lane outside the member mask.
    let outside = fault(
        "setp.ge.u32 %p1, %r1, 16;
        @%p1 exit;
        /*!*/ shfl.sync.idx.b32 %r6, %r1, 20, 0x1f, 0xffff;",
        32,
    );
    assert_eq!(outside.kind, FaultKind::InactiveLane { lane: 20 });
    // A lane that leaves itself out.
    let itself = fault(
        "/*!*/ vote.sync.ballot.b32 %r6, %p0, 0xff;"
            .replace("%p0", "1")
            .as_str(),
        32,
    );
    assert_eq!(itself.kind, FaultKind::InactiveLane { lane: 8 });
    // Lanes of a part of a warp, which is fine.
    silent(
        "shfl.sync.up.b32 %r6, %r1, 1, 0, -1; redux.sync.add.u32 %r7, %r1, -1;",
        20,
    );
}

/// Lanes meet where they execute the same instruction, or `bar.warp.sync` with the same members.
#[test]
fn lanes_that_do_not_meet() {
    for (high, low) in [
        (
            "vote.sync.ballot.b32 %r6, %p1, -1;",
            "vote.sync.ballot.b32 %r6, %p1, -1;",
        ),
        ("bar.warp.sync 0xffffff00;", "bar.warp.sync -1;"),
        ("bar.warp.sync -1;", "redux.sync.add.u32 %r6, %r1, -1;"),
    ] {
        let found = fault(
            &format!(
                "setp.lt.u32 %p1, %r1, 16;
                @%p1 bra low;
                /*!*/ {high}
                bra end;
                low:
                {low}
                end:"
            ),
            32,
        );
        let first = if high.contains("00;") { 8 } else { 0 };
        assert_eq!(
            found.kind,
            FaultKind::InactiveLane { lane: first },
            "{found}"
        );
    }
}

/// Of lanes that name different members, those are found for which one is missing.
#[test]
fn members_that_are_missing() {
    let found = fault(
        "and.b32 %r6, %r1, 8;
        mov.u32 %r7, 0xff;
        shl.b32 %r6, %r7, %r6;
        setp.eq.u32 %p1, %r1, 9;
        @%p1 bra end;
        /*!*/ bar.warp.sync %r6;
        end:",
        16,
    );
    assert_eq!(found.kind, FaultKind::InactiveLane { lane: 9 });
    assert_eq!(found.thread, [8, 0, 0]);
}

/// Lanes at one instruction, whose masks differ.
#[test]
fn members_that_disagree() {
    // Lane 1 does not name lane 0, which names both.
    let found = fault(
        "sub.u32 %r6, 3, %r1;
        setp.eq.u32 %p1, %r1, 0;
        /*!*/ vote.sync.ballot.b32 %r7, %p1, %r6;
        bar.warp.sync 3;",
        2,
    );
    assert_eq!(found.kind, FaultKind::InactiveLane { lane: 1 });
    assert_eq!(found.thread, [0, 0, 0]);
    // Each half of a warp by itself: lanes of the other half do not take part.
    let halves = |mark: &str, from: &str| {
        format!(
            "and.b32 %r6, %r1, 16;
            shl.b32 %r6, 0xffff, %r6;
            add.u32 %r8, %r1, {from};
            {mark} shfl.sync.idx.b32 %r7, %r1, %r8, 0x1f, %r6;"
        )
    };
    silent(&halves("", "0"), 32);
    let found = fault(&halves("/*!*/", "20"), 32);
    assert_eq!(found.kind, FaultKind::InactiveLane { lane: 20 });
    assert_eq!(found.thread, [0, 0, 0]);
}

/// Thread 0 of each warp takes a lock that is never given back.
const LOCK: &str = "setp.eq.u32 %p3, %r1, %r1;
    rem.u32 %r6, %r1, 32;
    setp.ne.u32 %p1, %r6, 0;
    @%p1 bra end;
    spin:
    atom.global.cas.b32 %r7, [%rd1], 0, 1;
    setp.ne.u32 %p2, %r7, 0;
    @%p2 bra spin;
    UNLOCK
    end:
    bar.sync 0;";

#[test]
fn deadlock_on_a_lock() {
    let stuck = kernel(&LOCK.replace("UNLOCK", ""));
    let Err(LaunchError::Fault(found)) = outcome(&stuck, line(96), Config::default()) else {
        panic!("a lock that is never given back");
    };
    assert_eq!(found.kind, FaultKind::Deadlock);
    // In the loop; which of its instructions it is depends on where a turn ends.
    let first = 1 + stuck
        .lines()
        .position(|text| text.contains("atom."))
        .unwrap();
    assert!((first..first + 3).contains(&found.ptx_line), "{found}");
    assert_eq!(found.thread, [32, 0, 0]);
    let at_barrier: Vec<_> = found
        .waiting
        .iter()
        .filter(|waiter| waiter.reason == WaitReason::Barrier(0))
        .map(|waiter| (waiter.thread, waiter.threads))
        .collect();
    assert_eq!(at_barrier, [([0, 0, 0], 32)]);
    let looping = found
        .waiting
        .iter()
        .filter(|waiter| waiter.reason == WaitReason::Memory)
        .map(|waiter| waiter.thread);
    assert_eq!(looping.collect::<Vec<_>>(), [[32, 0, 0], [64, 0, 0]]);
    silent(
        &LOCK.replace("UNLOCK", "atom.global.exch.b32 %r7, [%rd1], 0;"),
        96,
    );
    // Without the check it is the instruction limit that ends it.
    let config = Config {
        checks: Checks {
            synchronization: false,
            ..Checks::ALL
        },
        instruction_limit: Some(100_000),
        ..Config::default()
    };
    let Err(LaunchError::Fault(found)) = outcome(&stuck, line(96), config) else {
        panic!("a lock that is never given back");
    };
    let FaultKind::InstructionLimit { lines, .. } = &found.kind else {
        panic!("{found}");
    };
    assert_eq!(lines, &[first, first + 1, first + 2]);
}

/// Every block waits for a flag that only a block after it would set.
#[test]
fn deadlock_of_a_grid() {
    let body = "add.u32 %r6, %r2, 1;
        mul.wide.u32 %rd4, %r2, 4;
        add.s64 %rd4, %rd1, %rd4;
        wait:
        ld.volatile.global.u32 %r7, [%rd4+4];
        setp.eq.u32 %p1, %r7, 0;
        @%p1 bra wait;
        st.volatile.global.u32 [%rd4], 1;";
    let launch = |body: &str| {
        let shape = LaunchConfig {
            grid: [3, 1, 1],
            cooperative: true,
            ..line(1)
        };
        outcome(&kernel(body), shape, Config::default())
    };
    let Err(LaunchError::Fault(found)) = launch(body) else {
        panic!("blocks that wait for each other");
    };
    assert_eq!(found.kind, FaultKind::Deadlock);
    let blocks = found.waiting.iter().map(|waiter| waiter.block[0]);
    assert_eq!(blocks.collect::<Vec<_>>(), [0, 1, 2]);
    assert!(found.to_string().contains("block [2, 0, 0]"), "{found}");
    // The last block does not wait.
    let last_first = body.replace(
        "wait:",
        "mov.u32 %r8, %nctaid.x; setp.eq.u32 %p2, %r6, %r8; @%p2 bra go; wait:",
    );
    launch(&last_first.replace("st.vol", "go: st.vol")).unwrap();
}

/// A loop that counts is none that goes on for ever, however little it changes.
#[test]
fn long_loops_are_no_deadlocks() {
    silent(
        "mov.u32 %r6, 0;
        more:
        add.u32 %r6, %r6, 1;
        ld.volatile.global.u32 %r7, [%rd1];
        setp.lt.u32 %p1, %r6, 100000;
        @%p1 bra more;",
        64,
    );
    // The count is in the caller, and turns end in the callee.
    let ptx = format!(
        "{HEADER}
.func nothing() {{ .reg .b32 %r<3>; mov.u32 %r1, 0;
{}
ret; }}
.visible .entry k(.param .u64 buffer)
{{
.reg .pred %p<2>; .reg .b32 %r<3>;
mov.u32 %r1, 0;
more:
call nothing;
add.u32 %r1, %r1, 1;
setp.lt.u32 %p1, %r1, 100;
@%p1 bra more;
ret;
}}",
        "add.u32 %r1, %r1, 1;\n".repeat(4091)
    );
    outcome(&ptx, line(1), Config::default()).unwrap();
}
