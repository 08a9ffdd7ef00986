//! What launches state that their kernels touch: what is checked against buffers' lengths, and what profiles call their bytes.

use super::*;
use crate::device::{Device, LaunchReport};
use crate::layout::{Layout, PackedWeights};
use crate::ops::{
    self, Activation, BitLinear, Norm, OpError, QuantizedActivations, TernaryWeights,
    WeightQuantizer,
};
use crate::reference::RowScales;
use crate::reference::quantize::{ActivationGranularity, WeightGranularity};
use half::bf16;

// Neither is a multiple of anything that something is padded to.
const M: usize = 3;
const N: usize = 5;
const K: usize = 100;
/// K as activations and weights are padded.
const K_PADDED: usize = 128;
/// Bytes of the packed weights, of which there are 16 rows.
const PACKED: usize = 16 * K_PADDED / 4;
/// Bytes of f32 parameters of a norm, which are padded to 256 elements.
const PARAMETERS: usize = 4 * 256;
/// Bytes of M quantized tokens, with a scale and a sum each.
const QUANTIZED: usize = M * K_PADDED + 8 * M;

/// Bytes of each launch of an operation, in order.
fn stated<R>(device: &Device, operation: impl FnOnce() -> Result<R, OpError>) -> Vec<usize> {
    let (result, submitted, reports) = device.observe(operation);
    result.map(drop).unwrap();
    // One that is cooperative has to fit the device as a whole, and does not start early.
    assert!(reports.iter().all(|report| !report.config.cooperative));
    let threads = |report: &LaunchReport| report.config.block.iter().product::<u32>();
    assert!(reports.iter().all(|report| threads(report) % 32 == 0));
    let is_launch = |name: &str| reports.iter().any(|report| report.kernel == name);
    submitted
        .iter()
        .filter(|submitted| is_launch(&submitted.name))
        .map(|submitted| submitted.bytes)
        .collect()
}

fn ones(device: &Device, len: usize) -> Buffer<f32> {
    Buffer::from_slice(device, &vec![1.0; len]).unwrap()
}

#[test]
fn of_activations() {
    let device = Device::emulated().unwrap();
    let stream = device.default_stream();
    let (x, mut residual) = (ones(&device, M * K), ones(&device, M * K));
    let (both, mut y) = (ones(&device, 2 * M * K), ones(&device, M * K));
    let tokens = 4 * M * K;
    let quantized = |granularity| {
        QuantizedActivations::uninit_with_granularity(&device, M, K, granularity).unwrap()
    };

    let mut q = quantized(ActivationGranularity::Tensor);
    assert_eq!(
        stated(&device, || ops::quantize_activations(&stream, &x, &mut q)),
        [tokens + 4 * M, tokens + 4 * M + QUANTIZED],
        "a partial result for each token"
    );
    let mut q = quantized(ActivationGranularity::Token);
    assert_eq!(
        stated(&device, || ops::quantize_activations(&stream, &x, &mut q)),
        [tokens + QUANTIZED]
    );
    assert_eq!(
        stated(&device, || ops::dequantize_activations(&stream, &q, &mut y)),
        [M * K_PADDED + 4 * M + tokens]
    );

    let gamma = [1.0; K];
    let norm = Norm::layer(&device, K, Some(&gamma), Some(&gamma), 1e-5).unwrap();
    assert_eq!(
        stated(&device, || norm.normalize(&stream, &x, &mut y)),
        [2 * tokens + 2 * PARAMETERS]
    );
    let norm = Norm::rms(&device, K, Some(&gamma), 1e-5).unwrap();
    assert_eq!(
        stated(&device, || norm.add_normalize(
            &stream,
            &x,
            &mut residual,
            &mut y
        )),
        [3 * tokens + PARAMETERS]
    );
    let norm = Norm::rms(&device, K, None, 1e-5).unwrap();
    assert_eq!(
        stated(&device, || norm.normalize_quantize(&stream, &x, &mut q)),
        [tokens + QUANTIZED]
    );
    assert_eq!(
        stated(&device, || norm.add_normalize_quantize(
            &stream,
            &x,
            &mut residual,
            &mut q
        )),
        [2 * tokens + QUANTIZED]
    );

    let silu = Activation::Silu;
    assert_eq!(
        stated(&device, || ops::activate(&stream, silu, &x, &mut y)),
        [2 * tokens]
    );
    let (gate, up) = (&x, &residual);
    for gate_up in [
        GateUp::Separate { gate, up },
        GateUp::Concatenated(&both),
        GateUp::Interleaved(&both),
    ] {
        assert_eq!(
            stated(&device, || ops::gated(&stream, silu, gate_up, K, &mut y)),
            [3 * tokens],
            "{gate_up:?}"
        );
        assert_eq!(
            stated(&device, || norm
                .gated_normalize_quantize(&stream, silu, gate_up, &mut q)),
            [2 * tokens + QUANTIZED],
            "{gate_up:?}"
        );
    }
}

#[test]
fn of_weights() {
    let device = Device::emulated().unwrap();
    let stream = device.default_stream();
    let w = ones(&device, N * K);
    let weights = 4 * N * K;
    // Sums are f64, scales and thresholds f32.
    let per_tensor = WeightGranularity::Tensor;
    let quantize = |quantizer| ops::quantize_weights(&stream, &w, N, K, quantizer, per_tensor);
    assert_eq!(
        stated(&device, || quantize(WeightQuantizer::Ternary)),
        [weights + 8 * N, 12 * N, weights + 4 * N + PACKED]
    );
    assert_eq!(
        stated(&device, || quantize(WeightQuantizer::Binary)),
        [weights + 16 * N, 24 * N, weights + 8 * N + PACKED]
    );
    let quantized = quantize(WeightQuantizer::Ternary).unwrap();
    let mut floats = ones(&device, N * K);
    assert_eq!(
        stated(&device, || quantized.dequantize(&stream, &mut floats)),
        [PACKED + 4 * N + weights]
    );

    let mut values = Buffer::from_slice(&device, &[1_i8; N * K]).unwrap();
    assert_eq!(
        stated(&device, || TernaryWeights::pack(
            &stream,
            Layout::Tiled,
            &values,
            N,
            K
        )),
        [N * K + PACKED + 4],
        "and whether a value is not ternary"
    );
    let packed = quantized.weights();
    assert_eq!(
        stated(&device, || packed.unpack(&stream, &mut values)),
        [PACKED + N * K]
    );
    assert_eq!(
        stated(&device, || packed.convert(&stream, Layout::RowMajor)),
        [PACKED + N * K / 4]
    );
}

#[test]
fn of_products() {
    let device = Device::emulated().unwrap();
    let stream = device.default_stream();
    let packed = PackedWeights::pack(Layout::Tiled, &[1; N * K], N, K).unwrap();
    let scales = RowScales::per_tensor(N, 1.0).unwrap();
    let layer = BitLinear::from_packed(&device, &packed, &scales)
        .and_then(|layer| layer.with_bias(&[1.0; N]))
        .unwrap();
    // One without a workspace.
    let variant = Gemv::all(Layout::Tiled).find(|variant| variant.fits(M, K_PADDED));
    let layer = layer.with_variant(variant.unwrap()).unwrap();
    assert_eq!(variant.unwrap().shape().splits, 1);
    let q = QuantizedActivations::from_values(&device, &[1; M * K], &[1.0; M], M, K).unwrap();
    let (residual, mut y) = (ones(&device, M * N), ones(&device, M * N));
    assert_eq!(
        stated(&device, || layer.forward_residual(
            &stream,
            &q,
            Some(&residual),
            &mut y
        )),
        [PACKED + 8 * N + QUANTIZED + 8 * M * N]
    );

    let norm = Norm::rms(&device, K, None, 1e-5).unwrap();
    let (x, residual, mut y) = (ones(&device, K), ones(&device, N), ones(&device, N));
    assert_eq!(
        stated(&device, || layer.forward_norm(
            &stream,
            &norm,
            &x,
            Some(&residual),
            &mut y
        )),
        [4 * K + PACKED + 8 * N + 8 * N]
    );

    let packed = PackedWeights::pack(Layout::Ladder, &[1; N * K], N, K).unwrap();
    let weights = Buffer::from_slice(&device, packed.bytes()).unwrap();
    let activations = Buffer::from_slice(&device, &[1_i8; M * K]).unwrap();
    let of_bf16 = |len| Buffer::from_slice(&device, &vec![bf16::ONE; len]).unwrap();
    let operands = Int8xInt2 {
        activations: &activations,
        weights: &weights,
        activation_scale: &of_bf16(M),
        row_scale: &of_bf16(1),
        output: &mut of_bf16(M * N),
    };
    assert_eq!(
        stated(&device, || ops::bitlinear_int8xint2(
            &stream, operands, M, N, K
        )),
        [M * K_PADDED + PACKED + 2 * M + 2 + 2 * M * N]
    );
}
