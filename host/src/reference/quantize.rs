//! Quantization: activations to int8 by their largest magnitude, weights to ternary or binary by their mean magnitude.

use std::fmt;

use rayon::prelude::*;

use super::error::check_len;
use super::sum::lane_sum;
use super::{Element, ReferenceError, RowScales};

/// The least magnitude that a scale is derived from; all-zero tokens and matrices would divide by 0 otherwise.
const LEAST: f32 = 1e-5;

/// Which activations share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActivationGranularity {
    /// A scale for each token.
    Token,
    /// One scale for all tokens.
    Tensor,
}

/// Which weights share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightGranularity {
    /// One scale for the whole matrix.
    Tensor,
    /// A scale for each output channel (row).
    Channel,
}

/// Activations `[m, k]` as int8.
#[derive(Clone, PartialEq)]
pub struct QuantizedActivations {
    /// The int8 values, `[m, k]`.
    pub values: Vec<i8>,
    /// The factor `s` that each token was multiplied by, `[m]`; the same everywhere when quantized per tensor.
    pub scales: Vec<f32>,
    /// The sum of each token's int8 values, `[m]`.
    pub sums: Vec<i32>,
}

/// Weights `[n, k]` as ternary or binary values.
#[derive(Clone, PartialEq)]
pub struct QuantizedWeights {
    /// -1, 0 or 1, `[n, k]`.
    pub values: Vec<i8>,
    /// The factor of each row's values.
    pub scales: RowScales,
}

impl fmt::Debug for QuantizedActivations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuantizedActivations")
            .field("values", &self.values.len())
            .field("scales", &self.scales.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for QuantizedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuantizedWeights")
            .field("values", &self.values.len())
            .field("scales", &self.scales)
            .finish_non_exhaustive()
    }
}

/// Quantizes `m` tokens of `k` activations: `s = 127 / max(max|x|, 1e-5)`, `q = clamp(rint(x * s), -128, 127)`.
///
/// Each operation is rounded to f32, `rint` rounds half to even. The maximum propagates NaN: a token (or tensor) that
/// holds a NaN has scale NaN and all values 0; one that holds an infinity has scale 0 and all values 0. Either way its
/// linear outputs are NaN (`0 / s`), never a plausible number.
///
/// # Errors
/// When `m` or `k` is 0, `k` exceeds [`MAX_K`](super::MAX_K), or `x.len() != m * k`.
pub fn quantize_activations<T: Element>(
    x: &[T],
    m: usize,
    k: usize,
    granularity: ActivationGranularity,
) -> Result<QuantizedActivations, ReferenceError> {
    check_len("activations", x.len(), m, k)?;
    if k > super::MAX_K {
        return Err(ReferenceError::KTooLarge { k });
    }
    let scales = match granularity {
        ActivationGranularity::Token => x.par_chunks(k).map(scale_of).collect(),
        ActivationGranularity::Tensor => vec![scale_of(x); m],
    };
    let mut values = vec![0; x.len()];
    values
        .par_chunks_mut(k)
        .zip(x.par_chunks(k))
        .zip(&scales)
        .for_each(|((values, x), s)| {
            for (value, x) in values.iter_mut().zip(x) {
                // `as` saturates, and takes NaN to 0.
                *value = (x.to_f32() * s).round_ties_even() as i8;
            }
        });
    let sums = values
        .par_chunks(k)
        .map(|token| token.iter().map(|&q| i32::from(q)).sum())
        .collect();
    Ok(QuantizedActivations {
        values,
        scales,
        sums,
    })
}

/// `127 / max(max|x|, 1e-5)`, NaN if there is a NaN.
fn scale_of<T: Element>(x: &[T]) -> f32 {
    // Without the sign bit, floats are ordered as their bits are, infinity above every number and NaN above infinity.
    let magnitudes = x.iter().map(|x| x.to_f32().to_bits() & 0x7fff_ffff);
    let largest = magnitudes.fold(LEAST.to_bits(), u32::max);
    127.0 / f32::from_bits(largest)
}

/// `q / s`, rounded to f32.
///
/// # Errors
/// When there are no tokens, or `values` is not a multiple of their number long.
pub fn dequantize_activations(
    activations: &QuantizedActivations,
) -> Result<Vec<f32>, ReferenceError> {
    let QuantizedActivations { values, scales, .. } = activations;
    let m = scales.len();
    let k = values.len() / m.max(1);
    check_len("quantized activations", values.len(), m, k)?;
    let tokens = values.chunks(k).zip(scales);
    Ok(tokens
        .flat_map(|(token, &s)| token.iter().map(move |&q| f32::from(q) / s))
        .collect())
}

/// Quantizes weights `[n, k]` to ternary: `scale = max(mean|w|, 1e-5)`, `t = clamp(rint(w * (1 / scale)), -1, 1)`.
///
/// The mean is taken in f64 in a fixed order (docs/numerics.md) and rounded once to f32; reciprocal and product are
/// each rounded to f32, `rint` rounds half to even.
///
/// # Errors
/// When `n` or `k` is 0, `w.len() != n * k`, or a weight is NaN or infinite (the first is named).
pub fn quantize_weights_ternary<T: Element>(
    w: &[T],
    n: usize,
    k: usize,
    granularity: WeightGranularity,
) -> Result<QuantizedWeights, ReferenceError> {
    check_weights(w, n, k)?;
    let scales: Vec<f32> = means(w, n, k, granularity, f64::abs)
        .into_iter()
        .map(|mean| mean.max(f64::from(LEAST)) as f32)
        .collect();
    let values = map_rows(w, k, &scales, |w, scale| {
        (w * (1.0 / scale)).round_ties_even().clamp(-1.0, 1.0) as i8
    });
    Ok(QuantizedWeights {
        values,
        scales: row_scales(n, &scales),
    })
}

/// Quantizes weights `[n, k]` to binary: `b = 1` where `w > mean(w)` and -1 elsewhere, `scale = mean|w|`.
///
/// This is `Sign(W - alpha)` and `beta` of the first BitNet paper (arXiv 2310.11453, section 2.1), whose
/// `Sign` takes 0 to -1. Both means are taken in f64 in a fixed order and rounded once to f32; the comparison with the
/// rounded mean is exact.
///
/// # Errors
/// As [`quantize_weights_ternary`].
pub fn quantize_weights_binary<T: Element>(
    w: &[T],
    n: usize,
    k: usize,
    granularity: WeightGranularity,
) -> Result<QuantizedWeights, ReferenceError> {
    check_weights(w, n, k)?;
    let to_f32 =
        |means: Vec<f64>| -> Vec<f32> { means.into_iter().map(|mean| mean as f32).collect() };
    let alphas = to_f32(means(w, n, k, granularity, |w| w));
    let scales = to_f32(means(w, n, k, granularity, f64::abs));
    let values = map_rows(w, k, &alphas, |w, alpha| if w > alpha { 1 } else { -1 });
    Ok(QuantizedWeights {
        values,
        scales: row_scales(n, &scales),
    })
}

/// `value * scale`, rounded to f32.
///
/// # Errors
/// When the values are not a multiple of the scales' number of rows long, or there are none.
pub fn dequantize_weights(weights: &QuantizedWeights) -> Result<Vec<f32>, ReferenceError> {
    let n = weights.scales.n();
    let k = weights.values.len() / n;
    check_len("quantized weights", weights.values.len(), n, k)?;
    let rows = weights.values.chunks(k).zip(weights.scales.expand());
    Ok(rows
        .flat_map(|(row, scale)| row.iter().map(move |&value| f32::from(value) * scale))
        .collect())
}

fn check_weights<T: Element>(w: &[T], n: usize, k: usize) -> Result<(), ReferenceError> {
    check_len("weights", w.len(), n, k)?;
    match w.par_iter().position_first(|w| !w.to_f32().is_finite()) {
        None => Ok(()),
        Some(index) => Err(ReferenceError::NonFiniteWeight {
            value: w[index].to_f32(),
            row: index / k,
            column: index % k,
        }),
    }
}

/// The mean of `term` over the matrix (one element), or over each row (`n` elements).
fn means<T: Element>(
    w: &[T],
    n: usize,
    k: usize,
    granularity: WeightGranularity,
    term: impl Fn(f64) -> f64 + Sync,
) -> Vec<f64> {
    let row_sum = |row: &[T]| {
        lane_sum(
            &row.iter()
                .map(|w| term(f64::from(w.to_f32())))
                .collect::<Vec<_>>(),
        )
    };
    let sums: Vec<f64> = w.par_chunks(k).map(row_sum).collect();
    match granularity {
        WeightGranularity::Tensor => vec![lane_sum(&sums) / (n * k) as f64],
        WeightGranularity::Channel => sums.into_iter().map(|sum| sum / k as f64).collect(),
    }
}

/// Maps every weight with its row's parameter, or with the only one.
fn map_rows<T: Element>(
    w: &[T],
    k: usize,
    parameters: &[f32],
    map: impl Fn(f32, f32) -> i8 + Sync,
) -> Vec<i8> {
    let mut values = vec![0; w.len()];
    values
        .par_chunks_mut(k)
        .zip(w.par_chunks(k))
        .enumerate()
        .for_each(|(row, (values, w))| {
            let parameter = if parameters.len() == 1 {
                parameters[0]
            } else {
                parameters[row]
            };
            for (value, w) in values.iter_mut().zip(w) {
                *value = map(w.to_f32(), parameter);
            }
        });
    values
}

/// Scales that are finite, being means of finite f32: one for all rows or one for each.
fn row_scales(n: usize, scales: &[f32]) -> RowScales {
    let scales = if scales.len() == 1 {
        RowScales::per_tensor(n, scales[0])
    } else {
        RowScales::per_row(scales)
    };
    scales.expect("the mean of finite f32 values is finite, and n is at least 1")
}
