//! Writes what was answered to a file: beside the engine, and never in its way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result};
use console::files;
use console::report::warn;

use super::record::{Answered, Asked, Facts, Record, hear};
use crate::ask::{Ask, Event};
use crate::handle::AskId;

/// Records that may wait for the disk. If it is slower, later ones are left out.
const WAITING: usize = 256;

/// Collects what the engine tells, and gives it to a thread that writes.
///
/// # Cost
/// A copy of each ask and of its tokens, and one lock for each ask: nothing waits for the disk.
#[derive(Debug)]
pub struct Recorder {
    facts: Facts,
    open: BTreeMap<AskId, Record>,
    /// Those of them that have rows.
    running: Vec<AskId>,
    lines: Option<SyncSender<Record>>,
    left_out: u64,
    writer: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Goes on with a file, or begins one, which never becomes longer than so many bytes: then it is renamed to
    /// `FILE.old`, in place of an older one, so that the latest are always there.
    ///
    /// # Errors
    /// If it cannot be written, or if the system gives no thread.
    pub fn new(path: &Path, bytes: u64, facts: Facts) -> Result<Self> {
        let file = Lines::open(path, bytes)?;
        let (sender, receiver) = sync_channel(WAITING);
        let thread = Builder::new().name("record".to_owned());
        let writer = thread.spawn(move || write(file, &receiver));
        Ok(Self {
            facts,
            open: BTreeMap::new(),
            running: Vec::new(),
            lines: Some(sender),
            left_out: 0,
            writer: Some(writer.context("starting the thread that writes records")?),
        })
    }

    /// Somebody has asked.
    pub fn asked(&mut self, id: AskId, ask: &Ask) {
        if self.lines.is_none() {
            return;
        }
        let record = Record {
            id,
            name: ask.name.clone(),
            beside: Vec::new(),
            ask: Asked::from(ask),
            cached: 0,
            prompt: Vec::new(),
            // Refused elsewhere if it is none.
            answers: vec![Answered::default(); ask.n.min(1024)],
            engine: self.facts.clone(),
        };
        self.open.insert(id, record);
    }

    /// Somebody is told something.
    pub fn told(&mut self, id: AskId, event: &Event) {
        if let Event::Started { .. } = event {
            self.start(id);
        }
        let Some(record) = self.open.get_mut(&id) else {
            return;
        };
        match event {
            Event::Started { cached, .. } => record.cached = *cached,
            Event::Done(_) => self.finish(id),
            _ => hear(event, &mut record.prompt, &mut record.answers),
        }
    }

    fn start(&mut self, id: AskId) {
        for other in &self.running {
            if let Some(other) = self.open.get_mut(other) {
                other.beside.push(id);
            }
        }
        if let Some(record) = self.open.get_mut(&id) {
            record.beside.clone_from(&self.running);
            self.running.push(id);
        }
    }

    /// Nothing more comes. Half an answer is not recorded.
    pub fn gone(&mut self, id: AskId) {
        self.running.retain(|other| *other != id);
        self.open.remove(&id);
    }

    fn finish(&mut self, id: AskId) {
        let (Some(record), Some(lines)) = (self.open.remove(&id), &self.lines) else {
            return;
        };
        match lines.try_send(record) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.left_out += 1,
            // The thread has said why.
            Err(TrySendError::Disconnected(_)) => self.lines = None,
        }
    }
}

/// What waits is still written.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        if self.left_out > 0 {
            warn(&format!(
                "{} answers are not in the record: the disk was too slow",
                self.left_out
            ));
        }
    }
}

fn write(mut file: Lines, records: &Receiver<Record>) {
    for record in records {
        if let Err(error) = file.append(&record) {
            // The engine notices, and goes on without.
            warn(&format!("{error:#}; nothing more is recorded"));
            return;
        }
    }
}

/// A file of whole lines, and the one before it.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
    length: u64,
    most: u64,
}

impl Lines {
    fn open(path: &Path, bytes: u64) -> Result<Self> {
        let what = || format!("reading {} to go on with it", path.display());
        // What people ask is nobody else's business.
        let mut file = files::open_private(path)?;
        let length = file.seek(SeekFrom::End(0)).with_context(what)?;
        let mut lines = Self {
            path: path.to_owned(),
            file,
            length,
            most: bytes / 2,
        };
        if length > 0 {
            // A process that was killed may have left half a line.
            lines.file.seek(SeekFrom::End(-1)).with_context(what)?;
            let mut last = [0];
            lines.file.read_exact(&mut last).with_context(what)?;
            if last != *b"\n" {
                lines.put(b"\n")?;
            }
        }
        Ok(lines)
    }

    fn append(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record).context("writing a record as JSON")?;
        line.push(b'\n');
        self.line(&line)
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        if line.len() as u64 > self.most {
            let most = self.most;
            warn(&format!(
                "an answer of {} bytes is not in the record, which has room for {most}",
                line.len()
            ));
            return Ok(());
        }
        if self.length + line.len() as u64 > self.most {
            self.rotate()?;
        }
        self.put(line)
    }

    /// All of it or nothing: half a line of a full disk is taken back.
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            let _ = self.file.set_len(self.length);
            let what = format!("writing the record {}", self.path.display());
            return Err(error).context(what);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".old");
        let what = || format!("renaming the record {}", self.path.display());
        std::fs::rename(&self.path, old).with_context(what)?;
        *self = Self::open(&self.path, self.most * 2)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_file_stays_below_its_bytes_and_keeps_the_latest_lines() {
        let place = tempfile::TempDir::new().unwrap();
        let path = place.path().join("record");
        let mut file = Lines::open(&path, 100).unwrap();
        for number in 0..20 {
            file.line(format!("line {number:04}\n").as_bytes()).unwrap();
        }
        let second = Lines::open(&path, 100).unwrap_err().to_string();
        assert!(second.contains("by another process"), "{second}");
        assert_eq!(
            lines(&path),
            [
                "line 0015",
                "line 0016",
                "line 0017",
                "line 0018",
                "line 0019"
            ]
        );
        assert_eq!(lines(&place.path().join("record.old"))[0], "line 0010");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2);
    }

    #[test]
    fn half_a_line_of_a_process_that_was_killed_does_not_spoil_the_next_one() {
        let place = tempfile::TempDir::new().unwrap();
        let path = place.path().join("record");
        std::fs::write(&path, "whole\nhal").unwrap();
        Lines::open(&path, 100).unwrap().put(b"next\n").unwrap();
        assert_eq!(lines(&path), ["whole", "hal", "next"]);
    }
}
