use crate::reference::quantize::{ActivationGranularity, WeightGranularity};
use std::fmt;

/// How a W2A8 product is quantized: which activations share a scale, and which weights.
///
/// ```
/// use bitnet_cuda::ops::QuantizationType;
///
/// let b158 = QuantizationType::A8TokenW2Tensor;
/// assert_eq!(QuantizationType::new(b158.activations(), b158.weights()), b158);
/// assert_eq!(b158.to_string(), "a8-token-w2-tensor");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantizationType {
    /// Activations per token, weights per tensor: BitNet b1.58.
    A8TokenW2Tensor,
    /// Activations per token, weights per output channel.
    A8TokenW2Channel,
    /// Activations per tensor, weights per tensor: the first BitNet.
    A8TensorW2Tensor,
    /// Activations per tensor, weights per output channel.
    A8TensorW2Channel,
}

impl QuantizationType {
    /// Every type there is.
    pub const ALL: [Self; 4] = [
        Self::A8TokenW2Tensor,
        Self::A8TokenW2Channel,
        Self::A8TensorW2Tensor,
        Self::A8TensorW2Channel,
    ];

    /// The type of this pair.
    pub const fn new(activations: ActivationGranularity, weights: WeightGranularity) -> Self {
        match (activations, weights) {
            (ActivationGranularity::Token, WeightGranularity::Tensor) => Self::A8TokenW2Tensor,
            (ActivationGranularity::Token, WeightGranularity::Channel) => Self::A8TokenW2Channel,
            (ActivationGranularity::Tensor, WeightGranularity::Tensor) => Self::A8TensorW2Tensor,
            (ActivationGranularity::Tensor, WeightGranularity::Channel) => Self::A8TensorW2Channel,
        }
    }

    /// Which activations share a scale.
    pub const fn activations(self) -> ActivationGranularity {
        match self {
            Self::A8TokenW2Tensor | Self::A8TokenW2Channel => ActivationGranularity::Token,
            Self::A8TensorW2Tensor | Self::A8TensorW2Channel => ActivationGranularity::Tensor,
        }
    }

    /// Which weights share a scale.
    pub const fn weights(self) -> WeightGranularity {
        match self {
            Self::A8TokenW2Tensor | Self::A8TensorW2Tensor => WeightGranularity::Tensor,
            Self::A8TokenW2Channel | Self::A8TensorW2Channel => WeightGranularity::Channel,
        }
    }

    /// Its name, such as `a8-token-w2-tensor`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A8TokenW2Tensor => "a8-token-w2-tensor",
            Self::A8TokenW2Channel => "a8-token-w2-channel",
            Self::A8TensorW2Tensor => "a8-tensor-w2-tensor",
            Self::A8TensorW2Channel => "a8-tensor-w2-channel",
        }
    }
}

impl fmt::Display for QuantizationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
