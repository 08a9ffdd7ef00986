//! Activation quantization equals the golden files and the reference, bit for bit, on the device under test.

use bitnet_cuda::device::Buffer;
use bitnet_cuda::launch::Float;
use bitnet_cuda::ops::quantize_activations;
use bitnet_cuda::reference::Element;
use bitnet_cuda::reference::quantize::{self, ActivationGranularity};
use half::{bf16, f16};
use integration_tests::drawn::{self, Values};
use integration_tests::{cast, device, floats, poisoned_activations, random};
use proptest::prelude::*;
use safetensors::SafeTensors;

/// What the device makes of `x`: values `[m, k]`, scales' bits, sums. Padding is checked to be zero.
fn quantized<T: Float>(x: &[T], m: usize, k: usize) -> (Vec<i8>, Vec<u32>, Vec<i32>) {
    let device = device();
    let input = Buffer::from_slice(&device, x).unwrap();
    let stream = device.default_stream();
    let mut output = poisoned_activations(&stream, m, k);
    quantize_activations(&stream, &input, &mut output).unwrap();
    let rows = output.values().to_vec().unwrap();
    let rows: Vec<&[i8]> = rows.chunks(output.k_padded()).take(m).collect();
    assert!(
        rows.iter().all(|row| row[k..].iter().all(|&q| q == 0)),
        "padding of {m} x {k}"
    );
    let values = rows.iter().flat_map(|row| row[..k].to_vec()).collect();
    let scales = output
        .scales()
        .to_vec()
        .unwrap()
        .iter()
        .map(|s| s.to_bits())
        .collect();
    (values, scales, output.sums().to_vec().unwrap())
}

fn check<T: Float + Element>(x: &[T], m: usize, k: usize) {
    let expected = quantize::quantize_activations(x, m, k, ActivationGranularity::Token).unwrap();
    let (values, scales, sums) = quantized(x, m, k);
    assert_eq!(values, expected.values, "{m} x {k}");
    assert_eq!(sums, expected.sums, "{m} x {k}");
    let same = |(&bits, expected): (&u32, &f32)| {
        bits == expected.to_bits() || f32::from_bits(bits).is_nan() && expected.is_nan()
    };
    assert!(
        scales.iter().zip(&expected.scales).all(same),
        "{m} x {k}: {scales:x?}, {:?}",
        expected.scales
    );
}

#[test]
fn the_golden_tokens_come_out_bit_for_bit() {
    let bytes = std::fs::read("golden/elementwise.safetensors").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = |name: &str| file.tensor(name).unwrap().data().to_vec();
    let f32s = |name: &str| -> Vec<f32> {
        data(name)
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    let i8s = |name: &str| -> Vec<i8> { data(name).iter().map(|&b| b as i8).collect() };
    let bits = |name: &str| -> Vec<u32> { f32s(name).iter().map(|s| s.to_bits()).collect() };
    let bf16s: Vec<bf16> = data("x_bf16_bits")
        .chunks_exact(2)
        .map(|b| bf16::from_bits(u16::from_le_bytes([b[0], b[1]])))
        .collect();

    // Among the five tokens are an all-zero one, one with an outlier and one below the clamp.
    let (values, scales, _) = quantized(&f32s("x"), 5, 2560);
    assert_eq!(values, i8s("quantized"));
    assert_eq!(scales, bits("quantized_scale"));
    let (values, scales, _) = quantized(&bf16s, 5, 2560);
    assert_eq!(values, i8s("quantized_from_bf16"));
    assert_eq!(scales, bits("quantized_from_bf16_scale"));
}

#[test]
fn every_type_and_length_equals_the_reference() {
    let mut random = random();
    // Around vectors of 8, a block of chunks, each number of chunks a thread, and wide rows, kept as a whole and in part.
    for k in [
        1, 7, 8, 9, 127, 128, 129, 2560, 6912, 8191, 8192, 8193, 16385, 32768, 32769, 40000, 70_001,
    ] {
        let m = if k > 10_000 { 1 } else { 3 };
        let x = floats(&mut random, m * k, 4.0);
        check(&x, m, k);
        check(
            &x.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>(),
            m,
            k,
        );
        check(
            &x.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>(),
            m,
            k,
        );
    }
}

#[test]
fn ties_denormals_and_equal_magnitudes_round_as_the_formula_says() {
    // With a maximum of 127 the scale is 1: halves are ties.
    let ties: Vec<f32> = (-254..=254).map(|i| i as f32 / 2.0).collect();
    check(&ties, 1, ties.len());
    let denormals: Vec<f32> = (1..300).map(|i| f32::from_bits(i * 7919)).collect();
    check(&denormals, 1, denormals.len());
    check(&[-3.5_f32; 77], 1, 77);
    check(&[f32::MAX, -f32::MAX, f32::MIN_POSITIVE, 0.0, -0.0], 1, 5);
    check(&[0.0_f32; 400], 2, 200);
}

#[test]
fn a_token_that_is_not_finite_makes_nan_of_its_own_outputs_alone() {
    let mut random = random();
    let (m, k) = (4, 300);
    for special in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = floats(&mut random, m * k, 2.0);
        x[k + 17] = special;
        x[3 * k] = special;
        check(&x, m, k);
        let (values, scales, sums) = quantized(&x, m, k);
        for token in [1, 3] {
            assert!(values[token * k..][..k].iter().all(|&q| q == 0) && sums[token] == 0);
            // What a product divides its sum of 0 by.
            assert!((0.0 / f32::from_bits(scales[token])).is_nan());
        }
        assert!(
            [0, 2]
                .iter()
                .all(|&token| f32::from_bits(scales[token]) > 0.0)
        );
    }
}

#[test]
fn shapes_and_values_drawn_at_random_equal_the_reference() {
    drawn::runner(60)
        .run(
            &(1..5_usize, drawn::size(4200), Values::any(), any::<u64>()),
            |(m, k, values, seed)| {
                let x = values.of(&mut fastrand::Rng::with_seed(seed), m, k);
                check(&x, m, k);
                check(&cast::<f16>(&x), m, k);
                check(&cast::<bf16>(&x), m, k);
                Ok(())
            },
        )
        .unwrap();
}
