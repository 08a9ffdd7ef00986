//! `cargo xtask ptxas`: the committed PTX through NVIDIA's assembler, for every GPU generation.

mod limits;
mod loops;
mod report;
mod sass;
mod verbose;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use rayon::prelude::*;

use crate::setup::nvidia::{self, Tools};
use crate::{process, workspace};
pub use loops::Loop;
pub use report::KernelReport;
use report::table;

/// GPU generations: Turing, Ampere (A100, then the others), Ada, Hopper, Blackwell (B200, then the others).
const ARCHITECTURES: [&str; 7] = [
    "sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120",
];

/// Kernels that may spill or have a stack frame, and why.
const ALLOWED: &[Allowance] = &[];

/// A kernel's leave to use local memory.
struct Allowance {
    kernel: &'static str,
    /// Why it is right here.
    reason: &'static str,
}

const LIMIT: Duration = Duration::from_secs(600);

#[derive(Default, clap::Args)]
pub struct Args {
    /// Only this architecture; can be given several times
    #[arg(long = "arch", value_name = "ARCH", value_parser = ARCHITECTURES)]
    archs: Vec<String>,
    /// Print one JSON list on stdout, and nothing else there
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let archs = match args.archs.as_slice() {
        [] => ARCHITECTURES.map(str::to_owned).to_vec(),
        some => some.to_vec(),
    };
    let tools = nvidia::tools()?;
    let reports = assemble_all(&tools, &archs)?;
    if args.json {
        println!("{}", serde_json::to_string(&reports)?);
    } else {
        print!("{}", table(&reports));
    }
    reject_early_accesses(&reports)?;
    limits::reject_many_registers(&reports)?;
    limits::reject_slow_loops(&reports)?;
    reject_local_memory(&reports, ALLOWED)
}

/// Assembles the committed PTX for one architecture.
pub fn reports(tools: &Tools, arch: &str) -> Result<Vec<KernelReport>> {
    assemble_all(tools, &[arch.to_owned()])
}

/// Assembles the committed PTX for `archs`, in their order; the kernels of each in the file's order.
fn assemble_all(tools: &Tools, archs: &[String]) -> Result<Vec<KernelReport>> {
    let available = committed()?;
    let progress = ProgressBar::new(archs.len() as u64).with_message("assembling");
    let reports: Vec<_> = archs
        .par_iter()
        .map(|arch| {
            let ptx = best_ptx(&available, capability(arch)?).with_context(|| {
                format!("no committed PTX that {arch} can load: run `cargo xtask build-ptx`")
            })?;
            let reports = assemble(tools, arch, ptx);
            progress.inc(1);
            reports
        })
        .collect::<Result<_>>()?;
    progress.finish_and_clear();
    Ok(reports.into_iter().flatten().collect())
}

/// The committed PTX files by compute capability.
fn committed() -> Result<BTreeMap<u32, std::path::PathBuf>> {
    let folder = workspace::ptx();
    let mut found = BTreeMap::new();
    for entry in
        std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path().join("bitnet.ptx");
        let arch = path.parent().and_then(|folder| folder.file_name());
        if let Some(arch) = arch.and_then(|name| name.to_str())
            && path.is_file()
        {
            found.insert(capability(arch)?, path.clone());
        }
    }
    Ok(found)
}

/// The newest PTX that a GPU of this capability can load: what the driver is given at run time.
fn best_ptx<T>(available: &BTreeMap<u32, T>, capability: u32) -> Option<&T> {
    available
        .range(..=capability)
        .next_back()
        .map(|(_, path)| path)
}

fn capability(arch: &str) -> Result<u32> {
    arch.strip_prefix("sm_")
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("`{arch}` is not an architecture like sm_90"))
}

fn assemble(tools: &Tools, arch: &str, ptx: &std::path::Path) -> Result<Vec<KernelReport>> {
    let folder = tempfile::tempdir()?;
    let cubin = folder.path().join("bitnet.cubin");
    let log = process::capture(
        tools
            .command("ptxas")
            .args(["--verbose", "--gpu-name", arch])
            .arg(ptx)
            .arg("--output-file")
            .arg(&cubin),
        LIMIT,
    )?;
    // ptxas reports on stderr.
    let resources =
        verbose::parse(&log.stderr).with_context(|| format!("ptxas's report for {arch}"))?;
    let disassembly =
        process::capture(tools.command("nvdisasm").arg("-json").arg(&cubin), LIMIT)?.stdout;
    let mut sass =
        sass::functions(&disassembly).with_context(|| format!("nvdisasm's output for {arch}"))?;
    resources
        .into_iter()
        .map(|resources| {
            let sass = sass.remove(&resources.kernel).with_context(|| {
                format!("nvdisasm shows no kernel `{}` for {arch}", resources.kernel)
            })?;
            Ok(KernelReport::new(arch, resources, sass))
        })
        .collect()
}

/// Fails on kernels that access memory before they wait for the grid in front (docs/kernels.md): compilers may move loads.
fn reject_early_accesses(reports: &[KernelReport]) -> Result<()> {
    let early = |report: &&KernelReport| !report.before_wait.is_empty();
    let rejected: String = reports
        .iter()
        .filter(early)
        .map(|report| {
            let accesses = report.before_wait.join(", ");
            format!("\n  {} on {}: {accesses}", report.kernel, report.arch)
        })
        .collect();
    if !rejected.is_empty() {
        bail!("kernels that access memory before `griddepcontrol.wait`:{rejected}");
    }
    Ok(())
}

/// Fails on kernels that spill registers or have a stack frame, except where an allowance says why they may.
fn reject_local_memory(reports: &[KernelReport], allowed: &[Allowance]) -> Result<()> {
    let mut rejected = String::new();
    for report in reports.iter().filter(|report| report.uses_local_memory()) {
        match allowed
            .iter()
            .find(|allowance| allowance.kernel == report.kernel)
        {
            Some(allowance) => eprintln!(
                "{} on {} uses local memory, allowed: {}",
                report.kernel, report.arch, allowance.reason
            ),
            None => {
                let _ = write!(
                    rejected,
                    "\n  {} on {}: {} bytes of spill stores, {} of spill loads, {} of stack",
                    report.kernel,
                    report.arch,
                    report.spill_stores,
                    report.spill_loads,
                    report.stack
                );
            }
        }
    }
    if !rejected.is_empty() {
        bail!("kernels that use local memory (see `ALLOWED` in xtask/src/ptxas/mod.rs):{rejected}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_gets_the_newest_ptx_it_can_load() {
        let available = BTreeMap::from([(75, "75"), (80, "80"), (90, "90")]);
        let best = |arch| best_ptx(&available, capability(arch).expect("well-formed")).copied();
        assert_eq!(
            ARCHITECTURES.map(best),
            [
                Some("75"),
                Some("80"),
                Some("80"),
                Some("80"),
                Some("90"),
                Some("90"),
                Some("90")
            ]
        );
        assert_eq!(best("sm_70"), None);
        assert!(capability("90").is_err());
    }

    #[test]
    fn an_access_before_the_wait_is_rejected() {
        let report = |kernel: &str, before_wait: &[&str]| {
            let resources = verbose::Resources {
                kernel: kernel.to_owned(),
                ..Default::default()
            };
            let code = sass::Code {
                opcodes: BTreeMap::new(),
                loops: Vec::new(),
                before_wait: before_wait.iter().map(|&name| name.to_owned()).collect(),
            };
            KernelReport::new("sm_90", resources, code)
        };
        reject_early_accesses(&[report("waits", &[])]).expect("nothing to reject");
        let reports = [
            report("waits", &[]),
            report("reads", &["LDG.E", "LDG.E.128"]),
        ];
        let error = reject_early_accesses(&reports).expect_err("one to reject");
        let told = error.to_string();
        assert!(told.contains("reads on sm_90: LDG.E, LDG.E.128"), "{told}");
        assert!(!told.contains("waits on"), "{told}");
    }

    #[test]
    fn local_memory_needs_a_reason() {
        let report = |kernel: &str, spill_stores, stack| {
            let resources = verbose::Resources {
                kernel: kernel.to_owned(),
                spill_stores,
                stack,
                ..Default::default()
            };
            let code = sass::Code {
                opcodes: BTreeMap::new(),
                loops: Vec::new(),
                before_wait: Vec::new(),
            };
            KernelReport::new("sm_90", resources, code)
        };
        reject_local_memory(&[report("clean", 0, 0)], &[]).expect("nothing to reject");
        let dirty = [report("spills", 8, 0), report("stack", 0, 16)];
        let error = reject_local_memory(&dirty, &[])
            .expect_err("two to reject")
            .to_string();
        assert!(
            error.contains("spills on sm_90: 8 bytes") && error.contains("16 of stack"),
            "{error}"
        );
        let allowed = |kernel| Allowance {
            kernel,
            reason: "a test",
        };
        reject_local_memory(&dirty, &[allowed("spills"), allowed("stack")]).expect("both allowed");
        reject_local_memory(&dirty, &[allowed("spills")]).expect_err("one is not allowed");
    }
}
