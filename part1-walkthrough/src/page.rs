//! The trace as one HTML file: everything inside, nothing fetched, no server.
//!
//! The page itself is in `page/`: a template, a style sheet and a script with one file per step. It
//! gets the trace as JSON and draws what is in there, so it can say nothing that the terminal does
//! not.

use std::path::Path;

use anyhow::{Context, Result};
use console::files;
use console::text::script_json;
use minijinja::value::Serde;
use minijinja::{Environment, context};

use crate::trace::Trace;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// In this order: each file uses what the ones before it define.
const SCRIPT: &str = concat!(
    include_str!("page/data.js"),
    include_str!("../../assets/pages/theme.js"),
    include_str!("page/sampling.js"),
    include_str!("page/player.js"),
    include_str!("page/tokenize.js"),
    include_str!("page/merging.js"),
    include_str!("page/embed.js"),
    include_str!("page/arcs.js"),
    include_str!("page/attend.js"),
    include_str!("page/worked.js"),
    include_str!("page/stream.js"),
    include_str!("page/senses.js"),
    include_str!("page/predict.js"),
    include_str!("page/loops.js"),
    include_str!("page/guide.js"),
    include_str!("page/page.js"),
);
/// Observable Plot, see `src/page/vendor/build.mjs`.
const PLOT: &str = include_str!("page/vendor/plot.min.js");
const LICENCES: &str = include_str!("page/vendor/LICENSES.txt");

/// Writes the page; a reader never sees half of it. Returns its size in bytes.
pub fn save(path: &Path, trace: &Trace) -> Result<u64> {
    let page = page(trace)?;
    files::replace(path, page.as_bytes())
        .with_context(|| format!("writing the page {}", path.display()))?;
    Ok(page.len() as u64)
}

/// The whole file.
pub fn page(trace: &Trace) -> Result<String> {
    let values = context! {
        title => title(&trace.text),
        css => STYLE,
        plot => PLOT,
        licences => LICENCES,
        script => SCRIPT,
        trace => script_json(trace).context("writing the trace as JSON")?,
        text => trace.text.as_str(),
        model => trace.model.name.as_str(),
        answer => trace.decode.text.as_str(),
        tokens => Serde(&trace.tokens),
        bars => Serde(&trace.prediction.bars),
    };
    // The name's ending switches on the escaping of what the template inserts.
    Environment::new()
        .render_named_str("page.html", TEMPLATE, values)
        .context("filling in the page's template")
}

/// For the browser's tab: one line, not too long.
fn title(text: &str) -> String {
    const MOST: usize = 60;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}
