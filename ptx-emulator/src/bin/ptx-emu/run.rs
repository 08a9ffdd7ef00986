//! `ptx-emu run`, and one launch of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use ptx_emulator::{
    Checks, Config, Emulator, Fault, LaunchConfig, LaunchError, LoadedModule, Module, Report,
    command_line,
};
use serde_json::json;

use crate::arguments::{Argument, argument};
use crate::output::{counters, fault_json, put};
use crate::{Outcome, load};

/// A kernel of a file, and how to launch it.
#[derive(clap::Args)]
pub struct Kernel {
    /// The PTX file.
    pub file: PathBuf,
    /// Name of the kernel.
    #[arg(long)]
    pub entry: String,
    /// Blocks of the grid: X, X,Y or X,Y,Z.
    #[arg(long, value_parser = dimensions)]
    pub grid: [u32; 3],
    /// Threads per block: X, X,Y or X,Y,Z.
    #[arg(long, value_parser = dimensions)]
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    #[arg(long, default_value_t = 0)]
    pub shared: u32,
    /// Launch cooperatively: all blocks make progress, so they can wait for each other.
    #[arg(long)]
    pub cooperative: bool,
    /// A kernel argument, in order: `buf:IN` (a buffer from a file), `buf:IN:OUT` (also written to a file afterwards),
    /// `out:BYTES:OUT` (a new buffer), or a number as `u8:`, `u16:`, `u32:`, `u64:`, `s8:` to `s64:`, `f32:`, `f64:`.
    #[arg(long = "arg", value_name = "ARG")]
    pub args: Vec<String>,
    /// Compute capability of the device, such as 90.
    #[arg(long, default_value_t = 90)]
    pub capability: u32,
    /// Bytes of device memory.
    #[arg(long, default_value_t = Config::default().memory_limit)]
    pub memory: u64,
    /// The most warp instructions that a block may execute [default: unlimited].
    #[arg(long)]
    pub limit: Option<u64>,
    /// Print one JSON object on stdout, and nothing else there.
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct Run {
    #[command(flatten)]
    kernel: Kernel,
    /// Enabled checks: `all`, `none`, or a list of memory, initialization, races, synchronization.
    #[arg(long, default_value = "all", value_parser = checks)]
    check: Checks,
    /// CPU cores to use; 0 means all.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Shuffle the order of warps and blocks with this seed [default: ascending order].
    #[arg(long)]
    seed: Option<u64>,
    /// Also print the lines of PTX and source on which most instructions are issued.
    #[arg(long)]
    profile: bool,
}

fn dimensions(text: &str) -> Result<[u32; 3], String> {
    let mut dims = [1; 3];
    let parts: Vec<_> = text.split(',').collect();
    if parts.len() > 3 {
        return Err("give at most three numbers".into());
    }
    for (dim, part) in dims.iter_mut().zip(parts) {
        *dim = part
            .trim()
            .parse()
            .map_err(|_| format!("`{part}` is not a number"))?;
    }
    Ok(dims)
}

fn checks(text: &str) -> Result<Checks, String> {
    match text {
        "all" => return Ok(Checks::ALL),
        "none" => return Ok(Checks::NONE),
        _ => {}
    }
    let mut checks = Checks::NONE;
    for word in text.split(',') {
        match word {
            "memory" => checks.memory = true,
            "initialization" => checks.initialization = true,
            "races" => checks.races = true,
            "synchronization" => checks.synchronization = true,
            _ => {
                return Err(format!(
                    "`{word}` is not one of all, none, memory, initialization, races, synchronization"
                ));
            }
        }
    }
    Ok(checks)
}

/// Lines of each table of a profile.
const HOTTEST: usize = 30;

/// A device with a kernel's arguments in its memory.
pub struct Prepared {
    device: Emulator,
    loaded: LoadedModule,
    pub arguments: Vec<Argument>,
}

impl Kernel {
    pub fn prepare(&self, module: &Arc<Module>, config: Config) -> anyhow::Result<Prepared> {
        let device = Emulator::new(Config {
            compute_capability: self.capability,
            memory_limit: self.memory,
            instruction_limit: self.limit,
            ..config
        });
        let loaded = device
            .load(module)
            .with_context(|| self.file.display().to_string())?;
        let arguments = self.args.iter().map(|text| argument(&device, text));
        let arguments = arguments.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Prepared {
            device,
            loaded,
            arguments,
        })
    }

    /// The outer error is of a launch that cannot be made, the inner one what the kernel did.
    pub fn launch(&self, prepared: &Prepared) -> anyhow::Result<Result<Report, Box<Fault>>> {
        let arguments = prepared.arguments.iter();
        let bytes: Vec<_> = arguments
            .map(|argument| argument.bytes.as_slice())
            .collect();
        let shape = LaunchConfig {
            grid: self.grid,
            block: self.block,
            dynamic_shared: self.shared,
            cooperative: self.cooperative,
        };
        let Prepared { device, loaded, .. } = prepared;
        match device.launch(loaded, &self.entry, &shape, &bytes) {
            Ok(report) => Ok(Ok(report)),
            Err(LaunchError::Fault(fault)) => Ok(Err(fault)),
            Err(error) => Err(error.into()),
        }
    }
}

impl Prepared {
    /// Address, length and file of each buffer that is written to one.
    fn outputs(&self) -> impl Iterator<Item = &(u64, usize, PathBuf)> {
        let arguments = self.arguments.iter();
        arguments.filter_map(|argument| argument.output.as_ref())
    }

    /// A buffer's bytes.
    pub fn read(&self, address: u64, bytes: usize) -> anyhow::Result<Vec<u8>> {
        let mut data = vec![0; bytes];
        self.device.read(address, &mut data)?;
        Ok(data)
    }
}

/// Refuses before the kernel runs what could not be written after it.
fn require_writable(path: &Path) -> anyhow::Result<()> {
    let written = path.display();
    ensure!(!path.is_dir(), "cannot write {written}: it is a folder");
    if let Some(folder) = path.parent()
        && !folder.as_os_str().is_empty()
    {
        ensure!(
            folder.is_dir(),
            "cannot write {written}: there is no folder {}; make it first",
            folder.display()
        );
    }
    Ok(())
}

pub fn run_kernel(run: &Run) -> anyhow::Result<Outcome> {
    let kernel = &run.kernel;
    let module = Arc::new(load(&kernel.file)?);
    let config = Config {
        checks: run.check,
        threads: run.threads,
        seed: run.seed,
        ..Config::default()
    };
    let prepared = kernel.prepare(&module, config)?;
    for (_, _, path) in prepared.outputs() {
        require_writable(path)?;
    }
    let report = match kernel.launch(&prepared)? {
        Ok(report) => report,
        Err(fault) => {
            if kernel.json {
                let printed = &fault.printed;
                let object = json!({"fault": fault_json(&fault), "printed": printed});
                put(&format!("{object}\n"))?;
            } else {
                put(&fault.printed)?;
            }
            command_line::complain("ptx-emu", fault);
            return Ok(Outcome::Found);
        }
    };
    for (address, size, path) in prepared.outputs() {
        std::fs::write(path, prepared.read(*address, *size)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if kernel.json {
        let mut object = json!({
            "fault": null,
            "counters": report.counters,
            "load_efficiency": report.counters.global.load_efficiency(),
            "store_efficiency": report.counters.global.store_efficiency(),
            "allocations": report.allocations,
            "printed": report.printed,
        });
        if run.profile {
            object["lines"] = json!(report.lines);
            object["sources"] = json!(report.sources());
        }
        put(&format!("{object}\n"))?;
    } else {
        let mut text = report.printed.clone() + &counters(&report);
        if run.profile {
            text += &format!("\n{}", report.profile(HOTTEST));
        }
        put(&text)?;
    }
    Ok(Outcome::Ran)
}
