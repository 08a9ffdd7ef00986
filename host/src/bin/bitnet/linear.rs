//! `bitnet linear`: a linear layer on matrices from files.

use crate::output::{Outcome, Output, require_writable};
use anyhow::{Context, Result, ensure};
use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{BitLinear, RowScales};
use bitnet_cuda::reference::linear::{Epilogue, Shape, accumulate, epilogue};
use bitnet_cuda::reference::quantize::{
    ActivationGranularity, WeightGranularity, quantize_activations, quantize_weights_ternary,
};
use bitnet_cuda::tensor_file::{Matrix, TensorFile, write_matrix};
use safetensors::Dtype;
use serde::Serialize;
use std::fs;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Safetensors file with the weights
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Weight matrix in that file: N x K of f32, f16 or bf16, or N/4 x K of u8 as packed by Hugging Face's transformers
    #[arg(long, value_name = "NAME")]
    tensor: String,
    /// Scale of packed weights, in the same file [default: the name of the weights followed by `_scale`]
    #[arg(long, value_name = "NAME")]
    scale_tensor: Option<String>,
    /// Divide by that scale, like transformers' class `BitLinear`, instead of multiplying, like its `AutoBitLinear`
    #[arg(long)]
    scale_divides: bool,
    /// Safetensors file with the input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Input matrix in that file: M x K of f32, f16 or bf16
    #[arg(long, value_name = "NAME")]
    input_tensor: String,
    /// Safetensors file to write the result to, as the f32 tensor `output`, M x N
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
    /// Cosine between this output and that of the float weights and input; packed weights are multiplied with their scale for it.
    cosine_to_float: f64,
    /// In the file.
    weight_bytes: usize,
    weight_bytes_packed: usize,
    /// As it is printed: a path may be no UTF-8, which JSON cannot hold.
    output: Option<String>,
    /// Why the output could not be written.
    output_error: Option<String>,
}

/// The weights `[n, k]` of a file, ternary.
struct Weights {
    packed: PackedWeights,
    scales: RowScales,
    /// What they stand for.
    float: Vec<f32>,
    /// Bytes in the file.
    bytes: usize,
}

impl Weights {
    fn read(args: &Args) -> Result<Self> {
        let file = TensorFile::open(&args.weights)?;
        if file.dtype(&args.tensor)? != Dtype::U8 {
            ensure!(
                args.scale_tensor.is_none() && !args.scale_divides,
                "the weights `{}` are not packed, so they have no separate scale; leave out --scale-tensor and --scale-divides",
                args.tensor
            );
            return Self::quantized(file.matrix(&args.tensor)?)
                .with_context(|| format!("weights `{}`", args.tensor));
        }
        let packed = file.packed_weights(&args.tensor, Layout::Tiled)?;
        let name = args.scale_tensor.clone();
        let name = name.unwrap_or_else(|| format!("{}_scale", args.tensor));
        let scale = file.scalar(&name).context("the scale of packed weights")?;
        let scale = if args.scale_divides {
            ensure!(
                (1.0 / scale).is_finite(),
                "the scale `{name}` is {scale}, which --scale-divides divides by; without that option, weights are multiplied by it"
            );
            1.0 / scale
        } else {
            scale
        };
        let scales =
            RowScales::per_tensor(packed.n(), scale).with_context(|| format!("scale `{name}`"))?;
        let values = packed.unpack();
        Ok(Self {
            float: values.iter().map(|&t| f32::from(t) * scale).collect(),
            bytes: packed.n() * packed.k() / 4,
            packed,
            scales,
        })
    }

    fn quantized(
        Matrix {
            rows: n,
            cols: k,
            data,
            dtype,
        }: Matrix,
    ) -> Result<Self> {
        let quantized = quantize_weights_ternary(&data, n, k, WeightGranularity::Tensor)?;
        Ok(Self {
            packed: PackedWeights::pack(Layout::Tiled, &quantized.values, n, k)?,
            scales: quantized.scales,
            float: data,
            bytes: n * k * dtype.bitsize() / 8,
        })
    }
}

pub fn run(device: &Device, args: &Args, output: Output) -> Result<Outcome> {
    if let Some(path) = &args.output {
        require_other(path, args)?;
        require_writable("--output", path)?;
    }
    let weights = Weights::read(args)?;
    let input = TensorFile::open(&args.input)?.matrix(&args.input_tensor)?;
    let (m, n, k) = (input.rows, weights.packed.n(), weights.packed.k());
    ensure!(
        k == input.cols,
        "the weights `{}` have K = {k} columns, the input `{}` has {}; both must have K",
        args.tensor,
        args.input_tensor,
        input.cols
    );
    ensure!(
        m > 0,
        "the input `{}` has no rows; give at least one token",
        args.input_tensor
    );

    let layer = BitLinear::from_packed(device, &weights.packed, &weights.scales)?;
    let x = Buffer::from_slice(device, &input.data)?;
    let mut y = Buffer::<f32>::uninit(device, m * n)?;
    layer.forward(&device.default_stream(), &x, &mut y)?;
    let y = y.to_vec()?;

    let expected = reference(&weights, &input)?;
    let wrong = |(y, expected): (&f32, &f32)| {
        y.to_bits() != expected.to_bits() && !(y.is_nan() && expected.is_nan())
    };
    let written = match &args.output {
        Some(path) => write_matrix(path, "output", m, n, &y),
        None => Ok(()),
    };
    let report = Report {
        device: device.name().to_owned(),
        variant: layer.variant(m).name().to_owned(),
        n,
        k,
        m,
        weight_scale: weights.scales.ranges()[0].scale,
        checked: y.len(),
        mismatches: y.iter().zip(&expected).filter(|&pair| wrong(pair)).count(),
        cosine_to_float: cosine(&y, &float_product(&weights.float, &input)),
        weight_bytes: weights.bytes,
        weight_bytes_packed: layer.weight_bytes(),
        output: args.output.as_ref().map(|path| path.display().to_string()),
        output_error: written.as_ref().err().map(ToString::to_string),
    };
    // What was computed is shown, also where it cannot be kept.
    output.print(&report, text)?;
    written?;
    Ok(Outcome::of(report.mismatches))
}

/// Refuses to replace a file that is read: it may hold a whole model.
fn require_other(output: &PathBuf, args: &Args) -> Result<()> {
    for input in [&args.weights, &args.input] {
        if let (Ok(input), Ok(output)) = (fs::canonicalize(input), fs::canonicalize(output)) {
            ensure!(
                input != output,
                "--output {} would replace a file that is read; name another",
                output.display()
            );
        }
    }
    Ok(())
}

/// The outputs that the CPU reference gives.
fn reference(weights: &Weights, input: &Matrix) -> Result<Vec<f32>> {
    let (m, n, k) = (input.rows, weights.packed.n(), weights.packed.k());
    let activations = quantize_activations(&input.data, m, k, ActivationGranularity::Token)?;
    let ternary = weights.packed.unpack();
    let sums = accumulate(&activations.values, &ternary, Shape { m, n, k })?;
    let terms = Epilogue {
        activation_scales: &activations.scales,
        row_scales: &weights.scales,
        bias: None,
        residual: None,
    };
    Ok(epilogue(&sums, m, n, &terms)?)
}

fn float_product(weights: &[f32], input: &Matrix) -> Vec<f32> {
    let product = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * w).sum();
    let rows = || weights.chunks(input.cols);
    let tokens = input.data.chunks(input.cols);
    tokens
        .flat_map(|x| rows().map(move |w| product(x, w)))
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
    if let (Some(path), None) = (&report.output, &report.output_error) {
        text += &format!("written    {path}\n");
    }
    text
}
