//! The microscope's picture, made of letters.

use std::io::{self, Write};

use anstyle::{Ansi256Color, AnsiColor, Color, Style};
use console::numbers::{count, fixed};
use console::report::{BAR_STYLE, DIM, LABEL_STYLE, Report, bar};
use console::text::{WIDTH, clip, pad};

use super::follow::{Duel, Followed, Stage};
use super::specimen::{Group, Recipe, Specimen, last_code, rms, share};

/// Columns of the number line.
const CELLS: usize = WIDTH - 2;
/// Of the weight that is stored without an error of its own.
const EDGE: Style = AnsiColor::Yellow.on_default();
/// Of the code that is zero.
const ZERO: Style = AnsiColor::Magenta.on_default();
const BOLD: Style = Style::new().bold();

/// Groups, words and weights.
///
/// # Errors
/// If it cannot be written.
pub fn specimen<W: Write>(report: &mut Report<W>, specimen: &Specimen) -> io::Result<()> {
    let bits = specimen.bits;
    let per_weight = bits as f64 + 2.0 * stored_bits(specimen) / specimen.group_size as f64;
    let how = format!(
        "{bits} bits, groups of {}: with scale and bias {} bits per weight",
        specimen.group_size,
        fixed(per_weight, 2)
    );
    let place = format!(
        "{}, row {}, columns {} to {}",
        specimen.module,
        specimen.row,
        specimen.columns.start,
        specimen.columns.end - 1
    );
    let model = format!("{}, weights in {}", specimen.model, specimen.dtype);
    report.card(&[("model", model), ("weights", place), ("packed", how)])?;
    for group in &specimen.groups {
        report.blank()?;
        draw(report, specimen, group)?;
    }
    Ok(())
}

/// Of the type that scales and biases are stored in.
fn stored_bits(specimen: &Specimen) -> f64 {
    if specimen.dtype == "f32" { 32.0 } else { 16.0 }
}

fn draw<W: Write>(report: &mut Report<W>, specimen: &Specimen, group: &Group) -> io::Result<()> {
    let bits = specimen.bits;
    let numbers = Numbers::of(group);
    let recipe = group.recipe(bits);
    let columns = format!(
        "{} to {}",
        group.column,
        group.column + group.values.len() - 1
    );
    heading(
        report,
        &format!("Weights {columns} on their line, and the grid of codes below"),
    )?;
    number_line(report, group, bits, &recipe, numbers)?;
    report.blank()?;
    report.card(&steps(specimen, group, &recipe, numbers))?;
    report.blank()?;
    let words = group.words.len();
    heading(
        report,
        &format!(
            "The {words} words of 32 bits, and the weights in them: the first has the lowest bits"
        ),
    )?;
    words_of(report, group, bits)?;
    report.blank()?;
    heading(report, "Each weight, its code, and what comes back")?;
    values(report, group, bits, numbers)?;
    report.note(&summary(specimen, group, numbers))
}

/// The size of the errors, and why one is larger than the distance to a point can make it.
fn summary(specimen: &Specimen, group: &Group, numbers: Numbers) -> String {
    let error = rms(group.errors());
    let worst = group.errors().zip(&group.codes);
    let worst = worst.max_by(|(a, _), (b, _)| a.abs().total_cmp(&b.abs()));
    let (worst, code) = worst.unwrap_or((0.0, &0));
    let half = group.scale.abs() / 2.0;
    let mut text = format!(
        "RMS error {}, which is {} % of the weights' own RMS; the largest is {}, and half a step {}.",
        numbers.finer(error as f32),
        fixed(100.0 * share(error, rms(group.values.iter().copied())), 1),
        numbers.finer(worst.abs()),
        numbers.finer(half),
    );
    let last = last_code(specimen.bits);
    if worst.abs() > half * 1.001 {
        if *code == last && worst * group.scale < 0.0 {
            text.push_str(&format!(
                " That weight lies beyond the point of code {last}."
            ));
        } else {
            text.push_str(&format!(
                " That is more because scale and bias became {} after the codes were chosen.",
                specimen.dtype
            ));
        }
    }
    text
}

fn heading<W: Write>(report: &mut Report<W>, text: &str) -> io::Result<()> {
    let text = report.styled(BOLD, text);
    report.line(&format!(" {text}"))
}

/// How the numbers of one group are written, so that they stand in columns.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    /// None: the powers of ten differ too much.
    decimals: Option<usize>,
}

impl Numbers {
    /// Four digits of the largest weight.
    fn of(group: &Group) -> Self {
        let sizes = group.values.iter().map(|value| value.abs());
        let largest = sizes.fold(0.0, f32::max);
        let decimals = match largest {
            0.0 => Some(1),
            1e-3..1e5 => Some((3 - largest.log10().floor() as i32).clamp(1, 9) as usize),
            _ => None,
        };
        Self { decimals }
    }

    fn text(self, value: f32) -> String {
        match self.decimals {
            Some(decimals) => fixed(f64::from(value), decimals),
            None if value == 0.0 => "0".to_owned(),
            None => format!("{value:.2e}"),
        }
    }

    /// A step is smaller than a weight: two digits more, or four of its own.
    fn finer(self, value: f32) -> String {
        let readable =
            |decimals: &usize| value == 0.0 || value.abs() >= 10.0_f32.powi(-(*decimals as i32));
        match self.decimals.filter(readable) {
            Some(decimals) => fixed(f64::from(value), decimals + 2),
            None if value == 0.0 => "0".to_owned(),
            None => format!("{value:.3e}"),
        }
    }
}

/// The numbers that lie between the weights and what is stored.
fn steps(
    specimen: &Specimen,
    group: &Group,
    recipe: &Recipe,
    numbers: Numbers,
) -> Vec<(&'static str, String)> {
    let Recipe {
        low,
        high,
        edge,
        step,
        zero,
    } = *recipe;
    let last = last_code(specimen.bits);
    let range = format!(
        "{} to {} in {last} steps: each would be {}",
        numbers.text(low),
        numbers.text(high),
        numbers.finer(step)
    );
    let pinned = if zero == 0.0 {
        format!(
            "{}: less than half a step, nothing is pinned",
            numbers.text(edge)
        )
    } else {
        format!(
            "{} is the largest in size: it is pinned, and code 0 gives it back",
            numbers.text(edge)
        )
    };
    let away = f64::from((edge / step).abs());
    let hit = if zero == 0.0 {
        "code 0 is zero".to_owned()
    } else if zero > last as f32 {
        format!("{} steps from the edge: beyond code {last}", fixed(away, 1))
    } else {
        let point = group.points(specimen.bits).nth(zero as usize);
        let moved = match point.filter(|point| *point != 0.0) {
            Some(point) => format!(", or {} as it is stored", numbers.finer(point)),
            None => String::new(),
        };
        format!(
            "{} steps from the edge, moved to {zero}: code {zero} is zero{moved}",
            fixed(away, 3)
        )
    };
    let stored = format!(
        "scale {}, bias {} ({}); weight ≈ scale · code + bias",
        numbers.finer(group.scale),
        numbers.finer(group.bias),
        specimen.dtype
    );
    vec![
        ("range", range),
        ("edge", pinned),
        ("zero", hit),
        ("stored", stored),
    ]
}

/// A stretch of the real line, cut into [`CELLS`].
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f32,
    high: f32,
}

impl Axis {
    /// Long enough for the weights and the grid.
    fn of(group: &Group, bits: usize) -> Self {
        let all = group.values.iter().copied().chain(group.points(bits));
        let (low, high) = all.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        Self { low, high }
    }

    fn cell(&self, value: f32) -> usize {
        let share = f64::from(value - self.low) / f64::from(self.high - self.low);
        // A line without a length has all of it in one cell.
        let share = if share.is_finite() { share } else { 0.0 };
        ((share * (CELLS - 1) as f64).round() as usize).min(CELLS - 1)
    }
}

fn number_line<W: Write>(
    report: &mut Report<W>,
    group: &Group,
    bits: usize,
    recipe: &Recipe,
    numbers: Numbers,
) -> io::Result<()> {
    let axis = Axis::of(group, bits);
    let mut weights = [0_usize; CELLS];
    for value in &group.values {
        weights[axis.cell(*value)] += 1;
    }
    let most = weights.iter().copied().max().unwrap_or(0).max(1);
    let heights: String = weights.iter().map(|n| height(*n, most)).collect();
    let drawn = report.styled(BAR_STYLE, heights.trim_end());
    report.line(&format!(" {drawn}"))?;

    let cells: Vec<usize> = group.points(bits).map(|point| axis.cell(point)).collect();
    let mut line = ['─'; CELLS];
    cells.iter().for_each(|cell| line[*cell] = '┴');
    report.line(&format!(" {}", line.iter().collect::<String>()))?;
    let labels = report.styled(DIM, &labels(&cells));
    report.line(&format!(" {labels}"))?;

    let edge = format!("the edge, {}", numbers.text(recipe.edge));
    if recipe.zero > 0.0 {
        mark(report, axis.cell(recipe.edge), &edge, EDGE)?;
    }
    if (axis.low..=axis.high).contains(&0.0) {
        mark(report, axis.cell(0.0), "zero", ZERO)?;
    }
    Ok(())
}

/// An eighth of a cell for the least, a whole one for the most.
fn height(n: usize, most: usize) -> char {
    const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    LEVELS[(n * 8).div_ceil(most)]
}

/// The codes below their ticks: the first and the last, and as many of the others as find room, at even
/// distances.
fn labels(cells: &[usize]) -> String {
    let mut line = [' '; CELLS];
    let last = cells.len() - 1;
    let each = (0..).map(|power| 1 << power);
    let each = each
        .into_iter()
        .find(|each| each * CELLS >= 4 * last)
        .unwrap_or(1);
    for code in [0, last].into_iter().chain((0..last).step_by(each)) {
        let text = code.to_string();
        let start = cells[code].saturating_sub(text.len() / 2);
        let start = start.min(CELLS - text.len());
        let around = start.saturating_sub(1)..(start + text.len() + 1).min(CELLS);
        if line[around].iter().all(|c| *c == ' ') {
            for (place, digit) in line[start..].iter_mut().zip(text.chars()) {
                *place = digit;
            }
        }
    }
    line.iter().collect()
}

/// `▲ text` below a cell, or `text ▲` where that would leave the frame.
fn mark<W: Write>(report: &mut Report<W>, cell: usize, text: &str, style: Style) -> io::Result<()> {
    let width = text.chars().count() + 2;
    let (indent, text) = if cell + width <= CELLS {
        (cell, format!("▲ {text}"))
    } else {
        (cell + 1 - width, format!("{text} ▲"))
    };
    let text = report.styled(style, &text);
    report.line(&format!(" {:indent$}{text}", ""))
}

/// From the first code to the last, in the palette of 256 colours that every terminal has.
const RAMP: [u8; 12] = [33, 39, 44, 43, 42, 77, 112, 148, 184, 214, 208, 203];

/// The colour of a code: the same for its bits and for its number.
fn hue(code: u32, bits: usize) -> Style {
    let index = code as usize * (RAMP.len() - 1) / last_code(bits) as usize;
    Style::new().fg_color(Some(Color::Ansi256(Ansi256Color(RAMP[index]))))
}

/// One line per word: hexadecimal, and bit by bit, cut where one code ends and the next begins.
fn words_of<W: Write>(report: &mut Report<W>, group: &Group, bits: usize) -> io::Result<()> {
    for (index, word) in group.words.iter().enumerate() {
        let (first, last) = (index * 32 / bits, (index * 32 + 31) / bits);
        let label = format!("{index:>2}  {word:08x}");
        let label = report.styled(LABEL_STYLE, &label);
        let mut digits = String::new();
        for code in (first..=last).rev() {
            // The bits of this code that lie in this word; a code may lie in two.
            let from = (code * bits).max(index * 32) - index * 32;
            let to = ((code + 1) * bits).min(index * 32 + 32) - index * 32;
            let part = (word >> from) & (u32::MAX >> (32 - (to - from)));
            let part = format!("{part:0width$b}", width = to - from);
            if !digits.is_empty() {
                digits.push('·');
            }
            digits.push_str(&report.styled(hue(group.codes[code], bits), &part));
        }
        let cuts = last - first;
        let gap = " ".repeat(47_usize.saturating_sub(32 + cuts));
        let held = format!("{} to {}", group.column + first, group.column + last);
        let held = report.styled(DIM, &held);
        report.line(&format!(" {label}  {digits}{gap}  {held}"))?;
    }
    Ok(())
}

/// Weight, code, unpacked weight and error, in two columns where they have room.
fn values<W: Write>(
    report: &mut Report<W>,
    group: &Group,
    bits: usize,
    numbers: Numbers,
) -> io::Result<()> {
    let columns = if numbers.decimals.is_some() { 2 } else { 1 };
    let room = WIDTH / columns - 1;
    let widest = |values: &mut dyn Iterator<Item = f32>| {
        values
            .map(|value| numbers.text(value).len() + 1)
            .max()
            .unwrap_or(0)
    };
    let shape = Shape {
        place: (group.column + group.values.len()).to_string().len(),
        weight: widest(&mut group.values.iter().chain(&group.unpacked).copied()).max(8),
        code: 5,
        error: widest(&mut group.errors()).max(7) + 1,
        bar: 0,
    };
    let shape = Shape {
        bar: room.saturating_sub(shape.used() + 2).min(24),
        ..shape
    };
    let head = shape.row(["", "weight", "code", "back", "error"].map(str::to_owned));
    let head = report.styled(DIM, &vec![pad(&head, room); columns].join(" "));
    report.line(&format!(" {}", head.trim_end()))?;
    let errors: Vec<f32> = group.errors().collect();
    let rows = group.values.len() / columns;
    for row in 0..rows {
        let cells = (0..columns).map(|column| {
            let index = column * rows + row;
            let error = errors[index];
            let sign = if error > 0.0 { "+" } else { "" };
            let text = shape.row([
                (group.column + index).to_string(),
                numbers.text(group.values[index]),
                group.codes[index].to_string(),
                numbers.text(group.unpacked[index]),
                format!("{sign}{}", numbers.text(error)),
            ]);
            let share = f64::from(error.abs() / (group.scale.abs() / 2.0));
            let drawn = bar(if share.is_finite() { share } else { 0.0 }, shape.bar);
            let blanks = room.saturating_sub(text.chars().count() + 1 + drawn.chars().count());
            let style = hue(group.codes[index], bits);
            format!(
                "{} {}{:blanks$}",
                coloured(report, &text, &shape, style),
                report.styled(BAR_STYLE, &drawn),
                ""
            )
        });
        let cells: Vec<String> = cells.collect();
        report.line(&format!(" {}", cells.join(" ")))?;
    }
    Ok(())
}

/// Widths of the columns of a weight.
#[derive(Debug, Clone, Copy)]
struct Shape {
    place: usize,
    weight: usize,
    code: usize,
    error: usize,
    bar: usize,
}

impl Shape {
    fn used(&self) -> usize {
        self.place + 2 * self.weight + self.code + self.error
    }

    fn row(&self, [place, weight, code, back, error]: [String; 5]) -> String {
        let (p, w, c, e) = (self.place, self.weight, self.code, self.error);
        format!("{place:>p$}{weight:>w$}{code:>c$}{back:>w$}{error:>e$}")
    }
}

/// The code in its colour.
fn coloured<W: Write>(report: &Report<W>, row: &str, shape: &Shape, style: Style) -> String {
    let (before, rest) = row.split_at(shape.place + shape.weight);
    let (code, after) = rest.split_at(shape.code);
    format!("{before}{}{after}", report.styled(style, code))
}

/// What the error becomes.
///
/// # Errors
/// If it cannot be written.
pub fn followed<W: Write>(report: &mut Report<W>, followed: &Followed) -> io::Result<()> {
    report.blank()?;
    heading(report, "What the error becomes")?;
    let per_cent = |share: f64| fixed(100.0 * share, 2);
    let mut rows = vec![vec![
        "what is shown".to_owned(),
        per_cent(followed.shown),
        "–".to_owned(),
        "–".to_owned(),
        "–".to_owned(),
        "–".to_owned(),
    ]];
    rows.extend(followed.stages.iter().map(|stage| {
        let change = stage.change.as_ref();
        vec![
            stage.quantized.to_owned(),
            per_cent(stage.weights),
            per_cent(stage.output),
            fixed(stage.logits_rms, 4),
            fixed(stage.logits_max, 4),
            change.map_or("none".to_owned(), |change| {
                format!("token {}", change.token)
            }),
        ]
    }));
    let head = [
        "quantized",
        "weights %",
        "output %",
        "logits RMS",
        "largest",
        "first change",
    ];
    report.table(&head, &rows)?;
    report.note(&format!(
        "weights and output: error over their own size, of this matrix; logits: after the {} tokens of \
         the prompt.",
        count(followed.prompt_tokens as u64)
    ))?;
    if followed.left_dense > 0 {
        report.note(&format!(
            "{} matrices, whose rows are not whole groups, stay as they are.",
            count(followed.left_dense as u64)
        ))?;
    }
    for stage in &followed.stages {
        report.note(&outcome(stage))?;
    }
    Ok(())
}

/// The first token that changes, or the one that nearly did.
fn outcome(stage: &Stage) -> String {
    let Stage {
        quantized,
        compared,
        ..
    } = stage;
    let (duel, says) = match (&stage.change, &stage.closest) {
        (Some(Duel { token, .. }), _) => (&stage.change, format!("token {token} changes")),
        (None, Some(Duel { token, .. })) => (
            &stage.closest,
            format!(
                "all {} choices of the answer stay; the closest is token {token}",
                count(*compared as u64)
            ),
        ),
        (None, None) => return String::new(),
    };
    let duel = duel.as_ref().map_or(String::new(), |duel| {
        let now = if duel.now > 0.0 {
            "still is"
        } else {
            "now is behind"
        };
        format!(
            ": the logit of {:?} was {} ahead of that of {:?} and {now} by {}",
            clip(&duel.before, 20),
            fixed(duel.margin, 4),
            clip(&duel.rival, 20),
            fixed(duel.now.abs(), 4)
        )
    });
    format!("With {quantized} quantized, {says}{duel}.")
}
