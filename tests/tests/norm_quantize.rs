//! Fused norm and quantization: bit for bit the norm, then the quantization; within its bound of the reference.

mod traffic;

use bitnet_cuda::device::{Buffer, Device, EmulatedConfig};
use bitnet_cuda::ops::{
    ActivationGranularity, GateUp, Norm, OpError, QuantizedActivations, quantize_activations,
};
use bitnet_cuda::reference::activation::{Activation, gated};
use bitnet_cuda::reference::fused::{add_norm_quantize, add_residual, gated_norm_quantize};
use bitnet_cuda::reference::norm::{self, normalize};
use bitnet_cuda::reference::quantize;
use half::{bf16, f16};
use integration_tests::drawn::{self, Values};
use integration_tests::tolerance::{U, activation_bound, norm_bounds};
use integration_tests::{
    Number, assert_same, cast, device, download, floats, poisoned, poisoned_activations, random,
};
use proptest::prelude::*;

const EPS: f32 = 1e-5;
const WIDTHS: [usize; 16] = [
    1, 8, 9, 255, 256, 2560, 2561, 8064, 8185, 8192, 8200, 16_392, 24_584, 33_000, 65_535, 65_536,
];

/// A norm's parameters.
struct Parameters {
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl Parameters {
    fn random(random: &mut fastrand::Rng, width: usize) -> Self {
        Self {
            gamma: floats(random, width, 1.5),
            beta: floats(random, width, 0.5),
        }
    }

    /// RMSNorm, LayerNorm with bias and without, for the reference and on the device.
    fn norms(&self, device: &Device) -> [(norm::Norm<'_>, Norm); 3] {
        let Self { gamma, beta } = self;
        let eps = f64::from(EPS);
        [
            (
                norm::Norm::Rms { gamma, eps },
                Norm::rms(device, gamma.len(), Some(gamma), EPS).unwrap(),
            ),
            (
                norm::Norm::Layer {
                    gamma,
                    beta: Some(beta),
                    eps,
                },
                Norm::layer(device, gamma.len(), Some(gamma), Some(beta), EPS).unwrap(),
            ),
            (
                norm::Norm::Layer {
                    gamma,
                    beta: None,
                    eps,
                },
                Norm::layer(device, gamma.len(), Some(gamma), None, EPS).unwrap(),
            ),
        ]
    }
}

/// The norm of f32 tokens, then its quantization, as two operations.
fn in_two_steps(device: &Device, norm: &Norm, x: &[f32]) -> quantize::QuantizedActivations {
    let stream = device.default_stream();
    let input = Buffer::from_slice(device, x).unwrap();
    let mut normalized = poisoned(device, x.len());
    norm.normalize(&stream, &input, &mut normalized).unwrap();
    let mut output = poisoned_activations(&stream, x.len() / norm.width(), norm.width());
    quantize_activations(&stream, &normalized, &mut output).unwrap();
    download(&output)
}

/// Checks one token against the f64 norm `y`, of which the kernel's f32 values may be off by `bounds`.
fn assert_quantized(q: &[i8], scale: f32, y: &[f64], bounds: &[f64]) {
    let absmax = y.iter().fold(0.0, |largest: f64, y| largest.max(y.abs()));
    let bound = bounds
        .iter()
        .fold(0.0, |largest: f64, bound| largest.max(*bound));
    let scale = f64::from(scale);
    // The maximum is off by `bound` at most; it and the quotient are rounded.
    let [least, most] = [absmax + bound, absmax - bound].map(|absmax| 127.0 / absmax.max(1e-5));
    assert!(
        (least * (1.0 - 3.0 * U)..=most * (1.0 + 3.0 * U)).contains(&scale),
        "the scale {scale} is not in {least}..={most}"
    );
    for ((&q, y), bound) in q.iter().zip(y).zip(bounds) {
        let product = y * scale;
        let slack = (bound * scale + product.abs() * U) * (1.0 + U);
        assert!(
            (f64::from(q) - product).abs() <= 0.5 + slack,
            "{q} is not {product}"
        );
    }
}

/// Checks quantized tokens against the f64 norm of `x`.
fn assert_near_the_norm<T: Number>(
    quantized: &quantize::QuantizedActivations,
    x: &[T],
    norm: &norm::Norm,
) {
    let m = quantized.scales.len();
    let width = x.len() / m;
    let y = normalize(x, m, width, norm).unwrap();
    for token in 0..m {
        let row = token * width..(token + 1) * width;
        let y = &y[row.clone()];
        let bounds = norm_bounds(&x[row.clone()], norm, y);
        assert_quantized(&quantized.values[row], quantized.scales[token], y, &bounds);
    }
}

fn check<T: Number>(device: &Device, x: &[f32], residual: &[f32], parameters: &Parameters) {
    let (x, residual) = (cast::<T>(x), cast::<T>(residual));
    let width = parameters.gamma.len();
    let m = x.len() / width;
    let stream = device.default_stream();
    let input = Buffer::from_slice(device, &x).unwrap();
    for (reference, norm) in parameters.norms(device) {
        let mut output = poisoned_activations(&stream, m, width);
        norm.normalize_quantize(&stream, &input, &mut output)
            .unwrap();
        let wide: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
        assert_same(&download(&output), &in_two_steps(device, &norm, &wide));

        let mut sum = Buffer::from_slice(device, &residual).unwrap();
        let mut output = poisoned_activations(&stream, m, width);
        norm.add_normalize_quantize(&stream, &input, &mut sum, &mut output)
            .unwrap();
        let actual = download(&output);
        let (expected_sum, expected) =
            add_norm_quantize(&residual, &x, m, width, &reference).unwrap();
        let wide: Vec<f32> = expected_sum.iter().map(|x| x.to_f32()).collect();
        assert_eq!(
            sum.to_vec()
                .unwrap()
                .iter()
                .map(|x| x.to_f32())
                .collect::<Vec<_>>(),
            wide,
            "residual"
        );
        assert_same(&actual, &in_two_steps(device, &norm, &wide));

        for quantized in [&actual, &expected] {
            assert_near_the_norm(quantized, &expected_sum, &reference);
        }
    }
}

#[test]
fn every_type_and_width_is_the_norm_then_the_quantization() {
    let (device, mut random) = (device(), random());
    for width in WIDTHS {
        let m = if width > 3000 { 1 } else { 3 };
        let parameters = Parameters::random(&mut random, width);
        let x = floats(&mut random, m * width, 3.0);
        let residual = floats(&mut random, m * width, 2.0);
        check::<f32>(&device, &x, &residual, &parameters);
        check::<f16>(&device, &x, &residual, &parameters);
        check::<bf16>(&device, &x, &residual, &parameters);
    }
}

#[test]
fn shapes_and_values_drawn_at_random_are_the_norm_then_the_quantization() {
    let device = device();
    drawn::runner(40)
        .run(
            &(1..4_usize, drawn::size(2100), Values::any(), any::<u64>()),
            |(m, width, values, seed)| {
                let mut random = fastrand::Rng::with_seed(seed);
                let parameters = Parameters::random(&mut random, width);
                let x = values.of(&mut random, m, width);
                let other = values.of(&mut random, m, width);
                check::<f32>(&device, &x, &other, &parameters);
                check::<bf16>(&device, &x, &other, &parameters);
                check_gated::<f16>(
                    &device,
                    &x,
                    &floats(&mut random, m * width, 1.0),
                    &parameters,
                );
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn tokens_of_equal_or_no_values_are_quantized_too() {
    let (device, mut random) = (device(), random());
    let width = 264;
    let parameters = Parameters::random(&mut random, width);
    let zeros = vec![0.0; width];
    for token in [
        vec![0.0; width],
        vec![-7.25; width],
        vec![1e-39; width],
        vec![1e4; width],
    ] {
        check::<f32>(&device, &token, &zeros, &parameters);
        check::<bf16>(&device, &token, &zeros, &parameters);
    }
}

#[test]
fn a_nan_makes_nan_of_its_own_token_alone() {
    let (device, mut random) = (device(), random());
    let (m, width) = (3, 300);
    let parameters = Parameters::random(&mut random, width);
    for special in [f32::NAN, f32::INFINITY] {
        let mut x = floats(&mut random, m * width, 1.0);
        x[width + 7] = special;
        for (reference, norm) in parameters.norms(&device) {
            let stream = device.default_stream();
            let input = Buffer::from_slice(&device, &x).unwrap();
            let mut output = poisoned_activations(&stream, m, width);
            norm.normalize_quantize(&stream, &input, &mut output)
                .unwrap();
            let actual = download(&output);
            assert!(actual.scales[1].is_nan() && actual.sums[1] == 0);
            assert!(actual.values[width..2 * width].iter().all(|&q| q == 0));
            for token in [0, 2] {
                let row = token * width..(token + 1) * width;
                let y = normalize(&x[row.clone()], 1, width, &reference).unwrap();
                let bounds = norm_bounds(&x[row.clone()], &reference, &y);
                assert_quantized(&actual.values[row], actual.scales[token], &y, &bounds);
            }
        }
    }
}

fn check_gated<T: Number>(device: &Device, gate: &[f32], up: &[f32], parameters: &Parameters) {
    let (gate, up) = (cast::<T>(gate), cast::<T>(up));
    let width = parameters.gamma.len();
    let m = gate.len() / width;
    let stream = device.default_stream();
    let buffer = |values: &[T]| Buffer::from_slice(device, values).unwrap();
    let wide = |values: &[T]| -> Vec<f32> { values.iter().map(|x| x.to_f32()).collect() };
    let rows = || gate.chunks(width).zip(up.chunks(width));
    let concatenated: Vec<T> = rows().flat_map(|(gate, up)| [gate, up].concat()).collect();
    let interleaved: Vec<T> = gate
        .iter()
        .zip(&up)
        .flat_map(|(gate, up)| [*gate, *up])
        .collect();
    let buffers = [
        buffer(&gate),
        buffer(&up),
        buffer(&concatenated),
        buffer(&interleaved),
    ];
    let [gates, ups, concatenated, interleaved] = &buffers;
    for activation in Activation::ALL {
        // The f32 product, as an operation of its own.
        let (gate_f32, up_f32) = (
            Buffer::from_slice(device, &wide(&gate)).unwrap(),
            Buffer::from_slice(device, &wide(&up)).unwrap(),
        );
        let both = GateUp::Separate {
            gate: &gate_f32,
            up: &up_f32,
        };
        let mut product = poisoned::<f32>(device, gate.len());
        bitnet_cuda::ops::gated(&stream, activation, both, width, &mut product).unwrap();
        let product = product.to_vec().unwrap();
        let truth = gated(activation, &gate, &up).unwrap();
        let truth_f32: Vec<f32> = truth.iter().map(|&product| product as f32).collect();

        for (reference, norm) in parameters.norms(device) {
            let expected = in_two_steps(device, &norm, &product);
            for gate_up in [
                GateUp::Separate {
                    gate: gates,
                    up: ups,
                },
                GateUp::Concatenated(concatenated),
                GateUp::Interleaved(interleaved),
            ] {
                let mut output = poisoned_activations(&stream, m, width);
                norm.gated_normalize_quantize(&stream, activation, gate_up, &mut output)
                    .unwrap();
                assert_same(&download(&output), &expected);
            }
            assert_near_the_norm(&expected, &product, &reference);
            let in_f64 = gated_norm_quantize(activation, &gate, &up, m, width, &reference).unwrap();
            assert_near_the_norm(&in_f64, &truth_f32, &reference);
        }
        for (i, (product, truth)) in product.iter().zip(&truth).enumerate() {
            let (x, up) = (gate[i].to_f32(), f64::from(up[i].to_f32()));
            let bound = activation_bound(activation, x, activation.apply(f64::from(x))) * up.abs()
                + U * truth.abs();
            assert!(
                (f64::from(*product) - truth).abs() <= bound,
                "{activation:?}({x}) * {up}"
            );
        }
    }
}

#[test]
fn gated_tokens_are_the_product_then_the_norm_then_the_quantization() {
    let (device, mut random) = (device(), random());
    for width in [1, 9, 136, 2560, 6912, 8190, 8200, 16_384, 16_392, 65_536] {
        let m = if width > 3000 { 1 } else { 2 };
        let parameters = Parameters::random(&mut random, width);
        let gate = floats(&mut random, m * width, 3.0);
        let up = floats(&mut random, m * width, 2.0);
        check_gated::<f32>(&device, &gate, &up, &parameters);
        check_gated::<f16>(&device, &gate, &up, &parameters);
        check_gated::<bf16>(&device, &gate, &up, &parameters);
    }
}

#[test]
fn rows_that_shared_memory_holds_in_part_come_out_the_same() {
    let mut random = random();
    // Of five chunks per thread, 64, 163 and 99 KiB of shared memory and the registers hold two, all and four.
    let width = 33_001;
    let parameters = Parameters::random(&mut random, width);
    let x = floats(&mut random, width, 3.0);
    let other = floats(&mut random, width, 2.0);
    for compute_capability in [(7, 5), (8, 0), (8, 6)] {
        let device = Device::emulated_with(EmulatedConfig {
            compute_capability,
            ..EmulatedConfig::default()
        })
        .unwrap();
        check::<f32>(&device, &x, &other, &parameters);
        check_gated::<bf16>(&device, &x, &other, &parameters);
    }
}

#[test]
fn adding_rounds_the_residual_to_its_type() {
    let device = device();
    let norm = Norm::rms(&device, 8, None, EPS).unwrap();
    // 2048 + 1 is not an f16; ties go to even.
    let (x, residual) = (vec![f16::from_f32(1.0); 8], vec![f16::from_f32(2048.0); 8]);
    let input = Buffer::from_slice(&device, &x).unwrap();
    let mut sum = Buffer::from_slice(&device, &residual).unwrap();
    let mut output = QuantizedActivations::uninit(&device, 1, 8).unwrap();
    norm.add_normalize_quantize(&device.default_stream(), &input, &mut sum, &mut output)
        .unwrap();
    assert_eq!(sum.to_vec().unwrap(), add_residual(&residual, &x).unwrap());
    assert_eq!(sum.to_vec().unwrap(), residual);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let device = device();
    let stream = device.default_stream();
    let norm = Norm::rms(&device, 16, None, EPS).unwrap();
    let buffer = |len| Buffer::<f32>::zeroed(&device, len).unwrap();
    let quantized = |m, k| QuantizedActivations::uninit(&device, m, k).unwrap();

    let error = norm
        .normalize_quantize(&stream, &buffer(32), &mut quantized(2, 17))
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Dimension {
                expected: 16,
                actual: 17,
                ..
            }
        ),
        "{error}"
    );
    let error = norm
        .normalize_quantize(&stream, &buffer(31), &mut quantized(2, 16))
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Length {
                name: "input",
                actual: 31,
                ..
            }
        ),
        "{error}"
    );
    let error = norm
        .add_normalize_quantize(&stream, &buffer(32), &mut buffer(16), &mut quantized(2, 16))
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

    let per_tensor = ActivationGranularity::Tensor;
    let mut output =
        QuantizedActivations::uninit_with_granularity(&device, 2, 16, per_tensor).unwrap();
    let error = norm
        .normalize_quantize(&stream, &buffer(32), &mut output)
        .unwrap_err();
    assert!(matches!(error, OpError::PerTensor { .. }), "{error}");

    let (gate, up) = (buffer(32), buffer(16));
    let error = norm
        .gated_normalize_quantize(
            &stream,
            Activation::Silu,
            GateUp::Interleaved(&gate),
            &mut quantized(1, 15),
        )
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Dimension {
                expected: 16,
                actual: 15,
                ..
            }
        ),
        "{error}"
    );
    for (gate_up, wrong) in [
        (
            GateUp::Separate {
                gate: &gate,
                up: &up,
            },
            "up",
        ),
        (
            GateUp::Separate {
                gate: &up,
                up: &gate,
            },
            "gate",
        ),
        (GateUp::Concatenated(&gate), "gate and up"),
        (GateUp::Interleaved(&up), "gate and up"),
    ] {
        let error = norm
            .gated_normalize_quantize(&stream, Activation::Silu, gate_up, &mut quantized(2, 16))
            .unwrap_err();
        assert!(
            matches!(error, OpError::Length { name, .. } if name == wrong),
            "{error}"
        );
    }
}
