//! Streams and memory that the program has made without this library.

use std::ptr;

use super::*;

/// On the legacy default stream, which every device has.
pub(super) fn callers_stream(device: &Device) -> Stream {
    // SAFETY: null is a stream of every device.
    unsafe { Stream::from_raw(device, ptr::null_mut()) }.unwrap()
}

/// Elements `first..first + len` of a buffer, as memory that came from elsewhere.
fn part(buffer: &Buffer<u32>, first: u64, len: usize) -> Result<Buffer<u32>, DeviceError> {
    // SAFETY: the tests keep the buffer longer than its parts.
    unsafe { Buffer::from_raw(buffer.device(), buffer.device_ptr() + 4 * first, len) }
}

#[test]
fn work_on_a_callers_stream_runs_and_is_waited_for() {
    for device in devices() {
        let stream = callers_stream(&device);
        let whole = Buffer::<u32>::zeroed(&device, 64).unwrap();
        let mut to = part(&whole, 16, 32).unwrap();
        add_one(&stream, &to).unwrap();
        // By the stream itself, and by whatever the work uses.
        stream.synchronize().unwrap();
        assert_eq!(to.to_vec().unwrap(), [1; 32], "{device:?}");
        add_one(&stream, &to).unwrap();
        assert_eq!(to.to_vec().unwrap(), [2; 32], "{device:?}");
        add_one(&stream, &to).unwrap();
        device.synchronize().unwrap();
        let all = whole.to_vec().unwrap();
        assert_eq!(
            (all[15], all[16], all[47], all[48]),
            (0, 3, 3, 0),
            "{device:?}"
        );
        to.copy_from_slice(&[7; 32]).unwrap();
        assert_eq!(whole.to_vec().unwrap()[47], 7);
    }
}

#[test]
fn dropping_a_part_frees_nothing_and_dropping_the_whole_waits() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = callers_stream(&device);
    let whole = Buffer::<u32>::zeroed(&device, 64).unwrap();
    let waits = gpu.calls("cuStreamSynchronize") + gpu.calls("cuCtxSynchronize");
    let to = part(&whole, 0, 64).unwrap();
    add_one(&stream, &to).unwrap();
    drop(to);
    assert_eq!(gpu.calls("cuMemFree_v2"), 0);
    assert_eq!(
        gpu.calls("cuStreamSynchronize") + gpu.calls("cuCtxSynchronize"),
        waits
    );

    add_one(&stream, &whole).unwrap();
    // The stream may be gone by then, so the context is what is waited for.
    drop((stream, whole));
    assert_eq!(
        (gpu.calls("cuCtxSynchronize"), gpu.calls("cuMemFree_v2")),
        (1, 1)
    );
    assert!(!device.is_lost());
    drop(device);
    // The caller's stream is not this library's to destroy.
    assert_eq!(gpu.calls("cuStreamDestroy_v2"), gpu.calls("cuStreamCreate"));
}

#[test]
fn waiting_for_the_context_waits_for_streams_of_anybody() {
    const ILLEGAL_ADDRESS: i32 = 700;
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    device.synchronize_context().unwrap();
    assert_eq!(gpu.calls("cuCtxSynchronize"), 1);
    gpu.inject("cuCtxSynchronize", 1, ILLEGAL_ADDRESS);
    let error = device.synchronize_context().unwrap_err();
    assert!(matches!(error, DeviceError::Lost { .. }), "{error}");
    assert_eq!(device.synchronize_context().unwrap_err(), error);
    assert_eq!(gpu.calls("cuCtxSynchronize"), 2, "the context is gone");
}

#[test]
fn rows_are_copied_apart() {
    for device in devices() {
        let stream = callers_stream(&device);
        let from = Buffer::from_slice(&device, &[1_u8, 2, 3, 4, 5, 6]).unwrap();
        let mut to = Buffer::from_slice(&device, &[9_u8; 11]).unwrap();
        let (copied, submitted, _) =
            device.observe(|| stream.copy_to_pitched(&mut to, 4, &from, 3, 2));
        assert_eq!(copied, Ok(()), "{device:?}");
        assert_eq!(submitted[0].bytes, 12, "6 are read and 6 are written");
        assert_eq!(
            to.to_vec().unwrap(),
            [1, 2, 3, 9, 4, 5, 6, 9, 9, 9, 9],
            "{device:?}"
        );
    }
}

/// The address of one emulated device's buffer is also one of the other's.
#[test]
fn rows_on_another_device_are_not_copied() {
    let [device, other] = [0, 1].map(|_| Device::emulated().unwrap());
    let stream = device.default_stream();
    let [mut to, from] = [&device, &other].map(|device| Buffer::<u8>::zeroed(device, 16).unwrap());
    let mut far = Buffer::<u8>::zeroed(&other, 16).unwrap();
    for refused in [
        stream.copy_to_pitched(&mut to, 8, &from, 8, 2),
        stream.copy_to_pitched(&mut far, 8, &to, 8, 2),
    ] {
        assert!(
            matches!(refused, Err(DeviceError::DeviceMismatch { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn rows_are_copied_where_the_driver_does_not_take_their_pitch() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    let from = Buffer::from_slice(&device, &[1_u8, 2, 3, 4, 5, 6]).unwrap();
    let mut to = Buffer::from_slice(&device, &[9_u8; 11]).unwrap();
    gpu.inject("cuMemcpy2DAsync_v2", 1, 1); // CUDA_ERROR_INVALID_VALUE
    stream.copy_to_columns(&mut to, 1, 4, &from, 3, 2).unwrap();
    assert_eq!(to.to_vec().unwrap(), [9, 1, 2, 3, 9, 4, 5, 6, 9, 9, 9]);
    assert_eq!(gpu.calls("cuMemcpyDtoDAsync_v2"), 2);
    // Rows without a gap are one copy.
    stream.copy_to_pitched(&mut to, 3, &from, 3, 2).unwrap();
    assert_eq!(to.to_vec().unwrap()[..7], [1, 2, 3, 4, 5, 6, 5]);
    assert_eq!(gpu.calls("cuMemcpyDtoDAsync_v2"), 3);
    assert_eq!(gpu.calls("cuMemcpy2DAsync_v2"), 1);
}

#[test]
fn what_is_not_the_devices_memory_is_refused() {
    for device in devices() {
        let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
        let (base, bytes) = (buffer.device_ptr(), 256);
        let refused = |first, len: usize, allocation| {
            let error = part(&buffer, first, len).unwrap_err();
            let holder = match allocation {
                Some((base, bytes)) => format!("the allocation at {base:#x} has {bytes} bytes"),
                None => "no allocation is there".to_owned(),
            };
            assert!(error.to_string().ends_with(&holder), "{error}");
            let expected = DeviceError::NotDeviceMemory {
                address: base + 4 * first,
                bytes: 4 * len as u64,
                device: device.name().to_owned(),
                allocation,
            };
            assert_eq!(error, expected);
        };
        // Whether a GPU's driver rounds the size of an allocation up, and what it has put behind, is its own affair.
        if is_real(&device) {
            let beyond = device.capabilities().memory_bytes / size_of::<u32>() + 1;
            assert!(part(&buffer, 0, 64).is_ok() && part(&buffer, 0, beyond).is_err());
        } else {
            refused(0, 65, Some((base, bytes)));
            refused(63, 2, Some((base, bytes)));
            refused(64, 1, None);
        }
        let on_the_stack = 0_u32;
        for address in [0, 4, (&raw const on_the_stack).addr() as u64, u64::MAX - 3] {
            // SAFETY: refused.
            let error = unsafe { Buffer::<u32>::from_raw(&device, address, 1) }.unwrap_err();
            assert!(
                matches!(
                    error,
                    DeviceError::NotDeviceMemory {
                        allocation: None,
                        ..
                    }
                ),
                "{error}"
            );
        }
        // SAFETY: refused.
        let error = unsafe { Buffer::<u32>::from_raw(&device, base + 2, 1) }.unwrap_err();
        assert_eq!(
            error,
            DeviceError::MisalignedPointer {
                address: base + 2,
                alignment: 4
            }
        );
        drop(buffer);
        if !is_real(&device) {
            // SAFETY: refused.
            let freed = unsafe { Buffer::<u32>::from_raw(&device, base, 1) };
            assert!(freed.is_err(), "{device:?}");
        }
    }
}

#[test]
fn memory_that_a_gpu_reaches_is_taken_whatever_its_kind() {
    const HOST: u32 = 1;
    const DEVICE: u32 = 2;
    const MIB: u64 = 1 << 20;
    let Some(gpu) = FakeGpu::take() else { return };
    let other = gpu.other(false);
    let (device, _other) = (gpu.open(), other.open());
    // Nothing of the double's is there.
    let base = 0x7000_0000_0000;
    // SAFETY: nothing uses the buffer.
    let takes = |first: u64, bytes: u64| unsafe {
        Buffer::<u8>::from_raw(&device, base + first * MIB, bytes as usize).is_ok()
    };
    let place = |gpu: &FakeGpu, first, bytes: u64, memory_type, managed| {
        gpu.place(base + first * MIB, bytes as usize, memory_type, managed);
    };
    place(&other, 0, MIB, HOST, false);
    place(&other, 2, MIB, DEVICE, true);
    place(&other, 4, MIB, DEVICE, false);
    assert!(takes(0, MIB) && takes(2, MIB) && !takes(4, 1));
    // Null is no memory, whatever the driver says.
    gpu.place(0, MIB as usize, DEVICE, false);
    // SAFETY: refused.
    assert!(unsafe { Buffer::<u8>::from_raw(&device, 0, 1) }.is_err());
    // Of which the driver does not say how far it goes.
    place(&gpu, 6, 0, HOST, false);
    assert!(!takes(6, 1));

    // Mappings that lie one behind the other.
    place(&gpu, 10, 4 * MIB, DEVICE, false);
    place(&gpu, 14, 2 * MIB, DEVICE, false);
    assert!(takes(10, 6 * MIB) && takes(13, 3 * MIB));
    assert!(!takes(10, 6 * MIB + 1), "nothing is behind the second");
    // No mapping is so short, and none begins there: these are two allocations.
    place(&gpu, 20, 2 * MIB, DEVICE, false);
    place(&gpu, 22, MIB, DEVICE, false);
    assert!(takes(20, 2 * MIB) && !takes(20, 3 * MIB));
    place(&gpu, 30, MIB, DEVICE, false);
    place(&gpu, 31, 2 * MIB, DEVICE, false);
    assert!(takes(30, MIB) && !takes(30, 3 * MIB));
    place(&gpu, 40, 2 * MIB, DEVICE, false);
    place(&gpu, 38, 6 * MIB, DEVICE, false);
    assert!(takes(40, 2 * MIB) && !takes(40, 4 * MIB));
}

#[test]
fn what_a_callers_stream_cannot_do_is_refused() {
    for device in devices() {
        let stream = callers_stream(&device);
        let event = device.default_stream().record().unwrap();
        let refused = |result: Result<(), DeviceError>| {
            assert!(
                matches!(result, Err(DeviceError::Unsupported { .. })),
                "{result:?}"
            );
        };
        refused(stream.record().map(drop));
        refused(stream.wait(&event));
        refused(Graph::capture(&stream, |_| Ok::<_, DeviceError>(())).map(drop));
        let mut buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
        let mut pinned = PinnedBuffer::<u32>::zeroed(&device, 8).unwrap();
        let elsewhere = Buffer::<u32>::zeroed(&Device::emulated().unwrap(), 8).unwrap();
        refused(buffer.copy_to_pinned(&stream, &mut pinned));
        refused(buffer.copy_from_pinned(&stream, &pinned));
        refused(buffer.copy_from_buffer(&stream, &elsewhere));
        let own = device.new_stream().unwrap();
        let mut graph = Graph::capture(&own, |stream| add_one(stream, &buffer)).unwrap();
        refused(graph.update(&stream, |stream| add_one(stream, &buffer)));
        graph.launch(&stream).unwrap();
        assert_eq!(buffer.to_vec().unwrap(), [1; 8]);
    }
    let emulated = Device::emulated().unwrap();
    // SAFETY: refused.
    let error =
        unsafe { Stream::from_raw(&emulated, ptr::without_provenance_mut(16)) }.unwrap_err();
    assert!(
        matches!(error, DeviceError::ForeignStream { handle: 16, .. }),
        "{error}"
    );
}

#[test]
fn the_current_context_is_kept_and_found() {
    let Some(gpu) = FakeGpu::take() else { return };
    std::thread::spawn(move || {
        assert_eq!(Device::current_cuda().unwrap(), None);
        let other = FakeGpu::take().unwrap();
        let (device, other) = (gpu.open(), other.open());
        Buffer::<u32>::zeroed(&device, 1).unwrap();
        assert_eq!(Device::current_cuda().unwrap(), Some(device.clone()));
        let context = CurrentContext::save();
        Buffer::<u32>::zeroed(&other, 1).unwrap();
        assert_eq!(Device::current_cuda().unwrap(), Some(other));
        drop(context);
        assert_eq!(Device::current_cuda().unwrap(), Some(device));
    })
    .join()
    .unwrap();
}

#[test]
fn work_before_a_streams_next_is_told_from_other_work() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let [a, b] = [(); 2].map(|()| device.new_stream().unwrap());
    let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
    let before = || [&a, &b].map(|stream| buffer.is_used_before(stream));
    assert_eq!(before(), [true, true]);
    add_one(&a, &buffer).unwrap();
    assert_eq!(before(), [true, false]);
    // The later of two uses counts.
    let event = a.record().unwrap();
    add_one(&a, &buffer).unwrap();
    event.synchronize().unwrap();
    assert_eq!(before(), [true, false]);
    add_one(&b, &buffer).unwrap();
    assert_eq!(before(), [false, false]);
    a.synchronize().unwrap();
    assert_eq!(before(), [false, true]);
    b.synchronize().unwrap();
    assert_eq!(before(), [true, true]);
    Graph::capture(&a, |stream| {
        add_one(stream, &buffer)?;
        // Replays come whenever they come.
        assert_eq!(before(), [false, false]);
        Ok::<_, DeviceError>(())
    })
    .unwrap();
    assert_eq!(before(), [true, true]);
}
