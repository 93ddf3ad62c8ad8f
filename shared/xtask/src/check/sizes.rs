//! How long things may be: what a part teaches, a taught file, a `main.rs`. Functions are clippy's.

use std::fs;

use anyhow::{Context, Result};

use crate::change::Step;
use crate::finding::Finding;
use crate::series::{Part, Series};

/// Lines of a taught file.
const FILE: usize = 350;
/// Lines of a `main.rs`.
const MAIN: usize = 40;

/// Parts that teach more code than a viewer can follow.
pub(super) fn changes(steps: &[Step]) -> Vec<Finding> {
    let over = steps.iter().filter_map(|step| {
        let (code, most) = (step.changes.taught(), step.changes.budget());
        (code > most).then(|| over(step, code, most))
    });
    over.collect()
}

fn over(step: &Step, code: usize, most: usize) -> Finding {
    let (before, part) = (step.before.number, step.part.number);
    let new = match step.changes.new_files().0 {
        0 => "",
        _ => ", new files included",
    };
    Finding::new(
        &step.part.package,
        format!("teaches {code} lines of code{new}, at most {most} can be followed"),
        format!(
            "look with `cargo xtask diff {before} {part} --stat`; what is not the lesson goes into \
             part {before} first or into shared"
        ),
    )
}

pub(super) fn findings(series: &Series) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for part in &series.parts {
        for taught in part.taught()? {
            found.extend(file(part, &taught.file, FILE)?);
        }
        if part.path("src/main.rs").is_file() {
            found.extend(file(part, "src/main.rs", MAIN)?);
        }
    }
    Ok(found)
}

fn file(part: &Part, file: &str, most: usize) -> Result<Option<Finding>> {
    let text = fs::read_to_string(part.path(file))
        .with_context(|| format!("reading {}", part.named(file)))?;
    let lines = text.lines().count();
    let fix = match file {
        "src/main.rs" => "parse, run, report: move the rest to a module of the library",
        _ => "move one idea into a file of its own, or what no video shows to shared",
    };
    let problem = format!("has {lines} lines, at most {most}");
    Ok((lines > most).then(|| Finding::new(part.named(file), problem, fix)))
}
