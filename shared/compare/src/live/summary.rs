//! What stays on the terminal when the race is over.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anstyle::Style;
use console::report::{DIM, Report};
use console::text::{WIDTH, clip};

use super::lane::Lane;
use super::view::speed;
use crate::answer::Answer;

const BOLD: Style = Style::new().bold();
const NOTE: &str = "They shared the machine: `cargo compare` measures one at a time.";

/// Each lane in two lines of at most 80 columns, and whether the tokens are the same.
pub(crate) fn print<W: Write>(
    report: &mut Report<W>,
    lanes: &[Lane],
    now: Instant,
) -> io::Result<()> {
    let [tokens, first, all, decode] = ["tokens", "first text", "all of it", "decode"];
    let head = format!("{tokens:>12}{first:>14}{all:>14}{decode:>34}");
    let head = report.styled(BOLD, &head);
    report.line(&head)?;
    report.line(&"─".repeat(WIDTH))?;
    for lane in lanes {
        let title = report.styled(BOLD, &clip(&lane.title(), WIDTH - 2));
        report.line(&format!(" {title}"))?;
        report.line(&numbers(lane, now))?;
    }
    report.blank()?;
    report.note(&same_tokens(lanes))?;
    let note = report.styled(DIM, NOTE);
    report.line(&format!(" {note}"))
}

fn numbers(lane: &Lane, now: Instant) -> String {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let first = lane.first_text().map_or_else(|| "–".to_owned(), seconds);
    let all = match (lane.place(), lane.is_stopped()) {
        (Some(_), _) => seconds(lane.elapsed(now)),
        (None, true) => "stopped".to_owned(),
        (None, false) => "–".to_owned(),
    };
    format!(
        "{:>12}{first:>14}{all:>14}{:>34}",
        match lane.rows() {
            1 => lane.tokens().to_string(),
            rows => format!("{rows} × {}", lane.tokens()),
        },
        speed(lane)
    )
}

/// Whether all that finished gave the tokens of the first of them.
fn same_tokens(lanes: &[Lane]) -> String {
    let runs = lanes
        .iter()
        .filter_map(|lane| Some((lane, lane.answers()?.answer())));
    let runs: Vec<(&Lane, &Answer)> = runs.collect();
    let Some(((base, reference), others)) = runs.split_first() else {
        return "None of them finished.".to_owned();
    };
    let reference = &reference.run;
    let base = base.contestant().name();
    let other = |(lane, run): &(&Lane, &Answer)| {
        let (at, _) = run.difference(reference)?;
        Some(format!(
            "{} differs from {base} at token {}",
            lane.contestant().name(),
            at + 1
        ))
    };
    let different: Vec<String> = others.iter().filter_map(other).collect();
    match (others.len(), different.is_empty()) {
        (0, _) => format!("Only {base} finished: no tokens to compare."),
        (_, true) => format!("All that finished gave the tokens of {base}, every one."),
        (_, false) => format!("{}.", different.join(", ")),
    }
}

#[cfg(test)]
mod tests;
