//! `ptx-emu`: runs a kernel of a PTX file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use ptx_emulator::{
    Checks, Config, Emulator, Fault, LaunchConfig, LaunchError, LineCounts, Module, Report,
};
use serde_json::json;

/// Runs NVIDIA PTX on the CPU, checked and counted.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one kernel.
    Run(Run),
    /// List the kernels of a file.
    List {
        /// The PTX file.
        file: PathBuf,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct Run {
    /// The PTX file.
    file: PathBuf,
    /// Name of the kernel.
    #[arg(long)]
    entry: String,
    /// Blocks: X, X,Y or X,Y,Z.
    #[arg(long, value_parser = dimensions)]
    grid: [u32; 3],
    /// Threads of a block: X, X,Y or X,Y,Z.
    #[arg(long, value_parser = dimensions)]
    block: [u32; 3],
    /// Bytes of dynamic shared memory.
    #[arg(long, default_value_t = 0)]
    shared: u32,
    /// Let blocks wait for each other.
    #[arg(long)]
    cooperative: bool,
    /// An argument, in order: `buf:IN` (a buffer from a file), `buf:IN:OUT` (written to a file afterwards),
    /// `out:BYTES:OUT` (a new buffer), or a number as `u8:`, `u16:`, `u32:`, `u64:`, `s8:` to `s64:`, `f32:`, `f64:`.
    #[arg(long = "arg", value_name = "ARG")]
    args: Vec<String>,
    /// Checks to make: `all`, `none`, or a list of memory, initialization, races, synchronization.
    #[arg(long, default_value = "all", value_parser = checks)]
    check: Checks,
    /// Compute capability of the device, such as 90.
    #[arg(long, default_value_t = 90)]
    capability: u32,
    /// Most warp instructions a block may run.
    #[arg(long)]
    limit: Option<u64>,
    /// Cores to use; 0 takes all.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Shuffle the order of warps and blocks.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the hottest lines.
    #[arg(long)]
    profile: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
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

/// How the command ended, where it could run as asked.
enum Outcome {
    Ran,
    Fault,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let help = !error.use_stderr();
            // Nothing is left to do where the message cannot be printed.
            let _ = error.print();
            return ExitCode::from(if help { 0 } else { 2 });
        }
    };
    let outcome = match cli.command {
        Command::Run(run) => run_kernel(&run),
        Command::List { file, json } => list(&file, json),
    };
    match outcome {
        Ok(Outcome::Ran) => ExitCode::SUCCESS,
        Ok(Outcome::Fault) => ExitCode::from(1),
        Err(error) => {
            eprintln!("ptx-emu: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn load(file: &Path) -> anyhow::Result<Module> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Module::parse(&text).with_context(|| file.display().to_string())
}

fn list(file: &Path, as_json: bool) -> anyhow::Result<Outcome> {
    let module = load(file)?;
    if as_json {
        let entries: Vec<_> = module
            .entries()
            .map(|entry| {
                let params: Vec<_> = entry
                    .params
                    .iter()
                    .map(|param| json!({"name": param.name, "size": param.size, "align": param.align}))
                    .collect();
                json!({
                    "name": entry.name,
                    "line": entry.line,
                    "params": params,
                    "max_threads": entry.max_threads,
                    "static_shared": entry.static_shared,
                })
            })
            .collect();
        let (major, minor) = module.ptx_version();
        println!(
            "{}",
            json!({"target": module.target(), "version": format!("{major}.{minor}"), "entries": entries})
        );
        return Ok(Outcome::Ran);
    }
    println!("sm_{}", module.target());
    for entry in module.entries() {
        let sizes: Vec<_> = entry
            .params
            .iter()
            .map(|param| param.size.to_string())
            .collect();
        println!(
            "{}  line {}, parameters of {} bytes, {} bytes of static shared memory",
            entry.name,
            entry.line,
            sizes.join(" "),
            entry.static_shared
        );
    }
    Ok(Outcome::Ran)
}

/// A kernel argument, and the file that its buffer goes to afterwards.
struct Argument {
    bytes: Vec<u8>,
    output: Option<(u64, usize, PathBuf)>,
}

fn argument(device: &Emulator, text: &str) -> anyhow::Result<Argument> {
    let (kind, rest) = text
        .split_once(':')
        .with_context(|| format!("argument `{text}`: write it as KIND:VALUE"))?;
    let buffer = |bytes: usize| {
        device
            .alloc(bytes)
            .with_context(|| format!("argument `{text}`"))
    };
    macro_rules! number {
        ($ty:ty) => {
            rest.parse::<$ty>()
                .with_context(|| format!("argument `{text}`: `{rest}` is not a {kind}"))?
                .to_le_bytes()
                .to_vec()
        };
    }
    let bytes = match kind {
        "buf" => {
            let (input, output) = match rest.split_once(':') {
                Some((input, output)) => (input, Some(PathBuf::from(output))),
                None => (rest, None),
            };
            let data = std::fs::read(input).with_context(|| format!("cannot read {input}"))?;
            let address = buffer(data.len())?;
            device.write(address, &data)?;
            return Ok(Argument {
                bytes: address.to_le_bytes().to_vec(),
                output: output.map(|path| (address, data.len(), path)),
            });
        }
        "out" => {
            let (size, path) = rest
                .split_once(':')
                .with_context(|| format!("argument `{text}`: write it as out:BYTES:FILE"))?;
            let size = size
                .parse()
                .with_context(|| format!("argument `{text}`: `{size}` is not a number"))?;
            let address = buffer(size)?;
            return Ok(Argument {
                bytes: address.to_le_bytes().to_vec(),
                output: Some((address, size, PathBuf::from(path))),
            });
        }
        "u8" => number!(u8),
        "u16" => number!(u16),
        "u32" => number!(u32),
        "u64" => number!(u64),
        "s8" => number!(i8),
        "s16" => number!(i16),
        "s32" => number!(i32),
        "s64" => number!(i64),
        "f32" => number!(f32),
        "f64" => number!(f64),
        _ => bail!(
            "argument `{text}`: `{kind}` is not one of buf, out, u8 to u64, s8 to s64, f32, f64"
        ),
    };
    Ok(Argument {
        bytes,
        output: None,
    })
}

fn run_kernel(run: &Run) -> anyhow::Result<Outcome> {
    let module = Arc::new(load(&run.file)?);
    let device = Emulator::new(Config {
        checks: run.check,
        compute_capability: run.capability,
        instruction_limit: run.limit,
        threads: run.threads,
        seed: run.seed,
        ..Config::default()
    });
    let loaded = device.load(&module)?;
    let arguments = run
        .args
        .iter()
        .map(|text| argument(&device, text))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let bytes: Vec<_> = arguments
        .iter()
        .map(|argument| argument.bytes.as_slice())
        .collect();
    let shape = LaunchConfig {
        grid: run.grid,
        block: run.block,
        dynamic_shared: run.shared,
        cooperative: run.cooperative,
    };
    let report = match device.launch(&loaded, &run.entry, &shape, &bytes) {
        Ok(report) => report,
        Err(LaunchError::Fault(fault)) => {
            if run.json {
                let printed = &fault.printed;
                println!(
                    "{}",
                    json!({"fault": fault_json(&fault), "printed": printed})
                );
            } else {
                print!("{}", fault.printed);
            }
            eprintln!("ptx-emu: {fault}");
            return Ok(Outcome::Fault);
        }
        Err(error) => return Err(error.into()),
    };
    for (address, size, path) in arguments
        .iter()
        .filter_map(|argument| argument.output.as_ref())
    {
        let mut data = vec![0; *size];
        device.read(*address, &mut data)?;
        std::fs::write(path, data).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if run.json {
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
        }
        println!("{object}");
    } else {
        print!("{}", report.printed);
        print_counters(&report);
        if run.profile {
            print_profile(&report.lines);
        }
    }
    Ok(Outcome::Ran)
}

fn fault_json(fault: &Fault) -> serde_json::Value {
    json!({
        "message": fault.to_string(),
        "kind": fault.kind.to_string(),
        "kernel": fault.kernel,
        "ptx_line": fault.ptx_line,
        "instruction": fault.instruction,
        "source": fault.source,
        "block": fault.block,
        "thread": fault.thread,
        "space": fault.space.map(|space| space.to_string()),
        "address": fault.address,
        "nearest": fault.nearest.as_ref().map(ToString::to_string),
    })
}

fn print_counters(report: &Report) {
    let counters = &report.counters;
    println!("instructions          lanes        warps");
    let (lane, warp) = (&counters.lane, &counters.warp);
    for (name, lanes, warps) in [
        ("total", lane.total, warp.total),
        ("integer", lane.integer, warp.integer),
        ("float", lane.float, warp.float),
        ("dp4a", lane.dp4a, warp.dp4a),
        ("load global", lane.load_global, warp.load_global),
        ("store global", lane.store_global, warp.store_global),
        ("shared", lane.shared, warp.shared),
        ("branch", lane.branch, warp.branch),
        ("other", lane.other, warp.other),
    ] {
        println!("  {name:<12} {lanes:>12} {warps:>12}");
    }
    let global = &counters.global;
    println!(
        "global loads          {} requests, {} sectors, {} bytes, {:.1} % of the sectors' bytes",
        global.load_requests,
        global.load_sectors,
        global.bytes_read,
        100.0 * global.load_efficiency()
    );
    println!(
        "global stores         {} requests, {} sectors, {} bytes, {:.1} % of the sectors' bytes",
        global.store_requests,
        global.store_sectors,
        global.bytes_written,
        100.0 * global.store_efficiency()
    );
    let shared = &counters.shared;
    println!(
        "shared memory         {} requests, {} wavefronts, {} of them bank conflicts",
        shared.requests, shared.wavefronts, shared.bank_conflicts
    );
    println!("divergent branches    {}", counters.divergent_branches);
    println!("barrier arrivals      {}", counters.barriers);
}

fn print_profile(lines: &[LineCounts]) {
    let total: u64 = lines.iter().map(|line| line.warp_instructions).sum();
    let mut hottest: Vec<_> = lines.iter().collect();
    hottest.sort_by_key(|line| std::cmp::Reverse(line.warp_instructions));
    println!("\n   line      warps       %      lanes    sectors  conflicts  instruction");
    for line in hottest.into_iter().take(30) {
        println!(
            "{:>7} {:>10} {:>6.2} {:>11} {:>10} {:>10}  {}",
            line.line,
            line.warp_instructions,
            100.0 * line.warp_instructions as f64 / total.max(1) as f64,
            line.lane_instructions,
            line.sectors,
            line.bank_conflicts,
            line.instruction
        );
    }
}
