//! `.mlx` while it is written to: one run at a time, and nothing half done is ever seen.

use std::fs::{self, File, TryLockError};

use anyhow::{Context, Result};
use console::workspace::Workspace;

use crate::files;

/// One run at a time writes to `.mlx`. The system frees the lock however a run ends, and what
/// an interrupted one left in `.mlx/tmp` is swept away by the next.
pub(crate) fn lock(workspace: &Workspace) -> Result<File> {
    let path = workspace.mlx("lock");
    fs::create_dir_all(workspace.mlx(""))
        .and_then(|()| File::create(&path))
        .and_then(|file| wait_for(&file).map(|()| file))
        .with_context(|| format!("cannot lock {}: is the folder writable?", path.display()))
        .inspect(|_| files::sweep(&workspace.mlx("tmp")))
}

/// An empty folder on the same file system as `.mlx`, so that a rename publishes its content.
pub(crate) fn scratch(workspace: &Workspace, name: &str) -> Result<files::Scratch> {
    files::Scratch::new(&workspace.mlx("tmp"), name)
}

fn wait_for(file: &File) -> std::io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            anstream::eprintln!("another run is at work in .mlx: waiting for it to end");
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}
