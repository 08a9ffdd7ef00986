//! RMSNorm and LayerNorm are within the bounds of docs/numerics.md for every type and width, and the residual is added bit for bit.

use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::ops::{Norm, OpError};
use bitnet_cuda::reference::fused::add_residual;
use bitnet_cuda::reference::norm::{self, normalize};
use half::{bf16, f16};
use integration_tests::drawn;
use integration_tests::golden::Golden;
use integration_tests::tolerance::{assert_within, norm_bounds};
use integration_tests::{Number, cast, device, floats, poisoned, random};
use proptest::prelude::*;

const EPS: f32 = 1e-5;

/// Both norms with their parameters.
fn norms<'a>(gamma: &'a [f32], beta: &'a [f32]) -> [norm::Norm<'a>; 3] {
    let eps = f64::from(EPS);
    [
        norm::Norm::Rms { gamma, eps },
        norm::Norm::Layer {
            gamma,
            beta: None,
            eps,
        },
        norm::Norm::Layer {
            gamma,
            beta: Some(beta),
            eps,
        },
    ]
}

/// The same norm on a device.
fn upload(device: &Device, norm: &norm::Norm) -> Norm {
    let norm = match *norm {
        norm::Norm::Rms { gamma, .. } => Norm::rms(device, gamma.len(), Some(gamma), EPS),
        norm::Norm::Layer { gamma, beta, .. } => {
            Norm::layer(device, gamma.len(), Some(gamma), beta, EPS)
        }
    };
    norm.unwrap()
}

/// Runs each norm, alone and after a residual, on tokens `x`, and compares.
fn check<T: Number>(device: &Device, x: &[f32], residual: &[f32], gamma: &[f32], beta: &[f32]) {
    let (x, residual) = (cast::<T>(x), cast::<T>(residual));
    let width = gamma.len();
    let stream = device.default_stream();
    let input = Buffer::from_slice(device, &x).unwrap();
    for norm in norms(gamma, beta) {
        let op = upload(device, &norm);
        let mut output = poisoned::<T>(device, x.len());
        op.normalize(&stream, &input, &mut output).unwrap();
        compare(&x, width, &norm, &output.to_vec().unwrap());

        let mut sum = Buffer::from_slice(device, &residual).unwrap();
        let mut output = poisoned::<T>(device, x.len());
        op.add_normalize(&stream, &input, &mut sum, &mut output)
            .unwrap();
        let sum = sum.to_vec().unwrap();
        let expected = add_residual(&residual, &x).unwrap();
        assert!(sum.iter().zip(&expected).all(|(sum, expected)| {
            let (sum, expected) = (sum.to_f32(), expected.to_f32());
            sum.to_bits() == expected.to_bits() || sum.is_nan() && expected.is_nan()
        }));
        compare(&sum, width, &norm, &output.to_vec().unwrap());
    }
}

#[track_caller]
fn compare<T: Number>(x: &[T], width: usize, norm: &norm::Norm, actual: &[T]) {
    let expected = normalize(x, x.len() / width, width, norm).unwrap();
    for ((x, expected), actual) in x
        .chunks(width)
        .zip(expected.chunks(width))
        .zip(actual.chunks(width))
    {
        assert_within(actual, expected, &norm_bounds(x, norm, expected));
    }
}

fn check_all_types(device: &Device, x: &[f32], residual: &[f32], gamma: &[f32], beta: &[f32]) {
    check::<f32>(device, x, residual, gamma, beta);
    check::<f16>(device, x, residual, gamma, beta);
    check::<bf16>(device, x, residual, gamma, beta);
}

#[test]
fn every_type_and_width_is_within_its_bound() {
    let (device, mut random) = (device(), random());
    // Around chunks of 8, warps, blocks, and the widths where the variants change.
    let widths = [
        1, 2, 7, 8, 9, 255, 256, 257, 1023, 2560, 2561, 6912, 8191, 8192, 8193, 8200, 16_384,
        24_576, 24_584, 32_768, 65_535, 65_536,
    ];
    for width in widths {
        let m = if width > 3000 { 1 } else { 3 };
        let x = floats(&mut random, m * width, 3.0);
        let residual = floats(&mut random, m * width, 2.0);
        let gamma = floats(&mut random, width, 1.5);
        let beta = floats(&mut random, width, 0.5);
        check_all_types(&device, &x, &residual, &gamma, &beta);
    }
}

#[test]
fn hard_values_are_within_their_bound() {
    let (device, mut random) = (device(), random());
    let width = 300;
    let gamma = floats(&mut random, width, 1.5);
    let beta = floats(&mut random, width, 0.5);
    let noise = floats(&mut random, width, 1.0);
    let zeros = vec![0.0; width];
    let of = |value: fn(f32) -> f32| -> Vec<f32> { noise.iter().map(|&x| value(x)).collect() };
    let tokens = [
        zeros.clone(),
        of(|_| -3.5),
        // Subnormal in f32, and in f16.
        of(|x| x * 1e-39),
        of(|x| x * 1e-6),
        // A mean that is a thousand times the deviation.
        of(|x| 1000.0 + x),
        of(|x| x * 1e4),
        of(|x| if x > 0.9 { 1e4 } else { x * 1e-4 }),
    ];
    for token in &tokens {
        check_all_types(&device, token, &zeros, &gamma, &beta);
        check_all_types(&device, token, &noise, &gamma, &beta);
    }
}

#[test]
fn shapes_and_values_drawn_at_random_are_within_their_bound() {
    let device = device();
    let shapes = (
        1_usize..4,
        prop_oneof![
            prop::sample::select(vec![1_usize, 2, 3, 5, 31, 127, 131, 509, 1021, 2053]),
            (0_u32..12).prop_map(|exponent| 1 << exponent),
            (1_u32..12).prop_map(|exponent| (1 << exponent) - 1),
            (1_u32..12).prop_map(|exponent| (1 << exponent) + 1),
        ],
        any::<u64>(),
        -30_i32..12,
    );
    drawn::runner(60)
        .run(&shapes, |(m, width, seed, exponent)| {
            let mut random = fastrand::Rng::with_seed(seed);
            let scale = 2_f32.powi(exponent);
            let x = floats(&mut random, m * width, scale);
            let residual = floats(&mut random, m * width, scale);
            let gamma = floats(&mut random, width, 2.0);
            let beta = floats(&mut random, width, 2.0);
            check_all_types(&device, &x, &residual, &gamma, &beta);
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_golden_tokens_are_within_their_bound() {
    let device = device();
    let file = Golden::open("elementwise.safetensors");
    let [x, gamma, beta] = ["x", "gamma", "beta"].map(|name| file.f32(name));
    let width = gamma.len();
    let [rms, _, layer] = norms(&gamma, &beta);
    for (norm, name) in [(rms, "rms_norm_eps1e-5"), (layer, "layer_norm_eps1e-5")] {
        let input = Buffer::from_slice(&device, &x).unwrap();
        let mut output = poisoned::<f32>(&device, x.len());
        upload(&device, &norm)
            .normalize(&device.default_stream(), &input, &mut output)
            .unwrap();
        let golden = file.f64(name);
        let actual = output.to_vec().unwrap();
        for ((x, golden), actual) in x
            .chunks(width)
            .zip(golden.chunks(width))
            .zip(actual.chunks(width))
        {
            // The golden value's own rounding on top.
            let bounds: Vec<f64> = norm_bounds(x, &norm, golden)
                .iter()
                .zip(golden)
                .map(|(bound, golden)| bound + golden.abs() / f64::from(1 << 24))
                .collect();
            assert_within(actual, golden, &bounds);
        }
    }
}

#[test]
fn a_nan_or_infinity_spoils_its_own_token_alone() {
    let (device, mut random) = (device(), random());
    let (m, width) = (3, 500);
    let gamma = floats(&mut random, width, 1.0);
    let beta = floats(&mut random, width, 1.0);
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = floats(&mut random, m * width, 1.0);
        x[width + 33] = special;
        for norm in norms(&gamma, &beta) {
            let input = Buffer::from_slice(&device, &x).unwrap();
            let mut output = poisoned::<f32>(&device, x.len());
            upload(&device, &norm)
                .normalize(&device.default_stream(), &input, &mut output)
                .unwrap();
            let output = output.to_vec().unwrap();
            compare(&x[..width], width, &norm, &output[..width]);
            compare(&x[2 * width..], width, &norm, &output[2 * width..]);
            assert!(output[width + 33].is_nan());
            if special.is_nan() {
                assert!(output[width..2 * width].iter().all(|y| y.is_nan()));
            }
        }
    }
}

/// As docs/numerics.md has it. Values of other tests are far from the ends of f32's range.
#[test]
fn sums_that_overflow_leave_zero_beta_or_nan() {
    let device = device();
    let (gamma, beta) = ([0.5, 1.0, -2.0, 1.0], [0.25, -1.0, 3.0, -0.0]);
    let rms = Norm::rms(&device, 4, Some(&gamma), EPS).unwrap();
    let layer = Norm::layer(&device, 4, Some(&gamma), Some(&beta), EPS).unwrap();
    let no_beta = Norm::layer(&device, 4, Some(&gamma), None, EPS).unwrap();
    let (zeros, nan, inf) = ([0.0; 4], [f32::NAN; 4], f32::INFINITY);
    for (token, expected) in [
        // Squares of 4e38 are beyond f32, the sum of 2e19 is not.
        ([2e19, -2e19, 2e19, 1.0], [zeros, beta, zeros]),
        // The difference of 3e38 and the mean, -7.5e37, is.
        (
            [3e38, -3e38, -3e38, 0.0],
            [
                zeros,
                [f32::NAN, -1.0, 3.0, -0.0],
                [f32::NAN, 0.0, 0.0, 0.0],
            ],
        ),
        // The sum of 4e38 is.
        ([2e38, 2e38, 1.0, -1.0], [zeros, nan, nan]),
        (
            [inf, 1.0, -2e19, 0.0],
            [[f32::NAN, 0.0, 0.0, 0.0], nan, nan],
        ),
    ] {
        for (norm, expected) in [&rms, &layer, &no_beta].into_iter().zip(expected) {
            let input = Buffer::from_slice(&device, &token).unwrap();
            let mut output = poisoned::<f32>(&device, 4);
            norm.normalize(&device.default_stream(), &input, &mut output)
                .unwrap();
            let found = output.to_vec().unwrap();
            // Zeros of either sign are equal.
            let same = |(found, expected): (&f32, &f32)| {
                found == expected || found.is_nan() && expected.is_nan()
            };
            assert!(
                found.iter().zip(&expected).all(same),
                "{norm:?} of {token:?}: {found:?}, not {expected:?}"
            );
        }
    }
}

#[test]
fn without_gamma_it_is_one() {
    let (device, mut random) = (device(), random());
    let width = 777;
    let x = floats(&mut random, 2 * width, 1.0);
    let run = |norm: Norm| {
        let input = Buffer::from_slice(&device, &x).unwrap();
        let mut output = poisoned::<f32>(&device, x.len());
        norm.normalize(&device.default_stream(), &input, &mut output)
            .unwrap();
        output.to_vec().unwrap()
    };
    let ones = vec![1.0; width];
    assert_eq!(
        run(Norm::rms(&device, width, None, EPS).unwrap()),
        run(Norm::rms(&device, width, Some(&ones), EPS).unwrap())
    );
    assert_eq!(
        run(Norm::layer(&device, width, None, None, EPS).unwrap()),
        run(Norm::layer(&device, width, Some(&ones), None, EPS).unwrap())
    );
}

#[test]
fn without_beta_a_negative_zero_stays() {
    let device = device();
    for (width, zero) in [(8, 3), (9, 8), (70_000, 69_999)] {
        let mut x = vec![1.0_f32; width];
        x[zero] = -0.0;
        let input = Buffer::from_slice(&device, &x).unwrap();
        let mut output = poisoned::<f32>(&device, width);
        Norm::rms(&device, width, None, EPS)
            .unwrap()
            .normalize(&device.default_stream(), &input, &mut output)
            .unwrap();
        let y = output.to_vec().unwrap()[zero];
        assert_eq!(y.to_bits(), (-0.0_f32).to_bits(), "{width}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let device = device();
    let stream = device.default_stream();
    let rms =
        |width, gamma: Option<&[f32]>, eps| Norm::rms(&device, width, gamma, eps).unwrap_err();
    assert!(matches!(
        rms(0, None, EPS),
        OpError::Size {
            name: "width",
            value: 0,
            ..
        }
    ));
    assert!(matches!(
        rms(4, Some(&[1.0; 3]), EPS),
        OpError::Length {
            name: "gamma",
            expected: 4,
            actual: 3,
            ..
        }
    ));
    assert!(matches!(
        rms(2, Some(&[1.0, f32::NAN]), EPS),
        OpError::NonFinite {
            name: "gamma",
            index: 1,
            ..
        }
    ));
    for eps in [0.0, -1e-5, f32::NAN, f32::INFINITY, 1e-40] {
        assert!(
            matches!(rms(4, None, eps), OpError::Epsilon { .. }),
            "{eps}"
        );
    }
    let error = Norm::layer(&device, 4, None, Some(&[1.0; 5]), EPS).unwrap_err();
    assert!(
        matches!(error, OpError::Length { name: "beta", .. }),
        "{error}"
    );

    let norm = Norm::rms(&device, 4, None, EPS).unwrap();
    let buffer = |len| Buffer::<f32>::zeroed(&device, len).unwrap();
    for actual in [0, 6] {
        let error = norm.normalize(&stream, &buffer(actual), &mut buffer(actual));
        let expected = OpError::Tokens {
            name: "input",
            actual,
            width: 4,
        };
        assert_eq!(error, Err(expected));
    }
    let error = norm
        .normalize(&stream, &buffer(8), &mut buffer(4))
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Length {
                name: "output",
                expected: 8,
                actual: 4,
                ..
            }
        ),
        "{error}"
    );
    let error = norm
        .add_normalize(&stream, &buffer(8), &mut buffer(12), &mut buffer(8))
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Length {
                name: "residual",
                ..
            }
        ),
        "{error}"
    );
    let error = norm
        .add_normalize(&stream, &buffer(8), &mut buffer(8), &mut buffer(12))
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Length {
                name: "output",
                expected: 8,
                actual: 12,
                ..
            }
        ),
        "{error}"
    );
}
