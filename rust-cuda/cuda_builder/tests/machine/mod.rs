//! What this machine has for tests that compile kernels. Where something is missing a test says so and ends, except
//! in CI, where it fails.

#![allow(dead_code)] // Each test program uses its part.

use std::path::{Path, PathBuf};

use cuda_builder::KernelCompiler;

pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("cuda_builder is two folders below the workspace")
}

/// The kernel compiler.
pub fn compiler() -> Option<KernelCompiler> {
    match KernelCompiler::find(workspace()) {
        Ok(compiler) => Some(compiler),
        Err(error) => skip(&error.to_string()),
    }
}

/// NVIDIA's assembler, where `cargo xtask setup` puts it.
pub fn ptxas() -> Option<PathBuf> {
    let ptxas = workspace().join("target/nvidia-tools/bin/ptxas");
    if ptxas.is_file() {
        Some(ptxas)
    } else {
        skip("no ptxas: run `cargo xtask setup`")
    }
}

/// A folder for compiled kernels, kept from one run to the next.
pub fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("ptx")
}

fn skip<T>(why: &str) -> Option<T> {
    assert!(
        std::env::var_os("CI").is_none_or(|value| value != "true"),
        "{why}"
    );
    eprintln!("skipped: {why}");
    None
}
