//! Norms, alone and fused with what comes before and after them.
//!
//! A residual gets zeros added, so that it stays what it is however often the operation runs; the traffic is the same.

use super::activation::Gated;
use super::features;
use super::outputs::{Floats, Quantized};
use crate::operations::{Operation, Sizes};
use anyhow::Result;
use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::ops::{Activation, Norm, QuantizedActivations};
use bitnet_cuda::reference::{fused, norm};
use half::bf16;

const EPS: f32 = 1e-5;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rms,
    Layer,
    LayerWithoutBias,
}

/// A norm with random parameters, on the host and on a device.
struct Parameters {
    kind: Kind,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    norm: Norm,
}

impl Parameters {
    fn random(
        kind: Kind,
        device: &Device,
        width: usize,
        random: &mut fastrand::Rng,
    ) -> Result<Self> {
        let gamma: Vec<f32> = (0..width).map(|_| 0.5 + random.f32()).collect();
        let beta: Vec<f32> = match kind {
            Kind::Layer => (0..width).map(|_| random.f32()).collect(),
            Kind::Rms | Kind::LayerWithoutBias => Vec::new(),
        };
        let norm = match kind {
            Kind::Rms => Norm::rms(device, width, Some(&gamma), EPS)?,
            Kind::Layer => Norm::layer(device, width, Some(&gamma), Some(&beta), EPS)?,
            Kind::LayerWithoutBias => Norm::layer(device, width, Some(&gamma), None, EPS)?,
        };
        Ok(Self {
            kind,
            gamma,
            beta,
            norm,
        })
    }

    fn reference(&self) -> norm::Norm<'_> {
        let (gamma, eps) = (&self.gamma[..], EPS.into());
        match self.kind {
            Kind::Rms => norm::Norm::Rms { gamma, eps },
            Kind::Layer | Kind::LayerWithoutBias => norm::Norm::Layer {
                gamma,
                beta: (self.kind == Kind::Layer).then_some(&self.beta[..]),
                eps,
            },
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.gamma[..]) + size_of_val(&self.beta[..])
    }

    /// Multiplications and additions a feature.
    fn operations(&self) -> usize {
        match self.kind {
            Kind::Rms => 4,
            Kind::Layer | Kind::LayerWithoutBias => 7,
        }
    }
}

pub fn alone(
    kind: Kind,
    device: &Device,
    Sizes { m, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let parameters = Parameters::random(kind, device, k, random)?;
    let host: Vec<bf16> = features(m * k, random);
    let input = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Floats {
        expected: norm::normalize(&host, m, k, &parameters.reference())?,
        input_bytes: input.size_bytes() + parameters.bytes(),
        operations: parameters.operations() * host.len(),
        exact: true,
        output: Buffer::uninit(device, m * k)?,
        launch: Box::new(move |stream, output| {
            Ok(parameters.norm.forward(stream, &input, output)?)
        }),
    }))
}

pub fn residual(
    kind: Kind,
    device: &Device,
    Sizes { m, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let parameters = Parameters::random(kind, device, k, random)?;
    let host: Vec<bf16> = features(m * k, random);
    let zeros = Buffer::zeroed(device, m * k)?;
    let mut residual = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Floats {
        expected: norm::normalize(&host, m, k, &parameters.reference())?,
        input_bytes: 3 * residual.size_bytes() + parameters.bytes(),
        operations: (parameters.operations() + 1) * host.len(),
        exact: true,
        output: Buffer::uninit(device, m * k)?,
        launch: Box::new(move |stream, output| {
            let norm = &parameters.norm;
            Ok(norm.forward_residual(stream, &zeros, &mut residual, output)?)
        }),
    }))
}

pub fn quantized(
    kind: Kind,
    device: &Device,
    Sizes { m, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let parameters = Parameters::random(kind, device, k, random)?;
    let host: Vec<bf16> = features(m * k, random);
    let input = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Quantized {
        expected: fused::norm_quantize(&host, m, k, &parameters.reference())?,
        off: 1,
        exact: true,
        input_bytes: input.size_bytes() + parameters.bytes(),
        operations: (parameters.operations() + 5) * host.len(),
        output: QuantizedActivations::uninit(device, m, k)?,
        launch: Box::new(move |stream, output| {
            Ok(parameters.norm.forward_quantized(stream, &input, output)?)
        }),
    }))
}

pub fn residual_quantized(
    kind: Kind,
    device: &Device,
    Sizes { m, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let parameters = Parameters::random(kind, device, k, random)?;
    let host: Vec<bf16> = features(m * k, random);
    let zeros = Buffer::zeroed(device, m * k)?;
    let mut residual = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Quantized {
        expected: fused::norm_quantize(&host, m, k, &parameters.reference())?,
        off: 1,
        exact: true,
        input_bytes: 3 * residual.size_bytes() + parameters.bytes(),
        operations: (parameters.operations() + 6) * host.len(),
        output: QuantizedActivations::uninit(device, m, k)?,
        launch: Box::new(move |stream, output| {
            let norm = &parameters.norm;
            Ok(norm.forward_residual_quantized(stream, &zeros, &mut residual, output)?)
        }),
    }))
}

/// The middle of a BitNet feed-forward.
pub fn gated_quantized(
    activation: Activation,
    device: &Device,
    Sizes { m, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let parameters = Parameters::random(Kind::Rms, device, k, random)?;
    let inputs = Gated::random(device, m * k, random)?;
    let (gate, up) = (&inputs.host_gate, &inputs.host_up);
    Ok(Box::new(Quantized {
        expected: fused::gated_norm_quantize(activation, gate, up, m, k, &parameters.reference())?,
        off: 1,
        exact: activation == Activation::SquaredRelu,
        input_bytes: inputs.bytes() + parameters.bytes(),
        operations: (parameters.operations() + 7) * m * k,
        output: QuantizedActivations::uninit(device, m, k)?,
        launch: Box::new(move |stream, output| {
            let (norm, gate_up) = (&parameters.norm, inputs.on_device());
            Ok(norm.forward_gated_quantized(stream, activation, gate_up, output)?)
        }),
    }))
}
