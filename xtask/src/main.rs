//! The workspace's own commands: `cargo xtask --help` lists them.

mod artifacts;
mod build_ptx;
mod bundle;
mod counts;
mod demo;
mod freshness;
mod process;
mod ptxas;
mod report;
mod sass;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Commands of the BitNet kernel workspace"
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run `bitnet demo`: operations on a real model's data, checked, on a GPU or on the emulator
    #[command(disable_help_flag = true)]
    Demo(demo::Args),
    /// Run every check: format, lints, freshness of the PTX, ptxas, tests, bundle, counts
    Test,
    /// Install the kernel compiler and NVIDIA's assembler in target/
    Setup,
    /// Compile the kernels into host/ptx
    BuildPtx(build_ptx::Args),
    /// Create target/bundle: tests and measurements that run on any machine with an NVIDIA driver
    Bundle(bundle::Args),
    /// Record the emulator's counts of matrix products in benches/counts.json
    Counts(counts::Args),
    /// Generate the figures and tables from benches/results and benches/counts.json
    Report(report::Args),
    /// Record registers, instructions and loops of every kernel's machine code in benches/sass.json
    Sass(sass::Args),
    /// Assemble the committed PTX for every GPU generation; report registers, spills and SASS instructions
    Ptxas(ptxas::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Task::Demo(args) => demo::run(&args),
        Task::Test => test::run(),
        Task::Setup => setup::run().map(|()| ExitCode::SUCCESS),
        Task::BuildPtx(args) => build_ptx::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Bundle(args) => bundle::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Counts(args) => counts::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Report(args) => report::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Sass(args) => sass::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Ptxas(args) => ptxas::run(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
