//! `cargo xtask check`: what makes six parts one series, and can be seen without building them.
//!
//! Copies that are promised to be equal are; what a part teaches can be followed; no part knows what
//! machine it runs on; READMEs say what the code says. Each failure names the command or the edit
//! that mends it.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use anyhow::{Result, bail};
use console::workspace::Workspace;

use crate::change::{Step, steps};
use crate::finding::Finding;
use crate::readme;
use crate::series::Series;

mod copies;
mod maps;
mod platform;
mod sizes;
mod stat;

/// Check that equal files are equal, parts within their budget and portable, READMEs fresh
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only print how large each crate is, where its modules form circles, and each part's budget
    #[arg(long)]
    stat: bool,
}

/// A rule, and where it is broken.
type Rule = (&'static str, Vec<Finding>);

/// Prints a line for each rule, what to mend below it, and how much each part changes.
///
/// # Errors
/// If there is anything to mend, or a part cannot be read.
pub fn run(args: Args) -> Result<()> {
    let series = Series::load(Workspace::find()?.root())?;
    let steps = steps(&series)?;
    if args.stat {
        stat::print(&series.root)?;
        anstream::print!("{}", table(&steps));
        return Ok(());
    }
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
            "each part teaches what a viewer can follow",
            sizes::changes(steps),
        ),
        ("files are short", sizes::findings(series)?),
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
        let _ = if findings.is_empty() {
            writeln!(text, "{GOOD}✓{GOOD:#} {rule}")
        } else {
            writeln!(text, "{BAD}✗{BAD:#} {rule}")
        };
        for finding in findings {
            let _ = writeln!(text, "{finding}");
        }
    }
    text
}

/// What each part teaches beside the one before, and how much it may.
fn table(steps: &[Step]) -> String {
    let mut text = format!(
        "\n {:<22} {:>13} {:>12} {:>9} {:>12} {:>7}\n",
        "taught lines", "changed", "of it code", "new code", "together", "at most"
    );
    for step in steps {
        let count = step.changes.changed();
        let _ = writeln!(
            text,
            " {:<22} {:>13} {:>12} {:>9} {:>12} {:>7}",
            format!("{} beside {}", step.part.title(), step.before.title()),
            format!("+{} −{}", count.added, count.removed),
            count.code,
            step.changes.new_files().1,
            step.changes.taught(),
            step.changes.budget(),
        );
    }
    text
}
