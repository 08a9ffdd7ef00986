//! `bitnet gemv`: a product of random matrices, checked against the reference.

use crate::operations::Sizes;
use crate::output::{Outcome, Output};
use anyhow::{Result, ensure};
use bitnet_cuda::device::{Buffer, Device, DeviceKind};
use bitnet_cuda::launch::Gemv;
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{BitLinear, QuantizedActivations};
use bitnet_cuda::ops::{OpError, RowScales};
use bitnet_cuda::reference::linear::{Epilogue, Shape, accumulate, epilogue};
use ptx_emulator::Counters;
use serde::Serialize;

#[derive(clap::Args)]
pub struct Args {
    /// Output features
    #[arg(long)]
    n: usize,
    /// Input features
    #[arg(long)]
    k: usize,
    /// Tokens
    #[arg(long, default_value_t = 1)]
    m: usize,
    /// Kernel variant, such as `gemv_m1_t1_w2` [default: the library's choice]
    #[arg(long)]
    variant: Option<String>,
    /// Seed of the random matrices [default: random]
    #[arg(long)]
    seed: Option<u64>,
}

/// The largest random matrix: 4 GiB of int8, or 1 GiB of packed weights.
const MAX_ELEMENTS: usize = 1 << 32;

#[derive(Serialize)]
struct Report {
    device: String,
    variant: String,
    n: usize,
    k: usize,
    m: usize,
    seed: u64,
    /// Outputs compared: integer sums, and scaled outputs.
    checked: usize,
    mismatches: usize,
    weight_bytes_packed: usize,
    /// Microseconds a launch, on a GPU, with weights in L2 where they fit.
    microseconds: Option<f32>,
    /// What the emulator counted in the product's launches.
    counters: Option<Counters>,
}

/// Random operands of a product, and its exact sums.
struct Operands {
    shape: Shape,
    /// `[n, k]`
    packed: PackedWeights,
    /// `[m, k]`
    values: Vec<i8>,
    token_scales: Vec<f32>,
    row_scales: RowScales,
    bias: Vec<f32>,
    /// `[m, n]`
    sums: Vec<i32>,
}

impl Operands {
    fn random(shape: Shape, random: &mut fastrand::Rng) -> Result<Self> {
        let Shape { m, n, k } = shape;
        let mut ternary = vec![0; n * k];
        ternary.fill_with(|| random.i8(-1..=1));
        let mut values = vec![0; m * k];
        values.fill_with(|| random.i8(..));
        let mut scales =
            |count, most| -> Vec<f32> { (0..count).map(|_| most * (0.5 + random.f32())).collect() };
        let (token_scales, row_scales) = (scales(m, 40.0), scales(n, 0.02));
        Ok(Self {
            shape,
            packed: PackedWeights::pack(Layout::Tiled, &ternary, n, k)?,
            sums: accumulate(&values, &ternary, shape)?,
            values,
            token_scales,
            row_scales: RowScales::per_row(&row_scales)?,
            bias: (0..n).map(|_| random.f32() - 0.5).collect(),
        })
    }

    /// A layer of the weights; `variant: None` leaves the choice to the library.
    fn layer(
        &self,
        device: &Device,
        scales: &RowScales,
        variant: Option<Gemv>,
    ) -> Result<BitLinear> {
        let layer = BitLinear::from_packed(device, &self.packed, scales)?;
        Ok(match variant {
            Some(variant) => layer.with_variant(variant)?,
            None => layer,
        })
    }

    fn activations(&self, device: &Device, scales: &[f32]) -> Result<QuantizedActivations> {
        let Shape { m, k, .. } = self.shape;
        Ok(QuantizedActivations::from_values(
            device,
            &self.values,
            scales,
            m,
            k,
        )?)
    }

    /// Outputs that are not the integer sums, which they are with scales of 1.
    fn wrong_sums(&self, device: &Device, variant: Option<Gemv>) -> Result<usize> {
        let Shape { m, n, .. } = self.shape;
        let plain = self.layer(device, &RowScales::per_tensor(n, 1.0)?, variant)?;
        let activations = self.activations(device, &vec![1.0; m])?;
        let mut y = Buffer::<f32>::uninit(device, m * n)?;
        plain.forward_quantized(&device.default_stream(), &activations, &mut y)?;
        let sums: Vec<f32> = self.sums.iter().map(|&sum| sum as f32).collect();
        Ok(differing(&y.to_vec()?, &sums))
    }

    /// What the outputs have to be, bit for bit.
    fn expected(&self) -> Result<Vec<f32>> {
        let terms = Epilogue {
            activation_scales: &self.token_scales,
            row_scales: &self.row_scales,
            bias: Some(&self.bias),
            residual: None,
        };
        Ok(epilogue(&self.sums, self.shape.m, self.shape.n, &terms)?)
    }
}

fn differing(found: &[f32], expected: &[f32]) -> usize {
    let pairs = found.iter().zip(expected);
    pairs.filter(|(y, e)| y.to_bits() != e.to_bits()).count()
}

pub fn run(device: &Device, args: &Args, output: Output) -> Result<Outcome> {
    let &Args { n, k, m, .. } = args;
    // Before anything of that size is made.
    Layout::Tiled.padded_shape(n, k)?;
    ensure!(m > 0, "m = 0: give at least one token");
    Sizes { m, n, k }.require_at_most(MAX_ELEMENTS)?;
    let variant = args.variant.as_deref().map(Gemv::named).transpose()?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let operands = Operands::random(Shape { m, n, k }, &mut fastrand::Rng::with_seed(seed))?;
    let wrong_sums = operands.wrong_sums(device, variant)?;

    let layer = operands.layer(device, &operands.row_scales, variant)?;
    let layer = layer.with_bias(&operands.bias)?;
    let activations = operands.activations(device, &operands.token_scales)?;
    let stream = device.default_stream();
    let mut y = Buffer::<f32>::uninit(device, m * n)?;
    layer.forward_quantized(&stream, &activations, &mut y)?;
    let wrong_outputs = differing(&y.to_vec()?, &operands.expected()?);

    let mut launch = || layer.forward_quantized(&stream, &activations, &mut y);
    let (microseconds, counters) = match device.kind() {
        DeviceKind::Cuda => (time(device, &mut launch)?, None),
        DeviceKind::Emulated => {
            let (result, reports) = device.profile(&mut launch)?;
            result?;
            let mut counters = Counters::default();
            for report in reports {
                counters += report.counters;
            }
            (None, Some(counters))
        }
    };
    let report = Report {
        device: device.name().to_owned(),
        variant: layer.variant(m).name().to_owned(),
        n,
        k,
        m,
        seed,
        checked: 2 * m * n,
        mismatches: wrong_sums + wrong_outputs,
        weight_bytes_packed: layer.weight_bytes(),
        microseconds,
        counters,
    };
    output.print(&report, text)?;
    Ok(Outcome::of(report.mismatches))
}

/// Median microseconds of a launch, of 20 rounds of 50 launches each, after one round to warm up.
fn time(device: &Device, launch: &mut impl FnMut() -> Result<(), OpError>) -> Result<Option<f32>> {
    const ROUNDS: usize = 21;
    const LAUNCHES: usize = 50;
    let stream = device.default_stream();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let start = stream.record()?;
        for _ in 0..LAUNCHES {
            launch()?;
        }
        let end = stream.record()?;
        end.synchronize()?;
        if let Some(milliseconds) = start.elapsed_ms(&end)? {
            rounds.push(milliseconds * 1e3 / LAUNCHES as f32);
        }
    }
    // The first round warms up.
    let mut counted = rounds.split_off(rounds.len().min(1));
    counted.sort_by(f32::total_cmp);
    Ok(counted.get(counted.len() / 2).copied())
}

fn text(report: &Report) -> String {
    let Report {
        device,
        variant,
        n,
        k,
        m,
        seed,
        ..
    } = report;
    let mut text =
        format!("gemv {m} x {n} x {k} (m x n x k) on {device}, variant {variant}, seed {seed}\n");
    text += &format!("weights    {} bytes packed\n", report.weight_bytes_packed);
    text += &format!(
        "checked    {} outputs against the CPU reference, {} mismatches\n",
        report.checked, report.mismatches
    );
    if let Some(time) = report.microseconds {
        text += &format!(
            "time       {time:.2} us per launch, launched one by one; `bitnet bench` measures precisely\n"
        );
    }
    if let Some(counters) = &report.counters {
        let Counters {
            lane,
            global,
            shared,
            ..
        } = counters;
        text += &format!(
            "counted    {} lane instructions ({} dp4a), {} sectors loaded, {} stored, {} bank conflicts; \
             `bitnet profile gemv` prints all counts\n",
            lane.total, lane.dp4a, global.load_sectors, global.store_sectors, shared.bank_conflicts
        );
    }
    text
}
