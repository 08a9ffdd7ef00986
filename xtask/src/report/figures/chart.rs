//! A chart of points, with its legend beside it.

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

const SIZE: (u32, u32) = (1200, 520);
const LEGEND_WIDTH: u32 = 190;
const LEGEND_LINE: i32 = 22;

/// Okabe and Ito's colours, which colour-blind readers can tell apart.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];
const LINE_COLOURS: [RGBColor; 2] = [RGBColor(0x00, 0x00, 0x00), RGBColor(0x80, 0x80, 0x80)];

type Svg<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Points of one colour, with a name in the legend.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// What a chart shows, but for its axes' ranges.
pub struct Chart {
    pub title: String,
    pub x_name: &'static str,
    pub y_name: &'static str,
    /// Names of x = 0, 1, ...; where there are none, x is a number.
    pub labels: Vec<String>,
    /// Drawn as dots.
    pub series: Vec<Series>,
    /// Drawn as lines.
    pub lines: Vec<Series>,
}

impl Chart {
    /// The text of an SVG file.
    pub fn draw<X, Y>(&self, x: X, y: Y) -> Result<String>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let mut text = String::new();
        {
            let page = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
            page.fill(&WHITE).map_err(drawing)?;
            let (left, right) = page.split_horizontally(SIZE.0 - LEGEND_WIDTH);
            self.points(&left, x, y)?;
            self.legend(&right)?;
            page.present().map_err(drawing)?;
        }
        Ok(text)
    }

    fn points<X, Y>(&self, area: &Svg<'_>, x: X, y: Y) -> Result<()>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(x, y)
            .map_err(drawing)?;
        let name = |x: &f64| {
            let index = x.round();
            let label = self.labels.get(index as usize);
            label
                .filter(|_| (x - index).abs() < 1e-6)
                .cloned()
                .unwrap_or_default()
        };
        let (x_number, y_number) = (|x: &f64| number(*x), |y: &f64| number(*y));
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(self.x_name)
            .y_desc(self.y_name)
            .axis_desc_style(("sans-serif", 14))
            .label_style(("sans-serif", 12))
            .light_line_style(WHITE.mix(0.0))
            .bold_line_style(BLACK.mix(0.12))
            .x_label_formatter(&x_number)
            .y_label_formatter(&y_number);
        if !self.labels.is_empty() {
            mesh.x_labels(self.labels.len() + 2)
                .x_label_style(("sans-serif", 11))
                .x_label_formatter(&name);
        }
        mesh.draw().map_err(drawing)?;
        for (index, line) in self.lines.iter().enumerate() {
            let style = line_colour(index).stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))
                .map_err(drawing)?;
        }
        for (index, series) in self.series.iter().enumerate() {
            let dots = series.points.iter().copied();
            chart
                .draw_series(dots.map(|point| Circle::new(point, 4, colour(index).filled())))
                .map_err(drawing)?;
        }
        Ok(())
    }

    fn legend(&self, area: &Svg<'_>) -> Result<()> {
        let text = ("sans-serif", 13).into_font();
        let mut y = 60;
        for (index, series) in self.series.iter().enumerate() {
            area.draw(&Circle::new((9, y), 5, colour(index).filled()))
                .map_err(drawing)?;
            area.draw(&Text::new(series.name.clone(), (24, y - 6), text.clone()))
                .map_err(drawing)?;
            y += LEGEND_LINE;
        }
        for (index, line) in self.lines.iter().enumerate() {
            let style = line_colour(index).stroke_width(2);
            area.draw(&PathElement::new(vec![(2, y), (16, y)], style))
                .map_err(drawing)?;
            area.draw(&Text::new(line.name.clone(), (24, y - 6), text.clone()))
                .map_err(drawing)?;
            y += LEGEND_LINE;
        }
        Ok(())
    }
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

fn line_colour(index: usize) -> RGBColor {
    LINE_COLOURS[index % LINE_COLOURS.len()]
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [1.0, 2.5, 4800.0, 3.3e12].map(number),
            ["1", "2.50", "4.80k", "3.30T"]
        );
    }

    #[test]
    fn every_series_is_drawn_and_named() {
        let series = |name: &str, y: f64| Series {
            name: name.to_owned(),
            points: vec![(0.0, y), (1.0, 2.0 * y)],
        };
        let chart = Chart {
            title: "A title".to_owned(),
            x_name: "x axis",
            y_name: "y axis",
            labels: vec!["first".to_owned(), "second".to_owned()],
            series: vec![series("one", 1.0), series("two", 2.0)],
            lines: vec![series("a line", 1.5)],
        };
        let svg = chart.draw(-0.5..1.5, 0.0..5.0).expect("drawn");
        for text in [
            "A title", "x axis", "y axis", "first", "second", "one", "two", "a line",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        // Four points, and a dot for each of two names.
        assert_eq!(svg.matches("<circle").count(), 4 + 2);
    }
}
