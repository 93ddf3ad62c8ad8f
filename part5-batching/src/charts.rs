//! The roofline, and latency over throughput, as SVG charts that follow the reader's light or dark theme.

use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use console::files;
use console::numbers::fixed;
use plotters::prelude::*;

use crate::roofline::{Dot, Roofline};
use crate::tour::{Outcome, knee};

const SIZE: (u32, u32) = (800, 480);
/// Told apart by people who do not see red and green alike: Okabe and Ito's palette.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const ORANGE: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const FONT: (&str, i32) = ("sans-serif", 14);

/// A chart in white and black that turns: its colours stand in attributes, which a style sheet overrules.
const DARK: &str = r##"<style>
@media (prefers-color-scheme: dark) {
rect[fill="#FFFFFF"] { fill: #12131a }
text { fill: #ececf3 }
[stroke="#000000"] { stroke: #ececf3 }
[stroke="#0072B2"] { stroke: #56b4e9 }
[fill="#0072B2"] { fill: #56b4e9 }
[stroke="#D55E00"] { stroke: #ff9e5e }
[fill="#D55E00"] { fill: #ff9e5e }
[stroke="#009E73"] { stroke: #3fd6a8 }
[fill="#009E73"] { fill: #3fd6a8 }
}
</style>
"##;

/// What `--charts` writes into its directory.
pub const FILES: [&str; 2] = ["part5-roofline.svg", "part5-rates.svg"];

/// Writes both charts.
///
/// # Errors
/// If one cannot be written.
pub fn save(directory: &Path, title: &str, roofline: &Roofline, rates: &[Outcome]) -> Result<()> {
    let drawn = [draw_roofline(title, roofline), draw_rates(title, rates)];
    for (name, svg) in FILES.into_iter().zip(drawn) {
        let path = directory.join(name);
        let svg = svg.with_context(|| format!("drawing {name}"))?;
        files::replace(&path, themed(&svg).as_bytes())
            .with_context(|| format!("writing the chart {}", path.display()))?;
    }
    Ok(())
}

fn themed(svg: &str) -> String {
    match svg.split_once(">\n") {
        Some((head, rest)) => format!("{head}>\n{DARK}{rest}"),
        None => svg.to_owned(),
    }
}

fn failed(error: impl Display) -> anyhow::Error {
    anyhow!("{error}")
}

/// Operations per second over operations per byte, both logarithmic.
fn draw_roofline(title: &str, of: &Roofline) -> Result<String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let (across, down) = ranges(of);
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .caption(title, ("sans-serif", 16))
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(across.clone().log_scale(), down.log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("operations per byte")
        .y_desc("billions of operations per second")
        .x_label_formatter(&|x| fixed(*x, usize::from(*x < 1.0)))
        .y_label_formatter(&|y| fixed(*y, usize::from(*y < 1.0)))
        .draw()
        .map_err(failed)?;
    let line = LineSeries::new(corners(of, &across), BLACK.stroke_width(2));
    chart
        .draw_series(line)
        .map_err(failed)?
        .label(roofs(of))
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.stroke_width(2)));
    let kinds = [
        (&of.rows, BLUE, "decode, by rows", -18),
        (&of.pieces, ORANGE, "a piece of a prompt, by tokens", 8),
    ];
    for (dots, colour, label, below) in kinds {
        let at = |dot: &Dot| (dot.intensity, dot.flops / 1e9);
        chart
            .draw_series(
                dots.iter()
                    .map(|dot| Circle::new(at(dot), 5, colour.filled())),
            )
            .map_err(failed)?
            .label(label)
            .legend(move |(x, y)| Circle::new((x + 9, y), 5, colour.filled()));
        let name =
            |dot: &Dot| EmptyElement::at(at(dot)) + Text::new(dot.label.clone(), (-6, below), FONT);
        chart.draw_series(dots.iter().map(name)).map_err(failed)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .label_font(FONT)
        .draw()
        .map_err(failed)?;
    area.present().map_err(failed)?;
    drop(chart);
    drop(area);
    Ok(svg)
}

/// Both roofs as one line: memory's, up to where the arithmetic's is lower.
fn corners(of: &Roofline, across: &Range<f64>) -> [(f64, f64); 3] {
    let roof = |x: f64| of.bandwidth.map_or(f64::INFINITY, |b| b * x).min(of.flops) / 1e9;
    let ridge = of.bandwidth.map_or(across.start, |b| of.flops / b);
    let ridge = ridge.clamp(across.start, across.end);
    [across.start, ridge, across.end].map(|x| (x, roof(x)))
}

/// The roofs in words.
fn roofs(of: &Roofline) -> String {
    let memory = of
        .bandwidth
        .map(|bytes| format!("{} GB/s and ", fixed(bytes / 1e9, 1)));
    let flops = fixed(of.flops / 1e9, 0);
    format!("the roofs: {}{flops} GFLOP/s", memory.unwrap_or_default())
}

/// Room for all dots and both roofs.
fn ranges(of: &Roofline) -> (Range<f64>, Range<f64>) {
    let dots = || of.rows.iter().chain(&of.pieces);
    let (low, high) = ends(dots().map(|dot| dot.intensity));
    let (least, most) = ends(dots().map(|dot| dot.flops / 1e9));
    let across = low / 2.0..high * 2.0;
    (across, least / 2.0..most.max(of.flops / 1e9) * 2.0)
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let sound = values.filter(|value| value.is_finite() && *value > 0.0);
    let (low, high) = sound.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low <= high {
        (low, high)
    } else {
        (1.0, 10.0)
    }
}

/// A number of a load, if there is one.
type Number = fn(&Outcome) -> Option<f64>;

/// What clients wait for, with a colour each.
fn latencies() -> [(&'static str, RGBColor, Number); 3] {
    [
        ("whole answer, p99", ORANGE, |of| of.serving.e2el.p99),
        ("whole answer, median", BLUE, |of| of.serving.e2el.median),
        ("first token, median", GREEN, |of| of.serving.ttft.median),
    ]
}

/// Seconds until an answer is there over tokens per second, at each rate.
fn draw_rates(title: &str, rates: &[Outcome]) -> Result<String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let speed = |outcome: &Outcome| outcome.serving.output_throughput.unwrap_or(0.0);
    let (_, fastest) = ends(rates.iter().map(speed));
    let (_, slowest) = ends(rates.iter().filter_map(|outcome| outcome.serving.e2el.p99));
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .caption(title, ("sans-serif", 16))
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..fastest * 1.12, 0.0..slowest * 1.08)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("tokens of answers per second, at rising rates of requests")
        .y_desc("ms")
        .x_label_formatter(&|x| fixed(*x, 0))
        .y_label_formatter(&|y| fixed(*y, 0))
        .draw()
        .map_err(failed)?;
    for (label, colour, of) in latencies() {
        let points = || rates.iter().filter_map(|o| Some((speed(o), of(o)?)));
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))
            .map_err(failed)?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        chart
            .draw_series(points().map(|at| Circle::new(at, 4, colour.filled())))
            .map_err(failed)?;
    }
    if let Some(knee) = knee(rates) {
        let line = [(speed(knee), 0.0), (speed(knee), slowest * 1.08)];
        let text = format!("the knee: {} requests a second", knee.name);
        let (left, top) = (-10 - 5 * text.len() as i32, 60);
        let name = EmptyElement::at(line[1]) + Text::new(text, (left, top), FONT);
        chart
            .draw_series([PathElement::new(line, BLACK)])
            .map_err(failed)?;
        chart.draw_series([name]).map_err(failed)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(FONT)
        .draw()
        .map_err(failed)?;
    area.present().map_err(failed)?;
    drop(chart);
    drop(area);
    Ok(svg)
}
