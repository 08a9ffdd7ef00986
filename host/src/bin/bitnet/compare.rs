//! `bitnet compare`: the same PTX on the same inputs, on a GPU and on the emulator, compared bit for bit.

use crate::operations::{
    MAX_TOKENS, Named, Operation, PRODUCTS, Product, ProductData, ROW_OPERATIONS, Sizes,
    WEIGHT_OPERATIONS,
};
use crate::output::{Outcome, Output, table};
use anyhow::{Context, Result, bail, ensure};
use bitnet_cuda::device::{Device, DeviceError, DeviceKind, EmulatedConfig};
use bitnet_cuda::launch::{Float, Gemv, ptx_for};
use bitnet_cuda::layout::Layout;
use bitnet_cuda::reference::Element;
use half::{bf16, f16};
use serde::Serialize;
use std::collections::BTreeSet;
use std::rc::Rc;

#[derive(clap::Args)]
pub struct Args {
    /// Seed of the random inputs [default: random]
    #[arg(long)]
    seed: Option<u64>,
}

/// Products with and without padding, and of more rows than a block has.
const SHAPES: [(usize, usize); 3] = [(33, 300), (16, 2560), (80, 1152)];
/// Operations and their M, N and K for which they choose a variant that those shapes leave out: more rows than the fused kernel's blocks take in one go,
/// on a device that runs one such block a processor; few rows of many columns; few of both.
const FOR_VARIANTS: [(&str, usize, usize, usize); 6] = [
    ("rmsnorm + quantize + gemv", 1, 9000, 8192),
    ("int8xint2", 1, 64, 768),
    ("int8xint2", 1, 64, 1536),
    ("int8xint2", 1, 64, 8192),
    ("int8xint2", 1, 64, 32_768),
    ("int8xint2", 8, 64, 256),
];
/// Rows of less than a warp's work, and of more than a block's.
const WIDTHS: [usize; 7] = [21, 320, 2560, 6912, 16_000, 30_000, 33_000];
const ROW_TOKENS: [usize; 2] = [1, 3];

#[derive(Serialize)]
struct Report {
    gpu: String,
    emulator: String,
    /// The PTX that both ran.
    ptx: String,
    seed: u64,
    comparisons: Vec<Comparison>,
    /// Kernels of the PTX that no comparison launched.
    not_compared: Vec<String>,
    /// Comparisons with a difference that may not be, or an output that is not the reference's.
    differing: usize,
}

/// One operation on one input.
#[derive(Serialize)]
struct Comparison {
    op: String,
    shape: String,
    kernels: Vec<String>,
    bytes: usize,
    /// Bytes of the outputs that differ.
    differing: usize,
    /// Whether they may: the hardware's approximate functions have other last bits than the emulator's.
    exact: bool,
    /// Outputs of the GPU that are not the reference's.
    wrong: usize,
}

impl Comparison {
    fn is_wrong(&self) -> bool {
        self.wrong > 0 || self.exact && self.differing > 0
    }
}

pub fn run(device: &str, args: &Args, output: Output) -> Result<Outcome> {
    // Without a name, the emulator would not do in a GPU's place.
    let name = if device == "auto" { "cuda" } else { device };
    let gpu = match Device::from_name(name) {
        // That error's own advice is the emulator.
        Err(DeviceError::NoDriver { reason, remedy }) => {
            bail!("compare needs a GPU in addition to the emulator: {reason}; {remedy}")
        }
        gpu => gpu?,
    };
    ensure!(
        gpu.kind() == DeviceKind::Cuda,
        "compare needs a GPU in addition to the emulator: use --device cuda, not {device}"
    );
    let (arch, ptx) = ptx_for(gpu.compute_capability())
        .with_context(|| format!("{} is older than any PTX in this program", gpu.name()))?;
    let config = EmulatedConfig {
        compute_capability: (arch / 10, arch % 10),
        ..EmulatedConfig::default()
    };
    // So that a kernel which the emulator ran is one that the GPU ran.
    let emulator = Device::emulated_like(&gpu, config)?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));

    let mut comparisons = Vec::new();
    let devices = [&gpu, &emulator];
    let random = |&Named(op, make): &Named, sizes| {
        compare(op, sizes, devices, |device| {
            make(device, sizes, &mut fastrand::Rng::with_seed(seed))
        })
    };
    for (n, k) in SHAPES {
        products::<f32>("gemv f32", devices, (n, k), seed, &mut comparisons)?;
        products::<f16>("gemv f16", devices, (n, k), seed, &mut comparisons)?;
        products::<bf16>("gemv bf16", devices, (n, k), seed, &mut comparisons)?;
        for operation in PRODUCTS {
            for m in [1, MAX_TOKENS] {
                comparisons.push(random(operation, Sizes { m, n, k })?);
            }
        }
        for operation in WEIGHT_OPERATIONS {
            comparisons.push(random(operation, Sizes { m: 0, n, k })?);
        }
    }
    for (op, m, n, k) in FOR_VARIANTS {
        let operation = PRODUCTS.iter().find(|operation| operation.0 == op);
        let operation = operation.context("an operation")?;
        comparisons.push(random(operation, Sizes { m, n, k })?);
    }
    for operation in ROW_OPERATIONS {
        for k in WIDTHS {
            for m in ROW_TOKENS {
                comparisons.push(random(operation, Sizes { m, n: 0, k })?);
            }
        }
    }
    let launched: BTreeSet<&str> = comparisons
        .iter()
        .flat_map(|comparison| &comparison.kernels)
        .map(String::as_str)
        .collect();
    let report = Report {
        gpu: gpu.name().to_owned(),
        emulator: emulator.name().to_owned(),
        ptx: format!("sm_{arch}"),
        seed,
        not_compared: entries(ptx)
            .filter(|entry| !launched.contains(entry))
            .map(str::to_owned)
            .collect(),
        differing: comparisons
            .iter()
            .filter(|comparison| comparison.is_wrong())
            .count(),
        comparisons,
    };
    output.print(&report, text)?;
    Ok(Outcome::of(report.differing))
}

/// Every variant of both layouts, with as many tokens as it takes and with one less.
fn products<Y: Float + Element>(
    op: &str,
    devices: [&Device; 2],
    (n, k): (usize, usize),
    seed: u64,
    comparisons: &mut Vec<Comparison>,
) -> Result<()> {
    let data = ProductData::random(n, k, &mut fastrand::Rng::with_seed(seed))?;
    let layouts = [Layout::Tiled, Layout::Ladder];
    let variants = layouts
        .into_iter()
        .flat_map(|layout| Gemv::all(layout).map(move |variant| (layout, variant)));
    for (layout, variant) in variants {
        let most = variant.tokens().min(MAX_TOKENS);
        for m in [most - 1, most]
            .into_iter()
            .filter(|&m| m > 0 && data.fits(layout, variant, m))
        {
            let expected: Rc<Vec<Y>> = Rc::new(data.expected(m)?);
            let product = |device: &Device| {
                let layer = match layout {
                    Layout::Ladder => data.ladder_layer(device)?,
                    _ => data.layer(device)?,
                };
                Product::new(layer, Some(variant), m, &data, Rc::clone(&expected))
            };
            comparisons.push(compare(op, Sizes { m, n, k }, devices, product)?);
        }
    }
    Ok(())
}

/// The same operation on both devices, on the same inputs.
fn compare<O: Operation>(
    op: &str,
    sizes: Sizes,
    [gpu, emulator]: [&Device; 2],
    make: impl Fn(&Device) -> Result<O>,
) -> Result<Comparison> {
    let (mut on_gpu, mut on_emulator) = (make(gpu)?, make(emulator)?);
    on_gpu.launch(&gpu.default_stream())?;
    let (launched, reports) =
        emulator.profile(|| on_emulator.launch(&emulator.default_stream()))?;
    launched?;
    let (found, emulated) = (on_gpu.outputs()?, on_emulator.outputs()?);
    Ok(Comparison {
        op: op.to_owned(),
        shape: sizes.to_string(),
        kernels: reports.into_iter().map(|report| report.kernel).collect(),
        bytes: found.len(),
        differing: differing(&found, &emulated),
        exact: on_gpu.exact(),
        wrong: on_gpu.check()?.mismatches,
    })
}

/// Bytes that differ, or that only one has.
fn differing(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).filter(|(a, b)| a != b).count() + a.len().abs_diff(b.len())
}

/// Names of the kernels in a PTX text.
fn entries(ptx: &str) -> impl Iterator<Item = &str> {
    let names = ptx
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(".visible .entry "));
    names.map(|line| line.split('(').next().unwrap_or(line).trim())
}

fn text(report: &Report) -> String {
    let mut text = format!(
        "PTX for {} on {} and on {}, seed {}\n",
        report.ptx, report.gpu, report.emulator, report.seed
    );
    let rows: Vec<_> = report
        .comparisons
        .iter()
        .map(|comparison| {
            vec![
                comparison.op.clone(),
                comparison.shape.clone(),
                comparison.kernels.join(" + "),
                comparison.bytes.to_string(),
                comparison.differing.to_string(),
                comparison.wrong.to_string(),
            ]
        })
        .collect();
    text += &table(
        &["op", "sizes", "kernels", "bytes", "differing", "wrong"],
        &rows,
    );
    text += &format!(
        "{} comparisons, {} with a difference\n",
        report.comparisons.len(),
        report.differing
    );
    if !report.not_compared.is_empty() {
        text += &format!(
            "kernels that nothing launched: {}\n",
            report.not_compared.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_and_a_missing_byte_are_differences() {
        assert_eq!(differing(&[1, 2, 3], &[1, 2, 3]), 0);
        assert_eq!(differing(&[1, 2, 3], &[1, 3, 3]), 1);
        assert_eq!(differing(&[1, 2, 3], &[1, 2]), 1);
    }

    #[test]
    fn the_entries_of_a_ptx_are_found() {
        let ptx =
            ".version 7.0\n.visible .entry one(\n\t.param .u64 p\n)\n{\n}\n.visible .entry two()\n";
        assert_eq!(entries(ptx).collect::<Vec<_>>(), ["one", "two"]);
    }
}
