//! RMSNorm and LayerNorm over the features of each token, in f64.

use std::fmt;

use rayon::prelude::*;

use super::error::check_len;
use super::{Element, ReferenceError};

/// A normalization with its parameters; `gamma` and `beta` have one value a feature.
#[derive(Clone, Copy)]
pub enum Norm<'a> {
    /// `x / sqrt(mean(x^2) + eps) * gamma`.
    Rms {
        /// The weight.
        gamma: &'a [f32],
        /// Added to the mean square.
        eps: f64,
    },
    /// `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * gamma (+ beta)`.
    Layer {
        /// The weight.
        gamma: &'a [f32],
        /// The bias, where there is one.
        beta: Option<&'a [f32]>,
        /// Added to the variance.
        eps: f64,
    },
}

impl fmt::Debug for Norm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rms { gamma, eps } => f
                .debug_struct("Rms")
                .field("gamma", &gamma.len())
                .field("eps", eps)
                .finish(),
            Self::Layer { gamma, beta, eps } => f
                .debug_struct("Layer")
                .field("gamma", &gamma.len())
                .field("beta", &beta.map(<[f32]>::len))
                .field("eps", eps)
                .finish(),
        }
    }
}

/// Normalizes `m` tokens of `width` features.
///
/// # Errors
/// When a size is 0, or `x`, `gamma` or `beta` has another length than the sizes say.
pub fn normalize<T: Element>(
    x: &[T],
    m: usize,
    width: usize,
    norm: &Norm,
) -> Result<Vec<f64>, ReferenceError> {
    check_len("activations", x.len(), m, width)?;
    let (gamma, beta) = match *norm {
        Norm::Rms { gamma, .. } => (gamma, None),
        Norm::Layer { gamma, beta, .. } => (gamma, beta),
    };
    check_len("gamma", gamma.len(), 1, width)?;
    if let Some(beta) = beta {
        check_len("beta", beta.len(), 1, width)?;
    }
    Ok(x.par_chunks(width)
        .flat_map_iter(|token| normalize_token(token, norm))
        .collect())
}

fn normalize_token<T: Element>(token: &[T], norm: &Norm) -> Vec<f64> {
    let mut y: Vec<f64> = token.iter().map(|x| f64::from(x.to_f32())).collect();
    match *norm {
        Norm::Rms { gamma, eps } => {
            let root = (mean_square(&y) + eps).sqrt();
            for (y, gamma) in y.iter_mut().zip(gamma) {
                *y = *y / root * f64::from(*gamma);
            }
        }
        Norm::Layer { gamma, beta, eps } => {
            let mean = y.iter().sum::<f64>() / y.len() as f64;
            y.iter_mut().for_each(|y| *y -= mean);
            let root = (mean_square(&y) + eps).sqrt();
            for (i, y) in y.iter_mut().enumerate() {
                *y = *y / root * f64::from(gamma[i]) + beta.map_or(0.0, |beta| f64::from(beta[i]));
            }
        }
    }
    y
}

fn mean_square(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64
}
