//! Files that are written whole or not at all.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The directory in which `path` will stand.
///
/// # Errors
/// If there is none: worth asking before long work whose result would be lost.
pub fn directory(path: &Path) -> Result<&Path> {
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
/// and a failure leaves the old one.
///
/// # Errors
/// If there is no such directory or it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = directory(path)?;
    let mut file = tempfile::Builder::new()
        .prefix(".part-")
        // As for any new file: the umask takes away what it should.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .context("making a file beside it")?;
    file.write_all(bytes)?;
    // Without it a crash of the machine could leave the new name with none of the bytes.
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
