//! One file from the hub into `blobs/`.
//!
//! What a broken connection or a killed process leaves stays as `blobs/<etag>.incomplete`, and the
//! next try asks for the rest alone: over an unsteady line a download that begins again each time may
//! never end. The etag of a large file is its SHA-256: what was put together is checked, not trusted.
//! Not a byte more than listed is written, so a server cannot fill the disk.
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use console::interrupt::interrupted;
use reqwest::Url;
use sha2::{Digest, Sha256};

use super::cache::RepoCache;
use super::http::{Body, Failure, Hub, PIECE};
use super::ids::Etag;

/// A content that the cache lacks.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) etag: &'a Etag,
    pub(super) size: u64,
    pub(super) url: Url,
}

impl Wanted<'_> {
    /// Completes the part that is there, or begins. `at` is told how many bytes are on the disk.
    pub(super) fn fetch(
        &self,
        hub: &Hub,
        cache: &RepoCache,
        at: impl Fn(u64),
        stopped: &AtomicBool,
    ) -> Result<(), Failure> {
        let _lock = cache.lock_blob(self.etag)?;
        if cache.has_blob(self.etag, self.size)? {
            return Ok(());
        }
        let (file, length) = cache.open_part(self.etag)?;
        let mut part = Part::new(file);
        if self.etag.sha256().is_some() && length <= self.size {
            part.take_up()?;
        } else {
            part.restart()?;
        }
        at(part.length);
        let done = self.complete(&mut part, hub, at, stopped);
        if matches!(done, Err(Failure::Differs(_))) {
            cache.remove_part(self.etag)?;
        }
        done?;
        Ok(cache.finish_part(self.etag)?)
    }

    fn complete(
        &self,
        part: &mut Part,
        hub: &Hub,
        at: impl Fn(u64),
        stopped: &AtomicBool,
    ) -> Result<(), Failure> {
        if part.length < self.size {
            let (mut body, goes_on) = hub.content(self.url.clone(), part.length, self.size)?;
            if !goes_on {
                part.restart()?;
            }
            self.copy(&mut body, part, at, stopped)?;
        }
        // A crash of the machine must not leave a file of the right length without its bytes.
        part.file.sync_data()?;
        match self.etag.sha256() {
            Some(hash) if hash != part.hash() => Err(Failure::Differs("content")),
            _ => Ok(()),
        }
    }

    fn copy(
        &self,
        body: &mut Body,
        part: &mut Part,
        at: impl Fn(u64),
        stopped: &AtomicBool,
    ) -> Result<(), Failure> {
        let mut piece = vec![0; PIECE];
        loop {
            if stopped.load(Ordering::Relaxed) || interrupted() {
                return Err(Failure::Stopped);
            }
            let count = body.read(&mut piece)?;
            if count == 0 {
                break;
            }
            if part.length + count as u64 > self.size {
                return Err(Failure::Differs("length"));
            }
            part.append(&piece[..count])?;
            at(part.length);
        }
        if part.length < self.size {
            return Err(Failure::Cut("the answer ended early".to_string()));
        }
        Ok(())
    }
}

/// What has come of a content, hashed on the way: reading gigabytes once more would take seconds.
struct Part {
    file: File,
    length: u64,
    sha256: Sha256,
}

impl Part {
    fn new(file: File) -> Self {
        Self {
            file,
            length: 0,
            sha256: Sha256::new(),
        }
    }

    /// Counts what an earlier run has left.
    fn take_up(&mut self) -> std::io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let count = self.file.read(&mut piece)?;
            if count == 0 {
                return Ok(());
            }
            self.sha256.update(&piece[..count]);
            self.length += count as u64;
        }
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.length, self.sha256) = (0, Sha256::new());
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        self.sha256.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn hash(&self) -> String {
        crate::prompt_cache::hex(&self.sha256.clone().finalize())
    }
}
