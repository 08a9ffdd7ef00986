//! Dropping things in any order, with work pending.

use super::*;

#[test]
fn nothing_is_left_behind() {
    let Some(gpu) = FakeGpu::take() else { return };
    {
        let device = gpu.open();
        let stream = device.new_stream().unwrap();
        let buffer = Buffer::<u32>::zeroed(&device, 100).unwrap();
        let _event = stream.record().unwrap();
        let graph = Graph::capture(&stream, |stream| add_one(stream, &buffer)).unwrap();
        graph.launch(&stream).unwrap();
        assert!(gpu.alive() > 5);
    }
    assert_eq!(gpu.alive(), 0);
    // Not only because the context went, which another library may hold.
    assert_eq!(gpu.calls("cuModuleUnload"), 1);
    assert_eq!(gpu.calls("cuMemFree_v2"), 1);
    assert_eq!(gpu.calls("cuGraphExecDestroy"), 1);
    assert_eq!(gpu.calls("cuGraphDestroy"), 1);
    assert_eq!(gpu.calls("cuEventDestroy_v2"), 1);
    assert_eq!(gpu.calls("cuStreamDestroy_v2"), 3);
}

#[test]
fn a_buffer_outlives_the_work_that_uses_it() {
    // The double runs work only when something waits, and then faults on memory that is gone.
    for device in devices() {
        let stream = device.new_stream().unwrap();
        let to = Buffer::<u32>::zeroed(&device, 64).unwrap();
        let from = Buffer::from_slice(&device, &[9_u32; 64]).unwrap();
        let copy = function(&device, "copy");
        stream
            .launch(&copy, config(1, 64), &[write(&to), read(&from), scalar(64)])
            .unwrap();
        drop(from);
        let event = stream.record().unwrap();
        drop(stream);
        event.synchronize().unwrap();
        assert_eq!(to.to_vec().unwrap(), [9; 64], "{device:?}");
    }
}

#[test]
fn scratch_memory_stays_out_of_a_capture() {
    let Some(gpu) = FakeGpu::take() else { return };
    {
        let device = gpu.open();
        let stream = device.new_stream().unwrap();
        let result = Buffer::<u32>::zeroed(&device, 64).unwrap();
        // That of an operation which another thread has begun before the capture, and ends during it.
        let scratch = Buffer::<u32>::uninit_on(&stream, 64).unwrap();
        let copy = function(&device, "copy");
        stream
            .launch(
                &copy,
                config(1, 64),
                &[write(&scratch), read(&result), scalar(64)],
            )
            .unwrap();
        let graph = Graph::capture(&stream, |stream| {
            drop(scratch);
            add_one(stream, &result)
        })
        .unwrap();
        assert_eq!(
            gpu.calls("cuMemFreeAsync"),
            0,
            "each replay would free it again"
        );
        for _ in 0..2 {
            graph.launch(&stream).unwrap();
        }
        assert_eq!(result.to_vec().unwrap(), [2; 64]);
    }
    assert_eq!(gpu.alive(), 0);
}

#[test]
fn everything_can_go_before_the_device_and_the_device_before_everything() {
    for order in 0..6 {
        let Some(gpu) = FakeGpu::take() else { return };
        let device = gpu.open();
        let stream = device.new_stream().unwrap();
        let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
        let graph = Graph::capture(&stream, |stream| add_one(stream, &buffer)).unwrap();
        graph.launch(&stream).unwrap();
        add_one(&stream, &buffer).unwrap();
        let event = stream.record().unwrap();
        let module = device.load_module(PTX).unwrap();
        let mut things: Vec<Box<dyn std::any::Any>> = vec![
            Box::new(device),
            Box::new(stream),
            Box::new(buffer),
            Box::new(graph),
            Box::new(event),
            Box::new(module),
        ];
        things.rotate_left(order);
        for thing in things {
            drop(thing);
        }
        assert_eq!(gpu.alive(), 0, "in order {order}");
        assert_eq!(gpu.calls("cuDevicePrimaryCtxRelease_v2"), 1);
    }
}

#[test]
fn a_buffer_keeps_no_stream_that_is_done_with_it() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
    function(&device, "add_one");
    let alive = gpu.alive();
    for _ in 0..5 {
        let stream = device.new_stream().unwrap();
        add_one(&stream, &buffer).unwrap();
        stream.synchronize().unwrap();
    }
    // The last one's mark is still there.
    assert_eq!(gpu.alive(), alive + 1);
    assert_eq!(buffer.to_vec().unwrap(), [5; 64]);
    assert_eq!(gpu.alive(), alive);
}

#[test]
fn a_graph_keeps_its_buffers_and_sees_their_contents() {
    for device in devices() {
        let stream = device.new_stream().unwrap();
        let mut result = Buffer::<u32>::zeroed(&device, 64).unwrap();
        let graph = {
            let from = Buffer::from_slice(&device, &[20_u32; 64]).unwrap();
            let copy = function(&device, "copy");
            Graph::capture(&stream, |stream| {
                add_one(stream, &from)?;
                stream.launch(
                    &copy,
                    config(1, 64),
                    &[write(&result), read(&from), scalar(64)],
                )
            })
            .unwrap()
        };
        assert_eq!(graph.kernels(), ["add_one", "copy"]);
        assert_eq!(
            result.to_vec().unwrap(),
            [0; 64],
            "nothing runs during the capture"
        );
        let other = device.new_stream().unwrap();
        for _ in 0..2 {
            graph.launch(&other).unwrap();
        }
        assert_eq!(result.to_vec().unwrap(), [22; 64], "{device:?}");
        graph.launch(&other).unwrap();
        drop(graph);
        assert_eq!(result.to_vec().unwrap(), [23; 64], "{device:?}");
        result.fill_bytes(0).unwrap();
    }
}

#[test]
fn what_a_capture_allows() {
    for device in devices() {
        let stream = device.new_stream().unwrap();
        let mut buffer = Buffer::from_slice(&device, &[1_u32; 8]).unwrap();
        let pending = Buffer::from_slice(&device, &[1_u32; 8]).unwrap();
        add_one(&stream, &pending).unwrap();
        let capturing = |result: Result<(), DeviceError>| {
            assert!(
                matches!(result, Err(DeviceError::Capturing { .. })),
                "{result:?}"
            );
        };
        let graph = Graph::capture(&stream, |stream| {
            // Before its first use in the capture, a buffer is an ordinary buffer.
            buffer.fill_bytes(0)?;
            add_one(stream, &buffer)?;
            capturing(buffer.copy_to_slice(&mut [0; 8]));
            capturing(buffer.fill_bytes(7));
            capturing(stream.synchronize());
            capturing(device.synchronize());
            capturing(stream.record().map(drop));
            capturing(Graph::capture(stream, |_| Ok::<_, DeviceError>(())).map(drop));
            // Freed once the capture is over, since this stream cannot be waited for now.
            drop(pending);
            let temporary = Buffer::from_slice(&device, &[3_u32; 8])?;
            assert_eq!(temporary.to_vec()?, [3; 8]);
            add_one(&device.default_stream(), &temporary)?;
            assert_eq!(temporary.to_vec()?, [4; 8]);
            Ok::<_, DeviceError>(())
        })
        .unwrap();
        assert_eq!(buffer.to_vec().unwrap(), [0; 8]);
        graph.launch(&stream).unwrap();
        assert_eq!(buffer.to_vec().unwrap(), [1; 8], "{device:?}");
    }
}

#[test]
fn what_a_capture_kept_from_being_freed_is_freed_after_it() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
    let before = gpu.alive();
    let pending = Buffer::<u32>::zeroed(&device, 8).unwrap();
    let replayed = Graph::capture(&stream, |stream| add_one(stream, &buffer)).unwrap();
    replayed.launch(&stream).unwrap();
    add_one(&stream, &pending).unwrap();
    let graph = Graph::capture(&stream, |stream| {
        let alive = gpu.alive();
        drop(pending);
        drop(replayed);
        assert_eq!(gpu.alive(), alive);
        add_one(stream, &buffer)
    });
    drop(graph.unwrap());
    // The module was loaded meanwhile.
    assert_eq!(gpu.alive(), before + 1);
    assert_eq!(buffer.to_vec().unwrap(), [1; 8]);
}

#[test]
fn an_abandoned_capture_leaves_the_stream_usable() {
    for device in devices() {
        let stream = device.new_stream().unwrap();
        let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
        let failed = Graph::capture(&stream, |stream| {
            add_one(stream, &buffer)?;
            stream.synchronize()
        });
        assert!(matches!(failed, Err(DeviceError::Capturing { .. })));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = Graph::capture(&stream, |stream| -> Result<(), DeviceError> {
                add_one(stream, &buffer)?;
                panic!("in the closure");
            });
        }));
        assert!(panicked.is_err());
        let empty = Graph::capture(&stream, |_| Ok::<_, DeviceError>(()));
        assert_eq!(empty.unwrap_err(), DeviceError::EmptyGraph);
        add_one(&stream, &buffer).unwrap();
        assert_eq!(buffer.to_vec().unwrap(), [1; 8], "{device:?}");
    }
}

#[test]
fn a_dropped_buffers_memory_comes_back() {
    // On a real GPU the other tests, and other programs, allocate at the same time.
    let fake = FakeGpu::take().map(|gpu| gpu.open());
    let emulated = Device::emulated().unwrap();
    for device in std::iter::once(emulated).chain(fake) {
        let before = device.memory_info().unwrap().free_bytes;
        let stream = device.default_stream();
        let buffer = Buffer::<u32>::zeroed(&device, 1 << 20).unwrap();
        add_one(&stream, &buffer).unwrap();
        assert!(device.memory_info().unwrap().free_bytes <= before - (4 << 20));
        drop(buffer);
        assert_eq!(
            device.memory_info().unwrap().free_bytes,
            before,
            "{device:?}"
        );
    }
}

#[test]
fn closing_a_device_disturbs_no_capture_of_other_libraries() {
    let Some(gpu) = FakeGpu::take() else { return };
    // In the same context, as another library is.
    let other = Device::unshared_cuda(gpu.ordinal).unwrap();
    let buffer = Buffer::<u32>::zeroed(&other, 64).unwrap();
    let device = gpu.open();
    device.enable_pool(MemoryPoolConfig::default()).unwrap();
    let stream = device.new_stream().unwrap();
    let (before, own) = (gpu.alive(), Buffer::<u32>::zeroed(&device, 64).unwrap());
    add_one(&stream, &own).unwrap();
    let graph = Graph::capture(&other.default_stream(), |capturing| {
        add_one(capturing, &buffer)?;
        // Its module and its memory go, and its three streams.
        drop((own, stream, device));
        assert_eq!(
            (gpu.calls("cuModuleUnload"), gpu.calls("cuMemFree_v2")),
            (1, 1)
        );
        add_one(capturing, &buffer)
    });
    graph.unwrap().launch(&other.default_stream()).unwrap();
    assert_eq!(buffer.to_vec().unwrap(), [2; 64]);
    // A module came with the capture, one context less is retained, and its pool of scratch memory is gone.
    assert_eq!(gpu.alive(), before - 3 - 1 - 1 + 1);
}

#[test]
fn closing_a_device_does_not_wait_for_the_context_where_its_work_is_done() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
    add_one(&stream, &buffer).unwrap();
    stream.synchronize().unwrap();
    drop((buffer, stream));
    drop(device);
    assert_eq!(gpu.alive(), 0);
    assert_eq!(gpu.calls("cuCtxSynchronize"), 0);
}

#[test]
fn closing_a_device_waits_for_work_that_nobody_holds() {
    let Some(gpu) = FakeGpu::take() else { return };
    let other = Device::unshared_cuda(gpu.ordinal).unwrap();
    let buffer = Buffer::<u32>::zeroed(&other, 64).unwrap();
    for (round, callers) in [(1, false), (2, true)] {
        let device = gpu.open();
        let stream = match callers {
            false => device.new_stream().unwrap(),
            // SAFETY: null is a stream of every device.
            true => unsafe { Stream::from_raw(&device, std::ptr::null_mut()) }.unwrap(),
        };
        // SAFETY: the buffer outlives the loop.
        let part = unsafe { Buffer::<u32>::from_raw(&device, buffer.device_ptr(), 64) }.unwrap();
        add_one(&stream, &part).unwrap();
        drop((part, stream, device));
        // The double would not find the code of the kernel any more.
        assert_eq!(gpu.calls("cuModuleUnload"), round);
        assert_eq!(buffer.to_vec().unwrap(), vec![round as u32; 64]);
    }
}

#[test]
fn a_device_that_cannot_finish_its_work_lets_go_of_the_context() {
    for entry in ["cuStreamSynchronize", "cuCtxSynchronize"] {
        for code in [700, 900] {
            let Some(gpu) = FakeGpu::take() else { return };
            let device = gpu.open();
            device.enable_pool(MemoryPoolConfig::default()).unwrap();
            let stream = match entry {
                // SAFETY: null is a stream of every device.
                "cuCtxSynchronize" => unsafe { Stream::from_raw(&device, std::ptr::null_mut()) },
                _ => device.new_stream(),
            }
            .unwrap();
            let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
            add_one(&stream, &buffer).unwrap();
            drop((buffer, stream));
            gpu.inject(entry, 1, code);
            drop(device);
            assert_eq!(
                gpu.calls("cuDevicePrimaryCtxRelease_v2"),
                1,
                "{entry} {code}"
            );
            assert_eq!(gpu.alive(), 0, "{entry} {code}");
        }
    }
}

#[test]
fn what_goes_after_a_fault_calls_the_driver_no_more() {
    const ECC_UNCORRECTABLE: i32 = 214;
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    let [idle, used] = [(); 2].map(|()| Buffer::<u32>::zeroed(&device, 64).unwrap());
    let graph = Graph::capture(&stream, |stream| add_one(stream, &used)).unwrap();
    let event = stream.record().unwrap();
    add_one(&stream, &used).unwrap();
    gpu.inject("cuStreamSynchronize", 1, ECC_UNCORRECTABLE);
    device.default_stream().synchronize().unwrap_err();
    let calls = || {
        [
            "cuCtxSynchronize",
            "cuStreamSynchronize",
            "cuStreamDestroy_v2",
            "cuEventDestroy_v2",
            "cuGraphExecDestroy",
            "cuMemFree_v2",
            "cuModuleUnload",
        ]
        .map(|entry| gpu.calls(entry))
    };
    let before = calls();
    drop((idle, used, graph, event, stream, device));
    assert_eq!(calls(), before);
    assert_eq!(gpu.calls("cuDevicePrimaryCtxRelease_v2"), 1);
}
