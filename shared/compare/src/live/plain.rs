//! The race on a pipe: lines of text, each with the number of its part in front.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result};
use console::interrupt::Interrupt;

use super::lane::Lane;
use super::race::Race;
use super::view::speed;

/// Columns of the text behind the number.
const TEXT: usize = 76;

/// Prints lines as they are full, until all have ended.
pub(crate) fn print(race: &mut Race, out: &mut impl Write, interrupt: &Interrupt) -> Result<()> {
    let mut printers: Vec<Printer> = race.lanes().iter().map(|_| Printer::default()).collect();
    while !race.is_over() {
        race.wait(interrupt)?;
        for (lane, printer) in race.lanes().iter().zip(&mut printers) {
            for line in printer.new_lines(lane) {
                writeln!(out, "{} │ {line}", lane.contestant().part.number).context("printing")?;
            }
        }
        out.flush().context("printing")?;
    }
    Ok(())
}

/// What was printed of one lane.
#[derive(Debug, Default)]
struct Printer {
    /// Lines of its text.
    lines: usize,
    /// Whether its end was told.
    ended: bool,
}

impl Printer {
    fn new_lines(&mut self, lane: &Lane) -> Vec<String> {
        if self.ended {
            return Vec::new();
        }
        let lines = textwrap::wrap(lane.text(), TEXT);
        // A line that is still being written waits for its end.
        let whole = if lane.is_over() {
            lines.len()
        } else {
            lines.len().saturating_sub(1)
        };
        let new = lines.iter().take(whole).skip(self.lines);
        let mut new: Vec<String> = new.map(ToString::to_string).collect();
        self.lines = self.lines.max(whole);
        if lane.is_over() {
            self.ended = true;
            new.push(last_line(lane));
        }
        new
    }
}

fn last_line(lane: &Lane) -> String {
    let seconds = lane.elapsed(Instant::now()).as_secs_f64();
    match lane.place() {
        Some(place) => format!(
            "── finished as number {place}: {} in {seconds:.1} s, {}",
            tokens(lane),
            speed(lane)
        ),
        None => "── failed".to_owned(),
    }
}

/// `64 tokens`, `8 × 64 tokens`
fn tokens(lane: &Lane) -> String {
    let tokens = lane.tokens();
    match lane.rows() {
        1 => format!("{tokens} tokens"),
        rows => format!("{rows} × {tokens} tokens"),
    }
}

#[cfg(test)]
mod tests;
