//! `cargo xtask build-ptx`: the committed PTX, and the proof that it is fresh.

pub mod manifest;
mod sources;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use cuda_builder::{CompileOutput, CudaBuilder, KernelCompiler, NvvmArch};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use crate::freshness::Freshness;
use crate::{setup, workspace};
use manifest::{Manifest, PtxFile};

#[derive(clap::Args)]
pub struct Args {
    /// Compile again, and fail if the committed PTX differs
    #[arg(long)]
    check: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if args.check {
        return check()?.require("host/ptx");
    }
    let compiler = setup::compiler()?;
    let folder = workspace::ptx();
    let mut files = Vec::new();
    for built in build_all(&compiler)? {
        let file = PtxFile::of(
            built.arch,
            &built.text,
            built.output.entries,
            built.output.flags,
        );
        let path = folder.join(&file.file);
        std::fs::create_dir_all(folder.join(built.arch.target_cpu()))?;
        workspace::write(&path, &built.text)?;
        println!(
            "{}: {} kernels, {} bytes",
            file.file,
            file.entries.len(),
            file.bytes
        );
        files.push(file);
    }
    Manifest {
        rustc: compiler.version.release.clone(),
        commit: compiler.version.commit.clone(),
        llvm: compiler.version.llvm.clone(),
        sources: sources::hash(workspace::root())?,
        files,
    }
    .write(&folder)
}

/// Compares the committed PTX with its manifest, its sources, and what they compile to.
pub fn check() -> Result<Freshness> {
    let folder = workspace::ptx();
    let manifest = Manifest::read(&folder)?;
    manifest.check_files(&folder)?;
    let now = sources::hash(workspace::root())?;
    if now != manifest.sources {
        bail!(
            "the kernels' sources have changed since host/ptx was built: run `cargo xtask build-ptx` and commit it"
        );
    }
    let compiler = match recorded_compiler(&manifest) {
        Ok(compiler) => compiler,
        Err(error) => {
            return Ok(Freshness::Unproven(format!(
                "it could not be compiled again: {error:#}"
            )));
        }
    };
    let mut differences = Vec::new();
    for built in build_all(&compiler)? {
        let name = manifest::file_name(built.arch);
        let path = folder.join(&name);
        let committed = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if let Some(difference) = first_difference(&committed, &built.text) {
            differences.push(format!("{name}: {difference}"));
        }
    }
    if differences.is_empty() {
        return Ok(Freshness::Proven(format!(
            "{} gives the same bytes",
            compiler.version
        )));
    }
    let differences = differences.join("\n");
    if manifest.is_by(&compiler.version) {
        bail!(
            "host/ptx is not what its sources compile to: run `cargo xtask build-ptx` and commit it\n{differences}"
        );
    }
    Ok(Freshness::Unproven(format!(
        "it was built by {}, which is not here; {} compiles it differently\n{differences}",
        manifest.compiler(),
        compiler.version
    )))
}

/// The compiler that built the committed PTX where it is among those that are here, else the first.
fn recorded_compiler(manifest: &Manifest) -> Result<KernelCompiler> {
    let first = setup::compiler()?;
    let mut all = KernelCompiler::candidates(workspace::root())?;
    let exact = all
        .iter()
        .position(|compiler| manifest.is_by(&compiler.version));
    let release = || {
        all.iter()
            .position(|compiler| compiler.version.release == manifest.rustc)
    };
    Ok(match exact.or_else(release) {
        Some(index) => all.swap_remove(index),
        None => first,
    })
}

struct Built {
    arch: NvvmArch,
    output: CompileOutput,
    text: String,
}

/// Compiles for several architectures at once: most of a compilation is one thread's work.
fn build_all(compiler: &KernelCompiler) -> Result<Vec<Built>> {
    let progress = ProgressBar::new(NvvmArch::ALL.len() as u64).with_style(
        ProgressStyle::with_template("{spinner} compiling kernels {bar:20} {pos}/{len} {elapsed}")
            .expect("the template is well-formed"),
    );
    progress.enable_steady_tick(Duration::from_millis(100));
    let build = |arch| {
        let output = CudaBuilder::new(workspace::root().join("kernels-gpu"))
            .arch(arch)
            .compiler(compiler.clone())
            .build()?;
        for warning in &output.warnings {
            progress.suspend(|| eprint!("{warning}"));
        }
        let text = std::fs::read_to_string(&output.ptx)?;
        progress.inc(1);
        Ok(Built { arch, output, text })
    };
    let all = NvvmArch::ALL.into_par_iter().map(build).collect();
    progress.finish_and_clear();
    all
}

/// The first line in which two texts differ, both sides of it.
fn first_difference(committed: &str, built: &str) -> Option<String> {
    if committed == built {
        return None;
    }
    let mut old = committed.lines();
    let mut new = built.lines();
    let mut number = 1;
    loop {
        match (old.next(), new.next()) {
            (Some(a), Some(b)) if a == b => number += 1,
            (None, None) => return Some("the ends of lines differ".to_owned()),
            (a, b) => {
                let show = |line: Option<&str>| {
                    line.map_or("nothing".to_owned(), |text| format!("`{}`", text.trim()))
                };
                return Some(format!(
                    "line {number} is {}, compiled {}",
                    show(a),
                    show(b)
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn the_first_difference_is_named() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        let difference = first_difference("a\nb\nc\n", "a\nx\nc\n");
        assert_eq!(difference.as_deref(), Some("line 2 is `b`, compiled `x`"));
        let cut = first_difference("a\nb\n", "a\n");
        assert_eq!(cut.as_deref(), Some("line 2 is `b`, compiled nothing"));
        assert!(first_difference("a\n", "a").is_some());
    }
}
