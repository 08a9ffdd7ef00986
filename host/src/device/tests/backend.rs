//! What the backend has several GPUs, and several threads, do at the same time.

use std::{sync::mpsc, thread, time::Duration};

use super::*;
use crate::backend::{CudaBackend, CudaBackendConfig, DeviceId, Split, SplitLinear};
use crate::layout::{Layout, PackedWeights};
use crate::reference::RowScales;

#[test]
fn a_split_layer_waits_for_no_gpu_before_all_have_their_work() {
    let Some(gpu) = FakeGpu::take() else { return };
    let other = gpu.other(true);
    let devices = [gpu.open(), other.open()];
    for device in &devices {
        // Its launches are then calls of one entry point.
        device.set_programmatic_launch(false);
    }
    let waits = || -> u64 {
        let entries = [
            "cuStreamSynchronize",
            "cuEventSynchronize",
            "cuCtxSynchronize",
        ];
        entries.iter().map(|entry| gpu.calls(entry)).sum()
    };
    // How often the first GPU is waited for until the other one is given its first kernel.
    let waits_before_all_work = |forward: &mut (dyn FnMut() + Send)| {
        let before = waits();
        thread::scope(|scope| {
            let held = other.hold("cuLaunchKernel");
            let call = scope.spawn(forward);
            while held.calls() == 0 && !call.is_finished() {
                thread::yield_now();
            }
            assert_eq!(held.calls(), 1);
            waits() - before
        })
    };
    let (m, n, k) = (2, 32, 64);
    let packed = PackedWeights::pack(Layout::Tiled, &vec![1; n * k], n, k).unwrap();
    let scales = RowScales::per_tensor(n, 1.0).unwrap();
    let input = vec![1.0_f32; m * k];
    for split in [Split::Rows, Split::Batch] {
        let layer = SplitLinear::new(&devices, &packed, &scales, split).unwrap();
        let stream = devices[0].new_stream().unwrap();
        let mut output = Buffer::<f32>::uninit(&devices[0], m * n).unwrap();
        let before = waits();
        let x = Buffer::from_slice(&devices[0], &input).unwrap();
        let upload = waits() - before;
        // Also loads the kernels.
        layer.forward_on(&stream, &x, &mut output).unwrap();
        let mut on_host = Vec::new();
        let waited = waits_before_all_work(&mut || on_host = layer.forward(&input).unwrap());
        assert_eq!(waited, upload, "{split:?}");
        let mut on_device = || layer.forward_on(&stream, &x, &mut output).unwrap();
        assert_eq!(waits_before_all_work(&mut on_device), 0, "{split:?}");
        assert_eq!(on_host, vec![k as f32; m * n]);
        assert_eq!(output.to_vec().unwrap(), on_host);
    }
}

#[test]
fn operations_are_recorded_while_the_ceilings_are_measured() {
    let Some(gpu) = FakeGpu::take() else { return };
    let config = CudaBackendConfig {
        device_id: DeviceId::Cuda(gpu.ordinal),
        enable_profiling: true,
        ..CudaBackendConfig::default()
    };
    let backend = CudaBackend::new(config).unwrap();
    let nothing = || backend.record("nothing", backend.stream(0), |_| Ok::<_, DeviceError>(()));
    nothing().unwrap();
    thread::scope(|scope| {
        // Replays are a part of the measurement.
        let held = gpu.hold("cuGraphLaunch");
        let taken = scope.spawn(|| backend.take_profile().unwrap().len());
        while held.calls() == 0 && !taken.is_finished() {
            thread::yield_now();
        }
        assert_eq!(held.calls(), 1);
        let (done, recorded) = mpsc::channel();
        scope.spawn(move || done.send(nothing()));
        let recorded = recorded.recv_timeout(Duration::from_secs(20));
        drop(held);
        recorded
            .expect("an operation does not wait for the measurement")
            .unwrap();
        assert_eq!(taken.join().unwrap(), 1);
    });
    assert_eq!(backend.take_profile().unwrap().len(), 1);
}
