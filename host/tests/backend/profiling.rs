//! What a backend records of the operations that it runs.

use super::*;
use bitnet_cuda::device::{Device, Graph};
use bitnet_cuda::ops::{BitLinear, Norm, OpError, quantize_activations};

#[test]
fn the_floor_of_an_operation_is_of_its_bytes_or_of_its_launches() {
    let ceilings = Ceilings {
        copy_bytes_per_second: 2e12,
        launch_floor_ms: 0.002,
    };
    assert_eq!(ceilings.floor_ms(8_000_000_000, 3), 4.0);
    assert_eq!(ceilings.floor_ms(1000, 3), 0.006);
}

#[test]
fn profiling_records_products_with_the_emulators_counts() {
    let silent = CudaBackend::new(on(DeviceId::Emulated)).unwrap();
    check(&silent, &case(9, 1, 32, 128), Layout::Tiled);
    assert!(silent.take_profile().unwrap().is_empty() && silent.ceilings().is_none());

    let backend = CudaBackend::new(CudaBackendConfig {
        enable_profiling: true,
        ..on(DeviceId::Emulated)
    })
    .unwrap();
    let variant = check(&backend, &case(9, 1, 32, 256), Layout::Tiled);
    check(&backend, &case(9, 2, 32, 256), Layout::Tiled);
    let profiles = backend.take_profile().unwrap();
    assert!(backend.take_profile().unwrap().is_empty());
    assert_eq!(profiles.len(), 2);
    let first = &profiles[0];
    assert_eq!(first.operation, Operation::product("w2a8_gemv", 1, 32, 256));
    assert_eq!(
        (first.kernels.as_slice(), first.stream),
        (&[variant.to_owned()][..], 0)
    );
    // Weights, their scales, activations, their scale and sum, outputs.
    let bytes = 32 * 256 / 4 + 4 * 32 + 256 + 4 + 4 + 4 * 32;
    assert_eq!(
        (first.bytes, first.operations()),
        (bytes, Some(2 * 32 * 256))
    );
    assert_eq!(
        (
            first.milliseconds,
            first.gigabytes_per_second(),
            first.share_of_ceiling()
        ),
        (None, None, None)
    );
    // Every weight takes part in a dp4a of four.
    assert!(first.counters[0].lane.dp4a >= 32 * 256 / 4);
    // The emulator has counted the same bytes: no more were stated than touched, and none was touched twice.
    let global = &first.counters[0].global;
    assert!(global.bytes_written == 4 * 32 && global.bytes_read >= bytes as u64 - 4 * 32);

    let trace = chrome_trace(&profiles);
    assert_eq!(trace["otherData"]["time"], "ordinal");
    let events = trace["traceEvents"].as_array().unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(
        (&events[1]["ph"], &events[1]["ts"], &events[1]["dur"]),
        (&"X".into(), &1.0.into(), &1.0.into())
    );
    let args = &events[1]["args"];
    assert_eq!(
        [&args["m"], &args["n"], &args["k"], &args["operations"]],
        [2, 32, 256, 2 * 2 * 32 * 256]
    );
    assert_eq!(
        events[0]["args"]["counters"][0]["lane"]["dp4a"],
        first.counters[0].lane.dp4a
    );
}

/// Norm, quantization and product, recorded one by one and as one captured graph.
fn record_layer(backend: &CudaBackend) -> Vec<OpProfile> {
    let (m, n, k) = (2, 32, 256);
    let device = backend.device();
    let norm = Norm::rms(device, k, Some(&vec![1.0; k]), 1e-5).unwrap();
    let layer = BitLinear::from_weights(device, &vec![0.5_f32; n * k], n, k).unwrap();
    let x = Buffer::from_slice(device, &vec![1.0_f32; m * k]).unwrap();
    let mut normed = Buffer::<f32>::uninit(device, m * k).unwrap();
    let mut quantized = QuantizedActivations::uninit(device, m, k).unwrap();
    let mut y = Buffer::<f32>::uninit(device, m * n).unwrap();
    let stream = backend.stream(1);
    let record = |operation: Operation, work: &mut dyn FnMut(&Stream) -> Result<(), OpError>| {
        backend.record(operation, stream, work).unwrap();
    };
    record("norm".into(), &mut |stream| {
        norm.normalize(stream, &x, &mut normed)
    });
    record("quantize".into(), &mut |stream| {
        quantize_activations(stream, &normed, &mut quantized)
    });
    record(Operation::product("linear", m, n, k), &mut |stream| {
        layer.forward_quantized(stream, &quantized, &mut y)
    });
    let graph = Graph::capture(stream, |stream| -> Result<(), OpError> {
        norm.normalize(stream, &x, &mut normed)?;
        quantize_activations(stream, &normed, &mut quantized)
    })
    .unwrap();
    record("graph".into(), &mut |stream| Ok(graph.launch(stream)?));
    let refused: Result<(), OpError> = backend.record("refused", stream, |stream| {
        norm.normalize(stream, &x, &mut Buffer::<f32>::uninit(device, 1)?)
    });
    assert!(refused.is_err());
    backend.take_profile().unwrap()
}

#[test]
fn every_operation_can_be_recorded_on_both_drivers() {
    let (m, n, k) = (2, 32, 256);
    for config in configs() {
        let timed = config.device_id != DeviceId::Emulated;
        let backend = CudaBackend::new(CudaBackendConfig {
            enable_profiling: true,
            ..config
        })
        .unwrap();
        let profiles = record_layer(&backend);
        let names: Vec<_> = profiles
            .iter()
            .map(|profile| profile.operation.name)
            .collect();
        assert_eq!(names, ["norm", "quantize", "linear", "graph"]);
        let bytes: Vec<_> = profiles.iter().map(|profile| profile.bytes).collect();
        let (norm, quantize) = (4 * (2 * m * k + k), 4 * m * k + m * k + 8 * m);
        let linear = n * k / 4 + 4 * n + m * k + 8 * m + 4 * m * n;
        assert_eq!(bytes, [norm, quantize, linear, norm + quantize]);
        assert!(profiles.iter().all(|profile| profile.stream == 1));
        let launches: Vec<_> = profiles.iter().map(|profile| profile.launches).collect();
        assert_eq!(launches, [1, 1, 1, 2]);
        assert_eq!(profiles[3].kernels.len(), 1);
        assert_eq!(
            profiles[3].kernels[0],
            format!(
                "graph of {}, {}",
                profiles[0].kernels[0], profiles[1].kernels[0]
            )
        );
        let trace = chrome_trace(&profiles);
        assert_eq!(trace["traceEvents"][2]["tid"], 1);
        if !timed {
            assert!(profiles.iter().all(|profile| profile.floor_ms.is_none()));
            assert_eq!(profiles[3].counters.len(), 2);
            continue;
        }
        let ceilings = backend.ceilings().expect("a GPU has ceilings");
        assert!(ceilings.copy_bytes_per_second > 0.0 && ceilings.launch_floor_ms > 0.0);
        for profile in &profiles {
            let floor = ceilings.floor_ms(profile.bytes, profile.launches);
            assert_eq!(profile.floor_ms, Some(floor));
            let milliseconds = f64::from(profile.milliseconds.expect("a GPU has a clock"));
            assert!(milliseconds > 0.0);
            assert_eq!(profile.share_of_ceiling(), Some(floor / milliseconds));
        }
        let starts: Vec<_> = profiles
            .iter()
            .map(|profile| profile.start_ms.unwrap())
            .collect();
        assert!(starts[0] == 0.0 && starts.is_sorted());
        assert_eq!(trace["otherData"]["time"], "device");
        if fake::load() {
            let events = &trace["traceEvents"];
            assert_eq!(
                (&events[1]["ts"], &events[1]["dur"]),
                (&750.0.into(), &500.0.into())
            );
            assert_eq!(profiles[0].gigabytes_per_second(), Some(norm as f64 / 5e5));
            // A quarter of a millisecond for each piece of work, of which an event is one, on the double's clock.
            assert_eq!(profiles[0].milliseconds, Some(0.5));
            assert_eq!(starts, [0.0, 0.75, 1.5, 2.25]);
            assert_eq!(ceilings.launch_floor_ms, 0.5 / 64.0);
            assert_eq!(profiles[3].floor_ms, Some(1.0 / 64.0));
            // A quarter of its 256 MiB, which is less than twice the L2 cache, read and written in half a millisecond.
            let copied = ceilings.copy_bytes_per_second * 0.5e-3 / 2.0;
            let mib = f64::from(1 << 20);
            assert!((60.0 * mib..64.0 * mib).contains(&copied), "{copied}");
        }
    }
}

#[test]
fn a_stream_of_another_device_is_refused_and_costs_no_profile() {
    let other = Device::emulated().unwrap();
    for config in configs() {
        let backend = CudaBackend::new(CudaBackendConfig {
            enable_profiling: true,
            ..config
        })
        .unwrap();
        check(&backend, &case(9, 1, 32, 128), Layout::Tiled);
        let refused = backend.record("other", &other.default_stream(), |_| {
            Ok::<_, DeviceError>(())
        });
        assert!(
            matches!(refused, Err(DeviceError::DeviceMismatch { .. })),
            "{refused:?}"
        );
        check(&backend, &case(9, 1, 32, 128), Layout::Tiled);
        assert_eq!(backend.take_profile().unwrap().len(), 2);
    }
}

#[test]
fn ceilings_are_measured_beside_a_small_pool() {
    let Some((config, _)) = double() else { return };
    let backend = CudaBackend::new(CudaBackendConfig {
        enable_profiling: true,
        memory_pool_size: Some(8 << 20),
        ..config
    })
    .unwrap();
    assert!(backend.ceilings().is_some());
}

#[test]
fn threads_profile_their_own_work() {
    for config in configs() {
        let backend = CudaBackend::new(CudaBackendConfig {
            enable_profiling: true,
            ..config
        })
        .unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let backend = &backend;
                scope.spawn(move || {
                    for round in 0..3 {
                        check(
                            backend,
                            &case(thread * 10 + round, 1, 32, 128),
                            Layout::Tiled,
                        );
                    }
                });
            }
        });
        let profiles = backend.take_profile().unwrap();
        assert_eq!(profiles.len(), 12);
        let bytes = profiles[0].bytes;
        assert!(
            profiles
                .iter()
                .all(|profile| profile.bytes == bytes && profile.kernels.len() == 1)
        );
    }
}
