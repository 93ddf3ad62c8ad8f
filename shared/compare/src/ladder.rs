//! The ladder as text, in 80 columns.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use unicode_truncate::{Alignment, UnicodeTruncateStr as _};
use xtask::compare::results::{Results, Spread, Step};

use crate::text::{clip, one_line};

/// Columns of every line.
pub const WIDTH: usize = 80;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const SAME: Style = AnsiColor::Green.on_default();
const OTHER: Style = AnsiColor::Yellow.on_default().bold();
const BAR: Style = AnsiColor::Cyan.on_default();

/// The head of the table over two lines; the units are in it.
const HEAD: [(&str, &str, usize); 8] = [
    ("TTFT", "ms", 8),
    ("TPOT", "ms", 8),
    ("decode", "tok/s", 14),
    ("through-", "put tok/s", 10),
    ("×", "part 2", 7),
    ("peak", "MiB", 7),
    ("weights", "MiB", 8),
    ("KV", "MiB", 7),
];

/// Columns of the name in front of the numbers: a variant, and whether its tokens are the same.
const NAME: usize = 11;

/// Card, table, bars and what the marks mean; with colour.
pub fn draw(results: &Results) -> String {
    let mut out = String::new();
    card(&mut out, results);
    out.push('\n');
    table(&mut out, results);
    out.push('\n');
    bars(&mut out, results);
    out.push('\n');
    notes(&mut out, results);
    out
}

fn card(out: &mut String, results: &Results) {
    let Results { machine, n, .. } = results;
    let version = |name: &str| results.versions.get(name).map_or("?", String::as_str);
    let dtype = results.dtype.as_ref();
    let dtype = dtype.map_or_else(String::new, |dtype| format!(" as {dtype}"));
    let rows = [
        ("model", format!("{}{dtype}", results.model)),
        (
            "machine",
            format!(
                "{}, {:.2} GiB, {}, MLX {} ({}), mlx-rs {}",
                machine.name,
                machine.ram_bytes as f64 / f64::from(1 << 30),
                machine.os,
                version("mlx"),
                machine.backend,
                version("mlx_rs"),
            ),
        ),
        (
            "asked",
            format!(
                "{} ({} tokens), {} new tokens, greedy",
                clip(&one_line(&results.prompt), 120),
                results.prompt_tokens,
                results.new_tokens
            ),
        ),
        (
            "measured",
            format!("n = {n}, a fresh process each, in turns; medians, ± half the IQR"),
        ),
    ];
    for (label, value) in rows {
        let width = WIDTH - NAME;
        for (i, line) in textwrap::wrap(&one_line(&value), width).iter().enumerate() {
            let label = if i == 0 { label } else { "" };
            line_of(out, &format!(" {BOLD}{label:<10}{BOLD:#}{line}"));
        }
    }
}

fn table(out: &mut String, results: &Results) {
    let head = |pick: fn(&(&str, &str, usize)) -> String| {
        let cells: String = HEAD.iter().map(pick).collect();
        format!("{BOLD}{:NAME$}{cells}{BOLD:#}", "")
    };
    line_of(out, &head(|(above, _, width)| format!("{above:>width$}")));
    line_of(out, &head(|(_, below, width)| format!("{below:>width$}")));
    line_of(out, &"─".repeat(WIDTH));
    for (index, step) in results.steps.iter().enumerate() {
        if index == 0 || results.steps[index - 1].number != step.number {
            line_of(out, &title(step));
        }
        line_of(out, &numbers(step, index == 0));
    }
}

/// ` 3  the KV cache`
fn title(step: &Step) -> String {
    let adds = clip(&one_line(&step.adds), WIDTH - 4);
    format!("{BOLD}{:>2}  {adds}{BOLD:#}", step.number)
}

fn numbers(step: &Step, reference: bool) -> String {
    let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
    let cells = [
        fixed(Some(step.ttft_ms.median), 1),
        fixed(Some(step.tpot_ms.median), 2),
        spread(step.decode_tps),
        fixed(Some(step.throughput_tps.median), 1),
        fixed(step.ratio_to_part2, 2),
        fixed(mib(step.peak_bytes), 1),
        fixed(mib(step.weight_bytes), 1),
        fixed(mib(step.kv_bytes), 2),
    ];
    let cells = cells.iter().zip(HEAD);
    let cells: String = cells
        .map(|(cell, (_, _, width))| format!("{cell:>width$}"))
        .collect();
    let variant = pad(&clip(&one_line(&step.variant), 8), 8);
    let mark = mark(step, reference);
    format!(" {mark} {variant}{cells}")
}

/// `=` gives the reference's tokens, `≠` others; nothing for the reference itself.
fn mark(step: &Step, reference: bool) -> String {
    match (step.first_difference, reference) {
        (Some(_), _) => format!("{OTHER}≠{OTHER:#}"),
        (None, true) => " ".to_owned(),
        (None, false) => format!("{SAME}={SAME:#}"),
    }
}

/// Decode speed, drawn from zero.
fn bars(out: &mut String, results: &Results) {
    let median = |step: &Step| step.decode_tps.median;
    let largest = results.steps.iter().map(median).fold(0.0, f64::max);
    let room = WIDTH - NAME - 23;
    for (index, step) in results.steps.iter().enumerate() {
        let title = if index == 0 { "decode" } else { "" };
        let bar = pad(&bar(median(step) / largest, room), room);
        let label = pad(
            &format!("{} {}", step.number, one_line(&step.variant)),
            NAME,
        );
        let speed = fixed(Some(median(step)), 1);
        line_of(
            out,
            &format!(" {title:<6}  {label} {BAR}{bar}{BAR:#} {speed:>6} tok/s"),
        );
    }
}

/// A bar of `share` (0 to 1) of `room` columns, to an eighth of one.
fn bar(share: f64, room: usize) -> String {
    let eighths = (share * (room * 8) as f64).round().max(1.0) as usize;
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    "█".repeat(eighths / 8) + rest
}

/// What the marks in front of the steps mean here.
fn notes(out: &mut String, results: &Results) {
    let Some((reference, others)) = results.steps.split_first() else {
        return;
    };
    let name = format!("part {}", reference.number);
    let new = results.new_tokens;
    if let Some(at) = reference.first_difference {
        let text = format!("{name}: its own rounds differ from token {} on", at + 1);
        line_of(out, &format!(" {OTHER}≠{OTHER:#} {text}"));
    }
    if others.iter().any(|step| step.first_difference.is_none()) {
        line_of(
            out,
            &format!(" {SAME}={SAME:#} the {new} tokens of {name}, every one"),
        );
    }
    for step in others {
        if let Some(at) = step.first_difference {
            let variant = clip(&one_line(&step.variant), 20);
            let text = format!(
                "{} {variant}: differs from {name} at token {} of {new}",
                step.number,
                at + 1
            );
            line_of(out, &format!(" {OTHER}≠{OTHER:#} {text}"));
        }
    }
    let legend = "decode: after the first token, one request; throughput: all tokens ÷ all time";
    line_of(out, &format!(" {DIM}{legend}{DIM:#}"));
}

/// `117.1 ± 7.2`
fn spread(spread: Spread) -> String {
    let Spread {
        median, half_iqr, ..
    } = spread;
    let decimals = usize::from(median < 1000.0);
    if spread.min == spread.max {
        return format!("{median:.decimals$}"); // one measurement has no spread
    }
    format!("{median:.decimals$} ± {half_iqr:.decimals$}")
}

/// A number in at most seven columns: decimals go before digits do. A dash where there is none.
pub(crate) fn fixed(number: Option<f64>, decimals: usize) -> String {
    let Some(number) = number else {
        return "–".to_owned();
    };
    let digits = number.abs().max(1.0).log10() as usize + 1;
    let decimals = decimals.min(6_usize.saturating_sub(digits + 1));
    format!("{number:.decimals$}")
}

fn pad(text: &str, width: usize) -> String {
    text.unicode_pad(width, Alignment::Left, true).into_owned()
}

/// One line, without blanks at its end.
fn line_of(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", text.trim_end());
}

#[cfg(test)]
mod tests;
