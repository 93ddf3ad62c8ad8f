//! What mlx-lm computed, for the checkpoints under `assets/fixtures` and for real models.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::checkpoint::Checkpoint;
use crate::hub;
use crate::testing::skip::skipped;

/// One fixture: a checkpoint, and what mlx-lm makes of it.
#[derive(Debug, Deserialize)]
pub struct Expected {
    /// Version of mlx-lm that computed it.
    pub mlx_lm: String,
    /// Type of the activations.
    pub dtype: String,
    /// What the oracle had to be told, if anything.
    pub note: Option<String>,
    /// The prompts and their results.
    pub prompts: Vec<ExpectedPrompt>,
}

/// One prompt of a fixture.
#[derive(Debug, Deserialize)]
pub struct ExpectedPrompt {
    /// The prompt.
    pub ids: Vec<u32>,
    /// Logits `[V]` after the last token.
    pub logits_last: Vec<f32>,
    /// Logits `[L, V]` after every token, for one short prompt.
    #[serde(default)]
    pub logits_all: Option<Vec<Vec<f32>>>,
    /// Greedy tokens, computed with a cache.
    pub greedy: Vec<u32>,
    /// Smallest distance between the best and the second logit in these steps.
    pub min_margin: f32,
}

/// `assets/fixtures` of the workspace.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/fixtures")
}

/// Names of the fixtures that are whole checkpoints, sorted.
///
/// # Errors
/// If the directory cannot be read, or holds none.
pub fn checkpoints() -> Result<Vec<String>> {
    let root = directory();
    let mut names: Vec<String> = std::fs::read_dir(&root)
        .with_context(|| format!("reading {}", root.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| model_path(name).is_some() && root.join(name).join("expected.json").exists())
        .collect();
    ensure!(
        !names.is_empty(),
        "no fixtures in {}; run `cargo xtask fixtures`",
        root.display()
    );
    names.sort();
    Ok(names)
}

/// What to pass to `--model` for a fixture: its directory, or the GGUF file in it.
fn model_path(name: &str) -> Option<PathBuf> {
    let path = directory().join(name);
    if path.join("config.json").exists() && path.join("expected.json").exists() {
        return Some(path);
    }
    let gguf = path.join("model.gguf");
    gguf.exists().then_some(gguf)
}

/// Opens a fixture's checkpoint.
///
/// # Errors
/// If there is no such fixture or it is broken.
pub fn checkpoint(name: &str) -> Result<Checkpoint> {
    let path = model_path(name).with_context(|| format!("no fixture {name}"))?;
    let path = path.to_str().context("path of the fixture is not UTF-8")?;
    Checkpoint::open(path, hub::locate(path, None)?)
}

/// What mlx-lm computed for a fixture.
///
/// # Errors
/// If the file is missing or broken.
pub fn expected(name: &str) -> Result<Expected> {
    json(&format!("{name}/expected.json"))
}

/// Any JSON file below `assets/fixtures`.
///
/// # Errors
/// If the file is missing or broken.
pub fn json<T: serde::de::DeserializeOwned>(relative: &str) -> Result<T> {
    let path = directory().join(relative);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}; run `cargo xtask fixtures`", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))
}

/// SmolLM2-135M-Instruct as GGUF, if `cargo xtask fetch smollm2` has brought it.
///
/// Without it the test that needs it is [`skipped`].
pub fn smollm2() -> Option<PathBuf> {
    fetched("smollm2", "smollm2-135m-instruct.gguf")
}

/// The same as a directory of floats, if `cargo xtask fetch smollm2-f32` has unpacked it; as [`smollm2`].
pub fn smollm2_f32() -> Option<PathBuf> {
    let weights = fetched("smollm2-f32", "smollm2-f32/model.safetensors")?;
    weights.parent().map(Path::to_owned)
}

/// GPT-2's own tokenizer, if `cargo xtask fetch gpt2-tokenizer` has brought it; as [`smollm2`].
pub fn gpt2_tokenizer() -> Option<PathBuf> {
    fetched("gpt2-tokenizer", "gpt2-tokenizer/tokenizer.json")
}

fn fetched(what: &str, file: &str) -> Option<PathBuf> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.mlx/models");
    let path = models.join(file);
    if path.exists() {
        return Some(path);
    }
    skipped(&format!(
        "{file} is not there: run `cargo xtask fetch {what}`"
    ));
    None
}
