//! A chain of linear layers with the shapes of a transformer's, captured as one graph.
//!
//! A layer is: quantize the input of `h` features, multiply with `[3h, h]` (queries, keys and values; their output goes
//! nowhere, as attention is not measured here) and with `[h, h]`; quantize, multiply with `[4h, h]`; quantize, multiply with
//! `[h, 4h]`, whose output is the next layer's input. Each layer has its own copy of the weights in memory.

use super::peers::{Gemm, GemmEx, GemmPeer, Lt, Peer};
use super::plan::ModelShape;
use crate::operations::{Check, MAX_TOKENS, Operation, ProductData};
use anyhow::{Result, ensure};
use bitnet_cuda::device::{Buffer, Device, Stream};
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{BitLinear, QuantizedActivations, RowScales, quantize_activations};
use bitnet_cuda::reference::fused::bit_linear;
use bitnet_cuda::reference::linear;
use half::bf16;

/// Rows and columns of a layer's matrices, in hidden sizes.
const MATRICES: [(usize, usize); 4] = [(3, 1), (1, 1), (4, 1), (1, 4)];

/// A pass through the layers on one device.
pub trait Chain: Operation {
    fn weight_bytes(&self) -> usize;
}

/// The chain with weights of `bits` bits.
pub fn chain(stream: &Stream, shape: ModelShape, bits: u32, seed: u64) -> Result<Box<dyn Chain>> {
    match bits {
        2 => Ok(Box::new(Ternary::new(stream.device(), shape, seed)?)),
        8 => Ok(Box::new(Products::new::<Lt>(stream, shape, seed)?)),
        _ => Ok(Box::new(Products::new::<GemmEx>(stream, shape, seed)?)),
    }
}

/// One matrix on the host.
struct Matrix {
    n: usize,
    k: usize,
    ternary: Vec<i8>,
    scales: RowScales,
}

impl Matrix {
    fn random((n, k): (usize, usize), random: &mut fastrand::Rng) -> Result<Self> {
        let mut ternary = vec![0; n * k];
        ternary.fill_with(|| random.i8(-1..=1));
        // Two in three weights are not 0: this keeps the outputs' spread that of the inputs.
        let scale = (2.0 * k as f32 / 3.0).sqrt().recip();
        Ok(Self {
            n,
            k,
            ternary,
            scales: RowScales::per_tensor(n, scale)?,
        })
    }

    fn upload(&self, device: &Device) -> Result<BitLinear> {
        let packed = PackedWeights::pack(Layout::Tiled, &self.ternary, self.n, self.k)?;
        Ok(BitLinear::from_packed(device, &packed, &self.scales)?)
    }
}

/// This library's kernels.
struct Ternary {
    shape: ModelShape,
    host: Vec<Matrix>,
    input: Vec<bf16>,
    device_input: Buffer<bf16>,
    layers: Vec<Layer>,
}

/// A layer's matrices in the order of [`MATRICES`], with what each writes.
struct Layer {
    linear: [BitLinear; 4],
    outputs: [Buffer<bf16>; 4],
    /// The inputs of the first two, the third and the fourth.
    quantized: [QuantizedActivations; 3],
}

impl Ternary {
    fn new(device: &Device, shape: ModelShape, seed: u64) -> Result<Self> {
        let ModelShape {
            batch,
            hidden,
            layers,
        } = shape;
        let mut random = fastrand::Rng::with_seed(seed);
        let host = MATRICES.map(|(n, k)| Matrix::random((n * hidden, k * hidden), &mut random));
        let [a, b, c, d] = host;
        let host = vec![a?, b?, c?, d?];
        let input: Vec<bf16> = (0..batch * hidden)
            .map(|_| bf16::from_f32(random.f32() * 2.0 - 1.0))
            .collect();
        let layer = |_| {
            let linear = |index: usize| host[index].upload(device);
            let output = |index: usize| Buffer::uninit(device, batch * host[index].n);
            let quantized = |k: usize| QuantizedActivations::uninit(device, batch, k);
            Ok(Layer {
                linear: [linear(0)?, linear(1)?, linear(2)?, linear(3)?],
                outputs: [output(0)?, output(1)?, output(2)?, output(3)?],
                quantized: [
                    quantized(hidden)?,
                    quantized(hidden)?,
                    quantized(4 * hidden)?,
                ],
            })
        };
        let layers = (0..layers).map(layer).collect::<Result<_>>()?;
        Ok(Self {
            shape,
            device_input: Buffer::from_slice(device, &input)?,
            host,
            input,
            layers,
        })
    }

    /// What the chain makes of one token, by the reference.
    fn reference(&self, token: usize) -> Result<Vec<bf16>> {
        let hidden = self.shape.hidden;
        let mut x = self.input[token * hidden..(token + 1) * hidden].to_vec();
        for _ in &self.layers {
            for matrix in &self.host[1..] {
                let shape = linear::Shape {
                    m: 1,
                    n: matrix.n,
                    k: matrix.k,
                };
                x = bit_linear(&x, &matrix.ternary, shape, &matrix.scales, None, None)?;
            }
        }
        Ok(x)
    }

    fn output(&self) -> Result<Vec<bf16>> {
        match self.layers.last() {
            Some(layer) => Ok(layer.outputs[3].to_vec()?),
            None => Ok(self.input.clone()),
        }
    }
}

impl Chain for Ternary {
    fn weight_bytes(&self) -> usize {
        self.layers
            .iter()
            .flat_map(|layer| &layer.linear)
            .map(BitLinear::weight_bytes)
            .sum()
    }
}

impl Operation for Ternary {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        let mut x = &self.device_input;
        for Layer {
            linear,
            outputs,
            quantized,
        } in &mut self.layers
        {
            let [q0, q1, q2] = quantized;
            let [qkv, out, up, down] = outputs;
            quantize_activations(stream, x, q0)?;
            linear[0].forward_quantized(stream, q0, qkv)?;
            linear[1].forward_quantized(stream, q0, out)?;
            quantize_activations(stream, out, q1)?;
            linear[2].forward_quantized(stream, q1, up)?;
            quantize_activations(stream, up, q2)?;
            linear[3].forward_quantized(stream, q2, down)?;
            x = down;
        }
        Ok(())
    }

    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self.output()?).to_vec())
    }

    /// Compares the first and the last token.
    fn check(&self) -> Result<Check> {
        let ModelShape { batch, hidden, .. } = self.shape;
        let output = self.output()?;
        let mut check = Check::default();
        let mut tokens = vec![0, batch - 1];
        tokens.dedup();
        for token in tokens {
            let same = |a: &bf16, b: &bf16| a.to_bits() == b.to_bits();
            let found = &output[token * hidden..(token + 1) * hidden];
            check = check.and(Check::compare(found, &self.reference(token)?, same));
        }
        Ok(check)
    }

    fn bytes(&self) -> usize {
        self.weight_bytes()
    }

    fn operations(&self) -> usize {
        let weights: usize = self.host.iter().map(|matrix| matrix.n * matrix.k).sum();
        2 * self.shape.batch * self.layers.len() * weights
    }
}

/// cuBLAS's products of the same shapes, one after the other, each on an input of its own: no quantization between them.
struct Products {
    products: Vec<Box<dyn Operation>>,
    weight_bytes: usize,
}

impl Products {
    fn new<G: Gemm>(stream: &Stream, shape: ModelShape, seed: u64) -> Result<Self> {
        let ModelShape {
            batch,
            hidden,
            layers,
        } = shape;
        ensure!(
            batch <= MAX_TOKENS,
            "--batch-size {batch} with --quantization-bits 8 or 16: at most {MAX_TOKENS} are measured with these"
        );
        let device = stream.device();
        let peer = GemmPeer::<G>::open(stream)?;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut by_matrix = Vec::new();
        for (n, k) in MATRICES {
            let data = ProductData::random(n * hidden, k * hidden, &mut random)?;
            by_matrix.push(
                peer.weights(device, &data, layers)?
                    .products(&data, batch)?
                    .into_iter(),
            );
        }
        let mut products = Vec::new();
        for _ in 0..layers {
            products.extend(by_matrix.iter_mut().filter_map(Iterator::next));
        }
        let of_layer = |&(n, k): &(usize, usize)| peer.weight_bytes(n * hidden, k * hidden);
        Ok(Self {
            products,
            weight_bytes: layers * MATRICES.iter().map(of_layer).sum::<usize>(),
        })
    }
}

impl Chain for Products {
    fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }
}

impl Operation for Products {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        self.products
            .iter_mut()
            .try_for_each(|product| product.launch(stream))
    }
    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(self
            .products
            .iter()
            .map(|product| product.outputs())
            .collect::<Result<Vec<_>>>()?
            .concat())
    }
    fn check(&self) -> Result<Check> {
        let mut checks = self.products.iter().map(|product| product.check());
        checks.try_fold(Check::default(), |sum, check| Ok(sum.and(check?)))
    }
    fn bytes(&self) -> usize {
        self.products.iter().map(|product| product.bytes()).sum()
    }
    fn operations(&self) -> usize {
        self.products
            .iter()
            .map(|product| product.operations())
            .sum()
    }
}
