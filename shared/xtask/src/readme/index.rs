//! From an idea to the function that has it. The list is `shared/xtask/ideas.toml`; each function
//! is looked up in the code, and one that is no longer there is told. Without line numbers: they
//! would make the page stale whenever a line is added anywhere.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::finding::Finding;
use crate::series::Series;
use crate::source::{self, Item};

const LIST: &str = "shared/xtask/ideas.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ideas {
    idea: Vec<Idea>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Idea {
    /// As a reader would look it up.
    name: String,
    /// From the root: `part3-kv-cache/src/cache.rs`.
    file: String,
    /// `attention`, `KvCache::update_and_fetch`
    item: String,
}

/// The table; none, but the ideas whose code is not there, if there are such.
pub(super) fn render(series: &Series) -> Result<(Option<String>, Vec<Finding>)> {
    let path = series.root.join(LIST);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {LIST}"))?;
    let mut ideas: Ideas = toml::from_str(&text).with_context(|| format!("reading {LIST}"))?;
    ideas.idea.sort_by_key(|idea| idea.name.to_lowercase());
    let (mut table, mut findings) = ("| idea | where |\n| --- | --- |\n".to_owned(), Vec::new());
    for idea in &ideas.idea {
        match missing(series, idea)? {
            None => {
                let short = idea.file.replace("/src/", "/");
                let _ = writeln!(
                    table,
                    "| {} | [`{short}: {}`]({}) |",
                    idea.name, idea.item, idea.file
                );
            }
            Some(problem) => findings.push(Finding::new(
                LIST,
                format!("\"{}\": {problem}", idea.name),
                "say where the idea is now, or remove it; then `cargo xtask readme`",
            )),
        }
    }
    Ok((findings.is_empty().then_some(table), findings))
}

/// Why the item is not found; None if it is there.
fn missing(series: &Series, idea: &Idea) -> Result<Option<String>> {
    let path = series.root.join(&idea.file);
    if !path.is_file() {
        return Ok(Some(format!("there is no {}", idea.file)));
    }
    let items = source::items(&source::parse(&path)?);
    if items.iter().any(|item| item.name == idea.item) {
        return Ok(None);
    }
    let problem = format!("{} has no `{}`", idea.file, idea.item);
    Ok(Some(match nearest(&items, &idea.item) {
        Some(near) => format!("{problem}; did you mean `{near}`?"),
        None => problem,
    }))
}

fn nearest<'a>(items: &'a [Item], name: &str) -> Option<&'a str> {
    let near = items.iter().map(|item| item.name.as_str());
    near.map(|near| (strsim::jaro_winkler(near, name), near))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, near)| near)
}
