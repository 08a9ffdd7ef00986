//! Activation functions, plain and gated, in f64.

use std::f64::consts::{FRAC_2_PI, SQRT_2};

use super::error::check_len;
use super::{Element, ReferenceError};

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `max(x, 0)^2`, the activation of BitNet b1.58's feed-forward.
    SquaredRelu,
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`.
    GeluErf,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
}

impl Activation {
    /// Every activation function there is.
    pub const ALL: [Self; 4] = [Self::SquaredRelu, Self::Silu, Self::GeluErf, Self::GeluTanh];

    /// The function's value; NaN for NaN.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            // Not `x.max(0.0)`, which is 0 at NaN.
            Self::SquaredRelu if x <= 0.0 => 0.0,
            Self::SquaredRelu => x * x,
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::GeluErf => 0.5 * x * (1.0 + libm::erf(x / SQRT_2)),
            Self::GeluTanh => {
                let inner = FRAC_2_PI.sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
        }
    }
}

/// How gate and up are arranged in one buffer of `[m, 2 * width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GateUpLayout {
    /// All gates of a token, then all its ups.
    Concatenated,
    /// Gate and up of each feature next to each other.
    Interleaved,
}

/// `activation(x)` for every element.
pub fn activate<T: Element>(activation: Activation, x: &[T]) -> Vec<f64> {
    x.iter()
        .map(|x| activation.apply(f64::from(x.to_f32())))
        .collect()
}

/// `activation(gate) * up` for every element.
///
/// # Errors
/// When the two have different lengths.
pub fn gated<T: Element>(
    activation: Activation,
    gate: &[T],
    up: &[T],
) -> Result<Vec<f64>, ReferenceError> {
    check_len("up", up.len(), 1, gate.len())?;
    let activated = activate(activation, gate).into_iter();
    Ok(activated
        .zip(up)
        .map(|(gate, up)| gate * f64::from(up.to_f32()))
        .collect())
}

/// Splits a buffer of `[m, 2 * width]` into gate and up, each `[m, width]`.
///
/// # Errors
/// When a size is 0, or the buffer is not `m * 2 * width` long.
pub fn split_gate_up<T: Element>(
    gate_up: &[T],
    m: usize,
    width: usize,
    layout: GateUpLayout,
) -> Result<(Vec<T>, Vec<T>), ReferenceError> {
    check_len("gate and up", gate_up.len(), m, width.saturating_mul(2))?;
    let tokens = gate_up.chunks(2 * width);
    Ok(match layout {
        GateUpLayout::Concatenated => (
            tokens
                .clone()
                .flat_map(|token| token[..width].iter().copied())
                .collect(),
            tokens
                .flat_map(|token| token[width..].iter().copied())
                .collect(),
        ),
        GateUpLayout::Interleaved => gate_up.chunks(2).map(|pair| (pair[0], pair[1])).unzip(),
    })
}
