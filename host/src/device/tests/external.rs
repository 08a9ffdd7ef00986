//! Streams and memory that the program has made without this library.

use std::ptr;

use cust_lazy::ffi;

use super::*;
use crate::launch::{Gemv, Workspaces};
use crate::layout::{Layout, PackedWeights};
use crate::ops::BitLinear;
use crate::reference::RowScales;

/// On the legacy default stream, which every device has.
fn callers_stream(device: &Device) -> Stream {
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
fn scratch_memory_is_freed_in_the_streams_order_without_waiting() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let (own, callers) = (device.new_stream().unwrap(), callers_stream(&device));
    for stream in [&own, &callers] {
        let result = Buffer::<u32>::zeroed(&device, 64).unwrap();
        let waits = gpu.calls("cuStreamSynchronize") + gpu.calls("cuCtxSynchronize");
        let alive = gpu.alive();
        let mut scratch = Buffer::<u32>::uninit_on(stream, 64).unwrap();
        stream.fill(&mut scratch, 1).unwrap();
        let copy = function(&device, "copy");
        stream
            .launch(
                &copy,
                config(1, 64),
                &[write(&result), read(&scratch), scalar(64)],
            )
            .unwrap();
        drop(scratch);
        let counted = gpu.calls("cuStreamSynchronize") + gpu.calls("cuCtxSynchronize");
        assert_eq!(counted, waits, "{stream:?}");
        assert_eq!(result.to_vec().unwrap(), [0x0101_0101; 64], "{stream:?}");
        // The module of the kernel came to be, on the first round.
        assert!(gpu.alive() <= alive + 1);
    }
    assert_eq!(gpu.calls("cuMemFreeAsync"), 2);
}

#[test]
fn scratch_memory_is_freed_on_the_emulator() {
    let device = Device::emulated().unwrap();
    let stream = device.new_stream().unwrap();
    let (free, _) = device.memory_info().unwrap();
    drop(Buffer::<u8>::uninit_on(&stream, 8 << 20).unwrap());
    assert_eq!(device.memory_info().unwrap().0, free);
}

#[test]
fn scratch_memory_is_kept_for_the_next_operation() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    for len in [1000, 100, 1000] {
        // The driver's own pool would give its memory back at each wait.
        drop(Buffer::<u32>::zeroed_on(&stream, len).unwrap());
        stream.synchronize().unwrap();
    }
    assert_eq!(gpu.pool_growths(), 1);
    assert_eq!(gpu.calls("cuMemAllocAsync"), 0);
    // Not without a limit.
    let large = Buffer::<u8>::uninit_on(&stream, 128 << 20).unwrap();
    let during = device.memory_info().unwrap().0;
    drop(large);
    stream.synchronize().unwrap();
    let kept = 64 << 20;
    assert!(device.memory_info().unwrap().0 >= during + (128 << 20) - kept);
}

#[test]
fn a_driver_that_makes_no_pool_has_one_of_its_own() {
    for entry in ["cuMemPoolCreate", "cuMemPoolSetAttribute"] {
        // CUDA_ERROR_NOT_FOUND, as of a driver before CUDA 11.2, and CUDA_ERROR_NOT_SUPPORTED.
        for code in [500, 801] {
            let Some(gpu) = FakeGpu::take() else { return };
            gpu.inject(entry, 1, code);
            let device = gpu.open();
            let stream = device.new_stream().unwrap();
            let scratch = Buffer::<u32>::zeroed_on(&stream, 64).unwrap();
            assert_eq!(scratch.to_vec().unwrap(), [0; 64]);
            assert_eq!(gpu.calls("cuMemAllocAsync"), 1, "{entry} {code}");
            drop((scratch, stream, device));
            assert_eq!(gpu.alive(), 0, "{entry} {code}");
        }
    }
}

#[test]
fn without_memory_pools_scratch_memory_is_ordinary_memory() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    gpu.inject("cuMemAllocFromPoolAsync", 1, 801); // CUDA_ERROR_NOT_SUPPORTED
    let scratch = Buffer::<u32>::zeroed_on(&stream, 64).unwrap();
    assert_eq!(scratch.to_vec().unwrap(), [0; 64]);
    drop(scratch);
    assert_eq!(
        (gpu.calls("cuMemFreeAsync"), gpu.calls("cuMemFree_v2")),
        (0, 1)
    );
    // Any other error is the caller's to hear of.
    gpu.inject("cuMemAllocFromPoolAsync", 1, 999);
    let error = Buffer::<u32>::uninit_on(&stream, 64).unwrap_err();
    assert!(
        matches!(error, DeviceError::Driver { code: 999, .. }),
        "{error}"
    );
}

#[test]
fn scratch_memory_that_a_graph_uses_lives_as_long_as_the_graph() {
    for device in devices() {
        let stream = device.new_stream().unwrap();
        let result = Buffer::<u32>::zeroed(&device, 64).unwrap();
        let copy = function(&device, "copy");
        let graph = Graph::capture(&stream, |stream| {
            let scratch = Buffer::<u32>::zeroed_on(stream, 64)?;
            add_one(stream, &scratch)?;
            stream.launch(
                &copy,
                config(1, 64),
                &[write(&result), read(&scratch), scalar(64)],
            )
        })
        .unwrap();
        for round in 1..=3 {
            graph.launch(&stream).unwrap();
            assert_eq!(result.to_vec().unwrap(), [round; 64], "{device:?}");
        }
    }
}

/// As PyTorch captures: in the mode that refuses whatever a replay would not repeat.
#[test]
fn a_layer_and_its_scratch_memory_go_into_a_callers_graph() {
    const NON_BLOCKING: u32 = 1;
    const GLOBAL: i32 = 0;
    let done = |code: i32| assert_eq!(code, 0, "{}", cust_lazy::error_name(code));
    let [device, _] = devices();
    if device.kind() != DeviceKind::Cuda {
        return;
    }
    let (n, k) = (40, 300);
    let packed = PackedWeights::pack(Layout::Tiled, &vec![1; n * k], n, k).unwrap();
    let scales = RowScales::per_tensor(n, 1.0).unwrap();
    // Its blocks meet in a workspace.
    let split = Gemv::named("gemv_m1_t1_w4_k2").unwrap();
    let layer = BitLinear::from_packed(&device, &packed, &scales)
        .unwrap()
        .with_variant(split)
        .unwrap();
    let input = Buffer::from_slice(&device, &vec![0.5_f32; k]).unwrap();
    let mut output = Buffer::<f32>::uninit(&device, n).unwrap();

    device.core().driver.make_current().unwrap();
    let mut handle = ptr::null_mut();
    // SAFETY: the context is current, and the pointer is to a local.
    done(unsafe { ffi::cuStreamCreate(&mut handle, NON_BLOCKING) });
    // SAFETY: destroyed below, after the `Stream`.
    let stream = unsafe { Stream::from_raw(&device, handle.cast()) }.unwrap();
    // Loads the kernels, which a capture of this mode does not allow.
    layer.forward(&stream, &input, &mut output).unwrap();
    let expected = output.to_vec().unwrap();
    output.fill_bytes(0xa5).unwrap();
    assert_eq!(stream, stream.clone());
    let null = callers_stream(&device);
    assert!(stream != null && stream != callers_stream(&Device::emulated().unwrap()));
    assert!(
        null != device.default_stream() && null != callers_stream(&Device::emulated().unwrap())
    );

    let (mut graph, mut executable) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: the handle is live.
    done(unsafe { ffi::cuStreamBeginCapture_v2(handle, GLOBAL) });
    let submitted = layer.forward(&stream, &input, &mut output);
    // SAFETY: the handles are live, and the pointers are to locals.
    unsafe {
        done(ffi::cuStreamEndCapture(handle, &mut graph));
        submitted.unwrap();
        done(ffi::cuGraphInstantiateWithFlags(&mut executable, graph, 0));
    }
    for _ in 0..2 {
        output.fill_bytes(0xa5).unwrap();
        // SAFETY: the handles are live, as is what the graph uses.
        done(unsafe { ffi::cuGraphLaunch(executable, handle) });
        stream.synchronize().unwrap();
        assert_eq!(output.to_vec().unwrap(), expected);
    }
    assert!(expected.iter().all(|&y| (y - 150.0).abs() < 1.0));
    drop(stream);
    // SAFETY: all work with them is done.
    unsafe {
        done(ffi::cuGraphExecDestroy(executable));
        done(ffi::cuGraphDestroy(graph));
        done(ffi::cuStreamDestroy_v2(handle));
    }
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
fn scratch_memory_that_the_driver_has_not_comes_from_the_pool() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let pool = device.enable_pool(MemoryPoolConfig::default()).unwrap();
    drop(Buffer::<u32>::uninit(&device, 64).unwrap());
    let stream = device.new_stream().unwrap();
    gpu.inject("cuMemAllocFromPoolAsync", 1, 2); // CUDA_ERROR_OUT_OF_MEMORY
    let scratch = Buffer::<u32>::zeroed_on(&stream, 64).unwrap();
    assert_eq!(pool.metrics().in_use_bytes, 256);
    assert_eq!(scratch.to_vec().unwrap(), [0; 64]);
    // Where that has none either, the caller hears of it.
    gpu.inject("cuMemAllocFromPoolAsync", 1, 2);
    let error = Buffer::<u8>::uninit_on(&stream, 1 << 60).unwrap_err();
    assert!(
        matches!(error, DeviceError::OutOfMemory { requested, .. } if requested == 1 << 60),
        "{error}"
    );
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

#[test]
fn scratch_memory_that_another_stream_reads_is_not_freed_in_its_own_streams_order() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let [a, b] = [(); 2].map(|()| device.new_stream().unwrap());
    let result = Buffer::<u32>::zeroed(&device, 64).unwrap();
    let other = Buffer::<u32>::zeroed(&device, 64).unwrap();
    let copy = function(&device, "copy");
    let from = |stream: &Stream, from: &Buffer<u32>| {
        stream.launch(
            &copy,
            config(1, 64),
            &[write(&result), read(from), scalar(64)],
        )
    };
    let mut scratch = Buffer::<u32>::uninit_on(&a, 64).unwrap();
    a.fill(&mut scratch, 1).unwrap();
    a.synchronize().unwrap();
    let mut graph = Graph::capture(&a, |stream| from(stream, &scratch)).unwrap();
    graph.launch(&b).unwrap();
    drop(scratch);
    // The graph was the last to hold it, and its replay has not run.
    graph.update(&a, |stream| from(stream, &other)).unwrap();
    a.synchronize().unwrap();
    assert_eq!(result.to_vec().unwrap(), [0x0101_0101; 64]);
}

#[test]
fn a_workspace_in_flight_is_given_to_its_own_stream_alone() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let [a, b] = [(); 2].map(|()| device.new_stream().unwrap());
    let workspaces = Workspaces::default();
    let used = |stream: &Stream| {
        let workspace = workspaces.take(stream, 64).unwrap();
        add_one(stream, &workspace).unwrap();
        let address = workspace.device_ptr();
        workspaces.give_back(stream, workspace);
        address
    };
    let first = used(&a);
    assert_eq!(used(&a), first);
    let second = used(&b);
    assert_ne!(second, first);
    // Replays may come at the same time as what is on the stream.
    let mut captured = 0;
    let graph = Graph::capture(&a, |stream| {
        captured = used(stream);
        Ok::<_, DeviceError>(())
    })
    .unwrap();
    assert!(![first, second].contains(&captured));
    assert_eq!((used(&a), used(&b)), (first, second));
    // Two streams of the caller's look alike, so that neither gets what the other has.
    let frees = gpu.calls("cuMemFreeAsync");
    assert!(![first, second].contains(&used(&callers_stream(&device))));
    assert_eq!(gpu.calls("cuMemFreeAsync"), frees + 1);
    device.synchronize().unwrap();
    assert!([first, second].contains(&used(&b)));
    drop(graph);
}
