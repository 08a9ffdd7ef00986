//! What the tuner has a device do.

use super::programmatic::add_one_by;
use super::*;
use crate::launch::tune::{TuneConfig, tune_gemv};

/// `CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE`.
const L2_CACHE_SIZE: i32 = 38;

#[test]
fn tuning_measures_launches_that_do_not_overlap_and_leaves_the_choice_as_it_was() {
    for on in [true, false] {
        let Some(gpu) = FakeGpu::take() else { return };
        let device = gpu.open();
        device.set_programmatic_launch(on);
        let config = TuneConfig { rounds: 2 };
        let mut progress = Vec::new();
        let done = |done, of| progress.push((done, of));
        let tuning = tune_gemv(&device, (8, 16, 128), &config, done).unwrap();
        // On the double's clock a replay takes half a millisecond; it has 32 launches.
        let microseconds = 500.0 / 32.0;
        assert!(
            tuning
                .candidates
                .iter()
                .all(|candidate| (candidate.rounds, candidate.cost.value) == (2, microseconds))
        );
        let all = 2 * tuning.candidates.len();
        let each = (1..=all).chain([all]).map(|done| (done, all));
        assert_eq!(progress, each.collect::<Vec<_>>());
        let candidates = tuning.candidates.len() as u64;
        assert_eq!(gpu.calls("cuLaunchKernel"), 32 * candidates);
        // One warms up, and each that is timed comes behind another one.
        assert_eq!(gpu.calls("cuGraphLaunch"), (1 + 2 * 2) * candidates);
        assert_eq!(gpu.calls("cuLaunchKernelEx"), 0);
        assert_eq!(device.programmatic_launch(), on);
        // What the entry is valid for is this GPU's.
        let capabilities = device.capabilities();
        assert_eq!(tuning.key.device, capabilities.model);
        assert_eq!(
            (tuning.key.driver, tuning.key.driver.is_some()),
            (capabilities.driver_version, true)
        );
    }
}

#[test]
fn what_others_launch_while_variants_are_captured_is_launched_early() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let buffer = Buffer::<u32>::zeroed(&device, 100).unwrap();
    // Loads the kernel.
    add_one_by(&stream, "follow", &buffer).unwrap();
    let early = gpu.calls("cuLaunchKernelEx");
    let config = TuneConfig { rounds: 1 };
    std::thread::scope(|scope| {
        let held = gpu.hold("cuLaunchKernel");
        let tuned = scope.spawn(|| tune_gemv(&device, (8, 16, 128), &config, |_, _| {}));
        while held.calls() == 0 && !tuned.is_finished() {
            std::thread::yield_now();
        }
        // The first launch of the first capture.
        assert_eq!(held.calls(), 1);
        assert!(device.programmatic_launch());
        add_one_by(&other, "follow", &buffer).unwrap();
        assert_eq!(gpu.calls("cuLaunchKernelEx"), early + 1);
        drop(held);
        tuned.join().unwrap().unwrap();
    });
}

#[test]
fn tuning_rotates_over_weights_of_twice_the_cache() {
    let Some(gpu) = FakeGpu::take() else { return };
    let (n, k) = (16, 128);
    // Packed at 2 bits, they take 512 bytes.
    let allocations = [2 * 512, 4 * 512].map(|l2_bytes| {
        gpu.set_attribute(L2_CACHE_SIZE, l2_bytes);
        let device = gpu.open();
        let before = gpu.calls("cuMemAlloc_v2");
        tune_gemv(&device, (8, n, k), &TuneConfig { rounds: 1 }, |_, _| {}).unwrap();
        gpu.calls("cuMemAlloc_v2") - before
    });
    assert_eq!(allocations[1] - allocations[0], 8 - 4);
}

#[test]
fn sizes_that_no_product_has_are_refused_before_anything_is_measured() {
    for device in devices() {
        for (shape, refused) in [
            ((0, 16, 128), "m = 0 "),
            ((1 << 31, 16, 128), "m = 2147483648 "),
            ((1, 0, 128), "n = 0 "),
            ((1, 1 << 31, 128), "n = 2147483648 "),
            ((1, 16, 0), "k = 0 "),
            ((1, 16, 1 << 24), "k = 16777216 "),
        ] {
            let tuned = tune_gemv(&device, shape, &TuneConfig::default(), |_, _| {});
            let error = tuned.unwrap_err().to_string();
            assert!(error.starts_with(refused), "{error}");
        }
    }
}
