//! Products with weights in Microsoft's layout.

use super::{Check, Operation, Product, ProductData, Sizes, addresses};
use anyhow::Result;
use bitnet_cuda::device::{Buffer, Device, Stream};
use bitnet_cuda::layout::Layout;
use bitnet_cuda::ops;
use half::bf16;
use std::ops::Range;
use std::rc::Rc;

pub fn gemv(
    device: &Device,
    sizes: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let data = ProductData::for_tokens(sizes, random)?;
    let layer = data.ladder_layer(device)?;
    let expected: Rc<Vec<bf16>> = Rc::new(data.expected(sizes.m)?);
    Ok(Box::new(Product::new(
        layer, None, sizes.m, &data, expected,
    )?))
}

/// What Microsoft's `bitlinear_int8xint2` computes.
struct Int8xInt2 {
    sizes: Sizes,
    weights: Buffer<u8>,
    activations: Buffer<i8>,
    activation_scale: Buffer<bf16>,
    row_scale: Buffer<bf16>,
    output: Buffer<bf16>,
    expected: Vec<bf16>,
}

pub fn int8xint2(
    device: &Device,
    sizes: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let Sizes { m, n, k } = sizes;
    let data = ProductData::for_tokens(sizes, random)?;
    let ladder = data.packed.convert(Layout::Ladder)?;
    // Exact: these scales are bf16 values.
    let token_scales: Vec<bf16> = data.token_scales[..m]
        .iter()
        .map(|&s| bf16::from_f32(s))
        .collect();
    Ok(Box::new(Int8xInt2 {
        sizes,
        weights: Buffer::from_slice(device, ladder.bytes())?,
        activations: Buffer::from_slice(device, &data.values[..m * k])?,
        activation_scale: Buffer::from_slice(device, &token_scales)?,
        row_scale: Buffer::from_slice(device, &[bf16::from_f32(data.weight_scale)])?,
        output: Buffer::uninit(device, m * n)?,
        expected: data.expected(m)?,
    }))
}

impl Operation for Int8xInt2 {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        let Sizes { m, n, k } = self.sizes;
        let operands = ops::Int8xInt2 {
            activations: &self.activations,
            weights: &self.weights,
            activation_scale: &self.activation_scale,
            row_scale: &self.row_scale,
            output: &mut self.output,
        };
        Ok(ops::bitlinear_int8xint2(stream, operands, m, n, k)?)
    }

    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self.output.to_vec()?).to_vec())
    }

    fn check(&self) -> Result<Check> {
        let same = |a: &bf16, b: &bf16| a.to_bits() == b.to_bits();
        Ok(Check::compare(&self.output.to_vec()?, &self.expected, same))
    }

    fn bytes(&self) -> usize {
        self.weights.size_bytes() + self.activations.size_bytes() + self.output.size_bytes()
    }

    fn operations(&self) -> usize {
        2 * self.sizes.m * self.sizes.n * self.sizes.k
    }

    fn weights(&self) -> Option<Range<u64>> {
        Some(addresses(&self.weights))
    }
}
