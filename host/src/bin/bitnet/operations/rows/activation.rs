//! Activation functions.

use super::features;
use super::outputs::Floats;
use crate::operations::{Operation, Sizes};
use anyhow::Result;
use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::ops::{self, Activation, GateUp};
use bitnet_cuda::reference::activation;
use half::bf16;

pub fn activate(
    kind: Activation,
    device: &Device,
    Sizes { m, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let host: Vec<bf16> = features(m * k, random);
    let input = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Floats {
        expected: activation::activate(kind, &host),
        input_bytes: input.size_bytes(),
        operations: 2 * host.len(),
        exact: kind == Activation::SquaredRelu,
        output: Buffer::uninit(device, m * k)?,
        launch: Box::new(move |stream, output| Ok(ops::activate(stream, kind, &input, output)?)),
    }))
}

pub fn gated(
    kind: Activation,
    device: &Device,
    Sizes { m, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let inputs = Gated::random(device, m * k, random)?;
    Ok(Box::new(Floats {
        expected: activation::gated(kind, &inputs.host_gate, &inputs.host_up)?,
        input_bytes: inputs.bytes(),
        operations: 3 * m * k,
        exact: kind == Activation::SquaredRelu,
        output: Buffer::uninit(device, m * k)?,
        launch: Box::new(move |stream, output| {
            Ok(ops::gated(stream, kind, inputs.on_device(), k, output)?)
        }),
    }))
}

/// Random gate and up, on the host and on a device.
pub struct Gated {
    pub host_gate: Vec<bf16>,
    pub host_up: Vec<bf16>,
    gate: Buffer<bf16>,
    up: Buffer<bf16>,
}

impl Gated {
    pub fn random(device: &Device, len: usize, random: &mut fastrand::Rng) -> Result<Self> {
        let (host_gate, host_up) = (features(len, random), features(len, random));
        Ok(Self {
            gate: Buffer::from_slice(device, &host_gate)?,
            up: Buffer::from_slice(device, &host_up)?,
            host_gate,
            host_up,
        })
    }

    pub fn on_device(&self) -> GateUp<'_, bf16> {
        let Self { gate, up, .. } = self;
        GateUp::Separate { gate, up }
    }

    pub fn bytes(&self) -> usize {
        self.gate.size_bytes() + self.up.size_bytes()
    }
}
