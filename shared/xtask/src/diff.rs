//! `cargo xtask diff 2 3`: what one part teaches beside another, shown by git.
//!
//! The taught files of both parts go into a repository of their own in a temporary folder, as two
//! trees. So git compares exactly these files, in reading order, under the same names, and its
//! colours, its pager and the settings of whoever runs it all work as usual.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use console::exec;
use console::workspace::Workspace;
use tempfile::TempDir;

use crate::git::{git, plain_git};
use crate::series::{Part, Series, compared};

/// What counts as a word in `--words`: names and numbers whole, every other sign alone.
const WORD: &str = "[[:alnum:]_]+|[^[:space:]]";

/// The line of Rust that git prints behind `@@`. Its own pattern has changed over the years; the
/// READMEs keep such lines.
const HEADING: &str =
    "^[ ]*((pub(\\([a-z]+\\))? )?((async|const|unsafe) )*(struct|enum|trait|fn|impl|mod)[< ].*)$";

/// Show the lesson of a part: the diff of the taught files, in reading order
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of a part, such as 2
    before: u32,
    /// Number of another part, such as 3
    after: u32,
    /// Only this file: `model`, `model.rs`, or any other of a part, such as `benches/step.rs`
    file: Option<String>,
    /// Only how many lines of each file
    #[arg(long)]
    stat: bool,
    /// Word by word instead of line by line
    #[arg(long, conflicts_with = "stat")]
    words: bool,
}

/// Runs git's diff on the terminal or the pipe that is there.
///
/// # Errors
/// If a part or the file does not exist, or git cannot do it.
pub fn run(args: Args) -> Result<()> {
    let series = Series::load(Workspace::find()?.root())?;
    let (before, after) = (series.part(args.before)?, series.part(args.after)?);
    ensure!(
        before.number != after.number,
        "part {0} beside part {0} shows nothing: give two parts",
        before.number
    );
    let files = match &args.file {
        Some(file) => vec![find(before, after, file)?],
        None => compared(before, after)?,
    };
    let pair = Pair::new(before, after, &files)?;
    if pair.trees[0] == pair.trees[1] {
        let (files, (a, b)) = (files.join(", "), (before.number, after.number));
        anstream::eprintln!("{files}: the same in parts {a} and {b}");
        return Ok(());
    }
    let mut command = pair.diff(git);
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if !colour {
        command.arg("--no-color");
    }
    match (args.stat, args.words) {
        (true, _) => command.arg("--stat"),
        (_, false) => command.arg("--patch-with-stat"),
        (_, true) if colour && io::stdout().is_terminal() => {
            command.arg(format!("--color-words={WORD}"))
        }
        (_, true) => command
            .arg("--word-diff=plain")
            .arg(format!("--word-diff-regex={WORD}")),
    };
    let status = pair.between(&mut command).status();
    let status = status.context("cannot start `git`: install it")?;
    // No code: the pager was left before git had said everything.
    ensure!(
        status.success() || status.code().is_none(),
        "git diff ended with {status}; its own message is above"
    );
    Ok(())
}

/// A file by any of the names that a reader would type.
fn find(before: &Part, after: &Part, file: &str) -> Result<String> {
    let names = [
        file.to_owned(),
        format!("src/{file}"),
        format!("src/{file}.rs"),
    ];
    let there = |name: &String| before.path(name).is_file() || after.path(name).is_file();
    if let Some(name) = names.into_iter().find(there) {
        return Ok(name);
    }
    let taught = compared(before, after)?;
    let taught: Vec<&str> = taught
        .iter()
        .map(|f| f.trim_start_matches("src/"))
        .collect();
    anyhow::bail!(
        "neither part {} nor part {} has a file {file}; they teach {}",
        before.number,
        after.number,
        taught.join(", ")
    )
}

/// Files of two parts as two trees of a repository that is gone when the value is.
pub(crate) struct Pair {
    place: TempDir,
    trees: [String; 2],
    prefixes: [String; 2],
}

impl Pair {
    pub(crate) fn new(before: &Part, after: &Part, files: &[String]) -> Result<Self> {
        let names = [&before.package, &after.package];
        Self::of(
            names.map(|name| format!("{name}/")),
            [&before.folder, &after.folder],
            files,
        )
    }

    /// As [`new`](Self::new), for any two folders and what to put before the names of files.
    pub(crate) fn of(prefixes: [String; 2], folders: [&Path; 2], files: &[String]) -> Result<Self> {
        let place = tempfile::tempdir().context("making a temporary folder")?;
        let root = place.path();
        exec::stdout(plain_git(root).args(["init", "--quiet"])).context("git init")?;
        let private = root.join(".git");
        fs::create_dir_all(private.join("info"))
            .and_then(|()| fs::write(private.join("info/attributes"), "*.rs diff=rust\n"))
            .and_then(|()| fs::write(private.join("order"), files.join("\n") + "\n"))
            .with_context(|| format!("writing {}", private.display()))?;
        let mut setting = plain_git(root);
        exec::stdout(setting.args(["config", "diff.rust.xfuncname", HEADING]))?;
        let trees = [
            tree(root, folders[0], files)?,
            tree(root, folders[1], files)?,
        ];
        Ok(Self {
            place,
            trees,
            prefixes,
        })
    }

    /// `git diff` with what all of its uses have in common.
    pub(crate) fn diff(&self, git: fn(&Path) -> Command) -> Command {
        let mut command = git(self.place.path());
        let order = self.place.path().join(".git/order");
        command
            .arg("diff")
            .args(["--no-renames", "--minimal", "--indent-heuristic"])
            .arg(format!("-O{}", order.display()))
            .arg(format!("--src-prefix={}", self.prefixes[0]))
            .arg(format!("--dst-prefix={}", self.prefixes[1]));
        command
    }

    /// Ends a command of [`diff`](Self::diff).
    pub(crate) fn between<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.args(&self.trees)
    }

    /// The diff as text, the same on every machine.
    pub(crate) fn text(&self) -> Result<String> {
        let mut command = self.diff(plain_git);
        command.args(["--no-color", "--no-ext-diff", "--unified=3"]);
        let output = exec::output(self.between(&mut command))?;
        ensure!(
            output.status.success(),
            "git diff: {}",
            exec::complaint(&output)
        );
        String::from_utf8(output.stdout).context("a taught file is no UTF-8")
    }
}

/// Puts those of the files that are in `folder` into the repository at `root`.
fn tree(root: &Path, folder: &Path, files: &[String]) -> Result<String> {
    let mut there = Vec::new();
    for file in files.iter().filter(|file| folder.join(file).is_file()) {
        let (from, to) = (folder.join(file), root.join(file));
        fs::create_dir_all(to.parent().unwrap_or(root))
            .and_then(|()| fs::copy(&from, &to))
            .with_context(|| format!("copying {}", from.display()))?;
        there.push(file);
    }
    exec::stdout(plain_git(root).args(["read-tree", "--empty"]))?;
    if !there.is_empty() {
        let mut add = plain_git(root);
        exec::stdout(add.args(["add", "--force", "--"]).args(there))?;
    }
    exec::stdout(plain_git(root).arg("write-tree"))
}
