//! Names, identity and what devices say about themselves.

use super::*;
use crate::launch::Gemv;
use crate::layout::Layout;

const CLOCK_RATE: i32 = 13;
pub(super) const COMPUTE_CAPABILITY_MAJOR: i32 = 75;
pub(super) const COMPUTE_CAPABILITY_MINOR: i32 = 76;
const COOPERATIVE_LAUNCH: i32 = 95;

#[test]
fn a_gpu_opened_twice_is_one_device_and_emulated_ones_are_many() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    assert_eq!(device, gpu.open());
    assert_eq!(device, device.clone());
    assert_eq!(gpu.calls("cuDevicePrimaryCtxRetain"), 1);
    let (a, b) = (Device::emulated().unwrap(), Device::emulated().unwrap());
    assert_ne!(a, b);
    assert_ne!(a, device);
    assert_eq!(a.default_stream().device(), &a);
}

#[test]
fn names_open_devices() {
    assert_eq!(
        Device::from_name("emulated").unwrap().kind(),
        DeviceKind::Emulated
    );
    for name in [
        "",
        "gpu",
        "cuda:",
        "cuda:x",
        "cuda:-1",
        "emulated:0",
        "CUDA",
    ] {
        let expected = DeviceError::UnknownDevice {
            name: name.to_owned(),
        };
        assert_eq!(Device::from_name(name).unwrap_err(), expected);
    }
    match FakeGpu::take() {
        Some(gpu) => {
            // No other test uses the first two GPUs.
            let first = FakeGpu { ordinal: 0, ..gpu };
            first.inject("cuDevicePrimaryCtxRetain", 1, 999);
            assert!(Device::auto().unwrap().name().starts_with("cuda:1 ("));
            first.set_attribute(COMPUTE_CAPABILITY_MAJOR, 7);
            assert!(Device::auto().unwrap().name().starts_with("cuda:1 ("));
            first.set_attribute(COMPUTE_CAPABILITY_MINOR, 5);
            assert!(Device::auto().unwrap().name().starts_with("cuda:0 ("));
        }
        None => take_turn(),
    }
    let count = Device::cuda_count().unwrap();
    for ordinal in [count, 100_000] {
        let expected = DeviceError::NoSuchDevice { ordinal, count };
        let name = format!("cuda:{ordinal}");
        assert_eq!(Device::from_name(&name).unwrap_err(), expected);
    }
    let gpu = Device::from_name("cuda").unwrap();
    assert_eq!(gpu.kind(), DeviceKind::Cuda);
    assert_eq!(Device::from_name("cuda:0").unwrap(), gpu);
    assert_eq!(Device::from_name("auto").unwrap(), gpu);
    assert!(gpu.name().starts_with("cuda:0 ("), "{}", gpu.name());
}

#[test]
fn capabilities_come_from_the_driver_or_the_specification() {
    for device in devices() {
        let capabilities = device.capabilities();
        assert_eq!(capabilities.warp_size, 32);
        assert_eq!(capabilities.max_threads_per_block, 1024);
        assert_eq!(capabilities.shared_bytes_per_block, 48 << 10);
        assert!(capabilities.shared_bytes_per_block_optin >= 64 << 10);
        assert!(capabilities.l2_bytes >= 1 << 20);
        assert_eq!(
            capabilities.driver_version.is_some(),
            device.kind() == DeviceKind::Cuda
        );
        let MemoryInfo {
            free_bytes: free,
            total_bytes: total,
        } = device.memory_info().unwrap();
        // Two functions of the driver say how much memory a GPU has.
        assert!(free <= total && (is_real(&device) || total == capabilities.memory_bytes));
    }
    if FAKE.is_some() {
        let [gpu, _] = devices();
        assert_eq!(gpu.compute_capability(), (9, 0));
        assert_eq!(gpu.capabilities().max_block, [1024, 1024, 64]);
        assert_eq!(gpu.capabilities().clock_khz, Some(1_980_000));
    }
}

#[test]
fn a_gpu_whose_rates_are_unknown_opens_all_the_same() {
    let Some(gpu) = FakeGpu::take() else { return };
    drop(gpu.open());
    let calls = gpu.calls("cuDeviceGetAttribute");
    // The last three.
    for before_last in 0..3 {
        gpu.inject("cuDeviceGetAttribute", calls - before_last, 801); // CUDA_ERROR_NOT_SUPPORTED
        let device = gpu.open();
        let capabilities = device.capabilities();
        let rates = [
            capabilities.memory_bus_bits,
            capabilities.memory_clock_khz,
            capabilities.clock_khz,
        ];
        let unknown = rates.iter().position(Option::is_none);
        assert_eq!(unknown, Some(before_last as usize), "{rates:?}");
    }
    gpu.inject("cuDeviceGetAttribute", calls - 3, 801);
    let refused = Device::cuda(gpu.ordinal).unwrap_err();
    assert!(
        matches!(refused, DeviceError::Driver { code: 801, .. }),
        "{refused}"
    );
}

#[test]
fn what_a_gpu_lacks_is_not_assumed() {
    let Some(gpu) = FakeGpu::take() else { return };
    gpu.set_attribute(COMPUTE_CAPABILITY_MAJOR, 8);
    gpu.set_attribute(COOPERATIVE_LAUNCH, 0);
    // A rate that the driver does not know.
    gpu.set_attribute(CLOCK_RATE, 0);
    let device = gpu.open();
    assert!(!device.capabilities().programmatic_launch && !device.programmatic_launch());
    assert_eq!(device.capabilities().clock_khz, None);
    let cooperative = LaunchConfig {
        cooperative: true,
        ..config(1, 32)
    };
    let (stream, idle) = (device.default_stream(), function(&device, "idle"));
    let refused = stream.launch(&idle, cooperative, &[]);
    assert!(matches!(refused, Err(DeviceError::Unsupported { .. })));
    stream.launch(&idle, config(1, 32), &[]).unwrap();
    stream.synchronize().unwrap();
}

#[test]
fn an_emulated_device_is_a_gpu_that_exists() {
    let with = |compute_capability, memory_bytes| {
        let defaults = EmulatedConfig::default();
        Device::emulated_with(EmulatedConfig {
            compute_capability,
            memory_bytes,
            ..defaults
        })
    };
    for (compute_capability, memory_bytes) in [((5, 0), 1), ((9, 9), 1), ((9, 0), 0)] {
        assert!(matches!(
            with(compute_capability, memory_bytes),
            Err(DeviceError::InvalidConfig { .. })
        ));
    }
    let device = with((8, 6), 1 << 20).unwrap();
    assert_eq!(device.name(), "emulated (sm_86)");
    assert_eq!(device.capabilities().shared_bytes_per_block_optin, 99 << 10);
    assert_eq!(device.capabilities().clock_khz, None);
    let all_free = MemoryInfo {
        free_bytes: 1 << 20,
        total_bytes: 1 << 20,
    };
    assert_eq!(device.memory_info().unwrap(), all_free);
}

#[test]
fn an_emulated_device_makes_the_choices_of_a_gpu() {
    let [gpu, emulated] = devices();
    let config = EmulatedConfig {
        memory_bytes: 1 << 20,
        ..Default::default()
    };
    let like = Device::emulated_like(&gpu, config).unwrap();
    assert_eq!(like.name(), emulated.name());
    assert_eq!(like.capabilities().memory_bytes, 1 << 20);
    assert_eq!(like.capabilities().clock_khz, gpu.capabilities().clock_khz);
    let choices = |device: &Device| {
        let shapes = [(2560, 2560), (2560, 6912), (3200, 3200), (3200, 10_240)];
        shapes.map(|(n, k)| {
            let choose = |m| Gemv::choose(device.capabilities(), Layout::Tiled, m, n, k).unwrap();
            (choose(1), choose(8))
        })
    };
    assert_eq!(choices(&like), choices(&gpu));
    if FAKE.is_some() {
        assert_ne!(like.capabilities(), emulated.capabilities());
    }
}
