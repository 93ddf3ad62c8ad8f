//! Divergence over bytes as an SVG chart, with the error of each point.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use console::files;
use console::numbers::fixed;
use plotters::prelude::*;

/// One way to store the weights.
#[derive(Debug, Clone, Copy)]
pub struct Point<'a> {
    /// Its name.
    pub label: &'a str,
    /// Points of affine codes in one group are joined by a line; None for a float mode, which has one width.
    pub group: Option<usize>,
    /// Scales and biases included.
    pub bits_per_weight: f64,
    /// The mean, in nats.
    pub divergence: f64,
    /// Its standard error.
    pub error: f64,
}

const SIZE: (u32, u32) = (800, 500);
/// Told apart by people who do not see red and green alike: Okabe and Ito's palette.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];
/// Where the name of a point stands, in pixels from it: those of two groups on two sides of their lines.
const PLACES: [(i32, i32); 3] = [(8, -14), (-58, 6), (8, 2)];
/// What stands for no divergence on a scale that has no zero.
const LEAST: f64 = 1e-7;

/// Writes the points on a logarithmic scale of divergence: towards the lower left is better.
///
/// # Errors
/// If there are no points, or if the file cannot be written.
pub fn save(path: &Path, title: &str, points: &[Point<'_>]) -> Result<()> {
    let mut svg = String::new();
    draw(&mut svg, title, points).context("drawing the chart")?;
    files::replace(path, svg.as_bytes())
        .with_context(|| format!("writing the chart {}", path.display()))
}

fn draw(svg: &mut String, title: &str, points: &[Point<'_>]) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|e| failed(&e))?;
    let (across, down) = ranges(points);
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .caption(title, ("sans-serif", 16))
        .x_label_area_size(40)
        .y_label_area_size(72)
        .build_cartesian_2d(across, down.log_scale())
        .map_err(|e| failed(&e))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("bits per weight, scales and biases included")
        .y_desc("KL divergence in nats, ± standard error by window")
        .x_label_formatter(&|bits| fixed(*bits, 0))
        .y_label_formatter(&|nats| format!("{nats:.0e}"))
        .draw()
        .map_err(|e| failed(&e))?;
    for (((group, line), colour), place) in by_group(points)
        .into_iter()
        .zip(COLOURS.iter().cycle())
        .zip(PLACES.iter().cycle())
    {
        let at = |point: &&Point<'_>| (point.bits_per_weight, point.divergence.max(LEAST));
        let joined = line.iter().filter(|_| group.is_some());
        chart
            .draw_series(LineSeries::new(joined.map(at), colour.stroke_width(2)))
            .map_err(|e| failed(&e))?
            .label(group.map_or("float modes".to_owned(), |size| format!("groups of {size}")))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        let bar = |point: &&Point<'_>| {
            let (x, y) = at(point);
            let (low, high) = ((y - point.error).max(y / 10.0).max(LEAST), y + point.error);
            PathElement::new([(x, low), (x, high)], colour.stroke_width(2))
        };
        let dot = |point: &&Point<'_>| Circle::new(at(point), 4, colour.filled());
        chart
            .draw_series(line.iter().map(bar))
            .map_err(|e| failed(&e))?;
        chart
            .draw_series(line.iter().map(dot))
            .map_err(|e| failed(&e))?;
        let name = |point: &&Point<'_>| {
            let text = Text::new(point.label.to_owned(), *place, ("sans-serif", 13));
            EmptyElement::at(at(point)) + text
        };
        chart
            .draw_series(line.iter().map(name))
            .map_err(|e| failed(&e))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 14))
        .draw()
        .map_err(|e| failed(&e))?;
    area.present().map_err(|e| failed(&e))
}

/// Room for all points, their errors and their names.
fn ranges(points: &[Point<'_>]) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
    let bits = points.iter().map(|point| point.bits_per_weight);
    let most = bits.fold(4.0, f64::max);
    let values = || points.iter().map(|point| point.divergence.max(LEAST));
    let low = values().fold(1.0, f64::min);
    let high = points
        .iter()
        .map(|point| point.divergence + point.error)
        .fold(low, f64::max);
    (0.0..most + 2.0, low / 3.0..high * 3.0)
}

/// Each group's points, the fewest bits first, and those without a group last.
fn by_group<'p>(points: &'p [Point<'p>]) -> Vec<(Option<usize>, Vec<&'p Point<'p>>)> {
    let mut groups: BTreeMap<Option<usize>, Vec<&Point<'_>>> = BTreeMap::new();
    for point in points {
        groups.entry(point.group).or_default().push(point);
    }
    for line in groups.values_mut() {
        line.sort_by(|a, b| a.bits_per_weight.total_cmp(&b.bits_per_weight));
    }
    let without = groups.remove(&None).map(|points| (None, points));
    groups.into_iter().chain(without).collect()
}
