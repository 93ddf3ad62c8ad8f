//! What changed since the part before: a table, and the diff folded away below it.

use std::fmt::Write as _;

use crate::change::{Change, Kind, Step};
use crate::series::Part;

pub(super) fn render(step: &Step) -> String {
    let (before, part, changes) = (step.before, step.part, &step.changes);
    let mut text = format!(
        "## What changed since part {}\n\n| file | lines | what |\n| --- | --- | --- |\n",
        before.number
    );
    for change in &changes.0 {
        let _ = writeln!(text, "{}", row(before, change));
    }
    let _ = writeln!(
        text,
        "\nIn colour: `cargo xtask diff {} {}`; one file, word by word: \
         `cargo xtask diff {0} {1} FILE --words`.",
        before.number, part.number
    );
    for change in &changes.0 {
        if let Kind::Changed(_) = change.kind {
            text += &folded(before, part, change);
        }
    }
    text
}

fn row(before: &Part, change: &Change) -> String {
    let file = &change.file;
    let name = file.trim_start_matches("src/");
    let lines = match &change.kind {
        Kind::Same => "the same".to_owned(),
        Kind::Changed(count) => format!("+{} −{}", count.added, count.removed),
        Kind::New(count) => format!("new, {}", count.added),
        Kind::Gone => {
            return format!("| `{name}` | gone | only part {} has it |", before.number);
        }
    };
    let says = change
        .says
        .as_deref()
        .unwrap_or_default()
        .replace('|', "\\|");
    format!("| [`{name}`]({file}) | {lines} | {says} |")
}

fn folded(before: &Part, part: &Part, change: &Change) -> String {
    let fence = fence(&change.diff);
    format!(
        "\n<details>\n<summary>The diff of <code>{}</code></summary>\n\n\
         {fence}diff\n--- {}\n+++ {}\n{}{fence}\n\n</details>\n",
        change.file.trim_start_matches("src/"),
        before.named(&change.file),
        part.named(&change.file),
        change.diff
    )
}

/// More backticks than any line of the text has: documentation of code has fences of its own.
fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_longer_than_those_inside() {
        assert_eq!(fence("no `code` at all"), "```");
        assert_eq!(fence("+/// ```text\n+/// ````"), "`````");
    }
}
