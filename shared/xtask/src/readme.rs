//! `cargo xtask readme`: the tables and diffs in the READMEs, from the code and from `results/`.
//!
//! A README keeps its place for each of them, two comments. What is between them is written here and
//! nowhere else; the rest of the page is a person's.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::change::{Step, steps};
use crate::check::Finding;
use crate::files;
use crate::series::Series;
use crate::workspace::Workspace;

mod changes;
mod index;
mod ladder;
mod parts;
mod section;

const COMMAND: &str = "cargo xtask readme";

/// Write the tables and diffs of the READMEs from the code and from results/*.json
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say what is stale, and fail if anything is
    #[arg(long)]
    check: bool,
}

/// Writes what changed; a second run changes nothing.
///
/// # Errors
/// If a README has no place for a section, if the index names code that is not there, or, with
/// `--check`, if anything is stale.
pub fn run(args: Args) -> Result<()> {
    let series = Series::load(Workspace::find()?.root())?;
    let (pages, mut findings) = pages(&series, &steps(&series)?)?;
    if args.check {
        findings.extend(pages.iter().flat_map(Page::stale));
    }
    for finding in &findings {
        anstream::eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("the READMEs are not as they should be: the arrows say what to do");
    }
    let mut written = 0;
    for page in pages.iter().filter(|page| page.old != page.new) {
        files::write_whole(&page.path, page.new.as_bytes())?;
        anstream::println!("{}: wrote {}", page.name, page.changed.join(", "));
        written += 1;
    }
    if written == 0 {
        anstream::println!("{} READMEs say what the code says", pages.len());
    }
    Ok(())
}

/// What `cargo xtask check` has to say about READMEs.
pub(crate) fn findings(series: &Series, steps: &[Step]) -> Result<Vec<Finding>> {
    let (pages, mut findings) = pages(series, steps)?;
    findings.extend(pages.iter().flat_map(Page::stale));
    Ok(findings)
}

/// A README as it is and as it should be.
struct Page {
    path: PathBuf,
    /// From the root of the workspace.
    name: String,
    old: String,
    new: String,
    /// Sections that differ.
    changed: Vec<&'static str>,
}

impl Page {
    fn read(path: PathBuf, name: String) -> Result<Self> {
        let old = fs::read_to_string(&path)
            .with_context(|| format!("reading {name}: every part has a README.md, start one"))?;
        Ok(Self {
            path,
            name,
            new: old.clone(),
            old,
            changed: Vec::new(),
        })
    }

    /// Puts `content` in its place; says so if there is none.
    fn put(&mut self, section: &'static str, content: &str) -> Option<Finding> {
        let Some(new) = section::replace(&self.new, section, content) else {
            let [begin, end] = section::markers(section);
            return Some(Finding::new(
                &self.name,
                format!("has no place for the section `{section}`"),
                format!(
                    "put these two lines where it shall be, then `{COMMAND}`:
{begin}
{end}"
                ),
            ));
        };
        if new != self.new {
            self.changed.push(section);
            self.new = new;
        }
        None
    }

    fn stale(&self) -> Option<Finding> {
        let sections = self.changed.join("`, `");
        (!self.changed.is_empty()).then(|| {
            Finding::new(
                &self.name,
                format!("`{sections}` is stale: the code or results/ say something else"),
                format!("`{COMMAND}`, then read what it wrote and commit it"),
            )
        })
    }
}

/// All READMEs, with what keeps them from being written.
fn pages(series: &Series, steps: &[Step]) -> Result<(Vec<Page>, Vec<Finding>)> {
    let mut root = Page::read(series.root.join("README.md"), "README.md".to_owned())?;
    let (index, mut findings) = index::render(series)?;
    findings.extend(root.put("ladder", &ladder::render(series)?));
    findings.extend(root.put("parts", &parts::render(series)));
    findings.extend(index.and_then(|index| root.put("index", &index)));
    let mut pages = vec![root];
    for part in &series.parts {
        let mut page = Page::read(part.path("README.md"), part.named("README.md"))?;
        // A part that takes nothing over from the one before has nothing to show.
        let step = steps.iter().find(|step| step.part.number == part.number);
        if let Some(step) = step.filter(|step| step.changes.share()) {
            findings.extend(page.put("changes", &changes::render(step)));
        }
        pages.push(page);
    }
    Ok((pages, findings))
}
