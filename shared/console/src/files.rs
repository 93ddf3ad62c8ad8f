//! Files that are written whole or not at all.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Whether what is at `path` is not a regular file: a device would be replaced, a pipe waited for.
pub fn is_special(path: &Path) -> bool {
    path.exists() && !path.is_file()
}

/// The directory in which `path` will stand.
///
/// # Errors
/// If there is none, or if `path` is not a regular file: worth asking before long work whose
/// result would be lost.
pub fn directory(path: &Path) -> Result<&Path> {
    ensure!(
        !path.is_dir(),
        "{} is a directory: give the name of a file in it",
        path.display()
    );
    ensure!(
        !is_special(path),
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

/// Puts `bytes` at `path` under a temporary name and renames it, so that nobody finds half a file there
/// and a failure leaves the old one. If `path` is a link, the file that it points to is replaced.
///
/// # Errors
/// If there is no such directory or it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directory = directory(&target)?;
    write(&target, directory, bytes).with_context(|| format!("writing {}", path.display()))
}

fn write(target: &Path, directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".part-")
        // As for any new file: the umask takes away what it should.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    // Without it a crash of the machine could leave the new name with none of the bytes.
    file.as_file().sync_all()?;
    file.persist(target).map_err(|error| error.error)?;
    Ok(())
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
