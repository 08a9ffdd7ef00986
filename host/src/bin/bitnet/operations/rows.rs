//! Operations on rows of activations: `[m, width]`.

use super::{Check, Operation};
use anyhow::Result;
use bitnet_cuda::device::{Buffer, Device, Stream};
use bitnet_cuda::launch::Float;
use bitnet_cuda::ops::{
    Activation, GateUp, Norm, QuantizedActivations, activate, dequantize_activations, gated,
    quantize_activations,
};
use bitnet_cuda::reference::quantize::{self, ActivationGranularity};
use bitnet_cuda::reference::{Element, activation, fused, norm};
use half::{bf16, f16};

/// Makes an operation on `m` tokens of `width` random features.
type Make = fn(&Device, usize, usize, &mut fastrand::Rng) -> Result<Box<dyn Operation>>;

/// All that are measured and compared, by name. Tensors are bf16 where the name says nothing.
pub const ROW_OPERATIONS: &[(&str, Make)] = &[
    ("quantize bf16", quantize::<bf16>),
    ("rmsnorm + quantize", rms_norm_quantize),
    ("residual + rmsnorm + quantize", residual_norm_quantize),
    (
        "gated squared relu + rmsnorm + quantize",
        gated_norm_quantize,
    ),
    ("rmsnorm", rms_norm),
    ("residual + rmsnorm", residual_norm),
    ("layernorm", layer_norm),
    ("squared relu", |d, m, w, r| {
        activation(Activation::SquaredRelu, d, m, w, r)
    }),
    ("silu", |d, m, w, r| {
        activation(Activation::Silu, d, m, w, r)
    }),
    ("gelu tanh", |d, m, w, r| {
        activation(Activation::GeluTanh, d, m, w, r)
    }),
    ("gated squared relu", |d, m, w, r| {
        gated_activation(Activation::SquaredRelu, d, m, w, r)
    }),
    ("gated silu", |d, m, w, r| {
        gated_activation(Activation::Silu, d, m, w, r)
    }),
    ("dequantize", dequantize),
    ("quantize f16", quantize::<f16>),
    ("quantize f32", quantize::<f32>),
];

const EPS: f32 = 1e-5;

/// How far a bf16 may be from the exact value: its rounding, and a little of f32 sums.
const RELATIVE: f64 = 1.0 / 256.0 + 1e-5;
const ABSOLUTE: f64 = 1e-5;

type Launch<O> = Box<dyn FnMut(&Stream, &mut O) -> Result<()>>;

/// An operation with bf16 outputs.
struct Floats {
    launch: Launch<Buffer<bf16>>,
    output: Buffer<bf16>,
    expected: Vec<f64>,
    input_bytes: usize,
    operations: usize,
    exact: bool,
}

impl Operation for Floats {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        (self.launch)(stream, &mut self.output)
    }

    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self.output.to_vec()?).to_vec())
    }

    fn check(&self) -> Result<Check> {
        let found: Vec<f64> = self.output.to_vec()?.iter().map(|y| y.to_f64()).collect();
        let near = |y: &f64, e: &f64| (y - e).abs() <= RELATIVE * e.abs() + ABSOLUTE;
        Ok(Check::compare(&found, &self.expected, near))
    }

    fn bytes(&self) -> usize {
        self.input_bytes + self.output.size_bytes()
    }

    fn operations(&self) -> usize {
        self.operations
    }

    fn exact(&self) -> bool {
        self.exact
    }
}

/// An operation with quantized outputs.
struct Quantized {
    launch: Launch<QuantizedActivations>,
    output: QuantizedActivations,
    expected: quantize::QuantizedActivations,
    /// How far a value may be from the reference's: 0 where what is quantized is given, 1 where it is itself rounded.
    off: u8,
    input_bytes: usize,
    operations: usize,
}

impl Operation for Quantized {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        (self.launch)(stream, &mut self.output)
    }

    fn outputs(&self) -> Result<Vec<u8>> {
        let output = &self.output;
        let values = &output.values().to_vec()?[..output.m() * output.k_padded()];
        let mut bytes = bytemuck::cast_slice(values).to_vec();
        bytes.extend_from_slice(bytemuck::cast_slice(&output.scale().to_vec()?));
        bytes.extend_from_slice(bytemuck::cast_slice(&output.sum().to_vec()?));
        Ok(bytes)
    }

    fn check(&self) -> Result<Check> {
        let (output, expected) = (&self.output, &self.expected);
        let values = output.values().to_vec()?;
        let rows = || values.chunks(output.k_padded()).take(output.m());
        let near = |a: &i8, b: &i8| a.abs_diff(*b) <= self.off;
        let mut check = Check::default();
        for (row, expected) in rows().zip(expected.values.chunks(output.k())) {
            check = check.and(Check::compare(&row[..expected.len()], expected, near));
        }
        let tolerance = f32::from(self.off) * 1e-5;
        let near = |a: &f32, b: &f32| (a - b).abs() <= tolerance * b.abs();
        check = check.and(Check::compare(
            &output.scale().to_vec()?,
            &expected.scales,
            near,
        ));
        let sums: Vec<i32> = rows()
            .map(|row| row.iter().map(|&q| i32::from(q)).sum())
            .collect();
        Ok(check.and(Check::compare(&output.sum().to_vec()?, &sums, i32::eq)))
    }

    fn bytes(&self) -> usize {
        let token = self.output.k_padded() + size_of::<f32>() + size_of::<i32>();
        self.input_bytes + self.output.m() * token
    }

    fn operations(&self) -> usize {
        self.operations
    }
}

fn quantize<T: Float + Element>(
    device: &Device,
    m: usize,
    width: usize,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let host: Vec<T> = features(m * width, random);
    let input = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Quantized {
        expected: quantize::quantize_activations(&host, m, width, ActivationGranularity::Token)?,
        off: 0,
        input_bytes: input.size_bytes(),
        operations: 5 * host.len(),
        output: QuantizedActivations::uninit(device, m, width)?,
        launch: Box::new(move |stream, output| Ok(quantize_activations(stream, &input, output)?)),
    }))
}

fn dequantize(
    device: &Device,
    m: usize,
    width: usize,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let values: Vec<i8> = (0..m * width).map(|_| random.i8(..)).collect();
    let scales: Vec<f32> = (0..m).map(|_| 10.0 + 90.0 * random.f32()).collect();
    let input = QuantizedActivations::from_values(device, m, width, &values, &scales)?;
    let expected = values
        .iter()
        .enumerate()
        .map(|(i, &q)| f64::from(q) / f64::from(scales[i / width]));
    Ok(Box::new(Floats {
        expected: expected.collect(),
        input_bytes: values.len() + m * size_of::<f32>(),
        operations: values.len(),
        exact: true,
        output: Buffer::uninit(device, m * width)?,
        launch: Box::new(move |stream, output| Ok(dequantize_activations(stream, &input, output)?)),
    }))
}

/// Parameters of a norm, and the norm on the device.
struct Parameters {
    gamma: Vec<f32>,
    norm: Norm,
}

impl Parameters {
    fn rms(device: &Device, width: usize, random: &mut fastrand::Rng) -> Result<Self> {
        let gamma: Vec<f32> = (0..width).map(|_| 0.5 + random.f32()).collect();
        Ok(Self {
            norm: Norm::rms(device, width, Some(&gamma), EPS)?,
            gamma,
        })
    }

    fn reference(&self) -> norm::Norm<'_> {
        norm::Norm::Rms {
            gamma: &self.gamma,
            eps: EPS.into(),
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.gamma[..])
    }
}

fn rms_norm(
    device: &Device,
    m: usize,
    width: usize,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let parameters = Parameters::rms(device, width, random)?;
    let host: Vec<bf16> = features(m * width, random);
    let input = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Floats {
        expected: norm::normalize(&host, m, width, &parameters.reference())?,
        input_bytes: input.size_bytes() + parameters.bytes(),
        operations: 4 * host.len(),
        exact: true,
        output: Buffer::uninit(device, m * width)?,
        launch: Box::new(move |stream, output| {
            Ok(parameters.norm.forward(stream, &input, output)?)
        }),
    }))
}

fn layer_norm(
    device: &Device,
    m: usize,
    width: usize,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let gamma: Vec<f32> = (0..width).map(|_| 0.5 + random.f32()).collect();
    let beta: Vec<f32> = (0..width).map(|_| random.f32()).collect();
    let host: Vec<bf16> = features(m * width, random);
    let reference = norm::Norm::Layer {
        gamma: &gamma,
        beta: Some(&beta),
        eps: EPS.into(),
    };
    let norm = Norm::layer(device, width, Some(&gamma), Some(&beta), EPS)?;
    let input = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Floats {
        expected: norm::normalize(&host, m, width, &reference)?,
        input_bytes: input.size_bytes() + 2 * size_of_val(&gamma[..]),
        operations: 7 * host.len(),
        exact: true,
        output: Buffer::uninit(device, m * width)?,
        launch: Box::new(move |stream, output| Ok(norm.forward(stream, &input, output)?)),
    }))
}

/// With zeros to add, so that the residual stays what it is however often this runs; the traffic is the same.
fn residual_norm(
    device: &Device,
    m: usize,
    width: usize,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let parameters = Parameters::rms(device, width, random)?;
    let host: Vec<bf16> = features(m * width, random);
    let input = Buffer::zeroed(device, m * width)?;
    let mut residual = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Floats {
        expected: norm::normalize(&host, m, width, &parameters.reference())?,
        input_bytes: 3 * residual.size_bytes() + parameters.bytes(),
        operations: 5 * host.len(),
        exact: true,
        output: Buffer::uninit(device, m * width)?,
        launch: Box::new(move |stream, output| {
            Ok(parameters
                .norm
                .forward_residual(stream, &input, &mut residual, output)?)
        }),
    }))
}

fn rms_norm_quantize(
    device: &Device,
    m: usize,
    width: usize,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let parameters = Parameters::rms(device, width, random)?;
    let host: Vec<bf16> = features(m * width, random);
    let input = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Quantized {
        expected: fused::norm_quantize(&host, m, width, &parameters.reference())?,
        off: 1,
        input_bytes: input.size_bytes() + parameters.bytes(),
        operations: 9 * host.len(),
        output: QuantizedActivations::uninit(device, m, width)?,
        launch: Box::new(move |stream, output| {
            Ok(parameters.norm.forward_quantized(stream, &input, output)?)
        }),
    }))
}

/// With zeros to add, as [`residual_norm`].
fn residual_norm_quantize(
    device: &Device,
    m: usize,
    width: usize,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let parameters = Parameters::rms(device, width, random)?;
    let host: Vec<bf16> = features(m * width, random);
    let input = Buffer::zeroed(device, m * width)?;
    let mut residual = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Quantized {
        expected: fused::norm_quantize(&host, m, width, &parameters.reference())?,
        off: 1,
        input_bytes: 3 * residual.size_bytes() + parameters.bytes(),
        operations: 10 * host.len(),
        output: QuantizedActivations::uninit(device, m, width)?,
        launch: Box::new(move |stream, output| {
            Ok(parameters
                .norm
                .forward_residual_quantized(stream, &input, &mut residual, output)?)
        }),
    }))
}

fn gated_norm_quantize(
    device: &Device,
    m: usize,
    width: usize,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    const ACTIVATION: Activation = Activation::SquaredRelu;
    let parameters = Parameters::rms(device, width, random)?;
    let (gate, up): (Vec<bf16>, Vec<bf16>) =
        (features(m * width, random), features(m * width, random));
    let (on_device_gate, on_device_up) = (
        Buffer::from_slice(device, &gate)?,
        Buffer::from_slice(device, &up)?,
    );
    Ok(Box::new(Quantized {
        expected: fused::gated_norm_quantize(
            ACTIVATION,
            &gate,
            &up,
            m,
            width,
            &parameters.reference(),
        )?,
        off: 1,
        input_bytes: 2 * on_device_gate.size_bytes() + parameters.bytes(),
        operations: 11 * gate.len(),
        output: QuantizedActivations::uninit(device, m, width)?,
        launch: Box::new(move |stream, output| {
            let gate_up = GateUp::Separate {
                gate: &on_device_gate,
                up: &on_device_up,
            };
            Ok(parameters
                .norm
                .forward_gated_quantized(stream, ACTIVATION, gate_up, output)?)
        }),
    }))
}

fn activation(
    kind: Activation,
    device: &Device,
    m: usize,
    width: usize,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let host: Vec<bf16> = features(m * width, random);
    let input = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Floats {
        expected: activation::activate(kind, &host),
        input_bytes: input.size_bytes(),
        operations: 2 * host.len(),
        exact: kind == Activation::SquaredRelu,
        output: Buffer::uninit(device, m * width)?,
        launch: Box::new(move |stream, output| Ok(activate(stream, kind, &input, output)?)),
    }))
}

fn gated_activation(
    kind: Activation,
    device: &Device,
    m: usize,
    width: usize,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let (gate, up): (Vec<bf16>, Vec<bf16>) =
        (features(m * width, random), features(m * width, random));
    let (on_device_gate, on_device_up) = (
        Buffer::from_slice(device, &gate)?,
        Buffer::from_slice(device, &up)?,
    );
    Ok(Box::new(Floats {
        expected: activation::gated(kind, &gate, &up)?,
        input_bytes: 2 * on_device_gate.size_bytes(),
        operations: 3 * gate.len(),
        exact: kind == Activation::SquaredRelu,
        output: Buffer::uninit(device, m * width)?,
        launch: Box::new(move |stream, output| {
            let gate_up = GateUp::Separate {
                gate: &on_device_gate,
                up: &on_device_up,
            };
            Ok(gated(stream, kind, gate_up, width, output)?)
        }),
    }))
}

/// Features around 0, with a few large ones, as activations are.
fn features<T: Element>(len: usize, random: &mut fastrand::Rng) -> Vec<T> {
    let mut feature = || {
        let outlier = if random.u8(..) == 0 { 20.0 } else { 1.0 };
        T::from_f32(outlier * (random.f32() * 2.0 - 1.0))
    };
    (0..len).map(|_| feature()).collect()
}
