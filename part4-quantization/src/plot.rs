//! Divergence over bytes as an SVG chart, with the error of each point.

use std::collections::BTreeMap;
use std::ops::Range;
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
/// Where the name of a point may stand, in pixels from it.
const PLACES: [(i32, i32); 6] = [(8, -14), (-58, 6), (8, 2), (-58, -12), (8, 14), (-58, 20)];
/// Pixels of a name: each of its letters, and its height.
const LETTER: (i32, i32) = (6, 12);
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
    let coordinates = |point: &Point<'_>| {
        chart.backend_coord(&(point.bits_per_weight, point.divergence.max(LEAST)))
    };
    let places = places(points, &points.iter().map(coordinates).collect::<Vec<_>>());
    for ((group, line), colour) in by_group(points).into_iter().zip(COLOURS.iter().cycle()) {
        let at = |point: &&Point<'_>| (point.bits_per_weight, point.divergence.max(LEAST));
        let joined = line.iter().filter(|_| group.is_some());
        chart
            .draw_series(LineSeries::new(joined.map(at), colour.stroke_width(2)))
            .map_err(|e| failed(&e))?
            .label(group.map_or("float modes".to_owned(), |size| format!("groups of {size}")))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        let bar = |point: &&Point<'_>| PathElement::new(error_bar(point), colour.stroke_width(2));
        let dot = |point: &&Point<'_>| Circle::new(at(point), 4, colour.filled());
        chart
            .draw_series(line.iter().map(bar))
            .map_err(|e| failed(&e))?;
        chart
            .draw_series(line.iter().map(dot))
            .map_err(|e| failed(&e))?;
        let name = |point: &&Point<'_>| {
            let text = Text::new(
                point.label.to_owned(),
                places[point.label],
                ("sans-serif", 13),
            );
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

/// From one standard error below to one above.
fn error_bar(point: &Point<'_>) -> [(f64, f64); 2] {
    let (x, y) = (point.bits_per_weight, point.divergence.max(LEAST));
    let low = (y - point.error).max(y / 10.0).max(LEAST);
    [(x, low), (x, y + point.error)]
}

/// Where each name stands, so that it covers no point and no other name if that can be: those of the first group
/// above the line, those of the others below.
fn places<'p>(points: &[Point<'p>], at: &[(i32, i32)]) -> BTreeMap<&'p str, (i32, i32)> {
    let mut taken: Vec<_> = at
        .iter()
        .map(|(x, y)| (x - 4..x + 5, y - 4..y + 5))
        .collect();
    let mut places = BTreeMap::new();
    let groups: Vec<_> = by_group(points)
        .into_iter()
        .map(|(group, _)| group)
        .collect();
    for (point, (x, y)) in points.iter().zip(at) {
        let first = groups.iter().position(|group| *group == point.group);
        let width = LETTER.0 * point.label.len() as i32;
        let name = |(right, below): (i32, i32)| {
            (
                x + right..x + right + width,
                y + below..y + below + LETTER.1,
            )
        };
        let order = PLACES.iter().cycle().skip(first.unwrap_or(0));
        let mut order = order.take(PLACES.len()).copied();
        let preferred = PLACES[first.unwrap_or(0) % PLACES.len()];
        let free = order.find(|place| taken.iter().all(|other| !overlap(&name(*place), other)));
        let place = free.unwrap_or(preferred);
        taken.push(name(place));
        places.insert(point.label, place);
    }
    places
}

type Rectangle = (Range<i32>, Range<i32>);

fn overlap(a: &Rectangle, b: &Rectangle) -> bool {
    let meet = |a: &Range<i32>, b: &Range<i32>| a.start < b.end && b.start < a.end;
    meet(&a.0, &b.0) && meet(&a.1, &b.1)
}

/// Room for all points, their errors and their names.
fn ranges(points: &[Point<'_>]) -> (Range<f64>, Range<f64>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_points_that_are_near_each_other_stand_apart() {
        let point = |label, group| Point {
            label,
            group,
            bits_per_weight: 4.5,
            divergence: 0.1,
            error: 0.01,
        };
        let points = [
            point("4-bit g64", Some(64)),
            point("nvfp4", None),
            point("nvfp4 fit", None),
        ];
        let at = [(300, 200), (296, 202), (297, 205)];
        let places = places(&points, &at);
        let names: Vec<Rectangle> = points
            .iter()
            .zip(at)
            .map(|(point, (x, y))| {
                let (right, below) = places[point.label];
                let width = LETTER.0 * point.label.len() as i32;
                (
                    x + right..x + right + width,
                    y + below..y + below + LETTER.1,
                )
            })
            .collect();
        for (index, name) in names.iter().enumerate() {
            assert!(
                names[..index].iter().all(|other| !overlap(name, other)),
                "{names:?}"
            );
        }
    }
}
