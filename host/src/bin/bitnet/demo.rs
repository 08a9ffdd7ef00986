//! `bitnet demo`: the input of a published model's layer, normalized, quantized, multiplied and activated; each step checked.

use crate::operations::Check;
use crate::output::{Outcome, Output, table};
use anyhow::{Context, Result};
use bitnet_cuda::device::{Buffer, Device, Stream};
use bitnet_cuda::ops::{
    Activation, BitLinear, Norm, QuantizedActivations, activate, quantize_activations,
};
use bitnet_cuda::reference::quantize::{self, ActivationGranularity};
use bitnet_cuda::reference::{activation, norm};
use bitnet_cuda::tensor_file::{Matrix, TensorFile};
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

/// Half an ulp of f32, relative: docs/numerics.md counts roundings in it.
const U: f64 = 1.0 / (1 << 24) as f64;

/// Outputs of a layer: three roundings lie between them and the stored ones.
const LAYER_TOLERANCE: f64 = 3.0 * U;

/// Outputs of the norm: what docs/numerics.md derives for RMSNorm over 384 features, 12.5 u, and the rounding of the result.
const NORM_TOLERANCE: f64 = 14.0 * U;

/// Squared ReLU is one product.
const ACTIVATION_TOLERANCE: f64 = U;

const EPS: f32 = 1e-5;

#[derive(Serialize)]
struct Report {
    device: String,
    /// RMSNorm of the layer's input.
    norm: Rows,
    /// The layer's input, quantized token by token.
    quantize: Rows,
    layers: Vec<Layer>,
    /// Squared ReLU of the last layer's output.
    activation: Rows,
}

/// An operation on each token by itself.
#[derive(Serialize)]
struct Rows {
    m: usize,
    k: usize,
    mismatches: usize,
    /// `None` where bits are compared.
    max_abs_err: Option<f64>,
}

#[derive(Serialize)]
struct Layer {
    name: &'static str,
    n: usize,
    k: usize,
    m: usize,
    variant: String,
    mismatches: usize,
    max_abs_err: f64,
    weight_bytes_f32: usize,
    weight_bytes_packed: usize,
}

pub fn run(device: &Device, output: Output) -> Result<Outcome> {
    let file = TensorFile::from_bytes("minilm_layer0.safetensors", DATA.to_vec())?;
    let hidden = file.matrix("hidden")?;
    let (m, k) = (hidden.rows, hidden.cols);
    let stream = device.default_stream();
    let input = Buffer::from_slice(device, &hidden.data)?;
    let norm = normalize(&stream, &input, &hidden)?;
    let mut quantized = QuantizedActivations::uninit(device, m, k)?;
    quantize_activations(&stream, &input, &mut quantized)?;
    let mut layers = Vec::new();
    let mut last = (Vec::new(), 0);
    for (name, weight, expected) in LAYERS {
        let weight = file.matrix(weight)?;
        let expected = file.matrix(expected)?;
        let layer = BitLinear::from_weights(device, &weight.data, weight.rows, weight.cols)
            .with_context(|| format!("layer {name}"))?;
        let mut y = Buffer::<f32>::uninit(device, m * layer.n())?;
        layer.forward_quantized(&stream, &quantized, &mut y)?;
        let y = y.to_vec()?;
        let expected: Vec<f64> = expected.data.iter().copied().map(f64::from).collect();
        let (mismatches, max_abs_err) = compare(&y, &expected, LAYER_TOLERANCE);
        layers.push(Layer {
            name,
            n: layer.n(),
            k: layer.k(),
            m,
            variant: layer.variant(m).name().to_owned(),
            mismatches,
            max_abs_err,
            weight_bytes_f32: size_of_val(&weight.data[..]),
            weight_bytes_packed: layer.weight_bytes(),
        });
        last = (y, layer.n());
    }
    let (y, width) = last;
    let report = Report {
        device: device.name().to_owned(),
        norm,
        quantize: Rows {
            m,
            k,
            mismatches: check_quantized(&quantized, &hidden.data)?,
            max_abs_err: None,
        },
        layers,
        activation: square_relu(&stream, &y, width)?,
    };
    output.print(&report, text)?;
    let rows = [&report.norm, &report.quantize, &report.activation];
    let layers = report.layers.iter().map(|layer| layer.mismatches);
    Ok(Outcome::of(
        rows.iter().map(|rows| rows.mismatches).sum::<usize>() + layers.sum::<usize>(),
    ))
}

/// RMSNorm without weights, against the same in f64.
fn normalize(stream: &Stream, input: &Buffer<f32>, hidden: &Matrix) -> Result<Rows> {
    let (m, k) = (hidden.rows, hidden.cols);
    let mut normalized = Buffer::<f32>::uninit(input.device(), m * k)?;
    Norm::rms(input.device(), k, None, EPS)?.normalize(stream, input, &mut normalized)?;
    let reference = norm::Norm::Rms {
        gamma: &vec![1.0; k],
        eps: EPS.into(),
    };
    let expected = norm::normalize(&hidden.data, m, k, &reference)?;
    let (mismatches, max_abs_err) = compare(&normalized.to_vec()?, &expected, NORM_TOLERANCE);
    Ok(Rows {
        m,
        k,
        mismatches,
        max_abs_err: Some(max_abs_err),
    })
}

/// Squared ReLU of a layer's output, against the same in f64.
fn square_relu(stream: &Stream, y: &[f32], width: usize) -> Result<Rows> {
    let input = Buffer::from_slice(stream.device(), y)?;
    let mut activated = Buffer::<f32>::uninit(stream.device(), y.len())?;
    activate(stream, Activation::SquaredRelu, &input, &mut activated)?;
    let expected = activation::activate(Activation::SquaredRelu, y);
    let (mismatches, max_abs_err) = compare(&activated.to_vec()?, &expected, ACTIVATION_TOLERANCE);
    Ok(Rows {
        m: y.len() / width,
        k: width,
        mismatches,
        max_abs_err: Some(max_abs_err),
    })
}

/// How many elements are further from what is expected than the relative tolerance, and the largest distance.
fn compare(found: &[f32], expected: &[f64], tolerance: f64) -> (usize, f64) {
    let found: Vec<f64> = found.iter().copied().map(f64::from).collect();
    let pairs = found.iter().zip(expected);
    let worst = pairs.map(|(y, e)| (y - e).abs()).fold(0.0, f64::max);
    // NaN is not within anything, so it is wrong.
    let within = |y: &f64, e: &f64| (y - e).abs() <= tolerance * e.abs();
    (Check::compare(&found, expected, within).mismatches, worst)
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
    let scales = quantized.scales().to_vec()?;
    let wrong_scales = scales
        .iter()
        .zip(&expected.scales)
        .filter(|(s, e)| s.to_bits() != e.to_bits())
        .count();
    let sums = quantized.sums().to_vec()?;
    Ok(wrong_values
        + wrong_scales
        + sums
            .iter()
            .zip(&expected.sums)
            .filter(|(s, e)| s != e)
            .count())
}

fn text(report: &Report) -> String {
    let row =
        |op: String, shape: String, mismatches: usize, worst: Option<f64>, bytes: [String; 2]| {
            let worst = match worst {
                None => "bit for bit".to_owned(),
                Some(worst) => format!("{worst:.1e}"),
            };
            let [f32_bytes, packed] = bytes;
            let device = report.device.clone();
            vec![
                op,
                shape,
                device,
                mismatches.to_string(),
                worst,
                f32_bytes,
                packed,
            ]
        };
    let rows = |op: &str, rows: &Rows| {
        let shape = format!("{} x {}", rows.m, rows.k);
        let none = ["-", "-"].map(str::to_owned);
        row(
            op.to_owned(),
            shape,
            rows.mismatches,
            rows.max_abs_err,
            none,
        )
    };
    let mut table_rows = vec![
        rows("rms_norm", &report.norm),
        rows("quantize", &report.quantize),
    ];
    table_rows.extend(report.layers.iter().map(|layer| {
        row(
            format!("linear {}", layer.name),
            format!("{} x {} x {}", layer.m, layer.n, layer.k),
            layer.mismatches,
            Some(layer.max_abs_err),
            [layer.weight_bytes_f32, layer.weight_bytes_packed].map(|bytes| bytes.to_string()),
        )
    }));
    table_rows.push(rows("squared_relu", &report.activation));
    let head = [
        "op",
        "shape (m x n x k)",
        "device",
        "mismatches",
        "worst error",
        "f32 weight bytes",
        "packed",
    ];
    table(&head, &table_rows)
}
