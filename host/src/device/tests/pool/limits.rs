//! What the pool may hold, and what it tells of that.

use super::*;

const OUT_OF_MEMORY: i32 = 2;
const NOT_SUPPORTED: i32 = 801;

#[test]
fn memory_that_the_driver_refuses_is_found_in_the_pool() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let pool = pooled(&device, config());
    let small = bytes(&device, 100);
    // A second chunk is refused, down to its half; the next half is given.
    let big = bytes(&device, 4 * MIB);
    gpu.inject("cuMemAlloc_v2", 1, OUT_OF_MEMORY);
    let second = bytes(&device, 4 * MIB);
    assert_eq!(pool.metrics().held_bytes, 12 * MIB);
    // A cached chunk in the wrong place is given back before the caller hears of it.
    drop(big);
    drop(second);
    gpu.inject("cuMemAlloc_v2", 1, OUT_OF_MEMORY);
    let beyond = bytes(&device, 9 * MIB + 1);
    assert_eq!(pool.metrics().held_bytes, 8 * MIB + 10 * MIB);
    // Where it is refused twice, the caller hears, and nothing is lost.
    gpu.inject("cuMemAlloc_v2", 1, OUT_OF_MEMORY);
    gpu.inject("cuMemAlloc_v2", 1, OUT_OF_MEMORY);
    let error = Buffer::<u8>::uninit(&device, 20 * MIB).unwrap_err();
    assert!(
        matches!(error, DeviceError::OutOfMemory { requested, .. } if requested == 20 * MIB),
        "{error}"
    );
    drop((small, beyond));
    pool.trim(0).unwrap();
    let metrics = pool.metrics();
    assert_eq!(
        (
            metrics.held_bytes,
            metrics.in_use_bytes,
            metrics.allocations
        ),
        (0, 0, metrics.frees)
    );
}

#[test]
fn an_error_other_than_a_lack_of_memory_is_not_met_with_smaller_blocks() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    pooled(&device, config());
    for len in [100, 700 << 10, 4 * MIB, 20 * MIB] {
        gpu.inject("cuMemAlloc_v2", 1, NOT_SUPPORTED);
        let calls = gpu.calls("cuMemAlloc_v2");
        let error = Buffer::<u8>::uninit(&device, len).unwrap_err();
        assert!(
            matches!(
                error,
                DeviceError::Driver {
                    code: NOT_SUPPORTED,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(gpu.calls("cuMemAlloc_v2"), calls + 1, "{len}");
    }
}

#[test]
fn the_limit_holds_and_says_so() {
    let device = Device::emulated().unwrap();
    let limits = MemoryPoolConfig {
        max_bytes: Some(10 * MIB),
        initial_bytes: 3 * MIB,
        ..config()
    };
    let pool = pooled(&device, limits);
    assert_eq!(pool.metrics().held_bytes, 4 * MIB, "in powers of two");
    let six = [bytes(&device, 4 * MIB), bytes(&device, 2 * MIB)];
    let error = Buffer::<u8>::uninit(&device, 8 * MIB).unwrap_err();
    match &error {
        DeviceError::PoolExhausted {
            device: name,
            requested,
            limit,
            free,
            block,
        } => {
            // Two chunks of 4 MiB are held, and half of one is free.
            assert_eq!((*requested, *block, *limit), (8 * MIB, 8 * MIB, 10 * MIB));
            assert_eq!(*free, (10 - 8 + 2) * MIB);
            assert_eq!(name, device.name());
            assert!(error.is_out_of_memory());
        }
        other => panic!("{other:?}"),
    }
    drop(six);
    // The cached chunks make room.
    assert_eq!(bytes(&device, 8 * MIB).len(), 8 * MIB);
    assert!(pool.metrics().held_bytes <= 10 * MIB);
}

/// A pool of 8 MiB, and a stream whose work may still use all of them.
fn all_pending(device: &Device) -> (HybridMemoryPool, Stream) {
    let limits = MemoryPoolConfig {
        max_bytes: Some(8 * MIB),
        ..config()
    };
    let pool = pooled(device, limits);
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(device, 2 * MIB).unwrap();
    add_one(&stream, &buffer).unwrap();
    (pool, stream)
}

#[test]
fn at_the_limit_pending_blocks_are_waited_for() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let (pool, _stream) = all_pending(&device);
    assert_eq!(pool.metrics().pending_bytes, 8 * MIB);
    let next = bytes(&device, 8 * MIB);
    assert_eq!(pool.metrics().pending_bytes, 0);
    drop(next);
}

#[test]
fn threads_wait_for_the_same_pending_block() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let (pool, _stream) = all_pending(&device);
    std::thread::scope(|scope| {
        let held = gpu.hold("cuStreamSynchronize");
        let halves = [(); 2].map(|()| scope.spawn(|| Buffer::<u8>::uninit(&device, 4 * MIB)));
        // Both wait, unless one has found that there is nothing to wait for.
        while held.calls() < 2 && !halves.iter().any(|half| half.is_finished()) {
            std::thread::yield_now();
        }
        drop(held);
        let halves = halves.map(|half| half.join().unwrap().unwrap());
        assert_ne!(halves[0].device_ptr(), halves[1].device_ptr());
    });
    assert_eq!(pool.metrics().held_bytes, 8 * MIB);
}

#[test]
fn what_cannot_be_waited_for_stays_pending() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let limits = MemoryPoolConfig {
        max_bytes: Some(8 * MIB),
        ..config()
    };
    let pool = pooled(&device, limits);
    let stream = device.new_stream().unwrap();
    let take = || Buffer::<u32>::zeroed(&device, 2 * MIB);

    // Its stream is being captured.
    let buffer = take().unwrap();
    add_one(&stream, &buffer).unwrap();
    let capture = Graph::capture(&stream, |_| {
        drop(buffer);
        let error = take().unwrap_err();
        assert!(error.is_out_of_memory(), "{error}");
        assert_eq!(pool.metrics().pending_bytes, 8 * MIB);
        Ok::<_, DeviceError>(())
    });
    assert_eq!(capture.unwrap_err(), DeviceError::EmptyGraph);
    let buffer = take().unwrap();

    // The driver cannot say whether the work is done.
    add_one(&stream, &buffer).unwrap();
    drop(buffer);
    gpu.inject("cuStreamSynchronize", 1, NOT_SUPPORTED);
    let error = take().unwrap_err();
    assert!(
        matches!(
            error,
            DeviceError::Driver {
                code: NOT_SUPPORTED,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(pool.metrics().pending_bytes, 8 * MIB);
    assert_eq!(take().unwrap().to_vec().unwrap(), vec![0; 2 * MIB]);
}

#[test]
fn pressure_calls_back_with_each_level_and_survives_a_panic() {
    let device = Device::emulated().unwrap();
    let pool = pooled(
        &device,
        MemoryPoolConfig {
            max_bytes: Some(10 * MIB),
            pressure: [0.2, 0.5, 0.8],
            ..config()
        },
    );
    let seen = Arc::new(Mutex::new(Vec::new()));
    pool.register_pressure_callback(|_| panic!("a callback that fails"));
    let (levels, handle) = (Arc::clone(&seen), pool.downgrade());
    pool.register_pressure_callback(move |level| {
        // The pool can be used from here.
        let pool = handle.upgrade().expect("the device is open");
        pool.trim(usize::MAX).expect("the device is not lost");
        lock(&levels).push(level);
    });
    let mut blocks = Vec::new();
    use PressureLevel::{Critical, High, Low, Moderate};
    for level in [
        Low, Moderate, Moderate, Moderate, High, High, High, Critical,
    ] {
        blocks.push(bytes(&device, MIB));
        assert_eq!(pool.pressure(), level, "{} MiB", blocks.len());
    }
    blocks.truncate(1);
    assert_eq!(
        *lock(&seen),
        [Moderate, High, Critical, High, Moderate, Low]
    );
    assert_eq!(bytes(&device, 1).len(), 1);
    let weak = pool.downgrade();
    drop((blocks, pool, device));
    assert!(weak.upgrade().is_none(), "a callback keeps the device open");
}

#[test]
fn what_is_tracked_is_what_was_asked_for() {
    for tracking in [
        TrackingLevel::None,
        TrackingLevel::Basic,
        TrackingLevel::Standard,
        TrackingLevel::Detailed,
    ] {
        let device = Device::emulated().unwrap();
        let pool = pooled(
            &device,
            MemoryPoolConfig {
                tracking,
                ..config()
            },
        );
        let first = bytes(&device, 300);
        let here = line!() + 1;
        let second = Buffer::from_slice(&device, &[1.0_f32; 8]).unwrap();
        let metrics = pool.metrics();
        assert_eq!(metrics.in_use_bytes, 512 + 256);
        assert_eq!(
            metrics.allocations,
            if tracking >= TrackingLevel::Basic {
                2
            } else {
                0
            }
        );
        assert_eq!(
            metrics.peak_bytes,
            if tracking >= TrackingLevel::Basic {
                768
            } else {
                0
            }
        );
        assert_eq!(
            metrics.requested_bytes,
            if tracking >= TrackingLevel::Standard {
                332
            } else {
                0
            }
        );
        drop(first);
        let frees = u64::from(tracking >= TrackingLevel::Basic);
        assert_eq!(pool.metrics().frees, frees);
        let report = pool.leak_report();
        if tracking < TrackingLevel::Detailed {
            assert!(report.live.is_empty() && report.to_string().contains("Detailed"));
            continue;
        }
        let [leak] = &report.live[..] else {
            panic!("{report}")
        };
        assert_eq!(
            (leak.address, leak.bytes, leak.sequence),
            (second.device_ptr(), 32, 2)
        );
        assert_eq!((leak.site.file(), leak.site.line()), (file!(), here));
        assert!(
            report.to_string().contains(&format!("limits.rs:{here}"))
                && report.to_string().starts_with("1 buffers of 32 bytes"),
            "{report}"
        );
        let others: Vec<_> = (0..20).map(|_| bytes(&device, 32)).collect();
        let live = pool.leak_report().live;
        assert!(live.is_sorted_by_key(|live| live.sequence), "{live:?}");
        drop(others);
        drop(second);
        assert!(pool.leak_report().live.is_empty());
    }
}

#[test]
fn impossible_configurations_are_refused() {
    let device = Device::emulated().unwrap();
    let refused = |config| device.enable_pool(config).unwrap_err().to_string();
    assert!(
        refused(MemoryPoolConfig {
            chunk_bytes: 3 * MIB,
            ..config()
        })
        .contains("chunk_bytes")
    );
    assert!(
        refused(MemoryPoolConfig {
            chunk_bytes: 0,
            ..config()
        })
        .contains("chunk_bytes")
    );
    assert!(
        refused(MemoryPoolConfig {
            max_bytes: Some(5),
            ..config()
        })
        .contains("max_bytes")
    );
    assert!(
        refused(MemoryPoolConfig {
            max_bytes: Some(MIB),
            initial_bytes: MIB + 1,
            ..config()
        })
        .contains("initial_bytes")
    );
    assert!(
        refused(MemoryPoolConfig {
            chunk_bytes: MIB / 2,
            ..config()
        })
        .contains("chunk_bytes")
    );
    for pressure in [
        [0.5, f64::NAN, 1.0],
        [-0.1, 0.5, 1.0],
        [0.5, 0.4, 1.0],
        [0.1, 0.9, 0.8],
        [0.1, 0.9, 1.1],
    ] {
        let config = MemoryPoolConfig {
            pressure,
            ..config()
        };
        assert!(refused(config).contains("pressure"), "{pressure:?}");
    }
    assert!(device.pool().is_none());
    // What is just possible.
    for (pressure, level) in [
        ([0.0, 0.0, 0.0], PressureLevel::Critical),
        ([0.0, 0.5, 1.0], PressureLevel::Moderate),
        ([1.0, 1.0, 1.0], PressureLevel::Low),
    ] {
        let least = MemoryPoolConfig {
            chunk_bytes: MIB,
            initial_bytes: MIB,
            max_bytes: Some(MIB),
            pressure,
            ..config()
        };
        let device = Device::emulated().unwrap();
        assert_eq!(pooled(&device, least).pressure(), level);
    }
    pooled(&device, config());
    let error = device.enable_pool(config()).unwrap_err();
    let exists = DeviceError::PoolExists {
        device: device.name().to_owned(),
    };
    assert_eq!(error, exists);
    assert!(error.to_string().contains("`Device::pool`"), "{error}");
    assert!(device.pool().is_some());
}

#[test]
fn a_small_buffer_fits_what_is_left_even_where_a_slab_does_not() {
    let device = Device::emulated().unwrap();
    let limits = MemoryPoolConfig {
        max_bytes: Some(3 * MIB),
        ..config()
    };
    let pool = pooled(&device, limits);
    // Eight blocks of 512 KiB would be a slab of 4 MiB: there is one of 2 MiB, then one of 1 MiB.
    let blocks: Vec<_> = (0..6).map(|_| bytes(&device, 512 << 10)).collect();
    let metrics = pool.metrics();
    assert_eq!(
        (metrics.in_use_bytes, metrics.held_bytes),
        (3 * MIB, 3 * MIB)
    );
    let error = Buffer::<u8>::uninit(&device, 300).unwrap_err();
    assert!(
        matches!(error, DeviceError::PoolExhausted { requested: 300, .. }),
        "{error}"
    );
    drop(blocks);
    assert_eq!(pool.trim(0).unwrap(), 3 * MIB);
}

#[test]
fn a_limit_between_two_blocks_can_be_reserved() {
    let device = Device::emulated().unwrap();
    let most = 13 * MIB + MIB / 2;
    let limits = MemoryPoolConfig {
        max_bytes: Some(most),
        initial_bytes: most,
        ..config()
    };
    let pool = pooled(&device, limits);
    assert_eq!(pool.metrics().held_bytes, 13 * MIB);
    let all = [8, 4, 1].map(|mib| bytes(&device, mib * MIB));
    assert_eq!(pool.metrics().held_bytes, 13 * MIB);
    drop(all);
}

#[test]
fn an_error_at_the_limit_names_the_block_that_is_missing() {
    let device = Device::emulated().unwrap();
    let limits = MemoryPoolConfig {
        max_bytes: Some(3 * MIB),
        max_pinned_bytes: Some(3 * MIB),
        ..config()
    };
    pooled(&device, limits);
    // Less than what is free, but a power of two of it is not.
    let len = 2 * MIB + 1;
    let device_memory = Buffer::<u8>::uninit(&device, len).unwrap_err();
    let pinned = PinnedBuffer::<u8>::zeroed(&device, len).unwrap_err();
    for error in [device_memory, pinned] {
        let text = error.to_string();
        for value in [len, 3 * MIB, 4 * MIB] {
            assert!(text.contains(&value.to_string()), "{text}");
        }
    }
}

#[test]
fn slabs_are_no_larger_than_a_chunk() {
    let device = Device::emulated().unwrap();
    let small = MemoryPoolConfig {
        chunk_bytes: MIB,
        ..config()
    };
    let pool = pooled(&device, small);
    let blocks = [bytes(&device, 700 << 10), bytes(&device, 100)];
    assert_eq!(pool.metrics().held_bytes, 2 * MIB);
    drop(blocks);
    assert_eq!(pool.trim(2 * MIB).unwrap(), 0, "so much may stay");
    assert_eq!(pool.trim(MIB).unwrap(), MIB);
    assert_eq!(pool.trim(0).unwrap(), MIB);
    assert_eq!(pool.metrics().held_bytes, 0);
}

#[test]
fn a_pool_that_cannot_have_its_first_memory_is_not_made() {
    let device = Device::emulated_with(EmulatedConfig {
        memory_bytes: 40 * MIB,
        ..EmulatedConfig::default()
    })
    .unwrap();
    let free = device.memory_info().unwrap().free_bytes;
    for initial_bytes in [free + 1, usize::MAX] {
        let greedy = MemoryPoolConfig {
            chunk_bytes: 16 * MIB,
            initial_bytes,
            ..config()
        };
        let error = device.enable_pool(greedy).unwrap_err();
        let asked_for = matches!(error, DeviceError::OutOfMemory { requested, .. } if requested == initial_bytes);
        assert!(asked_for, "{error}");
        assert!(device.pool().is_none());
        assert_eq!(device.memory_info().unwrap().free_bytes, free);
    }
    assert_eq!(pooled(&device, config()).metrics().held_bytes, 0);
}
