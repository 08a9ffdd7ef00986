//! Norms, alone and fused with what comes before and after them.

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

/// Random tokens to normalize, or zeros to add to a residual of random tokens: so it stays what it is however often the operation runs, and
/// the traffic is the same.
struct Tokens {
    host: Vec<bf16>,
    input: Buffer<bf16>,
    residual: Option<Buffer<bf16>>,
}

impl Tokens {
    fn random(
        with_residual: bool,
        device: &Device,
        len: usize,
        random: &mut fastrand::Rng,
    ) -> Result<Self> {
        let host: Vec<bf16> = features(len, random);
        let tokens = Buffer::from_slice(device, &host)?;
        let (input, residual) = if with_residual {
            (Buffer::zeroed(device, len)?, Some(tokens))
        } else {
            (tokens, None)
        };
        Ok(Self {
            host,
            input,
            residual,
        })
    }

    /// Read, and written to the residual.
    fn bytes(&self) -> usize {
        let residual = self.residual.as_ref().map_or(0, Buffer::size_bytes);
        self.input.size_bytes() + 2 * residual
    }

    /// Additions a feature.
    fn operations(&self) -> usize {
        usize::from(self.residual.is_some())
    }
}

/// A norm, after a residual's addition where there is one.
pub fn floats(
    with_residual: bool,
    kind: Kind,
    device: &Device,
    Sizes { m, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let parameters = Parameters::random(kind, device, k, random)?;
    let mut tokens = Tokens::random(with_residual, device, m * k, random)?;
    Ok(Box::new(Floats {
        expected: norm::normalize(&tokens.host, m, k, &parameters.reference())?,
        input_bytes: tokens.bytes() + parameters.bytes(),
        operations: (parameters.operations() + tokens.operations()) * m * k,
        exact: true,
        output: Buffer::uninit(device, m * k)?,
        launch: Box::new(move |stream, output| {
            let (norm, input) = (&parameters.norm, &tokens.input);
            match &mut tokens.residual {
                Some(residual) => norm.add_normalize(stream, input, residual, output)?,
                None => norm.normalize(stream, input, output)?,
            }
            Ok(())
        }),
    }))
}

/// As [`floats`], quantized.
pub fn quantized(
    with_residual: bool,
    kind: Kind,
    device: &Device,
    Sizes { m, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let parameters = Parameters::random(kind, device, k, random)?;
    let mut tokens = Tokens::random(with_residual, device, m * k, random)?;
    Ok(Box::new(Quantized {
        expected: fused::norm_quantize(&tokens.host, m, k, &parameters.reference())?,
        off: 1,
        exact: true,
        input_bytes: tokens.bytes() + parameters.bytes(),
        operations: (parameters.operations() + tokens.operations() + 5) * m * k,
        output: QuantizedActivations::uninit(device, m, k)?,
        launch: Box::new(move |stream, output| {
            let (norm, input) = (&parameters.norm, &tokens.input);
            match &mut tokens.residual {
                Some(residual) => norm.add_normalize_quantize(stream, input, residual, output)?,
                None => norm.normalize_quantize(stream, input, output)?,
            }
            Ok(())
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
            Ok(norm.gated_normalize_quantize(stream, activation, gate_up, output)?)
        }),
    }))
}
