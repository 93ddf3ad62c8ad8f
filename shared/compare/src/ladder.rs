//! The ladder as text, in 80 columns.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use console::metrics::Summary;
use console::numbers::fixed;
use console::report::{DIM, Report};
use console::results::{Results, Step};
use console::text::{WIDTH, clip, pad};

use crate::text::one_line;

const BOLD: Style = Style::new().bold();
const SAME: Style = AnsiColor::Green.on_default();
const OTHER: Style = AnsiColor::Yellow.on_default().bold();

/// The head of the table over two lines; the units are in it.
const HEAD: [(&str, &str, usize); 8] = [
    ("TTFT", "ms", 8),
    ("TPOT", "ms", 8),
    ("decode", "tok/s a row", 14),
    ("all rows", "tok/s", 10),
    ("×", "part 2", 7),
    ("peak", "MB", 7),
    ("weights", "MB", 8),
    ("KV", "MB", 7),
];

/// Columns of the name in front of the numbers: a variant, and whether its tokens are the same.
const NAME: usize = 11;

/// Card, table, bars and what the marks mean.
///
/// # Errors
/// If it cannot be written.
pub fn print<W: Write>(report: &mut Report<W>, results: &Results) -> io::Result<()> {
    report.card(&card(results))?;
    report.blank()?;
    table(report, results)?;
    report.blank()?;
    let names: Vec<String> = results.steps.iter().map(name).collect();
    let speeds = results.steps.iter().map(Step::decode_of_all);
    let bars: Vec<(&str, f64)> = names.iter().map(String::as_str).zip(speeds).collect();
    report.bars("all rows", "tok/s", 1, &bars)?;
    report.blank()?;
    notes(report, results)
}

/// `3 prealloc`
fn name(step: &Step) -> String {
    format!("{} {}", step.number, one_line(&step.variant))
}

fn card(results: &Results) -> Vec<(&'static str, String)> {
    let n = results.n;
    let dtype = results.dtype.as_ref();
    let dtype = dtype.map_or_else(String::new, |dtype| format!(" as {dtype}"));
    let asked = format!(
        "{} ({} tokens), {} new tokens, greedy",
        clip(&one_line(&results.prompt), 120),
        results.prompt_tokens,
        results.new_tokens
    );
    let measured = format!("n = {n}, a fresh process each, in turns; medians, ± half the IQR");
    vec![
        ("model", format!("{}{dtype}", results.model)),
        ("machine", results.machine.describe(&results.versions)),
        ("asked", asked),
        ("measured", measured),
    ]
}

fn table<W: Write>(report: &mut Report<W>, results: &Results) -> io::Result<()> {
    let head = |pick: fn(&(&str, &str, usize)) -> String| {
        let cells: String = HEAD.iter().map(pick).collect();
        format!("{:NAME$}{cells}", "")
    };
    for line in [
        head(|(above, _, width)| format!("{above:>width$}")),
        head(|(_, below, width)| format!("{below:>width$}")),
    ] {
        let line = report.styled(BOLD, &line);
        report.line(&line)?;
    }
    report.line(&"─".repeat(WIDTH))?;
    for (index, step) in results.steps.iter().enumerate() {
        if index == 0 || results.steps[index - 1].number != step.number {
            let title = report.styled(BOLD, &title(step));
            report.line(&title)?;
        }
        let mark = mark(report, step, index == 0);
        report.line(&format!(" {mark} {}", numbers(step)))?;
    }
    Ok(())
}

/// ` 3  the KV cache`
fn title(step: &Step) -> String {
    let adds = one_line(&step.adds);
    format!("{:>2}  {}", step.number, clip(&adds, WIDTH - 4))
}

fn numbers(step: &Step) -> String {
    let mb = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / 1e6);
    let cells = [
        narrow(Some(step.ttft_ms.median), 1),
        narrow(Some(step.tpot_ms.median), 2),
        spread(step.decode_tps),
        narrow(Some(step.throughput_tps.median), 1),
        narrow(step.ratio_to_part2, 2),
        narrow(mb(step.peak_bytes), 1),
        narrow(mb(step.weight_bytes), 1),
        narrow(mb(step.kv_bytes), 2),
    ];
    let cells = cells.iter().zip(HEAD);
    let cells: String = cells
        .map(|(cell, (_, _, width))| format!("{cell:>width$}"))
        .collect();
    format!("{}{cells}", pad(&one_line(&step.variant), 8))
}

/// `=` gives the reference's tokens, `≠` others; nothing for the reference itself.
fn mark<W: Write>(report: &Report<W>, step: &Step, reference: bool) -> String {
    match (step.first_difference, reference) {
        (Some(_), _) => report.styled(OTHER, "≠"),
        (None, true) => " ".to_owned(),
        (None, false) => report.styled(SAME, "="),
    }
}

/// What the marks in front of the steps mean here.
fn notes<W: Write>(report: &mut Report<W>, results: &Results) -> io::Result<()> {
    let Some((reference, others)) = results.steps.split_first() else {
        return Ok(());
    };
    let (base, new) = (format!("part {}", reference.number), results.new_tokens);
    let (same, other) = (report.styled(SAME, "="), report.styled(OTHER, "≠"));
    if let Some(at) = reference.first_difference {
        let text = format!("{base}: its own rounds differ from token {} on", at + 1);
        report.line(&format!(" {other} {text}"))?;
    }
    if others.iter().any(|step| step.first_difference.is_none()) {
        report.line(&format!(" {same} the {new} tokens of {base}, every one"))?;
    }
    for step in others {
        if let Some(at) = step.first_difference {
            let name = name(step);
            let text = format!(
                "{}: differs from {base} at token {} of {new}{}",
                clip(&name, 22),
                at + 1,
                margin(step)
            );
            report.line(&format!(" {other} {text}"))?;
        }
    }
    for line in legend(&results.steps) {
        let line = report.styled(DIM, line);
        report.line(&format!(" {line}"))?;
    }
    Ok(())
}

fn legend(steps: &[Step]) -> Vec<&'static str> {
    let mut lines = vec![
        "a row: one answer after its first token; all rows: all tokens ÷ all time;",
        "× part 2: decode of all rows together",
    ];
    if steps.iter().any(|step| step.margin_nats.is_some()) {
        lines.push("nats: by how much the model as it is prefers the reference's token there");
    }
    lines
}

/// `, 0.12 nats`
fn margin(step: &Step) -> String {
    let nats = step.margin_nats;
    nats.map_or_else(String::new, |nats| format!(", {} nats", fixed(nats, 3)))
}

/// `117.1 ± 7.2`
fn spread(spread: Summary) -> String {
    spread.text(usize::from(spread.median < 1000.0))
}

/// A number in at most seven columns: decimals go before digits do. A dash where there is none.
pub(crate) fn narrow(number: Option<f64>, decimals: usize) -> String {
    let Some(number) = number else {
        return "–".to_owned();
    };
    let digits = number.abs().max(1.0).log10() as usize + 1;
    let decimals = decimals.min(6_usize.saturating_sub(digits + 1));
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests;
