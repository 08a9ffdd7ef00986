//! A planted bug for each kind of finding: it is found, alone and at its line, with every check on and with only its own; and the
//! repaired kernel is silent.

use std::collections::BTreeSet;

use ptx_emulator::{Checks, Config, Fault, LaunchConfig, LaunchError};

use super::harness::line;
use super::{kernel, marked_line, outcome};

/// The check that finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    Memory,
    Initialization,
    Races,
    Synchronization,
    Always,
}

struct Planted {
    /// The variant of `FaultKind`.
    kind: &'static str,
    switch: Switch,
    shape: fn() -> LaunchConfig,
    /// The line is marked by `/*!*/`.
    broken: &'static str,
    repaired: &'static str,
}

fn warp() -> LaunchConfig {
    line(32)
}

fn two_warps() -> LaunchConfig {
    line(64)
}

fn two_blocks() -> LaunchConfig {
    LaunchConfig {
        grid: [2, 1, 1],
        ..line(32)
    }
}

const PLANTED: &[Planted] = &[
    Planted {
        kind: "OutOfBounds",
        switch: Switch::Memory,
        shape: two_warps,
        // The loop runs once too often: the buffer has 256 words.
        broken: "mov.u32 %r6, 0;
            next:
            /*!*/ ld.global.u32 %r7, [%rd3];
            add.s64 %rd3, %rd3, 256;
            add.u32 %r6, %r6, 1;
            setp.le.u32 %p1, %r6, 4;
            @%p1 bra next;",
        repaired: "mov.u32 %r6, 0;
            next:
            ld.global.u32 %r7, [%rd3];
            add.s64 %rd3, %rd3, 256;
            add.u32 %r6, %r6, 1;
            setp.lt.u32 %p1, %r6, 4;
            @%p1 bra next;",
    },
    Planted {
        kind: "Misaligned",
        switch: Switch::Memory,
        shape: warp,
        // A vector load from a pointer to words.
        broken: "/*!*/ ld.global.v2.u32 {%r6, %r7}, [%rd3];",
        repaired: "mul.wide.u32 %rd4, %r1, 8; add.s64 %rd4, %rd1, %rd4; ld.global.v2.u32 {%r6, %r7}, [%rd4];",
    },
    Planted {
        kind: "UseAfterFree",
        switch: Switch::Memory,
        shape: warp,
        // See `run`: the buffer is freed before the launch where the kernel's text says `freed`.
        broken: "/*!*/ ld.global.u32 %r6, [%rd3]; // freed",
        repaired: "ld.global.u32 %r6, [%rd3];",
    },
    Planted {
        kind: "ReadOnly",
        switch: Switch::Memory,
        shape: warp,
        broken: "mov.u64 %rd4, fixed; cvta.const.u64 %rd4, %rd4;
            /*!*/ st.u32 [%rd4], %r1;",
        repaired: "mov.u64 %rd4, fixed; cvta.const.u64 %rd4, %rd4;
            ld.u32 %r6, [%rd4];
            st.global.u32 [%rd3], %r6;",
    },
    Planted {
        kind: "UninitializedMemory",
        switch: Switch::Initialization,
        shape: warp,
        // The last lane's successor was never stored.
        broken: "st.shared.u32 [%r5], %r1;
            bar.sync 0;
            /*!*/ ld.shared.u32 %r6, [%r5+4];",
        repaired: "st.shared.u32 [%r5], %r1;
            setp.eq.u32 %p1, %r1, 31;
            @%p1 st.shared.u32 [%r5+4], %r1;
            bar.sync 0;
            ld.shared.u32 %r6, [%r5+4];",
    },
    Planted {
        kind: "UninitializedRegister",
        switch: Switch::Initialization,
        shape: warp,
        // Set on one way only.
        broken: "setp.lt.u32 %p1, %r1, 16;
            @%p1 mov.u32 %r6, 0;
            /*!*/ add.u32 %r6, %r6, %r1;",
        repaired: "mov.u32 %r6, 0;
            add.u32 %r6, %r6, %r1;",
    },
    Planted {
        kind: "SharedRace",
        switch: Switch::Races,
        shape: two_warps,
        // No barrier between one round of a reduction and the next.
        broken: "st.shared.u32 [%r5], %r1;
            bar.sync 0;
            setp.ge.u32 %p1, %r1, 32;
            @%p1 bra end;
            ld.shared.u32 %r6, [%r5+128];
            st.shared.u32 [%r5], %r6;
            setp.ge.u32 %p2, %r1, 16;
            @%p2 bra end;
            /*!*/ ld.shared.u32 %r6, [%r5+64];
            end:",
        repaired: "st.shared.u32 [%r5], %r1;
            bar.sync 0;
            setp.ge.u32 %p1, %r1, 32;
            @%p1 bra end;
            ld.shared.u32 %r6, [%r5+128];
            st.shared.u32 [%r5], %r6;
            bar.warp.sync -1;
            setp.ge.u32 %p2, %r1, 16;
            @%p2 bra end;
            ld.shared.u32 %r6, [%r5+64];
            end:",
    },
    Planted {
        kind: "GlobalRace",
        switch: Switch::Races,
        shape: two_blocks,
        // A sum over blocks without an atomic.
        broken: "setp.ne.u32 %p1, %r1, 0;
            @%p1 bra end;
            ld.global.u32 %r6, [%rd1];
            add.u32 %r6, %r6, 1;
            /*!*/ st.global.u32 [%rd1], %r6;
            end:",
        repaired: "setp.ne.u32 %p1, %r1, 0;
            @%p1 bra end;
            red.global.add.u32 [%rd1], 1;
            end:",
    },
    Planted {
        kind: "BeforeGridDependency",
        switch: Switch::Races,
        shape: two_warps,
        // See `run`: another kernel writes the buffer before the launch where the kernel's text says `follows`.
        broken: "/*!*/ ld.global.u32 %r6, [%rd3]; // follows
            griddepcontrol.wait;",
        repaired: "griddepcontrol.wait;
            ld.global.u32 %r6, [%rd3]; // follows",
    },
    Planted {
        kind: "UnfinishedCopy",
        switch: Switch::Races,
        shape: two_warps,
        // The copy is in a group that nothing waits for.
        broken: "st.shared.u32 [%r5], 0;
            cp.async.ca.shared.global [%r5], [%rd3], 4;
            cp.async.commit_group;
            cp.async.wait_group 1;
            /*!*/ ld.shared.u32 %r6, [%r5];",
        repaired: "st.shared.u32 [%r5], 0;
            cp.async.ca.shared.global [%r5], [%rd3], 4;
            cp.async.commit_group;
            cp.async.wait_group 0;
            ld.shared.u32 %r6, [%r5];",
    },
    Planted {
        kind: "DivergentBarrier",
        switch: Switch::Synchronization,
        shape: two_warps,
        // A bounds check around a barrier.
        broken: "setp.lt.u32 %p1, %r1, 50;
            /*!*/ @%p1 bar.sync 0;",
        repaired: "setp.lt.u32 %p1, %r1, 50;
            bar.sync 0;",
    },
    Planted {
        kind: "DivergentUniform",
        switch: Switch::Synchronization,
        shape: two_warps,
        // The loop's bound is not the same for all threads.
        broken: "mov.u32 %r6, 0;
            next:
            add.u32 %r6, %r6, 1;
            setp.lt.u32 %p1, %r6, %r1;
            /*!*/ @%p1 bra.uni next;",
        repaired: "mov.u32 %r6, 0;
            next:
            add.u32 %r6, %r6, 1;
            setp.lt.u32 %p1, %r6, 64;
            @%p1 bra.uni next;",
    },
    Planted {
        kind: "BarrierNotReached",
        switch: Switch::Synchronization,
        shape: two_warps,
        // One warp has left.
        broken: "setp.ge.u32 %p1, %r1, 32;
            @%p1 exit;
            /*!*/ bar.sync 0;",
        repaired: "setp.ge.u32 %p1, %r1, 32;
            bar.sync 0;
            @%p1 exit;",
    },
    Planted {
        kind: "InvalidBarrier",
        switch: Switch::Always,
        shape: warp,
        broken: "mov.u32 %r6, 33;
            /*!*/ bar.sync 1, %r6;",
        repaired: "mov.u32 %r6, 32;
            bar.sync 1, %r6;",
    },
    Planted {
        kind: "InactiveLane",
        switch: Switch::Synchronization,
        shape: warp,
        // A full mask where only half of the warp is.
        broken: "setp.ge.u32 %p1, %r1, 16;
            @%p1 exit;
            /*!*/ shfl.sync.bfly.b32 %r6, %r1, 16, 0x1f, -1;",
        repaired: "shfl.sync.bfly.b32 %r6, %r1, 16, 0x1f, -1;",
    },
    Planted {
        kind: "Deadlock",
        switch: Switch::Synchronization,
        shape: two_warps,
        // The flag is in the wrong word.
        broken:
            "setp.ge.u32 %p1, %r1, 32;
            @%p1 st.volatile.global.u32 [%rd1+4], 1;
            bar.sync 0;
            /*!*/ wait: ld.volatile.global.u32 %r6, [%rd1]; setp.eq.u32 %p2, %r6, 0; @%p2 bra wait;",
        repaired: "setp.ge.u32 %p1, %r1, 32;
            @%p1 st.volatile.global.u32 [%rd1], 1;
            bar.sync 0;
            wait: ld.volatile.global.u32 %r6, [%rd1]; setp.eq.u32 %p2, %r6, 0; @%p2 bra wait;",
    },
    Planted {
        kind: "DivisionByZero",
        switch: Switch::Always,
        shape: warp,
        broken: "/*!*/ div.u32 %r6, 100, %r1;",
        repaired: "add.u32 %r6, %r1, 1; div.u32 %r6, 100, %r6;",
    },
    Planted {
        kind: "Trap",
        switch: Switch::Always,
        shape: warp,
        broken: "setp.eq.u32 %p1, %r1, 31;
            /*!*/ @%p1 trap;",
        repaired: "setp.eq.u32 %p1, %r1, 32; @%p1 trap;",
    },
    Planted {
        kind: "AssertionFailed",
        switch: Switch::Always,
        shape: warp,
        broken: "setp.ne.u32 %p1, %r1, 0;
            @%p1 bra end;
            st.shared.u32 [cells], 120;
            mov.u64 %rd4, cells;
            cvta.shared.u64 %rd4, %rd4;
            mov.u64 %rd5, 1;
            { .param .b64 a0; .param .b64 a1; .param .b32 a2; .param .b64 a3; .param .b64 a4;
            st.param.b64 [a0], %rd4; st.param.b64 [a1], %rd4; st.param.b32 [a2], %r1; st.param.b64 [a3], %rd4; st.param.b64 [a4], %rd5;
            /*!*/ call.uni __assertfail, (a0, a1, a2, a3, a4); }
            end:",
        repaired: "setp.ge.u32 %p1, %r1, 0;
            @%p1 bra end;
            st.shared.u32 [cells], 120;
            mov.u64 %rd4, cells;
            cvta.shared.u64 %rd4, %rd4;
            mov.u64 %rd5, 1;
            { .param .b64 a0; .param .b64 a1; .param .b32 a2; .param .b64 a3; .param .b64 a4;
            st.param.b64 [a0], %rd4; st.param.b64 [a1], %rd4; st.param.b32 [a2], %r1; st.param.b64 [a3], %rd4; st.param.b64 [a4], %rd5;
            call.uni __assertfail, (a0, a1, a2, a3, a4); }
            end:",
    },
    Planted {
        kind: "Breakpoint",
        switch: Switch::Always,
        shape: warp,
        broken: "/*!*/ brkpt;",
        repaired: "setp.eq.u32 %p1, %r1, 32; @%p1 brkpt;",
    },
    Planted {
        kind: "InstructionLimit",
        switch: Switch::Always,
        shape: warp,
        // The counter that is compared is not the one that counts.
        broken: "mov.u32 %r6, 0; mov.u32 %r7, 0;
            /*!*/ more: add.u32 %r7, %r7, 1; setp.lt.u32 %p1, %r6, 100; @%p1 bra more;",
        repaired: "mov.u32 %r6, 0;
            more: add.u32 %r6, %r6, 1; setp.lt.u32 %p1, %r6, 100; @%p1 bra more;",
    },
    Planted {
        kind: "StackOverflow",
        switch: Switch::Always,
        shape: warp,
        broken: "call endless;",
        repaired: "",
    },
    Planted {
        kind: "InvalidTarget",
        switch: Switch::Always,
        shape: warp,
        broken: "table: .branchtargets a, b;
            /*!*/ brx.idx %r1, table;
            a: b:",
        repaired: "table: .branchtargets a, b;
            and.b32 %r6, %r1, 1;
            brx.idx %r6, table;
            a: b:",
    },
    Planted {
        kind: "InvalidOperand",
        switch: Switch::Always,
        shape: warp,
        // Atomics are for global and shared memory.
        broken: ".local .align 4 .b8 depot[16];
            mov.u64 %rd4, depot; cvta.local.u64 %rd4, %rd4;
            st.u32 [%rd4], 0;
            /*!*/ atom.add.u32 %r6, [%rd4], 1;",
        repaired: "atom.add.u32 %r6, [%rd3], 1;",
    },
];

fn only(switch: Switch) -> Checks {
    let mut checks = Checks::NONE;
    match switch {
        Switch::Memory => checks.memory = true,
        Switch::Initialization => checks.initialization = true,
        Switch::Races => checks.races = true,
        Switch::Synchronization => checks.synchronization = true,
        Switch::Always => {}
    }
    checks
}

fn all_but(switch: Switch) -> Checks {
    let (off, all) = (only(switch), Checks::ALL);
    Checks {
        memory: all.memory && !off.memory,
        initialization: all.initialization && !off.initialization,
        races: all.races && !off.races,
        synchronization: all.synchronization && !off.synchronization,
    }
}

fn text(body: &str) -> String {
    let text = kernel(body).replace(
        ".visible .entry k",
        ".const .align 4 .u32 fixed = 5;
.func endless()
{
/*~*/ call endless;
ret;
}
.visible .entry before(.param .u64 buffer)
{
.reg .b32 %r<2>;
.reg .b64 %rd<4>;
ld.param.u64 %rd1, [buffer];
mov.u32 %r1, %tid.x;
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;
st.global.u32 [%rd3], %r1;
ret;
}
.visible .entry k",
    );
    if body.contains("call endless") {
        text.replace("/*~*/", "/*!*/")
    } else {
        text
    }
}

fn run(body: &str, shape: LaunchConfig, checks: Checks) -> Result<(), LaunchError> {
    let config = Config {
        checks,
        instruction_limit: Some(200_000),
        ..Config::default()
    };
    if body.contains("// freed") {
        return launch_with_freed_buffer(&text(body), shape, config);
    }
    if body.contains("// follows") {
        return launch_after_another(&text(body), shape, config);
    }
    outcome(&text(body), shape, config).map(drop)
}

fn launch_with_freed_buffer(
    ptx: &str,
    shape: LaunchConfig,
    config: Config,
) -> Result<(), LaunchError> {
    let device = ptx_emulator::Emulator::new(config);
    let module = std::sync::Arc::new(ptx_emulator::Module::parse(ptx).unwrap());
    let loaded = device.load(&module).unwrap();
    let buffer = device.alloc(1024).unwrap();
    device.free(buffer).unwrap();
    device
        .launch(&loaded, "k", &shape, &[&buffer.to_le_bytes()])
        .map(drop)
}

fn launch_after_another(ptx: &str, shape: LaunchConfig, config: Config) -> Result<(), LaunchError> {
    let device = ptx_emulator::Emulator::new(config);
    let module = std::sync::Arc::new(ptx_emulator::Module::parse(ptx).unwrap());
    let loaded = device.load(&module).unwrap();
    let buffer = device.alloc(1024).unwrap().to_le_bytes();
    device.launch(&loaded, "before", &shape, &[&buffer])?;
    device.launch(&loaded, "k", &shape, &[&buffer]).map(drop)
}

/// The name of a variant, as it is written.
fn variant(fault: &Fault) -> String {
    let text = format!("{:?}", fault.kind);
    text.split([' ', '{', '(']).next().unwrap().to_owned()
}

fn find(planted: &Planted, checks: Checks) -> Fault {
    match run(planted.broken, (planted.shape)(), checks) {
        Err(LaunchError::Fault(fault)) => *fault,
        other => panic!("{}: {other:?}", planted.kind),
    }
}

#[test]
fn each_is_found_where_it_is() {
    for planted in PLANTED {
        for checks in [Checks::ALL, only(planted.switch)] {
            let fault = find(planted, checks);
            assert_eq!(variant(&fault), planted.kind, "{fault}");
            let ptx = text(planted.broken);
            assert_eq!(fault.ptx_line, marked_line(&ptx), "{fault}");
            assert_eq!(fault.kernel, "k");
            let marked = ptx.lines().nth(fault.ptx_line - 1).unwrap();
            assert!(marked.contains(fault.instruction.as_str()), "{fault}");
        }
    }
}

#[test]
fn each_repaired_kernel_is_silent() {
    for planted in PLANTED {
        if let Err(error) = run(planted.repaired, (planted.shape)(), Checks::ALL) {
            panic!("{}: {error}", planted.kind);
        }
    }
}

/// Each is found by its own check, and by no other one.
#[test]
fn each_has_its_switch() {
    for planted in PLANTED {
        let outcome = run(planted.broken, (planted.shape)(), all_but(planted.switch));
        match (planted.switch, outcome) {
            (Switch::Always, Err(LaunchError::Fault(_))) => {}
            // What would never end is ended by the limit.
            (Switch::Synchronization, Err(LaunchError::Fault(fault)))
                if planted.kind == "Deadlock" =>
            {
                assert_eq!(variant(&fault), "InstructionLimit");
            }
            (Switch::Always, other) => panic!("{}: {other:?}", planted.kind),
            (_, other) => other.unwrap_or_else(|error| panic!("{}: {error}", planted.kind)),
        }
    }
}

/// The table has every kind there is, as the source declares them.
#[test]
fn every_kind_is_planted() {
    let source = include_str!("../../src/fault.rs");
    let (_, body) = source.split_once("pub enum FaultKind {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let declared: BTreeSet<_> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(|line| line.split([' ', ',', '(']).next().unwrap())
        .collect();
    let planted: BTreeSet<_> = PLANTED.iter().map(|planted| planted.kind).collect();
    assert!(declared.len() > 15, "{declared:?}");
    assert_eq!(declared, planted);
}

/// Memory that is never freed is found at the end of the device, with its size and the line that allocated it.
#[test]
fn leaks() {
    let device = ptx_emulator::Emulator::new(Config::default());
    let kept = device.alloc(100).unwrap();
    let freed = device.alloc(200).unwrap();
    let (line, forgotten) = (line!(), device.alloc(300).unwrap());
    let module = std::sync::Arc::new(ptx_emulator::Module::parse(&text("")).unwrap());
    let loaded = device.load(&module).unwrap();
    device.free(freed).unwrap();
    let error = device.clone().close().unwrap_err();
    let sizes: Vec<_> = error.leaks.iter().map(|leak| leak.bytes).collect();
    assert_eq!(sizes, [100, 300]);
    let last = error.leaks[1];
    assert_eq!((last.address, last.allocated_at.line()), (forgotten, line));
    assert_eq!(last.allocated_at.file(), file!());
    assert!(error.to_string().contains("300 bytes"), "{error}");
    device.free(kept).unwrap();
    device.free(forgotten).unwrap();
    // Variables of a module that is loaded are its own.
    assert_eq!(device.close(), Ok(()));
    drop(loaded);
    // Not looked for with the check off.
    let unchecked = ptx_emulator::Emulator::new(Config {
        checks: all_but(Switch::Memory),
        ..Config::default()
    });
    unchecked.alloc(8).unwrap();
    assert_eq!(unchecked.leaks().len(), 1);
    assert_eq!(unchecked.close(), Ok(()));
}
