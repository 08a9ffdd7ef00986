//! The reference against hand-worked values, properties, and formulas written another way. Golden data is compared in
//! the integration tests.

use half::{bf16, f16};
use proptest::prelude::*;

use super::activation::{Activation, GateUpLayout, activate, gated, split_gate_up};
use super::fused::{add_norm_quantize, bit_linear, gated_norm_quantize};
use super::linear::{Epilogue, Shape, accumulate, epilogue, linear_f64};
use super::norm::{Norm, normalize};
use super::quantize::*;
use super::sum::lane_sum;
use super::{Element, MAX_K, ReferenceError, RowScales, RowScalesError};

const PER_TOKEN: ActivationGranularity = ActivationGranularity::Token;

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

    /// The bound that docs/numerics.md derives for an f32 output.
    #[test]
    fn f32_outputs_are_within_their_bound_of_the_truth(
        q in prop::collection::vec(any::<i8>(), 2 * 40),
        t in prop::collection::vec(-1..=1_i8, 3 * 40),
        s in prop::collection::vec(1e-3..1e6_f32, 2),
        scales in prop::collection::vec(1e-4..10.0_f32, 3),
        bias in prop::collection::vec(-4.0..4.0_f32, 3),
        residual in prop::collection::vec(-4.0..4.0_f32, 6),
    ) {
        let shape = Shape { m: 2, n: 3, k: 40 };
        let acc = accumulate(&q, &t, shape).unwrap();
        let row_scales = RowScales::per_row(&scales).unwrap();
        let terms = Epilogue {
            activation_scales: &s,
            row_scales: &row_scales,
            bias: Some(&bias),
            residual: Some(&residual),
        };
        let truth = linear_f64(&q, &t, shape, &terms).unwrap();
        let ours: Vec<f32> = epilogue(&acc, 2, 3, &terms).unwrap();
        for (i, (truth, ours)) in truth.iter().zip(ours).enumerate() {
            let p = f64::from(acc[i]) / f64::from(s[i / 3]) * f64::from(scales[i % 3]);
            let with_bias = p + f64::from(bias[i % 3]);
            let u = 2.0_f64.powi(-24);
            let bound = u * (3.0 * p.abs() + with_bias.abs() + truth.abs()) * (1.0 + 8.0 * u);
            prop_assert!((truth - f64::from(ours)).abs() <= bound, "{truth} {ours}");
        }
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

    #[test]
    fn row_scales_expand_to_the_range_of_each_row(
        lens in prop::collection::vec((1..50_usize, -9.0..9.0_f32), 1..8),
    ) {
        let mut expected = Vec::new();
        let mut ranges = Vec::new();
        for &(len, scale) in &lens {
            expected.extend(std::iter::repeat_n(scale, len));
            ranges.push((expected.len(), scale));
        }
        let scales = RowScales::from_ranges(expected.len(), &ranges).unwrap();
        prop_assert_eq!(scales.expand(), expected);
    }
}

#[test]
fn a_token_with_nan_or_infinity_poisons_itself_alone() {
    check_poison(f32::from_f32);
    check_poison(f16::from_f32);
    check_poison(bf16::from_f32);
}

fn check_poison<T: Element>(from_f32: impl Fn(f32) -> T) {
    let x = [
        1.0,
        -2.0,
        f32::NAN,
        2.0,
        f32::INFINITY,
        f32::NAN,
        f32::NEG_INFINITY,
        1.0,
        0.5,
        0.25,
    ];
    let x: Vec<T> = x.into_iter().map(from_f32).collect();
    let q = quantize_activations(&x, 5, 2, PER_TOKEN).unwrap();
    // round(1 * 63.5) is a tie, and goes to 64.
    assert_eq!(q.values, [64, -127, 0, 0, 0, 0, 0, 0, 127, 64]);
    assert_eq!(q.sums, [-63, 0, 0, 0, 191]);
    assert_eq!((q.scales[0], q.scales[3], q.scales[4]), (63.5, 0.0, 254.0));
    assert!(q.scales[1].is_nan() && q.scales[2].is_nan());

    let shape = Shape { m: 5, n: 1, k: 2 };
    let scale = RowScales::per_tensor(1, 1.0).unwrap();
    let y: Vec<f32> = bit_linear(&x, &[1, 1], shape, &scale, Some(&[1.0]), None).unwrap();
    assert_eq!((y[0], y[4]), (-63.0 / 63.5 + 1.0, 191.0 / 254.0 + 1.0));
    assert!(y[1..4].iter().all(|y| y.is_nan()), "{y:?}");

    let q = quantize_activations(&x, 5, 2, ActivationGranularity::Tensor).unwrap();
    assert!(q.values == [0; 10] && q.scales.iter().all(|s| s.is_nan()));
    let q = quantize_activations(&x[6..], 2, 2, ActivationGranularity::Tensor).unwrap();
    assert!(q.values == [0; 4] && q.scales == [0.0; 2] && q.sums == [0; 2]);
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
        let w = [1.0, 2.0, 3.0, 4.0, value, f32::NAN];
        let error = ReferenceError::NonFiniteWeight {
            value,
            row: 1,
            column: 1,
        };
        assert_eq!(
            quantize_weights_ternary(&w, 2, 3, WeightGranularity::Tensor),
            Err(error.clone())
        );
        assert_eq!(
            quantize_weights_binary(&w, 2, 3, WeightGranularity::Channel),
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

#[test]
fn the_longest_row_sums_without_overflow() {
    let shape = Shape {
        m: 1,
        n: 1,
        k: MAX_K,
    };
    let q = vec![i8::MIN; MAX_K];
    let acc = accumulate(&q, &vec![-1; MAX_K], shape).unwrap();
    assert_eq!(i64::from(acc[0]), 128 * MAX_K as i64);
    let acc = accumulate(&q, &vec![1; MAX_K], shape).unwrap();
    assert_eq!(i64::from(acc[0]), -128 * MAX_K as i64);
    let k = MAX_K + 1;
    assert_eq!(
        accumulate(&[], &[], Shape { k, ..shape }),
        Err(ReferenceError::KTooLarge { k })
    );
}

#[test]
fn the_epilogue_rounds_after_every_step() {
    let third = 1.0_f32 / 3.0;
    let row_scales = RowScales::per_tensor(1, third).unwrap();
    let bias = -third * 3.0;
    let run = |bias: Option<&[f32]>, residual: Option<&[f32]>| -> Vec<f32> {
        let terms = Epilogue {
            activation_scales: &[1.0],
            row_scales: &row_scales,
            bias,
            residual,
        };
        epilogue(&[3], 1, 1, &terms).unwrap()
    };
    // 3 * (1/3 + 2^-25 / 3...) rounds to exactly 1, which the bias cancels; a fused multiply-add would keep the rest.
    assert_eq!(run(Some(&[bias]), None), [0.0]);
    assert_ne!(3.0_f32.mul_add(third, bias), 0.0);
    // (1 + 2^25) - 2^25: the one is lost in the first addition, and would not be in another order.
    let large = (1 << 25) as f32;
    assert_eq!(run(Some(&[large]), Some(&[-large])), [0.0]);

    let one = RowScales::per_tensor(4, 1.0).unwrap();
    let terms = Epilogue {
        activation_scales: &[1.0],
        row_scales: &one,
        bias: None,
        residual: None,
    };
    // Ties to even in f16 (spacing 2 from 2048 on, largest number 65504) and bf16 (spacing 2 from 256 on).
    let y: Vec<f16> = epilogue(&[2049, 2051, 65519, 65520], 1, 4, &terms).unwrap();
    assert_eq!(y.map_f32(), [2048.0, 2052.0, 65504.0, f32::INFINITY]);
    let y: Vec<bf16> = epilogue(&[257, 259, -257, 0], 1, 4, &terms).unwrap();
    assert_eq!(y.map_f32(), [256.0, 260.0, -256.0, 0.0]);
}

trait MapF32 {
    fn map_f32(&self) -> Vec<f32>;
}

impl<T: Element> MapF32 for Vec<T> {
    fn map_f32(&self) -> Vec<f32> {
        self.iter().map(|value| value.to_f32()).collect()
    }
}

#[test]
fn row_scales_that_do_not_cover_the_rows_are_refused() {
    use RowScalesError::{Empty, NotAscending, WrongEnd};
    let scales = RowScales::from_ranges;
    assert_eq!(scales(3, &[]), Err(Empty));
    assert_eq!(scales(0, &[]), Err(Empty));
    assert_eq!(
        scales(0, &[(0, 1.0)]),
        Err(NotAscending {
            index: 0,
            end: 0,
            previous_end: 0
        })
    );
    let error = Err(NotAscending {
        index: 1,
        end: 2,
        previous_end: 2,
    });
    assert_eq!(scales(3, &[(2, 1.0), (2, 1.0), (3, 1.0)]), error);
    assert_eq!(scales(3, &[(2, 1.0)]), Err(WrongEnd { end: 2, n: 3 }));
    assert_eq!(scales(3, &[(4, 1.0)]), Err(WrongEnd { end: 4, n: 3 }));
    let error = RowScales::per_row(&[1.0, f32::NAN]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the scale NaN of row range 1 is not finite"
    );

    let row_scales = RowScales::per_tensor(2, 1.0).unwrap();
    let terms = Epilogue {
        activation_scales: &[1.0],
        row_scales: &row_scales,
        bias: None,
        residual: None,
    };
    let error = epilogue::<f32>(&[1, 2, 3], 1, 3, &terms);
    assert_eq!(
        error,
        Err(ReferenceError::WrongScaleRows {
            expected: 3,
            actual: 2
        })
    );
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let zero = |what, rows, columns| ReferenceError::ZeroSize {
        what,
        rows,
        columns,
    };
    let quantize = |x: &[f32], m, k| quantize_activations(x, m, k, PER_TOKEN).unwrap_err();
    assert_eq!(quantize(&[], 0, 4), zero("activations", 0, 4));
    assert_eq!(quantize(&[], 4, 0), zero("activations", 4, 0));
    let wrong = ReferenceError::WrongLength {
        what: "activations",
        rows: 2,
        columns: 2,
        actual: 3,
    };
    assert_eq!(quantize(&[0.0; 3], 2, 2), wrong);
    let huge = quantize(&[0.0], usize::MAX, 2);
    assert!(matches!(
        huge,
        ReferenceError::WrongLength {
            rows: usize::MAX,
            ..
        }
    ));
    let norm = Norm::Rms {
        gamma: &[1.0],
        eps: 1e-5,
    };
    let wrong = ReferenceError::WrongLength {
        what: "gamma",
        rows: 1,
        columns: 2,
        actual: 1,
    };
    assert_eq!(normalize(&[0.0_f32; 2], 1, 2, &norm), Err(wrong));
    assert!(gated(Activation::Silu, &[0.0_f32; 2], &[0.0; 3]).is_err());
    assert!(split_gate_up(&[0.0_f32; 5], 1, 3, GateUpLayout::Interleaved).is_err());
}

#[test]
fn norms_of_small_tokens() {
    // Mean square (9 + 16) / 2; by hand.
    let rms = Norm::Rms {
        gamma: &[1.0, 2.0],
        eps: 0.0,
    };
    let y = normalize(&[3.0, -4.0_f32, 0.0, f32::NAN], 2, 2, &rms).unwrap();
    let root = 12.5_f64.sqrt();
    assert_eq!(y[..2], [3.0 / root, -4.0 / root * 2.0]);
    assert!(y[2].is_nan() && y[3].is_nan());
    // Mean 2, variance 1, eps 3: divided by 2.
    let x = [f16::from_f32(1.0), f16::from_f32(3.0)];
    let layer = Norm::Layer {
        gamma: &[1.0, 4.0],
        beta: None,
        eps: 3.0,
    };
    assert_eq!(normalize(&x, 1, 2, &layer), Ok(vec![-0.5, 2.0]));
    let layer = Norm::Layer {
        gamma: &[1.0, 4.0],
        beta: Some(&[10.0, 20.0]),
        eps: 3.0,
    };
    assert_eq!(normalize(&x, 1, 2, &layer), Ok(vec![9.5, 22.0]));
    // A single feature is its own mean.
    let layer = Norm::Layer {
        gamma: &[5.0],
        beta: None,
        eps: 1e-5,
    };
    assert_eq!(normalize(&[7.0_f32], 1, 1, &layer), Ok(vec![0.0]));
}

#[test]
fn activations_at_known_points() {
    // Values at 1 to 16 digits: the logistic function, the normal distribution, and tanh, from tables.
    for (activation, at_one) in [
        (Activation::SquaredRelu, 1.0),
        (Activation::Silu, 0.731_058_578_630_004_9),
        (Activation::GeluErf, 0.841_344_746_068_542_9),
        (Activation::GeluTanh, 0.841_191_990_608_276_8),
    ] {
        approx::assert_relative_eq!(activation.apply(1.0), at_one, max_relative = 1e-15);
        // f(x) - f(-x) = x for the three smooth ones, x^2 for squared ReLU.
        let difference = activation.apply(1.0) - activation.apply(-1.0);
        approx::assert_relative_eq!(difference, 1.0, max_relative = 1e-15);
        assert_eq!(activation.apply(0.0), 0.0);
        assert_eq!(activation.apply(-1e4), 0.0);
        assert!(activation.apply(f64::NAN).is_nan());
        assert!(activate(activation, &[bf16::NAN])[0].is_nan());
    }
    let x = [f16::from_f32(-3.0), f16::from_f32(3.0)];
    assert_eq!(
        gated(Activation::SquaredRelu, &x, &[f16::ONE, f16::NEG_ONE]),
        Ok(vec![0.0, -9.0])
    );
}

#[test]
fn gate_and_up_come_out_of_one_buffer() {
    let buffer: Vec<f32> = (0..12_u8).map(f32::from).collect();
    let (gate, up) = split_gate_up(&buffer, 2, 3, GateUpLayout::Concatenated).unwrap();
    assert_eq!(
        (gate, up),
        (vec![0., 1., 2., 6., 7., 8.], vec![3., 4., 5., 9., 10., 11.])
    );
    let (gate, up) = split_gate_up(&buffer, 2, 3, GateUpLayout::Interleaved).unwrap();
    assert_eq!(
        (gate, up),
        (vec![0., 2., 4., 6., 8., 10.], vec![1., 3., 5., 7., 9., 11.])
    );
}

#[test]
fn fusions_keep_f32_between_their_steps_and_store_the_residual() {
    // 2048 + 1 is a tie in f16 and is stored as 2048; the norm sees what is stored.
    let residual = [f16::from_f32(2048.0), f16::from_f32(-512.0)];
    let x = [f16::ONE, f16::ZERO];
    let norm = Norm::Rms {
        gamma: &[1.0, 1.0],
        eps: 0.0,
    };
    let (residual, q) = add_norm_quantize(&residual, &x, 1, 2, &norm).unwrap();
    assert_eq!(residual.map_f32(), [2048.0, -512.0]);
    // 127 / 4 = 31.75
    assert_eq!((q.values, q.sums), (vec![127, -32], vec![95]));
    // Mean square (16 + 1) / 2 * 512^2, largest magnitude 4 / sqrt(8.5).
    approx::assert_relative_eq!(
        q.scales[0],
        127.0 / (4.0 / 8.5_f32.sqrt()),
        max_relative = 1e-6
    );

    // Squared ReLU of 300 overflows f16 and not f32: 90000 and 40000 keep their ratio.
    let gate = [f16::from_f32(300.0), f16::from_f32(200.0)];
    let up = [f16::ONE, f16::NEG_ONE];
    let q = gated_norm_quantize(Activation::SquaredRelu, &gate, &up, 1, 2, &norm).unwrap();
    // 127 * 4 / 9 = 56.4
    assert_eq!(q.values, [127, -56]);
}
