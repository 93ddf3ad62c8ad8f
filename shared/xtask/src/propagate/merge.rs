//! The same change in another file: git's three-way merge, with what did not fit told apart.

use std::fs;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use console::exec;

use crate::git::plain_git;

/// A file with all of a change that fits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) text: String,
    pub(super) misfits: Vec<Misfit>,
}

/// A place of the change that the file has written otherwise.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// In the merged text, from 1.
    pub(super) line: usize,
    /// What the change has there.
    pub(super) wanted: String,
}

/// Markers as long as no line of code begins with.
const MARKER: usize = 23;

/// `ours` with what leads from `base` to `theirs`.
pub(super) fn three_way(ours: &str, base: &str, theirs: &str) -> Result<Merged> {
    let place = tempfile::tempdir().context("making a temporary folder")?;
    for (name, text) in [("ours", ours), ("base", base), ("theirs", theirs)] {
        fs::write(place.path().join(name), text).context("writing to a temporary folder")?;
    }
    // Where both changed the same lines, the first run keeps ours, and the second one tells where.
    let text = merge(place.path(), &["--ours".to_owned()])?;
    let marked = merge(place.path(), &[format!("--marker-size={MARKER}")])?;
    Ok(Merged {
        misfits: misfits(&marked),
        text,
    })
}

fn merge(place: &Path, options: &[String]) -> Result<String> {
    let mut command = plain_git(place);
    command.args(["merge-file", "-p"]).args(options);
    let output: Output = exec::output(command.args(["ours", "base", "theirs"]))?;
    // It ends with the number of conflicts, and above 127 with an error.
    ensure!(
        output.status.code().is_some_and(|code| code < 128),
        "git merge-file: {}",
        exec::complaint(&output)
    );
    String::from_utf8(output.stdout).context("a taught file is no UTF-8")
}

fn misfits(marked: &str) -> Vec<Misfit> {
    let [begin, middle, end] = ["<", "=", ">"].map(|sign| sign.repeat(MARKER));
    let mut found: Vec<Misfit> = Vec::new();
    let (mut line, mut theirs) = (1, false);
    for text in marked.lines() {
        if text.starts_with(&begin) {
            found.push(Misfit {
                line,
                wanted: String::new(),
            });
        } else if text.starts_with(&middle) {
            theirs = true;
        } else if text.starts_with(&end) {
            theirs = false;
        } else if let (true, Some(misfit)) = (theirs, found.last_mut()) {
            misfit.wanted += text;
            misfit.wanted.push('\n');
        } else {
            line += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "a\nb\nc\nd\ne\nf\ng\nh\n";

    #[test]
    fn a_change_fits_beside_other_changes() {
        let ours = "a\nb\nc\nd\ne\nf\ng\nh, by design\n";
        let theirs = "a\nb, mended\nc\nd\ne\nf\ng\nh\n";
        let merged = three_way(ours, BASE, theirs).unwrap();
        assert_eq!(merged.text, "a\nb, mended\nc\nd\ne\nf\ng\nh, by design\n");
        assert_eq!(merged.misfits, []);
    }

    #[test]
    fn where_it_does_not_fit_ours_stays_and_the_place_is_told() {
        let ours = "new\na\nb, by design\nc\nd\ne\nf\ng\nh\n";
        let theirs = "a\nb, mended\nc\nd\ne\nf\ng, mended\nh\n";
        let merged = three_way(ours, BASE, theirs).unwrap();
        assert_eq!(
            merged.text,
            "new\na\nb, by design\nc\nd\ne\nf\ng, mended\nh\n"
        );
        let [misfit] = &merged.misfits[..] else {
            panic!("{:?}", merged.misfits)
        };
        assert_eq!(misfit.wanted, "b, mended\n");
        assert_eq!(
            merged.text.lines().nth(misfit.line - 1),
            Some("b, by design")
        );
    }
}
