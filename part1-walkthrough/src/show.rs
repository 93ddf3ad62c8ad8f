//! The trace on a terminal: 80 columns, one picture at a time, nothing but what the trace says.

mod attend;
mod decode;
mod embed;
pub(crate) mod picture;
mod predict;
mod recompute;
mod tokenize;

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use console::interrupt::check_interrupted;
use console::numbers::{count, decimal};
use console::report::Report;

use crate::trace::{ModelFacts, Shape, Trace};

/// Where the journey stops: the six steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Stop {
    /// Text → ids
    Tokenize,
    /// Ids → vectors, and how positions enter
    Embed,
    /// One block in single steps
    Attend,
    /// The last vector → probabilities → one token
    Predict,
    /// The loop that makes text
    Decode,
    /// What the loop computes again
    Recompute,
}

impl Stop {
    /// The first of them.
    pub const FIRST: Self = Self::Tokenize;
    /// The last of them.
    pub const LAST: Self = Self::Recompute;

    /// All of them, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tokenize => "tokenize",
            Self::Embed => "embed",
            Self::Attend => "attend",
            Self::Predict => "predict",
            Self::Decode => "decode",
            Self::Recompute => "recompute",
        }
    }

    fn aside(self) -> &'static str {
        match self {
            Self::Tokenize => "text → ids",
            Self::Embed => "ids → vectors",
            Self::Attend => "vectors → vectors that know their context",
            Self::Predict => "the last vector → one token",
            Self::Decode => "one token → text",
            Self::Recompute => "why a cache",
        }
    }
}

impl Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a picture waits for before the next one comes.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// Nothing.
    None,
    /// So much time.
    For(Duration),
    /// The Enter key.
    Enter,
}

impl Pace {
    /// So many seconds; `None`: no wait.
    pub fn new(seconds: Option<f32>) -> Self {
        seconds.map_or(Self::None, |seconds| {
            Self::For(Duration::from_secs_f32(seconds))
        })
    }

    /// Waits, and notices Ctrl-C within a tenth of a second.
    fn wait(self) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::For(mut left) => {
                while !left.is_zero() {
                    check_interrupted()?;
                    sleep(left.min(SLICE));
                    left = left.saturating_sub(SLICE);
                }
                Ok(())
            }
            Self::Enter => wait_for_enter(),
        }
    }
}

/// How long a wait is blind to Ctrl-C.
const SLICE: Duration = Duration::from_millis(100);

/// Waits for a line on stdin, or for its end. A thread reads, since a read does not notice Ctrl-C.
fn wait_for_enter() -> Result<()> {
    let shown = io::stdin().is_terminal() && io::stderr().is_terminal();
    if shown {
        eprint(" Enter: the next picture ");
    }
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let read = io::stdin().read_line(&mut String::new());
        let _ = sender.send(read.is_ok());
    });
    while receiver.recv_timeout(SLICE) == Err(RecvTimeoutError::Timeout) {
        check_interrupted()?;
    }
    if shown {
        // The key has ended the line of the hint: it goes.
        eprint("\x1b[1A\r\x1b[2K");
    }
    Ok(())
}

/// On stderr, at once; nothing can be done if that fails.
fn eprint(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}

/// A report, and the pace at which its pictures appear.
pub(crate) struct Screen<'r, W: Write> {
    pub(crate) report: &'r mut Report<W>,
    pub(crate) pace: Pace,
}

impl<W: Write> Screen<'_, W> {
    /// A paragraph between two pictures.
    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        self.report.note(text)?;
        Ok(())
    }

    /// One picture: drawn, followed by an empty line, and left to stand for a while.
    pub(crate) fn picture(
        &mut self,
        draw: impl FnOnce(&mut Report<W>) -> std::io::Result<()>,
    ) -> Result<()> {
        draw(self.report)?;
        self.report.blank()?;
        self.pace.wait()
    }
}

/// One prompt's journey, from stop to stop.
///
/// # Errors
/// If stdout fails, or Ctrl-C was pressed.
pub fn journey<W: Write>(
    report: &mut Report<W>,
    pace: Pace,
    trace: &Trace,
    stops: &[Stop],
) -> Result<()> {
    report.card(&card(trace))?;
    report.blank()?;
    let mut screen = Screen { report, pace };
    for stop in stops {
        let title = format!(
            "{} of {} · {stop}",
            *stop as usize + 1,
            Stop::LAST as usize + 1
        );
        picture::heading(screen.report, &title, stop.aside())?;
        screen.report.blank()?;
        match stop {
            Stop::Tokenize => tokenize::show(&mut screen, trace)?,
            Stop::Embed => embed::show(&mut screen, trace)?,
            Stop::Attend => attend::show(&mut screen, trace)?,
            Stop::Predict => predict::show(&mut screen, trace)?,
            Stop::Decode => decode::show(&mut screen, trace)?,
            Stop::Recompute => recompute::show(&mut screen, trace)?,
        }
    }
    Ok(())
}

pub(crate) fn card(trace: &Trace) -> Vec<(&'static str, String)> {
    let template = if trace.templated {
        "; the chat template is put around it, --raw leaves it out"
    } else {
        ""
    };
    let mut rows = model_card(&trace.model);
    rows.push(("prompt", format!("{:?}{template}", trace.text)));
    rows
}

/// What every picture is about.
pub(crate) fn model_card(model: &ModelFacts) -> Vec<(&'static str, String)> {
    let ModelFacts {
        name,
        architecture,
        layers,
        ..
    } = model;
    let size = format!(
        "{} parameters, stored as {}, computed in {}: {}",
        count(model.parameters),
        model.stored_as,
        model.computed_in,
        decimal(model.weight_bytes)
    );
    let letters = format!(
        "E {} width, H {} query heads, Hkv {} key/value heads, D {} head width, F {} MLP width, \
         V {} vocabulary",
        model.width,
        model.heads,
        model.kv_heads,
        model.head_dim,
        model.inner,
        count(model.vocabulary as u64)
    );
    vec![
        (
            "model",
            format!("{name} ({architecture}, {layers} layers), {size}"),
        ),
        ("letters", letters),
        (
            "kind",
            format!(
                "{}; {}; {}; head {}",
                model.position_encoding,
                model.norm,
                model.activation,
                if model.tied {
                    "tied to the embedding"
                } else {
                    "of its own"
                }
            ),
        ),
    ]
}

/// A token in a table cell.
fn piece(text: &str) -> String {
    picture::isolated(text).into_owned()
}

/// A small number in powers of ten.
fn tiny(value: f32) -> String {
    match value {
        0.0 => "0".to_owned(),
        value => format!("{value:.0e}"),
    }
}

/// A token in a crowded cell.
pub(crate) fn short(text: &str) -> String {
    const MOST: usize = 11;
    let cut: String = text.chars().take(MOST - 1).collect();
    let whole = text.chars().count() <= MOST;
    piece(&if whole {
        text.to_owned()
    } else {
        format!("{cut}…")
    })
}

/// `q [B, H, L, D] = [1, 4, 12, 64]`
fn sizes(shape: &Shape) -> String {
    format!("{:?}", shape.sizes)
}

/// Where the stream is looked at.
pub(crate) fn after_layer(blocks: usize) -> String {
    match blocks {
        0 => "embedding".to_owned(),
        n => format!("layer {}", n - 1),
    }
}
