//! The tables, in Markdown.

use std::collections::BTreeMap;

use kernel_benches::{Case, LAUNCHED_EARLY, Pair, Results, SHAPES, Time, launched, packed_bytes};

use super::targets;
use crate::counts::{Product, Record};

const MIB: f64 = 1024.0 * 1024.0;

/// Every section that a page can have.
pub fn sections(results: &[Results], counts: &Record) -> BTreeMap<&'static str, String> {
    let of_gpus = |section: fn(&Results) -> String| match results {
        [] => {
            "`benches/results/` has no GPU result yet; docs/measuring.md shows how to measure one."
                .to_owned()
        }
        some => some
            .iter()
            .map(|results| format!("{}\n\n{}", heading(results), section(results)))
            .collect::<Vec<_>>()
            .join("\n\n"),
    };
    BTreeMap::from([
        ("gemv", of_gpus(gemv)),
        ("peers", of_gpus(peers)),
        ("rows", of_gpus(rows)),
        ("ceilings", of_gpus(ceilings)),
        ("model", of_gpus(model)),
        ("targets", of_gpus(targets::table)),
        ("memory", memory()),
        ("counts", counted(counts)),
    ])
}

/// What was measured, in what state, when, and from which commit.
fn heading(results: &Results) -> String {
    let device = &results.device;
    let clocks = match &device.clocks {
        Some([before, after]) => {
            let mhz =
                |clock: Option<u32>| clock.map_or_else(|| "?".to_owned(), |mhz| mhz.to_string());
            format!(
                "SM clock {} MHz before and {} MHz after",
                mhz(before.sm_mhz),
                mhz(after.sm_mhz)
            )
        }
        None => "clocks unknown".to_owned(),
    };
    format!(
        "**{}**, driver {}, {clocks}, {}, commit {}",
        device.name,
        device.driver.as_deref().unwrap_or("unknown"),
        results.date,
        results
            .commit
            .as_ref()
            .map_or("unknown".to_owned(), |commit| commit
                .chars()
                .take(12)
                .collect()),
    )
}

/// A median in microseconds, marked where the spread is wide.
fn us(time: Option<Time>) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |time| format!("{}{:.2}", if time.wide { "~" } else { "" }, time.median_us),
    )
}

fn spread(time: Option<Time>) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |time| format!("{:.1} %", time.spread() * 100.0),
    )
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut lines = vec![
        format!("| {} |", head.join(" | ")),
        format!("|{}", " --- |".repeat(head.len())),
    ];
    lines.extend(
        rows.into_iter()
            .map(|row| format!("| {} |", row.join(" | "))),
    );
    lines.join("\n")
}

const NOTE: &str = "Microseconds per launch, median of graph replays; ~ marks a spread of more than 10 % of the median.";

fn gemv(results: &Results) -> String {
    let chosen = results
        .cases
        .iter()
        .filter(|case| case.op == "gemv" && case.chosen);
    let best = |case: &Case| {
        let same = |other: &&Case| {
            other.op == case.op && (other.m, other.n, other.k) == (case.m, case.n, case.k)
        };
        results
            .cases
            .iter()
            .filter(same)
            .find(|other| other.best && !other.chosen)
    };
    let early = |case: &Case| {
        let found = results.cases.iter().find(|other| {
            other.op == LAUNCHED_EARLY && (other.m, other.n, other.k) == (case.m, case.n, case.k)
        });
        us(found.and_then(Case::time))
    };
    let rows = chosen.map(|case| {
        vec![
            format!("{} x {}", case.n.unwrap_or(0), case.k),
            case.m.to_string(),
            case.kernels.join(" + "),
            us(case.cold),
            us(case.warm),
            early(case),
            spread(case.time()),
            percent(case.bandwidth_fraction),
            best(case).map_or_else(
                || "-".to_owned(),
                |best| format!("{} {}", best.kernels.join(" + "), us(best.time())),
            ),
        ]
    });
    let head = [
        "N x K",
        "M",
        "kernel",
        "cold, us",
        "warm, us",
        "launched early, us",
        "spread",
        "of copy bandwidth",
        "faster variant",
    ];
    format!("{}\n\n{NOTE}", table(&head, rows))
}

fn peers(results: &Results) -> String {
    if results.pairs.is_empty() {
        return "No other library was found in this run.".to_owned();
    }
    let row = |pair: &Pair| {
        vec![
            pair.peer.clone(),
            format!("{} x {}", pair.n, pair.k),
            pair.m.to_string(),
            launched(pair.programmatic).to_owned(),
            us(Some(pair.ours)),
            us(Some(pair.theirs)),
            format!("{:.2}", pair.ratio),
            format!("{:.2} to {:.2}", pair.ratio_low, pair.ratio_high),
        ]
    };
    let head = [
        "library",
        "N x K",
        "M",
        "launched",
        "this library",
        "that library",
        "speedup",
        "10th to 90th percentile",
    ];
    format!(
        "{}\n\n{NOTE} Weights come from memory; rounds alternate; the speedup is the median ratio of rounds.",
        table(&head, results.pairs.iter().map(row))
    )
}

fn rows(results: &Results) -> String {
    let others = results
        .cases
        .iter()
        .filter(|case| case.op != "gemv" && case.op != LAUNCHED_EARLY);
    let row = |case: &Case| {
        let shape = match case.n {
            Some(n) => format!("{} x {n} x {}", case.m, case.k),
            None => format!("{} x {}", case.m, case.k),
        };
        vec![
            case.op.clone(),
            shape,
            us(case.cold),
            us(case.warm),
            spread(case.time()),
            percent(case.bandwidth_fraction),
        ]
    };
    let head = [
        "operation",
        "tokens x features",
        "cold, us",
        "warm, us",
        "spread",
        "of copy bandwidth",
    ];
    format!("{}\n\n{NOTE}", table(&head, others.map(row)))
}

fn ceilings(results: &Results) -> String {
    let Some(ceilings) = &results.ceilings else {
        return "The ceilings were not measured in this run.".to_owned();
    };
    let row =
        |name: &str, value: String, time: Option<Time>| vec![name.to_owned(), value, spread(time)];
    let rows = [
        row(
            "copy bandwidth",
            format!("{:.2} TB/s", ceilings.copy_bytes_per_second / 1e12),
            Some(ceilings.copy),
        ),
        row(
            "dp4a",
            format!("{:.1} TOP/s", ceilings.dp4a_operations_per_second / 1e12),
            None,
        ),
        row(
            "mma, int8",
            ceilings
                .mma_operations_per_second
                .map_or("none".to_owned(), |rate| {
                    format!("{:.1} TOP/s", rate / 1e12)
                }),
            None,
        ),
        row(
            "launch in a graph",
            format!("{} us", us(Some(ceilings.launch_floor))),
            Some(ceilings.launch_floor),
        ),
        row(
            "replay of a graph of one launch",
            format!("{} us", us(Some(ceilings.graph_replay))),
            Some(ceilings.graph_replay),
        ),
        row(
            "launch without a graph",
            format!("{} us", us(Some(ceilings.single_launch))),
            Some(ceilings.single_launch),
        ),
        row(
            "loading the module",
            format!("{:.1} ms", ceilings.module_load_ms),
            None,
        ),
        row(
            "allocating and freeing 1 MiB",
            format!("{:.1} us", ceilings.allocation_us),
            None,
        ),
        row(
            "the same from the memory pool",
            ceilings
                .pool_allocation_us
                .map_or("not measured".to_owned(), |us| format!("{us:.2} us")),
            None,
        ),
    ];
    table(&["ceiling", "measured", "spread"], rows)
}

fn model(results: &Results) -> String {
    let rows = results.models.iter().map(|model| {
        vec![
            format!("{} x {}", model.num_layers, model.hidden_size),
            model.quantization_bits.to_string(),
            model.num_gpus.to_string(),
            model.batch_size.to_string(),
            launched(model.programmatic).to_owned(),
            format!("{:.0}", model.weight_bytes as f64 / MIB),
            us(model.pass),
            spread(model.pass),
            model
                .tokens_per_second
                .map_or_else(|| "-".to_owned(), |tokens| format!("{tokens:.0}")),
        ]
    });
    let head = [
        "layers x features",
        "bits",
        "GPUs",
        "batch",
        "launched",
        "weights, MiB",
        "per pass, us",
        "spread",
        "tokens/s",
    ];
    format!(
        "{}\n\nLinear layers and quantization only: no attention, no sampling.",
        table(&head, rows)
    )
}

/// What products execute and move, counted by the emulator: the same on every machine.
fn counted(counts: &Record) -> String {
    let number = |product: Option<&Product>, of: fn(&Product) -> f64| {
        product.map_or_else(|| "-".to_owned(), |product| format!("{:.2}", of(product)))
    };
    let per_dp4a = |product| number(product, Product::per_dp4a);
    let sectors = |product| number(product, Product::per_weight_sector);
    let rows = SHAPES.map(|shape| {
        let of = |op, m| counts.find(op, m, shape);
        let (one, eight, ladder) = (of("gemv", 1), of("gemv", 8), of("int8xint2", 1));
        let peer = counts.find_peer(shape);
        let (n, k) = shape;
        vec![
            format!("{n} x {k}"),
            per_dp4a(one),
            per_dp4a(ladder),
            per_dp4a(peer),
            per_dp4a(eight),
            sectors(one),
            sectors(ladder),
            sectors(peer),
        ]
    });
    let head = [
        "N x K",
        "`gemv`",
        "`int8xint2`",
        "Microsoft's",
        "`gemv`, M = 8",
        "sectors: `gemv`",
        "`int8xint2`",
        "Microsoft's",
    ];
    let source = counts.peer.as_ref().map_or_else(String::new, |peer| {
        format!(" Microsoft's kernel: {}.", peer.source)
    });
    format!(
        "{}\n\nInstructions per `dp4a` that one token needs (N K / 4), and 32-byte sectors requested from global memory per sector of weights. \
        `int8xint2` is this library's kernel for Microsoft's weight layout and interface.{source}",
        table(&head, rows)
    )
}

/// Static memory of the weights: computed, the same on every GPU.
fn memory() -> String {
    let rows = SHAPES.map(|(n, k)| {
        let (bf16, packed) = (2 * n * k, packed_bytes(n, k));
        vec![
            format!("{n} x {k}"),
            format!("{:.2}", bf16 as f64 / MIB),
            format!("{:.2}", packed as f64 / MIB),
            format!("{:.2}", bf16 as f64 / packed as f64),
        ]
    });
    table(
        &["N x K", "BF16, MiB", "packed with scales, MiB", "ratio"],
        rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn a_commit_is_cut_between_characters() {
        let mut results = sample();
        results.commit = Some("abcdefghijk\u{e9}xyz".to_owned());
        assert!(heading(&results).ends_with("commit abcdefghijk\u{e9}"));
    }

    #[test]
    fn a_product_launched_early_is_a_column_and_no_row() {
        let mut results = sample();
        let chosen = results
            .cases
            .iter()
            .find(|case| case.op == "gemv" && case.chosen);
        let chosen = chosen.expect("the sample has products").clone();
        let time = Time {
            median_us: 12.345,
            wide: false,
            ..chosen.time().expect("timed")
        };
        let without = gemv(&results).lines().count();
        results.cases.push(Case {
            op: LAUNCHED_EARLY.to_owned(),
            cold: Some(time),
            ..chosen.clone()
        });
        let table = gemv(&results);
        assert_eq!(table.lines().count(), without);
        let shape = format!(
            "| {} x {} | {} |",
            chosen.n.unwrap_or(0),
            chosen.k,
            chosen.m
        );
        let of_shape = |line: &&str| line.starts_with(&shape) && line.contains("| 12.35 |");
        assert_eq!(table.lines().filter(of_shape).count(), 1, "{table}");
        assert!(!rows(&results).contains("launched early"));
    }
}
