//! Files are opened here and nowhere else: only regular ones, and only up to a size that makes sense.
//! A pipe would be waited for, `/dev/zero` read without an end, and a file with holes can be a
//! terabyte long and take no room on the disk.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::numbers::decimal;

/// Opens a regular file for reading.
///
/// # Errors
/// If it is none, or cannot be opened.
pub fn open(path: &Path) -> Result<File> {
    let reading = || format!("cannot read {}", path.display());
    check_name(path)?;
    // Before it is opened, which would wait for the other end of a pipe.
    let kind = fs::metadata(path).with_context(reading)?.file_type();
    ensure!(
        !kind.is_dir(),
        "{} is a directory: give a file",
        path.display()
    );
    ensure!(
        kind.is_file(),
        "{} is a device or a pipe, not a regular file: copy what it gives into a file",
        path.display()
    );
    File::open(path).with_context(reading)
}

/// All bytes of a regular file of at most `limit`.
///
/// # Errors
/// As [`open`], and if it is longer.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let reading = || format!("cannot read {}", path.display());
    let file = open(path)?;
    let size = file.metadata().with_context(reading)?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(size.min(limit)).unwrap_or(0));
    if size <= limit {
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .with_context(reading)?;
    }
    ensure!(
        size <= limit && bytes.len() as u64 <= limit,
        "{} has {}, more than the {} that such a file may have: is it another one?",
        path.display(),
        decimal(size),
        decimal(limit)
    );
    Ok(bytes)
}

/// The text of a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|error| error.utf8_error())
        .with_context(|| format!("{} is not UTF-8 text", path.display()))
}

/// As [`read_text`]; `None` if there is no such file.
///
/// # Errors
/// As [`read_text`].
pub fn read_text_if_there(path: &Path, limit: u64) -> Result<Option<String>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        _ => read_text(path, limit).map(Some),
    }
}

/// `-` is a stream to many programs: here it would be a file that is hard to get rid of.
///
/// # Errors
/// If it is that.
pub(crate) fn check_name(path: &Path) -> Result<()> {
    ensure!(
        path != Path::new("-"),
        "`-` is no name of a file, and streams are not supported: give a file"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> String {
        format!("{:#}", read_text(path, 10).unwrap_err())
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        fs::write(&path, "0123456789").unwrap();
        assert_eq!(read_text(&path, 10).unwrap(), "0123456789");
        fs::write(&path, "0123456789A").unwrap();
        assert!(refused(&path).contains("has 11 B, more than the 10 B"));
        fs::write(&path, [0xFF]).unwrap();
        assert!(refused(&path).contains("file is not UTF-8 text"));
    }

    #[test]
    fn a_file_with_holes_answers_at_once() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(
            refused(&path).contains("has 1,099.51 GB, more than"),
            "{}",
            refused(&path)
        );
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let place = tempfile::tempdir().unwrap();
        let pipe = place.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(refused(&pipe).contains("pipe is a device or a pipe"));
        assert!(refused(Path::new("/dev/zero")).contains("/dev/zero is a device or a pipe"));
        assert!(refused(place.path()).contains("is a directory"));
        assert!(refused(Path::new("-")).starts_with("`-` is no name of a file"));
    }

    #[test]
    fn a_file_that_may_be_missing_is_none_and_not_an_error() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        assert_eq!(read_text_if_there(&path, 10).unwrap(), None);
        assert!(refused(&path).starts_with("cannot read "));
        fs::create_dir(&path).unwrap();
        assert!(read_text_if_there(&path, 10).is_err());
    }
}
