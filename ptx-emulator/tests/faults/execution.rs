//! What ends a kernel whatever is checked, and checks that are off.

use ptx_emulator::{Checks, Config, FaultKind, LaunchConfig, LaunchError};

use super::harness::{HEADER, line};
use super::{fault, fault_with, kernel, marked_line, outcome, silent};

#[test]
fn traps() {
    let found = fault("setp.eq.u32 %p1, %r1, 7;\n/*!*/ @%p1 trap;", 32);
    assert_eq!((found.kind, found.thread), (FaultKind::Trap, [7, 0, 0]));
    assert_eq!(fault("/*!*/ brkpt;", 1).kind, FaultKind::Breakpoint);
}

#[test]
fn division_by_zero() {
    let found = fault("/*!*/ div.u32 %r6, 100, %r1;", 4);
    assert_eq!(
        (found.kind, found.thread),
        (FaultKind::DivisionByZero, [0, 0, 0])
    );
    fault("cvt.s64.s32 %rd4, %r2;\n/*!*/ rem.s64 %rd5, %rd1, %rd4;", 1);
    // The one quotient that overflows wraps.
    silent(
        "mov.u32 %r6, 0x80000000; div.s32 %r7, %r6, -1; rem.s32 %r8, %r6, -1;",
        1,
    );
}

#[test]
fn instruction_limit() {
    let config = Config {
        instruction_limit: Some(1000),
        ..Config::default()
    };
    let found = fault_with("forever:\n/*!*/ bra forever;", line(32), config.clone());
    assert_eq!(
        found.kind,
        FaultKind::InstructionLimit {
            limit: 1000,
            lines: vec![found.ptx_line]
        }
    );
    outcome(&kernel("mov.u32 %r6, 1;"), line(32), config).unwrap();
}

#[test]
fn endless_recursion() {
    let ptx = format!(
        "{HEADER}
.func deeper()
{{
/*!*/ call deeper;
ret;
}}
.visible .entry k(.param .u64 buffer)
{{
call deeper;
ret;
}}"
    );
    let Err(LaunchError::Fault(found)) = outcome(&ptx, line(1), Config::default()) else {
        panic!("endless recursion");
    };
    assert_eq!(found.kind, FaultKind::StackOverflow);
    assert_eq!(found.ptx_line, marked_line(&ptx));
}

#[test]
fn targets_outside_their_list() {
    let found = fault(
        "table: .branchtargets a, b;
        /*!*/ brx.idx %r1, table;
        a: b:",
        3,
    );
    assert_eq!(
        (found.kind, found.thread),
        (FaultKind::InvalidTarget, [2, 0, 0])
    );
}

/// The fault of the first block wins, whatever the number of cores.
#[test]
fn faults_do_not_depend_on_cores() {
    let body = "setp.lt.u32 %p1, %r2, 37; @%p1 exit;\n/*!*/ trap;";
    for threads in [1, 2, 4] {
        let config = Config {
            threads,
            ..Config::default()
        };
        let shape = LaunchConfig {
            grid: [200, 1, 1],
            ..line(32)
        };
        assert_eq!(fault_with(body, shape, config).block, [37, 0, 0]);
    }
}

/// Each check can be switched off by itself.
#[test]
fn checks_off() {
    for (body, off) in [
        (
            "add.u32 %r6, %r1, %r7;",
            Checks {
                initialization: false,
                ..Checks::ALL
            },
        ),
        (
            "ld.shared.u32 %r6, [%r5];",
            Checks {
                initialization: false,
                ..Checks::ALL
            },
        ),
        (
            "ld.global.u32 %r6, [%rd3+2]; ld.global.u32 %r7, [%rd3+1024]; st.shared.u32 [%r5+1024], %r7; add.u32 %r6, %r6, %r7;",
            Checks {
                memory: false,
                ..Checks::ALL
            },
        ),
        (
            "st.shared.u32 [%r4], %r1;",
            Checks {
                races: false,
                ..Checks::ALL
            },
        ),
        (
            "setp.ge.u32 %p1, %r1, 16; @%p1 exit; shfl.sync.bfly.b32 %r6, %r1, 16, 0x1f, -1;",
            Checks {
                synchronization: false,
                ..Checks::ALL
            },
        ),
    ] {
        let run = |checks| {
            outcome(
                &kernel(body),
                line(32),
                Config {
                    checks,
                    ..Config::default()
                },
            )
        };
        assert!(
            matches!(run(Checks::ALL), Err(LaunchError::Fault(_))),
            "{body}"
        );
        run(off).unwrap_or_else(|error| panic!("{error}\n{body}"));
        run(Checks::NONE).unwrap();
    }
}
