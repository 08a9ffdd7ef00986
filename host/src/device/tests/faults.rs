//! Errors of the driver, and what is left of a device after a fault.

use super::*;

const OUT_OF_MEMORY: i32 = 2;
const INVALID_VALUE: i32 = 1;
const NOT_FOUND: i32 = 500;
const ILLEGAL_ADDRESS: i32 = 700;
const LAUNCH_FAILED: i32 = 719;
const ECC_UNCORRECTABLE: i32 = 214;
/// Not a code that CUDA 11.4 knew.
const DEVICE_UNAVAILABLE: i32 = 46;

fn lost(error: DeviceError) -> (String, Vec<LaunchRecord>) {
    match error {
        DeviceError::Lost {
            cause, launches, ..
        } => (cause, launches),
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_runs_out_with_the_numbers() {
    for device in devices() {
        let total = device.capabilities().memory_bytes;
        match Buffer::<u8>::uninit(&device, total + 1).unwrap_err() {
            DeviceError::OutOfMemory {
                device: name,
                requested,
                free,
                total: reported,
            } => {
                assert_eq!((name.as_str(), requested), (device.name(), total + 1));
                assert!(free <= reported && (is_real(&device) || reported == total));
            }
            other => panic!("{other:?}"),
        }
        // Nothing is wrong with the device.
        Buffer::<u8>::zeroed(&device, 16).unwrap();
    }
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    gpu.inject("cuMemAlloc_v2", 3, OUT_OF_MEMORY);
    let results = [(); 4].map(|()| Buffer::<u8>::uninit(&device, 100).map(drop).is_ok());
    assert_eq!(results, [true, true, false, true]);
}

#[test]
fn an_overrun_loses_the_device_and_names_the_launch() {
    let emulated = Device::emulated().unwrap();
    let fake = FakeGpu::take().map(|gpu| gpu.open());
    for device in std::iter::once(emulated).chain(fake) {
        let stream = device.new_stream().unwrap();
        let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
        let empty = Buffer::<u32>::zeroed(&device, 0).unwrap();
        let module = device.load_static_module(PTX).unwrap();
        let add = module.function("add_one").unwrap();
        add_one(&stream, &buffer).unwrap();
        let event = stream.record().unwrap();
        let of_caller = external::callers_stream(&device);
        stream.synchronize().unwrap();
        let error = overrun(&stream, &buffer)
            .and_then(|()| stream.synchronize())
            .unwrap_err();
        let (cause, launches) = lost(error.clone());
        assert_eq!(launches.len(), 1, "{error}");
        assert_eq!(
            (launches[0].kernel.as_str(), launches[0].sequence),
            ("add_one", 2)
        );
        if device.kind() == DeviceKind::Emulated {
            assert!(cause.contains("out-of-bounds"), "{cause}");
            assert!(
                error
                    .to_string()
                    .contains("launch 2 (add_one, grid 129x1x1"),
                "{error}"
            );
        } else {
            assert!(cause.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{cause}");
        }

        assert!(device.is_lost());
        let another = Device::emulated().unwrap();
        // The same words from everything, from here on.
        let further = [
            device.load_module(PTX).unwrap_err(),
            device.load_static_module(PTX).unwrap_err(),
            module.function("add_one").unwrap_err(),
            stream
                .launch(&add, config(1, 32), &[write(&buffer), scalar(8)])
                .unwrap_err(),
            stream.synchronize().unwrap_err(),
            of_caller.synchronize().unwrap_err(),
            device.synchronize().unwrap_err(),
            device.memory_info().unwrap_err(),
            device.can_access_peer(&another).unwrap_err(),
            device
                .enable_pool(MemoryPoolConfig::default())
                .map(drop)
                .unwrap_err(),
            stream.record().unwrap_err(),
            event.synchronize().unwrap_err(),
            event.elapsed_ms(&event).unwrap_err(),
            buffer.to_vec().unwrap_err(),
            empty.to_vec().unwrap_err(),
            Buffer::<u32>::uninit(&device, 1).unwrap_err(),
            device.new_stream().unwrap_err(),
            Graph::capture(&stream, |_| Ok::<_, DeviceError>(())).unwrap_err(),
            // SAFETY: null is a stream of every device.
            unsafe { Stream::from_raw(&device, std::ptr::null_mut()) }.unwrap_err(),
            // SAFETY: nothing uses the memory.
            unsafe { Buffer::<u32>::from_raw(&device, buffer.device_ptr(), 8) }.unwrap_err(),
        ];
        for again in further {
            assert_eq!(again, error);
        }
    }
}

#[test]
fn several_launches_are_suspects_until_one_waits() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let (a, b) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
    add_one(&a, &buffer).unwrap();
    a.record().unwrap().synchronize().unwrap();
    overrun(&a, &buffer).unwrap();
    add_one(&a, &buffer).unwrap();
    add_one(&b, &buffer).unwrap();
    let error = buffer.to_vec().unwrap_err();
    assert!(
        error.to_string().contains("one of: launch 2 (add_one, "),
        "{error}"
    );
    let (_, launches) = lost(error);
    let mut sequences: Vec<u64> = launches.iter().map(|launch| launch.sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, [1, 2, 3]);
}

#[test]
fn the_emulator_always_knows_the_launch() {
    let device = Device::emulated().unwrap();
    let stream = device.default_stream();
    let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
    for _ in 0..3 {
        add_one(&stream, &buffer).unwrap();
    }
    let (_, launches) = lost(overrun(&stream, &buffer).unwrap_err());
    assert_eq!(launches.len(), 1);
    assert_eq!(launches[0].sequence, 4);
}

#[test]
fn a_fault_within_a_graph_names_the_graph() {
    let emulated = Device::emulated().unwrap();
    let fake = FakeGpu::take().map(|gpu| gpu.open());
    for device in std::iter::once(emulated).chain(fake) {
        let stream = device.new_stream().unwrap();
        let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
        let graph = Graph::capture(&stream, |stream| {
            add_one(stream, &buffer)?;
            overrun(stream, &buffer)
        })
        .unwrap();
        let error = graph
            .launch(&stream)
            .and_then(|()| stream.synchronize())
            .unwrap_err();
        let (_, launches) = lost(error);
        assert_eq!(launches[0].kernel, "graph of add_one, add_one");
        assert_eq!(launches[0].config, None);
    }
}

#[test]
fn a_lost_gpu_is_not_called_again_and_can_be_opened_anew() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
    gpu.inject("cuStreamSynchronize", 1, ECC_UNCORRECTABLE);
    lost(stream.synchronize().unwrap_err());
    let frees = gpu.calls("cuMemFree_v2");

    let again = gpu.open();
    assert_ne!(again, device);
    // Not even by a thread that was about to call it, and would do so in the new context.
    let creates = gpu.calls("cuStreamCreate");
    let created = device.core().driver.create_stream();
    assert!(matches!(created, Err(driver::DriverError::Fault { .. })));
    assert_eq!(gpu.calls("cuStreamCreate"), creates);
    let fresh = Buffer::from_slice(&again, &[1_u32]).unwrap();
    drop((buffer, stream));
    assert_eq!(
        gpu.calls("cuMemFree_v2"),
        frees,
        "the old memory went with the context"
    );
    assert!(device.is_lost() && !again.is_lost());
    add_one(&again.default_stream(), &fresh).unwrap();
    assert_eq!(fresh.to_vec().unwrap(), [2]);
    drop(device);
    assert_eq!(
        fresh.to_vec().unwrap(),
        [2],
        "the old handle took nothing along"
    );
    assert_eq!(gpu.open(), again);
}

#[test]
fn a_gpu_that_cannot_be_reset_stays_lost() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    gpu.inject("cuStreamSynchronize", 1, LAUNCH_FAILED);
    lost(device.synchronize().unwrap_err());
    gpu.inject("cuDevicePrimaryCtxReset_v2", 1, LAUNCH_FAILED);
    lost(Device::cuda(gpu.ordinal).unwrap_err());
}

#[test]
fn driver_errors_carry_call_name_and_code() {
    let Some(gpu) = FakeGpu::take() else { return };
    gpu.inject("cuDevicePrimaryCtxRetain", 1, DEVICE_UNAVAILABLE);
    match Device::cuda(gpu.ordinal).unwrap_err() {
        DeviceError::Driver { call, code, .. } => {
            assert_eq!(
                (call, code),
                ("cuDevicePrimaryCtxRetain", DEVICE_UNAVAILABLE)
            );
        }
        other => panic!("{other:?}"),
    }
    let device = gpu.open();
    let mut buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
    for (entry, call) in [
        ("cuMemcpyHtoDAsync_v2", "cuMemcpyHtoDAsync"),
        ("cuMemcpyDtoHAsync_v2", "cuMemcpyDtoHAsync"),
        ("cuMemsetD8Async", "cuMemsetD8Async"),
        ("cuEventCreate", "cuEventCreate"),
        ("cuEventRecord", "cuEventRecord"),
        ("cuStreamCreate", "cuStreamCreate"),
        ("cuStreamBeginCapture_v2", "cuStreamBeginCapture"),
        ("cuStreamEndCapture", "cuStreamEndCapture"),
        ("cuGraphInstantiateWithFlags", "cuGraphInstantiate"),
        ("cuGraphLaunch", "cuGraphLaunch"),
        ("cuModuleLoadDataEx", "cuModuleLoadDataEx"),
    ] {
        gpu.inject(entry, 1, 801);
        let loads = || gpu.calls("cuModuleLoadDataEx");
        let (alive, loaded) = (gpu.alive(), loads());
        let mut round = || -> Result<(), DeviceError> {
            buffer.copy_from_slice(&[0; 8])?;
            buffer.fill_bytes(0)?;
            buffer.to_vec()?;
            let stream = device.new_stream()?;
            stream.record()?;
            device.load_module(&format!("// {entry}\n{PTX}"))?;
            let graph = Graph::capture(&stream, |stream| add_one(stream, &buffer))?;
            graph.launch(&stream)?;
            stream.synchronize()
        };
        match round().unwrap_err() {
            DeviceError::Driver {
                call: named,
                code: 801,
                ..
            } => assert_eq!(named, call),
            other => panic!("{entry}: {other:?}"),
        }
        assert!(!device.is_lost());
        round().unwrap();
        assert_eq!(buffer.to_vec().unwrap(), [1; 8], "after {entry}");
        // Modules stay loaded; everything else that the two rounds made is gone.
        let modules = loads() - loaded - u64::from(entry == "cuModuleLoadDataEx");
        assert_eq!(gpu.alive(), alive + modules, "{entry} leaks");
    }
}

#[test]
fn what_the_machine_is_the_reason_for_is_said_with_what_helps() {
    let Some(gpu) = FakeGpu::take() else { return };
    for (code, remedy) in [
        (OUT_OF_MEMORY, "memory is full"),
        (DEVICE_UNAVAILABLE, "compute mode"),
    ] {
        gpu.inject("cuDevicePrimaryCtxRetain", 1, code);
        let error = Device::cuda(gpu.ordinal).unwrap_err().to_string();
        assert!(error.contains(remedy), "{error}");
    }
    let device = gpu.open();
    // CUDA_ERROR_JIT_COMPILER_NOT_FOUND, JIT_COMPILATION_DISABLED
    for (code, remedy) in [(221, "ptxjitcompiler"), (223, "CUDA_DISABLE_PTX_JIT")] {
        gpu.inject("cuModuleLoadDataEx", 1, code);
        let error = device.load_module(PTX).unwrap_err().to_string();
        assert!(error.contains(remedy), "{error}");
    }
    // Newer than the double's driver.
    let newer = PTX.replace(".version 6.4", ".version 9.0");
    let error = device.load_module(&newer).unwrap_err().to_string();
    assert!(
        error.contains("Unsupported .version 9.0") && error.contains("newer one"),
        "{error}"
    );
    device.load_module(PTX).unwrap();
}

#[test]
fn a_failed_launch_runs_nothing() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
    gpu.inject("cuLaunchKernel", 1, INVALID_VALUE);
    let error = add_one(&stream, &buffer).unwrap_err();
    assert!(
        matches!(error, DeviceError::LaunchRefused { .. }),
        "{error}"
    );
    assert_eq!(buffer.to_vec().unwrap(), [0; 8]);
    // It is not among the suspects of a later fault.
    overrun(&stream, &buffer).unwrap();
    let (_, launches) = lost(stream.synchronize().unwrap_err());
    assert_eq!((launches.len(), launches[0].sequence), (1, 1));
}

#[test]
fn the_last_sixteen_launches_are_suspects() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
    for _ in 0..20 {
        add_one(&stream, &buffer).unwrap();
    }
    overrun(&stream, &buffer).unwrap();
    let (_, launches) = lost(stream.synchronize().unwrap_err());
    let sequences: Vec<u64> = launches.iter().map(|launch| launch.sequence).collect();
    assert_eq!(sequences, (6..=21).collect::<Vec<u64>>());
}

#[test]
fn an_old_driver_has_the_parameters_read_from_the_ptx() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    gpu.inject("cuFuncGetParamInfo", 1, NOT_FOUND);
    let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
    let stream = device.default_stream();
    let add = function(&device, "add_one");
    let error = stream
        .launch(&add, config(1, 32), &[write(&buffer)])
        .unwrap_err();
    assert!(
        matches!(
            error,
            DeviceError::ArgumentCount {
                expected: 2,
                actual: 1,
                ..
            }
        ),
        "{error}"
    );
    stream
        .launch(&add, config(1, 32), &[write(&buffer), scalar(8)])
        .unwrap();
    assert_eq!(buffer.to_vec().unwrap(), [1; 8]);
}

#[test]
fn a_fault_found_while_dropping_is_not_forgotten() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
    add_one(&stream, &buffer).unwrap();
    gpu.inject("cuStreamSynchronize", 1, ILLEGAL_ADDRESS);
    drop(buffer);
    let (cause, launches) = lost(stream.synchronize().unwrap_err());
    assert!(cause.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{cause}");
    assert_eq!(launches.len(), 1);
}

#[test]
fn a_device_lost_anywhere_around_a_graph_says_so_and_leaves_nothing() {
    for pool in [false, true] {
        for (entry, nth) in [
            ("cuStreamBeginCapture_v2", 1),
            ("cuLaunchKernel", 1),
            ("cuLaunchKernel", 2),
            ("cuStreamEndCapture", 1),
            ("cuGraphInstantiateWithFlags", 1),
            ("cuGraphLaunch", 1),
            ("cuGraphExecUpdate_v2", 1),
            ("cuGraphLaunch", 2),
            ("cuStreamSynchronize", 2),
        ] {
            let Some(gpu) = FakeGpu::take() else { return };
            let device = gpu.open();
            if pool {
                device.enable_pool(MemoryPoolConfig::default()).unwrap();
            }
            let stream = device.new_stream().unwrap();
            let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
            gpu.inject(entry, nth, ECC_UNCORRECTABLE);
            let twice = |stream: &Stream| {
                add_one(stream, &buffer)?;
                add_one(stream, &buffer)
            };
            let round = || -> Result<(), DeviceError> {
                let mut graph = Graph::capture(&stream, twice)?;
                graph.launch(&stream)?;
                stream.synchronize()?;
                graph.update(&stream, twice)?;
                graph.launch(&stream)?;
                stream.synchronize()
            };
            let (cause, _) = lost(round().unwrap_err());
            assert!(
                cause.contains("ECC_UNCORRECTABLE") || cause.contains("214"),
                "{cause}"
            );
            if entry == "cuLaunchKernel" {
                assert_eq!(gpu.calls("cuStreamEndCapture"), 0, "the context is gone");
            }
            let again = gpu.open();
            let fresh = Buffer::<u32>::zeroed(&again, 8).unwrap();
            add_one(&again.default_stream(), &fresh).unwrap();
            drop((buffer, stream, device));
            assert_eq!(fresh.to_vec().unwrap(), [1; 8], "{entry} {nth}");
            drop((fresh, again));
            assert_eq!(gpu.alive(), 0, "{entry} {nth}, pool {pool}");
        }
    }
}

/// In a process of its own: on a real GPU the fault may take all later work of its process with it, which is what this is to find out.
#[test]
fn a_fault_of_the_real_driver_is_reported_and_the_gpu_opened_anew_or_refused() {
    const CHILD: &str = "BITNET_TEST_FAULT";
    const NAME: &str = "device::tests::faults::a_fault_of_the_real_driver_is_reported_and_the_gpu_opened_anew_or_refused";
    if cfg!(miri) || FAKE.is_some() {
        eprintln!("skipped: this is about the real driver");
        return;
    }
    if env::var_os(CHILD).is_none() {
        take_turn();
        let child = std::process::Command::new(env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (printed, errors) = (text(&child.stdout), text(&child.stderr));
        assert!(child.status.success(), "{printed}{errors}");
        assert!(printed.contains("1 passed"), "{printed}");
        println!("{printed}");
        return;
    }
    let device = Device::cuda(real_ordinal()).unwrap();
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
    // A GiB beyond the buffer: what lies next to it in its page is mapped.
    let n = 1 << 28;
    let launched = stream.launch(
        &function(&device, "add_one"),
        config(n / 256, 256),
        &[write(&buffer), scalar(n)],
    );
    let (cause, launches) = lost(launched.and_then(|()| stream.synchronize()).unwrap_err());
    assert!(cause.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{cause}");
    assert_eq!(launches[0].kernel, "add_one");
    match Device::cuda(real_ordinal()) {
        Ok(again) => {
            println!("the GPU was opened anew");
            let fresh = Buffer::<u32>::zeroed(&again, 8).unwrap();
            add_one(&again.default_stream(), &fresh).unwrap();
            drop((buffer, stream, device));
            assert_eq!(fresh.to_vec().unwrap(), [1; 8]);
        }
        // "To continue using CUDA, the process must be terminated and relaunched", says the reference of this code.
        Err(error) => println!("the driver refuses until the process ends: {error}"),
    }
}
