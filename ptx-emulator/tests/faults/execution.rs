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
    let divide = "rem.u32 %r7, 5, 3;\ndiv.u32 %r6, 100, %r1;";
    let found = fault(
        &format!("{divide}\nmov.u32 %r7, %r6;\n/*!*/ add.u32 %r8, %r7, 1;"),
        4,
    );
    let line = found.ptx_line - 2;
    let register = "%r7".to_owned();
    assert_eq!(
        (found.kind, found.thread),
        (FaultKind::DivisionByZero { register, line }, [0, 0, 0])
    );
    fault(
        "cvt.s64.s32 %rd4, %r2;\nrem.s64 %rd5, %rd1, %rd4;\n/*!*/ st.global.u64 [%rd1], %rd5;",
        1,
    );
    // Compilers move a division out of a loop that would not always have reached it.
    silent(
        &format!("{divide}\nsetp.eq.u32 %p1, %r1, 0; @%p1 bra end; add.u32 %r6, %r6, 1; end:"),
        4,
    );
    // Zero by its lower half: the upper one is no part of the divisor.
    fault(
        ".reg .b16 %rs<3>; mov.b32 %r6, 0x10000; cvt.u16.u32 %rs1, %r6;\ndiv.u16 %rs2, 7, %rs1;\n/*!*/ cvt.u32.u16 %r7, %rs2;",
        1,
    );
    let unchecked = outcome(
        &kernel(&format!("{divide}\nst.global.u32 [%rd3], %r6;")),
        super::harness::line(4),
        Config {
            checks: Checks::NONE,
            ..Config::default()
        },
    );
    assert_eq!(unchecked.unwrap()[..4], [u32::MAX, 100, 50, 33]);
    // The one quotient that overflows wraps.
    silent(
        "mov.u32 %r6, 0x80000000; div.s32 %r7, %r6, -1; rem.s32 %r8, %r6, -1;",
        1,
    );
}

/// What is blamed is the division that the value comes from: not another one, and none of another thread.
#[test]
fn blamed_divisions() {
    let divide = "div.u32 %r6, 100, %r1;";
    let never = |register: &str| FaultKind::UninitializedRegister {
        register: register.into(),
    };
    let found = fault(&format!("{divide}\n/*!*/ add.u32 %r8, %r9, 1;"), 1);
    assert_eq!(found.kind, never("%r9"));
    let other = format!("setp.eq.u32 %p1, %r1, 0; @!%p1 rem.u32 %r8, 1, %r2;\n{divide}");
    let found = fault(&format!("{other}\n/*!*/ add.u32 %r8, %r8, 1;"), 4);
    assert_eq!((found.kind, found.thread), (never("%r8"), [0, 0, 0]));
    // Through a shuffle, a pair, a choice, local memory and a call.
    let call = "{ .param .b32 a; .param .b32 r; st.param.b32 [a], %r7;
        call (r), same, (a);
        ld.param.b32 %r7, [r]; }";
    for copies in [
        "shfl.sync.bfly.b32 %r7, %r6, 1, 31, -1;",
        "mov.b64 %rd4, {%r2, %r6}; mov.b64 {%r8, %r7}, %rd4;",
        "selp.b32 %r7, %r6, %r2, %p1; ",
        "st.local.u32 [depot], %r6; ld.local.u32 %r7, [depot];",
        &format!("mov.u32 %r7, %r6; {call}"),
    ] {
        let ptx = kernel(&format!(
            ".local .u32 depot; setp.lt.u32 %p1, %r1, 9; rem.u32 %r9, 1, %r2;
            div.u32 %r6, 100, %r1;
            {copies}\n/*!*/ add.u32 %r8, %r7, 1;"
        ));
        let ptx = ptx.replacen(
            ".visible .entry",
            ".func (.param .b32 result) same(.param .b32 x)
            { .reg .b32 %r; ld.param.b32 %r, [x]; st.param.b32 [result], %r; ret; }
            .visible .entry",
            1,
        );
        let Err(LaunchError::Fault(found)) = outcome(&ptx, line(32), Config::default()) else {
            panic!("{copies}");
        };
        let divides = ptx.lines().position(|line| line.contains("div.u32"));
        let expected = FaultKind::DivisionByZero {
            register: "%r7".into(),
            line: divides.unwrap() + 1,
        };
        assert_eq!(found.kind, expected, "{copies}");
        assert_eq!(found.ptx_line, marked_line(&ptx), "{copies}");
    }
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
