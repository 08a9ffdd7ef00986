//! The reference against hand-worked values, properties, and formulas written another way. Golden data is compared in
//! the integration tests.

mod linear;
mod quantize;
mod rows;

use half::{bf16, f16};
use proptest::prelude::*;

use super::activation::{Activation, GateUpLayout, activate, gated, split_gate_up};
use super::fused::{
    activated_linear, add_norm_quantize, add_residual, bit_linear, gated_norm_quantize,
};
use super::linear::{Epilogue, Shape, accumulate, epilogue, linear_f64};
use super::norm::{Norm, normalize};
use super::quantize::*;
use super::sum::lane_sum;
use super::{Element, MAX_K, ReferenceError, RowScales, RowScalesError};

const PER_TOKEN: ActivationGranularity = ActivationGranularity::Token;

trait MapF32 {
    fn map_f32(&self) -> Vec<f32>;
}

impl<T: Element> MapF32 for Vec<T> {
    fn map_f32(&self) -> Vec<f32> {
        self.iter().map(|value| value.to_f32()).collect()
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
    let k = MAX_K + 1;
    assert_eq!(
        quantize_activations(&vec![bf16::ONE; k], 1, k, PER_TOKEN),
        Err(ReferenceError::KTooLarge { k })
    );
}

/// One element too many of any operand is named.
#[test]
fn every_operand_is_measured() {
    fn what<T: std::fmt::Debug>(result: Result<T, ReferenceError>) -> &'static str {
        match result {
            Err(ReferenceError::WrongLength { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }
    let shape = Shape { m: 1, n: 2, k: 2 };
    let one = RowScales::per_tensor(2, 1.0).unwrap();
    let terms = Epilogue {
        activation_scales: &[1.0],
        row_scales: &one,
        bias: Some(&[0.0; 2]),
        residual: Some(&[0.0; 2]),
    };
    let [scales, bias, residual] = [
        Epilogue {
            activation_scales: &[1.0; 2],
            ..terms
        },
        Epilogue {
            bias: Some(&[0.0; 3]),
            ..terms
        },
        Epilogue {
            residual: Some(&[0.0; 3]),
            ..terms
        },
    ];
    assert_eq!(what(accumulate(&[0; 3], &[0; 4], shape)), "activations");
    assert_eq!(what(accumulate(&[0; 2], &[0; 6], shape)), "weights");
    assert_eq!(
        what(linear_f64(&[0; 3], &[0; 4], shape, &terms)),
        "activations"
    );
    for (terms, name) in [
        (&scales, "activation scales"),
        (&bias, "bias"),
        (&residual, "residual"),
    ] {
        assert_eq!(what(epilogue::<f32>(&[0; 2], 1, 2, terms)), name);
        assert_eq!(what(linear_f64(&[0; 2], &[0; 4], shape, terms)), name);
    }
    assert_eq!(what(epilogue::<f32>(&[0; 3], 1, 2, &terms)), "accumulators");
    assert_eq!(
        what(activated_linear(&[0; 2], 1, 2, &residual, Activation::Silu)),
        "residual"
    );
    assert_eq!(what(add_residual(&[0.0_f32; 2], &[0.0; 3])), "activations");

    let (gamma, eps) = (&[1.0; 2][..], 1e-5);
    let norm = Norm::Rms { gamma, eps };
    assert_eq!(what(normalize(&[0.0_f32; 3], 1, 2, &norm)), "activations");
    let beta = Some(&[0.0; 3][..]);
    let norm = Norm::Layer { gamma, beta, eps };
    assert_eq!(what(normalize(&[0.0_f32; 2], 1, 2, &norm)), "beta");

    let per_tensor = WeightGranularity::Tensor;
    let w = [1.0_f32; 5];
    assert_eq!(
        what(quantize_weights_ternary(&w, 2, 2, per_tensor)),
        "weights"
    );
    assert_eq!(
        what(quantize_weights_binary(&w, 2, 2, per_tensor)),
        "weights"
    );
    let quantized = QuantizedWeights {
        values: vec![0; 5],
        scales: one.clone(),
    };
    assert_eq!(what(dequantize_weights(&quantized)), "quantized weights");
    let tokens = |scales| QuantizedActivations {
        values: vec![0; 5],
        scales,
        sums: Vec::new(),
    };
    assert_eq!(
        what(dequantize_activations(&tokens(vec![1.0; 2]))),
        "quantized activations"
    );
    assert!(matches!(
        dequantize_activations(&tokens(Vec::new())),
        Err(ReferenceError::ZeroSize { rows: 0, .. })
    ));
}
