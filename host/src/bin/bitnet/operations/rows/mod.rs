//! Operations on rows of activations, `[m, k]`.

mod activation;
mod norm;
mod outputs;
mod quantize;

use super::Named;
use activation::{activate, gated};
use bitnet_cuda::ops::Activation::{GeluErf, GeluTanh, Silu, SquaredRelu};
use bitnet_cuda::ops::ActivationGranularity;
use bitnet_cuda::reference::Element;
use half::{bf16, f16};
use norm::Kind::{Layer, LayerWithoutBias, Rms};

/// All of them. Tensors are bf16 where the name says nothing.
pub const ROW_OPERATIONS: &[Named] = &[
    Named("quantize", |d, s, r| {
        quantize::activations::<bf16>(ActivationGranularity::Token, d, s, r)
    }),
    Named("rmsnorm + quantize", |d, s, r| {
        norm::quantized(false, Rms, d, s, r)
    }),
    Named("residual + rmsnorm + quantize", |d, s, r| {
        norm::quantized(true, Rms, d, s, r)
    }),
    Named("gated squared relu + rmsnorm + quantize", |d, s, r| {
        norm::gated_quantized(SquaredRelu, d, s, r)
    }),
    Named("rmsnorm", |d, s, r| norm::floats(false, Rms, d, s, r)),
    Named("residual + rmsnorm", |d, s, r| {
        norm::floats(true, Rms, d, s, r)
    }),
    Named("layernorm", |d, s, r| norm::floats(false, Layer, d, s, r)),
    Named("layernorm without bias", |d, s, r| {
        norm::floats(false, LayerWithoutBias, d, s, r)
    }),
    Named("residual + layernorm", |d, s, r| {
        norm::floats(true, Layer, d, s, r)
    }),
    Named("layernorm + quantize", |d, s, r| {
        norm::quantized(false, Layer, d, s, r)
    }),
    Named("residual + layernorm + quantize", |d, s, r| {
        norm::quantized(true, Layer, d, s, r)
    }),
    Named("gated silu + rmsnorm + quantize", |d, s, r| {
        norm::gated_quantized(Silu, d, s, r)
    }),
    Named("squared relu", |d, s, r| activate(SquaredRelu, d, s, r)),
    Named("silu", |d, s, r| activate(Silu, d, s, r)),
    Named("gelu erf", |d, s, r| activate(GeluErf, d, s, r)),
    Named("gelu tanh", |d, s, r| activate(GeluTanh, d, s, r)),
    Named("gated squared relu", |d, s, r| gated(SquaredRelu, d, s, r)),
    Named("gated silu", |d, s, r| gated(Silu, d, s, r)),
    Named("gated gelu erf", |d, s, r| gated(GeluErf, d, s, r)),
    Named("gated gelu tanh", |d, s, r| gated(GeluTanh, d, s, r)),
    Named("quantize per tensor", |d, s, r| {
        quantize::activations::<bf16>(ActivationGranularity::Tensor, d, s, r)
    }),
    Named("dequantize", quantize::dequantize),
    Named("quantize f16", |d, s, r| {
        quantize::activations::<f16>(ActivationGranularity::Token, d, s, r)
    }),
    Named("quantize f32", |d, s, r| {
        quantize::activations::<f32>(ActivationGranularity::Token, d, s, r)
    }),
];

/// Features around 0, with a few large ones, as activations are.
fn features<T: Element>(len: usize, random: &mut fastrand::Rng) -> Vec<T> {
    let mut feature = || {
        let outlier = if random.u8(..) == 0 { 20.0 } else { 1.0 };
        T::from_f32(outlier * (random.f32() * 2.0 - 1.0))
    };
    (0..len).map(|_| feature()).collect()
}
