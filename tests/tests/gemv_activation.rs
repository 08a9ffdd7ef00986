//! A product's activation function, between bias and residual, is within the bounds of docs/numerics.md.

use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::launch::Gemv;
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{Activation, BitLinear, QuantizedActivations};
use bitnet_cuda::reference::RowScales;
use bitnet_cuda::reference::fused::activated_linear;
use bitnet_cuda::reference::linear::{Epilogue, Shape, accumulate, epilogue};
use half::{bf16, f16};
use integration_tests::tolerance::{U, activation_bound, assert_within};
use integration_tests::{Number, cast, device, drawn, floats, int8, poisoned, random, ternary};
use proptest::prelude::*;

fn check<T: Number>(
    device: &Device,
    random: &mut fastrand::Rng,
    shape: Shape,
    activation: Activation,
    (bias, residual): (bool, bool),
) {
    let Shape { m, n, k } = shape;
    let (weights, values) = (ternary(random, n * k), int8(random, m * k));
    let token_scales: Vec<f32> = floats(random, m, 20.0).iter().map(|s| s + 30.0).collect();
    // Arguments of a few units, of both signs.
    let row_scales = RowScales::per_row(&floats(random, n, 8.0 / (k as f32).sqrt())).unwrap();
    let bias = bias.then(|| floats(random, n, 1.0));
    let residual = residual.then(|| cast::<T>(&floats(random, m * n, 1.0)));

    let packed = |layout| PackedWeights::pack(layout, &weights, n, k).unwrap();
    let layers = [
        BitLinear::from_packed(device, &packed(Layout::Tiled), &row_scales),
        BitLinear::from_ladder(device, &packed(Layout::Ladder), &row_scales),
    ];
    let input = QuantizedActivations::from_values(device, &values, &token_scales, m, k).unwrap();
    let on_device = residual
        .as_ref()
        .map(|residual| Buffer::from_slice(device, residual).unwrap());
    let outputs = layers.map(|layer| {
        let mut layer = layer.unwrap().with_activation(activation);
        if let Some(bias) = &bias {
            layer = layer.with_bias(bias).unwrap();
        }
        let mut y = poisoned::<T>(device, m * n);
        layer
            .forward_residual(&device.default_stream(), &input, on_device.as_ref(), &mut y)
            .unwrap();
        y.to_vec().unwrap()
    });

    let wide: Option<Vec<f32>> = residual.map(|r| r.iter().map(|r| r.to_f32()).collect());
    let terms = Epilogue {
        activation_scales: &token_scales,
        row_scales: &row_scales,
        bias: bias.as_deref(),
        residual: None,
    };
    let sums = accumulate(&values, &weights, shape).unwrap();
    let arguments: Vec<f32> = epilogue(&sums, m, n, &terms).unwrap();
    let of_function = activated_linear(&sums, m, n, &terms, activation).unwrap();
    let terms = Epilogue {
        residual: wide.as_deref(),
        ..terms
    };
    let expected = activated_linear(&sums, m, n, &terms, activation).unwrap();
    let bounds: Vec<f64> = (0..m * n)
        .map(|i| {
            let bound = activation_bound(activation, arguments[i], of_function[i]);
            let sum = if wide.is_some() {
                U * expected[i].abs()
            } else {
                0.0
            };
            1.01 * (bound + sum)
        })
        .collect();
    for y in &outputs {
        assert_within(y, &expected, &bounds);
    }
}

#[test]
fn every_function_and_type_with_and_without_bias_and_residual() {
    let (device, mut random) = (device(), random());
    for (m, n, k) in [(1, 50, 200), (3, 33, 513), (8, 16, 128), (1, 700, 64)] {
        let shape = Shape { m, n, k };
        for activation in Activation::ALL {
            for terms in [(false, false), (true, false), (false, true), (true, true)] {
                check::<f32>(&device, &mut random, shape, activation, terms);
                check::<f16>(&device, &mut random, shape, activation, terms);
                check::<bf16>(&device, &mut random, shape, activation, terms);
            }
        }
    }
}

/// The block that comes last finishes the row, whatever is added to it.
#[test]
fn products_that_are_split_along_k_are_finished_once() {
    let (device, mut random) = (Device::emulated().unwrap(), random());
    for m in [1, 8] {
        let (n, k) = (20, 32_768);
        let variant = Gemv::choose(device.capabilities(), Layout::Tiled, m, n, k).unwrap();
        assert!(variant.shape().splits > 1, "{}", variant.name());
        for activation in Activation::ALL {
            check::<f32>(
                &device,
                &mut random,
                Shape { m, n, k },
                activation,
                (true, true),
            );
            check::<bf16>(
                &device,
                &mut random,
                Shape { m, n, k },
                activation,
                (true, false),
            );
        }
    }
}

#[test]
fn shapes_and_values_drawn_at_random_are_within_their_bound() {
    let device = device();
    drawn::runner(48)
        .run(
            &(
                (1..=17_usize, drawn::size(300), drawn::size(1500)),
                prop::sample::select(Activation::ALL.to_vec()),
                (any::<bool>(), any::<bool>()),
                any::<u64>(),
            ),
            |((m, n, k), activation, terms, seed)| {
                let shape = Shape { m, n, k };
                let random = &mut fastrand::Rng::with_seed(seed);
                check::<f32>(&device, random, shape, activation, terms);
                check::<f16>(&device, random, shape, activation, terms);
                check::<bf16>(&device, random, shape, activation, terms);
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn squared_relu_is_the_reference_bit_for_bit() {
    let (device, mut random) = (device(), random());
    let (n, k) = (300, 640);
    let (weights, values) = (ternary(&mut random, n * k), int8(&mut random, k));
    let packed = PackedWeights::pack(Layout::Tiled, &weights, n, k).unwrap();
    let scales = RowScales::per_tensor(n, 0.02).unwrap();
    let layer = BitLinear::from_packed(&device, &packed, &scales)
        .unwrap()
        .with_activation(Activation::SquaredRelu);
    let input = QuantizedActivations::from_values(&device, &values, &[31.0], 1, k).unwrap();
    let mut y = poisoned::<f32>(&device, n);
    layer
        .forward_quantized(&device.default_stream(), &input, &mut y)
        .unwrap();
    let sums = accumulate(&values, &weights, Shape { m: 1, n, k }).unwrap();
    let terms = Epilogue {
        activation_scales: &[31.0],
        row_scales: &scales,
        bias: None,
        residual: None,
    };
    let arguments: Vec<f32> = epilogue(&sums, 1, n, &terms).unwrap();
    let expected: Vec<f32> = arguments.iter().map(|&x| x.max(0.0) * x.max(0.0)).collect();
    assert_eq!(y.to_vec().unwrap(), expected);
}
