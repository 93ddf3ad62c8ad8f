//! Milliseconds per token as an SVG chart.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use console::files;
use console::numbers::fixed;
use plotters::prelude::*;

/// One curve: what each token of a run cost.
#[derive(Debug)]
pub struct Curve<'a> {
    /// Its name in the legend.
    pub label: &'a str,
    /// Milliseconds per token after the first.
    pub token_ms: &'a [f64],
}

const SIZE: (u32, u32) = (800, 450);
/// Told apart by people who do not see red and green alike: Okabe and Ito's palette.
const COLOURS: [RGBColor; 4] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(0, 114, 178),
    RGBColor(204, 121, 167),
];

/// Writes the curves on one scale, which starts at zero.
///
/// # Errors
/// If the file cannot be written.
pub fn save(path: &Path, title: &str, curves: &[Curve<'_>]) -> Result<()> {
    let mut svg = String::new();
    draw(&mut svg, title, curves).context("drawing the chart")?;
    files::replace(path, svg.as_bytes())
        .with_context(|| format!("writing the chart {}", path.display()))
}

fn draw(svg: &mut String, title: &str, curves: &[Curve<'_>]) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
    let longest = curves.iter().map(|c| c.token_ms.len()).max().unwrap_or(0);
    let all = curves.iter().flat_map(|curve| curve.token_ms);
    let highest = all.copied().fold(0.0, f64::max).max(1e-3);
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|e| failed(&e))?;
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .caption(title, ("sans-serif", 18))
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(1..longest.max(2) + 1, 0.0..highest * 1.05)
        .map_err(|e| failed(&e))?;
    let decimals = usize::from(highest < 20.0);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("token of the answer")
        .y_desc("ms per token")
        .y_label_formatter(&|ms| fixed(*ms, decimals))
        .draw()
        .map_err(|e| failed(&e))?;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let points = curve
            .token_ms
            .iter()
            .enumerate()
            .map(|(i, ms)| (i + 2, *ms));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))
            .map_err(|e| failed(&e))?
            .label(curve.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 14))
        .draw()
        .map_err(|e| failed(&e))?;
    area.present().map_err(|e| failed(&e))
}
