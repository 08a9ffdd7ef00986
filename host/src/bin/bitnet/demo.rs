//! `bitnet demo`: a layer of a published model, quantized and multiplied, checked against stored results.

use crate::output::{Outcome, Output, table};
use anyhow::{Context, Result};
use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::ops::{BitLinear, QuantizedActivations, quantize_activations};
use bitnet_cuda::reference::quantize::{self, ActivationGranularity};
use bitnet_cuda::tensor_file::TensorFile;
use serde::Serialize;

/// Two weight matrices of all-MiniLM-L6-v2's first layer, the layer's input for a sentence of 18 tokens, and what a BitLinear
/// layer makes of them; see tests/golden/real/README.md.
const DATA: &[u8] = include_bytes!("../../../../tests/golden/real/minilm_layer0.safetensors");

const LAYERS: [(&str, &str, &str); 2] = [
    (
        "query",
        "encoder.layer.0.attention.self.query.weight",
        "query.bitlinear",
    ),
    (
        "intermediate",
        "encoder.layer.0.intermediate.dense.weight",
        "intermediate.bitlinear",
    ),
];

/// An output is right within this much of the stored one: three roundings of at most 2^-24 each lie between the two.
const RELATIVE_TOLERANCE: f32 = 3.0 / (1 << 24) as f32;

#[derive(Serialize)]
struct Report {
    device: String,
    quantize: Quantize,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Quantize {
    m: usize,
    k: usize,
    /// Values, scales and sums that are not the reference's, bit for bit.
    mismatches: usize,
}

#[derive(Serialize)]
struct Layer {
    name: &'static str,
    n: usize,
    k: usize,
    m: usize,
    variant: String,
    mismatches: usize,
    max_abs_err: f32,
    weight_bytes_f32: usize,
    weight_bytes_packed: usize,
}

pub fn run(device: &Device, output: Output) -> Result<Outcome> {
    let file = TensorFile::from_bytes("minilm_layer0.safetensors", DATA.to_vec())?;
    let hidden = file.matrix("hidden")?;
    let (m, k) = (hidden.rows, hidden.cols);
    let stream = device.default_stream();
    let input = Buffer::from_slice(device, &hidden.data)?;
    let mut quantized = QuantizedActivations::uninit(device, m, k)?;
    quantize_activations(&stream, &input, &mut quantized)?;
    let mut report = Report {
        device: device.name().to_owned(),
        quantize: Quantize {
            m,
            k,
            mismatches: check_quantized(&quantized, &hidden.data)?,
        },
        layers: Vec::new(),
    };
    for (name, weight, expected) in LAYERS {
        let weight = file.matrix(weight)?;
        let expected = file.matrix(expected)?;
        let layer = BitLinear::from_weights(device, &weight.data, weight.rows, weight.cols)
            .with_context(|| format!("layer {name}"))?;
        let mut y = Buffer::<f32>::uninit(device, m * layer.n())?;
        layer.forward_quantized(&stream, &quantized, &mut y)?;
        let y = y.to_vec()?;
        report.layers.push(Layer {
            name,
            n: layer.n(),
            k: layer.k(),
            m,
            variant: layer.variant(m).name().to_owned(),
            mismatches: y
                .iter()
                .zip(&expected.data)
                .filter(|&(&y, &e)| !is_close(y, e))
                .count()
                + y.len().abs_diff(expected.data.len()),
            max_abs_err: y
                .iter()
                .zip(&expected.data)
                .map(|(y, e)| (y - e).abs())
                .fold(0.0, f32::max),
            weight_bytes_f32: size_of_val(&weight.data[..]),
            weight_bytes_packed: layer.weight_bytes(),
        });
    }
    output.print(&report, text)?;
    Ok(Outcome::of(
        report.quantize.mismatches
            + report
                .layers
                .iter()
                .map(|layer| layer.mismatches)
                .sum::<usize>(),
    ))
}

/// False for NaN too.
fn is_close(y: f32, expected: f32) -> bool {
    (y - expected).abs() <= RELATIVE_TOLERANCE * expected.abs()
}

fn check_quantized(quantized: &QuantizedActivations, input: &[f32]) -> Result<usize> {
    let (m, k) = (quantized.m(), quantized.k());
    let expected = quantize::quantize_activations(input, m, k, ActivationGranularity::Token)?;
    let values = quantized.values().to_vec()?;
    let rows = values
        .chunks(quantized.k_padded())
        .zip(expected.values.chunks(k));
    let wrong_values: usize = rows
        .map(|(row, expected)| row.iter().zip(expected).filter(|(q, e)| q != e).count())
        .sum();
    let scales = quantized.scale().to_vec()?;
    let wrong_scales = scales
        .iter()
        .zip(&expected.scales)
        .filter(|(s, e)| s.to_bits() != e.to_bits())
        .count();
    let sums = quantized.sum().to_vec()?;
    Ok(wrong_values
        + wrong_scales
        + sums
            .iter()
            .zip(&expected.sums)
            .filter(|(s, e)| s != e)
            .count())
}

fn text(report: &Report) -> String {
    let quantize = &report.quantize;
    let mut rows = vec![vec![
        "quantize".to_owned(),
        format!("{} x {}", quantize.m, quantize.k),
        report.device.clone(),
        quantize.mismatches.to_string(),
        "bit for bit".to_owned(),
        "-".to_owned(),
        "-".to_owned(),
    ]];
    rows.extend(report.layers.iter().map(|layer| {
        vec![
            format!("linear {}", layer.name),
            format!("{} x {} x {}", layer.m, layer.n, layer.k),
            report.device.clone(),
            layer.mismatches.to_string(),
            format!("{:.1e}", layer.max_abs_err),
            layer.weight_bytes_f32.to_string(),
            layer.weight_bytes_packed.to_string(),
        ]
    }));
    let head = [
        "op",
        "shape (m x n x k)",
        "device",
        "mismatches",
        "worst error",
        "f32 weight bytes",
        "packed",
    ];
    table(&head, &rows)
}
