//! The microscope as one HTML file: everything inside, nothing fetched, no server.
//!
//! The page packs its weights itself, so that bits and groups can be changed: the recipe once more, in
//! JavaScript. A test compares it with MLX.

use std::path::Path;

use anyhow::{Context, Result};
use console::files;
use console::text::script_json;
use minijinja::value::Serde;
use minijinja::{Environment, context};

use super::specimen::Specimen;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// In this order: each file uses what the ones before it define.
const SCRIPT: &str = concat!(
    include_str!("page/recipe.js"),
    include_str!("page/draw.js"),
    include_str!("../../../assets/pages/theme.js"),
    include_str!("page/page.js"),
);

/// Writes the page; a reader never sees half of it. Returns its size in bytes.
///
/// # Errors
/// If it cannot be written.
pub fn save(path: &Path, specimen: &Specimen) -> Result<u64> {
    let page = page(specimen)?;
    files::replace(path, page.as_bytes())
        .with_context(|| format!("writing the page {}", path.display()))?;
    Ok(page.len() as u64)
}

/// The whole file.
pub fn page(specimen: &Specimen) -> Result<String> {
    let values = context! {
        css => STYLE,
        script => SCRIPT,
        specimen => script_json(specimen).context("writing the weights as JSON")?,
        model => specimen.model.as_str(),
        module => specimen.module.as_str(),
        row => specimen.row,
        dtype => specimen.dtype,
        bits => specimen.bits,
        group_size => specimen.group_size,
        followed => Serde(&specimen.followed),
    };
    // The name's ending switches on the escaping of what the template inserts.
    Environment::new()
        .render_named_str("page.html", TEMPLATE, values)
        .context("filling in the page's template")
}
