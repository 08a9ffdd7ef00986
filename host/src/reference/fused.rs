//! The fused operations, as compositions of the plain ones.
//!
//! Between two steps of a fusion a value is f32, whatever the dtype of the tensors: a kernel keeps it in a register and does not
//! round it to f16 or bf16. The residual is the exception: it is a tensor, and is normalized as stored.

use super::activation::{Activation, activate, gated};
use super::error::check_len;
use super::linear::{Epilogue, Shape, accumulate, epilogue};
use super::norm::{Norm, normalize};
use super::quantize::{ActivationGranularity, QuantizedActivations, quantize_activations};
use super::{Element, ReferenceError, RowScales};

/// `residual + x`, added in f32 and rounded to `T`.
///
/// # Errors
/// When the two have different lengths.
pub fn add_residual<T: Element>(residual: &[T], x: &[T]) -> Result<Vec<T>, ReferenceError> {
    check_len("activations", x.len(), 1, residual.len())?;
    let sums = residual.iter().zip(x);
    Ok(sums
        .map(|(residual, x)| T::from_f32(residual.to_f32() + x.to_f32()))
        .collect())
}

/// Normalizes `m` tokens of `width` features and quantizes each token.
///
/// # Errors
/// As [`normalize`] and [`quantize_activations`].
pub fn norm_quantize<T: Element>(
    x: &[T],
    m: usize,
    width: usize,
    norm: &Norm,
) -> Result<QuantizedActivations, ReferenceError> {
    let normalized = to_f32(&normalize(x, m, width, norm)?);
    quantize_activations(&normalized, m, width, ActivationGranularity::Token)
}

/// `residual += x`, then normalizes and quantizes the sum: the new residual, and its quantized norm.
///
/// # Errors
/// As [`add_residual`] and [`norm_quantize`].
pub fn add_norm_quantize<T: Element>(
    residual: &[T],
    x: &[T],
    m: usize,
    width: usize,
    norm: &Norm,
) -> Result<(Vec<T>, QuantizedActivations), ReferenceError> {
    let residual = add_residual(residual, x)?;
    let quantized = norm_quantize(&residual, m, width, norm)?;
    Ok((residual, quantized))
}

/// `activation(gate) * up`, normalized and quantized: the middle of a BitNet feed-forward.
///
/// # Errors
/// As [`gated`] and [`norm_quantize`].
pub fn gated_norm_quantize<T: Element>(
    activation: Activation,
    gate: &[T],
    up: &[T],
    m: usize,
    width: usize,
    norm: &Norm,
) -> Result<QuantizedActivations, ReferenceError> {
    norm_quantize(&to_f32(&gated(activation, gate, up)?), m, width, norm)
}

/// Quantizes each token of `x` and multiplies it with ternary weights `[n, k]`, both exactly as the kernels do.
///
/// # Errors
/// As [`quantize_activations`], [`accumulate`] and [`epilogue`].
pub fn bit_linear<X: Element, Y: Element>(
    x: &[X],
    weights: &[i8],
    shape: Shape,
    row_scales: &RowScales,
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
) -> Result<Vec<Y>, ReferenceError> {
    let q = quantize_activations(x, shape.m, shape.k, ActivationGranularity::Token)?;
    let acc = accumulate(&q.values, weights, shape)?;
    let terms = Epilogue {
        activation_scales: &q.scales,
        row_scales,
        bias,
        residual,
    };
    epilogue(&acc, shape.m, shape.n, &terms)
}

fn to_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// `activation(sum / s * row_scale (+ bias)) (+ residual)`, `[m, n]`: the argument of the activation function in f32, as
/// [`epilogue`] rounds it, everything after it in f64.
///
/// # Errors
/// As [`epilogue`].
pub fn activated_linear(
    acc: &[i32],
    m: usize,
    n: usize,
    terms: &Epilogue,
    activation: Activation,
) -> Result<Vec<f64>, ReferenceError> {
    let argument = Epilogue {
        residual: None,
        ..*terms
    };
    let mut y = activate(activation, &epilogue::<f32>(acc, m, n, &argument)?);
    if let Some(residual) = terms.residual {
        check_len("residual", residual.len(), m, n)?;
        for (y, &residual) in y.iter_mut().zip(residual) {
            *y += f64::from(residual);
        }
    }
    Ok(y)
}
