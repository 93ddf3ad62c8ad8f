//! Files that are read within limits, and written whole or not at all.

mod new_directory;
mod read;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

pub use new_directory::NewDirectory;
use read::check_name;
pub use read::{open, read, read_text, read_text_if_there};

/// Letters that `tempfile` puts behind a prefix.
const RANDOM: usize = 6;

/// The directory in which `path` will stand.
///
/// # Errors
/// If there is none, or if `path` is not a regular file: worth asking before long work whose
/// result would be lost.
pub fn directory(path: &Path) -> Result<&Path> {
    check_name(path)?;
    if path.is_symlink() && !path.exists() {
        directory(&target(path)?)?;
    }
    ensure!(
        !path.is_dir(),
        "{} is a directory: give the name of a file in it",
        path.display()
    );
    ensure!(
        !path.exists() || path.is_file(),
        "{} is a device or a pipe, not a regular file: give another name",
        path.display()
    );
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    ensure!(
        directory.is_dir(),
        "there is no directory {}: make it first",
        directory.display()
    );
    Ok(directory)
}

/// A file to be gone on with, which from now on nobody but its owner can read, and no other process writes.
///
/// # Errors
/// If it cannot be written, or if another process has opened it in this way.
pub fn open_private(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let opening = || format!("opening {} to write to it", path.display());
    let file = options.open(path).with_context(opening)?;
    if file.metadata().with_context(opening)?.is_file() {
        let private = Permissions::from_mode(0o600);
        file.set_permissions(private).with_context(opening)?;
        ensure!(
            !matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
            "{} is being written by another process: give another name",
            path.display()
        );
    }
    Ok(file)
}

/// Puts `bytes` at `path` under a temporary name and renames it, so that nobody finds half a file there
/// and a failure leaves the old one. If `path` is a link, the file that it points to is replaced or made.
///
/// What earlier ones that were killed left beside it is removed.
///
/// # Errors
/// If there is no such directory or it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    // As for any new file: the umask takes away what it should.
    replace_with(path, bytes, 0o666)
}

/// As [`replace`]; nobody but its owner can read it.
///
/// # Errors
/// As there.
pub fn replace_private(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_with(path, bytes, 0o600)
}

fn replace_with(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    let target = target(path).with_context(writing)?;
    let directory = directory(&target)?;
    write(&target, directory, bytes, mode).with_context(writing)
}

/// Where links lead to, whether something is there or not.
fn target(path: &Path) -> Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..40 {
        let Ok(next) = fs::read_link(&target) else {
            return Ok(target);
        };
        let directory = target.parent().unwrap_or(Path::new(""));
        target = directory.join(next);
    }
    anyhow::bail!("it is a link that leads back to itself")
}

fn write(target: &Path, directory: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let prefix = prefix(target);
    sweep(directory, &prefix);
    let mut file = temporary(directory, &prefix, mode)?;
    file.write_all(bytes)?;
    // Without it a crash of the machine could leave the new name with none of the bytes.
    file.as_file().sync_all()?;
    file.persist(target).map_err(|error| error.error)?;
    Ok(())
}

/// Of temporary names for this file and no other, short enough for every file system.
fn prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().take(50).collect();
    format!(".{name}.part-")
}

/// A temporary file that is locked as long as its writer lives.
fn temporary(directory: &Path, prefix: &str, mode: u32) -> io::Result<NamedTempFile> {
    loop {
        let file = tempfile::Builder::new()
            .prefix(prefix)
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(directory)?;
        let swept = matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
        // Between the two lines above somebody else may have taken it for a leftover.
        if !swept && file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes temporary files whose writer was killed: nobody holds their lock.
fn sweep(directory: &Path, prefix: &str) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_leftover(&entry.file_name(), prefix) {
            continue;
        }
        let Ok(leftover) = open(&entry.path()) else {
            continue;
        };
        // Kept locked until it is gone: a writer that has just made it then sees that.
        if leftover.try_lock().is_ok() {
            // It is no failure of the save if it stays.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a name is the prefix with what `tempfile` puts behind it.
fn is_leftover(name: &OsStr, prefix: &str) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix(prefix));
    random.is_some_and(|random| {
        random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// As [`replace`], but leaves a file alone that says the same already.
///
/// # Errors
/// As [`replace`].
pub fn replace_if_changed(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    replace(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_is_so_even_if_the_file_was_there_and_has_one_writer() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (said, kept) = (folder.path().join("said"), folder.path().join("kept"));
        fs::write(&said, "open").unwrap();
        fs::set_permissions(&said, Permissions::from_mode(0o644)).unwrap();
        replace_private(&said, b"closed").unwrap();
        assert_eq!(mode(&said), 0o600);
        fs::write(&kept, "open").unwrap();
        fs::set_permissions(&kept, Permissions::from_mode(0o644)).unwrap();
        let first = open_private(&kept).unwrap();
        assert_eq!(mode(&kept), 0o600);
        let second = open_private(&kept).unwrap_err().to_string();
        assert!(second.contains("another process"), "{second}");
        drop(first);
        open_private(&kept).unwrap();
        open_private(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_cannot_be_had_leaves_no_temporary_file() {
        let place = tempfile::tempdir().unwrap();
        let taken = place.path().join("directory");
        std::fs::create_dir(&taken).unwrap();
        let error = replace(&taken, b"new").unwrap_err().to_string();
        assert!(error.ends_with("is a directory: give the name of a file in it"));
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link_and_its_file_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let (file, link) = (place.path().join("file"), place.path().join("link"));
        replace(&file, b"old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
    }

    #[test]
    fn a_link_to_nothing_stays_a_link_and_its_file_is_made() {
        let place = tempfile::tempdir().unwrap();
        let [file, link, first] = ["file", "link", "first"].map(|name| place.path().join(name));
        std::os::unix::fs::symlink("file", &link).unwrap();
        std::os::unix::fs::symlink("link", &first).unwrap();
        replace(&first, b"new").unwrap();
        assert!(link.is_symlink() && first.is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");

        let round = place.path().join("round");
        std::os::unix::fs::symlink("round", &round).unwrap();
        let error = format!("{:#}", replace(&round, b"new").unwrap_err());
        assert!(error.ends_with("leads back to itself"), "{error}");
        assert!(directory(&round).is_err());
        let astray = place.path().join("astray");
        std::os::unix::fs::symlink("no/such", &astray).unwrap();
        assert!(directory(&astray).is_err() && replace(&astray, b"new").is_err());
        assert!(astray.is_symlink());
    }

    #[test]
    fn what_a_killed_save_left_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = place.path().join(name);
            fs::write(&path, b"left").unwrap();
            path
        };
        let dead = file(".cache.part-a1B2c3");
        let [other, own] = [file(".other.part-a1B2c3"), file(".cache.part-notes")];
        let alive = file(".cache.part-d4E5f6");
        let writer = fs::File::open(&alive).unwrap();
        writer.lock().unwrap();
        replace(&place.path().join("cache"), b"new").unwrap();
        assert!(!dead.exists());
        assert!(other.exists() && own.exists() && alive.exists());
    }

    #[test]
    fn a_dash_is_no_file() {
        let error = replace(Path::new("-"), b"").unwrap_err().to_string();
        assert!(error.starts_with("`-` is no name of a file"), "{error}");
        assert!(directory(Path::new("-")).is_err());
    }

    #[test]
    fn a_device_is_never_replaced() {
        let error = replace(Path::new("/dev/null"), b"").unwrap_err();
        let message = "/dev/null is a device or a pipe, not a regular file: give another name";
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = replace(Path::new("no/such/file"), b"").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no directory no/such: make it first"
        );
        assert_eq!(directory(Path::new("file")).unwrap(), Path::new("."));
    }

    #[test]
    fn an_unchanged_file_keeps_its_time() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("cargo.toml");
        replace_if_changed(&path, "a = 1\n").unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        replace_if_changed(&path, "a = 1\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), long_ago);
        replace_if_changed(&path, "a = 2\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a = 2\n");
    }
}
