//! Quantization of activations, and back.

use super::features;
use super::outputs::{Floats, Quantized};
use crate::operations::{Operation, Sizes};
use anyhow::Result;
use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::launch::Float;
use bitnet_cuda::ops::{
    ActivationGranularity, QuantizedActivations, dequantize_activations, quantize_activations,
};
use bitnet_cuda::reference::{Element, quantize};

pub fn activations<T: Float + Element>(
    granularity: ActivationGranularity,
    device: &Device,
    Sizes { m, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let host: Vec<T> = features(m * k, random);
    let input = Buffer::from_slice(device, &host)?;
    Ok(Box::new(Quantized {
        expected: quantize::quantize_activations(&host, m, k, granularity)?,
        off: 0,
        input_bytes: input.size_bytes(),
        operations: 5 * host.len(),
        exact: true,
        output: QuantizedActivations::uninit_with_granularity(device, m, k, granularity)?,
        launch: Box::new(move |stream, output| Ok(quantize_activations(stream, &input, output)?)),
    }))
}

pub fn dequantize(
    device: &Device,
    Sizes { m, k, .. }: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let values: Vec<i8> = (0..m * k).map(|_| random.i8(..)).collect();
    let scales: Vec<f32> = (0..m).map(|_| 10.0 + 90.0 * random.f32()).collect();
    let input = QuantizedActivations::from_values(device, &values, &scales, m, k)?;
    let expected = values
        .iter()
        .enumerate()
        .map(|(i, &q)| f64::from(q) / f64::from(scales[i / k]));
    Ok(Box::new(Floats {
        expected: expected.collect(),
        input_bytes: values.len() + m * size_of::<f32>(),
        operations: values.len(),
        exact: true,
        output: Buffer::uninit(device, m * k)?,
        launch: Box::new(move |stream, output| Ok(dequantize_activations(stream, &input, output)?)),
    }))
}
