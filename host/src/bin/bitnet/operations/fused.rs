//! What a layer of a model runs: a norm, the quantization of its outputs, and a product; in one kernel and in two.

use super::{Check, Operation, ProductData, addresses};
use anyhow::Result;
use bitnet_cuda::device::{Buffer, Stream};
use bitnet_cuda::ops::{BitLinear, Norm, QuantizedActivations, RowScales};
use bitnet_cuda::reference::linear::{Epilogue, Shape, accumulate, epilogue};
use bitnet_cuda::reference::{fused, norm};
use half::bf16;
use std::ops::Range;
use std::rc::Rc;

const EPS: f32 = 1e-5;

/// How a norm, the quantization of its outputs and a product are launched.
#[derive(Clone, Copy)]
pub enum Kernels {
    /// As [`BitLinear::forward_norm`] does it: for one token, in one kernel.
    Fused,
    /// The quantized norm in memory between two kernels.
    Separate,
}

/// `rmsnorm(x)`, quantized, times the weights.
pub struct Fused {
    kernels: Kernels,
    data: Rc<ProductData>,
    norm: Norm,
    host_input: Vec<bf16>,
    input: Buffer<bf16>,
    quantized: QuantizedActivations,
    layer: BitLinear,
    output: Buffer<bf16>,
}

impl Fused {
    pub fn new(
        kernels: Kernels,
        layer: BitLinear,
        m: usize,
        data: &Rc<ProductData>,
    ) -> Result<Self> {
        let device = layer.device().clone();
        let host_input: Vec<bf16> = data.values[..m * data.k]
            .iter()
            .map(|&q| bf16::from_f32(f32::from(q) / 64.0))
            .collect();
        let norm = Norm::rms(&device, data.k, None, EPS)?;
        let input = Buffer::from_slice(&device, &host_input)?;
        // What one kernel keeps to itself, for the check.
        let mut quantized = QuantizedActivations::uninit(&device, m, data.k)?;
        norm.normalize_quantize(&device.default_stream(), &input, &mut quantized)?;
        Ok(Self {
            data: Rc::clone(data),
            kernels,
            norm,
            input,
            host_input,
            quantized,
            output: Buffer::uninit(&device, m * data.n)?,
            layer,
        })
    }

    pub fn into_layer(self) -> BitLinear {
        self.layer
    }
}

impl Operation for Fused {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        let Self {
            norm,
            layer,
            input,
            quantized,
            output,
            ..
        } = self;
        if let Kernels::Fused = self.kernels {
            return Ok(layer.forward_norm(stream, norm, input, None, output)?);
        }
        norm.normalize_quantize(stream, input, quantized)?;
        Ok(layer.forward_quantized(stream, quantized, output)?)
    }

    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self.output.to_vec()?).to_vec())
    }

    /// The quantized norm within 1 of the reference's, whose sums are in f64; the product of what was found there, exactly.
    fn check(&self) -> Result<Check> {
        let (m, n, k) = (self.quantized.m(), self.data.n, self.data.k);
        let gamma = vec![1.0; k];
        let rms = norm::Norm::Rms {
            gamma: &gamma,
            eps: EPS.into(),
        };
        let expected = fused::norm_quantize(&self.host_input, m, k, &rms)?;
        let padded = self.quantized.values().to_vec()?;
        let rows = padded.chunks(self.quantized.k_padded()).take(m);
        let found: Vec<i8> = rows.flat_map(|row| row[..k].iter().copied()).collect();
        let near = |a: &i8, b: &i8| a.abs_diff(*b) <= 1;
        let check = Check::compare(&found, &expected.values, near);

        let scales = RowScales::per_tensor(n, self.data.weight_scale)?;
        let terms = Epilogue {
            activation_scales: &self.quantized.scales().to_vec()?,
            row_scales: &scales,
            bias: None,
            residual: None,
        };
        let sums = accumulate(&found, &self.data.packed.unpack(), Shape { m, n, k })?;
        let product: Vec<bf16> = epilogue(&sums, m, n, &terms)?;
        let same = |a: &bf16, b: &bf16| a.to_bits() == b.to_bits();
        Ok(check.and(Check::compare(&self.output.to_vec()?, &product, same)))
    }

    fn bytes(&self) -> usize {
        // What lies between two kernels is written and read.
        let between = match self.kernels {
            Kernels::Fused => 0,
            Kernels::Separate => self.quantized.m() * (self.quantized.k_padded() + 8),
        };
        let outer = self.input.size_bytes() + self.output.size_bytes();
        self.layer.weight_bytes() + self.data.n * size_of::<f32>() + 2 * between + outer
    }

    fn operations(&self) -> usize {
        2 * self.quantized.m() * self.data.n * self.data.k
    }

    fn weights(&self) -> Option<Range<u64>> {
        Some(addresses(self.layer.packed_weights()))
    }
}
