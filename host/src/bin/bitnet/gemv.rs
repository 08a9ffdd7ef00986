//! `bitnet gemv`: a product of random matrices, checked against the reference.

use crate::operations::Sizes;
use crate::output::{Outcome, Output};
use anyhow::{Result, ensure};
use bitnet_cuda::device::{Buffer, Device, DeviceKind};
use bitnet_cuda::launch::Gemv;
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::OpError;
use bitnet_cuda::ops::{BitLinear, QuantizedActivations};
use bitnet_cuda::reference::RowScales;
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
    /// Kernel variant, such as `gemv_m1_t1_w2`; by default the library chooses
    #[arg(long)]
    variant: Option<String>,
    /// Seed of the random matrices; by default another each time
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

pub fn run(device: &Device, args: &Args, output: Output) -> Result<Outcome> {
    let &Args { n, k, m, .. } = args;
    // Before anything of that size is made.
    Layout::Tiled.padded_shape(n, k)?;
    ensure!(m > 0, "m = 0: give at least one token");
    Sizes { m, n, k }.require_at_most(MAX_ELEMENTS)?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut ternary = vec![0; n * k];
    ternary.fill_with(|| random.i8(-1..=1));
    let mut values = vec![0; m * k];
    values.fill_with(|| random.i8(..));
    let random_scale = |random: &mut fastrand::Rng| 0.5 + random.f32();
    let token_scales: Vec<f32> = (0..m).map(|_| 40.0 * random_scale(&mut random)).collect();
    let row_scales: Vec<f32> = (0..n).map(|_| 0.02 * random_scale(&mut random)).collect();
    let bias: Vec<f32> = (0..n).map(|_| random.f32() - 0.5).collect();

    let packed = PackedWeights::pack(Layout::Tiled, &ternary, n, k)?;
    let variant = args.variant.as_deref().map(Gemv::named).transpose()?;
    let with_variant = |layer: BitLinear| match variant {
        Some(variant) => layer.with_variant(variant),
        None => Ok(layer),
    };
    let sums = accumulate(&values, &ternary, Shape { m, n, k })?;

    // With scales of 1 an output is its integer sum.
    let plain = with_variant(BitLinear::from_packed(
        device,
        &packed,
        &RowScales::per_tensor(n, 1.0)?,
    )?)?;
    let activations = QuantizedActivations::from_values(device, m, k, &values, &vec![1.0; m])?;
    let mut y = Buffer::<f32>::uninit(device, m * n)?;
    let stream = device.default_stream();
    plain.forward_quantized(&stream, &activations, &mut y)?;
    let mut mismatches = y
        .to_vec()?
        .iter()
        .zip(&sums)
        .filter(|&(&y, &sum)| y != sum as f32)
        .count();

    let row_scales = RowScales::per_row(&row_scales)?;
    let scaled =
        with_variant(BitLinear::from_packed(device, &packed, &row_scales)?)?.with_bias(&bias)?;
    let activations = QuantizedActivations::from_values(device, m, k, &values, &token_scales)?;
    scaled.forward_quantized(&stream, &activations, &mut y)?;
    let terms = Epilogue {
        activation_scales: &token_scales,
        row_scales: &row_scales,
        bias: Some(&bias),
        residual: None,
    };
    let expected: Vec<f32> = epilogue(&sums, m, n, &terms)?;
    mismatches += y
        .to_vec()?
        .iter()
        .zip(&expected)
        .filter(|(y, e)| y.to_bits() != e.to_bits())
        .count();

    let mut launch = || scaled.forward_quantized(&stream, &activations, &mut y);
    let mut report = Report {
        device: device.name().to_owned(),
        variant: scaled.variant(m).name().to_owned(),
        n,
        k,
        m,
        seed,
        checked: 2 * m * n,
        mismatches,
        weight_bytes_packed: scaled.weight_bytes(),
        microseconds: None,
        counters: None,
    };
    match device.kind() {
        DeviceKind::Cuda => report.microseconds = time(device, &mut launch)?,
        DeviceKind::Emulated => {
            let (result, reports) = device.profile(&mut launch)?;
            result?;
            let mut counters = Counters::default();
            for report in reports {
                counters += report.counters;
            }
            report.counters = Some(counters);
        }
    }
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
            "time       {time:.2} us a launch, launched one by one; `bitnet bench` measures with care\n"
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
            "counted    {} instructions of lanes ({} dp4a), {} sectors loaded, {} stored, {} bank conflicts; \
             `bitnet profile gemv` has all\n",
            lane.total, lane.dp4a, global.load_sectors, global.store_sectors, shared.bank_conflicts
        );
    }
    text
}
