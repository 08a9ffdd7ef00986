//! Copies from and to pinned memory: their order, and that nothing frees, reuses or shows memory before a copy is done.

use std::{fs::File, os::unix::fs::FileExt, ptr};

use cust_lazy::ffi;

use super::*;

const OUT_OF_MEMORY: i32 = 2;
const NOT_SUPPORTED: i32 = 801;
const ILLEGAL_ADDRESS: i32 = 700;
const MIB: usize = 1 << 20;

fn numbers(len: u32) -> Vec<u32> {
    (0..len).map(|i| i * 7 + 1).collect()
}

#[test]
fn copies_keep_their_place_on_the_stream() {
    for device in devices() {
        let stream = device.new_stream().unwrap();
        let values = numbers(100);
        let input = PinnedBuffer::from_slice(&device, &values).unwrap();
        let mut output = PinnedBuffer::<u32>::zeroed(&device, 100).unwrap();
        let mut buffer = Buffer::<u32>::uninit(&device, 100).unwrap();
        buffer.copy_from_pinned(&stream, &input).unwrap();
        add_one(&stream, &buffer).unwrap();
        buffer.copy_to_pinned(&stream, &mut output).unwrap();
        add_one(&stream, &buffer).unwrap();
        let plus = |n: u32| values.iter().map(|value| value + n).collect::<Vec<_>>();
        assert_eq!(output.as_slice().unwrap(), plus(1));
        assert_eq!(buffer.to_vec().unwrap(), plus(2));
        assert_eq!(input.as_slice().unwrap(), values);
    }
}

#[test]
fn nothing_and_a_single_byte_are_copied_too() {
    for device in devices() {
        let stream = device.new_stream().unwrap();
        for values in [&[][..], &[9_u8]] {
            let input = PinnedBuffer::from_slice(&device, values).unwrap();
            let mut output = PinnedBuffer::<u8>::zeroed(&device, values.len()).unwrap();
            let mut buffer = Buffer::<u8>::zeroed(&device, values.len()).unwrap();
            buffer.copy_from_pinned(&stream, &input).unwrap();
            buffer.copy_to_pinned(&stream, &mut output).unwrap();
            assert_eq!(output.as_slice().unwrap(), values, "{device:?}");
        }
    }
}

#[test]
fn submitting_waits_for_nothing_and_looking_does() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    let mut input = PinnedBuffer::from_slice(&device, &numbers(8)).unwrap();
    let mut output = PinnedBuffer::<u32>::zeroed(&device, 8).unwrap();
    let mut buffer = Buffer::<u32>::uninit(&device, 8).unwrap();
    let waits = || gpu.calls("cuStreamSynchronize");
    let before = waits();
    buffer.copy_from_pinned(&stream, &input).unwrap();
    buffer.copy_to_pinned(&stream, &mut output).unwrap();
    assert_eq!(waits(), before);
    // The double copies when it is waited for: a change before that would be copied.
    input.as_mut_slice().unwrap().fill(0);
    assert_eq!(waits(), before + 1);
    assert_eq!(output.as_slice().unwrap(), numbers(8));
    input.as_slice().unwrap();
    assert_eq!(waits(), before + 1, "nothing is in flight any more");
}

#[test]
fn memory_in_flight_outlives_its_owner() {
    for pool in [false, true] {
        for device in devices() {
            if pool {
                let small = MemoryPoolConfig {
                    chunk_bytes: MIB,
                    pinned_chunk_bytes: MIB,
                    ..MemoryPoolConfig::default()
                };
                device.enable_pool(small).unwrap();
            }
            let stream = device.new_stream().unwrap();
            let values = numbers(64);
            let input = PinnedBuffer::from_slice(&device, &values).unwrap();
            let mut lost = PinnedBuffer::<u32>::zeroed(&device, 64).unwrap();
            let mut leaked = PinnedBuffer::<u32>::zeroed(&device, 64).unwrap();
            let mut buffer = Buffer::<u32>::uninit(&device, 64).unwrap();
            buffer.copy_from_pinned(&stream, &input).unwrap();
            buffer.copy_to_pinned(&stream, &mut lost).unwrap();
            buffer.copy_to_pinned(&stream, &mut leaked).unwrap();
            drop((input, lost));
            // No destructor is needed for soundness.
            std::mem::forget(leaked);
            // Would be the memory of one of the two, if they were free.
            let mut next = PinnedBuffer::from_slice(&device, &[9_u32; 64]).unwrap();
            drop(stream);
            assert_eq!(buffer.to_vec().unwrap(), values, "{device:?}, pool {pool}");
            assert_eq!(next.as_mut_slice().unwrap(), [9; 64]);
        }
    }
}

#[test]
fn the_pool_keeps_locked_pages_and_gives_them_back() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let pool = device
        .enable_pool(MemoryPoolConfig {
            pinned_chunk_bytes: 2 * MIB,
            tracking: TrackingLevel::Detailed,
            ..MemoryPoolConfig::default()
        })
        .unwrap();
    let stream = device.new_stream().unwrap();
    let here = line!() + 1;
    let first = PinnedBuffer::<u8>::zeroed(&device, 1000).unwrap();
    let report = pool.leak_report();
    assert_eq!(
        (report.live[0].space, report.live[0].site.line()),
        (MemorySpace::PinnedHost, here)
    );
    let mut buffer = Buffer::<u8>::uninit(&device, 1000).unwrap();
    buffer.copy_from_pinned(&stream, &first).unwrap();
    drop(first);
    assert_eq!(pool.pinned_metrics().pending_bytes, 1024);
    stream.synchronize().unwrap();
    for _ in 0..10 {
        PinnedBuffer::<u8>::zeroed(&device, 900).unwrap();
    }
    let metrics = pool.pinned_metrics();
    assert_eq!((metrics.driver_allocations, metrics.allocations), (1, 11));
    drop(PinnedBuffer::from_slice(&device, &[7_u8; 900]).unwrap());
    let again = PinnedBuffer::<u8>::zeroed(&device, 900).unwrap();
    assert_eq!(again.as_slice().unwrap(), [0; 900], "not what was there");
    assert!(!again.is_empty());
    drop(again);
    assert_eq!(gpu.calls("cuMemHostRegister_v2"), 1);
    assert_eq!(
        pool.metrics().allocations,
        1,
        "the device's memory is counted apart"
    );
    assert_eq!(pool.trim_pinned(0).unwrap(), 2 * MIB);
    assert_eq!(gpu.calls("cuMemHostUnregister"), 1);
    drop((buffer, stream, pool, device));
    assert_eq!(gpu.alive(), 0);
}

#[test]
fn pages_that_cannot_be_locked_are_an_error_with_the_numbers() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let refused = |error: DeviceError, bytes: usize| match &error {
        DeviceError::PinnedMemory { requested, .. } => assert_eq!(*requested, bytes, "{error}"),
        other => panic!("{other:?}"),
    };
    for code in [OUT_OF_MEMORY, NOT_SUPPORTED] {
        gpu.inject("cuMemHostRegister_v2", 1, code);
        refused(PinnedBuffer::<u32>::zeroed(&device, 25).unwrap_err(), 100);
    }
    assert_eq!(PinnedBuffer::<u32>::zeroed(&device, 25).unwrap().len(), 25);

    let limits = MemoryPoolConfig {
        pinned_chunk_bytes: 4 * MIB,
        max_pinned_bytes: Some(4 * MIB),
        ..MemoryPoolConfig::default()
    };
    let pool = device.enable_pool(limits).unwrap();
    let whole = PinnedBuffer::<u8>::zeroed(&device, 4 * MIB).unwrap();
    refused(PinnedBuffer::<u8>::zeroed(&device, 5).unwrap_err(), 5);
    drop(whole);
    // The driver's refusal is met with a smaller chunk.
    pool.trim_pinned(0).unwrap();
    gpu.inject("cuMemHostRegister_v2", 1, OUT_OF_MEMORY);
    let small = PinnedBuffer::<u8>::zeroed(&device, 5).unwrap();
    assert_eq!(pool.pinned_metrics().held_bytes, 2 * MIB);
    drop((small, pool, device));
    assert_eq!(gpu.alive(), 0);
}

#[test]
fn a_failed_copy_leaves_both_sides_as_they_were() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    let mut pinned = PinnedBuffer::from_slice(&device, &[5_u32; 8]).unwrap();
    let mut buffer = Buffer::from_slice(&device, &[6_u32; 8]).unwrap();
    for entry in ["cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2"] {
        gpu.inject(entry, 1, 801);
        let mut copy_both = || {
            buffer.copy_from_pinned(&stream, &pinned)?;
            buffer.copy_to_pinned(&stream, &mut pinned)
        };
        let error = copy_both().unwrap_err();
        assert!(
            matches!(error, DeviceError::Driver { code: 801, .. }),
            "{error}"
        );
        assert_eq!(pinned.as_slice().unwrap(), [5; 8]);
    }
    assert!(!device.is_lost());
}

#[test]
fn a_lost_device_says_so_and_its_pages_go_with_its_context() {
    for reopen in [false, true] {
        let Some(gpu) = FakeGpu::take() else { return };
        let device = gpu.open();
        let stream = device.new_stream().unwrap();
        let idle = PinnedBuffer::from_slice(&device, &[1_u32, 2]).unwrap();
        let mut busy = PinnedBuffer::<u32>::zeroed(&device, 2).unwrap();
        let buffer = Buffer::from_slice(&device, &[3_u32, 4]).unwrap();
        buffer.copy_to_pinned(&stream, &mut busy).unwrap();
        gpu.inject("cuStreamSynchronize", 1, ILLEGAL_ADDRESS);
        let error = busy.as_slice().unwrap_err();
        let DeviceError::Lost { launches, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(launches[0].kernel, "copy to pinned memory");
        assert_eq!(busy.as_mut_slice().unwrap_err(), error);
        assert_eq!(PinnedBuffer::<u32>::zeroed(&device, 1).unwrap_err(), error);
        let again = reopen.then(|| gpu.open());
        assert_eq!(
            idle.as_slice().unwrap(),
            [1, 2],
            "the pages are the library's own"
        );
        drop((idle, busy, buffer, stream, device, again));
        assert_eq!(gpu.alive(), 0);
    }
}

/// Pinned memory that goes back to the system when it is freed, with a mark in it. glibc maps what is larger than 32 MiB on its own, unless it
/// fits the free end of a heap, which may have up to 64 MiB.
struct Marked {
    address: u64,
    mark: [u8; 32],
}

impl Marked {
    fn new(device: &Device) -> (Self, PinnedBuffer<u8>) {
        let mut pinned = PinnedBuffer::<u8>::zeroed(device, 80 * MIB).unwrap();
        let mark = std::array::from_fn(|_| fastrand::u8(..));
        let memory = &mut pinned.as_mut_slice().unwrap()[40 * MIB..][..mark.len()];
        memory.copy_from_slice(&mark);
        let address = memory.as_ptr().addr() as u64;
        let marked = Self { address, mark };
        assert!(marked.is_there());
        (marked, pinned)
    }

    /// Asks the system, as the memory may be gone, or somebody else's.
    fn is_there(&self) -> bool {
        let memory = File::open("/proc/self/mem").unwrap();
        let mut found = [0; 32];
        let read = memory.read_exact_at(&mut found, self.address);
        read.is_ok() && found == self.mark
    }
}

#[test]
fn memory_without_a_pool_goes_back_to_the_system() {
    if cfg!(miri) {
        return;
    }
    for device in devices() {
        let (marked, pinned) = Marked::new(&device);
        drop(pinned);
        assert!(!marked.is_there(), "{device:?}");
    }
}

/// The driver has pages locked, and may write to them, as long as their context is there.
#[test]
fn pages_of_a_lost_device_are_kept_while_its_context_is_there() {
    const UNKNOWN: i32 = 999;
    for (of_another, reopen, state_is_known, kept) in [
        (false, false, true, false),
        (true, false, true, true),
        (true, true, true, false),
        (false, false, false, true),
    ] {
        let Some(gpu) = FakeGpu::take() else { return };
        let mut context = ptr::null_mut();
        if of_another {
            // SAFETY: the double has this GPU, and the pointer is to a local.
            let code = unsafe { ffi::cuDevicePrimaryCtxRetain(&mut context, gpu.ordinal as i32) };
            assert_eq!(code, 0);
        }
        let device = gpu.open();
        let (marked, pinned) = Marked::new(&device);
        gpu.inject("cuStreamSynchronize", 1, ILLEGAL_ADDRESS);
        device.synchronize().unwrap_err();
        let again = reopen.then(|| gpu.open());
        if !state_is_known {
            gpu.inject("cuDevicePrimaryCtxGetState", 1, UNKNOWN);
        }
        drop((pinned, device));
        assert_eq!(
            marked.is_there(),
            kept,
            "of another: {of_another}, opened again: {reopen}, state known: {state_is_known}"
        );
        drop(again);
    }
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let [gpu, emulated] = devices();
    for (device, other) in [(&gpu, &emulated), (&emulated, &gpu)] {
        let stream = device.new_stream().unwrap();
        let mut pinned = PinnedBuffer::<u32>::zeroed(device, 8).unwrap();
        let mut buffer = Buffer::<u32>::zeroed(device, 8).unwrap();
        let mut shorter = Buffer::<u32>::zeroed(device, 7).unwrap();
        assert_eq!(
            shorter.copy_from_pinned(&stream, &pinned).unwrap_err(),
            DeviceError::LengthMismatch { host: 8, buffer: 7 }
        );
        let foreign = PinnedBuffer::<u32>::zeroed(other, 8).unwrap();
        let mismatch = |error| matches!(error, DeviceError::DeviceMismatch { .. });
        assert!(mismatch(
            buffer.copy_from_pinned(&stream, &foreign).unwrap_err()
        ));
        let elsewhere = other.new_stream().unwrap();
        assert!(mismatch(
            buffer.copy_from_pinned(&elsewhere, &foreign).unwrap_err()
        ));
        assert!(mismatch(
            buffer.copy_to_pinned(&elsewhere, &mut pinned).unwrap_err()
        ));
        // A replay could come while a slice of the pinned buffer is being changed.
        let captured = Graph::capture(&stream, |stream| buffer.copy_from_pinned(stream, &pinned));
        assert!(matches!(captured, Err(DeviceError::Capturing { .. })));
        buffer.copy_from_pinned(&stream, &pinned).unwrap();
        let graph = Graph::capture(&stream, |stream| {
            let held = pinned.as_slice().map(|_| ());
            assert_eq!(held.is_err(), device.kind() == DeviceKind::Cuda);
            add_one(stream, &buffer)
        });
        graph.unwrap().launch(&stream).unwrap();
        assert_eq!(pinned.as_slice().unwrap(), [0; 8]);
    }
}

#[test]
fn no_elements_and_large_elements() {
    for device in devices() {
        let stream = device.new_stream().unwrap();
        let mut empty = Buffer::<f64>::uninit(&device, 0).unwrap();
        let mut pinned = PinnedBuffer::<f64>::from_slice(&device, &[]).unwrap();
        empty.copy_from_pinned(&stream, &pinned).unwrap();
        empty.copy_to_pinned(&stream, &mut pinned).unwrap();
        assert!(pinned.is_empty() && pinned.as_slice().unwrap().is_empty());
        assert!(matches!(
            PinnedBuffer::<f64>::zeroed(&device, usize::MAX),
            Err(DeviceError::BufferTooLarge { .. })
        ));
        // No slice can be so long.
        assert!(matches!(
            PinnedBuffer::<u8>::zeroed(&device, isize::MAX as usize + 1),
            Err(DeviceError::BufferTooLarge { .. })
        ));
    }
}
