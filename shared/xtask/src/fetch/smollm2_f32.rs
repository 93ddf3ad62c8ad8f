//! SmolLM2 with its packed weights unpacked to float32, by the script that makes the fixtures' copies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use console::exec;
use console::progress::step;
use console::workspace::Workspace;

use crate::dot_mlx;
use crate::fixtures;

/// The folder of the float32 model, after it was made from `packed` if need be.
///
/// # Errors
/// If Python's packages cannot be installed, if the conversion fails, or if `.mlx` cannot be written.
pub(super) fn unpacked(workspace: &Workspace, packed: &Path) -> Result<PathBuf> {
    let folder = workspace.mlx("models").join("smollm2-f32");
    let _lock = dot_mlx::lock(workspace)?;
    // Renamed when whole, so there at all is enough.
    if folder.is_dir() {
        return Ok(folder);
    }
    let python = fixtures::python(workspace.root())?;
    let scratch = dot_mlx::scratch(workspace, "fetch")?;
    let made = scratch.path().join("smollm2-f32");
    let mut script = Command::new(python);
    script
        .arg(workspace.root().join("shared/xtask/python/gguf_to_hf.py"))
        .args([packed, &made])
        .args(["--dtype", "f32"])
        .env("PYTHONDONTWRITEBYTECODE", "1");
    step("SmolLM2 as float32 (538 MB)", |_| exec::stdout(&mut script))
        .context("unpacking SmolLM2 to float32")?;
    fs::rename(&made, &folder).with_context(|| format!("cannot write {}", folder.display()))?;
    Ok(folder)
}
