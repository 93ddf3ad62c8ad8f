//! A model's name → its files on this machine.
//!
//! `--model` takes four things, told apart without asking the network:
//!
//! | argument | what it is |
//! |---|---|
//! | `tiny` | the [embedded] model; `tiny-draft` is the one that guesses for it |
//! | a directory | a checkpoint in Hugging Face or MLX layout |
//! | `….gguf` | one GGUF file |
//! | `owner/name` | a repository on the Hugging Face hub |
//!
//! A hub model that is whole in the cache is used as it lies there: no request is made, so it starts
//! at once and also on a plane. The price is that a branch which has moved on is not noticed;
//! `--revision` with the new commit fetches it. The cache is the one that Python's
//! `huggingface_hub` uses, so a model that mlx-lm has downloaded is not downloaded again.
mod cache;
mod download;
pub mod embedded;
mod explain;
mod http;
mod ids;
mod listing;
mod progress;
mod settings;
mod source;
mod space;
mod store;
mod transfer;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use console::files::read_text_if_there;
use console::text::one_line;

pub use embedded::Embedded;
pub use settings::{HubLimits, HubSettings};

use crate::remarks::clipped;

/// The file that maps tensor names to shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The weights of a checkpoint that is not sharded.
pub(crate) const SINGLE: &str = "model.safetensors";

/// Where a model's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelFiles {
    /// An [embedded] model: no files at all.
    Embedded(Embedded),
    /// A directory with `config.json` and safetensors files; a snapshot in the cache is one too.
    Directory(PathBuf),
    /// A GGUF file, which holds weights, configuration and tokenizer.
    Gguf(PathBuf),
}

/// Finds a model: `tiny`, a directory, a `.gguf` file, or a hub id `owner/name`, which is downloaded
/// if it is not in the cache. Progress goes to stderr.
///
/// # Errors
/// One line that says what is wrong with `model` and what to try next.
pub fn locate(model: &str, revision: Option<&str>) -> Result<ModelFiles> {
    locate_with(model, revision, &HubSettings::from_env())
}

/// [`locate`] with explicit settings instead of those of the environment.
///
/// # Errors
/// As [`locate`].
pub fn locate_with(
    model: &str,
    revision: Option<&str>,
    settings: &HubSettings,
) -> Result<ModelFiles> {
    let source = source::parse(model)?;
    if let (Some(revision), false) = (revision, matches!(source, source::Source::Hub(_))) {
        bail!(
            "--revision {revision} is a version of a model on the hub, but --model {model} is not \
             one: leave --revision out, or name the model as owner/name"
        );
    }
    match source {
        source::Source::Embedded(model) => Ok(ModelFiles::Embedded(model)),
        source::Source::Directory(path) => Ok(ModelFiles::Directory(path)),
        source::Source::Gguf(path) => Ok(ModelFiles::Gguf(path)),
        source::Source::Hub(repo) => {
            download::snapshot(&repo, revision, settings).map(ModelFiles::Directory)
        }
    }
}

/// Finds the files of a tokenizer: [`locate`], but a directory needs no `config.json`, and of a hub model
/// only the tokenizer is downloaded.
///
/// # Errors
/// One line that says what is wrong with `name` and what to try next.
pub fn locate_tokenizer(name: &str) -> Result<ModelFiles> {
    locate_tokenizer_with(name, &HubSettings::from_env())
}

/// [`locate_tokenizer`] with explicit settings instead of those of the environment.
///
/// # Errors
/// As [`locate_tokenizer`].
pub fn locate_tokenizer_with(name: &str, settings: &HubSettings) -> Result<ModelFiles> {
    match source::parse_tokenizer(name)? {
        source::Source::Embedded(model) => Ok(ModelFiles::Embedded(model)),
        source::Source::Directory(path) => Ok(ModelFiles::Directory(path)),
        source::Source::Gguf(path) => Ok(ModelFiles::Gguf(path)),
        source::Source::Hub(repo) => {
            download::tokenizer(&repo, settings).map(ModelFiles::Directory)
        }
    }
}

/// Bytes of the longest file of this name that is read, some ten times the largest that we know of. What
/// is parsed takes up to thirty times as much: a text can be made of nothing but brackets.
pub(crate) fn longest(name: &str) -> u64 {
    match name {
        // It is parsed within a limit of memory.
        "tokenizer.json" => 256 << 20,
        INDEX => 64 << 20,
        _ => 16 << 20,
    }
}

impl ModelFiles {
    /// A small text file of the checkpoint, such as `config.json`. `None` if the checkpoint has no
    /// such file; always `None` for GGUF.
    ///
    /// # Errors
    /// The file is there but cannot be read, or is not UTF-8.
    pub fn read_text(&self, name: &str) -> Result<Option<String>> {
        let path = match self {
            Self::Embedded(model) => return Ok(model.text(name).map(String::from)),
            Self::Gguf(_) => return Ok(None),
            Self::Directory(directory) => directory.join(name),
        };
        read_text_if_there(&path, longest(name))
    }

    /// The safetensors files: those that `model.safetensors.index.json` names, else
    /// `model.safetensors`, else what older conversions are called (`model*.safetensors`,
    /// `weights*.safetensors`). Sorted by name.
    ///
    /// # Errors
    /// There are none, the index names a file that is not there, or the model is not a directory.
    pub fn shards(&self) -> Result<Vec<PathBuf>> {
        let Self::Directory(directory) = self else {
            bail!("the weights of {self:?} are not in safetensors files");
        };
        let present = file_names(directory)?;
        let index = self.read_text(INDEX)?;
        let names = shard_names(index.as_deref(), &present)
            .with_context(|| format!("cannot find the weights in {}", directory.display()))?;
        if let Some(missing) = names.iter().find(|name| !directory.join(name).is_file()) {
            bail!(
                "{} names {}, which is not in that directory: the checkpoint is incomplete, \
                 copy or download that file too",
                directory.join(INDEX).display(),
                one_line(&clipped(missing, 80))
            );
        }
        Ok(names.iter().map(|name| directory.join(name)).collect())
    }
}

/// Which files hold the weights, given the text of the index (if there is one) and the names of all
/// files. One rule for a directory on disk and for a listing of the hub.
///
/// The index is a hint: some repositories have one of another build beside complete weights. (mlx-lm
/// never reads it.)
pub(crate) fn shard_names(index: Option<&str>, present: &BTreeSet<String>) -> Result<Vec<String>> {
    let Some(index) = index else {
        return unindexed_shards(present);
    };
    let named = indexed_shards(index).with_context(|| format!("{INDEX} cannot be used"));
    match (named, whole_set(present)) {
        (Ok(names), Some(whole)) if names.iter().all(|name| whole.contains(name)) => Ok(whole),
        (Ok(names), _) if names.iter().all(|name| present.contains(name)) => Ok(names),
        (_, Some(whole)) => Ok(whole),
        (named, None) => named,
    }
}

/// The files of a build that are all there by their names: `model.safetensors`, or each
/// `model-0000I-of-0000N.safetensors`.
fn whole_set(present: &BTreeSet<String>) -> Option<Vec<String>> {
    if present.contains(SINGLE) {
        return Some(vec![SINGLE.to_string()]);
    }
    let first = "-00001-of-";
    present.iter().find_map(|name| {
        let (stem, rest) = name.split_once(first)?;
        let count: usize = rest.strip_suffix(".safetensors")?.parse().ok()?;
        let numbered = |shard| format!("{stem}-{shard:05}-of-{rest}");
        // Not more than there are: the number is a text that somebody wrote.
        let all = (1..=count.min(present.len() + 1)).map(numbered);
        let all: Vec<String> = all.collect();
        let whole = count > 0 && all.iter().all(|name| present.contains(name));
        whole.then_some(all)
    })
}

fn unindexed_shards(present: &BTreeSet<String>) -> Result<Vec<String>> {
    if present.contains(SINGLE) {
        return Ok(vec![SINGLE.to_string()]);
    }
    for prefix in ["model", "weights"] {
        let is_shard = |n: &&String| n.starts_with(prefix) && n.ends_with(".safetensors");
        let found: Vec<String> = present.iter().filter(is_shard).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(no_safetensors(present))
}

/// The distinct shard names of an index. They become paths, so each must be a plain relative one.
fn indexed_shards(index: &str) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_str(index)?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    if names.is_empty() {
        bail!("its weight_map is empty");
    }
    for name in &names {
        let plain = |part| matches!(part, Component::Normal(_));
        if name.is_empty() || !Path::new(name).components().all(plain) {
            bail!("it names the shard {name:?}, which is outside of the checkpoint");
        }
    }
    Ok(names.into_iter().collect())
}

/// What to say of a checkpoint without safetensors: name the weights that it has instead.
fn no_safetensors(present: &BTreeSet<String>) -> anyhow::Error {
    let with = |suffix: &str| {
        present
            .iter()
            .filter(|n| n.ends_with(suffix))
            .collect::<Vec<_>>()
    };
    if let Some(first) = with(".gguf").first() {
        return anyhow::anyhow!(
            "there are no safetensors files, but GGUF: give one file as --model path/to/{first}"
        );
    }
    for (suffix, what) in [(".npz", "NumPy"), (".bin", "PyTorch"), (".pth", "PyTorch")] {
        if let Some(first) = with(suffix).first() {
            return anyhow::anyhow!(
                "there are no safetensors files, only {what} weights ({first}), which are not \
                 read: look for a conversion of this model to safetensors, for example at \
                 mlx-community"
            );
        }
    }
    anyhow::anyhow!("there are no safetensors files: is this a language model's checkpoint?")
}

fn file_names(directory: &Path) -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?;
    Ok(entries
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect())
}
