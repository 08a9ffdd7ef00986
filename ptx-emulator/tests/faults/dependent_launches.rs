//! Programmatic dependent launch: what a kernel with `griddepcontrol.wait` may touch before it, after which launches.

use ptx_emulator::{
    Checks, Config, Emulator, Fault, FaultKind, LaunchConfig, LaunchError, LoadedModule, Report,
};

use super::harness::{HEADER, line, parse};
use super::marked_line;

/// A kernel with two buffers, `%rd1` and `%rd2`, of which each thread has a word, at `%rd3` and `%rd4`.
fn entry(name: &str, body: &str) -> String {
    format!(
        ".visible .entry {name}(.param .u64 a, .param .u64 b)
{{
.reg .pred %p<4>;
.reg .b32 %r<8>;
.reg .b64 %rd<8>;
.shared .align 16 .b8 cells[1024];
.shared .align 8 .b64 bar;
ld.param.u64 %rd1, [a];
ld.param.u64 %rd2, [b];
mov.u32 %r1, %tid.x;
mov.u32 %r2, %ctaid.x;
mov.u32 %r3, %ntid.x;
mad.lo.u32 %r4, %r2, %r3, %r1;
mul.wide.u32 %rd5, %r4, 4;
add.s64 %rd3, %rd1, %rd5;
add.s64 %rd4, %rd2, %rd5;
shl.b32 %r5, %r1, 4;
mov.u32 %r6, cells;
add.u32 %r5, %r6, %r5;
{body}
ret;
}}
"
    )
}

/// `k`, and kernels that come before it.
fn text(body: &str) -> String {
    [
        HEADER.to_owned(),
        entry("writes_a", "st.global.u32 [%rd3], %r1;"),
        entry("reads_a", "ld.global.u32 %r7, [%rd3];"),
        entry("touches_b", "red.global.add.u32 [%rd4], 1;"),
        entry("k", body),
    ]
    .concat()
}

struct Bench {
    device: Emulator,
    loaded: LoadedModule,
    a: u64,
    b: u64,
    shape: LaunchConfig,
}

/// Bytes of each buffer.
const BYTES: usize = 4096;

impl Bench {
    fn with(ptx: &str, shape: LaunchConfig, config: Config) -> Self {
        let device = Emulator::new(config);
        let loaded = device.load(&parse(ptx)).unwrap();
        let [a, b] = [(); 2].map(|()| {
            let buffer = device.alloc(BYTES).unwrap();
            device.fill(buffer, 1, BYTES).unwrap();
            buffer
        });
        Self {
            device,
            loaded,
            a,
            b,
            shape,
        }
    }

    fn new(body: &str) -> Self {
        Self::with(&text(body), line(32), Config::default())
    }

    fn launch(&self, kernel: &str) -> Result<Report, LaunchError> {
        let (a, b) = (self.a.to_le_bytes(), self.b.to_le_bytes());
        self.device
            .launch(&self.loaded, kernel, &self.shape, &[&a, &b])
    }

    fn pass(&self, kernels: &[&str]) {
        for kernel in kernels {
            if let Err(error) = self.launch(kernel) {
                panic!("{kernel} of {kernels:?}: {error}");
            }
        }
    }

    /// Runs kernels, of which the last one must be too early.
    fn early(&self, kernels: &[&str]) -> Fault {
        let [before @ .., last] = kernels else {
            panic!("no kernel");
        };
        self.pass(before);
        match self.launch(last) {
            Err(LaunchError::Fault(fault))
                if matches!(fault.kind, FaultKind::BeforeGridDependency { .. }) =>
            {
                *fault
            }
            other => panic!("{other:?}"),
        }
    }
}

fn kind(other: &str, wrote: bool) -> FaultKind {
    FaultKind::BeforeGridDependency {
        other: other.to_owned(),
        wrote,
    }
}

const WAIT: &str = "griddepcontrol.wait;";

const READS: &[&str] = &[
    "ld.global.u32 %r7, [%rd3];",
    "ld.global.nc.u32 %r7, [%rd3];",
    "ld.u32 %r7, [%rd3];",
    "ld.volatile.global.u32 %r7, [%rd3];",
    "ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd1];",
    "cp.async.ca.shared.global [%r5], [%rd3], 4; cp.async.wait_all;",
    "setp.ne.u32 %p1, %r1, 0; @%p1 bra end;
    mbarrier.init.shared.b64 [bar], 1;
    mbarrier.arrive.expect_tx.shared.b64 %rd6, [bar], 16;
    /*!*/ cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [cells], [%rd1], 16, [bar];
    wait: mbarrier.try_wait.shared.b64 %p2, [bar], %rd6;
    @!%p2 bra wait;
    end:",
];

const WRITES: &[&str] = &[
    "st.global.u32 [%rd3], 5;",
    "st.u8 [%rd3], 5;",
    "st.release.gpu.global.u32 [%rd3], 5;",
    "red.global.add.u32 [%rd3], 1;",
    "atom.global.add.u32 %r7, [%rd3], 1;",
    "setp.ne.u32 %p1, %r1, 0; @%p1 bra end;
    st.shared.v4.u32 [cells], {%r1, %r1, %r1, %r1};
    fence.proxy.async;
    /*!*/ cp.async.bulk.global.shared::cta.bulk_group [%rd1], [cells], 16;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
    end:",
];

fn marked(access: &str) -> String {
    if access.contains("/*!*/") {
        access.to_owned()
    } else {
        format!("/*!*/ {access}")
    }
}

#[test]
fn before_and_after_the_wait() {
    for access in READS.iter().chain(WRITES) {
        let writes = WRITES.contains(access);
        let early = text(&format!("{}\n{WAIT}", marked(access)));
        let bench = |ptx: &str| Bench::with(ptx, line(32), Config::default());
        let found = bench(&early).early(&["writes_a", "k"]);
        assert_eq!(found.kind, kind("writes_a", true), "{found}");
        assert_eq!(found.ptx_line, marked_line(&early), "{found}");
        assert_eq!((found.block, found.thread), ([0; 3], [0; 3]), "{found}");
        assert_eq!(found.kernel, "k");
        let nearest = found.nearest.as_ref().unwrap();
        assert_eq!((nearest.offset, nearest.len), (0, BYTES as u64));
        // A read after reads is none of anybody's business.
        if writes {
            let found = bench(&early).early(&["reads_a", "k"]);
            assert_eq!(found.kind, kind("reads_a", false), "{found}");
        } else {
            bench(&early).pass(&["reads_a", "k"]);
        }
        let late = text(&format!("{WAIT}\n{access}"));
        bench(&late).pass(&["writes_a", "k"]);
        bench(&late).pass(&["reads_a", "k"]);
    }
}

#[test]
fn message() {
    let bench = Bench::new("ld.global.u32 %r7, [%rd3]; griddepcontrol.wait;");
    let found = bench.early(&["writes_a", "k"]).to_string();
    for part in [
        "access before `griddepcontrol.wait`: ",
        "kernel `writes_a`, launched earlier, may still be writing at global address 0x",
        "; kernel `k`, PTX line",
    ] {
        assert!(found.contains(part), "{found}");
    }
    let bench = Bench::new("st.global.u32 [%rd3], 1; griddepcontrol.wait;");
    let found = bench.early(&["reads_a", "k"]).to_string();
    assert!(found.contains("may still be reading at"), "{found}");
}

#[test]
fn what_is_allowed_before_the_wait() {
    for body in [
        "prefetch.global.L2 [%rd3];",
        "prefetchu.L1 [%rd3];",
        "cp.async.bulk.prefetch.L2.global [%rd1], 64;",
        // Another allocation than the launch before touched.
        "ld.global.u32 %r7, [%rd4]; st.global.u32 [%rd4], %r7;",
        "st.shared.u32 [%r5], 1; ld.shared.u32 %r7, [%r5];",
    ] {
        Bench::new(&format!("{body}\n{WAIT}\nld.global.u32 %r7, [%rd3];"))
            .pass(&["writes_a", "k", "reads_a", "k"]);
    }
}

/// Each lane for itself.
#[test]
fn a_wait_that_is_predicated_off() {
    let bench = Bench::new(
        "setp.lt.u32 %p1, %r1, 20;
        @%p1 griddepcontrol.wait;
        ld.global.u32 %r7, [%rd3];",
    );
    let found = bench.early(&["writes_a", "k"]);
    assert_eq!(found.thread, [20, 0, 0]);
    assert_eq!(found.nearest.as_ref().unwrap().offset, 80);
    let bench = Bench::new(
        "setp.lt.u32 %p1, %r1, 20;
        @%p1 griddepcontrol.wait;
        cp.async.ca.shared.global [%r5], [%rd3], 4;
        cp.async.wait_all;",
    );
    let found = bench.early(&["writes_a", "k"]);
    assert_eq!(found.thread, [20, 0, 0]);
    assert_eq!(found.nearest.as_ref().unwrap().offset, 80);
    // The lanes without a wait do not load.
    Bench::new(
        "setp.lt.u32 %p1, %r1, 20;
        @%p1 griddepcontrol.wait;
        @%p1 ld.global.u32 %r7, [%rd3];",
    )
    .pass(&["writes_a", "k"]);
}

/// What synchronises with a thread that has waited comes after its wait.
#[test]
fn a_wait_of_another_thread() {
    let body = |lanes: &str, barrier: &str| {
        text(&format!(
            "setp.{lanes} %p1, %r1, 0;
            @%p1 griddepcontrol.wait;
            {barrier}
            ld.global.u32 %r7, [%rd3];"
        ))
    };
    let bench = |ptx: &str| Bench::with(ptx, line(64), Config::default());
    for (barrier, first_early) in [
        ("", Some(1)),
        ("bar.warp.sync -1;", Some(32)),
        ("bar.sync 0;", None),
        ("membar.gl;", Some(1)),
    ] {
        let bench = bench(&body("eq.u32", barrier));
        match first_early {
            None => bench.pass(&["writes_a", "k"]),
            Some(thread) => {
                let found = bench.early(&["writes_a", "k"]);
                assert_eq!(found.thread, [thread, 0, 0], "{barrier}");
            }
        }
    }
    // A barrier before the wait orders nothing.
    let ptx = text(
        "bar.sync 0;
        setp.lt.u32 %p1, %r1, 32;
        @%p1 griddepcontrol.wait;
        ld.global.u32 %r7, [%rd3];",
    );
    let found = bench(&ptx).early(&["writes_a", "k"]);
    assert_eq!(found.thread, [32, 0, 0]);
    // By an mbarrier, as between the warps of a pipeline.
    let pipeline = |wait: &str| {
        text(&format!(
            "setp.ne.u32 %p1, %r1, 0;
            @!%p1 mbarrier.init.shared.b64 [bar], 1;
            bar.sync 0;
            @%p1 bra consumer;
            {wait}
            mbarrier.arrive.shared.b64 %rd6, [bar];
            consumer:
            mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0;
            @!%p2 bra consumer;
            ld.global.u32 %r7, [%rd3];
            griddepcontrol.wait;"
        ))
    };
    bench(&pipeline(WAIT)).pass(&["writes_a", "k"]);
    bench(&pipeline("")).early(&["writes_a", "k"]);
}

/// What the host does in between.
#[test]
fn the_host_waits() {
    let early = || Bench::new("ld.global.u32 %r7, [%rd3]; griddepcontrol.wait;");
    let between = |operation: &dyn Fn(&Bench)| {
        let bench = early();
        bench.pass(&["writes_a"]);
        operation(&bench);
        bench
    };
    let waits: [&dyn Fn(&Bench); 5] = [
        &|bench| bench.device.read(bench.b, &mut [0; 4]).unwrap(),
        &|bench| bench.device.write(bench.b, &[0; 4]).unwrap(),
        &|bench| bench.device.fill(bench.b, 0, 4).unwrap(),
        &|bench| bench.device.copy(bench.b, bench.b + 64, 4).unwrap(),
        &|bench| bench.device.synchronize(),
    ];
    for operation in waits {
        between(operation).pass(&["k"]);
    }
    let goes_on: [&dyn Fn(&Bench); 6] = [
        &|_| {},
        &|bench| assert!(bench.device.alloc(64).is_ok()),
        &|bench| bench.device.free(bench.b).unwrap(),
        &|bench| drop(bench.device.load(bench.loaded.module()).unwrap()),
        // Refused, so that nothing happens.
        &|bench| assert!(bench.device.read(8, &mut [0; 4]).is_err()),
        &|bench| assert!(bench.launch("no_such_kernel").is_err()),
    ];
    for operation in goes_on {
        between(operation).early(&["k"]);
    }
    // A fault reaches the host.
    between(&|bench| drop(bench.early(&["k"]))).pass(&["k"]);
}

/// A kernel without the instruction starts when all before it are complete.
#[test]
fn launches_in_full_order() {
    let bench = Bench::new("ld.global.u32 %r7, [%rd3]; griddepcontrol.wait;");
    bench.pass(&["writes_a", "reads_a", "writes_a", "touches_b", "k"]);
    let found = bench.early(&["touches_b", "reads_a", "writes_a", "k"]);
    assert_eq!(found.kind, kind("writes_a", true));
    // One that has it, but not among what the kernel can reach.
    let unused = |call: &str, body: &str| {
        text(&format!("{call} {body}")).replace(
            ".visible .entry writes_a",
            ".func waits() { griddepcontrol.wait; ret; }\n.visible .entry writes_a",
        )
    };
    let read = "ld.global.u32 %r7, [%rd3];";
    let with = |ptx: &str| Bench::with(ptx, line(32), Config::default());
    with(&unused("", read)).pass(&["writes_a", "k"]);
    with(&unused("call waits;", read)).pass(&["writes_a", "k"]);
    with(&unused(read, "call waits;")).early(&["writes_a", "k"]);
}

/// A launch that lets the next one start before it has waited itself leaves those before it under way.
#[test]
fn three_launches_under_way() {
    let middle = |body: &str| {
        let text = text("ld.global.u32 %r7, [%rd3]; griddepcontrol.wait;");
        let text = text + &entry("middle", &format!("{body} ld.global.u32 %r7, [%rd4];"));
        let two_blocks = LaunchConfig {
            grid: [2, 1, 1],
            ..line(32)
        };
        Bench::with(&text, two_blocks, Config::default())
    };
    let chain = ["writes_a", "middle", "k"];
    for body in [
        "griddepcontrol.wait; griddepcontrol.launch_dependents;",
        // The end of a block that has waited lets the next launch start, too.
        "griddepcontrol.wait;",
        // One block is enough.
        "setp.eq.u32 %p1, %r2, 0; @%p1 griddepcontrol.wait; griddepcontrol.launch_dependents; griddepcontrol.wait;",
        "griddepcontrol.wait; bar.sync 0; griddepcontrol.launch_dependents;",
    ] {
        middle(body).pass(&chain);
    }
    for body in [
        "griddepcontrol.launch_dependents; griddepcontrol.wait;",
        // The first lane that says so counts.
        "setp.eq.u32 %p1, %r1, 7; @%p1 griddepcontrol.launch_dependents; griddepcontrol.wait;",
        // Nobody waits.
        "setp.eq.u32 %p1, %r2, 7; @%p1 griddepcontrol.wait;",
    ] {
        let found = middle(body).early(&chain);
        assert_eq!(found.kind, kind("writes_a", true), "{body}");
        middle(body).early(&["writes_a", "middle", "middle", "k"]);
        // A launch in full order comes after all of them.
        middle(body).pass(&["writes_a", "middle", "touches_b", "k"]);
        // What the middle one did counts as well.
        let found = middle(body).early(&["reads_a", "middle", "writes_a", "middle", "k"]);
        assert_eq!(found.kind, kind("writes_a", true), "{body}");
    }
}

/// The same finding on any number of cores, and in any order of blocks and warps.
#[test]
fn one_finding_in_any_order() {
    // Block 3 and those after it, the second warp and those after it, and then all.
    let body = "setp.ge.u32 %p1, %r2, 3;
        setp.ge.and.u32 %p1, %r1, 40, %p1;
        @%p1 ld.global.u32 %r7, [%rd3];
        @%p1 ld.global.u32 %r7, [%rd1];
        setp.ge.u32 %p2, %r2, 5;
        @%p2 st.global.u32 [%rd3], 1;
        griddepcontrol.wait;";
    let shape = LaunchConfig {
        grid: [8, 1, 1],
        ..line(96)
    };
    let ptx = text(body);
    let run = |threads, seed, shape| {
        let config = Config {
            threads,
            seed,
            ..Config::default()
        };
        Bench::with(&ptx, shape, config).early(&["writes_a", "k"])
    };
    let expected = run(1, None, shape);
    assert_eq!((expected.block, expected.thread), ([3, 0, 0], [40, 0, 0]));
    assert_eq!(expected.instruction, "@%p1 ld.global.u32 %r7, [%rd3];");
    for (threads, seed) in [
        (2, None),
        (4, None),
        (1, Some(1)),
        (2, Some(2)),
        (1, Some(3)),
    ] {
        assert_eq!(run(threads, seed, shape), expected, "{threads} {seed:?}");
    }
    let cooperative = LaunchConfig {
        cooperative: true,
        ..shape
    };
    assert_eq!(run(1, None, cooperative), expected);
    assert_eq!(run(1, Some(9), cooperative), expected);
}

#[test]
fn not_without_the_check() {
    let body = "ld.global.u32 %r7, [%rd3]; griddepcontrol.wait;";
    let config = Config {
        checks: Checks {
            races: false,
            ..Checks::ALL
        },
        ..Config::default()
    };
    Bench::with(&text(body), line(32), config).pass(&["writes_a", "k"]);
}
