//! The run in 80 columns: a line for each request, a cell for a stretch of time.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use console::numbers::{fixed, plural};
use console::report::{DIM, LABEL_STYLE, Report};

use super::{Gantt, Lane, State};

/// Cells of a line.
const CELLS: usize = 70;
/// Most lines: a screen.
const LINES: usize = 32;

const ALL: [State; 6] = [
    State::Queued,
    State::Held,
    State::Prompt,
    State::Again,
    State::Slowed,
    State::Decode,
];

impl State {
    fn cell(self) -> char {
        match self {
            Self::Queued => '·',
            Self::Held => '░',
            Self::Prompt => '▒',
            Self::Again => '▓',
            Self::Slowed => '▄',
            Self::Decode => '█',
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Queued => DIM,
            Self::Held => AnsiColor::Yellow.on_default(),
            Self::Prompt => AnsiColor::Blue.on_default(),
            Self::Again => AnsiColor::Magenta.on_default(),
            Self::Slowed | Self::Decode => AnsiColor::Green.on_default(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Held => "held",
            Self::Prompt => "prompt",
            Self::Again => "again",
            Self::Slowed => "answer, slowed",
            Self::Decode => "answer",
        }
    }
}

/// Draws it.
///
/// # Errors
/// If it cannot be written.
pub fn draw<W: Write>(report: &mut Report<W>, gantt: &Gantt) -> io::Result<()> {
    report.note(&gantt.title)?;
    for lane in gantt.lanes.iter().take(LINES) {
        let label = report.styled(LABEL_STYLE, &format!("{:>6}", lane.id));
        let line = line(report, lane, gantt.duration / CELLS as f64);
        report.line(&format!(" {label}  {line}"))?;
    }
    let end = format!("{} ms", fixed(gantt.duration, 0));
    report.line(&report.styled(DIM, &format!("{:9}0{end:>width$}", "", width = CELLS - 1)))?;
    legend(report)?;
    left_out(report, gantt)
}

fn line<W: Write>(report: &Report<W>, lane: &Lane, width: f64) -> String {
    if lane.end == "refused" {
        return report.styled(DIM, "refused: it can never fit into memory");
    }
    let cells = (0..CELLS).map(|cell| (cell as f64 * width, (cell + 1) as f64 * width));
    let cells: Vec<Option<State>> = cells.map(|(from, to)| most(lane, from, to)).collect();
    let crosses: Vec<usize> = lane
        .preempted
        .iter()
        .map(|at| ((at / width) as usize).min(CELLS - 1))
        .collect();
    let mut text = String::new();
    for (at, state) in cells.iter().enumerate() {
        text += &match state {
            _ if crosses.contains(&at) => report.styled(AnsiColor::Red.on_default(), "×"),
            Some(state) => report.styled(state.style(), &state.cell().to_string()),
            None => " ".to_owned(),
        };
    }
    text
}

/// What a request did for most of some time.
fn most(lane: &Lane, from: f64, to: f64) -> Option<State> {
    let time = |state: State| -> f64 {
        let spans = lane.spans.iter().filter(|span| span.state == state);
        spans
            .map(|span| (span.to.min(to) - span.from.max(from)).max(0.0))
            .sum()
    };
    let (state, time) = ALL
        .map(|state| (state, time(state)))
        .into_iter()
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    (time > 0.0).then_some(state)
}

fn legend<W: Write>(report: &mut Report<W>) -> io::Result<()> {
    let entry = |state: State| {
        format!(
            "{} {}",
            report.styled(state.style(), &state.cell().to_string()),
            state.name()
        )
    };
    let entries = ALL.map(entry).join("  ");
    let cross = report.styled(AnsiColor::Red.on_default(), "×");
    report.line(&format!(" {entries}  {cross} preempted"))
}

fn left_out<W: Write>(report: &mut Report<W>, gantt: &Gantt) -> io::Result<()> {
    let lanes = gantt.lanes.len().saturating_sub(LINES) + gantt.lanes_left_out;
    if lanes > 0 {
        report.note(&format!(
            "{lanes} more {} not drawn",
            plural(lanes, "request")
        ))?;
    }
    if gantt.steps_left_out > 0 {
        let steps = gantt.steps_left_out;
        report.note(&format!(
            "{steps} later {} not drawn",
            plural(steps, "step")
        ))?;
    }
    Ok(())
}
