//! Where the workspace is, and the folder `.mlx` that `setup` and `fetch` write to.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::files;

/// The checkout this program was built from.
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Cargo says where the package lies when it runs us; started by hand, the place we were built.
    ///
    /// # Errors
    /// If there is no workspace.
    pub fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.ancestors().nth(2).unwrap_or(&package);
        ensure!(
            root.join("Cargo.lock").is_file(),
            "no Cargo.lock in {}: run this inside the checkout, as `cargo setup`",
            root.display()
        );
        Ok(Self::at(root))
    }

    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below `.mlx`.
    pub(crate) fn mlx(&self, path: &str) -> PathBuf {
        self.root.join(".mlx").join(path)
    }

    /// One run at a time writes to `.mlx`. The system frees the lock however a run ends, and what
    /// an interrupted one left in `.mlx/tmp` is swept away by the next.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.mlx("lock");
        fs::create_dir_all(self.mlx(""))
            .and_then(|()| File::create(&path))
            .and_then(|file| wait_for(&file).map(|()| file))
            .with_context(|| format!("cannot lock {}: is the folder writable?", path.display()))
            .inspect(|_| files::sweep(&self.mlx("tmp")))
    }

    /// An empty folder on the same file system as `.mlx`, so that a rename publishes its content.
    pub(crate) fn scratch(&self, name: &str) -> Result<files::Scratch> {
        files::Scratch::new(&self.mlx("tmp"), name)
    }
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
