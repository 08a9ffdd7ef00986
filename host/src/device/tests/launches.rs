//! What a launch checks before the driver sees it, and what blocking copies do.

use std::mem::MaybeUninit;

use super::*;

#[test]
fn a_launch_computes_and_copies_see_its_result() {
    for device in devices() {
        let mut buffer = Buffer::from_slice(&device, &[5_u32, 6, u32::MAX]).unwrap();
        let stream = device.new_stream().unwrap();
        add_one(&stream, &buffer).unwrap();
        // No synchronization by hand.
        assert_eq!(buffer.to_vec().unwrap(), [6, 7, 0], "{device:?}");
        add_one(&device.default_stream(), &buffer).unwrap();
        buffer.copy_from_slice(&[1, 2, 3]).unwrap();
        assert_eq!(buffer.to_vec().unwrap(), [1, 2, 3], "{device:?}");
        add_one(&stream, &buffer).unwrap();
        buffer.fill_bytes(0xff).unwrap();
        assert_eq!(buffer.to_vec().unwrap(), [u32::MAX; 3], "{device:?}");
    }
}

#[test]
fn streams_run_in_order_and_events_order_streams() {
    for device in devices() {
        let (a, b) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let from = Buffer::<u32>::zeroed(&device, 64).unwrap();
        let to = Buffer::<u32>::zeroed(&device, 64).unwrap();
        for _ in 0..3 {
            add_one(&a, &from).unwrap();
        }
        let done = a.record().unwrap();
        b.wait(&done).unwrap();
        let copy = function(&device, "copy");
        b.launch(&copy, config(1, 64), &[write(&to), read(&from), scalar(64)])
            .unwrap();
        b.synchronize().unwrap();
        assert_eq!(to.to_vec().unwrap(), [3; 64], "{device:?}");
    }
}

#[test]
fn an_event_measures_on_a_gpu_and_never_on_the_emulator() {
    for device in devices() {
        let stream = device.new_stream().unwrap();
        let buffer = Buffer::<u32>::zeroed(&device, 1024).unwrap();
        let start = stream.record().unwrap();
        add_one(&stream, &buffer).unwrap();
        let end = stream.record().unwrap();
        let elapsed = start.elapsed_ms(&end).unwrap();
        match device.kind() {
            DeviceKind::Cuda => assert!(elapsed.is_some_and(|ms| ms > 0.0), "{elapsed:?}"),
            DeviceKind::Emulated => assert_eq!(elapsed, None),
        }
    }
}

#[test]
fn events_of_two_streams_are_waited_for_before_they_are_measured() {
    for device in devices() {
        let buffers = [(); 2].map(|()| Buffer::<u32>::zeroed(&device, 64).unwrap());
        let record = |buffer| {
            let stream = device.new_stream().unwrap();
            add_one(&stream, buffer).unwrap();
            stream.record().unwrap()
        };
        for swap in [false, true] {
            let [mut start, mut end] = buffers.each_ref().map(record);
            if swap {
                std::mem::swap(&mut start, &mut end);
            }
            let elapsed = start.elapsed_ms(&end).unwrap();
            assert_eq!(elapsed.is_some(), device.kind() == DeviceKind::Cuda);
        }
    }
}

#[test]
fn empty_buffers_are_allowed() {
    for device in devices() {
        let mut empty = Buffer::<u32>::from_slice(&device, &[]).unwrap();
        assert!(empty.is_empty() && !Buffer::<u32>::uninit(&device, 1).unwrap().is_empty());
        assert_ne!(empty.allocation().address(), 0);
        empty.copy_from_slice(&[]).unwrap();
        empty.fill_bytes(1).unwrap();
        assert!(empty.to_vec().unwrap().is_empty());
        let function = function(&device, "add_one");
        let stream = device.default_stream();
        stream
            .launch(&function, config(1, 32), &[write(&empty), scalar(0)])
            .unwrap();
        stream.synchronize().unwrap();
    }
}

#[test]
fn host_slices_have_to_fit() {
    for device in devices() {
        let mut buffer = Buffer::<u16>::zeroed(&device, 3).unwrap();
        let expected = DeviceError::LengthMismatch { host: 4, buffer: 3 };
        assert_eq!(buffer.copy_from_slice(&[0; 4]), Err(expected.clone()));
        assert_eq!(buffer.copy_to_slice(&mut [0; 4]), Err(expected.clone()));
        let mut never_written = [const { MaybeUninit::uninit() }; 4];
        assert_eq!(buffer.copy_to_uninit(&mut never_written), Err(expected));
        buffer.copy_to_uninit(&mut never_written[..3]).unwrap();
        // SAFETY: the copy has written the first three.
        let values = [0, 1, 2].map(|index| unsafe { never_written[index].assume_init() });
        assert_eq!(values.as_slice(), buffer.to_vec().unwrap());
        assert!(matches!(
            Buffer::<u64>::uninit(&device, usize::MAX / 4),
            Err(DeviceError::BufferTooLarge {
                element_size: 8,
                ..
            })
        ));
    }
}

#[test]
fn a_pointer_can_start_within_its_buffer_but_not_beyond() {
    for device in devices() {
        let buffer = Buffer::from_slice(&device, &[0_u32; 4]).unwrap();
        let function = function(&device, "add_one");
        let stream = device.default_stream();
        let launch = |offset_bytes| {
            let allocation = buffer.allocation();
            let pointer = KernelArg::Pointer {
                name: "data",
                allocation,
                offset_bytes,
                bytes: 4,
                write: true,
            };
            stream.launch(&function, config(1, 32), &[pointer, scalar(1)])
        };
        launch(8).unwrap();
        assert_eq!(buffer.to_vec().unwrap(), [0, 0, 1, 0]);
        let error = launch(17).unwrap_err();
        assert!(
            matches!(
                error,
                DeviceError::ArgumentOffset {
                    index: 0,
                    offset: 17,
                    len: 16,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn arguments_have_to_match_the_parameters() {
    for device in devices() {
        let buffer = Buffer::<u32>::zeroed(&device, 4).unwrap();
        let function = function(&device, "add_one");
        let stream = device.default_stream();
        let launch = |args: &[KernelArg<'_>]| stream.launch(&function, config(1, 32), args);
        assert!(matches!(
            launch(&[write(&buffer)]),
            Err(DeviceError::ArgumentCount {
                expected: 2,
                actual: 1,
                ..
            })
        ));
        assert!(matches!(
            launch(&[scalar(1), scalar(1)]),
            Err(DeviceError::ArgumentSize {
                index: 0,
                expected: 8,
                actual: 4,
                ..
            })
        ));
        assert!(matches!(
            launch(&[write(&buffer), read(&buffer)]),
            Err(DeviceError::ArgumentSize {
                index: 1,
                expected: 4,
                actual: 8,
                ..
            })
        ));
        let too_long = KernelArg::Scalar {
            bytes: [0; 8],
            len: 9,
        };
        assert!(matches!(
            launch(&[write(&buffer), too_long]),
            Err(DeviceError::ArgumentSize {
                index: 1,
                actual: 9,
                ..
            })
        ));
        assert_eq!(buffer.to_vec().unwrap(), [0; 4]);
        // Not even where the kernel takes that many: the value has 8.
        let ptx = PTX.replace(".entry idle()", ".entry idle(.param .align 8 .b8 all[16])");
        let idle = device.load_module(&ptx).unwrap().function("idle").unwrap();
        let too_long = KernelArg::Scalar {
            bytes: [0; 8],
            len: 16,
        };
        let launched = stream.launch(&idle, config(1, 32), &[too_long]);
        assert!(matches!(
            launched,
            Err(DeviceError::ArgumentSize {
                expected: 16,
                actual: 16,
                ..
            })
        ));
    }
}

#[test]
fn shapes_have_to_be_possible() {
    for device in devices() {
        let buffer = Buffer::<u32>::zeroed(&device, 4).unwrap();
        let stream = device.default_stream();
        let refused = |kernel: &str, config: LaunchConfig| {
            let function = function(&device, kernel);
            let args = [write(&buffer), read(&buffer), scalar(4)];
            let args = match kernel {
                "idle" => &args[..0],
                _ => &args[..],
            };
            match stream.launch(&function, config, args) {
                Err(DeviceError::LaunchLimit { what, value, .. }) => (what, value),
                other => panic!("{config:?} gave {other:?}"),
            }
        };
        assert_eq!(refused("idle", config(0, 32)), ("grid x", 0));
        assert_eq!(refused("idle", config(1, 0)), ("block x", 0));
        assert_eq!(refused("idle", config(1, 1025)), ("block x", 1025));
        assert_eq!(
            refused(
                "idle",
                LaunchConfig {
                    block: [64, 32, 1],
                    ..config(1, 1)
                }
            ),
            ("block size in threads", 2048)
        );
        assert_eq!(
            refused(
                "idle",
                LaunchConfig {
                    grid: [1, 65_536, 1],
                    ..config(1, 1)
                }
            ),
            ("grid y", 65_536)
        );
        // The kernel says `.maxntid 64`.
        assert_eq!(
            refused("copy", config(1, 65)),
            ("block size in threads", 65)
        );
        let most = device.capabilities().shared_bytes_per_block_optin;
        let shared = |dynamic_shared| LaunchConfig {
            dynamic_shared,
            ..config(1, 32)
        };
        assert_eq!(
            refused("idle", shared(most + 1)),
            ("shared memory in bytes", u64::from(most) + 1)
        );
        // Above 48 KiB a launch has to opt in, which it does by itself.
        for dynamic_shared in [48 << 10, (48 << 10) + 16, most, 100, most] {
            stream
                .launch(&function(&device, "idle"), shared(dynamic_shared), &[])
                .unwrap();
        }
        // What the kernel itself declares counts, too.
        let ptx = PTX.replace(
            ".entry idle()\n{",
            ".entry idle()\n.maxntid 16, 4, 2\n{\n.shared .align 4 .b8 own[1024];\n.reg .b32 %zero;\nmov.b32 %zero, 0;\nst.volatile.shared.b32 [own], %zero;",
        );
        let idle = device.load_module(&ptx).unwrap().function("idle").unwrap();
        assert_eq!(
            (idle.static_shared_bytes(), idle.max_threads_per_block()),
            (1024, 128)
        );
        stream.launch(&idle, shared(most - 1024), &[]).unwrap();
        stream.launch(&idle, config(1, 128), &[]).unwrap();
        for refused in [shared(most - 1023), config(1, 129)] {
            let launched = stream.launch(&idle, refused, &[]);
            assert!(matches!(launched, Err(DeviceError::LaunchLimit { .. })));
        }
        stream.synchronize().unwrap();
    }
}

#[test]
fn a_kernel_is_given_more_shared_memory_only_where_a_launch_needs_it() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let idle = function(&device, "idle");
    for (dynamic_shared, calls) in [(0, 0), (48 << 10, 0), ((48 << 10) + 16, 1)] {
        let shape = LaunchConfig {
            dynamic_shared,
            ..config(1, 1)
        };
        device.default_stream().launch(&idle, shape, &[]).unwrap();
        assert_eq!(gpu.calls("cuFuncSetAttribute"), calls, "{dynamic_shared}");
    }
}

#[test]
fn a_cooperative_launch_has_to_fit_the_device() {
    for device in devices() {
        let stream = device.default_stream();
        let idle = function(&device, "idle");
        let cooperative = |grid| LaunchConfig {
            cooperative: true,
            ..config(grid, 32)
        };
        stream.launch(&idle, cooperative(4), &[]).unwrap();
        stream.synchronize().unwrap();
        let error = stream
            .launch(&idle, cooperative(10_000_000), &[])
            .unwrap_err();
        assert!(
            matches!(error, DeviceError::LaunchRefused { .. }),
            "{error}"
        );
        stream.launch(&idle, config(1, 32), &[]).unwrap();
        stream.synchronize().unwrap();
    }
}

#[test]
fn things_of_two_devices_do_not_meet() {
    let [gpu, emulated] = devices();
    let other = Device::emulated().unwrap();
    for (here, there) in [(&gpu, &emulated), (&emulated, &gpu), (&emulated, &other)] {
        let buffer = Buffer::<u32>::zeroed(there, 4).unwrap();
        let stream = here.default_stream();
        let mismatch = |result: Result<(), DeviceError>| {
            let error = result.unwrap_err();
            let text = error.to_string();
            let DeviceError::DeviceMismatch {
                what,
                found,
                expected,
            } = error
            else {
                panic!("{error:?}");
            };
            assert_eq!(
                (found.as_str(), expected.as_str()),
                (there.name(), here.name())
            );
            assert!(
                text.starts_with(&format!("{what} is on {found}, but")),
                "{text}"
            );
            let is_same_name = here.name() == there.name();
            assert_eq!(
                text.contains("another device of the same name"),
                is_same_name
            );
            assert_eq!(
                text.contains(&format!("the stream is on {expected}")),
                !is_same_name
            );
            what
        };
        let function_here = function(here, "add_one");
        let args = [write(&buffer), scalar(4)];
        let what = mismatch(stream.launch(&function_here, config(1, 32), &args));
        assert_eq!(what, "buffer `data` of kernel add_one");
        let function_there = function(there, "add_one");
        let what = mismatch(stream.launch(&function_there, config(1, 32), &args));
        assert_eq!(what, "kernel add_one");
        let event = there.default_stream().record().unwrap();
        stream.wait(&event).unwrap();
        let start = stream.record().unwrap();
        assert_eq!(
            mismatch(start.elapsed_ms(&event).map(drop)),
            "the end event"
        );
        let graph = Graph::capture(&there.default_stream(), |stream| add_one(stream, &buffer));
        assert_eq!(mismatch(graph.unwrap().launch(&stream)), "the graph");
        assert_eq!(buffer.to_vec().unwrap(), [0; 4]);
    }
}

#[test]
fn writing_a_read_only_argument_is_seen_on_the_emulator() {
    let device = Device::emulated().unwrap();
    let stream = device.default_stream();
    let buffer = Buffer::<u32>::zeroed(&device, 4).unwrap();
    let add = function(&device, "add_one");
    let error = stream
        .launch(&add, config(1, 32), &[read(&buffer), scalar(4)])
        .unwrap_err();
    assert!(
        matches!(
            error,
            DeviceError::ReadOnlyArgument {
                index: 0,
                bytes: 16,
                ..
            }
        ),
        "{error}"
    );
    // A single byte is enough.
    let bytewise = PTX.replacen("st.global.u32", "st.global.u8", 1);
    let bytewise = device.load_module(&bytewise).unwrap();
    let add_byte = bytewise.function("add_one").unwrap();
    let error = stream
        .launch(&add_byte, config(1, 32), &[read(&buffer), scalar(1)])
        .unwrap_err();
    assert!(
        matches!(error, DeviceError::ReadOnlyArgument { bytes: 1, .. }),
        "{error}"
    );
    // The same buffer as two arguments, of which one is written.
    let copy = function(&device, "copy");
    let args = [write(&buffer), read(&buffer), scalar(4)];
    stream.launch(&copy, config(1, 32), &args).unwrap();
    // That another one may be written does not help.
    let other = Buffer::<u32>::zeroed(&device, 4).unwrap();
    let args = [read(&buffer), write(&other), scalar(4)];
    let error = stream.launch(&copy, config(1, 32), &args).unwrap_err();
    assert!(
        matches!(error, DeviceError::ReadOnlyArgument { index: 0, .. }),
        "{error}"
    );
}

#[test]
fn the_emulator_reports_what_each_argument_saw() {
    let device = Device::emulated().unwrap();
    let stream = device.default_stream();
    let from = Buffer::from_slice(&device, &[7_u32; 40]).unwrap();
    let to = Buffer::<u32>::zeroed(&device, 40).unwrap();
    let copy = function(&device, "copy");
    let launch = |stream: &Stream, n| {
        stream.launch(&copy, config(2, 32), &[write(&to), read(&from), scalar(n)])
    };
    launch(&stream, 40).unwrap();
    let graph = Graph::capture(&stream, |stream| launch(stream, 40)).unwrap();
    let (result, reports) = device
        .profile(|| {
            launch(&stream, 40)?;
            graph.launch(&stream)?;
            launch(&stream, 0)
        })
        .unwrap();
    result.unwrap();
    assert_eq!(reports.len(), 3);
    for (report, bytes) in reports.iter().zip([160, 160, 0]) {
        assert_eq!(
            (report.kernel.as_str(), report.config),
            ("copy", config(2, 32))
        );
        let expected = |index, bytes_read, bytes_written| ArgumentTraffic {
            index,
            address: [&to, &from][index].device_ptr(),
            len: 160,
            bytes_read,
            bytes_written,
            sectors_read: bytes_read / 32,
            sectors_written: bytes_written / 32,
        };
        let expected = [expected(0, 0, bytes), expected(1, bytes, 0)];
        assert_eq!(report.arguments, expected);
    }
    let [gpu, _] = devices();
    assert!(matches!(
        gpu.profile(|| ()),
        Err(DeviceError::Unsupported { .. })
    ));
}
