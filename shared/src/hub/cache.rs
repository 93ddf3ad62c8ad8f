//! The hub cache on disk: what of a model is there, and is it whole?
//!
//! This module reads the cache and [`store`](super::store) writes it. The layout is that of `huggingface_hub`:
//! `models--owner--name/{blobs/<etag>, snapshots/<commit>/<file> → blob, refs/<branch>}`, and
//! `.no_exist/<commit>/<file>` for a file that the repository is known not to have.
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use console::files::{read_text, read_text_if_there};
use safetensors::{SafeTensorError, SafeTensors};

use super::ids::Commit;
use super::source::RepoId;
use super::{INDEX, file_names, longest, shard_names};

/// The small files a part may read; all but the first are optional.
pub(super) const SMALL_FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    INDEX,
];

/// The files of a tokenizer; all but the first are optional.
pub(super) const TOKENIZER_FILES: [&str; 3] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// A model that cannot be used without these is not worth starting.
const REQUIRED: [&str; 2] = ["config.json", "tokenizer.json"];

/// One repository's place in the cache.
#[derive(Debug)]
pub(super) struct RepoCache {
    pub(super) root: PathBuf,
    pub(super) locks: PathBuf,
}

/// How much of a model the cache holds.
#[derive(Debug)]
pub(super) enum Cached {
    /// Everything; nothing needs to be asked.
    Whole(PathBuf),
    /// What is needed to run, but an optional file may or may not exist on the hub.
    Usable(PathBuf),
    /// Not enough, with the first file that is missing or cut short.
    Lacks(String),
}

impl RepoCache {
    pub(super) fn new(cache: &Path, repo: &RepoId) -> Self {
        let folder = format!("models--{}--{}", repo.owner, repo.name);
        Self {
            locks: cache.join(".locks").join(&folder),
            root: cache.join(folder),
        }
    }

    pub(super) fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.root.join("snapshots").join(commit.as_str())
    }

    /// The commit that a branch or a tag stood at, or the revision itself if it is one.
    fn commit(&self, revision: &str) -> Option<Commit> {
        let path = self.root.join("refs").join(revision);
        let known = read_text(&path, longest("refs"));
        Commit::parse(known.as_deref().unwrap_or(revision).trim())
    }

    /// The snapshot of a revision, if its tokenizer is there; the model need not be.
    pub(super) fn look_up_tokenizer(&self, revision: &str) -> Option<PathBuf> {
        let snapshot = self.snapshot(&self.commit(revision)?);
        is_whole(&snapshot.join(TOKENIZER_FILES[0])).then_some(snapshot)
    }

    /// The state of a revision, by local files alone.
    pub(super) fn look_up(&self, revision: &str) -> Cached {
        let nothing = || Cached::Lacks("all of it".to_string());
        let Some(commit) = self.commit(revision) else {
            return nothing();
        };
        let snapshot = self.snapshot(&commit);
        if !snapshot.is_dir() {
            return nothing();
        }
        let absent = |name: &str| self.absent_marker(&commit, name).exists();
        let mut unknown = false;
        for name in SMALL_FILES {
            let path = snapshot.join(name);
            // A link to a blob that is gone is a damaged file, not one that never was.
            if path.is_symlink() || path.exists() {
                if !is_whole(&path) {
                    return Cached::Lacks(name.to_string());
                }
            } else if !absent(name) {
                unknown = true;
                if REQUIRED.contains(&name) {
                    return Cached::Lacks(name.to_string());
                }
            }
        }
        match lacking_shard(&snapshot) {
            Some(name) => Cached::Lacks(name),
            None if unknown => Cached::Usable(snapshot),
            None => Cached::Whole(snapshot),
        }
    }

    pub(super) fn absent_marker(&self, commit: &Commit, name: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit.as_str()).join(name)
    }
}

/// The first shard that is missing or shorter than its own header says.
fn lacking_shard(snapshot: &Path) -> Option<String> {
    let names = || -> Result<Vec<String>> {
        let index = read_text_if_there(&snapshot.join(INDEX), longest(INDEX))?;
        shard_names(index.as_deref(), &file_names(snapshot)?)
    };
    match names() {
        Ok(names) => names
            .into_iter()
            .find(|name| !is_whole(&snapshot.join(name))),
        Err(_) => Some(super::SINGLE.to_string()),
    }
}

/// Is a file all there? By what the format itself says, since the cache keeps no sizes: a
/// safetensors header gives the length of its file, and a JSON object ends with a brace.
pub(super) fn is_whole(path: &Path) -> bool {
    // To open a pipe is to wait for whoever writes into it.
    if !path.is_file() {
        return false;
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") => safetensors_is_whole(path).unwrap_or(false),
        Some("json") => ends_with_brace(path).unwrap_or(false),
        _ => std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0),
    }
}

fn safetensors_is_whole(path: &Path) -> Result<bool> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        bail!("empty");
    }
    // SAFETY: read-only, and only the header is read; a blob in the cache is renamed into place
    // when it is complete and never written again.
    let bytes = unsafe { memmap2::Mmap::map(&file)? };
    // A header that is complete but wrong is what the repository holds: the loader explains it.
    Ok(!matches!(
        SafeTensors::read_metadata(&bytes),
        Err(SafeTensorError::HeaderTooSmall
            | SafeTensorError::InvalidHeaderLength
            | SafeTensorError::MetadataIncompleteBuffer)
    ))
}

fn ends_with_brace(path: &Path) -> std::io::Result<bool> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(64)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok(tail.trim_ascii_end().ends_with(b"}"))
}

/// The names among `wanted` that a listing does not have.
pub(super) fn absent<'a>(wanted: &[&'a str], listed: &BTreeSet<String>) -> Vec<&'a str> {
    wanted
        .iter()
        .copied()
        .filter(|name| !listed.contains(*name))
        .collect()
}
