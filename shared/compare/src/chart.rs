//! The ladder as an SVG chart: how fast each step decodes, and where its memory goes. Bars start at
//! zero and have their number beside them, so there are no axes.

use anyhow::{Result, anyhow};
use console::results::{Results, Step};
use console::text::clip;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::ladder::narrow;
use crate::text::one_line;

/// Pixels: the whole width, what stands above the steps, one step, what stands below them.
const WIDTH: u32 = 800;
const HEAD: u32 = 96;
const STEP: u32 = 66;
const FOOT: u32 = 12;

/// Where things begin in a row, and the longest bar of both kinds.
const NAMES: i32 = 20;
const SPEED: Bars = Bars {
    left: 110,
    longest: 265,
};
const MEMORY: Bars = Bars {
    left: 520,
    longest: 190,
};

/// Told apart by people who do not see red and green alike: Okabe and Ito's palette.
const DECODE: RGBColor = RGBColor(0, 114, 178);
const THROUGHPUT: RGBColor = RGBColor(86, 180, 233);
const WEIGHTS: RGBColor = RGBColor(0, 158, 115);
const KV: RGBColor = RGBColor(213, 94, 0);
const REST: RGBColor = RGBColor(200, 200, 200);
const GREY: RGBColor = RGBColor(90, 90, 90);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What can go wrong on plotters' side.
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws the chart.
///
/// # Errors
/// If the library fails.
pub fn draw(results: &Results) -> Result<String> {
    let mut svg = String::new();
    let height = HEAD + STEP * results.steps.len() as u32 + FOOT;
    let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
    let drawn = picture(&area, results);
    drawn.map_err(|error| anyhow!("drawing the chart: {error}"))?;
    drop(area);
    Ok(svg)
}

fn picture(area: &Area<'_>, results: &Results) -> Drawn {
    area.fill(&WHITE)?;
    head(area, results)?;
    let of = |value: fn(&Step) -> f64| results.steps.iter().map(value).fold(1e-9, f64::max);
    let speed = of(|step| {
        let most = step.rows as f64 * step.decode_tps.max;
        most.max(step.throughput_tps.median)
    });
    let memory = of(|step| megabytes(step.peak_bytes));
    for (index, step) in results.steps.iter().enumerate() {
        let y = (HEAD + STEP * index as u32) as i32;
        if index == 0 || results.steps[index - 1].number != step.number {
            let adds = format!("{}: {}", step.number, clip(&one_line(&step.adds), 100));
            text(area, &adds, (NAMES, y + 6), (14.0, BLACK))?;
        }
        text(
            area,
            &clip(&one_line(&step.variant), 12),
            (NAMES, y + 32),
            (13.0, GREY),
        )?;
        speeds(area, step, y + 24, speed)?;
        memories(area, step, y + 24, memory)?;
    }
    Ok(area.present()?)
}

fn head(area: &Area<'_>, results: &Results) -> Drawn {
    let Results { machine, n, .. } = results;
    let dtype = results.dtype.as_ref();
    let dtype = dtype.map_or_else(String::new, |dtype| format!(" as {dtype}"));
    let title = format!("{}{dtype} on {}", results.model, machine.name);
    text(
        area,
        &clip(&one_line(&title), 80),
        (NAMES, 22),
        (20.0, BLACK),
    )?;
    let mlx = &results.versions.mlx;
    let setting = format!(
        "{} prompt tokens, {} new, median of {n}; MLX {mlx} ({}), {}",
        results.prompt_tokens, results.new_tokens, machine.backend, results.date
    );
    text(
        area,
        &clip(&one_line(&setting), 110),
        (NAMES, 46),
        (13.0, GREY),
    )?;
    legend(
        area,
        SPEED.left,
        &[
            (DECODE, "decode tok/s, a piece a row"),
            (THROUGHPUT, "with prefill"),
        ],
    )?;
    let memory = [
        (WEIGHTS, "weights"),
        (KV, "KV"),
        (REST, "rest of the peak, MB"),
    ];
    legend(area, MEMORY.left, &memory)
}

fn legend(area: &Area<'_>, mut x: i32, entries: &[(RGBColor, &str)]) -> Drawn {
    for (colour, label) in entries {
        area.draw(&Rectangle::new([(x, 68), (x + 10, 78)], colour.filled()))?;
        text(area, label, (x + 15, 73), (13.0, GREY))?;
        x += 34 + 7 * label.len() as i32;
    }
    Ok(())
}

/// Decode speed with its spread, a piece of the bar for each row, and below it all tokens ÷ all time.
fn speeds(area: &Area<'_>, step: &Step, y: i32, largest: f64) -> Drawn {
    let rows = step.rows as f64;
    let (median, half_iqr) = (step.decode_of_all(), rows * step.decode_tps.half_iqr);
    SPEED.bar(area, (0.0, median / largest), (y, y + 16), DECODE)?;
    for row in 1..step.rows {
        let x = SPEED.at(row as f64 / rows * median / largest);
        let cut = PathElement::new([(x, y), (x, y + 16)], WHITE.stroke_width(1));
        area.draw(&cut)?;
    }
    let whole = step.throughput_tps.median;
    SPEED.bar(area, (0.0, whole / largest), (y + 18, y + 24), THROUGHPUT)?;
    let (low, high) = ((median - half_iqr) / largest, (median + half_iqr) / largest);
    let whisker = PathElement::new(
        [(SPEED.at(low), y + 8), (SPEED.at(high), y + 8)],
        BLACK.stroke_width(2),
    );
    area.draw(&whisker)?;
    let ratio = step.ratio_to_part2.filter(|_| step.number != 2);
    let ratio = ratio.map_or_else(String::new, |ratio| {
        format!(" ({} × part 2)", narrow(Some(ratio), 1))
    });
    let label = format!("{}{ratio}", narrow(Some(median), 1));
    text(
        area,
        &label,
        (SPEED.at(high.max(whole / largest)) + 6, y + 8),
        (13.0, BLACK),
    )
}

/// Weights, keys and values, and what else there was at the moment of the peak.
fn memories(area: &Area<'_>, step: &Step, y: i32, largest: f64) -> Drawn {
    let peak = megabytes(step.peak_bytes);
    let parts = [
        (WEIGHTS, megabytes(step.weight_bytes)),
        (KV, megabytes(step.kv_bytes)),
        (REST, peak),
    ];
    let mut from = 0.0;
    for (colour, size) in parts {
        let to = if colour == REST { peak } else { from + size };
        let to = to.clamp(from, peak.max(from));
        MEMORY.bar(area, (from / largest, to / largest), (y, y + 16), colour)?;
        from = to;
    }
    let label = narrow(step.peak_bytes.map(|_| peak), 1);
    text(
        area,
        &label,
        (MEMORY.at(peak / largest) + 6, y + 8),
        (13.0, BLACK),
    )
}

fn megabytes(bytes: Option<u64>) -> f64 {
    bytes.unwrap_or(0) as f64 / 1e6
}

/// A column of bars on one scale.
struct Bars {
    left: i32,
    longest: i32,
}

impl Bars {
    /// The pixel of a share (0 to 1) of the longest bar.
    fn at(&self, share: f64) -> i32 {
        self.left + (share.clamp(0.0, 1.0) * f64::from(self.longest)).round() as i32
    }

    fn bar(&self, area: &Area<'_>, x: (f64, f64), y: (i32, i32), colour: RGBColor) -> Drawn {
        let corners = [(self.at(x.0), y.0), (self.at(x.1), y.1)];
        Ok(area.draw(&Rectangle::new(corners, colour.filled()))?)
    }
}

/// Text that begins at `place`, which is half-way up its letters.
fn text(area: &Area<'_>, text: &str, place: (i32, i32), (size, colour): (f64, RGBColor)) -> Drawn {
    let style = TextStyle::from(("sans-serif", size).into_font())
        .pos(Pos::new(HPos::Left, VPos::Center))
        .color(&colour);
    Ok(area.draw(&Text::new(text.to_owned(), place, style))?)
}

#[cfg(test)]
mod tests;
