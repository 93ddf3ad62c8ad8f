//! The checkout that a tool works on, and its folder `.mlx`, which `setup` and `fetch` write to.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// The checkout this program was built from.
#[derive(Debug)]
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

    /// The checkout in this folder.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below `.mlx`.
    pub fn mlx(&self, path: &str) -> PathBuf {
        self.root.join(".mlx").join(path)
    }

    /// The BLAS that `cargo setup` put beside MLX. There is none on macOS, where Accelerate is used.
    pub fn blas(&self) -> Option<PathBuf> {
        let libraries = fs::read_dir(self.mlx("mlx/mlx_cpu.libs")).ok()?;
        libraries.flatten().map(|entry| entry.path()).find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libblas-") && name.contains(".so.")
        })
    }
}

/// The Cargo that runs us, else the one of the search path.
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
