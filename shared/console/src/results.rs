//! Measurements that leave the process: the JSON line of a part, and `results/*.json`, the ladder as
//! it was measured on one machine, with one model, on one day.
//!
//! `cargo compare` writes these files; whatever shows numbers of the ladder reads them here.
//!
//! ```
//! use std::path::Path;
//! use console::results;
//!
//! # fn main() -> anyhow::Result<()> {
//! # let root = Path::new("no such checkout");
//! for (path, results) in results::read_all(&root.join(results::FOLDER))? {
//!     for step in results.rungs() {
//!         println!("{}: {} {}", path.display(), step.part, step.decode_tps.median);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::machine::{Machine, Versions};
use crate::metrics::Summary;

/// The JSON line, with the same keys in every part.
#[derive(Debug, Serialize)]
pub struct JsonReport<'a, R> {
    /// The part: `part2-first-inference`.
    pub part: &'a str,
    /// The model as it was asked for.
    pub model: &'a str,
    /// What ran it.
    pub machine: &'a Machine,
    /// Versions of what it is built on.
    pub versions: &'a Versions,
    /// What was measured.
    pub runs: &'a [R],
}

/// The last line of what a part printed under `--json`.
///
/// # Errors
/// If it is no JSON, or lacks something that is asked for.
pub fn last_line<T: DeserializeOwned>(stdout: &str) -> Result<T> {
    let line = stdout.trim_end().lines().next_back().unwrap_or_default();
    serde_json::from_str(line)
        .with_context(|| format!("the last line of stdout is no report: {line:.60}"))
}

/// The folder at the root of the workspace.
pub const FOLDER: &str = "results";

/// Version of the format. It grows when a key changes its meaning; new keys alone leave it.
pub const SCHEMA: u32 = 1;

/// One file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// The day in UTC: `2026-01-31`.
    pub date: String,
    /// The code that ran: a commit, with `-dirty` if files differed from it. None outside git.
    pub commit: Option<String>,
    /// What ran it.
    pub machine: Machine,
    /// What decides how fast the same code is.
    pub versions: Versions,
    /// The model's id, or the name of its directory or file.
    pub model: String,
    /// `f32`, `f16` or `bf16` if the checkpoint's own type was overridden.
    pub dtype: Option<String>,
    /// What the model was asked.
    pub prompt: String,
    /// Tokens of the prompt, the chat template's included.
    pub prompt_tokens: usize,
    /// Tokens of each answer. No stop token ends it, so that all steps do the same work.
    pub new_tokens: usize,
    /// Measurements of each step: each the first answer of a fresh process, the order alternating,
    /// after one process per step that did not count.
    pub n: usize,
    /// In the order of the parts. The first one is the reference for the tokens.
    pub steps: Vec<Step>,
}

/// One part, or one variant of it, as it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The package: `part3-kv-cache`.
    pub part: String,
    /// The number of the part: 3.
    pub number: u32,
    /// The variant as the part itself calls it: `prealloc`.
    pub variant: String,
    /// What the part adds: the description in its Cargo.toml, without `Part 3: ` in front.
    pub adds: String,
    /// True for the variant that stands for its part in the ladder; the others are in the file only
    /// after `cargo compare --all`.
    pub rung: bool,
    /// Copies of the prompt that it answered at the same time; the times are those of one of them.
    #[serde(default = "one")]
    pub rows: usize,
    /// Time to first token: ids handed over → first token evaluated.
    pub ttft_ms: Summary,
    /// Time per output token after the first.
    pub tpot_ms: Summary,
    /// Tokens per second of one request after the first: (n − 1)/(end − first token).
    pub decode_tps: Summary,
    /// All output tokens of all requests per second of wall time, prefill included.
    pub throughput_tps: Summary,
    /// Most memory that MLX held at once: the largest of all measurements.
    pub peak_bytes: Option<u64>,
    /// Weights as they lie in memory.
    pub weight_bytes: Option<u64>,
    /// Keys and values kept at the end; 0 without a cache.
    pub kv_bytes: Option<u64>,
    /// Median `decode_tps` of all rows ÷ that of part 2 in the same file. None if part 2 did not run.
    pub ratio_to_part2: Option<f64>,
    /// None if every measurement gave the tokens of the reference, the first step; else where the
    /// earliest difference is, counted from 0.
    pub first_difference: Option<usize>,
    /// By how many nats the model as it is prefers the reference's token there; None if the tokens are the same, if one
    /// of the answers ends there, or if nobody was asked.
    #[serde(default)]
    pub margin_nats: Option<f64>,
}

fn one() -> usize {
    1
}

impl Step {
    /// Tokens per second of all rows after the first token of each.
    pub fn decode_of_all(&self) -> f64 {
        self.rows as f64 * self.decode_tps.median
    }
}

impl Results {
    /// The steps that stand for their parts, in order.
    pub fn rungs(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.rung)
    }

    /// The name of its file without `.json`: machine, model, type if overridden, day; lower-case
    /// letters, digits and hyphens, dots in the model's version numbers.
    pub fn stem(&self) -> String {
        let dtype = self.dtype.as_deref().unwrap_or_default();
        let fields = [&self.machine.name, &self.model, dtype, &self.date];
        let words = fields.map(plain);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        words.join("-")
    }
}

/// `Apple M3 Max` → `apple-m3-max`.
fn plain(text: &str) -> String {
    let kept = |c: char| match c {
        'a'..='z' | '0'..='9' | '.' => c,
        'A'..='Z' => c.to_ascii_lowercase(),
        _ => '-',
    };
    let text: String = text.chars().map(kept).collect();
    let words = text.split('-').map(|word| word.trim_matches('.'));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("-")
}

/// All files of a folder in the order of their names; none if there is no such folder.
///
/// # Errors
/// If a file cannot be read, or is not one of these or a newer one.
pub fn read_all(folder: &Path) -> Result<Vec<(PathBuf, Results)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("listing {}", folder.display())),
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.with_context(|| format!("listing {}", folder.display()))?;
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    paths.sort();
    let read = |path: PathBuf| Ok((path.clone(), read(&path)?));
    paths.into_iter().map(read).collect()
}

/// One file.
///
/// # Errors
/// If it cannot be read, or is not one of these or a newer one.
pub fn read(path: &Path) -> Result<Results> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
    let schema: Schema = serde_json::from_str(&text)
        .with_context(|| format!("{name} is no result of `cargo compare`"))?;
    ensure!(
        schema.schema <= SCHEMA,
        "{name} has schema {}, newer than {SCHEMA}: update the checkout",
        schema.schema
    );
    serde_json::from_str(&text).with_context(|| {
        format!("{name} is no result of this version: measure again with `cargo compare`")
    })
}

#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

#[cfg(test)]
mod tests;
