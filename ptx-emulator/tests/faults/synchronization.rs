//! Barriers and shuffles that some threads do not take part in.

use ptx_emulator::{Checks, Config, FaultKind};

use super::harness::line;
use super::{fault, kernel, outcome, silent};

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
