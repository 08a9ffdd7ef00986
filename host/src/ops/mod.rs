//! What users call: operations on device buffers. Shapes are checked here, once; types are checked by the compiler.
//!
//! Operations are submitted to a [`Stream`](crate::device::Stream) and run in its order, asynchronously on a GPU. Matrices are
//! row-major: `[m, k]` is `m` tokens of `k` features.

mod error;
mod linear;
mod quantize;

pub use error::OpError;
pub use linear::BitLinear;
pub use quantize::{QuantizedActivations, quantize_activations};
