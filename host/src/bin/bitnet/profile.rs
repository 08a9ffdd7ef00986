//! `bitnet profile`: what the emulator counts in an operation, exact and the same on every machine.

use crate::operations::{Named, Operation, PRODUCTS, ROW_OPERATIONS, Sizes, WEIGHT_OPERATIONS};
use crate::output::{Outcome, Output};
use anyhow::{Context, Result, bail, ensure};
use bitnet_cuda::device::{Device, DeviceKind, LaunchReport};
use ptx_emulator::{Counters, Instructions, LineCounts};
use serde::Serialize;

#[derive(clap::Args)]
pub struct Args {
    /// The operation, such as `gemv` or `rmsnorm-quantize`; `list` prints all names
    #[arg(value_name = "OP")]
    operation: String,
    /// Output features, for operations with weights
    #[arg(long)]
    n: Option<usize>,
    /// Input features
    #[arg(long)]
    k: Option<usize>,
    /// Tokens, for operations with activations [default: 1]
    #[arg(long)]
    m: Option<usize>,
    /// Seed of the random data [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Also print the PTX lines on which warps issue the most instructions, this many
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    lines: usize,
}

/// The most elements of a matrix: the reference computes on it too.
const MAX_ELEMENTS: usize = 1 << 30;

/// Which sizes an operation has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// `m` and `k`
    Rows,
    /// `n` and `k`
    Weights,
    /// `m`, `n` and `k`
    Product,
}

impl Family {
    fn options(self) -> &'static str {
        match self {
            Self::Rows => "--k and, for more than one token, --m",
            Self::Weights => "--n and --k",
            Self::Product => "--n, --k and, for more than one token, --m",
        }
    }

    fn sizes(self, args: &Args) -> Result<Sizes> {
        let given = |size: Option<usize>, name: &str| match size {
            Some(0) => bail!("--{name} 0: give at least 1"),
            Some(size) => Ok(size),
            None => bail!(
                "{} needs --{name}: it takes {}",
                args.operation,
                self.options()
            ),
        };
        let no = |size: Option<usize>, name: &str| match size {
            Some(size) => bail!(
                "--{name} {size}: {} has no such size; it takes {}",
                args.operation,
                self.options()
            ),
            None => Ok(0),
        };
        let sizes = Sizes {
            m: match self {
                Self::Weights => no(args.m, "m")?,
                _ => given(args.m.or(Some(1)), "m")?,
            },
            n: match self {
                Self::Rows => no(args.n, "n")?,
                _ => given(args.n, "n")?,
            },
            k: given(args.k, "k")?,
        };
        sizes.require_at_most(MAX_ELEMENTS)?;
        Ok(sizes)
    }
}

/// Every operation, with the sizes that it has.
fn all() -> impl Iterator<Item = (Family, &'static Named)> {
    let products = PRODUCTS.iter().map(|named| (Family::Product, named));
    let rows = ROW_OPERATIONS.iter().map(|named| (Family::Rows, named));
    let weights = WEIGHT_OPERATIONS
        .iter()
        .map(|named| (Family::Weights, named));
    products.chain(rows).chain(weights)
}

/// A name as one types it: `rmsnorm + quantize` is `rmsnorm-quantize`.
fn typed(name: &str) -> String {
    let words: Vec<&str> = name
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    words.join("-")
}

/// What `list` prints.
#[derive(Serialize)]
struct Names {
    operations: Vec<Name>,
}

#[derive(Serialize)]
struct Name {
    operation: String,
    /// The sizes that it takes.
    options: &'static str,
}

#[derive(Serialize)]
struct Report {
    operation: String,
    device: String,
    m: usize,
    n: usize,
    k: usize,
    seed: u64,
    /// The kernel that does most of the work.
    variant: String,
    /// All launches together.
    counters: Summary,
    launches: Vec<Launch>,
    checked: usize,
    mismatches: usize,
    /// The minimal traffic in bytes: each input read once, each output written once.
    bytes: usize,
}

#[derive(Serialize)]
struct Launch {
    kernel: String,
    grid: [u32; 3],
    block: [u32; 3],
    counters: Summary,
    lines: Vec<LineCounts>,
}

/// What is counted, of one launch or of several.
#[derive(Serialize)]
struct Summary {
    /// That lanes executed.
    instructions: Instructions,
    /// That warps issued.
    warp_instructions: Instructions,
    global: Global,
    shared: Shared,
    divergent_branches: u64,
}

#[derive(Serialize)]
struct Global {
    requests: u64,
    sectors: u64,
    load_efficiency: f64,
    store_efficiency: f64,
    bytes_read: u64,
    bytes_written: u64,
    weight_bytes_read: u64,
}

#[derive(Serialize)]
struct Shared {
    bank_conflicts: u64,
}

impl Summary {
    fn new(counters: &Counters, weight_bytes_read: u64) -> Self {
        let global = &counters.global;
        Self {
            instructions: counters.lane,
            warp_instructions: counters.warp,
            global: Global {
                requests: global.requests(),
                sectors: global.sectors(),
                load_efficiency: global.load_efficiency(),
                store_efficiency: global.store_efficiency(),
                bytes_read: global.bytes_read,
                bytes_written: global.bytes_written,
                weight_bytes_read,
            },
            shared: Shared {
                bank_conflicts: counters.shared.bank_conflicts,
            },
            divergent_branches: counters.divergent_branches,
        }
    }
}

pub fn run(device: &str, args: &Args, output: Output) -> Result<Outcome> {
    if args.operation == "list" {
        let operations = all()
            .map(|(family, named)| Name {
                operation: typed(named.0),
                options: family.options(),
            })
            .collect();
        output.print(&Names { operations }, |names| {
            let rows = names
                .operations
                .iter()
                .map(|name| format!("{:44}{}\n", name.operation, name.options));
            rows.collect()
        })?;
        return Ok(Outcome::Right);
    }
    let (family, &Named(name, make)) = all()
        .find(|(_, named)| typed(named.0) == typed(&args.operation))
        .with_context(|| {
            format!(
                "there is no operation {:?}; `bitnet profile list` prints the names",
                args.operation
            )
        })?;
    let sizes = family.sizes(args)?;
    // Counts are the emulator's, whatever GPU there is.
    let device = Device::from_name(if device == "auto" { "emulated" } else { device })?;
    ensure!(
        device.kind() == DeviceKind::Emulated,
        "profile counts on the emulator, and {} is a GPU: use --device emulated, or `bitnet bench` for times",
        device.name()
    );
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut operation = make(&device, sizes, &mut fastrand::Rng::with_seed(seed))?;
    let (result, reports) = device.profile(|| operation.launch(&device.default_stream()))?;
    result?;
    let check = operation.check()?;

    let mut total = Counters::default();
    for report in &reports {
        total += report.counters;
    }
    let weight_bytes: u64 = reports
        .iter()
        .map(|report| weight_bytes_read(report, operation.as_ref()))
        .sum();
    let largest = reports
        .iter()
        .max_by_key(|report| report.counters.warp.total)
        .context("the operation launched no kernel")?;
    let report = Report {
        operation: typed(name),
        device: device.name().to_owned(),
        m: sizes.m,
        n: sizes.n,
        k: sizes.k,
        seed,
        variant: largest.kernel.clone(),
        counters: Summary::new(&total, weight_bytes),
        checked: check.checked,
        mismatches: check.mismatches,
        bytes: operation.bytes(),
        launches: reports
            .iter()
            .map(|report| Launch {
                kernel: report.kernel.clone(),
                grid: report.config.grid,
                block: report.config.block,
                counters: Summary::new(
                    &report.counters,
                    weight_bytes_read(report, operation.as_ref()),
                ),
                lines: hottest(&report.lines, args.lines),
            })
            .collect(),
    };
    output.print(&report, text)?;
    Ok(Outcome::of(report.mismatches))
}

/// Bytes that a launch read from the operation's packed weights.
fn weight_bytes_read(report: &LaunchReport, operation: &dyn Operation) -> u64 {
    let Some(weights) = operation.weights() else {
        return 0;
    };
    let of_weights = report
        .arguments
        .iter()
        .filter(|argument| weights.contains(&argument.address));
    of_weights.map(|argument| argument.bytes_read).sum()
}

fn hottest(lines: &[LineCounts], count: usize) -> Vec<LineCounts> {
    let mut lines = lines.to_vec();
    lines.sort_by_key(|line| std::cmp::Reverse(line.warp_instructions));
    lines.truncate(count);
    lines
}

fn text(report: &Report) -> String {
    let sizes = Sizes {
        m: report.m,
        n: report.n,
        k: report.k,
    };
    let mut text = format!(
        "{} {sizes} on {}, seed {}: {} values checked against the CPU reference, {} mismatches\n",
        report.operation, report.device, report.seed, report.checked, report.mismatches
    );
    for launch in &report.launches {
        let ([x, y, z], [a, b, c]) = (launch.grid, launch.block);
        text += &format!(
            "\n{}, grid {x} x {y} x {z}, block {a} x {b} x {c}\n",
            launch.kernel
        );
        text += &of_launch(&launch.counters);
        for line in &launch.lines {
            text += &format!(
                "{:>14} line {:<6} {}\n",
                line.warp_instructions,
                line.line,
                line.instruction.trim()
            );
        }
    }
    if report.launches.len() > 1 {
        text += "\nall launches\n";
        text += &of_launch(&report.counters);
    }
    text += &format!(
        "\n{:>14} bytes of minimal traffic: each input read once, each output written once\n",
        report.bytes
    );
    text
}

fn of_launch(counters: &Summary) -> String {
    let Summary {
        instructions: lanes,
        warp_instructions: warps,
        global,
        shared,
        divergent_branches,
    } = counters;
    let mut text = format!("{:>14} lane instructions, ", lanes.total);
    text += &format!("{} warp instructions\n", warps.total);
    for (class, count) in [
        ("dp4a", lanes.dp4a),
        ("integer", lanes.integer),
        ("float", lanes.float),
        ("load_global", lanes.load_global),
        ("store_global", lanes.store_global),
        ("shared", lanes.shared),
        ("branch", lanes.branch),
        ("other", lanes.other),
    ] {
        text += &format!("{count:>14}   {class}\n");
    }
    text += &format!(
        "{:>14} bytes read, {} of them weights; {:.1} % of the bytes of their sectors\n",
        global.bytes_read,
        global.weight_bytes_read,
        100.0 * global.load_efficiency
    );
    text += &format!(
        "{:>14} bytes written; {:.1} % of the bytes of their sectors\n",
        global.bytes_written,
        100.0 * global.store_efficiency
    );
    text += &format!(
        "{:>14} sectors in {} requests\n",
        global.sectors, global.requests
    );
    text += &format!(
        "{:>14} bank conflicts in shared memory\n",
        shared.bank_conflicts
    );
    text += &format!("{divergent_branches:>14} divergent branches\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_typed_without_signs() {
        assert_eq!(
            typed("gated squared relu + rmsnorm + quantize"),
            "gated-squared-relu-rmsnorm-quantize"
        );
    }

    #[test]
    fn every_operation_has_its_own_name() {
        let names: BTreeSet<String> = all().map(|(_, named)| typed(named.0)).collect();
        assert_eq!(names.len(), all().count());
        assert!(!names.contains("list"));
    }
}
