//! A map that says "as in part 3" means byte for byte; and what is equal says so, so that it stays.

use std::fs;

use anyhow::{Context, Result};

use crate::finding::Finding;
use crate::series::{Part, Series, Taught};

pub(super) fn findings(series: &Series) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for part in &series.parts {
        for taught in part.taught()? {
            found.extend(match taught.as_in {
                Some(number) => promised(series, part, &taught, number)?,
                None => unpromised(series, part, &taught)?,
            });
        }
    }
    Ok(found)
}

fn promised(series: &Series, part: &Part, taught: &Taught, number: u32) -> Result<Option<Finding>> {
    let earlier = series.parts.iter().find(|other| other.number == number);
    let earlier = earlier.filter(|other| other.number < part.number);
    let Some(earlier) = earlier.filter(|other| other.path(&taught.file).is_file()) else {
        return Ok(Some(Finding::new(
            part.named("src/lib.rs"),
            format!(
                "{} is to be as in part {number}, which has no such file",
                taught.file
            ),
            "name the part that the file was copied from",
        )));
    };
    let earlier = origin(series, earlier, &taught.file)?;
    if bytes(part, &taught.file)? == bytes(earlier, &taught.file)? {
        return Ok(None);
    }
    Ok(Some(Finding::new(
        part.named(&taught.file),
        format!(
            "differs from {}, and the map promises that it does not",
            earlier.named(&taught.file)
        ),
        format!(
            "a fix: have it in {}, then `cargo xtask propagate {}`; \
             a lesson: say in src/lib.rs what changed instead of `as in part {number}`",
            earlier.package,
            taught.file.trim_start_matches("src/"),
        ),
    )))
}

/// The part that a copy comes from, by way of other copies.
fn origin<'a>(series: &'a Series, part: &'a Part, file: &str) -> Result<&'a Part> {
    let taught = part
        .taught()?
        .into_iter()
        .find(|taught| taught.file == file);
    let earlier = taught.and_then(|taught| taught.as_in);
    let earlier = earlier.and_then(|number| series.parts.iter().find(|p| p.number == number));
    match earlier.filter(|other| other.number < part.number && other.path(file).is_file()) {
        Some(earlier) => origin(series, earlier, file),
        None => Ok(part),
    }
}

fn unpromised(series: &Series, part: &Part, taught: &Taught) -> Result<Option<Finding>> {
    let Some(before) = series.before(part) else {
        return Ok(None);
    };
    if !before.path(&taught.file).is_file()
        || bytes(part, &taught.file)? != bytes(before, &taught.file)?
    {
        return Ok(None);
    }
    Ok(Some(Finding::new(
        part.named("src/lib.rs"),
        format!(
            "{} is that of part {}, and the map does not say so",
            taught.file, before.number
        ),
        format!(
            "begin its phrase with `as in part {}`: then it stays so",
            before.number
        ),
    )))
}

fn bytes(part: &Part, file: &str) -> Result<Vec<u8>> {
    fs::read(part.path(file)).with_context(|| format!("reading {}", part.named(file)))
}
