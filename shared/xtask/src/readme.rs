//! `cargo xtask readme`: the tables and diffs in the READMEs and the index of the glossary, from the
//! code and from `results/`.
//!
//! A page keeps its place for each of them, two comments. What is between them is written here and
//! nowhere else; the rest of the page is a person's.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use console::files;
use console::workspace::Workspace;

use crate::change::{Step, steps};
use crate::finding::Finding;
use crate::series::Series;

mod changes;
mod index;
mod ladder;
mod parts;
mod section;

const COMMAND: &str = "cargo xtask readme";

/// Write the tables, diffs and the index of the READMEs and the glossary anew
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say what is stale, and fail if anything is
    #[arg(long)]
    check: bool,
}

/// Writes what changed; a second run changes nothing.
///
/// # Errors
/// If a page has no place for a section, if the index names code that is not there, if a part that
/// is there is planned, or, with `--check`, if anything is stale.
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
        bail!("the pages are not as they should be: the arrows say what to do");
    }
    let mut written = 0;
    for page in pages.iter().filter(|page| page.old != page.new) {
        files::replace(&page.path, page.new.as_bytes())?;
        anstream::println!("{}: wrote {}", page.name, page.changed.join(", "));
        written += 1;
    }
    if written == 0 {
        anstream::println!("{} pages say what the code says", pages.len());
    }
    Ok(())
}

/// What `cargo xtask check` has to say about READMEs.
pub(crate) fn findings(series: &Series, steps: &[Step]) -> Result<Vec<Finding>> {
    let (pages, mut findings) = pages(series, steps)?;
    findings.extend(pages.iter().flat_map(Page::stale));
    Ok(findings)
}

/// A README or the glossary, as it is and as it should be.
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
    /// None if there is no such file.
    fn read(path: PathBuf, name: String) -> Result<Option<Self>> {
        let old = match fs::read_to_string(&path) {
            Ok(old) => old,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {name}")),
        };
        Ok(Some(Self {
            path,
            name,
            new: old.clone(),
            old,
            changed: Vec::new(),
        }))
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

/// All pages, with what keeps them from being written.
fn pages(series: &Series, steps: &[Step]) -> Result<(Vec<Page>, Vec<Finding>)> {
    let (mut pages, mut findings) = (Vec::new(), Vec::new());
    for (name, sections) in [
        ("README.md", landing as Sections),
        ("GLOSSARY.md", glossary),
    ] {
        match Page::read(series.root.join(name), name.to_owned())? {
            Some(mut page) => {
                findings.extend(sections(&mut page, series)?);
                pages.push(page);
            }
            None => findings.push(none(name)),
        }
    }
    for part in &series.parts {
        let name = part.named("README.md");
        let Some(mut page) = Page::read(part.path("README.md"), name.clone())? else {
            findings.push(none(&name));
            continue;
        };
        // A part that takes nothing over from the one before has nothing to show.
        let step = steps.iter().find(|step| step.part.number == part.number);
        if let Some(step) = step.filter(|step| step.changes.share()) {
            findings.extend(page.put("changes", &changes::render(step)));
        }
        pages.push(page);
    }
    Ok((pages, findings))
}

/// Writes the sections of one page; what keeps some of them from being written.
type Sections = fn(&mut Page, &Series) -> Result<Vec<Finding>>;

fn landing(page: &mut Page, series: &Series) -> Result<Vec<Finding>> {
    let (parts, mut findings) = parts::render(series)?;
    findings.extend(page.put("ladder", &ladder::render(series)?));
    findings.extend(parts.and_then(|parts| page.put("parts", &parts)));
    Ok(findings)
}

fn glossary(page: &mut Page, series: &Series) -> Result<Vec<Finding>> {
    let (index, mut findings) = index::render(series)?;
    findings.extend(index.and_then(|index| page.put("index", &index)));
    Ok(findings)
}

fn none(name: &str) -> Finding {
    Finding::new(
        name,
        "is not there",
        "write it: that of another part shows how",
    )
}
