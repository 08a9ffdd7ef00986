//! Operations on weights, `[n, k]`: quantization, packing, conversion between layouts, and back.

use super::{Check, Named, Operation, Sizes, addresses};
use anyhow::{Context, Result};
use bitnet_cuda::device::{Buffer, Device, Stream};
use bitnet_cuda::launch::Float;
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{
    QuantizedWeights, TernaryWeights, WeightGranularity, WeightQuantizer, quantize_weights,
};
use bitnet_cuda::reference::{Element, quantize};
use half::{bf16, f16};
use std::ops::Range;

/// All of them. Float weights are bf16 where the name says nothing.
pub const WEIGHT_OPERATIONS: &[Named] = &[
    Named("quantize weights", |d, s, r| {
        quantized::<bf16>(WeightQuantizer::Ternary, WeightGranularity::Tensor, d, s, r)
    }),
    Named("quantize weights per channel", |d, s, r| {
        quantized::<bf16>(
            WeightQuantizer::Ternary,
            WeightGranularity::Channel,
            d,
            s,
            r,
        )
    }),
    Named("quantize weights f16", |d, s, r| {
        quantized::<f16>(WeightQuantizer::Ternary, WeightGranularity::Tensor, d, s, r)
    }),
    Named("quantize weights f32", |d, s, r| {
        quantized::<f32>(WeightQuantizer::Ternary, WeightGranularity::Tensor, d, s, r)
    }),
    Named("quantize weights to binary", |d, s, r| {
        quantized::<bf16>(WeightQuantizer::Binary, WeightGranularity::Tensor, d, s, r)
    }),
    Named("quantize weights to binary per channel", |d, s, r| {
        quantized::<bf16>(WeightQuantizer::Binary, WeightGranularity::Channel, d, s, r)
    }),
    Named("dequantize weights", dequantized),
    Named("pack tiled", |d, s, r| packed(Layout::Tiled, d, s, r)),
    Named("pack ladder", |d, s, r| packed(Layout::Ladder, d, s, r)),
    Named("pack row-major", |d, s, r| {
        packed(Layout::RowMajor, d, s, r)
    }),
    Named("unpack tiled", |d, s, r| unpacked(Layout::Tiled, d, s, r)),
    Named("unpack ladder", |d, s, r| unpacked(Layout::Ladder, d, s, r)),
    Named("unpack row-major", |d, s, r| {
        unpacked(Layout::RowMajor, d, s, r)
    }),
    Named("convert ladder to tiled", |d, s, r| {
        converted(Layout::Ladder, Layout::Tiled, d, s, r)
    }),
    Named("convert row-major to tiled", |d, s, r| {
        converted(Layout::RowMajor, Layout::Tiled, d, s, r)
    }),
    Named("convert tiled to ladder", |d, s, r| {
        converted(Layout::Tiled, Layout::Ladder, d, s, r)
    }),
];

type Launch<O> = Box<dyn FnMut(&Stream) -> Result<O>>;

/// An operation whose output has to be the reference's, bit for bit.
struct Exact<O> {
    launch: Launch<O>,
    /// What the last launch wrote.
    output: Option<O>,
    bytes_of: fn(&O) -> Result<Vec<u8>>,
    expected: Vec<u8>,
    input_bytes: usize,
    operations: usize,
    weights: Option<Range<u64>>,
}

impl<O> Operation for Exact<O> {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        self.output = Some((self.launch)(stream)?);
        Ok(())
    }

    fn outputs(&self) -> Result<Vec<u8>> {
        let output = self.output.as_ref();
        (self.bytes_of)(output.context("the operation was not launched")?)
    }

    fn check(&self) -> Result<Check> {
        Ok(Check::compare(&self.outputs()?, &self.expected, u8::eq))
    }

    fn bytes(&self) -> usize {
        self.input_bytes + self.expected.len()
    }

    fn operations(&self) -> usize {
        self.operations
    }

    fn weights(&self) -> Option<Range<u64>> {
        self.weights.clone()
    }
}

fn quantized<T: Float + Element>(
    quantizer: WeightQuantizer,
    granularity: WeightGranularity,
    device: &Device,
    Sizes { n, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let host: Vec<T> = floats(n * k, random);
    let expected = match quantizer {
        WeightQuantizer::Ternary => quantize::quantize_weights_ternary(&host, n, k, granularity)?,
        WeightQuantizer::Binary => quantize::quantize_weights_binary(&host, n, k, granularity)?,
    };
    let mut bytes = PackedWeights::pack(Layout::Tiled, &expected.values, n, k)?
        .bytes()
        .to_vec();
    bytes.extend_from_slice(bytemuck::cast_slice(&expected.scales.expand()));
    let input = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Exact::<QuantizedWeights> {
        input_bytes: 2 * input.size_bytes(),
        operations: 4 * host.len(),
        launch: Box::new(move |stream| {
            Ok(quantize_weights(
                stream,
                &input,
                n,
                k,
                quantizer,
                granularity,
            )?)
        }),
        output: None,
        bytes_of: |output| {
            let mut bytes = output.weights().bytes().to_vec()?;
            bytes.extend_from_slice(bytemuck::cast_slice(&output.device_row_scales().to_vec()?));
            Ok(bytes)
        },
        expected: bytes,
        weights: None,
    }))
}

fn dequantized(
    device: &Device,
    Sizes { n, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let host: Vec<bf16> = floats(n * k, random);
    let granularity = WeightGranularity::Channel;
    let reference = quantize::quantize_weights_ternary(&host, n, k, granularity)?;
    let expected: Vec<bf16> = quantize::dequantize_weights(&reference)?
        .into_iter()
        .map(bf16::from_f32)
        .collect();
    let (stream, input) = (device.default_stream(), Buffer::from_slice(device, &host)?);
    let ternary = WeightQuantizer::Ternary;
    let quantized = quantize_weights(&stream, &input, n, k, ternary, granularity)?;
    let weights = addresses(quantized.weights().bytes());
    Ok(Box::new(Exact::<Buffer<bf16>> {
        input_bytes: quantized.weights().bytes().size_bytes() + n * size_of::<f32>(),
        operations: host.len(),
        launch: Box::new(move |stream| {
            let mut output = Buffer::uninit(stream.device(), n * k)?;
            quantized.dequantize(stream, &mut output)?;
            Ok(output)
        }),
        output: None,
        bytes_of: |output| Ok(bytemuck::cast_slice(&output.to_vec()?).to_vec()),
        expected: bytemuck::cast_slice(&expected).to_vec(),
        weights: Some(weights),
    }))
}

fn packed(
    layout: Layout,
    device: &Device,
    Sizes { n, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let host = ternary(n * k, random);
    let input = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Exact::<TernaryWeights> {
        input_bytes: input.size_bytes(),
        operations: host.len(),
        launch: Box::new(move |stream| Ok(TernaryWeights::pack(stream, layout, &input, n, k)?)),
        output: None,
        bytes_of: |output| Ok(output.bytes().to_vec()?),
        expected: PackedWeights::pack(layout, &host, n, k)?.bytes().to_vec(),
        weights: None,
    }))
}

fn unpacked(
    layout: Layout,
    device: &Device,
    Sizes { n, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let (host, input) = on_device(layout, device, n, k, random)?;
    let weights = addresses(input.bytes());
    Ok(Box::new(Exact::<Buffer<i8>> {
        input_bytes: input.bytes().size_bytes(),
        operations: host.len(),
        launch: Box::new(move |stream| {
            let mut output = Buffer::uninit(stream.device(), n * k)?;
            input.unpack(stream, &mut output)?;
            Ok(output)
        }),
        output: None,
        bytes_of: |output| Ok(bytemuck::cast_slice(&output.to_vec()?).to_vec()),
        expected: bytemuck::cast_slice(&host).to_vec(),
        weights: Some(weights),
    }))
}

fn converted(
    from: Layout,
    to: Layout,
    device: &Device,
    Sizes { n, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let (host, input) = on_device(from, device, n, k, random)?;
    let weights = addresses(input.bytes());
    Ok(Box::new(Exact::<TernaryWeights> {
        input_bytes: input.bytes().size_bytes(),
        operations: host.len(),
        launch: Box::new(move |stream| Ok(input.convert(stream, to)?)),
        output: None,
        bytes_of: |output| Ok(output.bytes().to_vec()?),
        expected: PackedWeights::pack(to, &host, n, k)?.bytes().to_vec(),
        weights: Some(weights),
    }))
}

/// Random ternary values, and their packed form on the device.
fn on_device(
    layout: Layout,
    device: &Device,
    n: usize,
    k: usize,
    random: &mut fastrand::Rng,
) -> Result<(Vec<i8>, TernaryWeights)> {
    let host = ternary(n * k, random);
    let packed = PackedWeights::pack(layout, &host, n, k)?;
    Ok((host, TernaryWeights::from_packed(device, &packed)?))
}

fn floats<T: Element>(len: usize, random: &mut fastrand::Rng) -> Vec<T> {
    (0..len).map(|_| T::from_f32(random.f32() - 0.5)).collect()
}

fn ternary(len: usize, random: &mut fastrand::Rng) -> Vec<i8> {
    (0..len).map(|_| random.i8(-1..=1)).collect()
}
