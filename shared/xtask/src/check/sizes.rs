//! How long things may be: the change from part to part, a taught file, a function, a `main.rs`.

use std::fs;

use anyhow::{Context, Result};

use super::Finding;
use crate::change::{BUDGET, Step};
use crate::series::{Part, Series};
use crate::source;

/// Lines of a taught file.
const FILE: usize = 350;
/// Lines of a function in a taught file, from its first to its closing brace.
const FUNCTION: usize = 60;
/// Lines of a `main.rs`.
const MAIN: usize = 40;

/// Parts that change more code of the part before than a viewer can follow.
pub(super) fn changes(steps: &[Step]) -> Vec<Finding> {
    let over = steps.iter().filter_map(|step| {
        let code = step.changes.changed().code;
        (code > BUDGET).then(|| over(step.before.number, step.part, code))
    });
    over.collect()
}

fn over(before: u32, part: &Part, code: usize) -> Finding {
    Finding::new(
        &part.package,
        format!(
            "changes {code} lines of code in files of part {before}, at most {BUDGET} are readable"
        ),
        format!(
            "look with `cargo xtask diff {before} {} --stat`; what is not the lesson goes into \
             part {before} first or into shared, a new idea into a file of its own",
            part.number
        ),
    )
}

pub(super) fn findings(series: &Series) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for part in &series.parts {
        for taught in part.taught()? {
            found.extend(file(part, &taught.file, FILE)?);
            found.extend(functions(part, &taught.file)?);
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

fn functions(part: &Part, file: &str) -> Result<Vec<Finding>> {
    let items = source::items(&source::parse(&part.path(file))?);
    let long = items.into_iter().filter_map(|item| {
        let lines = item.function_lines.filter(|&lines| lines > FUNCTION)?;
        Some(Finding::new(
            format!("{}:{}", part.named(file), item.line),
            format!("`{}` has {lines} lines, at most {FUNCTION}", item.name),
            "split it where a reader would draw a breath, and name the pieces",
        ))
    });
    Ok(long.collect())
}
