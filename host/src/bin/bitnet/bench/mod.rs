//! `bitnet bench`: the measurement program. docs/measuring.md says what each number means.

mod ceilings;
mod counts;
mod machine;
mod measure;
mod model;
mod peers;
mod plan;
mod products;
mod run;
mod table;
mod timing;

use crate::output::{Outcome, Output, require_writable};
use anyhow::{Context, Result, ensure};
use bitnet_cuda::device::{Device, DeviceKind};
use bitnet_cuda::whole_file;
use kernel_benches::Results;
use peers::{Bitlinear, Peer, Redirected};
use plan::ModelArgs;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// Write the results to this file; it is rewritten after each step, so that an interrupted run keeps them
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Stop after this many seconds; the most important measurements come first
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u64>,
    /// Use small shapes only, to try the program; implied on the emulator
    #[arg(long)]
    smoke: bool,
    /// Also measure this shared library, by its function `bitlinear_int8xint2`; its code is executed
    #[arg(long = "peer", value_name = "FILE")]
    peers: Vec<PathBuf>,
    /// Seed of the random data [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Commit that this program was built from, recorded in the results
    #[arg(long, env = "BITNET_COMMIT", value_name = "HASH")]
    commit: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
}

/// What a run is asked for.
struct Request {
    device: Device,
    /// The GPUs of the model's chain; the first is `device`.
    model_devices: Vec<Device>,
    model: ModelArgs,
    peers: Vec<Box<dyn Peer>>,
    smoke: bool,
    seed: u64,
    commit: Option<String>,
    output: Option<PathBuf>,
    time_limit: Option<Duration>,
}

pub fn run(device: &Device, args: &Args, output: Output) -> Result<Outcome> {
    if let Some(path) = &args.output {
        require_writable("--output", path)?;
    }
    if device.kind() == DeviceKind::Emulated {
        ensure!(
            args.peers.is_empty(),
            "--peer: other libraries run on a GPU only; leave it out, or use --device cuda"
        );
        ensure!(
            args.model.quantization_bits == 2,
            "--quantization-bits {}: cuBLAS runs on a GPU only; use 2, or --device cuda",
            args.model.quantization_bits
        );
    }
    let open = |path: &PathBuf| Ok(Box::new(Bitlinear::open(path)?) as Box<dyn Peer>);
    let request = Request {
        device: device.clone(),
        model_devices: model_devices(device, args.model.num_gpus.into())?,
        model: args.model,
        peers: args.peers.iter().map(open).collect::<Result<_>>()?,
        smoke: plan::is_smoke(device.kind(), args.smoke),
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        commit: args.commit.clone().filter(|commit| !commit.is_empty()),
        output: args.output.clone(),
        time_limit: args.time_limit.map(Duration::from_secs),
    };
    // Microsoft's library says there which shapes it does not know.
    let redirected = match request.peers.is_empty() {
        true => None,
        false => Some(Redirected::to_stderr().context("stdout cannot be kept from the peers")?),
    };
    let results = run::run(&request)?;
    drop(redirected);
    output.print(&results, table::text)?;
    let cases = results.cases.iter().map(|case| case.mismatches);
    let models = results.models.iter().map(|model| model.mismatches);
    Ok(Outcome::of(cases.chain(models).sum()))
}

/// `count` devices of the same kind, from this one on.
fn model_devices(first: &Device, count: usize) -> Result<Vec<Device>> {
    let mut devices = vec![first.clone()];
    let ordinal = first
        .name()
        .strip_prefix("cuda:")
        .and_then(|name| name.split(' ').next());
    for next in 1..count {
        devices.push(match ordinal {
            Some(ordinal) => Device::cuda(ordinal.parse::<usize>()? + next)
                .with_context(|| format!("--num-gpus {count} from {} on", first.name()))?,
            None => Device::emulated()?,
        });
    }
    Ok(devices)
}

/// Replaces the file in one step, so that an interrupted run leaves a whole one.
fn save(path: &Path, results: &Results) -> Result<()> {
    let json = results.to_json()?;
    whole_file::write(path, json.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}
