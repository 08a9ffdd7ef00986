//! Plain CPU versions of every operation, written to be read: the tests compare the kernels with them.
//!
//! Formulas, rounding, operation order and tolerances are stated, with their sources, in `docs/numerics.md`. Shapes: `m` tokens,
//! `k` input features, `n` output features; matrices are row-major slices. Exact values are computed and returned in f64; what a
//! kernel guarantees bit for bit (integers, scales, the linear epilogue) is computed in the kernel's types.

pub mod activation;
pub mod element;
mod error;
pub mod fused;
pub mod linear;
pub mod norm;
pub mod quantize;
mod row_scales;
mod sum;
#[cfg(test)]
mod tests;

pub use element::Element;
pub use error::{ReferenceError, RowScalesError};
pub use row_scales::{RowScales, ScaleRange};

pub use crate::layout::MAX_K;
