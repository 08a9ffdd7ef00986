//! `cargo xtask setup`: a compiler for the kernels, and NVIDIA's assembler.

mod debian;
pub mod nvidia;
mod rustup;

use std::path::PathBuf;

use anyhow::{Result, bail};
use cuda_builder::{CudaBuilderError, KernelCompiler, TOOLCHAIN_DIR};

use crate::workspace;

/// A way to get a compiler.
type Way = fn() -> Result<()>;

const WAYS: [(&str, Way); 2] = [
    ("rustup", rustup::install),
    ("Debian's packages", debian::unpack),
];

/// Gets both, or the one that can be got.
pub fn run() -> Result<()> {
    let compiler = compiler();
    if let Ok(compiler) = &compiler {
        println!(
            "kernel compiler: {}, {}",
            compiler.version,
            compiler.rustc.display()
        );
    }
    let tools = nvidia::tools();
    if let Ok(tools) = &tools {
        println!(
            "NVIDIA tools:    {}, {}",
            tools.version()?,
            tools.folder().display()
        );
    }
    match (compiler, tools) {
        (Err(compiler), Err(tools)) => bail!("{compiler:#}\n{tools:#}"),
        (Err(error), _) | (_, Err(error)) => Err(error),
        _ => Ok(()),
    }
}

/// A kernel compiler: one that is there already, or one that this gets.
pub fn compiler() -> Result<KernelCompiler> {
    let none = match KernelCompiler::find(workspace::root()) {
        Ok(compiler) => return Ok(compiler),
        Err(none @ CudaBuilderError::NoCompiler { .. }) => none,
        // Asked for by CUDA_BUILDER_RUSTC: getting another one is not what the user wants.
        Err(other) => return Err(other.into()),
    };
    let mut failures = Vec::new();
    for (name, get) in WAYS {
        eprintln!("getting a kernel compiler: {name}");
        // The last word is the search's: what was installed must also be found, and start.
        match get().and_then(|()| Ok(KernelCompiler::find(workspace::root())?)) {
            Ok(compiler) => return Ok(compiler),
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    bail!(no_compiler_message(&none, &failures))
}

fn no_compiler_message(search: &CudaBuilderError, failures: &[String]) -> String {
    format!(
        "no kernel compiler could be got.\n  {}\nBefore that: {search}",
        failures.join("\n  ")
    )
}

/// The folder that Debian's compiler is unpacked into.
fn toolchain_dir() -> PathBuf {
    workspace::root().join(TOOLCHAIN_DIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_names_every_way_and_what_to_do() {
        let search = CudaBuilderError::NoCompiler {
            tried: vec!["rustup's stable: it is rustc 1.95.0".to_owned()],
        };
        let failures = [
            "rustup: no network".to_owned(),
            "Debian's packages: no apt-get".to_owned(),
        ];
        let message = no_compiler_message(&search, &failures);
        for part in [
            "rustup: no network",
            "Debian's packages: no apt-get",
            "rustc 1.95.0",
            "CUDA_BUILDER_RUSTC",
            "rustup toolchain install",
        ] {
            assert!(message.contains(part), "`{part}` is not in:\n{message}");
        }
    }
}
