//! One kernel for each thing that can go wrong: the fault is of the right kind, at the right line, and nothing else is.

mod harness;

use harness::{Arg, Bench, HEADER, line};
use ptx_emulator::{
    Checks, Config, Emulator, Fault, FaultKind, LaunchConfig, LaunchError, Module, Space,
};
use std::sync::Arc;

/// A kernel with a buffer. The faulty line is marked by `/*!*/`.
fn kernel(body: &str) -> String {
    format!(
        "{HEADER}
.extern .shared .align 16 .b8 dynamic[];
.visible .entry k(.param .u64 buffer)
{{
.reg .pred %p<8>;
.reg .b16 %h<4>;
.reg .b32 %r<16>;
.reg .b64 %rd<8>;
.shared .align 16 .b8 cells[1024];
ld.param.u64 %rd1, [buffer];
mov.u32 %r1, %tid.x;
mov.u32 %r2, %ctaid.x;
shl.b32 %r3, %r1, 2;
mov.u32 %r4, cells;
add.u32 %r5, %r4, %r3;
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;
{body}
ret;
}}
"
    )
}

fn marked_line(ptx: &str) -> usize {
    let marked: Vec<_> = ptx
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("/*!*/"))
        .map(|(index, _)| index + 1)
        .collect();
    assert_eq!(marked.len(), 1, "one line is marked");
    marked[0]
}

fn outcome(ptx: &str, shape: LaunchConfig, config: Config) -> Result<Vec<u32>, LaunchError> {
    let mut buffer = vec![0; 256];
    Bench::with(ptx, config).run("k", shape, &mut [Arg::Words(&mut buffer)])?;
    Ok(buffer)
}

/// Runs a kernel that must fault at its marked line.
fn fault_with(body: &str, shape: LaunchConfig, config: Config) -> Fault {
    let ptx = kernel(body);
    match outcome(&ptx, shape, config) {
        Err(LaunchError::Fault(fault)) => {
            assert_eq!(fault.ptx_line, marked_line(&ptx), "{fault}");
            assert_eq!(fault.kernel, "k");
            assert!(!fault.instruction.is_empty());
            *fault
        }
        other => panic!("{other:?}\n{body}"),
    }
}

fn fault(body: &str, threads: u32) -> Fault {
    fault_with(body, line(threads), Config::default())
}

fn silent(body: &str, threads: u32) {
    if let Err(error) = outcome(&kernel(body), line(threads), Config::default()) {
        panic!("{error}\n{body}");
    }
}

#[test]
fn out_of_bounds() {
    // The buffer has 256 words.
    let found = fault("/*!*/ ld.global.u32 %r6, [%rd3+1020];", 32);
    assert_eq!(found.kind, FaultKind::OutOfBounds { size: 4 });
    assert_eq!((found.block, found.thread), ([0, 0, 0], [1, 0, 0]));
    assert_eq!(found.space, Some(Space::Global));
    let nearest = found.nearest.clone().unwrap();
    assert_eq!((nearest.len, nearest.offset), (1024, 1024));
    assert_eq!(found.address, Some(nearest.base + 1024));
    assert!(
        found
            .to_string()
            .contains("0 bytes past the end of allocation of 1024 bytes"),
        "{found}"
    );

    let before = fault("/*!*/ st.global.u32 [%rd3+-8], %r1;", 1);
    assert!(
        before.to_string().contains("8 bytes before allocation"),
        "{before}"
    );
    // Half of a vector is inside.
    let half = fault("/*!*/ ld.global.v2.u64 {%rd4, %rd5}, [%rd1+1008+16];", 1);
    assert_eq!(half.kind, FaultKind::OutOfBounds { size: 16 });
    // Null, and far away.
    fault("mov.u64 %rd4, 0; /*!*/ ld.global.u32 %r6, [%rd4];", 1);
    fault("mov.u64 %rd4, -4; /*!*/ ld.global.u32 %r6, [%rd4];", 1);
    fault("mov.u64 %rd4, -4; /*!*/ ld.u32 %r6, [%rd4];", 1);
    silent("ld.global.u32 %r6, [%rd3+992];", 8);
}

/// An overrun does not land in the next allocation.
#[test]
fn allocations_do_not_touch() {
    let ptx = kernel("/*!*/ ld.global.u32 %r6, [%rd3+1024];");
    let device = Emulator::new(Config::default());
    let loaded = device
        .load(&Arc::new(Module::parse(&ptx).unwrap()))
        .unwrap();
    let buffers = [1024, 1024].map(|bytes| device.alloc(bytes).unwrap());
    for buffer in buffers {
        device.fill(buffer, 0, 1024).unwrap();
    }
    let error = device
        .launch(&loaded, "k", &line(1), &[&buffers[0].to_le_bytes()])
        .unwrap_err();
    assert!(matches!(error, LaunchError::Fault(_)), "{error}");
}

#[test]
fn out_of_bounds_elsewhere() {
    let shared = fault("/*!*/ st.shared.u32 [%r5+1020], %r1;", 2);
    assert_eq!(shared.space, Some(Space::Shared));
    assert_eq!(shared.address, Some(1024));
    assert_eq!(shared.thread, [1, 0, 0]);
    let local = fault(
        ".local .align 4 .b8 depot[16];
        mov.u64 %rd4, depot;
        /*!*/ st.local.u32 [%rd4+16], %r1;",
        1,
    );
    assert_eq!(local.space, Some(Space::Local));
    let param = fault(
        "mov.u64 %rd4, buffer;
        /*!*/ ld.param.u64 %rd5, [%rd4+8];",
        1,
    );
    assert_eq!(param.space, Some(Space::Param));
}

#[test]
fn misaligned() {
    let found = fault("/*!*/ ld.global.u32 %r6, [%rd3+2];", 1);
    assert_eq!(found.kind, FaultKind::Misaligned { required: 4 });
    // A vector must be aligned to its whole size.
    let vector = fault("/*!*/ st.global.v4.u32 [%rd3+8], {%r1, %r1, %r1, %r1};", 1);
    assert_eq!(vector.kind, FaultKind::Misaligned { required: 16 });
    let shared = fault("/*!*/ st.shared.u16 [%r5+1], %r1;", 1);
    assert_eq!(shared.space, Some(Space::Shared));
    // Only a lane that takes part counts.
    silent(
        "add.s64 %rd4, %rd3, 2; setp.ne.u32 %p1, %r1, %r1; @%p1 ld.global.u32 %r6, [%rd4];",
        4,
    );
}

#[test]
fn use_after_free() {
    let ptx = kernel("/*!*/ ld.global.u32 %r6, [%rd3];");
    let device = Emulator::new(Config::default());
    let loaded = device
        .load(&Arc::new(Module::parse(&ptx).unwrap()))
        .unwrap();
    let keep = device.alloc(64).unwrap();
    let freed = device.alloc(64).unwrap();
    device.free(freed).unwrap();
    let later = device.alloc(64).unwrap();
    assert!(later != freed, "addresses are not used again");
    let error = device
        .launch(&loaded, "k", &line(1), &[&freed.to_le_bytes()])
        .unwrap_err();
    let LaunchError::Fault(found) = error else {
        panic!("{error}");
    };
    assert_eq!(found.kind, FaultKind::UseAfterFree { size: 4 });
    assert_eq!(found.ptx_line, marked_line(&ptx));
    assert!(found.nearest.unwrap().freed);
    device.fill(keep, 0, 64).unwrap();
    device
        .launch(&loaded, "k", &line(1), &[&keep.to_le_bytes()])
        .unwrap();
}

#[test]
fn uninitialized_memory() {
    let ptx = kernel("/*!*/ ld.global.u32 %r6, [%rd3];");
    let device = Emulator::new(Config::default());
    let loaded = device
        .load(&Arc::new(Module::parse(&ptx).unwrap()))
        .unwrap();
    let buffer = device.alloc(64).unwrap();
    // Three of the four bytes of the second word.
    device.write(buffer, &[0; 7]).unwrap();
    let error = device
        .launch(&loaded, "k", &line(16), &[&buffer.to_le_bytes()])
        .unwrap_err();
    let LaunchError::Fault(found) = error else {
        panic!("{error}");
    };
    assert_eq!(found.kind, FaultKind::UninitializedMemory { size: 4 });
    assert_eq!(
        (found.ptx_line, found.thread),
        (marked_line(&ptx), [1, 0, 0])
    );

    let shared = fault(
        "st.shared.u32 [%r5], %r1; /*!*/\nld.shared.u32 %r6, [%r5+4];"
            .replace(" /*!*/\n", "\n/*!*/ ")
            .as_str(),
        1,
    );
    assert_eq!(shared.space, Some(Space::Shared));
    let local = fault(
        ".local .align 4 .b8 depot[16];
        st.local.u32 [depot], %r1;
        /*!*/ ld.local.u64 %rd4, [depot];",
        1,
    );
    assert_eq!(local.space, Some(Space::Local));
}

#[test]
fn uninitialized_registers() {
    let found = fault("/*!*/ add.u32 %r6, %r1, %r7;", 1);
    assert_eq!(
        found.kind,
        FaultKind::UninitializedRegister {
            register: "%r7".into()
        }
    );
    // Written on one way only.
    let partly = fault(
        "setp.lt.u32 %p1, %r1, 5;
        @%p1 mov.u32 %r7, 3;
        /*!*/ add.u32 %r6, %r1, %r7;",
        32,
    );
    assert_eq!(partly.thread, [5, 0, 0]);
    let guard = fault("/*!*/ @%p3 mov.u32 %r6, 3;", 1);
    assert_eq!(
        guard.kind,
        FaultKind::UninitializedRegister {
            register: "%p3".into()
        }
    );
    fault("/*!*/ st.global.u32 [%rd3], %r9;", 1);
    fault("/*!*/ ld.global.u32 %r6, [%rd7];", 1);
    // A shuffle brings the property of the lane that is read.
    let shuffled = fault(
        "setp.lt.u32 %p1, %r1, 4;
        @%p1 mov.u32 %r7, 3;
        shfl.sync.down.b32 %r8, %r7, 2, 0x1f, -1;
        /*!*/ add.u32 %r8, %r8, 1;",
        32,
    );
    assert_eq!(shuffled.thread, [2, 0, 0]);
    let ptx = format!(
        "{HEADER}
.func (.param .b32 result) same(.param .b32 x) {{ .reg .b32 %r<2>; ld.param.b32 %r1, [x]; st.param.b32 [result], %r1; ret; }}
.visible .entry k(.param .u64 buffer)
{{
.reg .b32 %r<5>;
.param .b32 a; .param .b32 r;
st.param.b32 [a], %r1;
call.uni (r), same, (a);
ld.param.b32 %r2, [r];
/*!*/ add.u32 %r3, %r2, 1;
ret;
}}"
    );
    let Err(LaunchError::Fault(passed)) = outcome(&ptx, line(1), Config::default()) else {
        panic!("an argument that was never written");
    };
    assert_eq!(passed.ptx_line, marked_line(&ptx), "{passed}");
    // Copies only pass the property on.
    fault(
        "mov.u32 %r6, %r7; mov.b64 %rd4, {%r1, %r6};\n/*!*/ add.s64 %rd4, %rd4, 1;",
        1,
    );
    silent(
        "mov.u32 %r6, %r7; mov.b64 %rd4, {%r1, %r6}; setp.eq.u32 %p1, %r1, %r1; selp.b32 %r8, %r1, %r6, %p1; add.u32 %r8, %r8, 1;",
        1,
    );
}

#[test]
fn shared_memory_races() {
    // A write, then a read by a thread of another warp.
    let found = fault(
        "st.shared.u32 [%r5], %r1;
        xor.b32 %r6, %r3, 128;
        add.u32 %r6, %r4, %r6;
        setp.ge.u32 %p1, %r1, 32;
        /*!*/ @%p1 ld.shared.u32 %r7, [%r6];",
        64,
    );
    let FaultKind::SharedRace { other } = &found.kind else {
        panic!("{found}");
    };
    assert!(other.write);
    assert_eq!(other.thread, [0, 0, 0]);
    assert_eq!(other.instruction, "st.shared.u32 [%r5], %r1;");
    assert_eq!(found.thread, [32, 0, 0]);

    // A read, then a write.
    let found = fault(
        "st.shared.u32 [%r5], %r1;
        bar.sync 0;
        xor.b32 %r6, %r3, 4;
        add.u32 %r6, %r4, %r6;
        ld.shared.u32 %r7, [%r6];
        /*!*/ st.shared.u32 [%r5], %r7;",
        64,
    );
    let FaultKind::SharedRace { other } = &found.kind else {
        panic!("{found}");
    };
    assert!(!other.write);

    // Two writes to one byte, in one instruction.
    fault("/*!*/ st.shared.u32 [%r4], %r1;", 2);
    // Lanes of a warp are not ordered by running in step.
    fault(
        "st.shared.u32 [%r5], %r1;
        xor.b32 %r6, %r3, 4;
        add.u32 %r6, %r4, %r6;
        /*!*/ ld.shared.u32 %r7, [%r6];",
        32,
    );
}

#[test]
fn ordered_accesses_are_no_races() {
    for order in ["bar.sync 0;", "bar.warp.sync -1;"] {
        silent(
            &format!(
                "st.shared.u32 [%r5], %r1;
                {order}
                xor.b32 %r6, %r3, 4;
                add.u32 %r6, %r4, %r6;
                ld.shared.u32 %r7, [%r6];
                {order}
                st.shared.u32 [%r5], %r7;"
            ),
            64,
        );
    }
    // Neighbouring bytes are different places.
    silent(
        "add.u32 %r6, %r4, %r1; cvt.u16.u32 %h1, %r1; st.shared.u8 [%r6], %h1;",
        64,
    );
    // Atomics do not race with each other.
    silent(
        "setp.ne.u32 %p1, %r1, 0; @!%p1 st.shared.u32 [%r4], %r1; bar.sync 0; atom.shared.add.u32 %r6, [%r4], 1;",
        64,
    );
    // Reads do not race.
    silent(
        "setp.ne.u32 %p1, %r1, 0; @!%p1 st.shared.u32 [%r4], %r1; bar.sync 0; ld.shared.u32 %r6, [%r4]; ld.shared.u32 %r7, [%r4];",
        64,
    );
    // A flag with release and acquire orders what is around it.
    silent(
        "setp.ne.u32 %p1, %r1, 0;
        @!%p1 st.shared.u32 [%r4], %r1;
        bar.sync 0;
        setp.eq.u32 %p2, %r1, 40;
        @!%p2 bra reader;
        st.shared.u32 [%r4+16], %r1;
        st.release.cta.shared.u32 [%r4], %r1;
        bra end;
        reader:
        setp.ne.u32 %p3, %r1, 3;
        @%p3 bra end;
        wait:
        ld.acquire.cta.shared.u32 %r6, [%r4];
        setp.eq.u32 %p4, %r6, 0;
        @%p4 bra wait;
        ld.shared.u32 %r7, [%r4+16];
        end:",
        64,
    );
    // Each block has its own.
    let shape = LaunchConfig {
        grid: [5, 1, 1],
        ..line(64)
    };
    let body = "st.shared.u32 [%r5], %r1;";
    outcome(&kernel(body), shape, Config::default()).unwrap();
}

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
fn stores_to_constants() {
    let ptx = format!(
        "{HEADER}
.const .align 4 .u32 fixed = 5;
.visible .entry k(.param .u64 buffer)
{{
.reg .b32 %r<4>;
.reg .b64 %rd<4>;
mov.u64 %rd1, fixed;
cvta.const.u64 %rd2, %rd1;
ld.u32 %r1, [%rd2];
/*!*/ st.u32 [%rd2], %r1;
ret;
}}"
    );
    let Err(LaunchError::Fault(found)) = outcome(&ptx, line(1), Config::default()) else {
        panic!("a store to constant memory");
    };
    assert_eq!(found.kind, FaultKind::ReadOnly);
    assert_eq!(found.ptx_line, marked_line(&ptx));
}

#[test]
fn instruction_limit() {
    let config = Config {
        instruction_limit: Some(1000),
        ..Config::default()
    };
    let found = fault_with("forever:\n/*!*/ bra forever;", line(32), config.clone());
    assert_eq!(found.kind, FaultKind::InstructionLimit { limit: 1000 });
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

#[test]
fn bad_launches() {
    let ptx = kernel("st.shared.u32 [dynamic], %r1;").replace(
        "(.param .u64 buffer)\n",
        "(.param .u64 buffer)\n.maxntid 64, 2, 1\n",
    );
    let device = Emulator::new(Config::default());
    let loaded = device
        .load(&Arc::new(Module::parse(&ptx).unwrap()))
        .unwrap();
    let address = device.alloc(16).unwrap().to_le_bytes();
    let launch = |entry: &str, shape: LaunchConfig, args: &[&[u8]]| {
        device.launch(&loaded, entry, &shape, args).unwrap_err()
    };
    let good = line(1);
    assert!(matches!(
        launch("other", good, &[&address]),
        LaunchError::NoSuchEntry { .. }
    ));
    assert!(matches!(
        launch("k", good, &[]),
        LaunchError::ArgumentCount {
            expected: 1,
            given: 0,
            ..
        }
    ));
    assert!(matches!(
        launch("k", good, &[&[0; 4]]),
        LaunchError::ArgumentSize {
            index: 0,
            expected: 8,
            given: 4,
            ..
        }
    ));
    for shape in [
        LaunchConfig {
            grid: [0, 1, 1],
            ..good
        },
        LaunchConfig {
            grid: [1, 65536, 1],
            ..good
        },
        LaunchConfig {
            block: [1, 0, 1],
            ..good
        },
        LaunchConfig {
            block: [1025, 1, 1],
            ..good
        },
        LaunchConfig {
            block: [64, 32, 1],
            ..good
        },
        LaunchConfig {
            block: [1, 1, 65],
            ..good
        },
    ] {
        assert!(
            matches!(launch("k", shape, &[&address]), LaunchError::Shape { .. }),
            "{shape:?}"
        );
    }
    assert!(matches!(
        launch("k", line(129), &[&address]),
        LaunchError::BlockDirective {
            directive: ".maxntid",
            ..
        }
    ));
    assert!(matches!(
        launch(
            "k",
            LaunchConfig {
                dynamic_shared: 227 << 10,
                ..good
            },
            &[&address]
        ),
        LaunchError::SharedMemory { .. }
    ));
    assert!(matches!(
        launch(
            "k",
            LaunchConfig {
                grid: [1 << 20, 1, 1],
                cooperative: true,
                ..good
            },
            &[&address]
        ),
        LaunchError::CooperativeTooLarge { .. }
    ));
    let elsewhere = Emulator::new(Config::default());
    assert!(matches!(
        elsewhere
            .launch(&loaded, "k", &good, &[&address])
            .unwrap_err(),
        LaunchError::ForeignModule
    ));
    // Without dynamic shared memory, its first byte is past the end.
    assert!(matches!(
        launch("k", good, &[&address]),
        LaunchError::Fault(_)
    ));
    device
        .launch(
            &loaded,
            "k",
            &LaunchConfig {
                dynamic_shared: 4,
                ..good
            },
            &[&address],
        )
        .unwrap();
}

#[test]
fn newer_architecture() {
    let ptx = kernel("");
    let device = Emulator::new(Config {
        compute_capability: 75,
        ..Config::default()
    });
    let error = device
        .load(&Arc::new(Module::parse(&ptx).unwrap()))
        .unwrap_err();
    assert!(
        error.message.contains("sm_90") && error.message.contains("sm_75"),
        "{error}"
    );
}
