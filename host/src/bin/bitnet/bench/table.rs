//! The results as tables for a terminal.

use crate::output::table;
use kernel_benches::{Case, Results, Time, launched};

pub fn text(results: &Results) -> String {
    let device = &results.device;
    let mut text = format!(
        "{}, PTX for {}, seed {}\n",
        device.name, device.ptx, results.method.seed
    );
    if device.kind == "cuda" {
        text += &ceilings(results);
        text += "\nus a launch, median of graph replays; ~ where the spread is wide; * chosen by the library, ! the fastest\n";
        text += &cases(
            &results.cases,
            &["cold us", "warm us", "of copy bandwidth"],
            |case| {
                let share = case
                    .bandwidth_fraction
                    .map(|share| format!("{:.0} %", share * 100.0));
                vec![time(case.cold), time(case.warm), share.unwrap_or_else(none)]
            },
        );
        text += &pairs(results);
    } else {
        text += "\ncounts of one launch, exact on every machine; the emulator has no times\n";
        text += &cases(
            &results.cases,
            &["warp instr.", "sectors read", "written", "bank conflicts"],
            |case| {
                let count = |count: fn(&kernel_benches::Counts) -> u64| {
                    case.counts
                        .as_ref()
                        .map_or_else(none, |counts| count(counts).to_string())
                };
                vec![
                    count(|counts| counts.warp_instructions),
                    count(|counts| counts.load_sectors),
                    count(|counts| counts.store_sectors),
                    count(|counts| counts.bank_conflicts),
                ]
            },
        );
    }
    text += &models(results);
    for missing in &results.not_run {
        text += &format!("not run    {}: {}\n", missing.what, missing.why);
    }
    text
}

fn none() -> String {
    "-".to_owned()
}

fn time(time: Option<Time>) -> String {
    time.map_or_else(none, |time| {
        format!("{}{:.2}", if time.wide { "~" } else { "" }, time.median_us)
    })
}

fn ceilings(results: &Results) -> String {
    let Some(ceilings) = &results.ceilings else {
        return String::new();
    };
    format!(
        "copy {:.2} TB/s, dp4a {:.1} TOP/s, mma {} TOP/s, launch in a graph {} us, graph of one {} us, single launch {} us, module load {:.1} ms, \
         allocation {:.1} us, from the pool {} us\n",
        ceilings.copy_bytes_per_second / 1e12,
        ceilings.dp4a_operations_per_second / 1e12,
        ceilings
            .mma_operations_per_second
            .map_or("-".to_owned(), |rate| format!("{:.1}", rate / 1e12)),
        time(Some(ceilings.launch_floor)),
        time(Some(ceilings.graph_replay)),
        time(Some(ceilings.single_launch)),
        ceilings.module_load_ms,
        ceilings.allocation_us,
        ceilings
            .pool_allocation_us
            .map_or("-".to_owned(), |us| format!("{us:.2}")),
    )
}

fn cases(cases: &[Case], columns: &[&str], values: impl Fn(&Case) -> Vec<String>) -> String {
    let several = |case: &Case| {
        cases
            .iter()
            .filter(|other| {
                (&other.op, other.m, other.n, other.k) == (&case.op, case.m, case.n, case.k)
            })
            .count()
            > 1
    };
    let row = |case: &Case| {
        let shape = match case.n {
            Some(n) => format!("{} x {n} x {}", case.m, case.k),
            None => format!("{} x {}", case.m, case.k),
        };
        let mut kernel = case.kernels.join(" + ");
        if several(case) {
            kernel += if case.chosen { " *" } else { "" };
            kernel += if case.best { " !" } else { "" };
        }
        let wrong = match case.mismatches {
            0 => "right".to_owned(),
            wrong => format!("{wrong} WRONG"),
        };
        let mut row = vec![case.op.clone(), shape, kernel, wrong];
        row.extend(values(case));
        row
    };
    let mut head = vec!["op", "m (x n) x k", "kernel", "checked"];
    head.extend(columns);
    table(&head, &cases.iter().map(row).collect::<Vec<_>>())
}

fn pairs(results: &Results) -> String {
    if results.pairs.is_empty() {
        return String::new();
    }
    let row = |pair: &kernel_benches::Pair| {
        vec![
            pair.peer.clone(),
            format!("{} x {} x {}", pair.m, pair.n, pair.k),
            launched(pair.programmatic).to_owned(),
            time(Some(pair.ours)),
            time(Some(pair.theirs)),
            format!("{:.2}", pair.ratio),
            format!("{:.2}..{:.2}", pair.ratio_low, pair.ratio_high),
        ]
    };
    let rows: Vec<_> = results.pairs.iter().map(row).collect();
    format!(
        "\n{}",
        table(
            &[
                "beside",
                "m x n x k",
                "launched",
                "ours us",
                "theirs us",
                "theirs/ours",
                "10..90 %"
            ],
            &rows
        )
    )
}

fn models(results: &Results) -> String {
    let row = |model: &kernel_benches::Model| {
        vec![
            format!("{} layers of {}", model.num_layers, model.hidden_size),
            model.quantization_bits.to_string(),
            model.num_gpus.to_string(),
            model.batch_size.to_string(),
            launched(model.programmatic).to_owned(),
            model.launches.to_string(),
            model.weight_bytes.to_string(),
            if model.mismatches == 0 {
                "right".to_owned()
            } else {
                format!("{} WRONG", model.mismatches)
            },
            time(model.pass),
            model
                .tokens_per_second
                .map_or_else(none, |tokens| format!("{tokens:.0}")),
            model
                .counts
                .map_or_else(none, |counts| counts.warp_instructions.to_string()),
        ]
    };
    if results.models.is_empty() {
        return String::new();
    }
    let head = [
        "model",
        "bits",
        "GPUs",
        "batch",
        "launched",
        "launches",
        "weight bytes",
        "checked",
        "us a pass",
        "tokens/s",
        "warp instr.",
    ];
    format!(
        "\n{}",
        table(&head, &results.models.iter().map(row).collect::<Vec<_>>())
    )
}
