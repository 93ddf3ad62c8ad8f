//! Lines from the keyboard, or from a pipe.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use console::report::warn;
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Completer, Helper, Highlighter, Hinter};

/// Lines that are kept for the next time.
const KEPT: usize = 1000;

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// One line, or several that belong together.
    Text(String),
    /// Ctrl-C before the end of a line.
    Interrupted,
    /// Ctrl-D, or the end of a pipe.
    End,
}

/// A line editor with the lines of earlier times.
pub(super) struct Editor {
    editor: rustyline::Editor<Continued, FileHistory>,
    history: PathBuf,
}

/// A line that ends in a backslash goes on.
#[derive(Completer, Helper, Highlighter, Hinter)]
struct Continued;

impl Validator for Continued {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if context.input().ends_with('\\') {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}

impl Editor {
    /// The lines of earlier times are in `history`; none if there is no such file.
    pub(super) fn new(history: &Path) -> Result<Self> {
        let mut editor = rustyline::Editor::new().context("opening the terminal")?;
        editor.set_helper(Some(Continued));
        editor.set_max_history_size(KEPT).context("keeping lines")?;
        if history.exists() && editor.load_history(history).is_err() {
            warn(&format!(
                "{} cannot be read: earlier lines are not there",
                history.display()
            ));
        }
        Ok(Self {
            editor,
            history: history.to_owned(),
        })
    }

    /// Waits for a line.
    pub(super) fn read(&mut self) -> Result<Line> {
        let line = match self.editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => return Ok(Line::Interrupted),
            Err(ReadlineError::Eof) => return Ok(Line::End),
            Err(error) => return Err(error).context("reading a line"),
        };
        // At once: after a crash it should be there, too.
        let kept = self.editor.add_history_entry(&line);
        if kept.is_ok_and(|new| new) && self.editor.append_history(&self.history).is_err() {
            warn(&format!(
                "{} cannot be written: lines are not kept",
                self.history.display()
            ));
        }
        Ok(Line::Text(line.replace("\\\n", "\n")))
    }
}
