//! `cargo xtask demo`: `bitnet demo`, built first.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace;

#[derive(clap::Args)]
pub struct Args {
    /// Passed on to `bitnet demo` (try `--help`)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// In the dev profile, in which the emulator is optimized too, and half of the dependencies are built already: they are xtask's. Cargo talks on
/// stderr, so with `--json` stdout holds only `bitnet`'s JSON. Its exit code is passed on.
pub fn run(args: &Args) -> Result<ExitCode> {
    let status = workspace::cargo()
        .args(["run", "--bin", "bitnet", "--", "demo"])
        .args(&args.args)
        .status()
        .context("cannot start cargo")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
