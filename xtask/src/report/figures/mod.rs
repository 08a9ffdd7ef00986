//! The figures, as SVG.

mod chart;

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, ensure};
use chart::{Chart, Series};
use kernel_benches::{Case, Results, SHAPES, packed_bytes};
use plotters::prelude::*;

use crate::counts::{Product, Record};

const MIB: f64 = 1024.0 * 1024.0;

/// Every figure, by file name.
pub fn all(results: &[Results], counts: &Record) -> Result<BTreeMap<String, String>> {
    let mut figures = BTreeMap::from([
        ("memory.svg".to_owned(), memory()?),
        ("counts.svg".to_owned(), counted(counts)?),
    ]);
    for results in results {
        let gpu = slug(&results.device.name);
        let before = figures.insert(format!("latency-{gpu}.svg"), latency(results)?);
        ensure!(
            before.is_none(),
            "two results of `{}`, whose figures would have the same names: keep one of them",
            results.device.name
        );
        figures.insert(format!("bandwidth-{gpu}.svg"), bandwidth(results)?);
        if let Some(figure) = roofline(results)? {
            figures.insert(format!("roofline-{gpu}.svg"), figure);
        }
    }
    Ok(figures)
}

/// `cuda:0 (NVIDIA H200)` as `nvidia-h200`.
fn slug(device: &str) -> String {
    let name = device.split_once('(').map_or(device, |(_, name)| name);
    let parts = name
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_lowercase()
}

fn shape_label((n, k): (usize, usize)) -> String {
    format!("{n}x{k}")
}

fn categories(count: usize) -> std::ops::Range<f64> {
    -0.5..count.max(1) as f64 - 0.5
}

/// A range with room around the values of a coordinate; none where there are none.
fn around(series: &[Series], value: fn(&(f64, f64)) -> f64) -> Option<std::ops::Range<f64>> {
    let points = series.iter().flat_map(|series| &series.points);
    let (low, high) = points
        .map(value)
        .filter(|value| value.is_finite() && *value > 0.0)
        .fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    (low <= high).then(|| low / 1.5..high * 1.5)
}

/// Shapes in the order of their weights' bytes.
fn by_size(mut shapes: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    shapes.sort_by_key(|(n, k)| n.saturating_mul(*k));
    shapes
}

/// `cuda:0 (NVIDIA H200)` as `NVIDIA H200`.
fn gpu(results: &Results) -> &str {
    let name = &results.device.name;
    name.split_once('(')
        .map_or(name, |(_, name)| name.trim_end_matches(')'))
}

/// A point for each shape that has a value, in the order of their bytes.
fn by_shape(name: &str, value: impl Fn((usize, usize)) -> Option<f64>) -> Series {
    let shapes = by_size(SHAPES.to_vec()).into_iter().enumerate();
    Series {
        name: name.to_owned(),
        points: shapes
            .filter_map(|(index, shape)| Some((index as f64, value(shape)?)))
            .collect(),
    }
}

/// Series that [`by_shape`] made, and the range of their values.
fn shapes_chart(
    title: &str,
    y_name: &'static str,
    series: Vec<Series>,
) -> Result<(Chart, std::ops::Range<f64>)> {
    let range = around(&series, |point| point.1).ok_or_else(|| anyhow!("{title}: no values"))?;
    let labels = by_size(SHAPES.to_vec()).into_iter().map(shape_label);
    let chart = Chart {
        title: title.to_owned(),
        x_name: "N x K",
        y_name,
        labels: labels.collect(),
        series,
        lines: Vec::new(),
    };
    Ok((chart, range))
}

/// Bytes of the weights, BF16 and packed.
fn memory() -> Result<String> {
    let mib = |bytes: usize| Some(bytes as f64 / MIB);
    let series = vec![
        by_shape("BF16", |(n, k)| mib(2 * n * k)),
        by_shape("2 bits, with scales", |(n, k)| mib(packed_bytes(n, k))),
    ];
    let (chart, range) = shapes_chart("Size of a layer's weights", "MiB", series)?;
    chart.draw(categories(SHAPES.len()), range.log_scale())
}

/// Instructions of one token's product, by shape, compared with Microsoft's kernel.
fn counted(counts: &Record) -> Result<String> {
    let ours = |op, shape| counts.find(op, 1, shape).map(Product::per_dp4a);
    let series = vec![
        by_shape("gemv", |shape| ours("gemv", shape)),
        by_shape("Microsoft's kernel", |shape| {
            counts.find_peer(shape).map(Product::per_dp4a)
        }),
        by_shape("int8xint2", |shape| ours("int8xint2", shape)),
    ];
    let title = "One token's product: instructions per dp4a that it needs, counted";
    let (chart, range) = shapes_chart(title, "instructions", series)?;
    chart.draw(categories(SHAPES.len()), 0.0..range.end / 1.5 * 1.1)
}

/// Cold time of one token's product, by shape, compared with the peers.
fn latency(results: &Results) -> Result<String> {
    let chosen = |case: &&Case| case.op == "gemv" && case.chosen && case.m == 1;
    let cases = || results.cases.iter().filter(chosen);
    let shapes = by_size(cases().map(|case| (case.n.unwrap_or(0), case.k)).collect());
    let position = |shape: (usize, usize)| {
        let index = shapes.iter().position(|&other| other == shape)?;
        Some(index as f64)
    };
    let mut series = vec![Series {
        name: "this library".to_owned(),
        points: cases()
            .filter_map(|case| {
                Some((
                    position((case.n.unwrap_or(0), case.k))?,
                    case.time()?.median_us,
                ))
            })
            .collect(),
    }];
    let mut peers: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for pair in results
        .pairs
        .iter()
        .filter(|pair| pair.m == 1 && !pair.programmatic)
    {
        if let Some(x) = position((pair.n, pair.k)) {
            let points = peers.entry(&pair.peer).or_default();
            points.push((x, pair.theirs.median_us));
        }
    }
    series.extend(peers.into_iter().map(|(name, points)| Series {
        name: name.to_owned(),
        points,
    }));
    let range = around(&series, |point| point.1).unwrap_or(1.0..10.0);
    let chart = Chart {
        title: format!("One token's product, weights from memory: {}", gpu(results)),
        x_name: "N x K",
        y_name: "microseconds",
        labels: shapes.iter().map(|&shape| shape_label(shape)).collect(),
        series,
        lines: Vec::new(),
    };
    chart.draw(categories(shapes.len()), range.log_scale())
}

/// Share of the copy bandwidth by bytes moved.
fn bandwidth(results: &Results) -> Result<String> {
    let series = by_family(results, |case| {
        Some((case.bytes as f64, case.bandwidth_fraction?))
    });
    let range = around(&series, |point| point.0).unwrap_or(1.0..10.0);
    let highest = around(&series, |point| point.1).map_or(1.0, |range| range.end / 1.5);
    let chart = Chart {
        title: format!("Share of the measured copy bandwidth: {}", gpu(results)),
        x_name: "bytes moved",
        y_name: "share",
        labels: Vec::new(),
        series,
        lines: Vec::new(),
    };
    chart.draw(range.log_scale(), 0.0..highest.max(1.0) * 1.1)
}

/// Operations a second by operations a byte, under the measured roofs; none without ceilings.
fn roofline(results: &Results) -> Result<Option<String>> {
    let Some(ceilings) = &results.ceilings else {
        return Ok(None);
    };
    let series = by_family(results, |case| {
        let point = (
            case.operations as f64 / case.bytes as f64,
            case.operations as f64 / case.time()?.median_us * 1e6,
        );
        (case.operations > 0).then_some(point)
    });
    let (Some(x), Some(y)) = (
        around(&series, |point| point.0),
        around(&series, |point| point.1),
    ) else {
        return Ok(None);
    };
    let copy = ceilings.copy_bytes_per_second;
    let roofs = [
        ("dp4a", Some(ceilings.dp4a_operations_per_second)),
        ("mma", ceilings.mma_operations_per_second),
    ];
    let roofs: Vec<(&str, f64)> = roofs
        .into_iter()
        .filter_map(|(name, rate)| Some((name, rate?)))
        .collect();
    let highest = roofs.iter().map(|roof| roof.1).fold(0.0, f64::max);
    let x = x.start..x.end.max(2.0 * highest / copy);
    let y = y.start..y.end.max(2.0 * highest);
    let lines = roofs.into_iter().map(|(name, rate)| {
        let roof = |x: f64| (x, (x * copy).min(rate));
        Series {
            name: format!("copy and {name}, measured"),
            points: vec![roof(x.start), (rate / copy, rate), roof(x.end)],
        }
    });
    let lines = lines.collect();
    let chart = Chart {
        title: format!("Roofline: {}", gpu(results)),
        x_name: "operations a byte",
        y_name: "operations a second",
        labels: Vec::new(),
        series,
        lines,
    };
    chart.draw(x.log_scale(), y.log_scale()).map(Some)
}

/// What an operation is, for a colour of its own.
fn family(op: &str) -> &'static str {
    let (gemv, norm, quantize) = (
        op.contains("gemv"),
        op.contains("norm"),
        op.contains("quantize"),
    );
    match (gemv, norm, quantize) {
        (true, true, _) => "norm + quantize + GEMV",
        (true, false, _) => "GEMV",
        (false, true, true) => "norm + quantize",
        (false, true, false) => "norm",
        (false, false, true) => "quantize, dequantize",
        (false, false, false) => "activation function",
    }
}

/// The chosen kernels' points, by family.
fn by_family(results: &Results, point: impl Fn(&Case) -> Option<(f64, f64)>) -> Vec<Series> {
    let mut families: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for case in results.cases.iter().filter(|case| case.chosen) {
        families
            .entry(family(&case.op))
            .or_default()
            .extend(point(case));
    }
    let series = families.into_iter().map(|(name, points)| Series {
        name: name.to_owned(),
        points,
    });
    series.filter(|series| !series.points.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_names_a_file() {
        assert_eq!(slug("cuda:0 (NVIDIA H200)"), "nvidia-h200");
    }

    #[test]
    fn an_operation_has_the_colour_of_its_family() {
        let ops = [
            "gemv",
            "rmsnorm + quantize + gemv",
            "residual + layernorm",
            "dequantize",
            "gated silu",
        ];
        assert_eq!(
            ops.map(family),
            [
                "GEMV",
                "norm + quantize + GEMV",
                "norm",
                "quantize, dequantize",
                "activation function"
            ]
        );
    }
}
