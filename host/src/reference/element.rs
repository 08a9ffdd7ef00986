//! The floating-point types that tensors come in.

use half::{bf16, f16};
use safetensors::Dtype;

/// f32, f16 or bf16: what activations, weights and outputs may be.
pub trait Element: Copy + Send + Sync + 'static {
    /// The type's name in safetensors files.
    const DTYPE: Dtype;

    /// The same value as f32; every f16 and bf16 is one exactly.
    fn to_f32(self) -> f32;

    /// The nearest value of this type, ties to even; beyond the largest, an infinity.
    fn from_f32(value: f32) -> Self;

    /// The values' bytes in little-endian order, as files hold them.
    fn to_le_bytes(values: &[Self]) -> Vec<u8>;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;

    fn to_f32(self) -> f32 {
        self
    }

    fn from_f32(value: f32) -> Self {
        value
    }

    fn to_le_bytes(values: &[Self]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }
}

impl Element for f16 {
    const DTYPE: Dtype = Dtype::F16;

    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }

    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn to_le_bytes(values: &[Self]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::BF16;

    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }

    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn to_le_bytes(values: &[Self]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }
}
