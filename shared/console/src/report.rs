//! Cards, tables, bars, sparklines and the JSON line: the only module that prints.
//!
//! The terminal is filmed: 80 columns, colour only where the terminal wants it, units in the head of
//! a table, one scale for what is compared. Everything writes through [`io::Write`] and returns its
//! error; `println!` would panic when the reader of a pipe has gone.

mod rows;
mod stream;
mod wrap;

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{
    Attribute, Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle,
};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::numbers::{fixed, or_dash};
use crate::text::{WIDTH, clip, one_line, pad};

pub use rows::{Column, Rows};
pub use stream::{Stdout, TextStream, clear_status, error, status, stdout_closed, tell, warn};

/// Most cells of a sparkline.
const SPARK_CELLS: usize = 60;
/// Longest title and longest label beside a bar or a sparkline; longer ones are clipped.
const TITLE_MAX: usize = 12;
const LABEL_MAX: usize = 16;
/// Columns kept for first and last value of a series, so that most blocks have the same cells.
const ENDS_MIN: usize = 12;

/// Of what names a row.
pub const LABEL_STYLE: Style = AnsiColor::Cyan.on_default();
/// Of what is drawn to scale.
pub const BAR_STYLE: Style = AnsiColor::Green.on_default();
/// Of what is said beside.
pub const DIM: Style = Style::new().dimmed();

/// Writes the blocks of a report, one below the other.
#[derive(Debug)]
pub struct Report<W: Write> {
    out: W,
    colour: bool,
}

impl Report<Stdout> {
    /// A report on standard output; in colour on a terminal, unless `NO_COLOR` is set.
    pub fn stdout() -> Self {
        let choice = anstream::AutoStream::choice(&io::stdout());
        Self {
            out: Stdout::new(),
            colour: choice != anstream::ColorChoice::Never,
        }
    }
}

impl<W: Write> Report<W> {
    /// A report without colour.
    pub fn plain(out: W) -> Self {
        Self { out, colour: false }
    }

    /// Label and value per row, values aligned and wrapped: the model, the machine, the ceiling.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn card<L: AsRef<str>, V: AsRef<str>>(&mut self, rows: &[(L, V)]) -> io::Result<()> {
        let widest = rows
            .iter()
            .map(|(label, _)| one_line(label.as_ref()).width())
            .max();
        let column = widest.unwrap_or(0).min(LABEL_MAX);
        for (label, value) in rows {
            let value = one_line(value.as_ref());
            let lines = textwrap::wrap(&value, WIDTH - column - 3);
            let label = self.styled(LABEL_STYLE, &pad(&one_line(label.as_ref()), column));
            self.line(&format!(
                " {label}  {}",
                lines.first().map_or("", |line| line)
            ))?;
            for line in lines.iter().skip(1) {
                self.line(&format!("{:indent$}{line}", "", indent = column + 3))?;
            }
        }
        self.out.flush()
    }

    /// A table with units in its head; the first column is left-aligned, numbers are right-aligned.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn table<S: AsRef<str>>(&mut self, head: &[&str], rows: &[Vec<S>]) -> io::Result<()> {
        self.text_table(head, rows, &[0])
    }

    /// A [`table`](Self::table) with other left-aligned columns than the first.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn text_table<S: AsRef<str>>(
        &mut self,
        head: &[&str],
        rows: &[Vec<S>],
        text_columns: &[usize],
    ) -> io::Result<()> {
        let mut table = Table::new();
        let rule = LineStyle::none().fill('─').junction('─');
        table.load_style(TableStyle::new().header_separator(rule));
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(WIDTH as u16);
        if self.colour {
            table.enforce_styling()
        } else {
            table.force_no_tty()
        };
        table.set_header(
            head.iter()
                .map(|text| Cell::new(one_line(text)).add_attribute(Attribute::Bold)),
        );
        table.add_rows(
            rows.iter()
                .map(|row| row.iter().map(|cell| one_line(cell.as_ref()))),
        );
        for (index, column) in table.column_iter_mut().enumerate() {
            if !text_columns.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.lines().try_for_each(|line| self.line(&line))?;
        self.out.flush()
    }

    /// One bar per value, from zero, the longest for the largest.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn bars(
        &mut self,
        title: &str,
        unit: &str,
        decimals: usize,
        values: &[(&str, f64)],
    ) -> io::Result<()> {
        let margin = Margin::new(title, values.iter().map(|(label, _)| *label));
        let numbers: Vec<String> = values
            .iter()
            .map(|(_, value)| fixed(*value, decimals))
            .collect();
        let number_width = numbers.iter().map(|text| text.width()).max().unwrap_or(0);
        let room = WIDTH.saturating_sub(margin.width() + number_width + unit.width() + 3);
        let largest = largest(values.iter().map(|(_, value)| *value));
        for (i, ((label, value), number)) in values.iter().zip(numbers).enumerate() {
            let bar = self.styled(BAR_STYLE, &pad(&bar(value / largest, room), room));
            let gap = " ".repeat(number_width - number.width());
            self.line(&format!(
                "{}{bar}  {gap}{number} {unit}",
                margin.row(i, label)
            ))?;
        }
        self.out.flush()
    }

    /// Series over time, one above the other on one scale that starts at zero; first and last value
    /// beside each. A long series is drawn by the means of equal stretches.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn sparklines(
        &mut self,
        title: &str,
        decimals: usize,
        series: &[(&str, &[f64])],
    ) -> io::Result<()> {
        let margin = Margin::new(title, series.iter().map(|(label, _)| *label));
        let ends: Vec<String> = series
            .iter()
            .map(|(_, values)| ends(values, decimals))
            .collect();
        let ends_width = ends
            .iter()
            .map(|text| text.width())
            .fold(ENDS_MIN, usize::max);
        let room = WIDTH
            .saturating_sub(margin.width() + ends_width + 2)
            .min(SPARK_CELLS);
        let longest = series
            .iter()
            .map(|(_, values)| values.len())
            .max()
            .unwrap_or(0);
        let per_cell = longest.div_ceil(room.max(1)).max(1);
        let drawn: Vec<Vec<f64>> = series
            .iter()
            .map(|(_, values)| means(values, per_cell))
            .collect();
        let largest = largest(drawn.iter().flatten().copied());
        for (i, (((label, _), cells), ends)) in series.iter().zip(&drawn).zip(ends).enumerate() {
            let line: String = cells.iter().map(|value| spark(value / largest)).collect();
            let line = self.styled(BAR_STYLE, &pad(&line, longest.div_ceil(per_cell)));
            self.line(&format!("{}{line}  {ends}", margin.row(i, label)))?;
        }
        let scale = scale_note(largest, decimals, per_cell);
        let scale = self.styled(DIM, &clip(&scale, WIDTH - margin.width()));
        self.line(&format!("{:indent$}{scale}", "", indent = margin.width()))?;
        self.out.flush()
    }

    /// A paragraph, wrapped.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        let text = one_line(text);
        textwrap::wrap(&text, WIDTH - 2)
            .iter()
            .try_for_each(|line| self.line(&format!(" {line}")))?;
        self.out.flush()
    }

    /// An empty line between two blocks.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn blank(&mut self) -> io::Result<()> {
        self.line("")
    }

    /// The JSON line, a [`JsonReport`](crate::results::JsonReport) or one with more keys; nothing may be written to stdout after
    /// it.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn json_line<T: Serialize>(&mut self, report: &T) -> io::Result<()> {
        let line = serde_json::to_string(report)?;
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// One line as it is, without blanks at its end.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", text.trim_end())
    }

    /// Whether styles are written.
    pub fn is_coloured(&self) -> bool {
        self.colour
    }

    /// `text` in that style, where the report is in colour.
    pub fn styled(&self, style: Style, text: &str) -> String {
        if self.colour {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

/// Title and label at the left of bars and sparklines; the title stands in the first row only.
struct Margin {
    title: String,
    label_width: usize,
}

impl Margin {
    fn new<'l>(title: &str, labels: impl Iterator<Item = &'l str>) -> Self {
        let label_width = labels
            .map(|label| one_line(label).width())
            .max()
            .unwrap_or(0);
        let title = clip(&one_line(title), TITLE_MAX).into_owned();
        Self {
            title,
            label_width: label_width.min(LABEL_MAX),
        }
    }

    fn width(&self) -> usize {
        self.title.width() + self.label_width + 5
    }

    fn row(&self, index: usize, label: &str) -> String {
        let title = if index == 0 { self.title.as_str() } else { "" };
        let title = pad(title, self.title.width());
        format!(" {title}  {}  ", pad(&one_line(label), self.label_width))
    }
}

/// The largest finite value, and 1 where there is none above zero: the divisor of a scale.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    let largest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    if largest > 0.0 { largest } else { 1.0 }
}

/// A bar of `share` (0 to 1) of `room` cells, to an eighth of a cell; never empty for a share > 0.
pub fn bar(share: f64, room: usize) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if share.is_nan() || share <= 0.0 {
        return String::new();
    }
    let eighths = ((share.min(1.0) * room as f64 * 8.0).round() as usize).max(1);
    "█".repeat(eighths / 8) + PARTS[eighths % 8]
}

/// The block for `share` (0 to 1) of the height; a blank for what is not a number.
fn spark(share: f64) -> char {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if !share.is_finite() {
        return ' ';
    }
    LEVELS[((share.clamp(0.0, 1.0) * 8.0).ceil() as usize).saturating_sub(1)]
}

/// The means of stretches of `per_cell` values; values that are not finite are left out.
fn means(values: &[f64], per_cell: usize) -> Vec<f64> {
    let mean = |stretch: &[f64]| {
        let finite: Vec<f64> = stretch
            .iter()
            .copied()
            .filter(|value| value.is_finite())
            .collect();
        finite.iter().sum::<f64>() / finite.len() as f64
    };
    values.chunks(per_cell).map(mean).collect()
}

/// First and last value of a series: `12.30 → 98.71`.
fn ends(values: &[f64], decimals: usize) -> String {
    match values {
        [] => or_dash(None, decimals),
        [only] => fixed(*only, decimals),
        [first, .., last] => format!("{} → {}", fixed(*first, decimals), fixed(*last, decimals)),
    }
}

fn scale_note(largest: f64, decimals: usize, per_cell: usize) -> String {
    let scale = format!("0 to {}", fixed(largest, decimals));
    match per_cell {
        1 => format!("{scale}; a cell is one token"),
        n => format!("{scale}; a cell is the mean of {n} tokens"),
    }
}

#[cfg(test)]
mod tests;
