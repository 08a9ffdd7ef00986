//! `bitnet`: the kernels from the command line, on a GPU or on the emulator.

mod bench;
mod compare;
mod demo;
mod gemv;
mod info;
mod linear;
mod operations;
mod output;
mod profile;
mod tune;

use anyhow::Result;
use bitnet_cuda::device::Device;
use clap::{Parser, Subcommand};
use output::{Outcome, Output};
use ptx_emulator::command_line;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// BitNet kernels (ternary weights, int8 activations) on an NVIDIA GPU or on an emulator.
///
/// Exit status: 0 if the checks pass, 1 if a result is wrong, 2 if the command cannot run as asked.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where to run: `cuda`, `cuda:<ordinal>`, `emulated`, or `auto` for the first usable GPU, else the emulator
    #[arg(long, global = true, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Print one JSON object on stdout, and nothing else there
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List the devices, their capabilities and the PTX that each runs
    Info,
    /// Normalize, quantize, multiply and activate a real model's data, and check the results
    Demo,
    /// Run a linear layer on matrices from safetensors files
    Linear(linear::Args),
    /// Multiply random matrices of a given shape, and check the results
    Gemv(gemv::Args),
    /// Count the instructions, memory traffic and bank conflicts of an operation on the emulator
    Profile(profile::Args),
    /// Measure the kernel variants for a shape, and record the fastest in the user's cache
    Tune(tune::Args),
    /// Measure everything: times on a GPU, counts on the emulator
    Bench(bench::Args),
    /// Run every kernel on a GPU and on the emulator with the same inputs, and compare the outputs bit for bit
    Compare(compare::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return command_line::explain("bitnet", &error),
    };
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter.from_env_lossy())
        .without_time()
        // Its own report that a warning cannot be written would be written there too, and panic.
        .log_internal_errors(false)
        .init();
    match run(&cli) {
        Ok(Outcome::Right) => ExitCode::SUCCESS,
        Ok(Outcome::Wrong) => ExitCode::from(1),
        Err(error) => {
            // The context's chain in one line.
            command_line::complain("bitnet", format_args!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<Outcome> {
    let output = Output { json: cli.json };
    let device = || Device::from_name(&cli.device);
    match &cli.command {
        Command::Info => info::run(&cli.device, output),
        Command::Demo => demo::run(&device()?, output),
        Command::Linear(args) => linear::run(&device()?, args, output),
        Command::Gemv(args) => gemv::run(&device()?, args, output),
        Command::Profile(args) => profile::run(&cli.device, args, output),
        Command::Tune(args) => tune::run(&device()?, args, output),
        Command::Bench(args) => bench::run(&device()?, args, output),
        Command::Compare(args) => compare::run(&cli.device, args, output),
    }
}
