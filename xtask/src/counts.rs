//! `cargo xtask counts`: what the products of all measured shapes execute and move, counted by the emulator and kept in a file: exact,
//! and the same on every machine. `cargo xtask report` makes a table and a figure of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressIterator;
use kernel_benches::SHAPES;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifacts::{self, Kind};
use crate::{process, workspace};

/// What is counted: an operation of `bitnet profile`, and its tokens.
const OPERATIONS: [(&str, usize); 3] = [("gemv", 1), ("gemv", 8), ("int8xint2", 1)];

const LIMIT: Duration = Duration::from_secs(1800);

#[derive(Default, clap::Args)]
pub struct Args {
    /// Change nothing; fail if the committed PTX gives other counts
    #[arg(long)]
    check: bool,
    /// PTX of Microsoft's kernels (`ladder_int8xint2_kernel`), to count them too; by default their recorded counts are kept
    #[arg(
        long,
        value_name = "FILE",
        requires = "peer_source",
        conflicts_with = "check"
    )]
    peer_ptx: Option<PathBuf>,
    /// Origin of that PTX, to be recorded: repository, commit, compiler
    #[arg(long, value_name = "TEXT", requires = "peer_ptx")]
    peer_source: Option<String>,
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// This library's.
    pub products: Vec<Product>,
    pub peer: Option<Peer>,
}

/// Microsoft's kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Repository, commit, compiler.
    pub source: String,
    pub products: Vec<Product>,
}

/// One product, `[m, k]` by `[n, k]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// As `bitnet profile` names it.
    pub op: String,
    pub kernel: String,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// Instructions by lanes: one of a full warp counts 32 times.
    pub instructions: u64,
    /// Sectors of 32 bytes of global memory that requests asked for.
    pub sectors: u64,
    pub bank_conflicts: u64,
}

impl Product {
    /// Instructions for each `dp4a` that one token's product needs at least: a quarter of the weights.
    pub fn per_dp4a(&self) -> f64 {
        self.instructions as f64 / (self.n * self.k / 4) as f64
    }

    /// Sectors for each one that the weights fill: 128 of them at 2 bits.
    pub fn per_weight_sector(&self) -> f64 {
        self.sectors as f64 / (self.n * self.k / 128) as f64
    }
}

impl Record {
    /// # Errors
    /// When the file is not there or is none of this format.
    pub fn read() -> Result<Self> {
        let path = path();
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// This library's product.
    pub fn find(&self, op: &str, m: usize, shape: (usize, usize)) -> Option<&Product> {
        let wanted = |product: &&Product| (product.op.as_str(), product.m) == (op, m);
        of_shape(&self.products, shape).find(wanted)
    }

    /// The other library's product of one token.
    pub fn find_peer(&self, shape: (usize, usize)) -> Option<&Product> {
        of_shape(&self.peer.as_ref()?.products, shape).next()
    }
}

fn of_shape(products: &[Product], shape: (usize, usize)) -> impl Iterator<Item = &Product> {
    products
        .iter()
        .filter(move |product| (product.n, product.k) == shape)
}

pub fn run(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    let peer = match (&args.peer_ptx, &args.peer_source) {
        (Some(ptx), Some(source)) => Some(Peer {
            source: source.clone(),
            products: peer_products(ptx)?,
        }),
        _ if path().is_file() => Record::read()?.peer,
        _ => None,
    };
    let record = Record {
        products: products()?,
        peer,
    };
    workspace::write(&path(), &text(&record)?)?;
    println!("{}: {} products", path().display(), record.products.len());
    Ok(())
}

/// Fails where the file is not what the committed PTX gives.
pub fn check() -> Result<()> {
    let differences = differences(&Record::read()?.products, &products()?);
    ensure!(
        differences.is_empty(),
        "{} is stale; run `cargo xtask counts`, look at what changed, then `cargo xtask report`:{differences}",
        path().display()
    );
    Ok(())
}

fn path() -> PathBuf {
    workspace::root().join("benches/counts.json")
}

fn products() -> Result<Vec<Product>> {
    let built = artifacts::of_workspace()?;
    let bitnet = artifacts::file(&built, Kind::Program, "bitnet")?;
    let all = OPERATIONS
        .into_iter()
        .flat_map(|(op, m)| SHAPES.map(|shape| (op, m, shape)));
    let all: Vec<_> = all.collect();
    all.into_iter()
        .progress()
        .map(|(op, m, shape)| product(bitnet, op, m, shape))
        .collect()
}

/// What a program prints as JSON.
fn json_of(command: &mut Command) -> Result<Value> {
    let captured = process::capture(command, LIMIT)?;
    serde_json::from_str(&captured.stdout)
        .with_context(|| format!("the program wrote `{}`", captured.stdout))
}

fn count(counters: &Value, pointer: &str) -> Result<u64> {
    counters
        .pointer(pointer)
        .and_then(Value::as_u64)
        .with_context(|| format!("no count {pointer} in {counters}"))
}

fn product(bitnet: &Path, op: &str, m: usize, (n, k): (usize, usize)) -> Result<Product> {
    let arguments =
        format!("profile {op} --m {m} --n {n} --k {k} --seed 1 --device emulated --json");
    let report = json_of(Command::new(bitnet).args(arguments.split(' ')))?;
    ensure!(
        count(&report, "/mismatches")? == 0,
        "{op} {m} x {n} x {k} is wrong"
    );
    let kernel = report["variant"].as_str().context("no kernel")?;
    Ok(Product {
        op: op.to_owned(),
        kernel: kernel.to_owned(),
        m,
        n,
        k,
        instructions: count(&report, "/counters/instructions/total")?,
        sectors: count(&report, "/counters/global/sectors")?,
        bank_conflicts: count(&report, "/counters/shared/bank_conflicts")?,
    })
}

/// Microsoft's kernels in a PTX file, each on data of its shape; counts do not depend on the values.
fn peer_products(ptx: &Path) -> Result<Vec<Product>> {
    let text = fs::read_to_string(ptx).with_context(|| format!("cannot read {}", ptx.display()))?;
    let entries: Vec<Ladder> = text.lines().filter_map(Ladder::of_line).collect();
    if entries.is_empty() {
        bail!("{} has no entry of ladder_int8xint2_kernel", ptx.display());
    }
    let built = artifacts::of_workspace()?;
    let ptx_emu = artifacts::file(&built, Kind::Program, "ptx-emu")?;
    let folder = tempfile::tempdir()?;
    let buffer = |name: &str, bytes: usize| -> Result<String> {
        let path = folder.path().join(name);
        fs::write(&path, vec![0x55; bytes])?;
        Ok(format!("buf:{}", path.display()))
    };
    let product = |ladder: Ladder| {
        let Ladder {
            entry,
            n,
            k,
            scales,
        } = ladder;
        let arguments = [
            buffer("activations", k)?,
            buffer("weights", n * k / 4)?,
            format!("out:{}:{}", 2 * n, folder.path().join("output").display()),
            buffer("activation_scale", 2)?,
            buffer("weight_scales", 2 * scales)?,
        ];
        let mut command = Command::new(ptx_emu);
        command
            .arg("run")
            .arg(ptx)
            .args(["--json", "--entry", &entry]);
        command.args(["--grid", &(n / 16).to_string(), "--block", "8,16"]);
        for argument in arguments {
            command.args(["--arg", &argument]);
        }
        let report = json_of(&mut command).with_context(|| format!("{n} x {k}"))?;
        Ok(Product {
            op: "int8xint2".to_owned(),
            kernel: "ladder_int8xint2_kernel".to_owned(),
            m: 1,
            n,
            k,
            instructions: count(&report, "/counters/lane/total")?,
            sectors: count(&report, "/counters/global/load_sectors")?
                + count(&report, "/counters/global/store_sectors")?,
            bank_conflicts: count(&report, "/counters/shared/bank_conflicts")?,
        })
    };
    entries.into_iter().progress().map(product).collect()
}

/// An instance of Microsoft's kernel template, which has its sizes in its name.
#[derive(Debug, PartialEq, Eq)]
struct Ladder {
    entry: String,
    n: usize,
    k: usize,
    /// Scales of the weights.
    scales: usize,
}

impl Ladder {
    /// The instance whose `.entry` stands on the line. Template arguments, in C++'s mangling: M, N, K, scales, and the block's two
    /// sizes, 8 and 16 in all that are published.
    fn of_line(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(".entry ")?;
        let entry = rest.split('(').next()?.trim();
        let (_, arguments) = entry.split_once("ladder_int8xint2_kernelI")?;
        let (arguments, _) = arguments.split_once("EEv")?;
        let arguments: Option<Vec<usize>> = arguments
            .split('E')
            .map(|argument| argument.strip_prefix("Li")?.parse().ok())
            .collect();
        match arguments?[..] {
            [1, n, k, scales, 8, 16] => Some(Self {
                entry: entry.to_owned(),
                n,
                k,
                scales,
            }),
            _ => None,
        }
    }
}

/// A line a product, so that a change of one is a changed line.
fn text(record: &Record) -> Result<String> {
    let lines = |products: &[Product]| -> Result<String> {
        let lines: Vec<String> = products
            .iter()
            .map(|product| Ok(serde_json::to_string(product)?))
            .collect::<Result<_>>()?;
        Ok(lines.join(",\n  "))
    };
    let mut text = format!(
        "{{\n\"products\": [\n  {}\n],\n\"peer\": ",
        lines(&record.products)?
    );
    match &record.peer {
        None => text += "null",
        Some(peer) => {
            let source = serde_json::to_string(&peer.source)?;
            let products = lines(&peer.products)?;
            write!(
                text,
                "{{\n\"source\": {source},\n\"products\": [\n  {products}\n]\n}}"
            )?;
        }
    }
    Ok(text + "\n}\n")
}

fn differences(kept: &[Product], now: &[Product]) -> String {
    let key = |product: &Product| (product.op.clone(), product.m, product.n, product.k);
    let keys: BTreeSet<_> = kept.iter().chain(now).map(key).collect();
    let mut text = String::new();
    for wanted in keys {
        let find = |products: &[Product]| {
            products
                .iter()
                .find(|product| key(product) == wanted)
                .cloned()
        };
        let (kept, now) = (find(kept), find(now));
        if kept != now {
            let counts = |product: Option<Product>| {
                product.map_or("none".to_owned(), |product| {
                    format!(
                        "{} of {} instructions, {} sectors, {} bank conflicts",
                        product.kernel,
                        product.instructions,
                        product.sectors,
                        product.bank_conflicts
                    )
                })
            };
            let (op, m, n, k) = wanted;
            let _ = write!(
                text,
                "\n  {op} {m} x {n} x {k}: {}; now {}",
                counts(kept),
                counts(now)
            );
        }
    }
    text
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn product(op: &str, m: usize, instructions: u64) -> Product {
        Product {
            op: op.to_owned(),
            kernel: "gemv_m1_t1_w4".to_owned(),
            m,
            n: 2560,
            k: 2560,
            instructions,
            sectors: 50_000,
            bank_conflicts: 0,
        }
    }

    /// Counts of one shape.
    pub fn sample() -> Record {
        Record {
            products: vec![product("gemv", 1, 4_096_000), product("gemv", 8, 5_000_000)],
            peer: Some(Peer {
                source: "a \"repository\"".to_owned(),
                products: vec![product("int8xint2", 1, 32_768_000)],
            }),
        }
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let without = Record {
            peer: None,
            ..sample()
        };
        for record in [sample(), without] {
            let text = text(&record).expect("plain data");
            assert_eq!(serde_json::from_str::<Record>(&text).expect("JSON"), record);
            let products = text.lines().filter(|line| line.contains("\"op\""));
            let all = record.products.len() + record.peer.map_or(0, |peer| peer.products.len());
            assert_eq!(products.count(), all, "a line a product");
        }
    }

    #[test]
    fn products_are_found_by_what_they_are() {
        let record = sample();
        let shape = (2560, 2560);
        let per_dp4a = |product: Option<&Product>| product.map(Product::per_dp4a);
        assert_eq!(per_dp4a(record.find("gemv", 1, shape)), Some(2.5));
        assert_eq!(per_dp4a(record.find_peer(shape)), Some(20.0));
        assert_eq!(record.find("int8xint2", 1, shape), None);
        assert_eq!(record.find("gemv", 1, (2560, 2561)), None);
    }

    #[test]
    fn what_changed_is_told() {
        let kept = sample().products;
        assert_eq!(differences(&kept, &kept), "");
        let mut now = kept.clone();
        now[1].instructions += 1;
        let told = differences(&kept, &now);
        assert!(
            told.contains("gemv 8 x 2560 x 2560") && told.contains("5000001"),
            "{told}"
        );
        assert!(!told.contains("gemv 1 x"), "{told}");
        assert!(differences(&kept, &now[..1]).contains("now none"));
        assert!(differences(&kept[..1], &now).contains("none; now"));
    }

    #[test]
    fn instances_of_microsofts_template_are_found_by_name() {
        let line = ".visible .entry _Z23ladder_int8xint2_kernelILi1ELi3840ELi2560ELi3ELi8ELi16EEvPaS0_P13__nv_bfloat16S2_S2_(";
        let ladder = Ladder::of_line(line).expect("an instance");
        assert_eq!((ladder.n, ladder.k, ladder.scales), (3840, 2560, 3));
        assert!(ladder.entry.starts_with("_Z23") && ladder.entry.ends_with("S2_"));
        for other in [
            ".visible .entry gemv_m1_t1_w1(",
            "call ladder_int8xint2_kernelILi1ELi3840ELi2560ELi3ELi8ELi16EEv",
            &line.replace("Li8ELi16E", "Li4ELi16E"),
            &line.replace("ILi1E", "ILi2E"),
        ] {
            assert_eq!(Ladder::of_line(other), None, "{other}");
        }
    }
}
