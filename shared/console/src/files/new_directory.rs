//! Directories that appear whole or not at all.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{is_leftover, prefix, read::check_name};

/// A directory that is filled under a temporary name beside its place, and then renamed.
///
/// Dropped before that, by an error or by Ctrl-C, it is removed. What earlier ones that were killed left
/// beside the place is removed, too.
#[derive(Debug)]
pub struct NewDirectory {
    target: PathBuf,
    temporary: TempDir,
    /// Held as long as this lives: says to others that it is no leftover.
    _lock: File,
}

impl NewDirectory {
    /// Whether `target` can be made: worth asking before long work.
    ///
    /// # Errors
    /// If something is there already, or if there is no directory to make it in.
    pub fn check(target: &Path) -> Result<()> {
        check_name(target)?;
        ensure!(
            fs::symlink_metadata(target).is_err(),
            "{} is there already: give another name, or remove it",
            target.display()
        );
        ensure!(
            target.file_name().is_some(),
            "{} is no name of a directory",
            target.display()
        );
        let parent = parent(target);
        ensure!(
            parent.is_dir(),
            "there is no directory {}: make it first",
            parent.display()
        );
        Ok(())
    }

    /// An empty directory for `target`, which must not be there.
    ///
    /// # Errors
    /// As [`check`](Self::check), or if it cannot be made.
    pub fn beside(target: &Path) -> Result<Self> {
        Self::check(target)?;
        let making = || format!("making {}", target.display());
        let (parent, prefix) = (parent(target), prefix(target));
        sweep(parent, &prefix);
        let (temporary, lock) = temporary(parent, &prefix).with_context(making)?;
        Ok(Self {
            target: target.to_owned(),
            temporary,
            _lock: lock,
        })
    }

    /// Where its files go until it is finished.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Gives it its name, once all bytes of its files are on the disk.
    ///
    /// # Errors
    /// If the disk is full, or if something has taken the place meanwhile.
    pub fn finish(self) -> Result<()> {
        let finishing = || format!("writing {}", self.target.display());
        for entry in fs::read_dir(self.path()).with_context(finishing)? {
            let path = entry.with_context(finishing)?.path();
            let file = File::open(&path).with_context(finishing)?;
            file.sync_all().with_context(finishing)?;
        }
        Self::check(&self.target)?;
        fs::rename(self.path(), &self.target).with_context(finishing)?;
        // Nothing is left under the temporary name.
        let _ = self.temporary.keep();
        // Without it a crash of the machine could bring the temporary name back.
        let parent = File::open(parent(&self.target)).and_then(|parent| parent.sync_all());
        parent.with_context(|| format!("writing {}", self.target.display()))
    }
}

fn parent(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A temporary directory that is locked as long as its writer lives.
fn temporary(parent: &Path, prefix: &str) -> io::Result<(TempDir, File)> {
    loop {
        let directory = tempfile::Builder::new()
            .prefix(prefix)
            // As for any new directory: the umask takes away what it should.
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)?;
        let lock = File::open(directory.path())?;
        let swept = matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
        // Between the two lines above somebody else may have taken it for a leftover.
        if !swept && directory.path().exists() {
            return Ok((directory, lock));
        }
    }
}

/// Removes temporary directories whose writer was killed: nobody holds their lock.
fn sweep(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_directory || !is_leftover(&entry.file_name(), prefix) {
            continue;
        }
        let Ok(leftover) = File::open(entry.path()) else {
            continue;
        };
        if leftover.try_lock().is_ok() {
            // It is no failure of the work if it stays.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(place: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(place.path()).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries.map(|e| name(e).into_string().unwrap()).collect()
    }

    #[test]
    fn it_appears_whole_and_nothing_else_is_left() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("model");
        let new = NewDirectory::beside(&target).unwrap();
        fs::write(new.path().join("file"), "text").unwrap();
        assert!(!target.exists());
        new.finish().unwrap();
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "text");
        assert_eq!(names(&place), ["model"]);
        let mode = fs::metadata(&target).unwrap().permissions().mode();
        fs::create_dir(place.path().join("other")).unwrap();
        let other = fs::metadata(place.path().join("other")).unwrap();
        assert_eq!(mode, other.permissions().mode());
    }

    #[test]
    fn one_that_is_given_up_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let new = NewDirectory::beside(&place.path().join("model")).unwrap();
        fs::write(new.path().join("file"), "text").unwrap();
        assert_eq!(names(&place).len(), 1);
        drop(new);
        assert!(names(&place).is_empty());
    }

    #[test]
    fn a_place_that_is_taken_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("model");
        let new = NewDirectory::beside(&target).unwrap();
        fs::create_dir(&target).unwrap();
        let ends = "model is there already: give another name, or remove it";
        for error in [
            new.finish().unwrap_err(),
            NewDirectory::beside(&target).unwrap_err(),
        ] {
            assert!(error.to_string().ends_with(ends), "{error}");
        }
        assert_eq!(names(&place), ["model"]);
        for wrong in ["-", "no/such/place", ".."] {
            assert!(NewDirectory::beside(Path::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("model");
        let alive = NewDirectory::beside(&target).unwrap();
        for name in [".model.part-a1B2c3", ".other.part-a1B2c3"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        let new = NewDirectory::beside(&target).unwrap();
        let left = names(&place);
        assert!(!left.contains(&".model.part-a1B2c3".to_owned()), "{left:?}");
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(alive.path().exists() && new.path().exists());
    }
}
