//! Scratch memory: allocated and freed in a stream's order, and workspaces.

use std::ptr;

use cust_lazy::ffi;

use super::external::callers_stream;
use super::*;
use crate::launch::{Gemv, Workspaces};
use crate::layout::{Layout, PackedWeights};
use crate::ops::BitLinear;
use crate::reference::RowScales;

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
    let free = device.memory_info().unwrap().free_bytes;
    drop(Buffer::<u8>::uninit_on(&stream, 8 << 20).unwrap());
    assert_eq!(device.memory_info().unwrap().free_bytes, free);
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
    let during = device.memory_info().unwrap().free_bytes;
    drop(large);
    stream.synchronize().unwrap();
    let kept = 64 << 20;
    assert!(device.memory_info().unwrap().free_bytes >= during + (128 << 20) - kept);
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
