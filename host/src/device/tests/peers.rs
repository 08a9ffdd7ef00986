//! Copies between buffers, on one device and between two.

use super::*;

const ILLEGAL_ADDRESS: i32 = 700;

#[test]
fn a_copy_on_one_device_keeps_its_place_on_the_stream() {
    for device in devices() {
        let stream = device.new_stream().unwrap();
        let values: Vec<u32> = (0..40).collect();
        let from = Buffer::from_slice(&device, &values).unwrap();
        let mut to = Buffer::<u32>::zeroed(&device, 40).unwrap();
        add_one(&stream, &from).unwrap();
        let (copied, submitted, _) = device.observe(|| to.copy_from_buffer(&stream, &from));
        copied.unwrap();
        assert_eq!(submitted[0].bytes, 320, "160 are read and 160 are written");
        add_one(&stream, &from).unwrap();
        to.copy_range(&stream, 30, &from, 5..10).unwrap();
        let mut expected: Vec<u32> = (1..41).collect();
        expected[30..35].copy_from_slice(&[7, 8, 9, 10, 11]);
        assert_eq!(to.to_vec().unwrap(), expected, "{device:?}");
    }
}

#[test]
fn any_two_devices_can_copy() {
    let [gpu, emulated] = devices();
    let mut all = vec![gpu, emulated, Device::emulated().unwrap()];
    if let Some(gpu) = FakeGpu::take() {
        all.extend([gpu.open(), gpu.other(true).open(), gpu.other(false).open()]);
    }
    for (index, a) in all.iter().enumerate() {
        for (other, b) in all.iter().enumerate() {
            let values: Vec<u32> = (0..50).map(|i| i + (index * 100 + other) as u32).collect();
            let (producer, consumer) = (a.new_stream().unwrap(), b.new_stream().unwrap());
            let from = Buffer::from_slice(a, &values).unwrap();
            let mut to = Buffer::<u32>::zeroed(b, 52).unwrap();
            add_one(&producer, &from).unwrap();
            consumer.wait(&producer.record().unwrap()).unwrap();
            to.copy_range(&consumer, 2, &from, 0..50).unwrap();
            add_one(&consumer, &to).unwrap();
            // First of all, so that nothing but the event has the producer's work done by then.
            consumer.synchronize().unwrap();
            drop(from);
            let expected: Vec<u32> = values.iter().map(|value| value + 2).collect();
            assert_eq!(to.to_vec().unwrap()[2..], expected, "{a:?} to {b:?}");
            let from = Buffer::from_slice(a, &values).unwrap();
            to.copy_range(&consumer, 1, &from, 49..49).unwrap();
            to.copy_range(&consumer, 0, &from, 49..50).unwrap();
            assert_eq!(to.to_vec().unwrap()[..2], [values[49], 1], "{a:?} to {b:?}");
        }
    }
}

#[test]
fn gpus_that_reach_each_other_do_not_go_through_the_host() {
    let Some(gpu) = FakeGpu::take() else { return };
    let (near, far) = (gpu.other(true), gpu.other(false));
    let (device, near_device, far_device) = (gpu.open(), near.open(), far.open());
    assert!(device.can_access_peer(&device).unwrap());
    assert!(device.can_access_peer(&near_device).unwrap());
    assert!(!device.can_access_peer(&far_device).unwrap());
    assert!(
        !device
            .can_access_peer(&Device::emulated().unwrap())
            .unwrap()
    );
    assert!(
        !Device::emulated()
            .unwrap()
            .can_access_peer(&device)
            .unwrap()
    );

    let stream = device.new_stream().unwrap();
    let mut to = Buffer::<u32>::zeroed(&device, 8).unwrap();
    let of = |device| Buffer::from_slice(device, &[3_u32; 8]).unwrap();
    let (from_near, from_far) = (of(&near_device), of(&far_device));
    let waits = gpu.calls("cuStreamSynchronize");
    for _ in 0..2 {
        let (copied, submitted, _) = device.observe(|| to.copy_from_buffer(&stream, &from_near));
        copied.unwrap();
        assert_eq!(submitted[0].bytes, 64);
    }
    assert_eq!(
        gpu.calls("cuStreamSynchronize"),
        waits,
        "it returns at once"
    );
    assert_eq!(gpu.calls("cuMemcpyPeerAsync"), 2);
    assert_eq!(gpu.calls("cuCtxEnablePeerAccess"), 1);
    let host = near.calls("cuMemcpyDtoHAsync_v2");
    to.copy_from_buffer(&stream, &from_far).unwrap();
    assert_eq!(gpu.calls("cuMemcpyPeerAsync"), 2);
    assert_eq!(far.calls("cuMemcpyDtoHAsync_v2"), 1);
    assert_eq!(near.calls("cuMemcpyDtoHAsync_v2"), host);
    assert_eq!(to.to_vec().unwrap(), [3; 8]);
}

/// Such as by another library in the same context.
#[test]
fn access_that_is_there_already_is_used() {
    const PEER_ACCESS_ALREADY_ENABLED: i32 = 704;
    let Some(gpu) = FakeGpu::take() else { return };
    let near = gpu.other(true);
    let (device, source) = (gpu.open(), near.open());
    gpu.inject("cuCtxEnablePeerAccess", 1, PEER_ACCESS_ALREADY_ENABLED);
    assert!(device.can_access_peer(&source).unwrap());
}

#[test]
fn waiting_for_a_lost_device_says_so_and_loses_no_other() {
    let Some(gpu) = FakeGpu::take() else { return };
    let near = gpu.other(true);
    let (device, other) = (gpu.open(), near.open());
    let event = other.default_stream().record().unwrap();
    near.inject("cuStreamSynchronize", 1, ILLEGAL_ADDRESS);
    let error = other.synchronize().unwrap_err();
    let stream = device.new_stream().unwrap();
    assert_eq!(stream.wait(&event).unwrap_err(), error);
    assert!(!device.is_lost());
}

#[test]
fn where_access_is_refused_the_host_is_the_way() {
    // CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, CUDA_ERROR_NOT_SUPPORTED
    for code in [217, 801] {
        let Some(gpu) = FakeGpu::take() else { return };
        let near = gpu.other(true);
        let (device, source) = (gpu.open(), near.open());
        let from = Buffer::from_slice(&source, &[5_u32; 8]).unwrap();
        let mut to = Buffer::<u32>::zeroed(&device, 8).unwrap();
        gpu.inject("cuCtxEnablePeerAccess", 1, code);
        let stream = device.new_stream().unwrap();
        to.copy_from_buffer(&stream, &from).unwrap();
        assert_eq!(to.to_vec().unwrap(), [5; 8]);
        assert_eq!(gpu.calls("cuMemcpyPeerAsync"), 0);
        assert!(!device.can_access_peer(&source).unwrap());
    }
}

/// A copy from a GPU whose handle and buffer `end` drops before the copy has been made.
fn is_copied_before(end: fn(Device, Buffer<u32>)) {
    for pool in [false, true] {
        let Some(gpu) = FakeGpu::take() else { return };
        let near = gpu.other(true);
        {
            let (device, source) = (gpu.open(), near.open());
            if pool {
                source.enable_pool(MemoryPoolConfig::default()).unwrap();
            }
            let stream = device.new_stream().unwrap();
            let from = Buffer::from_slice(&source, &[4_u32; 8]).unwrap();
            let mut to = Buffer::<u32>::zeroed(&device, 8).unwrap();
            to.copy_from_buffer(&stream, &from).unwrap();
            end(source, from);
            assert_eq!(to.to_vec().unwrap(), [4; 8], "pool {pool}");
        }
        assert_eq!((gpu.alive(), near.alive()), (0, 0));
    }
}

#[test]
fn memory_stays_until_the_other_gpu_has_copied_it() {
    is_copied_before(|source, from| {
        drop(from);
        // Were it free, these would have its memory.
        let mut next = Buffer::<u32>::uninit(&source, 8).unwrap();
        next.fill_bytes(9).unwrap();
        drop((next, source));
    });
}

#[test]
fn a_buffer_that_is_the_last_to_hold_its_gpu_waits_for_the_other_gpus_copy() {
    is_copied_before(|source, from| {
        drop(source);
        drop(from);
    });
}

#[test]
fn memory_that_the_other_gpus_capture_kept_is_freed_with_the_next_allocation_or_the_device() {
    for (pool, closes) in [(false, false), (false, true), (true, false), (true, true)] {
        let Some(gpu) = FakeGpu::take() else { return };
        let near = gpu.other(true);
        let (device, source) = (gpu.open(), near.open());
        let stream = device.new_stream().unwrap();
        let from = Buffer::from_slice(&source, &[4_u32; 8]).unwrap();
        if pool {
            source.enable_pool(MemoryPoolConfig::default()).unwrap();
        }
        let mut to = Buffer::<u32>::zeroed(&device, 8).unwrap();
        to.copy_from_buffer(&stream, &from).unwrap();
        let graph = Graph::capture(&stream, |stream| {
            // The copy cannot be waited for now.
            drop(from);
            add_one(stream, &to)
        });
        assert_eq!(near.calls("cuMemFree_v2"), 0);
        let next = match closes {
            false => Some(Buffer::<u32>::uninit(&source, 8).unwrap()),
            true => {
                drop(source);
                None
            }
        };
        assert_eq!(near.calls("cuMemFree_v2"), 1, "pool {pool}");
        graph.unwrap().launch(&stream).unwrap();
        assert_eq!(to.to_vec().unwrap(), [5; 8]);
        drop(next);
    }
}

#[test]
fn a_fault_takes_one_gpu_and_not_its_peer() {
    for pool in [false, true] {
        let Some(gpu) = FakeGpu::take() else { return };
        let near = gpu.other(true);
        let (device, source) = (gpu.open(), near.open());
        if pool {
            source.enable_pool(MemoryPoolConfig::default()).unwrap();
        }
        let stream = device.new_stream().unwrap();
        let from = Buffer::from_slice(&source, &[4_u32; 8]).unwrap();
        let mut to = Buffer::<u32>::zeroed(&device, 8).unwrap();
        to.copy_from_buffer(&stream, &from).unwrap();
        gpu.inject("cuStreamSynchronize", 1, ILLEGAL_ADDRESS);
        let error = to.to_vec().unwrap_err();
        let DeviceError::Lost { launches, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(launches[0].kernel, "copy from a buffer");
        assert!(device.is_lost() && !source.is_lost());
        // The source has its memory, and what it is asked next works.
        assert_eq!(from.to_vec().unwrap(), [4; 8]);
        let mut back = Buffer::<u32>::zeroed(&source, 8).unwrap();
        assert_eq!(
            back.copy_from_buffer(&source.default_stream(), &to)
                .unwrap_err(),
            error
        );
        back.copy_from_buffer(&source.default_stream(), &from)
            .unwrap();
        assert_eq!(back.to_vec().unwrap(), [4; 8]);
        drop((from, back, to, stream, device, source));
        assert_eq!((gpu.alive(), near.alive()), (0, 0));
    }
}

#[test]
fn an_event_of_the_other_kind_of_device_is_waited_for_by_the_caller() {
    let Some(gpu) = FakeGpu::take() else { return };
    let (device, emulated) = (gpu.open(), Device::emulated().unwrap());
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
    add_one(&stream, &buffer).unwrap();
    let event = stream.record().unwrap();
    emulated.default_stream().wait(&event).unwrap();
    assert_eq!(gpu.calls("cuEventSynchronize"), 1);
    gpu.inject("cuStreamSynchronize", 1, ILLEGAL_ADDRESS);
    let error = stream.synchronize().unwrap_err();
    assert_eq!(emulated.default_stream().wait(&event).unwrap_err(), error);
}

#[test]
fn what_does_not_fit_is_refused() {
    let [gpu, emulated] = devices();
    let stream = gpu.new_stream().unwrap();
    let from = Buffer::<u32>::zeroed(&emulated, 8).unwrap();
    let mut to = Buffer::<u32>::zeroed(&gpu, 8).unwrap();
    let mut longer = Buffer::<u32>::zeroed(&gpu, 9).unwrap();
    assert_eq!(
        longer.copy_from_buffer(&stream, &from).unwrap_err(),
        DeviceError::CopyLength { from: 8, to: 9 }
    );
    let (most, reversed) = (usize::MAX, std::ops::Range { start: 2, end: 1 });
    for (first, range, direction, named) in [
        (0, 4..9, "from", 4..9),
        (0, 9..9, "from", 9..9),
        (0, reversed.clone(), "from", reversed),
        (6, 0..3, "to", 6..9),
        (9, 3..3, "to", 9..9),
        (most, 0..3, "to", most..most),
    ] {
        let error = to.copy_range(&stream, first, &from, range).unwrap_err();
        let expected = DeviceError::CopyRange {
            direction,
            start: named.start,
            end: named.end,
            len: 8,
        };
        assert_eq!(error, expected);
    }
    to.copy_range(&stream, 8, &from, 3..3).unwrap();
    let elsewhere = emulated.new_stream().unwrap();
    assert!(matches!(
        to.copy_from_buffer(&elsewhere, &from),
        Err(DeviceError::DeviceMismatch { .. })
    ));
    let captured = Graph::capture(&stream, |stream| to.copy_from_buffer(stream, &from));
    assert!(matches!(captured, Err(DeviceError::Capturing { .. })));
}
