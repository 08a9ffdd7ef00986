//! Activation functions, plain and gated, are within the bounds of docs/numerics.md for every type and layout of gate and up.

use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::launch::LaunchError;
use bitnet_cuda::ops::{GateUp, OpError, activate, gated};
use bitnet_cuda::reference::activation::{self, Activation, GateUpLayout, split_gate_up};
use half::{bf16, f16};
use integration_tests::drawn;
use integration_tests::golden::Golden;
use integration_tests::tolerance::{U, activation_bound, assert_within, exact_activation_bound};
use integration_tests::{Number, cast, device, floats, poisoned, random};
use proptest::prelude::*;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

fn check_plain<T: Number>(device: &Device, x: &[f32]) {
    let x = cast::<T>(x);
    let input = Buffer::from_slice(device, &x).unwrap();
    for function in Activation::ALL {
        let mut output = poisoned::<T>(device, x.len());
        activate(&device.default_stream(), function, &input, &mut output).unwrap();
        let expected = activation::activate(function, &x);
        let bounds: Vec<f64> = x
            .iter()
            .zip(&expected)
            .map(|(x, y)| activation_bound(function, x.to_f32(), *y))
            .collect();
        assert_within(&output.to_vec().unwrap(), &expected, &bounds);
    }
}

fn check_gated<T: Number>(device: &Device, gate_up: &[f32], m: usize) {
    let gate_up = cast::<T>(gate_up);
    let width = gate_up.len() / m / 2;
    let buffer = |values: &[T]| Buffer::from_slice(device, values).unwrap();
    let both = buffer(&gate_up);
    for layout in [GateUpLayout::Concatenated, GateUpLayout::Interleaved] {
        let (gate, up) = split_gate_up(&gate_up, m, width, layout).unwrap();
        let (gates, ups) = (buffer(&gate), buffer(&up));
        let in_one = match layout {
            GateUpLayout::Concatenated => GateUp::Concatenated(&both),
            GateUpLayout::Interleaved => GateUp::Interleaved(&both),
        };
        for function in Activation::ALL {
            let run = |gate_up| {
                let mut output = poisoned::<T>(device, m * width);
                gated(
                    &device.default_stream(),
                    function,
                    gate_up,
                    width,
                    &mut output,
                )
                .unwrap();
                output.to_vec().unwrap()
            };
            let actual = run(in_one);
            let separate = run(GateUp::Separate {
                gate: &gates,
                up: &ups,
            });
            let bits = |values: &[T]| -> Vec<u32> {
                values
                    .iter()
                    .map(|value| value.to_f32().to_bits())
                    .collect()
            };
            assert_eq!(bits(&actual), bits(&separate), "{layout:?}");

            let expected = activation::gated(function, &gate, &up).unwrap();
            let bounds: Vec<f64> = gate
                .iter()
                .zip(&up)
                .zip(&expected)
                .map(|((gate, up), y)| {
                    let (gate, up) = (gate.to_f32(), f64::from(up.to_f32()));
                    let activated = function.apply(f64::from(gate));
                    activation_bound(function, gate, activated) * up.abs()
                        + 1.01 * U * y.abs()
                        + f64::from(f32::from_bits(1))
                })
                .collect();
            assert_within(&actual, &expected, &bounds);
        }
    }
}

#[test]
fn every_type_and_length_is_within_its_bound() {
    let (device, mut random) = (device(), random());
    for len in [1, 7, 8, 9, 256, 2047, 2048, 2049, 6912, 40_003] {
        let x = floats(&mut random, len, 6.0);
        check_plain::<f32>(&device, &x);
        check_plain::<f16>(&device, &x);
        check_plain::<bf16>(&device, &x);
    }
}

#[test]
fn the_tails_are_within_their_bound() {
    let device = device();
    // To where exp overflows, and beyond; small magnitudes down to subnormal numbers; zeros.
    let dense = (-9000..=9000).map(|i| i as f32 * 0.0125);
    let wide = (-126..=126).flat_map(|exponent| {
        let x = 2_f32.powi(exponent) * 1.37;
        [x, -x]
    });
    let x: Vec<f32> = dense
        .chain(wide)
        .chain([0.0, -0.0, 1e-40, -1e-45])
        .collect();
    check_plain::<f32>(&device, &x);
    check_plain::<bf16>(&device, &x);
    let within_f16: Vec<f32> = x.iter().copied().filter(|x| x.abs() < 6e4).collect();
    check_plain::<f16>(&device, &within_f16);
    check_tails(&device, &x);
}

/// Against forms of the formulas that do not cancel, so that the relative error is checked wherever f32 has numbers.
fn check_tails(device: &Device, x: &[f32]) {
    let input = Buffer::from_slice(device, x).unwrap();
    for function in Activation::ALL {
        let exact = |x: f64| match function {
            Activation::SquaredRelu => x.max(0.0).powi(2),
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::GeluErf => 0.5 * x * libm::erfc(-x * FRAC_1_SQRT_2),
            Activation::GeluTanh => {
                x / (1.0 + (-2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)).exp())
            }
        };
        let mut output = poisoned::<f32>(device, x.len());
        activate(&device.default_stream(), function, &input, &mut output).unwrap();
        let expected: Vec<f64> = x.iter().map(|&x| exact(f64::from(x))).collect();
        let bounds: Vec<f64> = x
            .iter()
            .zip(&expected)
            .map(|(x, y)| exact_activation_bound(function, *x, *y))
            .collect();
        assert_within(&output.to_vec().unwrap(), &expected, &bounds);
    }
}

#[test]
fn special_values_are_the_references() {
    let device = device();
    let x = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        f32::MAX,
        f32::MIN,
    ];
    let input = Buffer::from_slice(&device, &x).unwrap();
    for function in Activation::ALL {
        let mut output = poisoned::<f32>(&device, x.len());
        activate(&device.default_stream(), function, &input, &mut output).unwrap();
        for (x, y) in x.iter().zip(output.to_vec().unwrap()) {
            let expected = function.apply(f64::from(*x)) as f32;
            assert!(
                y == expected || y.is_nan() && expected.is_nan(),
                "{function:?}({x}) = {y}, not {expected}"
            );
        }
    }
}

#[test]
fn gated_shapes_and_values_drawn_at_random_are_within_their_bound() {
    let device = device();
    let shapes = (1_usize..5, 1_usize..700, any::<u64>(), -4_i32..4);
    drawn::runner(30)
        .run(&shapes, |(m, width, seed, exponent)| {
            let mut random = fastrand::Rng::with_seed(seed);
            let gate_up = floats(&mut random, m * 2 * width, 2_f32.powi(exponent));
            check_gated::<f32>(&device, &gate_up, m);
            check_gated::<f16>(&device, &gate_up, m);
            check_gated::<bf16>(&device, &gate_up, m);
            Ok(())
        })
        .unwrap();
}

#[test]
fn gated_rows_longer_than_a_block_are_within_their_bound() {
    let (device, mut random) = (device(), random());
    for (m, width) in [(3, 6912), (2, 8191), (1, 20_000)] {
        let gate_up = floats(&mut random, m * 2 * width, 3.0);
        check_gated::<f32>(&device, &gate_up, m);
        check_gated::<bf16>(&device, &gate_up, m);
    }
}

#[test]
fn the_golden_values_are_within_their_bound() {
    let device = device();
    let golden = Golden::open("elementwise.safetensors");
    let (gate, up) = (golden.f32("gate"), golden.f32("up"));
    let buffer = |values: &[f32]| Buffer::from_slice(&device, values).unwrap();
    let (gates, ups) = (buffer(&gate), buffer(&up));
    for (function, name) in [
        (Activation::SquaredRelu, "relu2"),
        (Activation::Silu, "silu"),
        (Activation::GeluErf, "gelu_erf"),
        (Activation::GeluTanh, "gelu_tanh"),
    ] {
        let mut output = poisoned::<f32>(&device, gate.len());
        activate(&device.default_stream(), function, &gates, &mut output).unwrap();
        let mut product = poisoned::<f32>(&device, gate.len());
        let both = GateUp::Separate {
            gate: &gates,
            up: &ups,
        };
        gated(
            &device.default_stream(),
            function,
            both,
            gate.len(),
            &mut product,
        )
        .unwrap();
        // The golden value's own rounding on top.
        let (plain, times_up) = (golden.f64(name), golden.f64(&format!("{name}_times_up")));
        let bound =
            |i: usize| activation_bound(function, gate[i], plain[i]) + 1.01 * U * plain[i].abs();
        let bounds: Vec<f64> = (0..gate.len()).map(bound).collect();
        assert_within(&output.to_vec().unwrap(), &plain, &bounds);
        let bounds: Vec<f64> = (0..gate.len())
            .map(|i| bound(i) * f64::from(up[i]).abs() + 2.02 * U * times_up[i].abs())
            .collect();
        assert_within(&product.to_vec().unwrap(), &times_up, &bounds);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let device = device();
    let stream = device.default_stream();
    let buffer = |len| Buffer::<f32>::zeroed(&device, len).unwrap();
    let error = activate(&stream, Activation::Silu, &buffer(7), &mut buffer(8)).unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Length {
                name: "input",
                expected: 8,
                actual: 7,
                ..
            }
        ),
        "{error}"
    );
    let error = activate(&stream, Activation::Silu, &buffer(0), &mut buffer(0)).unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Size {
                name: "length",
                value: 0,
                ..
            }
        ),
        "{error}"
    );

    let both = buffer(16);
    let run = |width, output| {
        let gate_up = GateUp::Interleaved(&both);
        gated(
            &stream,
            Activation::GeluErf,
            gate_up,
            width,
            &mut buffer(output),
        )
        .unwrap_err()
    };
    assert!(matches!(
        run(0, 8),
        OpError::Size {
            name: "width",
            value: 0,
            ..
        }
    ));
    for (width, output) in [(4, 0), (3, 8), (9, 8)] {
        let error = run(width, output);
        let expected = OpError::Tokens {
            name: "output",
            actual: output,
            width,
        };
        assert_eq!(error, expected);
    }
    assert!(matches!(
        run(4, 12),
        OpError::Length {
            name: "gate and up",
            actual: 16,
            ..
        }
    ));

    let other = integration_tests::device();
    let far = Buffer::<f32>::zeroed(&other, 8).unwrap();
    // Two handles of one GPU are the same device.
    if other != device {
        let error = activate(&stream, Activation::Silu, &far, &mut buffer(8)).unwrap_err();
        assert!(
            matches!(error, OpError::Launch(LaunchError::Device(_))),
            "{error}"
        );
    }
}
