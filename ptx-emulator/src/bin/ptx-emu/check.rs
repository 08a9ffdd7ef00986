//! `ptx-emu check`: every check, in many orders.

use std::sync::Arc;

use ptx_emulator::{Config, Fault};
use serde_json::json;

use crate::output::{fault_json, put};
use crate::run::Kernel;
use crate::{Outcome, load};

#[derive(clap::Args)]
pub struct Check {
    #[command(flatten)]
    kernel: Kernel,
    /// Orders of warps and blocks to try, in addition to the ascending one.
    #[arg(long, default_value_t = 16)]
    seeds: u64,
}

/// A finding, and the orders in which it showed: `None` is the ascending one.
struct Found {
    fault: Box<Fault>,
    seeds: Vec<Option<u64>>,
}

/// A buffer whose bytes depend on the order.
struct Difference {
    argument: usize,
    byte: usize,
    seed: u64,
}

/// Runs the kernel in each order, on fresh memory. No file is written.
pub fn check_kernel(check: &Check) -> anyhow::Result<Outcome> {
    let kernel = &check.kernel;
    let module = Arc::new(load(&kernel.file)?);
    let mut found: Vec<Found> = Vec::new();
    let mut differences: Vec<Difference> = Vec::new();
    let mut expected: Option<Vec<Vec<u8>>> = None;
    for seed in std::iter::once(None).chain((0..check.seeds).map(Some)) {
        let config = Config {
            seed,
            ..Config::default()
        };
        let prepared = kernel.prepare(&module, config)?;
        if let Err(fault) = kernel.launch(&prepared)? {
            let same = found.iter_mut().find(|known| {
                (&known.fault.kind, known.fault.ptx_line) == (&fault.kind, fault.ptx_line)
            });
            match same {
                Some(known) => known.seeds.push(seed),
                None => found.push(Found {
                    fault,
                    seeds: vec![seed],
                }),
            }
            continue;
        }
        let buffers = prepared
            .arguments
            .iter()
            .map(|argument| match &argument.buffer {
                Some((address, bytes)) => prepared.read(*address, *bytes),
                None => Ok(Vec::new()),
            });
        let buffers = buffers.collect::<anyhow::Result<Vec<_>>>()?;
        let (Some(expected), Some(seed)) = (&expected, seed) else {
            expected = Some(buffers);
            continue;
        };
        for (argument, (bytes, want)) in buffers.iter().zip(expected).enumerate() {
            let known = differences.iter().any(|known| known.argument == argument);
            let differs = bytes.iter().zip(want).position(|(byte, want)| byte != want);
            if let (Some(byte), false) = (differs, known) {
                differences.push(Difference {
                    argument,
                    byte,
                    seed,
                });
            }
        }
    }
    put(&text(check, &found, &differences))?;
    if found.is_empty() && differences.is_empty() {
        Ok(Outcome::Ran)
    } else {
        Ok(Outcome::Found)
    }
}

/// What is printed: the findings, or that there are none.
fn text(check: &Check, found: &[Found], differences: &[Difference]) -> String {
    let orders = check.seeds + 1;
    if check.kernel.json {
        let findings = found.iter().map(|found| {
            let mut object = fault_json(&found.fault);
            object["seeds"] = json!(found.seeds);
            object
        });
        let differences = differences.iter().map(|difference| {
            let Difference {
                argument,
                byte,
                seed,
            } = difference;
            json!({"argument": argument, "byte": byte, "seed": seed})
        });
        let findings: Vec<_> = findings.collect();
        let differences: Vec<_> = differences.collect();
        let object = json!({"orders": orders, "findings": findings, "differences": differences});
        return format!("{object}\n");
    }
    let mut text = String::new();
    for Found { fault, seeds } in found {
        text += &format!("{fault}; in {} of {orders} orders\n", seeds.len());
    }
    for difference in differences {
        text += &format!(
            "argument {} depends on the order: byte {} with seed {}\n",
            difference.argument, difference.byte, difference.seed
        );
    }
    if found.is_empty() && differences.is_empty() {
        text += &format!("nothing found in {orders} orders\n");
    }
    text
}
