//! The backend: each option has an effect, and products are the reference's, bit for bit. On the emulator and on a GPU, which
//! is the test double's where there is none.

#[path = "../fake/mod.rs"]
mod fake;
mod profiling;

use bitnet_cuda::backend::*;
use bitnet_cuda::device::{Buffer, DeviceError, PressureLevel, Stream};
use bitnet_cuda::launch::Gemv;
use bitnet_cuda::layout::tiled::BLOCK_COLUMNS;
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::QuantizedActivations;
use bitnet_cuda::reference::RowScales;
use bitnet_cuda::reference::linear::{Epilogue, Shape, accumulate, epilogue};
use std::sync::atomic::{AtomicUsize, Ordering};

fn on(device_id: DeviceId) -> CudaBackendConfig {
    CudaBackendConfig {
        device_id,
        ..CudaBackendConfig::default()
    }
}

/// The emulator, and a GPU that no other test has, unless it is a real one.
fn configs() -> Vec<CudaBackendConfig> {
    static NEXT: AtomicUsize = AtomicUsize::new(8);
    let ordinal = if fake::load() {
        NEXT.fetch_add(1, Ordering::Relaxed)
    } else {
        0
    };
    vec![on(DeviceId::Emulated), on(DeviceId::Cuda(ordinal))]
}

/// A GPU of the double, for what would disturb other tests on a real one.
fn double() -> Option<(CudaBackendConfig, usize)> {
    let is_double = fake::load();
    match configs()[1].device_id {
        DeviceId::Cuda(ordinal) if is_double => Some((on(DeviceId::Cuda(ordinal)), ordinal)),
        _ => None,
    }
}

/// Random operands, and what the reference makes of them.
struct Case {
    ternary: Vec<i8>,
    values: Vec<i8>,
    scales: RowScales,
    token_scales: Vec<f32>,
    expected: Vec<f32>,
    shape: Shape,
}

fn case(seed: u64, m: usize, n: usize, k: usize) -> Case {
    let mut random = fastrand::Rng::with_seed(seed);
    let ternary: Vec<i8> = (0..n * k).map(|_| random.i8(-1..=1)).collect();
    let values: Vec<i8> = (0..m * k).map(|_| random.i8(..)).collect();
    let scales =
        RowScales::per_row(&(0..n).map(|_| 0.5 + random.f32()).collect::<Vec<_>>()).unwrap();
    let token_scales: Vec<f32> = (0..m).map(|_| 20.0 + random.f32()).collect();
    let shape = Shape { m, n, k };
    let sums = accumulate(&values, &ternary, shape).unwrap();
    let terms = Epilogue {
        activation_scales: &token_scales,
        row_scales: &scales,
        bias: None,
        residual: None,
    };
    let expected = epilogue(&sums, m, n, &terms).unwrap();
    Case {
        ternary,
        values,
        scales,
        token_scales,
        expected,
        shape,
    }
}

/// Computes the case on a backend, from weights in a layout; returns the variant that did it.
fn check(backend: &CudaBackend, case: &Case, layout: Layout) -> &'static str {
    let Shape { m, n, k } = case.shape;
    let packed = PackedWeights::pack(layout, &case.ternary, n, k).unwrap();
    let weights = backend.load_weights(&packed, &case.scales).unwrap();
    let activations =
        QuantizedActivations::from_values(backend.device(), &case.values, &case.token_scales, m, k)
            .unwrap();
    let mut output = backend.memory_manager().allocate::<f32>(m * n).unwrap();
    backend
        .w2a8_gemv(
            &weights,
            &activations,
            &mut output,
            n,
            k,
            backend.next_stream(),
        )
        .unwrap();
    let output = backend.memory_manager().copy_to_host(&output).unwrap();
    let bits = |values: &[f32]| {
        values
            .iter()
            .map(|value| value.to_bits())
            .collect::<Vec<_>>()
    };
    assert_eq!(bits(&output), bits(&case.expected));
    weights.variant(m).name()
}

#[test]
fn products_are_the_references() {
    for config in configs() {
        let backend = CudaBackend::new(config).unwrap();
        for (m, n, k) in [
            (1, 1, 1),
            (1, 40, 300),
            (3, 17, 129),
            (8, 64, 128),
            (11, 33, 70),
        ] {
            for layout in [Layout::RowMajor, Layout::Ladder, Layout::Tiled] {
                check(&backend, &case(5, m, n, k), layout);
            }
        }
        backend.synchronize().unwrap();
    }
}

#[test]
fn block_size_and_grid_decide_the_variant() {
    let case = case(6, 1, 64, 256);
    for (block_size, grid_strategy, expected) in [
        (Some(64), GridStrategy::RowsPerBlock(16), "gemv_m1_t1_w2"),
        (Some(256), GridStrategy::Auto, "gemv_m1_t1_w8"),
        (None, GridStrategy::RowsPerBlock(32), "gemv_m1_t2_w1"),
    ] {
        let w2a8_config = W2A8GemvConfig {
            block_size,
            grid_strategy,
            ..W2A8GemvConfig::default()
        };
        for config in configs() {
            let backend = CudaBackend::new(CudaBackendConfig {
                w2a8_config,
                ..config
            })
            .unwrap();
            assert_eq!(check(&backend, &case, Layout::Tiled), expected);
        }
    }
    let w2a8_config = W2A8GemvConfig {
        block_size: Some(100),
        ..W2A8GemvConfig::default()
    };
    let error = CudaBackend::new(CudaBackendConfig {
        w2a8_config,
        ..on(DeviceId::Emulated)
    })
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("100") && error.contains("64 x 16"),
        "{error}"
    );
    assert_eq!(error.matches("128 x 16").count(), 1, "{error}");
}

#[test]
fn weights_are_permuted_unless_told_not_to() {
    let case = case(7, 2, 48, 256);
    for (enable_weight_permutation, ladder) in [(true, false), (false, true)] {
        let w2a8_config = W2A8GemvConfig {
            enable_weight_permutation,
            ..W2A8GemvConfig::default()
        };
        for config in configs() {
            let backend = CudaBackend::new(CudaBackendConfig {
                w2a8_config,
                ..config
            })
            .unwrap();
            assert_eq!(
                check(&backend, &case, Layout::Ladder).contains("ladder"),
                ladder
            );
            assert!(!check(&backend, &case, Layout::RowMajor).contains("ladder"));
        }
    }
    // The layout as it is has fewer variants, and none of 128 threads.
    let w2a8_config = W2A8GemvConfig {
        block_size: Some(128),
        enable_weight_permutation: false,
        ..W2A8GemvConfig::default()
    };
    for config in configs() {
        let backend = CudaBackend::new(CudaBackendConfig {
            w2a8_config,
            ..config
        })
        .unwrap();
        check(&backend, &case, Layout::Tiled);
        let packed = PackedWeights::pack(Layout::Ladder, &case.ternary, 48, 256).unwrap();
        let error = backend.load_weights(&packed, &case.scales).unwrap_err();
        assert!(
            matches!(&error, BackendError::Config { value, expected, .. }
                if value.contains("128") && expected.contains("64 x 16")),
            "{error}"
        );
    }
}

#[test]
fn a_k_that_none_of_the_variants_asked_for_takes_is_refused() {
    let limit = Gemv::all(Layout::Tiled)
        .filter(|variant| variant.tokens() == 1 && variant.shape().threads() == 128)
        .map(|variant| variant.shape().max_k())
        .max()
        .unwrap();
    let k = limit as usize + 1;
    let packed = PackedWeights::pack(Layout::Tiled, &vec![1; k], 1, k).unwrap();
    let backend = CudaBackend::new(CudaBackendConfig {
        w2a8_config: W2A8GemvConfig {
            block_size: Some(128),
            ..W2A8GemvConfig::default()
        },
        ..on(DeviceId::Emulated)
    })
    .unwrap();
    let scales = RowScales::per_tensor(1, 1.0).unwrap();
    let error = backend.load_weights(&packed, &scales).unwrap_err();
    let padded = k.next_multiple_of(BLOCK_COLUMNS);
    assert_eq!(
        error.to_string(),
        format!(
            "w2a8_config = block_size: Some(128), grid_strategy: Auto is not possible: \
             the weights have K = {k}, padded to {padded}, but these variants take K up to {limit}"
        )
    );
}

#[test]
fn an_error_of_submitted_work_is_found_by_waiting_for_it() {
    let Some((config, ordinal)) = double() else {
        return;
    };
    let backend = CudaBackend::new(config).unwrap();
    fake::inject(ordinal, "cuStreamSynchronize", 1, 700); // CUDA_ERROR_ILLEGAL_ADDRESS
    let error = backend.synchronize().unwrap_err();
    assert!(matches!(error, DeviceError::Lost { .. }), "{error}");
}

#[test]
fn the_pool_is_as_large_as_asked_for() {
    let double = double().map(|(config, _)| config);
    for config in std::iter::once(on(DeviceId::Emulated)).chain(double) {
        let without = CudaBackend::new(config.clone()).unwrap();
        assert!(without.memory_manager().pool().is_none());
        drop(without);
        let config = CudaBackendConfig {
            memory_pool_size: Some(4 << 20),
            ..config
        };
        let backend = CudaBackend::new(config.clone()).unwrap();
        let memory = backend.memory_manager();
        let buffer = memory.copy_to_device(&[1_u8; 3 << 20]).unwrap();
        assert_eq!(memory.pool().unwrap().pressure(), PressureLevel::Critical);
        let error = memory.allocate::<u8>(3 << 20).unwrap_err();
        assert!(
            matches!(error, DeviceError::PoolExhausted { limit, .. } if limit == 4 << 20),
            "{error}"
        );
        drop(buffer);
        check(&backend, &case(8, 1, 40, 300), Layout::Tiled);
        if config.device_id != DeviceId::Emulated {
            // A GPU has one pool.
            CudaBackend::new(config.clone()).unwrap();
            let other = CudaBackendConfig {
                memory_pool_size: Some(5 << 20),
                ..config
            };
            let error = CudaBackend::new(other).unwrap_err().to_string();
            assert!(
                error.contains("memory_pool_size") && error.contains("of 4194304 bytes"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_pool_that_is_too_small_is_refused_by_its_option() {
    let config = CudaBackendConfig {
        memory_pool_size: Some(1000),
        ..on(DeviceId::Emulated)
    };
    let error = CudaBackend::new(config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "memory_pool_size = 1000 is not possible: at least 1 MiB"
    );
}

#[test]
fn streams_are_as_many_as_asked_for_and_taken_in_turn() {
    let backend = CudaBackend::new(CudaBackendConfig {
        num_streams: 3,
        ..on(DeviceId::Emulated)
    })
    .unwrap();
    assert_eq!(backend.streams().len(), 3);
    let name = |stream: &bitnet_cuda::device::Stream| format!("{stream:?}");
    let taken: Vec<_> = (0..4).map(|_| name(backend.next_stream())).collect();
    assert_eq!(taken[0], taken[3]);
    assert!(taken[0] != taken[1] && taken[1] != taken[2] && taken[0] != taken[2]);
    assert_eq!(name(backend.stream(4)), name(backend.stream(1)));
    let error = CudaBackend::new(CudaBackendConfig {
        num_streams: 0,
        ..on(DeviceId::Emulated)
    })
    .unwrap_err();
    assert!(error.to_string().contains("num_streams"));
}

#[test]
fn a_lost_backend_says_so_and_can_be_made_anew() {
    let Some((config, ordinal)) = double() else {
        return;
    };
    let config = CudaBackendConfig {
        memory_pool_size: Some(8 << 20),
        enable_profiling: true,
        ..config
    };
    let backend = CudaBackend::new(config).unwrap();
    let case = case(12, 1, 32, 128);
    check(&backend, &case, Layout::Tiled);
    const ILLEGAL_ADDRESS: i32 = 700;
    fake::inject(ordinal, "cuStreamSynchronize", 1, ILLEGAL_ADDRESS);
    let is_lost = |error: &DeviceError| matches!(error, DeviceError::Lost { .. });
    assert!(is_lost(&backend.stream(0).synchronize().unwrap_err()) && backend.is_lost());
    assert!(is_lost(&backend.take_profile().unwrap_err()));
    assert!(is_lost(
        &backend.memory_manager().allocate::<u8>(1).unwrap_err()
    ));
    let again = CudaBackend::new(backend.config().clone()).unwrap();
    check(&again, &case, Layout::Tiled);
    assert!(backend.is_lost() && !again.is_lost());
    drop(backend);
    check(&again, &case, Layout::Tiled);
}

#[test]
fn sizes_that_are_not_the_weights_are_refused() {
    let backend = CudaBackend::new(on(DeviceId::Emulated)).unwrap();
    let case = case(10, 1, 16, 128);
    let packed = PackedWeights::pack(Layout::Tiled, &case.ternary, 16, 128).unwrap();
    let weights = backend.load_weights(&packed, &case.scales).unwrap();
    let activations =
        QuantizedActivations::from_values(backend.device(), &case.values, &[1.0], 1, 128).unwrap();
    let mut output: Buffer<f32> = backend.memory_manager().allocate(16).unwrap();
    for (m, k, name) in [(15, 128, "m = 15"), (16, 129, "k = 129")] {
        let error = backend
            .w2a8_gemv(&weights, &activations, &mut output, m, k, backend.stream(0))
            .unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn capabilities_are_those_of_the_device() {
    fake::load();
    let backend = CudaBackend::new(on(DeviceId::Emulated)).unwrap();
    assert_eq!(
        &DeviceCapabilities::for_device(DeviceId::Emulated).unwrap(),
        backend.capabilities()
    );
    assert_eq!(backend.capabilities().model, backend.device().name());
    assert!(!backend.is_lost());
    assert!(matches!(
        DeviceCapabilities::for_device(DeviceId::Cuda(4096)),
        Err(DeviceError::NoSuchDevice { .. })
    ));
    assert_eq!(
        CudaBackend::is_cuda_available(),
        CudaBackend::auto_select_device()
            .unwrap()
            .name()
            .starts_with("cuda")
    );
}
