//! What users call: operations on device buffers. Shapes are checked here, once; types are checked by the compiler.
//!
//! Operations are submitted to a [`Stream`](crate::device::Stream) and run in its order, asynchronously on a GPU. Matrices are
//! row-major: `[m, k]` is `m` tokens of `k` features, and weights are `[n, k]`, a row for each of `n` output features. Up to 8 tokens
//! take one pass over the weights; more go in groups of 8.

mod activation;
mod error;
mod int8xint2;
mod linear;
mod norm;
mod quantization_type;
mod quantize;
mod weights;

pub use crate::launch::GateUp;
pub use crate::launch::Int8xInt2;
pub use crate::reference::activation::Activation;
pub use crate::reference::quantize::{ActivationGranularity, WeightGranularity};
pub use activation::{activate, gated};
pub use error::OpError;
pub(crate) use error::{require_matrix, require_tokens};
pub use int8xint2::bitlinear_int8xint2;
pub use linear::BitLinear;
pub use norm::Norm;
pub use quantization_type::QuantizationType;
pub use quantize::{QuantizedActivations, dequantize_activations, quantize_activations};
pub use weights::{QuantizedWeights, TernaryWeights, WeightQuantizer, quantize_weights};
