//! Quantization per tensor and dequantization of activations equal the reference, bit for bit.

use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::ops::{
    ActivationGranularity, OpError, QuantizationType, QuantizedActivations, dequantize_activations,
    quantize_activations,
};
use bitnet_cuda::reference::quantize;
use half::{bf16, f16};
use integration_tests::drawn;
use integration_tests::{Number, assert_same, cast, device, download, floats, poisoned, random};
use proptest::prelude::*;

/// Quantizes `x` in both granularities and back to every type, and compares.
fn check<T: Number>(device: &Device, x: &[T], m: usize, k: usize) {
    let stream = device.default_stream();
    let input = Buffer::from_slice(device, x).unwrap();
    for granularity in [ActivationGranularity::Tensor, ActivationGranularity::Token] {
        let mut output =
            QuantizedActivations::uninit_with_granularity(device, m, k, granularity).unwrap();
        assert_eq!(output.granularity(), granularity);
        let poison = Buffer::from_slice(device, &vec![T::from_f32(-77.0); m * k]).unwrap();
        quantize_activations(&stream, &poison, &mut output).unwrap();
        quantize_activations(&stream, &input, &mut output).unwrap();
        let expected = quantize::quantize_activations(x, m, k, granularity).unwrap();
        assert_same(&download(&output), &expected);

        check_dequantized::<f32>(device, &output, &expected);
        check_dequantized::<f16>(device, &output, &expected);
        check_dequantized::<bf16>(device, &output, &expected);
    }
}

fn check_dequantized<T: Number>(
    device: &Device,
    activations: &QuantizedActivations,
    expected: &quantize::QuantizedActivations,
) {
    let mut output = poisoned::<T>(device, expected.values.len());
    dequantize_activations(&device.default_stream(), activations, &mut output).unwrap();
    let expected = quantize::dequantize_activations(expected).unwrap();
    for (actual, expected) in output.to_vec().unwrap().into_iter().zip(expected) {
        let (actual, expected) = (actual.to_f32(), T::from_f32(expected).to_f32());
        assert!(
            actual.to_bits() == expected.to_bits() || actual.is_nan() && expected.is_nan(),
            "{actual} is not {expected}"
        );
    }
}

#[test]
fn every_type_and_shape_equals_the_reference() {
    let (device, mut random) = (device(), random());
    // More tokens than the first step has blocks, and rows longer than a block has threads.
    for (m, k) in [
        (1, 1),
        (2, 7),
        (5, 129),
        (8, 2560),
        (700, 16),
        (513, 9),
        (2, 8200),
        (1, 40_000),
    ] {
        let mut x = floats(&mut random, m * k, 5.0);
        // The largest comes last.
        x[m * k - 1] = -6.0;
        check(&device, &x, m, k);
        check(&device, &cast::<f16>(&x), m, k);
        check(&device, &cast::<bf16>(&x), m, k);
    }
}

#[test]
fn shapes_and_bits_drawn_at_random_equal_the_reference() {
    let device = device();
    drawn::runner(60)
        .run(
            &(1_usize..20, 1_usize..300, any::<u64>(), any::<bool>()),
            |(m, k, seed, finite)| {
                let mut random = fastrand::Rng::with_seed(seed);
                // Any bits at all: subnormal and huge numbers, infinities and NaNs.
                let x: Vec<f32> = (0..m * k)
                    .map(|_| f32::from_bits(random.u32(..)))
                    .map(|x| if finite && !x.is_finite() { 1.0 } else { x })
                    .collect();
                check(&device, &x, m, k);
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn one_token_that_is_not_finite_spoils_the_tensor() {
    let (device, mut random) = (device(), random());
    let (m, k) = (6, 40);
    for special in [f32::NAN, f32::INFINITY] {
        let mut x = floats(&mut random, m * k, 1.0);
        x[2 * k + 3] = special;
        check(&device, &x, m, k);
    }
}

#[test]
fn every_pair_of_granularities_has_a_name() {
    let mut names = std::collections::BTreeSet::new();
    for kind in QuantizationType::ALL {
        assert_eq!(
            QuantizationType::new(kind.activations(), kind.weights()),
            kind
        );
        names.insert(kind.to_string());
    }
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let device = device();
    let stream = device.default_stream();
    let per_tensor = ActivationGranularity::Tensor;
    let make = |m, k| QuantizedActivations::uninit_with_granularity(&device, m, k, per_tensor);
    assert!(matches!(make(0, 4), Err(OpError::Size { name: "m", .. })));
    assert!(matches!(make(4, 0), Err(OpError::Size { name: "k", .. })));
    let mut activations = make(3, 5).unwrap();
    let mut wrong = Buffer::<f32>::zeroed(&device, 16).unwrap();
    let error = quantize_activations(&stream, &wrong, &mut activations).unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Length {
                name: "input",
                expected: 15,
                actual: 16,
                ..
            }
        ),
        "{error}"
    );
    let error = dequantize_activations(&stream, &activations, &mut wrong).unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Length {
                name: "output",
                expected: 15,
                actual: 16,
                ..
            }
        ),
        "{error}"
    );
}
