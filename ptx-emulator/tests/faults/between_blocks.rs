//! Races in global memory: within a block, and between blocks that nothing orders.

use ptx_emulator::{Config, Fault, FaultKind, LaunchConfig, Site};

use super::harness::line;
use super::{fault, fault_with, kernel, outcome, silent};

pub fn grid(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig {
        grid: [blocks, 1, 1],
        ..line(threads)
    }
}

pub fn cooperative(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig {
        cooperative: true,
        ..grid(blocks, threads)
    }
}

pub fn other(fault: &Fault) -> &Site {
    match &fault.kind {
        FaultKind::GlobalRace { other } => other,
        _ => panic!("{fault}"),
    }
}

/// Runs in ascending order, in others, and on several cores.
pub fn silent_in(body: &str, shape: LaunchConfig) {
    for (seed, threads) in [
        (None, 1),
        (None, 3),
        (Some(1), 1),
        (Some(2), 1),
        (Some(3), 1),
    ] {
        let config = Config {
            seed,
            threads,
            ..Config::default()
        };
        if let Err(error) = outcome(&kernel(body), shape, config) {
            panic!("seed {seed:?}: {error}\n{body}");
        }
    }
}

#[test]
fn within_a_block() {
    // A word of the next warp, without a barrier.
    let found = fault(
        "st.global.u32 [%rd3], %r1;
        setp.ge.u32 %p1, %r1, 32;
        /*!*/ @%p1 ld.global.u32 %r7, [%rd3+-128];",
        64,
    );
    let first = other(&found);
    assert!(first.write);
    assert_eq!(first.instruction, "st.global.u32 [%rd3], %r1;");
    assert_eq!((first.thread, found.thread), ([0, 0, 0], [32, 0, 0]));
    // One byte of what another lane writes as a vector.
    fault(
        "mul.wide.u32 %rd4, %r1, 16;
        add.s64 %rd4, %rd1, %rd4;
        st.global.v4.u32 [%rd4], {%r1, %r1, %r1, %r1};
        xor.b32 %r6, %r1, 1;
        mul.wide.u32 %rd5, %r6, 16;
        add.s64 %rd5, %rd1, %rd5;
        /*!*/ ld.global.u8 %r7, [%rd5+5];",
        32,
    );
    // The same with a barrier.
    silent(
        "st.global.u32 [%rd3], %r1;
        bar.sync 0;
        setp.ge.u32 %p1, %r1, 32;
        @%p1 ld.global.u32 %r7, [%rd3+-128];",
        64,
    );
    // A thread reads its own bytes, in another size.
    silent(
        "mul.wide.u32 %rd4, %r1, 16;
        add.s64 %rd4, %rd1, %rd4;
        st.global.v4.u32 [%rd4], {%r1, %r1, %r1, %r1};
        ld.global.u8 %r7, [%rd4+5];
        ld.global.u64 %rd5, [%rd4+8];
        st.global.u16 [%rd4+2], %r7;
        ld.global.u32 %r8, [%rd4];",
        32,
    );
}

/// A read that is not among the last ones still races with a write.
#[test]
fn every_read_is_remembered() {
    let read_by_all = |barrier: &str, mark: &str| {
        format!(
            "setp.ne.u32 %p1, %r1, 0;
            @!%p1 st.shared.u32 [%r4], %r1;
            bar.sync 0;
            ld.shared.u32 %r6, [%r4];
            {barrier}
            // The last warp has read last, and writes.
            setp.ne.u32 %p2, %r1, 255;
            {mark} @!%p2 st.shared.u32 [%r4], %r1;"
        )
    };
    let found = fault(&read_by_all("", "/*!*/"), 256);
    let FaultKind::SharedRace { other } = &found.kind else {
        panic!("{found}");
    };
    assert!(!other.write);
    silent(&read_by_all("bar.sync 0;", ""), 256);
    // Only warps 1 to 7 meet: the read by warp 0 is older than all of theirs.
    let found = fault(
        "setp.ne.u32 %p1, %r1, 0;
        @!%p1 st.shared.u32 [%r4], %r1;
        bar.sync 0;
        ld.shared.u32 %r6, [%r4];
        setp.lt.u32 %p3, %r1, 32;
        @%p3 bra end;
        bar.sync 1, 224;
        setp.ne.u32 %p2, %r1, 255;
        /*!*/ @!%p2 st.shared.u32 [%r4], %r1;
        end:",
        256,
    );
    let FaultKind::SharedRace { other } = &found.kind else {
        panic!("{found}");
    };
    assert_eq!((other.write, other.thread[0] / 32), (false, 0));
}

#[test]
fn blocks_that_nothing_orders() {
    // Every block writes the buffer's first words.
    let body = "/*!*/ st.global.u32 [%rd3], %r2;";
    let mut seen = Vec::new();
    for (seed, threads) in [(None, 1), (None, 2), (None, 4), (Some(7), 1)] {
        let config = Config {
            seed,
            threads,
            ..Config::default()
        };
        let found = fault_with(body, grid(40, 32), config);
        assert!(other(&found).write);
        assert_eq!(other(&found).block, [0, 0, 0]);
        seen.push(found);
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");

    // One block reads what another one writes. The higher block's access is the fault's own.
    let found = fault_with(
        "setp.eq.u32 %p1, %r2, 5;
        @%p1 st.global.u32 [%rd3+64], %r2;
        setp.eq.u32 %p2, %r2, 9;
        /*!*/ @%p2 ld.global.u32 %r6, [%rd3+64];",
        grid(12, 8),
        Config::default(),
    );
    assert_eq!((found.block, other(&found).block), ([9, 0, 0], [5, 0, 0]));
    assert_eq!(found.nearest.as_ref().unwrap().offset, 64);
    // Threads are those of their blocks, whichever warp they are in.
    let found = fault_with(
        "mad.lo.u32 %r6, %r2, 64, %r1;
        setp.eq.u32 %p1, %r6, 360;
        @%p1 st.global.u32 [%rd1], %r2;
        setp.eq.u32 %p2, %r6, 617;
        /*!*/ @%p2 ld.global.u32 %r6, [%rd1];",
        grid(12, 64),
        Config::default(),
    );
    assert_eq!((found.block, found.thread), ([9, 0, 0], [41, 0, 0]));
    assert_eq!(
        (other(&found).block, other(&found).thread),
        ([5, 0, 0], [40, 0, 0])
    );
    // Read by many before and after it.
    let found = fault_with(
        "ld.global.u32 %r6, [%rd1];
        setp.eq.u32 %p1, %r2, 5;
        /*!*/ @%p1 st.global.u8 [%rd1+3], %r6;",
        grid(12, 1),
        Config::default(),
    );
    assert_eq!((found.block, other(&found).block), ([5, 0, 0], [0, 0, 0]));
    // Neighbours: each block its own bytes of a word.
    silent_in(
        "mad.lo.u32 %r6, %r2, 3, %r1; cvt.u64.u32 %rd4, %r6; add.s64 %rd4, %rd1, %rd4;
        cvt.u16.u32 %h1, %r2; st.global.u8 [%rd4], %h1; ld.global.u8 %h2, [%rd4];",
        grid(50, 3),
    );
    // All read the same, and each writes its own.
    silent_in(
        "ld.global.u32 %r6, [%rd3]; mad.lo.u32 %r7, %r2, 32, %r1; mul.wide.u32 %rd4, %r7, 4;
        add.s64 %rd4, %rd1, %rd4; st.global.u32 [%rd4+128], %r6;",
        grid(6, 32),
    );
}

/// Sums by atomics race with nothing but plain accesses.
#[test]
fn atomics() {
    silent_in("red.global.add.u32 [%rd1], %r1;", grid(30, 64));
    silent_in(
        "atom.global.add.u32 %r6, [%rd3], %r1; ld.volatile.global.u32 %r7, [%rd3];",
        grid(30, 64),
    );
    let found = fault_with(
        "setp.ne.u32 %p1, %r2, 3;
        red.global.add.u32 [%rd1], %r1;
        /*!*/ @!%p1 ld.global.u32 %r6, [%rd1];",
        grid(6, 1),
        Config::default(),
    );
    assert_eq!((found.block, other(&found).block), ([3, 0, 0], [0, 0, 0]));
}

/// The first read of a loop around `atom.cas` is a plain load in CUDA's programming guide: what it missed costs another round.
#[test]
fn loops_of_compare_and_swap() {
    const LOOP: &str = "
        again:
        max.u32 %r7, %r6, %r1;
        atom.global.cas.b32 %r8, [%rd1+8], %r6, %r7;
        setp.ne.u32 %p1, %r8, %r6;
        mov.u32 %r6, %r8;
        @%p1 bra again;";
    silent_in(&format!("ld.global.u32 %r6, [%rd1+8]; {LOOP}"), grid(5, 64));
    // nvcc folds an offset into the load alone.
    let nvcc = |before: &str, space: &str, base: &str, inside: &str| {
        let swap = LOOP
            .replace("again:", &format!("again: {inside}"))
            .replace(".global", space)
            .replace("[%rd1+8]", &format!("[{base}]"));
        format!("{before}\n{swap}")
    };
    for body in [
        nvcc(
            "ld.global.u32 %r6, [%rd1+8];",
            ".global",
            "%rd4",
            "add.s64 %rd4, %rd1, 8;",
        ),
        nvcc(
            "add.s64 %rd4, %rd1, 12; ld.global.u32 %r6, [%rd4+-4]; mov.u64 %rd5, %rd4; cvta.global.u64 %rd6, %rd5;",
            "",
            "%rd6+-4",
            "",
        ),
    ] {
        silent_in(&body, grid(5, 64));
    }
    for base in ["cells", "%r9"] {
        let body = nvcc(
            &format!(
                "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [cells+8], %r1; bar.sync 0;
                mov.u32 %r9, cells; ld.shared.u32 %r6, [{base}+8];"
            ),
            ".shared",
            "%r11",
            "mov.u32 %r10, cells; add.s32 %r11, %r10, 8;",
        );
        silent_in(&body, grid(2, 64));
    }
    // What is tested is at another offset: such a read is not ordered with atomics.
    for added in [
        "add.s64 %rd4, %rd1, 4;",
        "add.s64 %rd4, %rd1, 8; add.s64 %rd4, %rd1, 4;",
    ] {
        fault(
            &nvcc(
                "ld.global.u32 %r6, [%rd1+8];
                /*!*/ red.global.add.u32 [%rd1+8], 1;",
                ".global",
                "%rd4",
                added,
            ),
            32,
        );
    }
    // What is tested is not what was read.
    fault(
        "ld.global.u32 %r6, [%rd1+8];
        /*!*/ atom.global.cas.b32 %r8, [%rd1+8], %r1, 7;",
        32,
    );
    // It was read from another address.
    fault(
        &format!(
            "ld.global.u32 %r6, [%rd1];
            setp.eq.u32 %p1, %r1, 0;
            /*!*/ @%p1 st.global.u32 [%rd1], %r1;
            {LOOP}"
        ),
        32,
    );
}

/// What `.nc` reads must not change during the launch, whatever orders the write and the read.
#[test]
fn non_coherent_reads() {
    let neighbour = "xor.b32 %r6, %r3, 4; cvt.u64.u32 %rd4, %r6; add.s64 %rd4, %rd1, %rd4;";
    for body in [
        "st.global.u32 [%rd3], %r1; /*!*/ ld.global.nc.u32 %r6, [%rd3];",
        "ld.global.nc.u32 %r6, [%rd3]; /*!*/ st.global.u32 [%rd3], %r1;",
        // Accesses in between make no difference, nor does one byte of a vector.
        "st.global.u32 [%rd3], %r1; ld.global.u32 %r7, [%rd3]; bar.sync 0; /*!*/ ld.global.nc.u8 %r6, [%rd3+3];",
        "ld.global.nc.v2.u32 {%r6, %r7}, [%rd1]; ld.global.u32 %r8, [%rd3]; bar.sync 0; /*!*/ st.global.u32 [%rd3], %r1;",
        "ld.global.nc.u32 %r6, [%rd3]; bar.sync 0; /*!*/ red.global.add.u32 [%rd3], 1;",
        &format!(
            "{neighbour} st.global.u32 [%rd3], %r1; bar.sync 0; /*!*/ ld.global.nc.u32 %r6, [%rd4];"
        ),
    ] {
        let found = fault(body, 64);
        let FaultKind::NonCoherentRead { other } = &found.kind else {
            panic!("{found}");
        };
        assert_eq!(other.write, body.contains("/*!*/ ld"), "{found}");
    }
    // Another block, which nothing orders, and which a barrier of the grid orders.
    for (body, shape) in [
        (
            "setp.eq.u32 %p1, %r2, 0; @%p1 st.global.u32 [%rd1], 5;
            /*!*/ @!%p1 ld.global.nc.u32 %r6, [%rd1];",
            grid(2, 1),
        ),
        (
            "setp.eq.u32 %p1, %r2, 0; @%p1 ld.global.nc.u32 %r6, [%rd1];
            @%p1 red.release.gpu.global.add.u32 [%rd1+64], 1; @%p1 bra end;
            wait: ld.acquire.gpu.global.u32 %r7, [%rd1+64]; setp.eq.u32 %p2, %r7, 0; @%p2 bra wait;
            /*!*/ st.global.u32 [%rd1], 5;
            end:",
            cooperative(2, 1),
        ),
    ] {
        for threads in [1, 2] {
            let config = Config {
                threads,
                ..Config::default()
            };
            let found = fault_with(body, shape, config);
            assert!(
                matches!(found.kind, FaultKind::NonCoherentRead { .. }),
                "{found}"
            );
            assert_eq!(found.block, [1, 0, 0]);
        }
    }
    // What is read is not what is written, though both are in one sector.
    silent(
        "setp.lt.u32 %p1, %r1, 2; @%p1 st.global.u32 [%rd3], %r1; bar.sync 0; @!%p1 ld.global.nc.u32 %r6, [%rd3];",
        8,
    );
    silent_in(
        "ld.global.nc.u32 %r6, [%rd3]; ld.global.nc.v4.u32 {%r6, %r7, %r8, %r9}, [%rd1]; st.global.u32 [%rd3+512], %r6;",
        line(64),
    );
}
