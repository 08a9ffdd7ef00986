//! The W2A8 linear layer: `y[m, n] = sum_k q[m, k] t[n, k] / s[m] * scale[n] (+ bias[n]) (+ residual[m, n])`.

use std::fmt;

use rayon::prelude::*;

use super::error::check_len;
use super::{Element, MAX_K, ReferenceError, RowScales};

/// Sizes of a product: `[m, k]` activations, `[n, k]` weights, `[m, n]` outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Tokens.
    pub m: usize,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
}

/// The operations applied to the integer sums.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// The factor that each token was quantized with, `[m]`.
    pub activation_scales: &'a [f32],
    /// The weight scale of each row of the weights.
    pub row_scales: &'a RowScales,
    /// Added to each token's outputs, `[n]`.
    pub bias: Option<&'a [f32]>,
    /// Added last, `[m, n]`.
    pub residual: Option<&'a [f32]>,
}

impl fmt::Debug for Epilogue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epilogue")
            .field("activation_scales", &self.activation_scales.len())
            .field("row_scales", self.row_scales)
            .field("bias", &self.bias.map(<[f32]>::len))
            .field("residual", &self.residual.map(<[f32]>::len))
            .finish()
    }
}

/// The exact integer sums `[m, n]` of int8 activations `[m, k]` and ternary weights `[n, k]`.
///
/// # Errors
/// When a size is 0, an operand's length does not fit, or `k` exceeds [`MAX_K`].
pub fn accumulate(q: &[i8], t: &[i8], shape: Shape) -> Result<Vec<i32>, ReferenceError> {
    check_product(q, t, shape)?;
    // |sum| <= 128 k <= i32::MAX, and so is every partial sum.
    let dot = |q: &[i8], t: &[i8]| {
        q.iter().zip(t).fold(0_i32, |sum, (&q, &t)| {
            sum.wrapping_add(i32::from(q) * i32::from(t))
        })
    };
    Ok(products(q, t, shape, dot))
}

/// The outputs `[m, n]` in the order of operations that the kernels guarantee, bit for bit.
///
/// `f32(acc)`, `/ s`, `* scale`, `+ bias`, `+ residual`: each step is rounded to f32, none is contracted to a fused multiply-add,
/// absent terms are skipped; the last f32 is rounded once to `T`. NaN outputs are NaN on every device, but their payload is
/// unspecified.
///
/// # Errors
/// When a size is 0 or an operand's length does not fit.
pub fn epilogue<T: Element>(
    acc: &[i32],
    m: usize,
    n: usize,
    epilogue: &Epilogue,
) -> Result<Vec<T>, ReferenceError> {
    check_epilogue(m, n, epilogue)?;
    check_len("accumulators", acc.len(), m, n)?;
    let scales = epilogue.row_scales.expand();
    let output = |(index, &acc): (usize, &i32)| {
        let (token, row) = (index / n, index % n);
        let mut y = acc as f32 / epilogue.activation_scales[token] * scales[row];
        if let Some(bias) = epilogue.bias {
            y += bias[row];
        }
        if let Some(residual) = epilogue.residual {
            y += residual[index];
        }
        T::from_f32(y)
    };
    Ok(acc.par_iter().enumerate().map(output).collect())
}

/// The outputs `[m, n]` in higher precision: sums in i64, everything after them in f64.
///
/// # Errors
/// When a size is 0, an operand's length does not fit, or `k` exceeds [`MAX_K`].
pub fn linear_f64(
    q: &[i8],
    t: &[i8],
    shape: Shape,
    epilogue: &Epilogue,
) -> Result<Vec<f64>, ReferenceError> {
    check_product(q, t, shape)?;
    check_epilogue(shape.m, shape.n, epilogue)?;
    let dot = |q: &[i8], t: &[i8]| {
        q.iter()
            .zip(t)
            .map(|(&q, &t)| i64::from(q) * i64::from(t))
            .sum::<i64>()
    };
    let mut y: Vec<f64> = products(q, t, shape, dot)
        .into_iter()
        .map(|acc| acc as f64)
        .collect();
    let scales = epilogue.row_scales.expand();
    for (token, y) in y.chunks_mut(shape.n).enumerate() {
        for (row, y) in y.iter_mut().enumerate() {
            *y = *y / f64::from(epilogue.activation_scales[token]) * f64::from(scales[row]);
            *y += epilogue.bias.map_or(0.0, |bias| f64::from(bias[row]));
            *y += epilogue
                .residual
                .map_or(0.0, |residual| f64::from(residual[token * shape.n + row]));
        }
    }
    Ok(y)
}

/// `dot` of every token with every row, `[m, n]`.
fn products<S: Send>(
    q: &[i8],
    t: &[i8],
    shape: Shape,
    dot: impl Fn(&[i8], &[i8]) -> S + Sync,
) -> Vec<S> {
    let dot = &dot;
    q.par_chunks(shape.k)
        .flat_map(|q| t.par_chunks(shape.k).map(move |t| dot(q, t)))
        .collect()
}

fn check_product(q: &[i8], t: &[i8], shape: Shape) -> Result<(), ReferenceError> {
    let Shape { m, n, k } = shape;
    if k > MAX_K {
        return Err(ReferenceError::KTooLarge { k });
    }
    check_len("activations", q.len(), m, k)?;
    check_len("weights", t.len(), n, k)
}

fn check_epilogue(m: usize, n: usize, epilogue: &Epilogue) -> Result<(), ReferenceError> {
    check_len("activation scales", epilogue.activation_scales.len(), m, 1)?;
    if epilogue.row_scales.n() != n {
        return Err(ReferenceError::WrongScaleRows {
            expected: n,
            actual: epilogue.row_scales.n(),
        });
    }
    if let Some(bias) = epilogue.bias {
        check_len("bias", bias.len(), n, 1)?;
    }
    if let Some(residual) = epilogue.residual {
        check_len("residual", residual.len(), m, n)?;
    }
    Ok(())
}
