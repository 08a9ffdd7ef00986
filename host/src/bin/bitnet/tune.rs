//! `bitnet tune`: measures the variants for a shape, and records the fastest in the user's cache.

use crate::output::{Outcome, Output, table};
use anyhow::{Context, Result, ensure};
use bitnet_cuda::device::Device;
use bitnet_cuda::launch::tune::{
    CACHE_VARIABLE, Choice, CostUnit, TuneCache, TuneConfig, TuneKey, choose_gemv, tune_gemv,
};
use bitnet_cuda::layout::Layout;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

#[derive(clap::Args)]
pub struct Args {
    /// Output features
    #[arg(long)]
    n: usize,
    /// Input features
    #[arg(long)]
    k: usize,
    /// Tokens; more than 8 are processed in groups of 8
    #[arg(long, default_value_t = 1)]
    m: usize,
    /// Rounds of measurement on a GPU
    #[arg(long, default_value_t = TuneConfig::default().rounds)]
    rounds: usize,
}

#[derive(Serialize)]
struct Report {
    device: String,
    key: TuneKey,
    unit: CostUnit,
    variants: Vec<Row>,
    /// The variant that was used for this shape before.
    before: String,
    chosen: String,
    /// As it is printed: a path may be no UTF-8, which JSON cannot hold.
    cache: String,
    /// Why the choice could not be stored.
    cache_error: Option<String>,
}

#[derive(Serialize)]
struct Row {
    variant: &'static str,
    cost: f64,
    rounds: usize,
    dropped: bool,
}

pub fn run(device: &Device, args: &Args, output: Output) -> Result<Outcome> {
    let &Args { n, k, m, rounds } = args;
    // Before anything of that size is made.
    Layout::Tiled.padded_shape(n, k)?;
    ensure!(m > 0, "m = 0: give at least one token");
    let cache = TuneCache::user().with_context(|| {
        format!("there is no folder to store the result in; set {CACHE_VARIABLE} to one")
    })?;
    let before: Choice =
        choose_gemv(device, Some(&cache), (m, n, k)).context("no variant supports this shape")?;

    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{msg} [{wide_bar}] {pos}/{len}",
    )?);
    bar.set_message(format!("tuning gemv {n} x {k}"));
    let tuned = tune_gemv(device, (m, n, k), &TuneConfig { rounds }, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let tuning = tuned?;
    let stored = cache.store(&tuning).map_err(anyhow::Error::from);
    let row = |candidate: &bitnet_cuda::launch::tune::Candidate| Row {
        variant: candidate.variant.name(),
        cost: candidate.cost.value,
        rounds: candidate.rounds,
        dropped: candidate.dropped,
    };
    let report = Report {
        device: device.name().to_owned(),
        key: tuning.key.clone(),
        unit: tuning.best().cost.unit,
        variants: tuning.candidates.iter().map(row).collect(),
        before: before.variant.name().to_owned(),
        chosen: tuning.best().variant.name().to_owned(),
        cache: cache.path().display().to_string(),
        cache_error: stored.as_ref().err().map(|error| format!("{error:#}")),
    };
    // What was measured is shown, also where it cannot be kept.
    output.print(&report, text)?;
    stored?;
    Ok(Outcome::Right)
}

fn text(report: &Report) -> String {
    let TuneKey { n, k, m, .. } = report.key;
    let rows: Vec<_> = report
        .variants
        .iter()
        .map(|row| {
            let note = if row.dropped { "dropped early" } else { "" };
            vec![
                row.variant.to_owned(),
                format!("{:.2}", row.cost),
                row.rounds.to_string(),
                note.to_owned(),
            ]
        })
        .collect();
    let mut text = format!(
        "gemv {m} x {n} x {k} (m x n x padded k) on {}\n\n",
        report.device
    );
    text += &table(&["variant", report.unit.name(), "rounds", ""], &rows);
    text += &format!(
        "\nchosen     {} (before: {})\n",
        report.chosen, report.before
    );
    if report.cache_error.is_none() {
        text += &format!("stored in  {}\n", report.cache);
    }
    text
}
