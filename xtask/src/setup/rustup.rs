//! A kernel compiler through rustup.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::build_ptx::manifest::Manifest;
use crate::{process, workspace};

/// The release that is installed where the committed PTX does not name one.
const RELEASE: &str = "1.96.0";

/// Installs the release that the committed PTX was made with, so that a rebuild can be compared byte for byte.
pub fn install() -> Result<()> {
    // rustup retries for minutes where its server cannot be reached; `check` asks it one small thing.
    process::capture(Command::new("rustup").arg("check"), Duration::from_secs(20))
        .context("rustup is not installed, or does not reach its server")?;
    let recorded = Manifest::read(&workspace::ptx()).ok();
    let release = recorded
        .as_ref()
        .map_or(RELEASE, |manifest| &manifest.rustc);
    process::capture(
        Command::new("rustup")
            .args(["toolchain", "install", release])
            .args(["--profile", "minimal", "--component", "rust-src"]),
        Duration::from_secs(600),
    )?;
    Ok(())
}
