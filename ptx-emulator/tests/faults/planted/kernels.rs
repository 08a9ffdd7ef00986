//! The kernels with a bug each, and without it.

use ptx_emulator::LaunchConfig;

use crate::harness::line;

/// The check that finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    Memory,
    Initialization,
    Races,
    Synchronization,
    Always,
}

pub struct Planted {
    /// The variant of `FaultKind`.
    pub kind: &'static str,
    pub switch: Switch,
    pub shape: fn() -> LaunchConfig,
    /// The line is marked by `/*!*/`.
    pub broken: &'static str,
    pub repaired: &'static str,
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

pub const PLANTED: &[Planted] = &[
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
        kind: "NonCoherentRead",
        switch: Switch::Races,
        shape: warp,
        broken: "st.global.u32 [%rd3], %r1;
            /*!*/ ld.global.nc.u32 %r6, [%rd3];",
        repaired: "st.global.u32 [%rd3], %r1;
            ld.global.u32 %r6, [%rd3];",
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
        switch: Switch::Initialization,
        shape: warp,
        broken: "div.u32 %r6, 100, %r1;
            /*!*/ add.u32 %r6, %r6, 1;",
        repaired: "div.u32 %r6, 100, %r1; setp.ne.u32 %p1, %r1, 0; @%p1 add.u32 %r6, %r6, 1;",
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
