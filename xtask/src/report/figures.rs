//! The figures, as SVG.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use kernel_benches::{Case, Results, SHAPES, packed_bytes};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 540);
const MIB: f64 = 1024.0 * 1024.0;

type Svg<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Points of one colour, with a name in the legend.
struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Every figure, by file name.
pub fn all(results: &[Results]) -> Result<BTreeMap<String, String>> {
    let mut figures = BTreeMap::from([("memory.svg".to_owned(), memory()?)]);
    for results in results {
        let gpu = slug(&results.device.name);
        figures.insert(format!("latency-{gpu}.svg"), latency(results)?);
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

/// Runs `draw` on a white page.
fn svg(draw: impl FnOnce(&Svg<'_>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let page = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        page.fill(&WHITE).map_err(drawing)?;
        draw(&page)?;
        page.present().map_err(drawing)?;
    }
    Ok(text)
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

/// A range with room around the values; none where there are none.
fn around(values: impl IntoIterator<Item = f64>) -> Option<std::ops::Range<f64>> {
    let (low, high) = values
        .into_iter()
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    (low <= high).then(|| low / 1.5..high * 1.5)
}

/// A chart with the series as points, on axes that the caller makes.
fn points<X, Y>(
    page: &Svg<'_>,
    title: &str,
    (x, x_name): (X, &str),
    (y, y_name): (Y, &str),
    labels: &[String],
    series: &[Series],
    lines: &[Series],
) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(page)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(56)
        .y_label_area_size(80)
        .build_cartesian_2d(x, y)
        .map_err(drawing)?;
    let label = |x: &f64| match labels {
        [] => number(*x),
        labels => labels
            .get(x.round() as usize)
            .filter(|_| (x - x.round()).abs() < 1e-6)
            .cloned()
            .unwrap_or_default(),
    };
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(x_name).y_desc(y_name).x_label_formatter(&label);
    let y_label = |y: &f64| number(*y);
    mesh.y_label_formatter(&y_label);
    if !labels.is_empty() {
        mesh.x_labels(labels.len() + 2)
            .x_label_style(("sans-serif", 10));
    }
    mesh.draw().map_err(drawing)?;
    for (index, line) in lines.iter().enumerate() {
        let style = Palette99::pick(index + series.len()).stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style))
            .map_err(drawing)?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 14, y)], style));
    }
    for (index, series) in series.iter().enumerate() {
        let style = Palette99::pick(index).filled();
        chart
            .draw_series(
                series
                    .points
                    .iter()
                    .map(|&point| Circle::new(point, 4, style)),
            )
            .map_err(drawing)?
            .label(&series.name)
            .legend(move |(x, y)| Circle::new((x + 7, y), 4, style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(drawing)
}

/// Three digits, with the prefix of the power of 1000.
fn number(value: f64) -> String {
    let prefixes = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (scale, prefix) = prefixes
        .into_iter()
        .find(|(scale, _)| value >= *scale)
        .unwrap_or((1.0, ""));
    let scaled = value / scale;
    let digits = if scaled < 10.0 && scaled.fract() != 0.0 {
        2
    } else {
        0
    };
    format!("{scaled:.digits$}{prefix}")
}

fn shape_label((n, k): (usize, usize)) -> String {
    format!("{n}x{k}")
}

fn categories(count: usize) -> std::ops::Range<f64> {
    -0.5..count as f64 - 0.5
}

/// Bytes of the weights, BF16 and packed.
fn memory() -> Result<String> {
    let bf16 = |(n, k): (usize, usize)| (2 * n * k) as f64 / MIB;
    let packed = |(n, k)| packed_bytes(n, k) as f64 / MIB;
    let series = |name: &str, size: &dyn Fn((usize, usize)) -> f64| Series {
        name: name.to_owned(),
        points: SHAPES
            .iter()
            .enumerate()
            .map(|(index, &shape)| (index as f64, size(shape)))
            .collect(),
    };
    let series = [
        series("BF16", &bf16),
        series("2 bits, packed, with scales", &packed),
    ];
    let range = around(
        series
            .iter()
            .flat_map(|series| series.points.iter().map(|point| point.1)),
    );
    let range = range.ok_or_else(|| anyhow!("no shapes"))?;
    let labels: Vec<String> = SHAPES.iter().map(|&shape| shape_label(shape)).collect();
    svg(|page| {
        let x = (categories(SHAPES.len()), "N x K");
        points(
            page,
            "Static memory of a layer's weights",
            x,
            (range.log_scale(), "MiB"),
            &labels,
            &series,
            &[],
        )
    })
}

/// Cold time of one token's product, by shape, beside the peers.
fn latency(results: &Results) -> Result<String> {
    let chosen: Vec<&Case> = results
        .cases
        .iter()
        .filter(|case| case.op == "gemv" && case.chosen && case.m == 1)
        .collect();
    let labels: Vec<String> = chosen
        .iter()
        .map(|case| shape_label((case.n.unwrap_or(0), case.k)))
        .collect();
    let mut series = vec![Series {
        name: "this library".to_owned(),
        points: chosen
            .iter()
            .enumerate()
            .filter_map(|(index, case)| Some((index as f64, case.time()?.median_us)))
            .collect(),
    }];
    let mut peers: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for pair in results.pairs.iter().filter(|pair| pair.m == 1) {
        let same = |case: &&Case| (case.n, case.k) == (Some(pair.n), pair.k);
        if let Some(index) = chosen.iter().position(same) {
            peers
                .entry(&pair.peer)
                .or_default()
                .push((index as f64, pair.theirs.median_us));
        }
    }
    series.extend(peers.into_iter().map(|(name, points)| Series {
        name: name.to_owned(),
        points,
    }));
    let range = around(
        series
            .iter()
            .flat_map(|series| series.points.iter().map(|point| point.1)),
    )
    .unwrap_or(1.0..10.0);
    let title = format!(
        "One token's product, weights from memory: {}",
        results.device.name
    );
    svg(|page| {
        let x = (categories(labels.len().max(1)), "N x K");
        points(
            page,
            &title,
            x,
            (range.log_scale(), "us"),
            &labels,
            &series,
            &[],
        )
    })
}

/// Share of the copy bandwidth by bytes moved.
fn bandwidth(results: &Results) -> Result<String> {
    let series = by_op(results, |case| {
        Some((case.bytes as f64, case.bandwidth_fraction?))
    });
    let range = around(
        series
            .iter()
            .flat_map(|series| series.points.iter().map(|point| point.0)),
    )
    .unwrap_or(1.0..10.0);
    let highest = series
        .iter()
        .flat_map(|series| series.points.iter().map(|point| point.1))
        .fold(1.0, f64::max);
    let title = format!(
        "Share of the measured copy bandwidth: {}",
        results.device.name
    );
    svg(|page| {
        points(
            page,
            &title,
            (range.log_scale(), "bytes"),
            (0.0..highest * 1.1, "share"),
            &[],
            &series,
            &[],
        )
    })
}

/// Operations a second by operations a byte, under the measured roofs; none without ceilings.
fn roofline(results: &Results) -> Result<Option<String>> {
    let Some(ceilings) = &results.ceilings else {
        return Ok(None);
    };
    let series = by_op(results, |case| {
        let point = (
            case.operations as f64 / case.bytes as f64,
            case.operations as f64 / case.time()?.median_us * 1e6,
        );
        (case.operations > 0).then_some(point)
    });
    let all = || {
        series
            .iter()
            .flat_map(|series| series.points.iter().copied())
    };
    let (Some(x), Some(y)) = (
        around(all().map(|point| point.0)),
        around(all().map(|point| point.1)),
    ) else {
        return Ok(None);
    };
    let (copy, dots) = (
        ceilings.copy_bytes_per_second,
        ceilings.dp4a_operations_per_second,
    );
    let x = x.start..x.end.max(2.0 * dots / copy);
    let y = y.start..y.end.max(2.0 * dots);
    let roof = |x: f64| (x, (x * copy).min(dots));
    let roof = Series {
        name: "copy bandwidth and dp4a, measured".to_owned(),
        points: vec![roof(x.start), (dots / copy, dots), roof(x.end)],
    };
    let title = format!("Roofline: {}", results.device.name);
    let draw = |page: &Svg<'_>| {
        let (x, y) = (
            (x.log_scale(), "operations a byte"),
            (y.log_scale(), "operations a second"),
        );
        points(page, &title, x, y, &[], &series, &[roof])
    };
    svg(draw).map(Some)
}

/// The chosen kernels' points, by operation.
fn by_op(results: &Results, point: impl Fn(&Case) -> Option<(f64, f64)>) -> Vec<Series> {
    let mut by_op: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for case in results.cases.iter().filter(|case| case.chosen) {
        by_op.entry(&case.op).or_default().extend(point(case));
    }
    let series = by_op.into_iter().map(|(name, points)| Series {
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
    fn numbers_are_short() {
        assert_eq!(
            [1.0, 2.5, 4800.0, 3.3e12].map(number),
            ["1", "2.50", "4.80k", "3.30T"]
        );
    }
}
