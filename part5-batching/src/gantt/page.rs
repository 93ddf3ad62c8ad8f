//! The run as one HTML file: everything inside, nothing fetched, no server.

use std::path::Path;

use anyhow::{Context, Result};
use console::files;
use console::text::script_json;
use minijinja::{Environment, context};

use super::Gantt;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// In this order: each file uses what the ones before it define.
const SCRIPT: &str = concat!(
    include_str!("page/draw.js"),
    include_str!("../../../assets/pages/theme.js"),
    include_str!("page/page.js"),
);

/// Writes the page; a reader never sees half of it. Returns its size in bytes.
///
/// # Errors
/// If it cannot be written.
pub fn save(path: &Path, gantt: &Gantt) -> Result<u64> {
    let page = page(gantt)?;
    files::replace(path, page.as_bytes())
        .with_context(|| format!("writing the page {}", path.display()))?;
    Ok(page.len() as u64)
}

/// The whole file.
///
/// # Errors
/// If the template cannot be filled in.
pub fn page(gantt: &Gantt) -> Result<String> {
    let values = context! {
        css => STYLE,
        script => SCRIPT,
        title => gantt.title.as_str(),
        requests => gantt.lanes.len(),
        steps => gantt.steps.len(),
        lanes_left_out => gantt.lanes_left_out,
        steps_left_out => gantt.steps_left_out,
        gantt => script_json(gantt).context("writing the run as JSON")?,
    };
    // The name's ending switches on the escaping of what the template inserts.
    Environment::new()
        .render_named_str("page.html", TEMPLATE, values)
        .context("filling in the page's template")
}
