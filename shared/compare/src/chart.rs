//! The ladder as an SVG chart: how fast each step decodes, and where its memory goes.

use anyhow::{Result, anyhow};
use plotters::coord::types::RangedCoordf64;
use plotters::coord::{Shift, cartesian::Cartesian2d};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use xtask::compare::results::{Results, Step};

const WIDTH: u32 = 800;
/// Height of one step, and of what stands above and below them.
const STEP: u32 = 64;
const FRAME: u32 = 110;

/// Told apart by people who do not see red and green alike: Okabe and Ito's palette.
const DECODE: RGBColor = RGBColor(0, 114, 178);
const THROUGHPUT: RGBColor = RGBColor(86, 180, 233);
const WEIGHTS: RGBColor = RGBColor(0, 158, 115);
const KV: RGBColor = RGBColor(213, 94, 0);
const REST: RGBColor = RGBColor(190, 190, 190);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Panel<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws the chart.
///
/// # Errors
/// If the library fails.
pub fn draw(results: &Results) -> Result<String> {
    let mut svg = String::new();
    let height = FRAME + STEP * results.steps.len() as u32;
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = panels(&area, results);
        drawn.map_err(|error| anyhow!("drawing the chart: {error}"))?;
    }
    Ok(svg)
}

fn panels(area: &Area<'_>, results: &Results) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    let dtype = results.dtype.as_ref();
    let dtype = dtype.map_or_else(String::new, |dtype| format!(" as {dtype}"));
    let title = format!("{}{dtype}, {}", results.model, results.machine.name);
    let area = area.titled(&title, ("sans-serif", 20))?;
    let (left, right) = area.split_horizontally(450);
    Ok(())
}
