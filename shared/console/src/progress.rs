//! Long work in steps: what is being done and how long it took, on stderr, in 80 columns.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::text::{one_line, pad};

const GOOD: Style = AnsiColor::Green.on_default();

/// Columns of the text between the mark and the time.
const TEXT: usize = 66;

/// A step that is under way. On a terminal it is a line that moves; elsewhere only its end shows.
#[derive(Debug)]
pub struct Step {
    bar: ProgressBar,
    text: RefCell<String>,
}

/// Does `work` as one step and prints its line with the time it took.
///
/// # Errors
/// That of `work`.
pub fn step<T>(text: &str, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let bar = ProgressBar::new_spinner().with_style(style("{spinner} {prefix} {msg}"));
    bar.set_prefix(text.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    let step = Step {
        bar,
        text: RefCell::new(text.to_owned()),
    };
    let result = work(&step);
    step.bar.finish_and_clear();
    if result.is_ok() {
        let text = pad(&one_line(&step.text.borrow()), TEXT);
        let seconds = started.elapsed().as_secs_f64();
        anstream::eprintln!("{GOOD}✓{GOOD:#} {text} {seconds:>8.1} s");
    }
    result
}

impl Step {
    /// Something that changes while the step runs.
    pub fn now(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
    }

    /// What the finished line shall say instead.
    pub fn says(&self, text: impl Into<String>) {
        self.text.replace(text.into());
    }

    /// From now on the step is `total` pieces long.
    pub fn pieces(&self, total: u64, template: &str) -> ProgressBar {
        self.bar.set_style(style(template));
        self.bar.set_length(total);
        self.bar.clone()
    }
}

/// The last line of a chore that went well.
pub fn ready(text: &str) {
    anstream::eprintln!("{GOOD}{text}{GOOD:#}");
}

/// A style of indicatif; its own where the template is wrong.
pub fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
