//! `bitnet linear`: a linear layer on matrices from files.

use crate::output::{Outcome, Output};
use anyhow::{Result, ensure};
use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::ops::BitLinear;
use bitnet_cuda::reference::linear::{Epilogue, Shape, accumulate, epilogue};
use bitnet_cuda::reference::quantize::{
    ActivationGranularity, WeightGranularity, quantize_activations, quantize_weights_ternary,
};
use bitnet_cuda::tensor_file::{Matrix, TensorFile, write_matrix};
use serde::Serialize;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Safetensors file with the weights
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Weight matrix in it, N x K, of f32, f16 or bf16
    #[arg(long, value_name = "NAME")]
    tensor: String,
    /// Safetensors file with the input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Input matrix in it, M x K, of f32, f16 or bf16
    #[arg(long, value_name = "NAME")]
    input_tensor: String,
    /// File to write the result to: the f32 tensor `output`, M x N
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    device: String,
    variant: String,
    n: usize,
    k: usize,
    m: usize,
    weight_scale: f32,
    checked: usize,
    mismatches: usize,
    /// Cosine between this output and that of the float weights and input.
    cosine_to_float: f64,
    weight_bytes: usize,
    weight_bytes_packed: usize,
    output: Option<PathBuf>,
}

pub fn run(device: &Device, args: &Args, output: Output) -> Result<Outcome> {
    let weight = TensorFile::open(&args.weights)?.matrix(&args.tensor)?;
    let input = TensorFile::open(&args.input)?.matrix(&args.input_tensor)?;
    ensure!(
        weight.cols == input.cols,
        "the weights `{}` have K = {} columns, the input `{}` has {}; both must have K",
        args.tensor,
        weight.cols,
        args.input_tensor,
        input.cols
    );
    let (m, n, k) = (input.rows, weight.rows, weight.cols);

    let layer = BitLinear::from_weights(device, &weight.data, n, k)?;
    let x = Buffer::from_slice(device, &input.data)?;
    let mut y = Buffer::<f32>::uninit(device, m * n)?;
    layer.forward(&device.default_stream(), &x, &mut y)?;
    let y = y.to_vec()?;

    let (expected, weight_scale) = reference(&weight, &input)?;
    let wrong = |(y, expected): (&f32, &f32)| {
        y.to_bits() != expected.to_bits() && !(y.is_nan() && expected.is_nan())
    };
    let report = Report {
        device: device.name().to_owned(),
        variant: layer.variant(m).name().to_owned(),
        n,
        k,
        m,
        weight_scale,
        checked: y.len(),
        mismatches: y.iter().zip(&expected).filter(|&pair| wrong(pair)).count(),
        cosine_to_float: cosine(&y, &float_product(&weight, &input)),
        weight_bytes: n * k * weight.dtype.bitsize() / 8,
        weight_bytes_packed: layer.weight_bytes(),
        output: args.output.clone(),
    };
    if let Some(path) = &args.output {
        write_matrix(path, "output", m, n, &y)?;
    }
    output.print(&report, text)?;
    Ok(Outcome::of(report.mismatches))
}

/// The outputs that the CPU reference gives, and the weight scale.
fn reference(weight: &Matrix, input: &Matrix) -> Result<(Vec<f32>, f32)> {
    let (m, n, k) = (input.rows, weight.rows, weight.cols);
    let weights = quantize_weights_ternary(&weight.data, n, k, WeightGranularity::Tensor)?;
    let activations = quantize_activations(&input.data, m, k, ActivationGranularity::Token)?;
    let sums = accumulate(&activations.values, &weights.values, Shape { m, n, k })?;
    let terms = Epilogue {
        activation_scales: &activations.scales,
        row_scales: &weights.scales,
        bias: None,
        residual: None,
    };
    Ok((
        epilogue(&sums, m, n, &terms)?,
        weights.scales.ranges()[0].scale,
    ))
}

fn float_product(weight: &Matrix, input: &Matrix) -> Vec<f32> {
    let rows = || input.data.chunks(input.cols);
    rows()
        .flat_map(|x| {
            weight
                .data
                .chunks(weight.cols)
                .map(|w| x.iter().zip(w).map(|(x, w)| x * w).sum())
        })
        .collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn text(report: &Report) -> String {
    let Report {
        device,
        variant,
        n,
        k,
        m,
        ..
    } = report;
    let mut text = format!("linear {m} x {n} x {k} (m x n x k) on {device}, variant {variant}\n");
    text += &format!(
        "weights    {} bytes, packed {}; scale {}\n",
        report.weight_bytes, report.weight_bytes_packed, report.weight_scale
    );
    text += &format!(
        "checked    {} outputs against the CPU reference, {} mismatches\n",
        report.checked, report.mismatches
    );
    text += &format!(
        "quality    cosine to the float product {:.4}\n",
        report.cosine_to_float
    );
    if let Some(path) = &report.output {
        text += &format!("written    {}\n", path.display());
    }
    text
}
