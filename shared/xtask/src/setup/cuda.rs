//! MLX's CUDA build. It has the same interface as the CPU build, so programs need not be linked
//! anew: `.mlx/cuda` is where the loader looks first, and another name switches it off.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use console::exec;
use console::numbers::decimal;
use console::progress::step;
use console::report::warn;
use console::workspace::Workspace;

use super::blas;
use super::receipt::Facts;
use crate::{files, pip};

const ON: &str = "cuda";
const OFF: &str = "cuda-off";

/// Lets programs find the CUDA build, or hides it from them, if it was installed.
pub(crate) fn switch(workspace: &Workspace, on: bool) -> Result<()> {
    let (from, to) = if on { (OFF, ON) } else { (ON, OFF) };
    let (from, to) = (workspace.mlx(from), workspace.mlx(to));
    if !from.exists() || (on && to.exists()) {
        return Ok(());
    }
    files::sweep(&to);
    fs::rename(&from, &to).with_context(|| format!("cannot rename {}", from.display()))?;
    if !on {
        warn("MLX's CUDA build stays in .mlx/cuda-off; delete that to free its space");
    }
    Ok(())
}

pub(crate) fn is_on(workspace: &Workspace) -> bool {
    workspace.mlx(ON).exists()
}

/// Installs the wheel and NVIDIA's libraries into `folder`, which will be `.mlx/cuda`.
pub(crate) fn build(workspace: &Workspace, mlx: &str, folder: &Path) -> Result<Facts> {
    let major = driver_major(&exec::stdout(&mut Command::new("nvidia-smi")).unwrap_or_default());
    let package = format!("mlx-cuda-{major}=={mlx}");
    step(
        &format!("{package} from PyPI, with NVIDIA's libraries"),
        |step| {
            pip::install(&package, folder, step)?;
            let bytes = decimal(files::tree_bytes(folder));
            step.says(format!(
                "{package} from PyPI, with NVIDIA's libraries: {bytes}"
            ));
            Ok(())
        },
    )?;
    let libs = folder.join(format!("mlx_cuda_{major}.libs"));
    if libs.is_dir() {
        blas::copy(&workspace.mlx("mlx/mlx_cpu.libs"), &libs)?;
    }
    Ok(Facts::from([("cuda".into(), major.to_string())]))
}

/// The newest CUDA that the driver can run decides between MLX's two builds.
fn driver_major(nvidia_smi: &str) -> u32 {
    let version = nvidia_smi
        .split("CUDA Version:")
        .nth(1)
        .and_then(|rest| rest.trim().split('.').next());
    match version.and_then(|major| major.parse().ok()) {
        Some(0..13) => 12,
        _ => 13,
    }
}

/// NVIDIA's driver brings libcuda; no package of Python does.
pub(crate) fn warn_without_driver() {
    let script = "import ctypes; ctypes.CDLL('libcuda.so.1')";
    if exec::stdout(Command::new("python3").args(["-c", script])).is_err() {
        warn("libcuda.so.1 is not here: there is no NVIDIA driver on this machine");
        warn("no program will start until `cargo setup` switches back to the CPU");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_driver_gets_the_older_build() {
        let table = |version| {
            format!("| NVIDIA-SMI 550.54  Driver Version: 550.54  CUDA Version: {version} |")
        };
        assert_eq!(driver_major(&table("12.4")), 12);
        assert_eq!(driver_major(&table("13.0")), 13);
        assert_eq!(
            driver_major(&table("14.1")),
            13,
            "a newer driver runs what is there"
        );
        assert_eq!(driver_major("no devices were found"), 13);
    }
}
