//! Operations on device buffers. Shapes are checked before anything is submitted; element types are checked by the compiler.
//!
//! An operation is submitted to a [`Stream`](crate::device::Stream) and runs in its order, asynchronously on a GPU. Matrices are
//! row-major: `[m, k]` is `m` tokens of `k` features, and weights are `[n, k]`, a row for each of `n` output features. Up to 8
//! tokens take one pass over the weights; more are processed in groups of 8.
//!
//! A feed-forward block of BitNet b1.58 on bf16 tokens `[m, hidden]`, captured once as a [`Graph`](crate::device::Graph). With
//! `m` = 1 it takes three launches:
//!
//! ```
//! use bitnet_cuda::device::{Buffer, Device, Graph, Stream};
//! use bitnet_cuda::ops::{Activation, BitLinear, GateUp, Norm, OpError, QuantizedActivations};
//! use half::bf16;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # fn weights(n: usize, k: usize) -> Vec<f32> { (0..n * k).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect() }
//! let (device, m, hidden, inner) = (Device::emulated()?, 1, 64, 192);
//! // The rows of gate, then those of up: `PackedWeights::concat` joins those of a checkpoint.
//! let gate_up = BitLinear::from_weights(&device, &weights(2 * inner, hidden), 2 * inner, hidden)?;
//! let down = BitLinear::from_weights(&device, &weights(hidden, inner), hidden, inner)?;
//! let norm = Norm::rms(&device, hidden, None, 1e-5)?;
//! let sub_norm = Norm::rms(&device, inner, None, 1e-5)?;
//!
//! let mut both = Buffer::<bf16>::uninit(&device, m * 2 * inner)?;
//! let mut middle = QuantizedActivations::uninit(&device, m, inner)?;
//! let x = Buffer::from_slice(&device, &vec![bf16::ONE; m * hidden])?;
//! let mut y = Buffer::<bf16>::uninit(&device, m * hidden)?;
//! let mut block = |stream: &Stream| -> Result<(), OpError> {
//!     gate_up.forward_norm(stream, &norm, &x, None, &mut both)?;
//!     let gate_up = GateUp::Concatenated(&both);
//!     sub_norm.gated_normalize_quantize(stream, Activation::SquaredRelu, gate_up, &mut middle)?;
//!     down.forward_residual(stream, &middle, Some(&x), &mut y)
//! };
//! let stream = device.new_stream()?;
//! let graph = Graph::capture(&stream, &mut block)?;
//! graph.launch(&stream)?;
//! assert_eq!(y.to_vec()?.len(), hidden);
//! # Ok(())
//! # }
//! ```

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
pub use crate::reference::{RowScales, RowScalesError, ScaleRange};
pub use activation::{activate, gated};
pub use error::OpError;
pub(crate) use error::{require_matrix, require_tokens};
pub use int8xint2::bitlinear_int8xint2;
pub use linear::BitLinear;
pub use norm::Norm;
pub use quantization_type::QuantizationType;
pub use quantize::{QuantizedActivations, dequantize_activations, quantize_activations};
pub use weights::{QuantizedWeights, TernaryWeights, WeightQuantizer, quantize_weights};
