//! The road map: the parts that there are, with the command that runs each, and those to come.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::finding::Finding;
use crate::series::{Part, Series};

const LIST: &str = "shared/xtask/planned.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    #[serde(default)]
    part: Vec<PlannedPart>,
}

/// A part that is announced and has no folder yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlannedPart {
    number: u32,
    title: String,
    shows: String,
}

/// The table; none, but what keeps it from being made, if there is such.
pub(super) fn render(series: &Series) -> Result<(Option<String>, Vec<Finding>)> {
    let text = fs::read_to_string(series.root.join(LIST));
    let text = text.with_context(|| format!("reading {LIST}"))?;
    let mut planned: Planned = toml::from_str(&text).with_context(|| format!("reading {LIST}"))?;
    planned.part.sort_by_key(|part| part.number);
    let (mut table, mut findings) = (HEAD.to_owned(), Vec::new());
    for part in &series.parts {
        let readme = part.path("README.md");
        // A part without README is told by whoever writes them.
        if !readme.is_file() {
            return Ok((None, findings));
        }
        match title(part, &readme)? {
            Some(title) => table += &ready(part, &title),
            None => findings.push(untitled(part)),
        }
    }
    for part in &planned.part {
        if series.part(part.number).is_ok() {
            findings.push(there(part));
        }
        let PlannedPart {
            number,
            title,
            shows,
        } = part;
        let _ = writeln!(table, "| {number} | {title} | {shows} | planned | |");
    }
    Ok((findings.is_empty().then_some(table), findings))
}

const HEAD: &str = "\
| part | title | what it shows | state | run it |
| --- | --- | --- | --- | --- |
";

fn ready(part: &Part, title: &str) -> String {
    let Part {
        number,
        package,
        what,
        ..
    } = part;
    format!("| [{number}]({package}) | {title} | {what} | ready | `cargo run -p {package}` |\n")
}

/// `# Part 3: the KV cache` → the KV cache
fn title(part: &Part, readme: &Path) -> Result<Option<String>> {
    let text = fs::read_to_string(readme)
        .with_context(|| format!("reading {}", part.named("README.md")))?;
    let first = text.lines().next().unwrap_or_default();
    let title = first.strip_prefix(&heading(part));
    Ok(title.filter(|title| !title.is_empty()).map(str::to_owned))
}

fn heading(part: &Part) -> String {
    format!("# Part {}: ", part.number)
}

fn untitled(part: &Part) -> Finding {
    Finding::new(
        part.named("README.md"),
        "the first line is not the title of the part",
        format!("begin with `{}` and the title", heading(part)),
    )
}

fn there(part: &PlannedPart) -> Finding {
    Finding::new(
        LIST,
        format!("part {} is planned, and it is there", part.number),
        "take it off the list; then `cargo xtask readme`",
    )
}
