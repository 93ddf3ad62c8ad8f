//! The one place that writes into the cache and deletes from it.
//!
//! A file is written and deleted only where it belongs to the cache, after every link on the way has
//! been followed: in `blobs/` and `snapshots/` of its repository. Beside them there are only small notes
//! in `refs/` and `.no_exist/`, and locks. What stands there otherwise, such as a link to a file of the
//! user's own, is left alone.
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use console::interrupt::interrupted;

use super::cache::{RepoCache, is_whole};
use super::http::Failure;
use super::ids::{Commit, Etag};

/// How long another program may write the same file before we give up.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// What stands at the place of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The file, with the length that it should have.
    Whole,
    /// Nothing, any more.
    Empty,
    /// A link to a whole file outside of the cache that has another length: the user's own choice.
    Own(PathBuf),
}

impl RepoCache {
    /// What a snapshot has of a file of `size` bytes. What is in the cache and has another length is
    /// removed, so that it is fetched again.
    pub(super) fn place(&self, commit: &Commit, name: &str, size: u64) -> Result<Place, Failure> {
        let pointer = self.snapshot(commit).join(name);
        let target = match pointer.canonicalize() {
            Ok(target) => target,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.clear(&pointer),
            Err(error) => return Err(error.into()),
        };
        let found = target.metadata()?;
        if !found.is_file() {
            return Err(foreign(&pointer));
        }
        if found.len() == size {
            return Ok(Place::Whole);
        }
        if self.owns(&pointer) && self.owns(&target) {
            std::fs::remove_file(&target)?;
            return self.clear(&pointer);
        }
        if is_whole(&pointer) {
            return Ok(Place::Own(target));
        }
        Err(foreign(&pointer))
    }

    /// A file that the hub does not list may be there, as an addition of the user's, but it must be one
    /// that can be read: a pipe would be waited for.
    pub(super) fn check_regular(&self, commit: &Commit, name: &str) -> Result<(), Failure> {
        let path = self.snapshot(commit).join(name);
        if path.exists() && !path.is_file() {
            return Err(foreign(&path));
        }
        Ok(())
    }

    /// Removes a link whose blob is gone; there may be none.
    fn clear(&self, pointer: &Path) -> Result<Place, Failure> {
        let Ok(target) = pointer.read_link() else {
            return Ok(Place::Empty);
        };
        let target = pointer.with_file_name("").join(target);
        if !(self.owns(pointer) && self.owns(&target)) {
            return Err(foreign(pointer));
        }
        std::fs::remove_file(pointer)?;
        Ok(Place::Empty)
    }

    /// Whether a file, or the place of one, is in `blobs/` or `snapshots/`, all links followed.
    fn owns(&self, path: &Path) -> bool {
        let directory = path.parent().and_then(|parent| parent.canonicalize().ok());
        let within = |name: &str| {
            let root = self.root.join(name).canonicalize().ok()?;
            Some(directory.as_ref()?.starts_with(root))
        };
        path.file_name().is_some()
            && ["blobs", "snapshots"]
                .into_iter()
                .any(|name| within(name) == Some(true))
    }

    fn blob(&self, etag: &Etag) -> PathBuf {
        self.root.join("blobs").join(etag.as_str())
    }

    /// Whether the content is there in full length. A file of another length is removed.
    pub(super) fn has_blob(&self, etag: &Etag, size: u64) -> Result<bool, Failure> {
        let path = self.blob(etag);
        let Ok(found) = path.symlink_metadata() else {
            return Ok(false);
        };
        if path
            .metadata()
            .is_ok_and(|found| found.is_file() && found.len() == size)
        {
            return Ok(true);
        }
        if !found.is_file() {
            return Err(foreign(&path));
        }
        std::fs::remove_file(path)?;
        Ok(false)
    }

    /// How many bytes of a content of `size` the disk does not have yet.
    pub(super) fn lacking(&self, etag: &Etag, size: u64) -> u64 {
        let length = |path: PathBuf| path.metadata().map_or(0, |found| found.len());
        if length(self.blob(etag)) == size {
            return 0;
        }
        // What a part begins again with takes the room of what it had.
        size.saturating_sub(length(self.part(etag)))
    }

    /// The part of a content that has come so far, opened to be read and written, and its length.
    /// `blobs/<etag>.incomplete` is the name that all Hugging Face tools use.
    pub(super) fn open_part(&self, etag: &Etag) -> Result<(File, u64), Failure> {
        let path = self.part(etag);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = match path.symlink_metadata() {
            Ok(found) if found.is_file() => options.open(path)?,
            Ok(_) => return Err(foreign(&path)),
            Err(_) => options.create_new(true).open(path)?,
        };
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    fn part(&self, etag: &Etag) -> PathBuf {
        self.root
            .join("blobs")
            .join(format!("{}.incomplete", etag.as_str()))
    }

    pub(super) fn remove_part(&self, etag: &Etag) -> io::Result<()> {
        std::fs::remove_file(self.part(etag))
    }

    /// The part is all of it.
    pub(super) fn finish_part(&self, etag: &Etag) -> io::Result<()> {
        std::fs::rename(self.part(etag), self.blob(etag))
    }

    /// Shows a content under its name in a snapshot: by a link, or by a copy where there are none.
    pub(super) fn show(&self, commit: &Commit, name: &str, etag: &Etag) -> Result<(), Failure> {
        let pointer = self.snapshot(commit).join(name);
        std::fs::create_dir_all(self.snapshot(commit))?;
        if !self.owns(&pointer) {
            return Err(foreign(&pointer));
        }
        let target = Path::new("../../blobs").join(etag.as_str());
        match std::os::unix::fs::symlink(target, &pointer) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(foreign(&pointer)),
            Err(_) => Ok(copy(&self.blob(etag), &self.part(etag), &pointer)?),
        }
    }

    /// Notes which optional files the repository does not have, so that the next start needs no
    /// network to know that nothing is missing. Not being able to is no reason to fail.
    pub(super) fn mark_absent(&self, commit: &Commit, names: &[&str]) {
        for name in names {
            let marker = self.absent_marker(commit, name);
            if self.prepare(&marker, ".no_exist").is_ok() {
                let _ = File::create_new(marker);
            }
        }
    }

    /// Points `revision` at a commit whose files are all there.
    pub(super) fn set_ref(&self, revision: &str, commit: &Commit) -> Result<(), Failure> {
        if revision == commit.as_str() {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        self.prepare(&path, "refs")?;
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(foreign(&path));
        }
        console::files::replace(&path, commit.as_str().as_bytes())
            .map_err(|error| Failure::Disk(error.downcast().unwrap_or_else(io::Error::other)))
    }

    /// Makes the directories above `path`, which must not lead out of `below` of this repository.
    fn prepare(&self, path: &Path, below: &str) -> Result<(), Failure> {
        let directory = path.with_file_name("");
        // The nearest one that is there decides where the others would be made.
        let there = directory.ancestors().find(|ancestor| ancestor.exists());
        let there = there.unwrap_or(&directory).canonicalize()?;
        let root = self.root.canonicalize()?;
        if there != root && !there.starts_with(root.join(below)) {
            return Err(foreign(&directory));
        }
        Ok(std::fs::create_dir_all(directory)?)
    }

    /// One download of a repository at a time: a second process waits here, then finds the files.
    /// The operating system frees the lock of a process that dies.
    pub(super) fn lock(&self, on_wait: impl FnOnce()) -> Result<File, Failure> {
        let file = self.lock_file("download")?;
        let mut on_wait = Some(on_wait);
        take(
            || file.try_lock(),
            || {
                on_wait.take().into_iter().for_each(|tell| tell());
                Ok(())
            },
        )?;
        Ok(file)
    }

    /// Makes the repository's place. Not before the hub has told of it: a name that is misspelled would
    /// else leave an empty model.
    pub(super) fn make(&self) -> io::Result<()> {
        for name in ["blobs", "snapshots"] {
            std::fs::create_dir_all(self.root.join(name))?;
        }
        Ok(())
    }

    /// The lock under which all Hugging Face tools write one blob.
    pub(super) fn lock_blob(&self, etag: &Etag) -> Result<File, Failure> {
        let file = self.lock_file(etag.as_str())?;
        let start = Instant::now();
        take(
            || file.try_lock(),
            || {
                if start.elapsed() > BUSY_LIMIT {
                    return Err(Failure::Busy);
                }
                Ok(())
            },
        )?;
        Ok(file)
    }

    fn lock_file(&self, name: &str) -> Result<File, Failure> {
        std::fs::create_dir_all(&self.locks)?;
        let path = self.locks.join(format!("{name}.lock"));
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(foreign(&path));
        }
        let mut options = OpenOptions::new();
        Ok(options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?)
    }
}

/// Tries to get a lock until it is there, `go_on` says no, or Ctrl-C is pressed.
fn take(
    mut lock: impl FnMut() -> Result<(), TryLockError>,
    mut go_on: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        match lock() {
            Ok(()) => return Ok(()),
            // A file system without locks is no program that has one.
            Err(TryLockError::Error(error)) => return Err(error.into()),
            Err(TryLockError::WouldBlock) => go_on()?,
        }
        if interrupted() {
            return Err(Failure::Stopped);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Copies by way of `part`, so that there is never a part of a file under the name `to`.
fn copy(from: &Path, part: &Path, to: &Path) -> io::Result<()> {
    let copied = std::fs::copy(from, part).and_then(|_| std::fs::rename(part, to));
    copied.inspect_err(|_| {
        let _ = std::fs::remove_file(part);
    })
}

/// Says what stands at `path` instead of a file of the cache.
fn foreign(path: &Path) -> Failure {
    let shown = path.display();
    Failure::Foreign(match path.read_link() {
        Ok(target) => format!("{shown} is a link to {}", target.display()),
        Err(_) if path.exists() => format!("{shown} is no regular file"),
        Err(_) => format!("{shown} leads out of the cache"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::source::RepoId;

    #[test]
    fn only_what_is_not_on_the_disk_yet_takes_room() {
        let place = tempfile::tempdir().unwrap();
        let repo = RepoId {
            owner: "a".into(),
            name: "b".into(),
        };
        let cache = RepoCache::new(place.path(), &repo);
        let etag = Etag::parse(&"a".repeat(64)).unwrap();
        cache.make().unwrap();
        assert_eq!(cache.lacking(&etag, 1000), 1000);
        std::fs::write(cache.part(&etag), [0; 300]).unwrap();
        assert_eq!(cache.lacking(&etag, 1000), 700);
        assert_eq!(cache.lacking(&etag, 200), 0);
        std::fs::write(cache.blob(&etag), [0; 1000]).unwrap();
        assert_eq!(cache.lacking(&etag, 1000), 0);
    }

    #[test]
    fn a_file_system_without_locks_is_not_taken_for_a_busy_one() {
        let unknown = || Err(TryLockError::Error(ErrorKind::Unsupported.into()));
        let failure = take(unknown, || Err(Failure::Busy)).unwrap_err();
        assert!(matches!(failure, Failure::Disk(_)), "{failure:?}");
        let mut tries = 0;
        let third = || {
            tries += 1;
            if tries < 3 {
                Err(TryLockError::WouldBlock)
            } else {
                Ok(())
            }
        };
        take(third, || Ok(())).unwrap();
        let failure = take(|| Err(TryLockError::WouldBlock), || Err(Failure::Busy));
        assert!(matches!(failure, Err(Failure::Busy)));
    }

    /// What the test below runs in a process of its own. macOS shares the blocks instead of writing them.
    #[test]
    #[cfg(target_os = "linux")]
    #[ignore = "started by another test, in a process of its own"]
    fn copies() {
        let place = std::path::PathBuf::from(std::env::var_os("PLACE").unwrap());
        let [from, part, to] = ["from", "part", "to"].map(|name| place.join(name));
        copy(&from, &part, &to).unwrap_err();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_copy_that_finds_no_room_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("from"), vec![1; 1 << 20]).unwrap();
        // No file of the process may have more than 8 blocks.
        let limited = r#"trap "" XFSZ; ulimit -f 8; exec "$0" "$@""#;
        let child = std::process::Command::new("sh")
            .args(["-c", limited])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "hub::store::tests::copies"])
            .env("PLACE", place.path())
            .output() // not into a file of ours: the limit would hold for that, too
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
