//! The hub cache on disk: what of a model is there, and is it whole?
//!
//! hf-hub writes the cache; this module reads it. The layout is that of `huggingface_hub`:
//! `models--owner--name/{blobs/<etag>, snapshots/<commit>/<file> → blob, refs/<branch>}`, and
//! `.no_exist/<commit>/<file>` for a file that the repository is known not to have.
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use safetensors::{SafeTensorError, SafeTensors};

use super::source::RepoId;
use super::{INDEX, file_names, shard_names};

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
    root: PathBuf,
    locks: PathBuf,
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

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    fn commit(&self, revision: &str) -> String {
        let known = std::fs::read_to_string(self.root.join("refs").join(revision));
        known.map_or_else(|_| revision.to_string(), |text| text.trim().to_string())
    }

    /// The snapshot of a revision, if its tokenizer is there; the model need not be.
    pub(super) fn look_up_tokenizer(&self, revision: &str) -> Option<PathBuf> {
        let snapshot = self.snapshot(&self.commit(revision));
        is_whole(&snapshot.join(TOKENIZER_FILES[0])).then_some(snapshot)
    }

    /// The state of a revision, by local files alone.
    pub(super) fn look_up(&self, revision: &str) -> Cached {
        let commit = self.commit(revision);
        let snapshot = self.snapshot(&commit);
        if commit.is_empty() || !snapshot.is_dir() {
            return Cached::Lacks("all of it".to_string());
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

    fn absent_marker(&self, commit: &str, name: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit).join(name)
    }

    /// Notes which optional files the repository does not have, so that the next start needs no
    /// network to know that nothing is missing. Not being able to is no reason to fail.
    pub(super) fn mark_absent(&self, commit: &str, names: &[&str]) {
        for name in names {
            let marker = self.absent_marker(commit, name);
            if let Some(parent) = marker.parent() {
                let _ = std::fs::create_dir_all(parent);
            }
            let _ = File::create(marker);
        }
    }

    /// Points `revision` at a commit whose files are all there.
    pub(super) fn set_ref(&self, revision: &str, commit: &str) -> std::io::Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, commit)
    }

    /// Removes a file of a snapshot together with the blob that it links to, so that it is fetched
    /// again: hf-hub takes whatever lies at a blob's place for the whole file.
    pub(super) fn discard(&self, commit: &str, name: &str) -> std::io::Result<()> {
        let pointer = self.snapshot(commit).join(name);
        for path in [pointer.canonicalize().ok(), Some(pointer)]
            .into_iter()
            .flatten()
        {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// One download of a repository at a time: a second process waits here, then finds the files.
    /// hf-hub locks each blob, but gives up after 10 s and does not look again once it has the lock.
    /// The operating system frees the lock of a process that dies.
    pub(super) fn lock(&self, on_wait: impl FnOnce()) -> std::io::Result<File> {
        std::fs::create_dir_all(&self.locks)?;
        let file = File::create(self.locks.join("download.lock"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                on_wait();
                file.lock()?;
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        Ok(file)
    }
}

impl RepoCache {
    /// The lock under which `huggingface_hub` and hf-hub write one blob; `None` if they are at it.
    pub(super) fn try_lock_blob(&self, etag: &str) -> Option<File> {
        let file = File::create(self.locks.join(format!("{etag}.lock"))).ok()?;
        file.try_lock().ok().map(|()| file)
    }
}

/// The first shard that is missing or shorter than its own header says.
fn lacking_shard(snapshot: &Path) -> Option<String> {
    let names = || -> Result<Vec<String>> {
        let index = snapshot.join(INDEX);
        let index = if index.exists() {
            Some(std::fs::read_to_string(index)?)
        } else {
            None
        };
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
    use std::io::{Read, Seek, SeekFrom};
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
