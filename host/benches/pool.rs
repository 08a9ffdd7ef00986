//! Allocating and freeing buffers: from the pool, and from the device without one.
//!
//! `BITNET_TEST_DEVICE` names another device than the emulator. On a GPU, `plain` is `cuMemAlloc` and `cuMemFree`.

use bitnet_cuda::device::{Buffer, Device, MemoryPoolConfig, TrackingLevel};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Instant;

fn device(tracking: Option<TrackingLevel>) -> Device {
    let name = std::env::var("BITNET_TEST_DEVICE").unwrap_or_else(|_| "emulated".to_owned());
    let device = Device::from_name(&name).expect("BITNET_TEST_DEVICE names a device");
    if let Some(tracking) = tracking {
        let config = MemoryPoolConfig {
            tracking,
            ..MemoryPoolConfig::default()
        };
        device
            .enable_pool(config)
            .expect("a new device has no pool");
    }
    device
}

fn allocate(device: &Device, bytes: usize) {
    drop(black_box(
        Buffer::<u8>::uninit(device, bytes).expect("there is memory"),
    ));
}

/// One buffer of each size, again and again.
fn sizes(c: &mut Criterion) {
    let mut group = c.benchmark_group("allocate and free");
    for (name, tracking) in [
        ("plain", None),
        ("pool", Some(TrackingLevel::Basic)),
        ("pool, detailed", Some(TrackingLevel::Detailed)),
    ] {
        let device = device(tracking);
        // One more of the size keeps its slab or chunk.
        for bytes in [256, 4 << 10, 512 << 10, 4 << 20] {
            let _kept = Buffer::<u8>::uninit(&device, bytes);
            group.bench_with_input(BenchmarkId::new(name, bytes), &bytes, |b, &bytes| {
                b.iter(|| allocate(&device, bytes))
            });
        }
    }
    group.finish();
}

/// The same number of buffers a thread; the time is that of all threads together.
fn threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("threads");
    let device = device(Some(TrackingLevel::Basic));
    for threads in [1, 2, 4, 8] {
        for (name, sizes) in [
            ("one class", [4096; 8]),
            (
                "own classes",
                [256, 512, 1024, 2048, 4096, 8192, 16384, 32768],
            ),
        ] {
            group.throughput(Throughput::Elements(threads));
            group.bench_with_input(BenchmarkId::new(name, threads), &threads, |b, &threads| {
                b.iter_custom(|iterations| {
                    let start = Instant::now();
                    std::thread::scope(|scope| {
                        for bytes in &sizes[..threads as usize] {
                            scope.spawn(|| (0..iterations).for_each(|_| allocate(&device, *bytes)));
                        }
                    });
                    start.elapsed()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, sizes, threads);
criterion_main!(benches);
