//! `cargo xtask test`: everything that must hold before a change lands.

use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::artifacts::{self, Kind};
use crate::freshness::Freshness;
use crate::setup::nvidia::Tools;
use crate::{build_ptx, bundle, counts, process, ptxas, report, sass, setup, workspace};

/// What became of a step.
enum Outcome {
    Passed,
    Failed(String),
    /// This machine could not do it, and why. In CI that is a failure.
    Skipped(String),
    /// It is for machines with a GPU, which CI's are not.
    NoGpu(String),
}

impl From<Result<()>> for Outcome {
    fn from(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Passed,
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

impl From<Result<Freshness>> for Outcome {
    fn from(result: Result<Freshness>) -> Self {
        match result {
            Ok(Freshness::Proven(_)) => Self::Passed,
            Ok(Freshness::Unproven(why)) => Self::Skipped(why),
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

/// What ran, how long it took, and how it ended.
struct Step {
    name: &'static str,
    took: Duration,
    outcome: Outcome,
}

type Check = fn() -> Outcome;

/// The steps, in the order they run: first the quick ones, and what later ones need.
const STEPS: [(&str, Check); 13] = [
    ("format", || cargo(&["fmt", "--all", "--", "--check"])),
    ("kernel toolchain", toolchain),
    ("clippy", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ])
    }),
    ("documentation", || {
        let mut doc = workspace::cargo();
        doc.args(["doc", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "--deny warnings");
        cargo_command(&mut doc)
    }),
    ("PTX is fresh", || build_ptx::check().into()),
    ("ptxas", || {
        with_tools(|_| ptxas::run(&ptxas::Args::default()).into())
    }),
    ("SASS is as recorded", || {
        with_tools(|tools| sass::check(tools).into())
    }),
    ("report is fresh", || report::check().into()),
    ("tests", tests),
    ("examples", || examples().into()),
    ("bundle", || bundle::check().into()),
    ("counts as recorded", || counts::check().into()),
    ("tests on the GPU", gpu_tests),
];

pub fn run() -> Result<ExitCode> {
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let mut steps = Vec::new();
    for (index, (name, step)) in STEPS.into_iter().enumerate() {
        eprintln!("[{}/{}] {name}", index + 1, STEPS.len());
        let started = Instant::now();
        let outcome = step();
        if let Outcome::Failed(why) = &outcome {
            eprintln!("failed: {why}");
        }
        steps.push(Step {
            name,
            took: started.elapsed(),
            outcome,
        });
    }
    print!("{}", summary(&steps, ci));
    Ok(if passed(&steps, ci) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn passed(steps: &[Step], ci: bool) -> bool {
    steps.iter().all(|step| match step.outcome {
        Outcome::Passed | Outcome::NoGpu(_) => true,
        Outcome::Failed(_) => false,
        Outcome::Skipped(_) => !ci,
    })
}

/// One line per step; a failed or skipped one says why.
fn summary(steps: &[Step], ci: bool) -> String {
    let mut text = String::new();
    for Step {
        name,
        took,
        outcome,
    } in steps
    {
        let (word, why) = match outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(why) => ("FAILED", why.as_str()),
            Outcome::Skipped(why) if ci => ("SKIPPED, which fails in CI", why.as_str()),
            Outcome::Skipped(why) => ("skipped", why.as_str()),
            Outcome::NoGpu(why) => ("not run", why.as_str()),
        };
        let _ = write!(text, "{name:18} {:5.0} s  {word}", took.as_secs_f32());
        if !why.is_empty() {
            let _ = write!(text, ": {}", why.replace('\n', "\n    "));
        }
        text.push('\n');
    }
    text
}

fn cargo(args: &[&str]) -> Outcome {
    cargo_command(workspace::cargo().args(args))
}

fn cargo_command(command: &mut Command) -> Outcome {
    match process::attached(command) {
        Ok(true) => Outcome::Passed,
        Ok(false) => Outcome::Failed("see its output above".to_owned()),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

/// Gets what the later steps need. A machine without a network, and with neither, can still do the rest.
fn toolchain() -> Outcome {
    match setup::run() {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Skipped(format!("{error:#}")),
    }
}

/// Runs a check that needs NVIDIA's programs.
fn with_tools(check: fn(&Tools) -> Outcome) -> Outcome {
    match Tools::present() {
        Some(tools) => check(&tools),
        None => Outcome::Skipped(
            "NVIDIA's ptxas is not here (see the step `kernel toolchain`)".to_owned(),
        ),
    }
}

/// All tests. Those of the emulator have ptxas assemble their kernels too, where it is there.
fn tests() -> Outcome {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    if let Some(tools) = Tools::present() {
        command.env("PTX_EMULATOR_PTXAS", tools.folder().join("ptxas"));
    }
    match cargo_command(&mut command) {
        // The test of the C interface that needs it ends without it.
        Outcome::Passed if !has_valgrind() => Outcome::Skipped(
            "valgrind is not installed, so the C program was not run under it (the other tests passed): install it"
                .to_owned(),
        ),
        outcome => outcome,
    }
}

/// Each example of the library, which `cargo test` compiles and does not run.
fn examples() -> Result<()> {
    let mut examples = artifacts::of_workspace()?;
    examples.retain(|artifact| artifact.kind == Kind::Example);
    ensure!(!examples.is_empty(), "cargo built no example");
    examples.sort_by(|a, b| a.name.cmp(&b.name));
    // What they tune is not the user's.
    let cache = tempfile::tempdir()?;
    for example in examples {
        let mut command = Command::new(&example.file);
        let succeeded = process::attached(command.env("BITNET_CACHE_DIR", cache.path()))?;
        ensure!(
            succeeded,
            "the example {} failed, see its output above",
            example.name
        );
    }
    Ok(())
}

fn has_valgrind() -> bool {
    let version = process::capture(
        Command::new("valgrind").arg("--version"),
        Duration::from_secs(30),
    );
    version.is_ok()
}

/// All tests once more with a GPU as their device: one after the other, as the tests of a program share its context and its memory pool.
fn gpu_tests() -> Outcome {
    let list = process::capture(
        Command::new("nvidia-smi").arg("--list-gpus"),
        Duration::from_secs(30),
    );
    let found = list.and_then(|list| match list.stdout.trim() {
        "" => bail!("nvidia-smi lists none"),
        _ => Ok(()),
    });
    match found {
        Ok(()) => cargo_command(
            workspace::cargo()
                .args(["test", "--workspace", "--no-fail-fast"])
                .env("BITNET_TEST_DEVICE", "cuda")
                .env("RUST_TEST_THREADS", "1"),
        ),
        Err(error) if has_gpu_driver() => Outcome::Skipped(format!(
            "this machine has an NVIDIA driver, but its GPUs are not listed (a container needs the driver capability `utility`): {error:#}"
        )),
        Err(error) => Outcome::NoGpu(format!("this machine has no NVIDIA GPU: {error:#}")),
    }
}

/// Whether the kernel has NVIDIA's driver, or under WSL 2 the host's.
fn has_gpu_driver() -> bool {
    ["/proc/driver/nvidia/version", "/dev/dxg"]
        .into_iter()
        .any(|file| std::path::Path::new(file).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(outcome: Outcome) -> Vec<Step> {
        let step = |name, outcome| Step {
            name,
            took: Duration::from_secs(3),
            outcome,
        };
        vec![
            step("format", Outcome::Passed),
            step("ptxas", outcome),
            step("tests on the GPU", Outcome::NoGpu("no GPU here".to_owned())),
        ]
    }

    #[test]
    fn a_skip_fails_only_in_ci() {
        let skipped = steps(Outcome::Skipped("no ptxas".to_owned()));
        assert!(passed(&skipped, false));
        assert!(!passed(&skipped, true));
        assert!(summary(&skipped, true).contains("SKIPPED, which fails in CI: no ptxas"));
    }

    #[test]
    fn a_failure_fails_everywhere_and_says_why() {
        let failed = steps(Outcome::Failed("gemv spills\non sm_75".to_owned()));
        assert!(!passed(&failed, false) && !passed(&failed, true));
        assert!(summary(&failed, false).contains("FAILED: gemv spills\n    on sm_75"));
    }

    #[test]
    fn a_machine_without_a_gpu_passes_even_in_ci() {
        let fine = steps(Outcome::Passed);
        assert!(passed(&fine, true));
        let text = summary(&fine, true);
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with("not run: no GPU here\n"), "{text}");
    }
}
