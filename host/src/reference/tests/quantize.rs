//! Quantization of activations and weights.

use super::*;

/// Floats of every size: denormals, ordinary ones, the largest, both zeros, and exact halves for ties.
fn finite() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -8.0..8.0_f32,
        1 => any::<f32>().prop_filter("finite", |x| x.is_finite()),
        1 => (-254..=254_i32).prop_map(|x| x as f32 / 2.0),
        1 => (0..0x80_0000_u32).prop_map(f32::from_bits),
    ]
}

/// `q` is the integer nearest to `p`, the even one of two.
fn is_nearest_even(q: f64, p: f64) -> bool {
    let distance = (q - p).abs();
    distance < 0.5 || distance == 0.5 && q % 2.0 == 0.0
}

proptest! {
    #[test]
    fn activations_are_quantized_as_the_formula_says(
        x in prop::collection::vec(finite(), 1..200),
        ties in any::<bool>(),
    ) {
        let mut x = x;
        if ties {
            // A largest magnitude of 127 makes the scale 1, and every half a tie.
            x.iter_mut().for_each(|x| *x = x.clamp(-127.0, 127.0));
            x.push(-127.0);
        }
        let ours = quantize_activations(&x, 1, x.len(), PER_TOKEN).unwrap();
        let largest = x.iter().fold(1e-5_f32, |largest, x| largest.max(x.abs()));
        // The f64 quotient and product of two f32 round to f32 as the f32 operations do.
        let s = (127.0 / f64::from(largest)) as f32;
        prop_assert_eq!(ours.scales[0].to_bits(), s.to_bits());
        for (&x, &q) in x.iter().zip(&ours.values) {
            let p = (f64::from(x) * f64::from(s)) as f32;
            prop_assert!(is_nearest_even(f64::from(q), f64::from(p)), "{x} * {s} = {p} became {q}");
        }
        prop_assert_eq!(ours.sums[0], ours.values.iter().map(|&q| i32::from(q)).sum::<i32>());
        for (x, back) in x.iter().zip(dequantize_activations(&ours).unwrap()) {
            // Half a step of rounding, and a few f32 roundings of numbers up to the largest.
            let bound = 0.5 / f64::from(s) + f64::from(largest) * 4.0 * f64::from(f32::EPSILON);
            prop_assert!((f64::from(*x) - f64::from(back)).abs() <= bound);
        }
    }

    #[test]
    fn ternary_weights_are_quantized_as_the_formula_says(
        w in prop::collection::vec(finite(), 12),
        per_channel in any::<bool>(),
    ) {
        let granularity =
            if per_channel { WeightGranularity::Channel } else { WeightGranularity::Tensor };
        let ours = quantize_weights_ternary(&w, 3, 4, granularity).unwrap();
        let scales = ours.scales.expand();
        for (row, scale) in scales.iter().enumerate() {
            let group = if per_channel { &w[row * 4..][..4] } else { &w[..] };
            let mean = group.iter().map(|w| f64::from(w.abs())).sum::<f64>() / group.len() as f64;
            let mean = mean.max(1e-5);
            // One rounding to f32, and the f64 sums of two orders.
            let bound = f64::from(f32::EPSILON) / 2.0 * 1.000_001;
            prop_assert!((f64::from(*scale) / mean - 1.0).abs() <= bound);
        }
        for (i, (&w, &t)) in w.iter().zip(&ours.values).enumerate() {
            let reciprocal = (1.0 / f64::from(scales[i / 4])) as f32;
            let p = (f64::from(w) * f64::from(reciprocal)) as f32;
            // A tie at 1/2 goes to the even 0.
            prop_assert_eq!(t, if p > 0.5 { 1 } else if p < -0.5 { -1 } else { 0 });
        }
        let back = dequantize_weights(&ours).unwrap();
        let expected: Vec<_> =
            ours.values.iter().enumerate().map(|(i, &t)| f32::from(t) * scales[i / 4]).collect();
        prop_assert_eq!(back, expected);
    }

    #[test]
    fn sums_follow_the_stated_order(values in prop::collection::vec(-1e9..1e9_f64, 0..200)) {
        fn lane(values: &[f64], l: usize) -> f64 {
            values.iter().skip(l).step_by(32).fold(0.0, |sum, value| sum + value)
        }
        fn tree(values: &[f64], l: usize, distance: usize) -> f64 {
            if distance == 32 {
                return lane(values, l);
            }
            tree(values, l, 2 * distance) + tree(values, l + distance, 2 * distance)
        }
        prop_assert_eq!(lane_sum(&values).to_bits(), tree(&values, 0, 1).to_bits());
    }
}

#[test]
fn per_tensor_scale_comes_from_the_largest_of_all_tokens() {
    let q = quantize_activations(
        &[1.0, -0.5, 0.0, 127.0_f32],
        2,
        2,
        ActivationGranularity::Tensor,
    );
    let expected = QuantizedActivations {
        values: vec![1, 0, 0, 127],
        scales: vec![1.0; 2],
        sums: vec![1, 127],
    };
    assert_eq!(q, Ok(expected));
}

#[test]
fn weights_that_are_not_finite_are_named() {
    for value in [f32::INFINITY, f32::NEG_INFINITY] {
        let w = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, value, f32::NAN];
        let error = ReferenceError::NonFiniteWeight {
            value,
            row: 1,
            column: 2,
        };
        assert_eq!(
            quantize_weights_ternary(&w, 2, 4, WeightGranularity::Tensor),
            Err(error.clone())
        );
        assert_eq!(
            quantize_weights_binary(&w, 2, 4, WeightGranularity::Channel),
            Err(error)
        );
    }
    let w = [bf16::NAN];
    let error = quantize_weights_ternary(&w, 1, 1, WeightGranularity::Tensor).unwrap_err();
    assert!(
        error.to_string().contains("weight NaN at row 0, column 0"),
        "{error}"
    );
}

#[test]
fn binary_weights_are_the_sign_of_the_centred_weight() {
    // Mean 1 and mean magnitude 2: what equals the mean is not above it.
    let w = [1.0, 4.0, -2.0, 1.0_f32];
    let q = quantize_weights_binary(&w, 2, 2, WeightGranularity::Tensor).unwrap();
    assert_eq!(
        (q.values, q.scales.expand()),
        (vec![-1, 1, -1, -1], vec![2.0, 2.0])
    );
    // Row means 2.5 and -0.5, row mean magnitudes 2.5 and 1.5.
    let q = quantize_weights_binary(&w, 2, 2, WeightGranularity::Channel).unwrap();
    assert_eq!(
        (q.values, q.scales.expand()),
        (vec![-1, 1, -1, 1], vec![2.5, 1.5])
    );
    let zeros = quantize_weights_binary(&[0.0_f32; 4], 2, 2, WeightGranularity::Tensor).unwrap();
    assert_eq!(
        (zeros.values, zeros.scales.expand()),
        (vec![-1; 4], vec![0.0; 2])
    );
}

#[test]
fn an_all_zero_matrix_has_the_least_scale() {
    let q = quantize_weights_ternary(&[0.0_f32; 4], 2, 2, WeightGranularity::Channel).unwrap();
    assert_eq!((q.values, q.scales.expand()), (vec![0; 4], vec![1e-5; 2]));
}
