//! Pictures made of letters: headings, heat maps, bars in pairs, points on a plane.

use std::borrow::Cow;
use std::io::{self, Write};

use anstyle::{Ansi256Color, Color, Style};
use console::numbers::fixed;
use console::report::{BAR_STYLE, DIM, LABEL_STYLE, Report, bar};
use console::text::{WIDTH, clip, one_line};
use unicode_width::UnicodeWidthStr;

/// Columns for the name of a row, and those with the row's number before it.
const NAME: usize = 12;
const LEFT: usize = NAME + 5;
/// Cells of a bar in a pair.
const PAIR_CELLS: usize = 10;
/// Rows and columns of a plane.
const PLANE: (usize, usize) = (17, WIDTH - 2);

/// A value before and after something was done to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BeforeAfter<'a> {
    /// What it is the value of.
    pub(crate) label: &'a str,
    /// 0 to 1.
    pub(crate) before: f64,
    /// 0 to 1; nothing is drawn for 0.
    pub(crate) after: f64,
    /// What is to be said of it.
    pub(crate) note: &'a str,
}

/// A point on a plane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dot<'a> {
    /// Its name.
    pub(crate) label: &'a str,
    /// To the right.
    pub(crate) x: f64,
    /// Upwards.
    pub(crate) y: f64,
    /// Drawn with its name even where names crowd, in bold.
    pub(crate) important: bool,
}

/// The title of a chapter across the whole width, with a word at the right.
///
/// # Errors
///
/// If it cannot be written.
pub(crate) fn heading<W: Write>(
    report: &mut Report<W>,
    title: &str,
    aside: &str,
) -> io::Result<()> {
    let (title, aside) = (one_line(title), one_line(aside));
    let rule = WIDTH.saturating_sub(title.width() + aside.width() + 8);
    let rule = "━".repeat(rule.max(1));
    let line = format!("━━ {title} {rule} {aside} ━━");
    let line = report.styled(Style::new().bold(), &line);
    report.line(&line)
}

/// A square of shares from 0 to 1 as shaded cells, row by row: who (row) gives how much to whom
/// (column). A cell that is not finite is one that the mask hides. Few columns have the per cent
/// in the cell.
///
/// # Errors
///
/// If it cannot be written.
pub(crate) fn heat_map<W: Write>(
    report: &mut Report<W>,
    labels: &[&str],
    cells: &[f32],
) -> io::Result<()> {
    let n = labels.len();
    let width = match WIDTH.saturating_sub(LEFT) / n.max(1) {
        0 | 1 => 1,
        2 | 3 => 2,
        _ => 4,
    };
    let step = if width == 4 { 1 } else { 5 };
    // As many columns as there are come first; the names take what is left.
    let name = WIDTH.saturating_sub(n * width + LEFT - NAME).min(NAME);
    let left = name + LEFT - NAME;
    let head: String = (0..n)
        .step_by(step)
        .map(|column| format!("{column:<room$}", room = width * step))
        .collect();
    let indent = if width == 4 { left + 1 } else { left };
    let head = report.styled(DIM, head.trim_end());
    report.line(&format!("{:indent$}{head}", ""))?;
    for (row, label) in labels.iter().enumerate() {
        let shares = cells.iter().skip(row * n).take(n);
        let drawn: String = shares.map(|share| cell(report, *share, width)).collect();
        let name = report.styled(LABEL_STYLE, &label_cell(label, name));
        report.line(&format!(" {row:>2} {name} {drawn}"))?;
    }
    Ok(())
}

/// One cell of a heat map.
fn cell<W: Write>(report: &Report<W>, share: f32, width: usize) -> String {
    if !share.is_finite() {
        let hidden = if width == 4 { " ·  " } else { "·" };
        return report.styled(DIM, &format!("{hidden:<width$}"));
    }
    let level = level(share);
    let text = match (width, report.is_coloured()) {
        (4, true) => format!("{:>3} ", percent(share)),
        (4, false) => format!("{}{:<3}", SHADES[level], percent(share)),
        (_, true) => " ".repeat(width),
        (_, false) => SHADES[level].to_string().repeat(width),
    };
    let (background, foreground) = RAMP[level];
    let colour = |index| Some(Color::Ansi256(Ansi256Color(index)));
    let style = Style::new()
        .bg_color(colour(background))
        .fg_color(colour(foreground));
    report.styled(style, &text)
}

/// Two bars per row on one scale, and a note: what a step did to each value.
///
/// # Errors
///
/// If it cannot be written.
pub(crate) fn before_after<W: Write>(
    report: &mut Report<W>,
    heads: [&str; 2],
    rows: &[BeforeAfter<'_>],
) -> io::Result<()> {
    let [before, after] = heads.map(|head| clip(head, PAIR_CELLS + 7).into_owned());
    let room = PAIR_CELLS + 8;
    let head = format!("{:left$}{before:room$}{after}", "", left = NAME + 2);
    let head = report.styled(DIM, &head);
    report.line(&head)?;
    let largest = rows.iter().flat_map(|row| [row.before, row.after]);
    let largest = largest.fold(f64::MIN_POSITIVE, f64::max);
    for row in rows {
        let half = |value: f64, style| {
            let drawn = bar(value / largest, PAIR_CELLS);
            let blanks = PAIR_CELLS - drawn.width();
            let number = if value > 0.0 {
                fixed(value, 3)
            } else {
                "–".to_owned()
            };
            format!("{}{:blanks$} {number:>5}", report.styled(style, &drawn), "")
        };
        let gone = row.after <= 0.0;
        let name = report.styled(LABEL_STYLE, &label_cell(row.label, NAME));
        let before = half(row.before, if gone { DIM } else { BAR_STYLE });
        let after = half(row.after, BAR_STYLE);
        let note = clip(row.note, WIDTH - NAME - 2 - 2 * room);
        let note = report.styled(DIM, &note);
        report.line(&format!(" {name} {before}  {after}  {note}"))?;
    }
    Ok(())
}

/// Points on a plane, each with its name where there is room for it.
///
/// # Errors
///
/// If it cannot be written.
pub(crate) fn plane<W: Write>(report: &mut Report<W>, dots: &[Dot<'_>]) -> io::Result<()> {
    let mut canvas = Canvas::default();
    let (xs, ys) = (range(dots, |dot| dot.x), range(dots, |dot| dot.y));
    let place = |dot: &Dot<'_>| {
        let (rows, columns) = (PLANE.0 - 1, PLANE.1 - NAME);
        let row = ((ys.1 - dot.y) / (ys.1 - ys.0) * rows as f64).round() as usize;
        let column = ((dot.x - xs.0) / (xs.1 - xs.0) * columns as f64).round() as usize;
        (row.min(rows), column.min(columns))
    };
    for important in [true, false] {
        for dot in dots.iter().filter(|dot| dot.important == important) {
            canvas.put(place(dot), dot);
        }
    }
    for row in canvas.rows {
        let mut line = String::from(" ");
        let mut at = 0;
        for (column, text, important) in row {
            line.push_str(&" ".repeat(column - at));
            at = column + text.width();
            let style = if important { LABEL_STYLE.bold() } else { DIM };
            line.push_str(&report.styled(style, &text));
        }
        report.line(&line)?;
    }
    Ok(())
}

/// Lines as they are, indented: pictures that a caller has drawn in a row of letters.
///
/// # Errors
///
/// If it cannot be written.
pub(crate) fn rows<'t, W: Write>(
    report: &mut Report<W>,
    rows: impl IntoIterator<Item = (&'t str, String)>,
) -> io::Result<()> {
    for (label, text) in rows {
        let name = report.styled(LABEL_STYLE, &label_cell(label, NAME));
        report.line(&format!(
            " {name}  {}",
            clip(&one_line(&text), WIDTH - NAME - 3)
        ))?;
    }
    Ok(())
}

/// Per row: column, text and whether it is important, from left to right.
struct Canvas {
    rows: Vec<Vec<(usize, String, bool)>>,
}

impl Default for Canvas {
    fn default() -> Self {
        Self {
            rows: vec![Vec::new(); PLANE.0],
        }
    }
}

impl Canvas {
    /// A dot with its name, only the dot where the name does not fit, nothing where that does not.
    fn put(&mut self, (row, column): (usize, usize), dot: &Dot<'_>) {
        let name = isolated(&clip(&one_line(dot.label), NAME - 2)).into_owned();
        for text in [format!("•{name}"), "•".to_owned()] {
            let (from, to) = (column, column + text.width() + 1);
            let row = &mut self.rows[row];
            let free =
                |(at, other, _): &(usize, String, bool)| to <= *at || at + other.width() < from;
            if row.iter().all(free) {
                row.push((column, text, dot.important));
                row.sort_by_key(|(at, ..)| *at);
                return;
            }
        }
    }
}

/// Smallest and largest value, never the same.
fn range(dots: &[Dot<'_>], value: impl Fn(&Dot<'_>) -> f64) -> (f64, f64) {
    let values = dots.iter().map(value);
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low < high {
        (low, high)
    } else {
        (low, low + 1.0)
    }
}

/// From dark to bright: background and text, in the palette of 256 colours that every terminal has.
const RAMP: [(u8, u8); 9] = [
    (234, 243),
    (53, 250),
    (54, 252),
    (90, 255),
    (126, 255),
    (162, 255),
    (203, 16),
    (215, 16),
    (228, 16),
];

/// The same without colour.
const SHADES: [char; 9] = [' ', '░', '░', '▒', '▒', '▓', '▓', '█', '█'];

/// Steps of the ramp lie closer for small shares: most of them are.
fn level(share: f32) -> usize {
    const FROM: [f32; 8] = [0.01, 0.04, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8];
    FROM.iter().filter(|from| share >= **from).count()
}

/// Whole per cent.
fn percent(share: f32) -> String {
    format!("{:.0}", share * 100.0)
}

/// `text` clipped or filled to exactly `width` columns, its direction of writing shut in.
fn label_cell(text: &str, width: usize) -> String {
    let text = one_line(text);
    let text = clip(&text, width);
    let blanks = width.saturating_sub(text.width());
    format!("{}{:blanks$}", isolated(&text), "")
}

/// Whether `c` belongs to a script that is written from right to left.
pub(crate) fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8FF}' | '\u{FB1D}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFE}'
        | '\u{10800}'..='\u{10FFF}' | '\u{1E800}'..='\u{1EFFF}')
}

/// Text of a script that is written from right to left, between marks that keep its neighbours in place
/// (U+2068 and U+2069, of no width); other text as it is.
pub(crate) fn isolated(text: &str) -> Cow<'_, str> {
    if text.contains(is_right_to_left) {
        format!("\u{2068}{text}\u{2069}").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests;
