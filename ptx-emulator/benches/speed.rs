//! Lane-instructions a second, on one core, with and without checks.
//!
//! Criterion's throughput is in elements: one element is one instruction of one lane, as the launch itself counts them.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ptx_emulator::{Checks, Config, Emulator, LaunchConfig, LoadedModule, Module};

/// A loop of integer arithmetic on registers.
const ARITHMETIC: &str = include_str!("arithmetic.ptx");
/// A dot product of bytes, with loads from global memory and a reduction through shared memory.
const DOT: &str = include_str!("dot.ptx");

struct Case {
    device: Emulator,
    loaded: LoadedModule,
    entry: &'static str,
    shape: LaunchConfig,
    args: Vec<Vec<u8>>,
}

impl Case {
    fn run(&self) -> u64 {
        let args: Vec<_> = self.args.iter().map(Vec::as_slice).collect();
        let report = self
            .device
            .launch(&self.loaded, self.entry, &self.shape, &args)
            .expect("the kernel is correct");
        report.counters.lane.total
    }
}

fn device(checks: Checks) -> Emulator {
    Emulator::new(Config {
        checks,
        threads: 1,
        ..Config::default()
    })
}

fn load(device: &Emulator, ptx: &str) -> LoadedModule {
    let module = Module::parse(ptx).expect("the PTX is valid");
    device
        .load(&Arc::new(module))
        .expect("the PTX is for this device")
}

fn shape(grid: u32, block: u32) -> LaunchConfig {
    LaunchConfig {
        grid: [grid, 1, 1],
        block: [block, 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    }
}

fn arithmetic(checks: Checks) -> Case {
    let device = device(checks);
    let loaded = load(&device, ARITHMETIC);
    let out = device.alloc(8 * 256 * 4).expect("the device is empty");
    Case {
        loaded,
        entry: "arithmetic",
        shape: shape(8, 256),
        args: vec![out.to_le_bytes().to_vec(), 200u32.to_le_bytes().to_vec()],
        device,
    }
}

fn dot(checks: Checks) -> Case {
    const ROWS: u32 = 16;
    const BYTES: u32 = 1 << 15;
    let device = device(checks);
    let loaded = load(&device, DOT);
    let buffer = |bytes: u32| {
        let address = device.alloc(bytes as usize).expect("the device is empty");
        device
            .fill(address, 3, bytes as usize)
            .expect("the range is the allocation");
        address.to_le_bytes().to_vec()
    };
    Case {
        args: vec![
            buffer(ROWS * BYTES),
            buffer(BYTES),
            buffer(ROWS * 4),
            BYTES.to_le_bytes().to_vec(),
        ],
        loaded,
        entry: "dot",
        shape: shape(ROWS, 128),
        device,
    }
}

fn speed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lane instructions");
    for (checks_name, checks) in [("checks off", Checks::NONE), ("checks on", Checks::ALL)] {
        for (name, case) in [("arithmetic", arithmetic(checks)), ("dot", dot(checks))] {
            group.throughput(Throughput::Elements(case.run()));
            group.bench_function(format!("{name}, {checks_name}"), |bencher| {
                bencher.iter(|| black_box(case.run()));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = speed
}
criterion_main!(benches);
