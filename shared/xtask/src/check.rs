//! `cargo xtask check`: what makes six parts one series, and can be seen without building them.
//!
//! Copies that are promised to be equal are; a part's change stays readable; no part knows what
//! machine it runs on; READMEs say what the code says. Each failure names the command or the edit
//! that mends it.

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use anyhow::{Result, bail};
use console::text::WIDTH;
use console::workspace::Workspace;
use textwrap::{Options, WordSplitter};

use crate::change::{BUDGET, Step, steps};
use crate::readme;
use crate::series::Series;

mod copies;
mod maps;
mod platform;
mod sizes;

/// Check that equal files are equal, changes within their budget, READMEs fresh, parts portable
#[derive(Debug, clap::Args)]
pub struct Args {}

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

/// A rule, and where it is broken.
type Rule = (&'static str, Vec<Finding>);

/// Prints a line for each rule, what to mend below it, and how much each part changes.
///
/// # Errors
/// If there is anything to mend, or a part cannot be read.
pub fn run(_: Args) -> Result<()> {
    let series = Series::load(Workspace::find()?.root())?;
    let steps = steps(&series)?;
    let rules = rules(&series, &steps)?;
    anstream::print!("{}{}", told(&rules), table(&steps));
    match rules.iter().map(|(_, findings)| findings.len()).sum() {
        0 => Ok(()),
        1 => bail!("one thing to mend: the arrow says how"),
        n => bail!("{n} things to mend: the arrows say how"),
    }
}

fn rules(series: &Series, steps: &[Step]) -> Result<Vec<Rule>> {
    Ok(vec![
        (
            "every module is on the map of its part",
            maps::findings(series)?,
        ),
        (
            "what is promised to be equal is equal",
            copies::findings(series)?,
        ),
        (
            "each part changes what a viewer can follow",
            sizes::changes(steps),
        ),
        ("files and functions are short", sizes::findings(series)?),
        (
            "parts do not know their platform",
            platform::findings(series)?,
        ),
        (
            "READMEs say what the code says",
            readme::findings(series, steps)?,
        ),
    ])
}

fn told(rules: &[Rule]) -> String {
    const GOOD: Style = AnsiColor::Green.on_default();
    const BAD: Style = AnsiColor::Red.on_default().bold();
    let mut text = String::new();
    for (rule, findings) in rules {
        let _ = match findings.is_empty() {
            true => writeln!(text, "{GOOD}✓{GOOD:#} {rule}"),
            false => writeln!(text, "{BAD}✗{BAD:#} {rule}"),
        };
        for finding in findings {
            let _ = writeln!(text, "{finding}");
        }
    }
    text
}

/// How much each part changes beside the one before.
fn table(steps: &[Step]) -> String {
    let mut text = format!(
        "\n {:<26} {:>9} {:>9} {:>8} {:>10} {:>7}\n",
        "taught files", "new files", "new lines", "changed", "of it code", "at most"
    );
    for step in steps {
        let (files, lines) = step.changes.new_files();
        let count = step.changes.changed();
        let _ = writeln!(
            text,
            " {:<26} {:>9} {:>9} {:>8} {:>10} {:>7}",
            format!(
                "part {} beside part {}",
                step.part.number, step.before.number
            ),
            files,
            lines,
            format!("+{} −{}", count.added, count.removed),
            count.code,
            BUDGET
        );
    }
    text
}
