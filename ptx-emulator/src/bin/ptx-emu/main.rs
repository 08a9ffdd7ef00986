//! `ptx-emu`: runs, checks and lists the kernels of a PTX file.

mod arguments;
mod check;
mod list;
mod output;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use ptx_emulator::{Module, command_line};

/// Runs NVIDIA PTX on the CPU, checks it and counts what it does.
///
/// Exit status: 0 if the kernel ran and `check` found nothing, 1 if it did something undefined or its result depends on the
/// order, 2 if it cannot run as asked.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one kernel.
    Run(run::Run),
    /// Run one kernel with every check, in many orders of its warps and blocks, and compare the results.
    Check(check::Check),
    /// List the kernels of a file.
    List {
        /// The PTX file.
        file: PathBuf,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// How the command ended, where it could run as asked.
enum Outcome {
    Ran,
    /// The kernel did something that it must not do.
    Found,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return command_line::explain("ptx-emu", &error),
    };
    let outcome = match cli.command {
        Command::Run(run) => run::run_kernel(&run),
        Command::Check(check) => check::check_kernel(&check),
        Command::List { file, json } => list::list(&file, json),
    };
    match outcome {
        Ok(Outcome::Ran) => ExitCode::SUCCESS,
        Ok(Outcome::Found) => ExitCode::from(1),
        Err(error) => {
            command_line::complain("ptx-emu", format_args!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

fn load(file: &Path) -> anyhow::Result<Module> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Module::parse(&text).with_context(|| file.display().to_string())
}
