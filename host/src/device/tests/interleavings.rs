//! The pool in many interleavings of threads, which `shuttle` chooses at each lock and atomic. See docs/runtime.md for how to run
//! them.

use std::collections::HashSet;

use shuttle::{check_pct, check_random, sync::Mutex, thread};

use super::*;
use crate::device::in_flight::Moment;

const SCHEDULES: usize = 2_000;
const MIB: usize = 1 << 20;

fn pooled() -> (Device, HybridMemoryPool) {
    limited(None)
}

fn device(memory_bytes: usize) -> Device {
    let config = EmulatedConfig {
        memory_bytes,
        threads: 1,
        ..EmulatedConfig::default()
    };
    Device::emulated_with(config).unwrap()
}

/// A pool that holds at most so many bytes.
fn limited(max_bytes: Option<usize>) -> (Device, HybridMemoryPool) {
    let device = device(64 * MIB);
    let config = MemoryPoolConfig {
        chunk_bytes: 2 * MIB,
        max_bytes,
        max_pending_bytes: 2 * MIB,
        tracking: TrackingLevel::Detailed,
        ..MemoryPoolConfig::default()
    };
    let pool = device.enable_pool(config).unwrap();
    (device, pool)
}

/// Runs a test under two strategies: random choices, and few preemptions at random places.
fn check(test: impl Fn() + Send + Sync + Clone + 'static) {
    check_random(test.clone(), SCHEDULES);
    check_pct(test, SCHEDULES, 3);
}

/// The addresses that buffers have: one that is handed out twice is found at once.
#[derive(Default)]
struct Owned(Mutex<HashSet<u64>>);

impl Owned {
    fn take(&self, device: &Device, len: usize) -> Buffer<u8> {
        let buffer = Buffer::uninit(device, len).unwrap();
        let is_new = self.0.lock().unwrap().insert(buffer.device_ptr());
        assert!(is_new, "two buffers at {:#x}", buffer.device_ptr());
        buffer
    }

    fn give(&self, buffer: Buffer<u8>) {
        assert!(self.0.lock().unwrap().remove(&buffer.device_ptr()));
        drop(buffer);
    }
}

fn require_empty(pool: &HybridMemoryPool, allocations: u64) {
    pool.trim(usize::MAX).unwrap();
    let metrics = pool.metrics();
    assert_eq!((metrics.in_use_bytes, metrics.pending_bytes), (0, 0));
    assert_eq!(
        (metrics.allocations, metrics.frees),
        (allocations, allocations)
    );
    assert!(pool.leak_report().live.is_empty());
    pool.trim(0).unwrap();
    assert_eq!(pool.metrics().held_bytes, 0);
}

#[test]
fn no_block_is_handed_out_twice_or_lost() {
    check(|| {
        let (device, pool) = pooled();
        let owned = Arc::new(Owned::default());
        let threads: Vec<_> = (0..3_usize)
            .map(|thread| {
                let (device, owned, pool) = (device.clone(), Arc::clone(&owned), pool.clone());
                thread::spawn(move || {
                    // One class that all share, one that two share, and the buddy allocator.
                    let first = owned.take(&device, 300 * 1024);
                    let second = owned.take(&device, [200, 200, MIB][thread]);
                    owned.give(first);
                    if thread == 1 {
                        pool.trim(0).unwrap();
                    }
                    let third = owned.take(&device, 300 * 1024);
                    owned.give(second);
                    owned.give(third);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        require_empty(&pool, 9);
    });
}

#[test]
fn a_pending_block_comes_back_once_and_only_after_its_work() {
    check(|| {
        let (device, pool) = pooled();
        let owned = Arc::new(Owned::default());
        let stream = device.new_stream().unwrap();
        // Stands for work in flight, which an emulated device never has.
        let buffer = Buffer::<u8>::uninit(&device, 600 * 1024).unwrap();
        let pending = buffer.device_ptr();
        buffer
            .allocation()
            .in_flight()
            .mark(stream.inner(), Moment::Submission(1));
        let is_done = Arc::new(shuttle::sync::atomic::AtomicBool::new(false));
        let allocating = (0..2).map(|_| {
            let (device, owned, is_done) =
                (device.clone(), Arc::clone(&owned), Arc::clone(&is_done));
            thread::spawn(move || {
                for _ in 0..2 {
                    let taken = owned.take(&device, 600 * 1024);
                    if taken.device_ptr() == pending {
                        assert!(is_done.load(std::sync::atomic::Ordering::SeqCst));
                    }
                    owned.give(taken);
                }
            })
        });
        let mut threads: Vec<_> = allocating.collect();
        threads.push(thread::spawn(move || drop(buffer)));
        is_done.store(true, std::sync::atomic::Ordering::SeqCst);
        stream.inner().complete(1);
        for thread in threads {
            thread.join().unwrap();
        }
        require_empty(&pool, 5);
    });
}

#[test]
fn pressure_is_that_of_the_bytes_in_use_in_the_end() {
    check(|| {
        let (device, pool) = pooled();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let device = device.clone();
                thread::spawn(move || drop(Buffer::<u8>::uninit(&device, 30 * MIB).unwrap()))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(pool.pressure(), PressureLevel::Low);
    });
}

/// Nothing is in use, and two threads want all of it, while one moves it: an empty slab to the buddy allocator, a pending block whose
/// work is done, a chunk to the driver.
#[test]
fn memory_that_another_thread_moves_is_found() {
    check(|| {
        let (device, pool) = limited(Some(4 * MIB));
        let stream = device.new_stream().unwrap();
        let owned = Arc::new(Owned::default());
        drop(Buffer::<u8>::uninit(&device, 1000).unwrap());
        let pending = Buffer::<u8>::uninit(&device, 2 * MIB).unwrap();
        pending
            .allocation()
            .in_flight()
            .mark(stream.inner(), Moment::Submission(1));
        drop(pending);
        assert_eq!(pool.metrics().pending_bytes, 2 * MIB);
        stream.inner().complete(1);
        let taking: Vec<_> = (0..2)
            .map(|_| {
                let (device, owned) = (device.clone(), Arc::clone(&owned));
                thread::spawn(move || owned.take(&device, 2 * MIB))
            })
            .collect();
        pool.trim(0).unwrap();
        for buffer in taking.into_iter().map(thread::JoinHandle::join) {
            owned.give(buffer.unwrap());
        }
        require_empty(&pool, 4);
    });
}

/// At each moment there is room for the first thread's buffer, in one class or the other.
#[test]
fn a_slab_that_falls_empty_behind_the_search_is_found() {
    check(|| {
        let (device, pool) = limited(Some(2 * MIB));
        let owned = Arc::new(Owned::default());
        let low_class = owned.take(&device, 200);
        let high_class = owned.take(&device, 100_000);
        owned.give(high_class);
        let other = {
            let (device, owned) = (device.clone(), Arc::clone(&owned));
            thread::spawn(move || {
                owned.give(low_class);
                owned.take(&device, MIB)
            })
        };
        let buffer = owned.take(&device, MIB);
        owned.give(other.join().unwrap());
        owned.give(buffer);
        require_empty(&pool, 4);
    });
}

/// Each takes more than half of the memory.
#[test]
fn of_two_pools_in_the_making_one_is_made() {
    check(|| {
        let device = device(8 * MIB);
        let enable = |device: Device| {
            device.enable_pool(MemoryPoolConfig {
                chunk_bytes: MIB,
                initial_bytes: 5 * MIB,
                ..MemoryPoolConfig::default()
            })
        };
        let other = {
            let device = device.clone();
            thread::spawn(move || enable(device).map(drop))
        };
        let results = [enable(device).map(drop), other.join().unwrap()];
        let refused = results.iter().filter_map(|result| result.as_ref().err());
        let refused: Vec<_> = refused.collect();
        assert!(
            matches!(refused[..], [DeviceError::PoolExists { .. }]),
            "{refused:?}"
        );
    });
}
