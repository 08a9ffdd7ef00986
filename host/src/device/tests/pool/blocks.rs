//! What blocks are handed out, and when they are handed out again.

use super::*;
use std::collections::BTreeSet;

#[test]
fn blocks_never_overlap_and_all_memory_comes_back() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    for device in devices() {
        let mut random = fastrand::Rng::with_seed(seed);
        let free_before = device.memory_info().unwrap().free_bytes;
        let pool = pooled(&device, config());
        let metrics = pool.metrics();
        let of_nothing = (
            metrics.internal_fragmentation(),
            metrics.external_fragmentation(),
        );
        assert_eq!(of_nothing, (0.0, 0.0));
        let mut live: Vec<(Buffer<u8>, u8)> = Vec::new();
        for step in 0..600 {
            if live.len() > 40 || (!live.is_empty() && random.u32(..3) == 0) {
                let (buffer, value) = live.swap_remove(random.usize(..live.len()));
                // What was written is still there: nobody else had the block.
                let content = buffer.to_vec().unwrap();
                assert!(content.iter().all(|&byte| byte == value), "step {step}");
            } else {
                // Few of those beyond a chunk: they fill the memory.
                let len = match random.u32(..40) {
                    0 => random.usize(..20 * MIB),
                    1..5 => random.usize(..4 * MIB),
                    _ => {
                        let most = 1 << random.u32(4..20);
                        random.usize(..most)
                    }
                };
                let mut buffer = bytes(&device, len);
                assert_eq!(buffer.device_ptr() % 256, 0);
                buffer.fill_bytes(step as u8).unwrap();
                let range = |buffer: &Buffer<u8>| {
                    buffer.device_ptr()..buffer.device_ptr() + buffer.len().max(1) as u64
                };
                let new = range(&buffer);
                for (other, _) in &live {
                    let other = range(other);
                    assert!(
                        new.end <= other.start || other.end <= new.start,
                        "step {step}"
                    );
                }
                live.push((buffer, step as u8));
            }
            let requested: usize = live.iter().map(|(buffer, _)| buffer.len().max(1)).sum();
            let metrics = pool.metrics();
            assert_eq!(metrics.requested_bytes, requested);
            assert_eq!(
                metrics.held_bytes,
                metrics.in_use_bytes
                    + metrics.pending_bytes
                    + metrics.cached_bytes()
                    + metrics.unusable_bytes
            );
            assert!(
                metrics.in_use_bytes >= requested && metrics.peak_bytes >= metrics.in_use_bytes
            );
            assert_eq!((metrics.allocations - metrics.frees) as usize, live.len());
        }
        live.clear();
        let metrics = pool.metrics();
        assert_eq!((metrics.in_use_bytes, metrics.pending_bytes), (0, 0));
        assert_eq!(
            metrics.allocations,
            metrics
                .histogram
                .iter()
                .map(|&(_, count)| count)
                .sum::<u64>()
        );
        assert_eq!(pool.trim(0).unwrap(), metrics.held_bytes);
        let metrics = pool.metrics();
        assert_eq!(
            (metrics.held_bytes, metrics.driver_allocations),
            (0, metrics.driver_frees)
        );
        if device.kind() == DeviceKind::Emulated {
            assert_eq!(device.memory_info().unwrap().free_bytes, free_before);
        }
    }
}

#[test]
fn free_halves_become_one_block_again() {
    let device = Device::emulated().unwrap();
    let pool = pooled(&device, config());
    let mut blocks: Vec<_> = (0..8).map(|_| bytes(&device, MIB)).collect();
    assert_eq!(pool.metrics().driver_allocations, 1);
    for index in [3, 0, 4, 1, 2, 1, 0, 0] {
        drop(blocks.remove(index));
    }
    assert_eq!(
        (
            pool.metrics().largest_free_bytes,
            pool.metrics().external_fragmentation()
        ),
        (8 * MIB, 0.0)
    );
    let whole = bytes(&device, 8 * MIB);
    assert_eq!(pool.metrics().driver_allocations, 1);
    // One more MiB needs a second chunk, whose other blocks stay apart.
    let one = bytes(&device, MIB);
    let metrics = pool.metrics();
    assert_eq!(
        (metrics.driver_allocations, metrics.largest_free_bytes),
        (2, 4 * MIB)
    );
    assert!((metrics.external_fragmentation() - 3.0 / 7.0).abs() < 1e-12);
    drop(whole);
    assert_eq!(
        pool.trim(7 * MIB).unwrap(),
        8 * MIB,
        "the chunk in use stays"
    );
    drop(one);
}

#[test]
fn the_oldest_chunk_and_the_smallest_block_are_used_first_and_the_newest_chunk_goes() {
    let device = Device::emulated().unwrap();
    let pool = pooled(&device, config());
    let [oldest, middle, newest] = [(); 3].map(|()| bytes(&device, 8 * MIB));
    let chunk = oldest.device_ptr();
    drop((newest, oldest));
    let mut blocks: Vec<_> = (0..8).map(|_| bytes(&device, MIB)).collect();
    let addresses: Vec<_> = blocks.iter().map(Buffer::device_ptr).collect();
    let ascending: Vec<_> = (0..8).map(|block| chunk + (block * MIB) as u64).collect();
    assert_eq!(addresses, ascending);
    // A free block of 1 MiB is taken before the free chunk is split.
    drop(blocks.remove(5));
    let again = bytes(&device, MIB);
    assert_eq!(again.device_ptr(), ascending[5]);
    assert_eq!(pool.metrics().largest_free_bytes, 8 * MIB);

    drop((blocks, again, middle));
    assert_eq!(pool.trim(8 * MIB).unwrap(), 16 * MIB);
    assert_eq!(bytes(&device, 8 * MIB).device_ptr(), chunk);
}

#[test]
fn a_small_block_is_reused_at_once_and_needs_no_driver() {
    let device = Device::emulated().unwrap();
    let pool = pooled(&device, config());
    let first = bytes(&device, 1000);
    let address = first.device_ptr();
    drop(first);
    for len in [1024, 769, 1000] {
        assert_eq!(bytes(&device, len).device_ptr(), address);
    }
    let metrics = pool.metrics();
    assert_eq!((metrics.driver_allocations, metrics.allocations), (1, 4));
    assert_eq!(metrics.histogram, [(1024, 4)]);
    let three = [bytes(&device, 768), bytes(&device, 513), bytes(&device, 1)];
    let metrics = pool.metrics();
    assert_eq!(
        (metrics.in_use_bytes, metrics.requested_bytes),
        (2 * 768 + 256, 768 + 513 + 1)
    );
    assert!((metrics.internal_fragmentation() - 510.0 / 1792.0).abs() < 1e-12);
    drop(three);
}

#[test]
fn a_block_waits_for_the_work_of_its_last_owner() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let pool = pooled(&device, config());
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
    let address = buffer.device_ptr();
    add_one(&stream, &buffer).unwrap();
    let waits = gpu.calls("cuStreamSynchronize");
    drop(buffer);
    assert_eq!(pool.metrics().pending_bytes, 256);
    let second = Buffer::<u32>::uninit(&device, 64).unwrap();
    assert_ne!(
        second.device_ptr(),
        address,
        "the kernel may still write there"
    );
    assert_eq!(
        gpu.calls("cuStreamSynchronize"),
        waits,
        "neither drop nor allocation has waited"
    );

    stream.synchronize().unwrap();
    pool.trim(usize::MAX).unwrap();
    assert_eq!(pool.metrics().pending_bytes, 0);
    let third = Buffer::<u32>::uninit(&device, 64).unwrap();
    assert_eq!(third.device_ptr(), address);
}

#[test]
fn pending_memory_is_bounded() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let pool = pooled(
        &device,
        MemoryPoolConfig {
            max_pending_bytes: 64 << 10,
            ..config()
        },
    );
    let stream = device.new_stream().unwrap();
    // Nobody ever waits, as in a loop of decoding steps.
    for _ in 0..100 {
        let mut buffer = Buffer::<u32>::uninit(&device, 1024).unwrap();
        buffer.fill_bytes(0).unwrap();
        add_one(&stream, &buffer).unwrap();
    }
    let metrics = pool.metrics();
    assert!(metrics.pending_bytes <= (64 << 10) + 4096, "{metrics:?}");
    assert_eq!(metrics.driver_allocations, 1);
    // What was waited for is free again.
    stream.synchronize().unwrap();
    assert_eq!(pool.trim(0).unwrap(), metrics.held_bytes);
    assert_eq!(
        (pool.metrics().allocations, pool.metrics().frees),
        (100, 100)
    );
}

#[test]
fn work_that_is_done_makes_room_without_waiting_for_older_work() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let limits = MemoryPoolConfig {
        max_pending_bytes: MIB,
        ..config()
    };
    let pool = pooled(&device, limits);
    let [slow, fast] = [(); 2].map(|()| device.new_stream().unwrap());
    for (stream, len) in [(&slow, 64), (&fast, MIB)] {
        let buffer = Buffer::<u32>::zeroed(&device, len).unwrap();
        add_one(stream, &buffer).unwrap();
    }
    assert_eq!(pool.metrics().pending_bytes, 256 + 4 * MIB);
    fast.synchronize().unwrap();
    let waits = gpu.calls("cuStreamSynchronize");
    drop(bytes(&device, 64));
    assert_eq!(gpu.calls("cuStreamSynchronize"), waits);
    assert_eq!(pool.metrics().pending_bytes, 256);
}

#[test]
fn finished_work_frees_its_block_for_the_next_large_one() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let pool = pooled(&device, config());
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 2 * MIB).unwrap();
    let address = buffer.device_ptr();
    add_one(&stream, &buffer).unwrap();
    drop(buffer);
    stream.synchronize().unwrap();
    assert_eq!(bytes(&device, 8 * MIB).device_ptr(), address);
    assert_eq!(pool.metrics().driver_allocations, 1);
}

#[test]
fn a_full_slab_is_followed_by_another_and_both_are_used_again() {
    let device = Device::emulated().unwrap();
    let pool = pooled(&device, config());
    let addresses = |buffers: &[Buffer<u8>]| -> BTreeSet<u64> {
        buffers.iter().map(Buffer::device_ptr).collect()
    };
    let mut random = fastrand::Rng::with_seed(1);
    let mut buffers: Vec<_> = (0..5000).map(|_| bytes(&device, 200)).collect();
    let first = addresses(&buffers);
    assert_eq!(first.len(), 5000, "no two are in one place");
    let held = pool.metrics().held_bytes;
    // Every second one, and then all, out of order.
    for keep in [2500, 0] {
        random.shuffle(&mut buffers);
        buffers.truncate(keep);
        let more = (keep..5000).map(|_| bytes(&device, 200));
        buffers.extend(more);
        assert_eq!(addresses(&buffers).len(), 5000);
        assert_eq!(pool.metrics().held_bytes, held);
    }
    buffers.clear();
    assert_eq!(pool.trim(0).unwrap(), held);
    let metrics = pool.metrics();
    assert_eq!((metrics.held_bytes, metrics.cached_bytes()), (0, 0));
    // After that it begins anew.
    let again = bytes(&device, 200);
    let metrics = pool.metrics();
    assert_eq!(metrics.held_bytes, 8 * MIB);
    assert_eq!(
        metrics.held_bytes,
        metrics.in_use_bytes + metrics.cached_bytes() + metrics.unusable_bytes
    );
    drop(again);
}

#[test]
fn a_captured_buffer_stays_until_its_graph_is_gone() {
    for device in devices() {
        let pool = pooled(&device, config());
        let stream = device.new_stream().unwrap();
        let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
        let address = buffer.device_ptr();
        let graph = Graph::capture(&stream, |stream| add_one(stream, &buffer)).unwrap();
        drop(buffer);
        assert_ne!(
            Buffer::<u32>::uninit(&device, 64).unwrap().device_ptr(),
            address
        );
        graph.launch(&stream).unwrap();
        drop(graph);
        stream.synchronize().unwrap();
        pool.trim(0).unwrap();
        assert_eq!(pool.metrics().held_bytes, 0);
    }
}

#[test]
fn threads_share_a_pool() {
    for device in devices() {
        let pool = pooled(&device, config());
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let device = &device;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(thread.into());
                    let mut live = Vec::new();
                    for _ in 0..300 {
                        let most = 1 << random.u32(1..16);
                        let len = random.usize(1..most);
                        let mut buffer = bytes(device, len);
                        buffer.fill_bytes(thread).unwrap();
                        live.push(buffer);
                        if live.len() > 10 {
                            let buffer = live.swap_remove(random.usize(..live.len()));
                            assert!(buffer.to_vec().unwrap().iter().all(|&byte| byte == thread));
                        }
                    }
                });
            }
        });
        let metrics = pool.metrics();
        assert_eq!(
            (metrics.in_use_bytes, metrics.allocations, metrics.frees),
            (0, 1200, 1200)
        );
    }
}

#[test]
fn a_lost_device_leaves_its_pool_quiet() {
    let emulated = Device::emulated().unwrap();
    let fake = FakeGpu::take();
    let gpu = fake.as_ref().map(FakeGpu::open);
    for device in std::iter::once(emulated).chain(gpu) {
        let pool = pooled(&device, config());
        let stream = device.new_stream().unwrap();
        let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
        let whole = bytes(&device, 9 * MIB);
        let pending = Buffer::<u32>::zeroed(&device, 8).unwrap();
        // Beyond the pool's chunk: within it, the emulator sees no fault.
        let function = function(&device, "add_one");
        let n = 4 * MIB as u32;
        let launched = stream.launch(
            &function,
            super::super::config(n / 32, 32),
            &[write(&pending), scalar(n)],
        );
        drop(pending);
        let error = launched.and_then(|()| stream.synchronize()).unwrap_err();
        assert!(matches!(error, DeviceError::Lost { .. }), "{error}");
        assert_eq!(Buffer::<u32>::uninit(&device, 8).unwrap_err(), error);
        assert_eq!(pool.trim(0).unwrap_err(), error);
        assert_eq!(pool.trim_pinned(0).unwrap_err(), error);
        let frees = || fake.as_ref().map(|gpu| gpu.calls("cuMemFree_v2"));
        let before = frees();
        drop((buffer, whole));
        assert_eq!(frees(), before, "the memory went with the context");
        // The handles may go in any order.
        drop((device, stream, function));
        assert!(pool.device().is_lost());
    }
}

#[test]
fn closing_the_device_gives_the_pool_back() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let pool = pooled(&device, config());
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
    let large = Buffer::<u32>::zeroed(&device, 3 * MIB).unwrap();
    // A chunk of the pool's that has gone back already is not given back twice.
    drop([bytes(&device, 8 * MIB), bytes(&device, 8 * MIB)]);
    pool.trim(8 * MIB).unwrap();
    add_one(&stream, &buffer).unwrap();
    add_one(&stream, &large).unwrap();
    drop((buffer, large));
    assert!(pool.metrics().pending_bytes > 12 * MIB);
    let taken = pool.metrics().driver_allocations;
    let given_back = || gpu.calls("cuMemFree_v2");
    let (before, metrics) = (given_back(), pool.metrics());
    drop((stream, pool, device));
    assert_eq!(given_back() - before, taken - metrics.driver_frees);
    assert_eq!(gpu.alive(), 0);
}
