//! `cargo xtask propagate model.rs`: a fix, made in the earliest part, on its way to the later ones.
//!
//! A copy that is promised to be equal is copied. A file that differs by design gets the same change
//! as a three-way merge: what it has now, what the source was, what the source is. Where that does
//! not fit, the file keeps what it has and the place is told.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use console::exec;
use console::files;
use console::workspace::Workspace;

use crate::git::git;
use crate::series::{Part, Series};

mod merge;

use merge::{Merged, Misfit};

/// Carry a fix in a taught file from the earliest part that has it to the later ones
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file: `model`, `model.rs`, `benches/step.rs`; with the part's folder in front to say
    /// where the fix is
    file: String,
    /// The fix is what changed since this commit
    #[arg(long, value_name = "COMMIT", default_value = "HEAD")]
    since: String,
    /// Change files of later parts even if they have changes that are not committed
    #[arg(long)]
    force: bool,
}

/// Changes the later parts' files, and shows what it did.
///
/// # Errors
/// If there is no such file, if a later part's file has changes of its own, or if some place did
/// not fit.
pub fn run(args: Args) -> Result<()> {
    let series = Series::load(Workspace::find()?.root())?;
    let (file, named) = find(&series, &args.file)?;
    let holders: Vec<&Part> = series
        .parts
        .iter()
        .filter(|p| p.path(&file).is_file())
        .collect();
    let fix = fix(&series, &holders, &file, &args.since, named)?;
    let outcomes = plan(&fix, &holders, &file)?;
    if !args.force {
        refuse_uncommitted(&series, &outcomes, &file)?;
    }
    let mut written = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.changes()) {
        files::replace(&outcome.part.path(&file), outcome.text.as_bytes())?;
        written.push(outcome.part.named(&file));
    }
    anstream::print!("{}", told(&fix, &outcomes, &file, &args.since));
    show(&series, &written)?;
    let misfits = outcomes
        .iter()
        .map(|outcome| outcome.misfits.len())
        .sum::<usize>();
    ensure!(
        misfits == 0,
        "{misfits} {} did not fit: what is told above is left to do by hand",
        if misfits == 1 { "place" } else { "places" }
    );
    if !written.is_empty() {
        console::progress::ready("now `cargo xtask readme` and the tests of these parts");
    }
    Ok(())
}

/// What is carried.
struct Fix<'a> {
    /// The part that has it.
    source: &'a Part,
    old: String,
    new: String,
}

/// The file, from the folder of a part, and the part if the name begins with one.
fn find(series: &Series, name: &str) -> Result<(String, Option<u32>)> {
    let part = series.parts.iter().find_map(|part| {
        let rest = name.strip_prefix(&part.package)?.strip_prefix('/')?;
        Some((part.number, rest.to_owned()))
    });
    let (part, name) = match part {
        Some((number, rest)) => (Some(number), rest),
        None => (None, name.to_owned()),
    };
    let names = [
        name.clone(),
        format!("src/{name}"),
        format!("src/{name}.rs"),
    ];
    let there = |name: &String| series.parts.iter().any(|part| part.path(name).is_file());
    let file = names.into_iter().find(there);
    let file = file.with_context(|| format!("no part has a file {name}"))?;
    Ok((file, part))
}

/// The earliest part whose file is not what it was; the first that has the file if none changed. A
/// promised copy is no source: what it has of its own is an accident.
fn fix<'a>(
    series: &Series,
    holders: &[&'a Part],
    file: &str,
    since: &str,
    named: Option<u32>,
) -> Result<Fix<'a>> {
    let commit = format!("{since}^{{commit}}");
    exec::stdout(git(&series.root).args(["rev-parse", "--verify", "--quiet", &commit]))
        .map_err(|_| anyhow::anyhow!("--since {since}: git knows no such commit"))?;
    let mut first = None;
    for &part in holders {
        let promised = promise(part, file)?;
        match (named, promised) {
            (Some(number), _) if number != part.number => continue,
            (None, Some(_)) => continue,
            (Some(_), Some(number)) => bail!(
                "{} is promised to be that of part {number}: make the fix there",
                part.named(file)
            ),
            (_, None) => {}
        }
        let new = read(part, file)?;
        let old = committed(&series.root, since, &part.named(file))?;
        let changed = old.as_ref().is_some_and(|old| *old != new);
        let fix = Fix {
            source: part,
            old: old.unwrap_or_else(|| new.clone()),
            new,
        };
        if changed {
            return Ok(fix);
        }
        first.get_or_insert(fix);
    }
    first.with_context(|| format!("that part has no {file}"))
}

/// The file as it was; None if it was not there.
fn committed(root: &Path, commit: &str, file: &str) -> Result<Option<String>> {
    let mut show = git(root);
    let output = exec::output(show.args(["show", &format!("{commit}:./{file}")]))?;
    if !output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8(output.stdout);
    Ok(Some(text.with_context(|| format!("{file} is no UTF-8"))?))
}

/// What becomes of the file in one of the later parts.
struct Outcome<'a> {
    part: &'a Part,
    how: How,
    old: String,
    text: String,
    misfits: Vec<Misfit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// From the part that the map names.
    Copy(u32),
    Merge,
}

impl Outcome<'_> {
    fn changes(&self) -> bool {
        self.old != self.text
    }
}

fn plan<'a>(fix: &Fix<'a>, holders: &[&'a Part], file: &str) -> Result<Vec<Outcome<'a>>> {
    let mut texts = BTreeMap::from([(fix.source.number, fix.new.clone())]);
    let mut outcomes = Vec::new();
    for &part in holders
        .iter()
        .filter(|part| part.number > fix.source.number)
    {
        let old = read(part, file)?;
        let copied =
            promise(part, file)?.and_then(|number| Some((number, texts.get(&number)?.clone())));
        let (how, text, misfits) = match copied {
            Some((number, text)) => (How::Copy(number), text, Vec::new()),
            None => {
                let Merged { text, misfits } = merge::three_way(&old, &fix.old, &fix.new)?;
                (How::Merge, text, misfits)
            }
        };
        texts.insert(part.number, text.clone());
        outcomes.push(Outcome {
            part,
            how,
            old,
            text,
            misfits,
        });
    }
    Ok(outcomes)
}

/// The part whose file this is to be.
fn promise(part: &Part, file: &str) -> Result<Option<u32>> {
    let taught = part.taught()?;
    let taught = taught.iter().find(|taught| taught.file == file);
    Ok(taught.and_then(|taught| taught.as_in))
}

/// What nobody has committed could not be told from what this does.
fn refuse_uncommitted(series: &Series, outcomes: &[Outcome], file: &str) -> Result<()> {
    for outcome in outcomes.iter().filter(|outcome| outcome.changes()) {
        let name = outcome.part.named(file);
        let mut status = git(&series.root);
        let changes = exec::stdout(status.args(["status", "--porcelain", "--", &name]))?;
        if !changes.is_empty() {
            bail!(
                "{name} has changes that are not committed: commit or undo them, \
                 or give --force to change it all the same"
            );
        }
    }
    Ok(())
}

fn told(fix: &Fix, outcomes: &[Outcome], file: &str, since: &str) -> String {
    let source = fix.source.number;
    let mut text = if fix.old == fix.new {
        format!("{file}: nothing changed since {since}; copies are compared with part {source}\n")
    } else {
        format!("{file}: what changed in part {source} since {since}\n")
    };
    for outcome in outcomes {
        let what = match (outcome.changes(), outcome.how) {
            (true, How::Copy(number)) => format!("copied from part {number}"),
            (false, How::Copy(number)) => format!("is that of part {number} already"),
            (true, How::Merge) => "differs by design: the same change is in".to_owned(),
            (false, How::Merge) if fix.old == fix.new => "differs by design: left alone".to_owned(),
            (false, How::Merge) if outcome.misfits.is_empty() => {
                "has the change already".to_owned()
            }
            (false, How::Merge) => "differs by design: left alone".to_owned(),
        };
        text += &format!(" {}: {what}\n", outcome.part.title());
        for misfit in &outcome.misfits {
            text += &format!(
                "   did not fit at {}:{}, where it should become\n",
                outcome.part.named(file),
                misfit.line
            );
            for line in misfit.wanted.lines() {
                text += &format!("   | {line}\n");
            }
        }
    }
    if outcomes.is_empty() {
        text += &format!(" no later part than {source} has it\n");
    }
    text
}

/// git's diff of what was written: on a terminal in colour.
fn show(series: &Series, written: &[String]) -> Result<()> {
    if written.is_empty() {
        return Ok(());
    }
    let mut diff = git(&series.root);
    diff.args(["--no-pager", "diff", "--"]).args(written);
    diff.status().context("cannot start `git`: install it")?;
    Ok(())
}

fn read(part: &Part, file: &str) -> Result<String> {
    fs::read_to_string(part.path(file)).with_context(|| format!("reading {}", part.named(file)))
}
