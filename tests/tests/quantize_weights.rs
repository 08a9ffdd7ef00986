//! Weights quantized on the device equal the golden files and the reference, bit for bit: values, scales, packed bytes.

use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::layout::{Layout, LayoutError, PackedWeights};
use bitnet_cuda::ops::{BitLinear, OpError, WeightGranularity, WeightQuantizer, quantize_weights};
use bitnet_cuda::reference::ReferenceError;
use bitnet_cuda::reference::fused::bit_linear;
use bitnet_cuda::reference::linear::Shape;
use bitnet_cuda::reference::quantize::{
    self, dequantize_weights, quantize_weights_binary, quantize_weights_ternary,
};
use half::{bf16, f16};
use integration_tests::drawn;
use integration_tests::{Number, cast, device, floats, poisoned, random};
use proptest::prelude::*;
use safetensors::SafeTensors;

const GRANULARITIES: [WeightGranularity; 2] =
    [WeightGranularity::Tensor, WeightGranularity::Channel];

/// Quantizes `w` in each way and compares, then back to every type.
fn check<T: Number>(device: &Device, w: &[T], n: usize, k: usize) {
    let stream = device.default_stream();
    let input = Buffer::from_slice(device, w).unwrap();
    for granularity in GRANULARITIES {
        for quantizer in [WeightQuantizer::Ternary, WeightQuantizer::Binary] {
            let expected = match quantizer {
                WeightQuantizer::Ternary => quantize_weights_ternary(w, n, k, granularity),
                WeightQuantizer::Binary => quantize_weights_binary(w, n, k, granularity),
            };
            let expected = expected.unwrap();
            let actual = quantize_weights(&stream, &input, n, k, quantizer, granularity).unwrap();
            let packed = actual.weights().to_packed().unwrap();
            let what = format!("{quantizer:?} {granularity:?} {n} x {k}");
            assert_eq!(
                packed.bytes(),
                PackedWeights::pack(Layout::Tiled, &expected.values, n, k)
                    .unwrap()
                    .bytes(),
                "{what}"
            );
            assert_eq!(packed.unpack(), expected.values, "{what}");
            assert_eq!(
                bits(&actual.device_row_scales().to_vec().unwrap()),
                bits(&expected.scales.expand()),
                "{what}"
            );
            assert_eq!(actual.row_scales(), &expected.scales, "{what}");

            let back = dequantize_weights(&expected).unwrap();
            check_dequantized::<f32>(device, &actual, &back);
            check_dequantized::<f16>(device, &actual, &back);
            check_dequantized::<bf16>(device, &actual, &back);
        }
    }
}

fn check_dequantized<T: Number>(
    device: &Device,
    weights: &bitnet_cuda::ops::QuantizedWeights,
    expected: &[f32],
) {
    let mut output = poisoned::<T>(device, expected.len());
    weights
        .dequantize(&device.default_stream(), &mut output)
        .unwrap();
    let actual: Vec<f32> = output
        .to_vec()
        .unwrap()
        .into_iter()
        .map(|x| x.to_f32())
        .collect();
    let expected: Vec<f32> = expected.iter().map(|&x| T::from_f32(x).to_f32()).collect();
    assert_eq!(bits(&actual), bits(&expected));
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_type_and_shape_equals_the_reference() {
    let (device, mut random) = (device(), random());
    // Around quads, warps' columns, layout blocks, loads in flight.
    let shapes = [
        (1, 1),
        (1, 128),
        (3, 7),
        (4, 32),
        (5, 33),
        (15, 127),
        (16, 128),
        (17, 129),
        (33, 257),
        (48, 1021),
        (64, 2560),
        (7, 6912),
        (300, 64),
    ];
    for (n, k) in shapes {
        let w = floats(&mut random, n * k, 0.05);
        check(&device, &w, n, k);
        check(&device, &cast::<f16>(&w), n, k);
        check(&device, &cast::<bf16>(&w), n, k);
    }
}

#[test]
fn the_golden_weights_come_out_bit_for_bit() {
    let device = device();
    let bytes = std::fs::read("golden/elementwise.safetensors").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name| file.tensor(name).unwrap();
    let f32s = |name| -> Vec<f32> {
        let (words, _) = tensor(name).data().as_chunks::<4>();
        words
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect()
    };
    let w = f32s("weight");
    let [n, k] = tensor("weight").shape().try_into().unwrap();
    let input = Buffer::from_slice(&device, &w).unwrap();
    let quantized = quantize_weights(
        &device.default_stream(),
        &input,
        n,
        k,
        WeightQuantizer::Ternary,
        WeightGranularity::Tensor,
    )
    .unwrap();
    let golden: Vec<i8> = tensor("weight_ternary")
        .data()
        .iter()
        .map(|&byte| byte as i8)
        .collect();
    assert_eq!(quantized.weights().to_packed().unwrap().unpack(), golden);
    let scale = f32s("weight_scale")[0].to_bits();
    assert_eq!(
        bits(&quantized.device_row_scales().to_vec().unwrap()),
        vec![scale; n]
    );
}

#[test]
fn ties_denormals_zeros_and_equal_magnitudes_round_as_the_formula_says() {
    let device = device();
    let halves: Vec<f32> = (0..320)
        .map(|i| [0.5, -0.5, 1.5, -1.5, 1.0][i % 5])
        .collect();
    check(&device, &halves, 5, 64);
    check(&device, &[0.0_f32; 99], 3, 33);
    check(&device, &[-0.25_f32; 99], 9, 11);
    let denormals: Vec<f32> = (0..300).map(|i| f32::from_bits(i * 7919)).collect();
    check(&device, &denormals, 6, 50);
    // A mean that f32 could not have summed.
    let mut wide = vec![1e-3_f32; 512];
    wide[17] = 3e38;
    wide[300] = -3e38;
    check(&device, &wide, 2, 256);
}

/// For some weights `w * (1 / scale)` and `w / scale` are on different sides of 1/2, where a weight becomes 1.
#[test]
fn a_weight_at_half_the_scale_is_multiplied_with_the_reciprocal() {
    let (device, mut random) = (device(), random());
    let (mut w, mut expected) = (Vec::new(), Vec::new());
    while w.len() < 40 {
        let about = 1.0 + random.f32();
        let half = (about / 2.0).next_up();
        let row = [half, 2.0 * about - half];
        // Each operation in f64, exact but for the quotient, and rounded once to f32.
        let scale = ((f64::from(row[0]) + f64::from(row[1])) / 2.0) as f32;
        let reciprocal = (1.0 / f64::from(scale)) as f32;
        let product = (f64::from(half) * f64::from(reciprocal)) as f32;
        let quotient = (f64::from(half) / f64::from(scale)) as f32;
        if (product > 0.5) != (quotient > 0.5) {
            w.extend(row);
            expected.extend([i8::from(product > 0.5), 1]);
        }
    }
    let input = Buffer::from_slice(&device, &w).unwrap();
    let (quantizer, granularity) = (WeightQuantizer::Ternary, WeightGranularity::Channel);
    let stream = device.default_stream();
    let quantized = quantize_weights(&stream, &input, 20, 2, quantizer, granularity).unwrap();
    assert_eq!(quantized.weights().to_packed().unwrap().unpack(), expected);
    check(&device, &w, 20, 2);
}

#[test]
fn lanes_are_added_in_the_order_that_the_docs_fix() {
    let device = device();
    // Lanes 0 and 16 meet first and cancel; next to 2^60 an f64 loses all else.
    let mut w = vec![0.03_f32; 32];
    (w[0], w[16]) = (2_f32.powi(60), -2_f32.powi(60));
    (w[1], w[17]) = (1.0, 1.0);
    let input = Buffer::from_slice(&device, &w).unwrap();
    let (quantizer, granularity) = (WeightQuantizer::Binary, WeightGranularity::Tensor);
    let stream = device.default_stream();
    let quantized = quantize_weights(&stream, &input, 1, 32, quantizer, granularity).unwrap();
    // The mean is (2 + 28 * 0.03) / 32 = 0.089.
    let mut expected = vec![-1; 32];
    for above in [0, 1, 17] {
        expected[above] = 1;
    }
    assert_eq!(quantized.weights().to_packed().unwrap().unpack(), expected);
    check(&device, &w, 1, 32);
}

#[test]
fn shapes_and_values_drawn_at_random_equal_the_reference() {
    let device = device();
    drawn::runner(40)
        .run(
            &(1_usize..70, 1_usize..400, any::<u64>()),
            |(n, k, seed)| {
                let mut random = fastrand::Rng::with_seed(seed);
                // Any finite bits at all.
                let w: Vec<f32> = (0..n * k)
                    .map(|_| f32::from_bits(random.u32(..)))
                    .map(|w| if w.is_finite() { w } else { 0.5 })
                    .collect();
                check(&device, &w, n, k);
                check(
                    &device,
                    &cast::<bf16>(&floats(&mut random, n * k, 0.1)),
                    n,
                    k,
                );
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let (device, mut random) = (device(), random());
    let (n, k) = (20, 130);
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut w = floats(&mut random, n * k, 1.0);
        w[13 * k + 77] = special;
        w[19 * k] = f32::NAN;
        let input = Buffer::from_slice(&device, &w).unwrap();
        for granularity in GRANULARITIES {
            for quantizer in [WeightQuantizer::Ternary, WeightQuantizer::Binary] {
                let stream = device.default_stream();
                let error =
                    quantize_weights(&stream, &input, n, k, quantizer, granularity).unwrap_err();
                let expected =
                    quantize::quantize_weights_ternary(&w, n, k, granularity).unwrap_err();
                assert_eq!(error.to_string(), OpError::Weights(expected).to_string());
                assert!(
                    matches!(
                        error,
                        OpError::Weights(ReferenceError::NonFiniteWeight {
                            row: 13,
                            column: 77,
                            ..
                        })
                    ),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let device = device();
    let stream = device.default_stream();
    let input = Buffer::<f32>::zeroed(&device, 12).unwrap();
    let run = |n, k| {
        let (quantizer, granularity) = (WeightQuantizer::Ternary, WeightGranularity::Tensor);
        quantize_weights(&stream, &input, n, k, quantizer, granularity).unwrap_err()
    };
    assert!(matches!(
        run(0, 12),
        OpError::Layout(LayoutError::ZeroSize { .. })
    ));
    assert!(matches!(
        run(3, 5),
        OpError::Length {
            name: "weights",
            expected: 15,
            actual: 12,
            ..
        }
    ));

    let (quantizer, granularity) = (WeightQuantizer::Binary, WeightGranularity::Channel);
    let weights = quantize_weights(&stream, &input, 3, 4, quantizer, granularity).unwrap();
    let error = weights
        .dequantize(&stream, &mut poisoned::<f32>(&device, 13))
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Length {
                name: "output",
                expected: 12,
                actual: 13,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_layer_takes_weights_as_they_were_quantized() {
    let (device, mut random) = (device(), random());
    let stream = device.default_stream();
    for granularity in GRANULARITIES {
        for quantizer in [WeightQuantizer::Ternary, WeightQuantizer::Binary] {
            for (m, n, k) in [(1, 33, 257), (3, 100, 640)] {
                let w = floats(&mut random, n * k, 1.0);
                let input = Buffer::from_slice(&device, &w).unwrap();
                let quantized =
                    quantize_weights(&stream, &input, n, k, quantizer, granularity).unwrap();
                let (values, scales) = (
                    quantized.weights().to_packed().unwrap().unpack(),
                    quantized.row_scales().clone(),
                );
                let address = quantized.weights().bytes().device_ptr();
                let layer = BitLinear::from_quantized(quantized);
                assert_eq!(
                    layer.packed_weights().device_ptr(),
                    address,
                    "nothing is copied"
                );

                let x = floats(&mut random, m * k, 1.0);
                let input = Buffer::from_slice(&device, &x).unwrap();
                let mut y = poisoned::<f32>(&device, m * n);
                layer.forward(&stream, &input, &mut y).unwrap();
                let shape = Shape { m, n, k };
                let expected: Vec<f32> =
                    bit_linear(&x, &values, shape, &scales, None, None).unwrap();
                assert_eq!(
                    y.to_vec().unwrap(),
                    expected,
                    "{quantizer:?} {granularity:?}"
                );
            }
        }
    }
}
