//! Allocating and freeing buffers: from the pool, and from the device without one.
//!
//! `BITNET_TEST_DEVICE` names another device than the emulator. On a GPU, `plain` is `cuMemAlloc` and `cuMemFree`, and
//! `stream-ordered` the driver's own pool: `cuMemAllocAsync` and `cuMemFreeAsync`.

use bitnet_cuda::device::{Buffer, Device, DeviceKind, MemoryPoolConfig, TrackingLevel};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use cust_lazy::ffi::{self, CUstream};
use std::hint::black_box;
use std::ptr;
use std::time::Instant;

const SIZES: [usize; 4] = [256, 4 << 10, 512 << 10, 4 << 20];

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

/// A stream of the driver's, beside this library.
struct DriverStream(CUstream);

impl DriverStream {
    fn new() -> Self {
        let mut stream = ptr::null_mut();
        // SAFETY: `stream` is valid for the write; the device's context is current since its buffers were made.
        let code = unsafe { ffi::cuStreamCreate(&mut stream, 0) };
        assert_eq!(code, 0, "cuStreamCreate");
        Self(stream)
    }

    fn allocate(&self, bytes: usize) {
        let mut address = 0;
        // SAFETY: `address` is valid for the write, and is freed once; the stream is alive.
        let codes = unsafe {
            (
                ffi::cuMemAllocAsync(&mut address, bytes, self.0),
                ffi::cuMemFreeAsync(black_box(address), self.0),
            )
        };
        assert_eq!(codes, (0, 0), "cuMemAllocAsync, cuMemFreeAsync");
    }
}

impl Drop for DriverStream {
    fn drop(&mut self) {
        // SAFETY: nobody else has the stream.
        unsafe { ffi::cuStreamDestroy_v2(self.0) };
    }
}

/// The driver's stream-ordered allocator, where there is a GPU.
fn stream_ordered(c: &mut Criterion) {
    let mut group = c.benchmark_group("allocate and free");
    let device = device(None);
    if device.kind() == DeviceKind::Cuda {
        allocate(&device, 1);
        let stream = DriverStream::new();
        for bytes in SIZES {
            let id = BenchmarkId::new("stream-ordered", bytes);
            group.bench_with_input(id, &bytes, |b, &bytes| b.iter(|| stream.allocate(bytes)));
        }
    }
    group.finish();
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
        for bytes in SIZES {
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

criterion_group!(benches, stream_ordered, sizes, threads);
criterion_main!(benches);
