//! `cargo xtask bundle`: a folder that measures on any machine with a driver, and needs nothing else there.

mod glibc;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::artifacts::{self, Kind};
use crate::{process, workspace};

const SCRIPT: &str = include_str!("run.sh");

/// What the folder may hold.
const MAX_BYTES: u64 = 48 << 20;
/// Debian 12's: programs for it run on everything newer.
const NEWEST_GLIBC: glibc::Version = (2, 36);

/// The test programs: of the library, of the integration tests' own library, and these tests.
const TESTS: [&str; 3] = ["bitnet_cuda", "integration_tests", BY_MODULE];
/// The test program whose modules `run.sh` runs one by one.
const BY_MODULE: &str = "integration";
/// Modules of it that have no device or always the emulator: a GPU shows nothing about them.
const WITHOUT_GPU: [&str; 3] = ["counts", "golden_reference", "schedules"];

/// The test double of the driver.
const DOUBLE: &str = "libfake_libcuda.so";

const QUICK: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
pub struct Args {
    /// Also run a copy of the folder, on the emulator and on a test double of the driver
    #[arg(long)]
    check: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let folder = workspace::root().join("target/bundle");
    make(&folder)?;
    let bytes = size(&folder)?;
    println!(
        "{}: {:.1} MiB of at most {} MiB",
        folder.display(),
        bytes as f64 / f64::from(1 << 20),
        MAX_BYTES >> 20
    );
    ensure!(
        bytes <= MAX_BYTES,
        "the bundle has {bytes} bytes, at most {MAX_BYTES} can be carried"
    );
    if args.check {
        run_elsewhere(&folder)?;
        println!(
            "it runs from another folder, on the emulator and with the test double for a driver"
        );
    }
    Ok(())
}

/// Makes the bundle and runs a copy of it.
pub fn check() -> Result<()> {
    run(&Args { check: true })
}

/// Fills the folder anew.
fn make(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let unpacked = tempfile::tempdir()?;
    let tests = unpacked.path().join("tests");
    fs::create_dir_all(&tests)?;
    fs::create_dir_all(folder)?;

    let package = ["--package", "bitnet-cuda", "--bin", "bitnet"];
    let programs = artifacts::built(&[&["build", "--release"], package.as_slice()].concat())?;
    add(
        artifacts::file(&programs, Kind::Program, "bitnet")?,
        &folder.join("bitnet"),
    )?;
    // Of the whole workspace, in the profile of tests: the same files that `cargo test --workspace` builds.
    let selection = ["--workspace", "--lib", "--test", BY_MODULE];
    let artifacts = artifacts::built(&[&["test", "--no-run"], selection.as_slice()].concat())?;
    for name in TESTS {
        add(
            artifacts::file(&artifacts, Kind::Test, name)?,
            &tests.join(name),
        )?;
    }
    let mut list = Command::new(tests.join(BY_MODULE));
    list.args(["--list", "--format", "terse"]);
    let list = process::capture(&mut list, QUICK)?;
    fs::write(unpacked.path().join("modules"), modules(&list.stdout)?)?;
    // The library's own tests load it where there is no GPU.
    let double = artifacts::file(&artifacts, Kind::SharedLibrary, "fake_libcuda")?;
    add(double, &tests.join(DOUBLE))?;

    // Where cargo runs the tests, it lies beside them.
    let golden = unpacked.path().join("golden");
    fs::create_dir_all(&golden)?;
    for entry in fs::read_dir(workspace::root().join("tests/golden"))? {
        let path = entry?.path();
        if let (true, Some(name)) = (
            path.extension() == Some(OsStr::new("safetensors")),
            path.file_name(),
        ) {
            fs::copy(&path, golden.join(name))?;
        }
    }
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(folder.join("tests.tar.gz"));
    tar.arg("-C")
        .arg(unpacked.path())
        .args(["tests", "modules", "golden"]);
    process::capture(&mut tar, QUICK)?;

    for entry in fs::read_dir(workspace::ptx())? {
        let from = entry?.path().join("bitnet.ptx");
        if let (true, Some(arch)) = (from.is_file(), from.parent().and_then(Path::file_name)) {
            let to = folder.join("ptx").join(arch);
            fs::create_dir_all(&to)?;
            fs::copy(&from, to.join("bitnet.ptx"))?;
        }
    }
    fs::write(folder.join("COMMIT"), commit()?)?;
    let script = folder.join("run.sh");
    fs::write(&script, SCRIPT)?;
    set_executable(&script)
}

/// A line a module that a GPU shows something about: its name, and the names of its tests. `list` is what a test program says to
/// `--list --format terse`.
fn modules(list: &str) -> Result<String> {
    let mut modules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in list.lines() {
        let name = line.strip_suffix(": test");
        let split = name.and_then(|name| Some((name.split_once("::")?.0, name)));
        let (module, name) =
            split.with_context(|| format!("`{line}` is no test of a module of {BY_MODULE}"))?;
        modules.entry(module).or_default().push(name);
    }
    for module in WITHOUT_GPU {
        modules
            .remove(module)
            .with_context(|| format!("{BY_MODULE} has no module {module}"))?;
    }
    let line = |(module, names): (&str, Vec<&str>)| format!("{module} {}\n", names.join(" "));
    Ok(modules.into_iter().map(line).collect())
}

/// Copies a program without its symbols, and checks that older systems can load it.
fn add(from: &Path, to: &Path) -> Result<()> {
    process::capture(Command::new("strip").arg("-o").arg(to).arg(from), QUICK)
        .context("the bundle's programs are stripped by binutils' `strip` (Debian: binutils)")?;
    match glibc::newest(to)? {
        Some(newest) if newest > NEWEST_GLIBC => {
            let ((major, minor), (most_major, most_minor)) = (newest, NEWEST_GLIBC);
            bail!(
                "{} needs glibc {major}.{minor}; build the bundle on a system with glibc {most_major}.{most_minor} or older",
                to.display()
            )
        }
        _ => Ok(()),
    }
}

/// The commit that is checked out, and whether the files are it.
fn commit() -> Result<String> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(workspace::root()).args(arguments);
        process::capture(&mut command, QUICK).map(|captured| captured.stdout.trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Ok(commit + if changed { "-changed" } else { "" })
}

fn set_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}

fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => size(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

/// Copies the folder and runs it there: its tests and its comparison through the driver's interface as on a GPU, with the double for a driver; its
/// measurements on the emulator (on which `cargo test` runs these tests), and the results have to be there.
fn run_elsewhere(folder: &Path) -> Result<()> {
    let elsewhere = tempfile::tempdir()?;
    let copy = elsewhere.path().join("bundle");
    process::capture(Command::new("cp").arg("-r").arg(folder).arg(&copy), QUICK)?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(copy.join("tests.tar.gz"));
    unpack
        .arg("-C")
        .arg(elsewhere.path())
        .arg(format!("tests/{DOUBLE}"));
    process::capture(&mut unpack, QUICK)?;
    let out = elsewhere.path().join("out");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(copy.join("run.sh"));
        command
            .args(["--seconds", "600"])
            .args(arguments)
            .current_dir(elsewhere.path())
            .env("OUT", &out);
        command
    };
    let passes = |mut command: Command| -> Result<()> {
        if let Err(error) = process::capture(&mut command, QUICK) {
            let log = fs::read_to_string(out.join("log.txt")).unwrap_or_default();
            bail!("{error:#}\n{log}");
        }
        Ok(())
    };
    let mut as_on_a_gpu = run(&["--device", "cuda", "--only", "tests", "--only", "compare"]);
    as_on_a_gpu.env(
        "CUST_LAZY_LIBCUDA",
        elsewhere.path().join("tests").join(DOUBLE),
    );
    passes(as_on_a_gpu).context("as on a GPU, with the double for a driver")?;
    passes(run(&["--device", "emulated", "--only", "bench"]))?;
    let results =
        fs::read_to_string(out.join("results.json")).context("run.sh left no results.json")?;
    let results = kernel_benches::Results::from_json(&results)?;
    ensure!(!results.cases.is_empty(), "the bundle measured nothing");
    ensure!(
        results.commit == Some(commit()?),
        "the results name another commit"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_that_a_gpu_shows_nothing_about_are_left_out() {
        let list = concat!(
            "counts::a: test\ngemv::rows::b: test\ngolden_reference::c: test\n",
            "norm_gemv::d: test\ngemv::e: test\nschedules::f: test\n"
        );
        let lines = "gemv gemv::rows::b gemv::e\nnorm_gemv norm_gemv::d\n";
        assert_eq!(modules(list).expect("all are there"), lines);
        assert!(modules(&list.replace("schedules", "orders")).is_err());
        assert!(modules(&format!("{list}no_module: test\n")).is_err());
        assert!(modules(&format!("{list}gemv::g: benchmark\n")).is_err());
    }
}
