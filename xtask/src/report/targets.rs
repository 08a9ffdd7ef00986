//! What the measurements were to show, and what they show.

use kernel_benches::statistics::geometric_mean;
use kernel_benches::{Case, Pair, Results};

/// The four with the most weights.
const LARGEST: [(usize, usize); 4] = [
    (55_296, 5120),
    (8192, 32_768),
    (5120, 27_648),
    (4096, 16_384),
];

/// A table of the project's targets.
pub fn table(results: &Results) -> String {
    let row = |(target, found): &(&str, Option<(f64, bool)>)| match found {
        Some((value, true)) => format!("| {target} | {value:.2} | reached |"),
        Some((value, false)) => format!("| {target} | {value:.2} | **missed** |"),
        None => format!("| {target} | not measured | - |"),
    };
    let rows: Vec<String> = targets(results).iter().map(row).collect();
    format!(
        "| target | measured | |\n| --- | --- | --- |\n{}",
        rows.join("\n")
    )
}

fn targets(results: &Results) -> Vec<(&'static str, Option<(f64, bool)>)> {
    let at_least = |value: Option<f64>, least: f64| value.map(|value| (value, value >= least));
    let at_most = |value: Option<f64>, most: f64| value.map(|value| (value, value <= most));
    let w2a8 = |programmatic| {
        ratios(results, |pair| {
            !pair.peer.starts_with("cublas") && pair.m == 1 && pair.programmatic == programmatic
        })
    };
    let (in_turn, early) = (w2a8(false), w2a8(true));
    let bf16: Vec<f64> = ratios(results, |pair| {
        pair.peer == "cublas bf16"
            && (pair.m, pair.programmatic) == (1, false)
            && LARGEST.contains(&(pair.n, pair.k))
    });
    let large = results.cases.iter().filter(|case| {
        is_gemv(case, 1) && case.n.unwrap_or(0).saturating_mul(case.k) >= 8192 * 32_768
    });
    vec![
        (
            "M = 1 against the other W2A8 kernel, lowest speedup: at least 1",
            at_least(least(&in_turn), 1.0),
        ),
        (
            "M = 1 against the other W2A8 kernel, geometric mean of speedups: at least 1.3",
            at_least(geometric_mean(in_turn.iter().copied()), 1.3),
        ),
        (
            "the same, launched early as by default, lowest speedup: at least 1",
            at_least(least(&early), 1.0),
        ),
        (
            "the same, launched early, geometric mean of speedups: at least 1.3",
            at_least(geometric_mean(early.iter().copied()), 1.3),
        ),
        (
            "M = 1 against cuBLAS BF16 at the four largest shapes, lowest speedup: at least 4",
            at_least(least(&bf16), 4.0),
        ),
        (
            "lowest share of copy bandwidth at 55296x5120 and above: at least 0.75",
            at_least(
                least(
                    &large
                        .filter_map(|case| case.bandwidth_fraction)
                        .collect::<Vec<_>>(),
                ),
                0.75,
            ),
        ),
        (
            "13824x2560, time of M = 8 over that of M = 1: at most 1.5",
            at_most(over(results, ("gemv", 8), ("gemv", 1), (13_824, 2560)), 1.5),
        ),
        (
            "2560x2560, time of norm + quantize + GEMV over that of GEMV: at most 1.15",
            at_most(
                over(
                    results,
                    ("rmsnorm + quantize + gemv", 1),
                    ("gemv", 1),
                    (2560, 2560),
                ),
                1.15,
            ),
        ),
    ]
}

fn is_gemv(case: &Case, m: usize) -> bool {
    case.op == "gemv" && case.chosen && case.m == m
}

fn ratios(results: &Results, which: impl Fn(&Pair) -> bool) -> Vec<f64> {
    results
        .pairs
        .iter()
        .filter(|pair| which(pair))
        .map(|pair| pair.ratio)
        .collect()
}

fn least(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

/// Time of one operation over that of another, cold, at a shape.
fn over(
    results: &Results,
    a: (&str, usize),
    b: (&str, usize),
    (n, k): (usize, usize),
) -> Option<f64> {
    let time = |(op, m): (&str, usize)| {
        let case = results.cases.iter().find(|case| {
            case.op == op && case.chosen && (case.m, case.n, case.k) == (m, Some(n), k)
        });
        Some(case?.time()?.median_us)
    };
    Some(time(a)? / time(b)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn a_target_is_reached_missed_or_not_measured() {
        let mut results = sample();
        let time = results.cases[0].time().expect("timed");
        let with = |op: &str, m: usize, (n, k): (usize, usize), median_us: f64| Case {
            op: op.to_owned(),
            m,
            n: Some(n),
            k,
            chosen: true,
            cold: Some(kernel_benches::Time { median_us, ..time }),
            ..results.cases[0].clone()
        };
        let cases = vec![
            with("gemv", 1, (13_824, 2560), 10.0),
            with("gemv", 8, (13_824, 2560), 16.0),
            with("gemv", 1, (2560, 2560), 10.0),
            with("rmsnorm + quantize + gemv", 1, (2560, 2560), 11.0),
        ];
        results.cases = cases;
        results.pairs.clear();
        let table = table(&results);
        assert!(
            table.contains("M = 8 over that of M = 1: at most 1.5 | 1.60 | **missed** |"),
            "{table}"
        );
        assert!(
            table.contains("GEMV over that of GEMV: at most 1.15 | 1.10 | reached |"),
            "{table}"
        );
        assert!(
            table.contains("geometric mean of speedups: at least 1.3 | not measured | - |"),
            "{table}"
        );
    }
}
