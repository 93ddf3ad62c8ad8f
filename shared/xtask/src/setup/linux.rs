//! `cargo setup` on Linux: MLX as a wheel, a fast BLAS in it, mlx-c compiled against it.
//!
//! Each folder of `.mlx` appears whole or not at all, and is kept if it is still good: a run that
//! was cut off is simply run again.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use console::exec;
use console::progress::{ready, step};
use console::report::warn;
use console::workspace::Workspace;

use super::mlx_sys::MlxSys;
use super::receipt::{self, Facts};
use super::system::{self, Need};
use super::wanted::{Ready, Wanted};
use super::{Args, blas, cargo_config, compiler, cuda, mlxc};
use crate::dot_mlx;
use crate::{files, pip};

/// Checks what is there and makes what is not.
pub(crate) fn run(args: &Args) -> Result<()> {
    system::check()?;
    let workspace = Workspace::find()?;
    let wanted = Wanted::new(&workspace, args)?;
    if let Ok(ready) = wanted.check(&workspace) {
        return finish(&workspace, &ready, &wanted);
    }
    let _lock = dot_mlx::lock(&workspace)?;
    match wanted.check(&workspace) {
        Ok(ready) => return finish(&workspace, &ready, &wanted),
        Err(Some(reason)) => warn(&reason),
        Err(None) => {}
    }
    let ready = install(&workspace, args, &wanted)?;
    finish(&workspace, &ready, &wanted)
}

fn finish(workspace: &Workspace, is: &Ready, wanted: &Wanted) -> Result<()> {
    cargo_config::write(workspace)?;
    ready(&is.summary());
    if wanted.cuda {
        cuda::warn_without_driver();
    }
    Ok(())
}

fn install(workspace: &Workspace, args: &Args, wanted: &Wanted) -> Result<Ready> {
    pip::check(&system::install_hint(Need::Pip))?;
    compiler::cpp()?;
    let crate_ = step("Sources of mlx-sys", |step| {
        let found = MlxSys::find(workspace)?;
        step.says(format!(
            "mlx-sys {} asks for MLX {}",
            found.version, found.mlx
        ));
        Ok(found)
    })?;
    let version = &crate_.mlx;
    cuda::switch(workspace, args.cuda)?;
    let mlx = receipt::make(workspace, "mlx", &wanted.mlx_key(version), |folder| {
        wheel(workspace, version, args.blas, folder)
    })?;
    let mlxc = receipt::make(workspace, "mlxc", &wanted.mlxc_key(version), |folder| {
        mlxc::build(workspace, &crate_, folder)
    })?;
    let mut facts: Facts = mlx.facts.into_iter().chain(mlxc.facts).collect();
    if args.cuda {
        let cuda = receipt::make(workspace, "cuda", &wanted.cuda_key(version), |folder| {
            cuda::build(workspace, version, folder)
        })?;
        facts.extend(cuda.facts);
    } else {
        // Without its folder it counts as unfinished, and the next run tries again.
        loads(&workspace.mlx("mlxc/libmlxc.so"))
            .inspect_err(|_| files::sweep(&workspace.mlx("mlxc")))?;
    }
    Ok(Ready {
        mlx: crate_.mlx,
        cuda: args.cuda,
        facts,
    })
}

/// MLX's wheel with its BLAS replaced, in `folder`, which will be `.mlx/mlx`.
fn wheel(
    workspace: &Workspace,
    version: &str,
    choice: blas::Choice,
    folder: &Path,
) -> Result<Facts> {
    let downloads = dot_mlx::scratch(workspace, "downloads")?;
    step(&format!("MLX {version} from PyPI"), |step| {
        let requirement = format!("mlx-cpu=={version}");
        let wheel = pip::unpack_wheel(&requirement, None, downloads.path(), step)?;
        files::replace_folder(&wheel, folder, downloads.path())
    })?;
    step("A fast BLAS", |step| {
        let facts = blas::install(choice, &folder.join("mlx_cpu.libs"), downloads.path(), step)?;
        step.says(format!("{} ({})", facts["blas"], facts["blas_from"]));
        Ok(facts)
    })
}

/// A library that lacks a symbol shows here, not in the first program.
fn loads(library: &Path) -> Result<()> {
    let script = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1], os.RTLD_NOW)";
    exec::stdout(Command::new("python3").args(["-c", script]).arg(library))
        .map(drop)
        .with_context(|| format!("cannot load {}", library.display()))
}
