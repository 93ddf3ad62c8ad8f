//! How much a part changes what the one before taught, counted in git's diff.

use anyhow::Result;

use crate::diff::Pair;
use crate::series::{Part, Series, Taught, compared};

/// Lines of taught code, changed and new, that a viewer can follow in one part.
const BUDGET: usize = 250;
/// The same for a part that brings files of its own: new code is read once, a change twice.
const BUDGET_WITH_NEW_FILES: usize = 400;

/// One taught file, from one part to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// `src/model.rs`
    pub(crate) file: String,
    pub(crate) kind: Kind,
    /// Its phrase in the later part; None if only the earlier part has the file.
    pub(crate) says: Option<String>,
    /// The hunks of the diff; empty if nothing changed.
    pub(crate) diff: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Same,
    Changed(Count),
    New(Count),
    Gone,
}

/// Lines of a diff.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) added: usize,
    pub(crate) removed: usize,
    /// Those of both that are neither blank nor only a comment: more explanation is never too much.
    pub(crate) code: usize,
}

/// A part beside the one before.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) before: &'a Part,
    pub(crate) part: &'a Part,
    pub(crate) changes: Changes,
}

/// All steps of the series; the first part is none.
pub(crate) fn steps(series: &Series) -> Result<Vec<Step<'_>>> {
    let pairs = series.parts.windows(2);
    pairs
        .map(|pair| {
            Ok(Step {
                before: &pair[0],
                part: &pair[1],
                changes: Changes::between(&pair[0], &pair[1])?,
            })
        })
        .collect()
}

/// What a part changes and adds, in reading order.
#[derive(Debug)]
pub(crate) struct Changes(pub(crate) Vec<Change>);

impl Changes {
    pub(crate) fn between(before: &Part, after: &Part) -> Result<Self> {
        let files = compared(before, after)?;
        let text = Pair::new(before, after, &files)?.text()?;
        let taught = after.taught()?;
        let change = |file: String| {
            let diff = hunks(&text, &after.named(&file)).to_owned();
            let says = says(&taught, &file);
            let there = [before, after].map(|part| part.path(&file).is_file());
            let count = Count::of(&diff);
            let kind = match there {
                [false, _] => Kind::New(count),
                [_, false] => Kind::Gone,
                _ if diff.is_empty() => Kind::Same,
                _ => Kind::Changed(count),
            };
            Change {
                file,
                kind,
                says,
                diff,
            }
        };
        Ok(Self(files.into_iter().map(change).collect()))
    }

    /// What changed in files that both parts have.
    pub(crate) fn changed(&self) -> Count {
        let counts = self.0.iter().filter_map(|change| match &change.kind {
            Kind::Changed(count) => Some(*count),
            _ => None,
        });
        counts.fold(Count::default(), |sum, count| Count {
            added: sum.added + count.added,
            removed: sum.removed + count.removed,
            code: sum.code + count.code,
        })
    }

    /// Files that are new, and their lines of code.
    pub(crate) fn new_files(&self) -> (usize, usize) {
        let code = self.0.iter().filter_map(|change| match change.kind {
            Kind::New(count) => Some(count.code),
            _ => None,
        });
        code.fold((0, 0), |(files, all), code| (files + 1, all + code))
    }

    /// Lines of code to look at: those that changed, and those of new files.
    pub(crate) fn taught(&self) -> usize {
        self.changed().code + self.new_files().1
    }

    /// How many of them there may be.
    pub(crate) fn budget(&self) -> usize {
        match self.new_files().0 {
            0 => BUDGET,
            _ => BUDGET_WITH_NEW_FILES,
        }
    }

    /// Whether the later part goes on with a file of the earlier one at all.
    pub(crate) fn share(&self) -> bool {
        let both = |kind: &Kind| matches!(kind, Kind::Same | Kind::Changed(_));
        self.0.iter().any(|change| both(&change.kind))
    }
}

fn says(taught: &[Taught], file: &str) -> Option<String> {
    let taught = taught.iter().find(|taught| taught.file == file)?;
    Some(taught.says.clone())
}

impl Count {
    /// Counts hunks as [`hunks`] gives them.
    pub(crate) fn of(hunks: &str) -> Self {
        let mut count = Self::default();
        for line in hunks.lines() {
            let code = match line.as_bytes().first() {
                Some(b'+') => {
                    count.added += 1;
                    &line[1..]
                }
                Some(b'-') => {
                    count.removed += 1;
                    &line[1..]
                }
                _ => continue,
            };
            let code = code.trim_start();
            count.code += usize::from(!code.is_empty() && !code.starts_with("//"));
        }
        count
    }
}

/// The hunks of one file in a diff of many: from its first `@@` to the next file.
fn hunks<'a>(diff: &'a str, name: &str) -> &'a str {
    const FILE: &str = "diff --git ";
    // No line of a hunk begins with a letter, so this is where a file begins.
    let mut starts = diff.match_indices(FILE).map(|(at, _)| at);
    let mine = starts.find(|&at| {
        let line = diff[at..].lines().next().unwrap_or_default();
        (at == 0 || diff.as_bytes()[at - 1] == b'\n') && line.ends_with(&format!(" {name}"))
    });
    let Some(start) = mine else { return "" };
    let rest = &diff[start..];
    let end = rest.find("\ndiff --git ").map_or(rest.len(), |at| at + 1);
    let body = rest[..end].find("\n@@ ").map_or(end, |at| at + 1);
    &rest[body..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF: &str = "\
diff --git part2-a/src/model.rs part3-b/src/model.rs
index 1..2 100644
--- part2-a/src/model.rs
+++ part3-b/src/model.rs
@@ -1,4 +1,5 @@ fn a
 kept
-// gone
-old();
+new(); // with a comment
+
++diff --git is text here
diff --git part3-b/src/cache.rs part3-b/src/cache.rs
new file mode 100644
--- /dev/null
+++ part3-b/src/cache.rs
@@ -0,0 +1,2 @@
+/// What it is.
+struct Cache;
";

    #[test]
    fn a_comment_is_a_changed_line_but_not_changed_code() {
        let count = Count::of(hunks(DIFF, "part3-b/src/model.rs"));
        assert_eq!((count.added, count.removed, count.code), (3, 2, 3));
        let cache = hunks(DIFF, "part3-b/src/cache.rs");
        assert!(cache.starts_with("@@ -0,0") && cache.ends_with("struct Cache;\n"));
        assert_eq!(hunks(DIFF, "part3-b/src/batch.rs"), "");
    }
}
