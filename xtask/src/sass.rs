//! `cargo xtask sass`: what the kernels' machine code is made of, kept in a file, so that a change which adds instructions to a
//! loop is seen in review.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::freshness::Freshness;
use crate::ptxas::{self, KernelReport, Loop};
use crate::setup::nvidia::{self, Tools};
use crate::workspace;

/// The architecture that is recorded: that of the GPU which the project's targets are for.
const ARCH: &str = "sm_90";

#[derive(Default, clap::Args)]
pub struct Args {
    /// Change nothing; fail if the committed PTX gives other machine code
    #[arg(long)]
    check: bool,
}

/// The file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    arch: String,
    /// The assembler, as it names itself: another one makes other code.
    ptxas: String,
    kernels: BTreeMap<String, Kernel>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kernel {
    registers: u32,
    instructions: u32,
    loops: Vec<Loop>,
}

pub fn run(args: &Args) -> Result<()> {
    let tools = nvidia::tools()?;
    if !args.check {
        let record = make(&tools)?;
        workspace::write(&path(), &text(&record)?)?;
        println!("{}: {} kernels", path().display(), record.kernels.len());
        return Ok(());
    }
    check(&tools)?.require("benches/sass.json")
}

/// Compares the file with what the committed PTX gives, where this is the recorded assembler.
pub fn check(tools: &Tools) -> Result<Freshness> {
    let kept =
        fs::read_to_string(path()).with_context(|| format!("cannot read {}", path().display()))?;
    let kept: Record = serde_json::from_str(&kept).with_context(|| path().display().to_string())?;
    let version = tools.version()?;
    if kept.ptxas != version {
        return Ok(Freshness::Unproven(format!(
            "it was recorded with ptxas {}, this is {version}",
            kept.ptxas
        )));
    }
    let differences = differences(&kept, &make(tools)?);
    if !differences.is_empty() {
        bail!(
            "{} is stale; run `cargo xtask sass` and look at what changed:{differences}",
            path().display()
        );
    }
    Ok(Freshness::Proven(format!(
        "ptxas {version} gives the same code"
    )))
}

fn path() -> PathBuf {
    workspace::root().join("benches/sass.json")
}

fn make(tools: &Tools) -> Result<Record> {
    Ok(Record {
        arch: ARCH.to_owned(),
        ptxas: tools.version()?,
        kernels: ptxas::reports(tools, ARCH)?
            .into_iter()
            .map(kernel)
            .collect(),
    })
}

fn kernel(report: KernelReport) -> (String, Kernel) {
    let kernel = Kernel {
        registers: report.registers,
        instructions: report.sass.values().sum(),
        loops: report.loops,
    };
    (report.kernel, kernel)
}

/// One line per loop, so that a change of one is a changed line.
fn text(record: &Record) -> Result<String> {
    let mut text = format!(
        "{{\n\"arch\": {},\n\"ptxas\": {},\n\"kernels\": {{",
        json(&record.arch)?,
        json(&record.ptxas)?
    );
    for (index, (name, kernel)) in record.kernels.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let Kernel {
            registers,
            instructions,
            loops,
        } = kernel;
        write!(
            text,
            "{comma}\n{}: {{\"registers\": {registers}, \"instructions\": {instructions}, \"loops\": [",
            json(name)?
        )?;
        let lines: Vec<String> = loops.iter().map(json).collect::<Result<_>>()?;
        if !lines.is_empty() {
            write!(text, "\n  {}\n", lines.join(",\n  "))?;
        }
        text += "]}";
    }
    Ok(text + "\n}\n}\n")
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}

/// How often each instruction stands in a kernel's loops.
fn in_loops(kernel: &Kernel) -> BTreeMap<&str, u32> {
    let mut counts = BTreeMap::new();
    for (mnemonic, count) in kernel.loops.iter().flat_map(|found| &found.sass) {
        *counts.entry(mnemonic.as_str()).or_default() += count;
    }
    counts
}

fn differences(kept: &Record, now: &Record) -> String {
    let mut text = String::new();
    for name in kept
        .kernels
        .keys()
        .chain(now.kernels.keys())
        .collect::<BTreeSet<_>>()
    {
        let sizes = |kernel: &Kernel| {
            let loops: Vec<usize> = kernel
                .loops
                .iter()
                .map(|found| found.instructions)
                .collect();
            format!(
                "{} registers, {} instructions, loops of {loops:?}",
                kernel.registers, kernel.instructions
            )
        };
        match (kept.kernels.get(name), now.kernels.get(name)) {
            (kept, now) if kept == now => {}
            (Some(kept), Some(now)) => {
                let _ = write!(text, "\n  {name}: {}; now {}", sizes(kept), sizes(now));
                let (kept, now) = (in_loops(kept), in_loops(now));
                for mnemonic in kept.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
                    let of = |counts: &BTreeMap<&str, u32>| counts.get(mnemonic).copied();
                    let (before, after) = (of(&kept).unwrap_or(0), of(&now).unwrap_or(0));
                    if before != after {
                        let _ = write!(text, ", {mnemonic} {before} -> {after}");
                    }
                }
            }
            (Some(_), None) => {
                let _ = write!(text, "\n  {name} is gone");
            }
            (None, _) => {
                let _ = write!(text, "\n  {name} is new");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(instructions: usize) -> Record {
        let kernel = |instructions| Kernel {
            registers: 40,
            instructions: 100,
            loops: vec![Loop {
                start: 3,
                instructions,
                sass: BTreeMap::from([("IDP.4A.U8.S8".to_owned(), 32)]),
            }],
        };
        Record {
            arch: ARCH.to_owned(),
            ptxas: "release 13.0".to_owned(),
            kernels: BTreeMap::from([
                ("gemv".to_owned(), kernel(instructions)),
                (
                    "empty".to_owned(),
                    Kernel {
                        registers: 2,
                        instructions: 1,
                        loops: Vec::new(),
                    },
                ),
            ]),
        }
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let text = text(&record(50)).expect("plain data");
        assert_eq!(
            serde_json::from_str::<Record>(&text).expect("JSON"),
            record(50)
        );
        assert!(
            text.lines()
                .all(|line| line.matches("\"start\"").count() <= 1),
            "{text}"
        );
    }

    #[test]
    fn an_instruction_more_in_a_loop_is_told() {
        assert_eq!(differences(&record(50), &record(50)), "");
        let told = differences(&record(50), &record(51));
        assert!(
            told.contains("gemv")
                && told.contains("[50]")
                && told.contains("[51]")
                && !told.contains("empty"),
            "{told}"
        );
        let mut other = record(50);
        let gemv = other.kernels.get_mut("gemv").expect("it is there");
        gemv.loops[0].sass =
            BTreeMap::from([("IDP.4A.U8.S8".to_owned(), 31), ("SHF.R.U32".to_owned(), 1)]);
        let told = differences(&record(50), &other);
        assert!(
            told.contains("IDP.4A.U8.S8 32 -> 31, SHF.R.U32 0 -> 1"),
            "{told}"
        );
        let mut more = record(50);
        more.kernels
            .get_mut("empty")
            .expect("it is there")
            .registers = 3;
        assert!(differences(&record(50), &more).contains("empty: 2 registers"));
        let mut less = record(50);
        less.kernels.remove("gemv");
        assert!(differences(&record(50), &less).contains("gemv is gone"));
        assert!(differences(&less, &record(50)).contains("gemv is new"));
    }
}
