//! Counts, against numbers worked out by hand.

mod harness;

use harness::{Arg, Bench, HEADER, line};
use ptx_emulator::{Config, Counters, LaunchConfig};

fn kernel(body: &str) -> String {
    format!(
        "{HEADER}
.visible .entry k(.param .u64 buffer)
{{
.reg .pred %p<8>;
.reg .b32 %r<16>;
.reg .f32 %f<4>;
.reg .b64 %rd<8>;
.shared .align 16 .b8 cells[8192];
ld.param.u64 %rd1, [buffer];
mov.u32 %r1, %tid.x;
{body}
ret;
}}
"
    )
}

fn count(body: &str, threads: u32) -> Counters {
    let mut buffer = vec![0; 4096];
    Bench::new(&kernel(body))
        .run("k", line(threads), &mut [Arg::Words(&mut buffer)])
        .unwrap_or_else(|error| panic!("{error}\n{body}"))
        .counters
}

/// Loads of 32 lanes: size, distance between lanes, first byte; sectors and distinct bytes.
#[test]
fn coalescing() {
    for (load, stride, first, sectors, bytes) in [
        ("u32 %r6", 4, 0, 4, 128),
        ("u32 %r6", 4, 4, 5, 128),
        ("u32 %r6", 8, 0, 8, 128),
        ("u32 %r6", 32, 0, 32, 128),
        ("u32 %r6", 0, 0, 1, 4),
        ("u8 %r6", 1, 0, 1, 32),
        ("u8 %r6", 1, 31, 2, 32),
        ("u16 %r6", 2, 0, 2, 64),
        ("u64 %rd6", 8, 0, 8, 256),
        ("v4.u32 {%r6, %r7, %r8, %r9}", 16, 0, 16, 512),
        ("v4.u32 {%r6, %r7, %r8, %r9}", 16, 16, 17, 512),
        ("v4.u32 {%r6, %r7, %r8, %r9}", 32, 0, 32, 512),
        ("v4.u32 {%r6, %r7, %r8, %r9}", 0, 0, 1, 16),
        ("v2.u32 {%r6, %r7}", 8, 0, 8, 256),
    ] {
        let counters = count(
            &format!(
                "mul.wide.u32 %rd2, %r1, {stride}; add.s64 %rd3, %rd1, %rd2; ld.global.{load}, [%rd3+{first}];"
            ),
            32,
        );
        let global = counters.global;
        assert_eq!(
            (global.load_requests, global.load_sectors, global.bytes_read),
            (1, sectors, bytes),
            "{load}, stride {stride}, from {first}"
        );
        assert_eq!(
            global.load_efficiency(),
            bytes as f64 / (sectors * 32) as f64
        );
        assert_eq!(global.store_sectors, 0);
    }
    let stores = count(
        "mul.wide.u32 %rd2, %r1, 12; add.s64 %rd3, %rd1, %rd2; st.global.u32 [%rd3], %r1;",
        32,
    );
    assert_eq!(
        (
            stores.global.store_requests,
            stores.global.store_sectors,
            stores.global.bytes_written
        ),
        (1, 12, 128)
    );
    // Lanes whose guard is false ask for nothing.
    let some = count(
        "setp.lt.u32 %p1, %r1, 9; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2; @%p1 ld.global.u32 %r6, [%rd3];",
        32,
    );
    assert_eq!((some.global.load_sectors, some.global.bytes_read), (2, 36));
}

#[test]
fn bank_conflicts() {
    for (store, size, stride, conflicts) in [
        ("u32 [%r5], %r1", 4, 4, 0),
        ("u32 [%r5], %r1", 4, 8, 1),
        ("u32 [%r5], %r1", 4, 128, 31),
        ("u32 [%r5], %r1", 4, 132, 0),
        ("u8 [%r5], %r1", 1, 1, 0),
        ("u64 [%r5], %rd1", 8, 8, 0),
        // By half warps: 16 lanes of two words each, two lanes a bank.
        ("u64 [%r5], %rd1", 8, 16, 2),
        ("v4.u32 [%r5], {%r1, %r1, %r1, %r1}", 16, 16, 0),
        // By quarter warps: 8 lanes of four words, 32 banks apart two by two.
        ("v4.u32 [%r5], {%r1, %r1, %r1, %r1}", 16, 32, 4),
    ] {
        let counters = count(
            &format!(
                "mul.lo.u32 %r4, %r1, {stride}; mov.u32 %r5, cells; add.u32 %r5, %r5, %r4; st.shared.{store};"
            ),
            32,
        );
        assert_eq!(
            counters.shared.bank_conflicts, conflicts,
            "{store}, stride {stride}"
        );
        assert_eq!(counters.shared.bytes_written, 32 * size);
        assert_eq!(counters.shared.requests, 1);
    }
    // One word for all lanes is one pass.
    let broadcast = count(
        "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [cells], %r1; bar.sync 0; ld.shared.u32 %r6, [cells];",
        32,
    );
    assert_eq!(broadcast.shared.bank_conflicts, 0);
    assert_eq!((broadcast.shared.wavefronts, broadcast.barriers), (2, 1));
}

#[test]
fn classes() {
    let counters = count(
        "add.u32 %r2, %r1, 1;
        mad.lo.u32 %r3, %r2, %r2, %r1;
        dp4a.s32.s32 %r4, %r2, %r3, %r1;
        cvt.rn.f32.u32 %f1, %r2;
        fma.rn.f32 %f2, %f1, %f1, %f1;
        mul.wide.u32 %rd2, %r1, 4;
        add.s64 %rd3, %rd1, %rd2;
        ld.global.u32 %r5, [%rd3];
        ld.u32 %r6, [%rd3];
        st.global.u32 [%rd3], %r5;
        mov.u64 %rd4, cells;
        cvta.shared.u64 %rd4, %rd4;
        add.s64 %rd4, %rd4, %rd2;
        st.u32 [%rd4], %r1;
        ld.shared.u32 %r7, [cells];
        setp.lt.u32 %p1, %r1, 10;
        @%p1 bra skip;
        sub.u32 %r8, %r1, 1;
        skip:"
            .replace("ld.shared.u32 %r7, [cells];", "ld.u32 %r7, [%rd4];")
            .as_str(),
        40,
    );
    let (lane, warp) = (counters.lane, counters.warp);
    // Two warps, of 32 and of 8 lanes. `ld.param`, two `mov`s: other.
    assert_eq!((warp.other, lane.other), (6, 120));
    // add, mad, mul, add, cvta, add, setp; and sub: 22 lanes of the first warp, all 8 of the second.
    assert_eq!((warp.integer, lane.integer), (2 * 7 + 2, 7 * 40 + 30));
    assert_eq!((warp.dp4a, lane.dp4a), (2, 40));
    assert_eq!((warp.float, lane.float), (4, 80));
    assert_eq!((warp.load_global, lane.load_global), (4, 80));
    assert_eq!((warp.store_global, lane.store_global), (2, 40));
    // The generic accesses reach shared memory.
    assert_eq!((warp.shared, lane.shared), (4, 80));
    // bra (10 lanes of the first warp, none of the second) and ret.
    assert_eq!((warp.branch, lane.branch), (4, 50));
    let sum = |i: ptx_emulator::Instructions| {
        i.integer
            + i.float
            + i.dp4a
            + i.load_global
            + i.store_global
            + i.shared
            + i.branch
            + i.other
    };
    assert_eq!((warp.total, lane.total), (sum(warp), sum(lane)));
    assert_eq!(counters.divergent_branches, 1);
}

/// Comparisons count as what they compare, whatever they give.
#[test]
fn comparisons() {
    let counters = count(
        "mov.f32 %f1, 0f3f800000;
        setp.lt.f32 %p1, %f1, %f1;
        set.lt.u32.f32 %r2, %f1, %f1;
        set.lt.f32.f32 %f2, %f1, %f1;
        setp.lt.u32 %p2, %r1, 3;
        set.lt.f32.u32 %f3, %r1, 3;",
        32,
    );
    assert_eq!((counters.warp.float, counters.warp.integer), (3, 2));
}

/// Lanes that wait at an instruction until others have exited run it once, and are counted once.
#[test]
fn waiting_is_not_counted() {
    let counters = count(
        "mov.u32 %r6, 5;
        setp.lt.u32 %p1, %r1, 16;
        @%p1 bra go;
        exit;
        go:
        redux.sync.add.u32 %r7, %r6, -1;",
        32,
    );
    // ld.param and two mov by all lanes, redux by half of them.
    assert_eq!((counters.warp.other, counters.lane.other), (4, 3 * 32 + 16));
}

#[test]
fn lines_and_allocations() {
    let ptx = kernel(
        "mul.wide.u32 %rd2, %r1, 16;
add.s64 %rd3, %rd1, %rd2;
mov.u32 %r3, 0;
again:
ld.global.u32 %r2, [%rd3];
add.u32 %r3, %r3, 1;
setp.lt.u32 %p1, %r3, 7;
@%p1 bra again;
st.global.u32 [%rd3], %r3;",
    );
    let mut buffer = vec![0; 4096];
    let report = Bench::new(&ptx)
        .run("k", line(32), &mut [Arg::Words(&mut buffer)])
        .unwrap();
    let load = report
        .lines
        .iter()
        .find(|line| line.instruction.starts_with("ld.global"))
        .unwrap();
    assert_eq!(ptx.lines().nth(load.line - 1).unwrap(), load.instruction);
    assert_eq!(
        (
            load.warp_instructions,
            load.lane_instructions,
            load.requests,
            load.sectors,
            load.bytes
        ),
        (7, 7 * 32, 7, 7 * 16, 7 * 128)
    );
    let [traffic] = report.allocations[..] else {
        panic!("one allocation was touched");
    };
    assert_eq!(traffic.len, 4 * 4096);
    assert_eq!(
        (traffic.sectors_read, traffic.bytes_read),
        (7 * 16, 7 * 128)
    );
    assert_eq!((traffic.sectors_written, traffic.bytes_written), (16, 128));
    let total: u64 = report.lines.iter().map(|line| line.warp_instructions).sum();
    assert_eq!(total, report.counters.warp.total);
}

/// Cores and seeds change neither counts nor results.
#[test]
fn counts_do_not_depend_on_cores() {
    let ptx = kernel(
        "mov.u32 %r2, %ctaid.x;
        mad.lo.u32 %r3, %r2, 96, %r1;
        mul.wide.u32 %rd2, %r3, 4;
        add.s64 %rd3, %rd1, %rd2;
        rem.u32 %r4, %r3, 13;
        mov.u32 %r5, 0;
        again:
        mad.lo.u32 %r5, %r5, 17, %r4;
        sub.u32 %r4, %r4, 1;
        setp.gt.s32 %p1, %r4, 0;
        @%p1 bra again;
        ld.global.u32 %r6, [%rd3];
        add.u32 %r5, %r5, %r6;
        st.global.u8 [%rd3], %r5;",
    );
    let run = |threads, seed| {
        let mut buffer: Vec<u32> = (0..40 * 96).map(|i| i * 3).collect();
        let config = Config {
            threads,
            seed,
            ..Config::default()
        };
        let shape = LaunchConfig {
            grid: [40, 1, 1],
            ..line(96)
        };
        let report = Bench::with(&ptx, config)
            .run("k", shape, &mut [Arg::Words(&mut buffer)])
            .unwrap();
        (report, buffer)
    };
    let first = run(1, None);
    assert!(first.0.counters.divergent_branches > 0);
    for (threads, seed) in [(2, None), (5, None), (0, None), (1, Some(3)), (2, Some(77))] {
        assert_eq!(run(threads, seed), first, "{threads} {seed:?}");
    }
}
