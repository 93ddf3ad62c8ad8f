//! A download that was cut goes on where it stopped.
//!
//! hf-hub begins a cut file again from its first byte, which over an unsteady line may never end.
//! But it leaves the part that came as `blobs/<etag>.incomplete`, written in order, and it takes
//! `blobs/<etag>` for the finished file. So we fetch the rest by ranges and let it find the blob.
//! The etag of a large file is its SHA-256: what we put together is checked, not trusted.
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use hf_hub::repository::RepoTypeModel;
use hf_hub::{HFRepositorySync, HFResult};
use sha2::{Digest, Sha256};

use super::cache::RepoCache;
use super::progress::Transfer;

/// Less than this is fetched again sooner than it is looked into.
const WORTH_KEEPING: u64 = 1 << 20;
/// One request's worth. It is held in memory, and what a cut costs at most.
const PIECE: u64 = 8 << 20;
/// Which file a part belongs to shows in its first bytes: a safetensors header differs by shard.
const PROBE: u64 = 4096;

/// Completes the parts that earlier runs left, as far as they belong to `files` (name, bytes).
pub(super) fn finish_partials(
    model: &HFRepositorySync<RepoTypeModel>,
    commit: &str,
    cache: &RepoCache,
    files: &[(&str, u64)],
    transfer: &Transfer,
) -> HFResult<()> {
    let range = |name: &str, range: std::ops::Range<u64>| {
        model
            .download_file_to_bytes()
            .filename(name)
            .revision(commit)
            .range(range)
            .send()
    };
    for part in partials(&cache.blobs()) {
        let Some(_lock) = cache.try_lock_blob(&part.etag) else {
            continue;
        };
        let start = part.start()?;
        let length = start.len() as u64;
        for &(name, size) in files.iter().filter(|(_, size)| *size > part.length) {
            if range(name, 0..length)?[..] == start[..] {
                part.complete(
                    size,
                    |piece| range(name, piece),
                    |at| transfer.file_at(name, at),
                )?;
                break;
            }
        }
    }
    Ok(())
}

/// `blobs/<etag>.incomplete`, with an etag that is a SHA-256.
struct Partial {
    path: PathBuf,
    etag: String,
    length: u64,
}

fn partials(blobs: &Path) -> Vec<Partial> {
    let entries = std::fs::read_dir(blobs).into_iter().flatten().flatten();
    let partial = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let etag = name.strip_suffix(".incomplete")?.to_string();
        let hash = etag.len() == 64 && etag.chars().all(|c| c.is_ascii_hexdigit());
        let metadata = entry.metadata().ok()?;
        let worth = metadata.is_file() && metadata.len() >= WORTH_KEEPING;
        (hash && worth).then(|| Partial {
            path: entry.path(),
            etag,
            length: metadata.len(),
        })
    };
    entries.filter_map(partial).collect()
}

impl Partial {
    fn start(&self) -> HFResult<Vec<u8>> {
        let mut start = Vec::new();
        File::open(&self.path)?
            .take(PROBE)
            .read_to_end(&mut start)?;
        Ok(start)
    }

    /// Appends up to `size` bytes, then makes it the blob if the hash agrees. If anything does not
    /// fit, the part goes, and hf-hub begins the file again.
    fn complete<B: AsRef<[u8]>>(
        &self,
        size: u64,
        fetch: impl Fn(std::ops::Range<u64>) -> HFResult<B>,
        at: impl Fn(u64),
    ) -> HFResult<()> {
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        let mut length = self.length;
        while length < size {
            at(length);
            let end = size.min(length + PIECE);
            let piece = fetch(length..end)?;
            if piece.as_ref().len() as u64 != end - length {
                // A server that does not know ranges sends the whole file.
                return Ok(std::fs::remove_file(&self.path)?);
            }
            file.write_all(piece.as_ref())?;
            length = end;
        }
        at(length);
        if sha256(&self.path)? == self.etag {
            Ok(std::fs::rename(&self.path, self.path.with_extension(""))?)
        } else {
            Ok(std::fs::remove_file(&self.path)?)
        }
    }
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
