//! What `check` and `readme` find: where, what is wrong, and the command or the edit that mends it.

use std::fmt;

use console::text::WIDTH;
use textwrap::{Options, WordSplitter};

/// Something to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A file, with a line where there is one.
    place: String,
    problem: String,
    /// What to do.
    fix: String,
}

impl Finding {
    pub(crate) fn new(
        place: impl Into<String>,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (place, problem, fix) = (place.into(), problem.into(), fix.into());
        Self {
            place,
            problem,
            fix,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, problem, fix) = (&self.place, &self.problem, &self.fix);
        let wrapped = |text: &str, first, rest| {
            let options = Options::new(WIDTH).break_words(false);
            let options = options.word_splitter(WordSplitter::NoHyphenation);
            textwrap::fill(text, options.initial_indent(first).subsequent_indent(rest))
        };
        writeln!(
            f,
            "{}",
            wrapped(&format!("{place}: {problem}"), "  ", "    ")
        )?;
        f.write_str(&wrapped(fix, "    → ", "      "))
    }
}
