//! A part runs wherever MLX does: what differs by system is in `cargo setup` and in `shared`.

use std::fs;

use anyhow::{Context, Result};

use crate::files;
use crate::finding::Finding;
use crate::series::{Part, Series};

/// What code for one system says, and a Cargo.toml with dependencies for one.
const SIGNS: [&str; 9] = [
    "target_os",
    "target_family",
    "target_arch",
    "(unix",
    "(windows",
    "std::os::",
    "consts::OS",
    "mlx_sys::",
    "[target.",
];
const FIX: &str = "ask `shared::machine`, or move it to shared: the same part runs everywhere";

pub(super) fn findings(series: &Series) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for part in &series.parts {
        found.extend(signs(part, "Cargo.toml")?);
        for folder in ["src", "benches"] {
            for file in files::walk(&part.path(folder)).unwrap_or_default() {
                if file.extension() == Some("rs".as_ref()) {
                    found.extend(signs(part, &format!("{folder}/{}", file.display()))?);
                }
            }
        }
    }
    Ok(found)
}

fn signs(part: &Part, file: &str) -> Result<Vec<Finding>> {
    let name = part.named(file);
    let text = fs::read_to_string(part.path(file)).with_context(|| format!("reading {name}"))?;
    let told = text.lines().enumerate().filter_map(|(at, line)| {
        let is_comment = line.trim_start().starts_with("//");
        let sign = SIGNS
            .iter()
            .find(|sign| line.contains(**sign) && !is_comment)?;
        let problem = format!("is for one system: `{sign}`");
        Some(Finding::new(format!("{name}:{}", at + 1), problem, FIX))
    });
    Ok(told.collect())
}
