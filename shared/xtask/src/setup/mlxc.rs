//! `.mlx/mlxc`: mlx-c, the C layer between MLX and Rust, as a shared library with its bindings.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use cc::Tool;
use console::exec;
use console::files;
use console::progress::step;
use console::workspace::Workspace;
use indicatif::ProgressBar;

use super::mlx_sys::MlxSys;
use super::receipt::Facts;
use super::{bindings, compiler};
use crate::dot_mlx;

/// Compiles, links and describes mlx-c into `folder`, which will be `.mlx/mlxc`.
pub(crate) fn build(workspace: &Workspace, crate_: &MlxSys, folder: &Path) -> Result<Facts> {
    let scratch = dot_mlx::scratch(workspace, "objects")?;
    step("Bindings of mlx-c", |step| {
        bindings::make(&crate_.mlx_c, folder, scratch.path(), step)
    })?;
    let tool = compiler::cpp()?;
    let version = compiler::version(&tool)?;
    let count = crate_.sources.len();
    step(
        &format!("mlx-c {}: {count} files compiled", crate_.version),
        |step| {
            let bar = step.pieces(count as u64 + 1, "{spinner} mlx-c: {wide_bar} {pos}/{len}");
            let units = units(workspace, crate_, scratch.path())?;
            compile_all(&units, &bar)?;
            link(workspace, &tool, &units, &folder.join("libmlxc.so"))
        },
    )?;
    Ok(Facts::from([("compiler".into(), version)]))
}

/// One file to compile.
struct Unit {
    command: Command,
    source: PathBuf,
    object: PathBuf,
}

fn units(workspace: &Workspace, crate_: &MlxSys, scratch: &Path) -> Result<Vec<Unit>> {
    let (prelude, platform) = (scratch.join("prelude.hpp"), scratch.join("platform.c"));
    files::replace(&prelude, include_bytes!("native/prelude.hpp"))?;
    files::replace(&platform, include_bytes!("native/platform.c"))?;
    let (cpp, c) = (compiler::cpp()?, compiler::c()?);
    let unit = |tool: &Tool, source: &Path| {
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        let object = scratch.join(format!("{name}.o"));
        let mut command = tool.to_command();
        command
            .env("TMPDIR", scratch)
            .arg("-c")
            .arg(source)
            .arg("-o")
            .arg(&object);
        Unit {
            command,
            source: source.to_owned(),
            object,
        }
    };
    let mut units = vec![unit(&c, &platform)];
    for source in &crate_.sources {
        let mut one = unit(&cpp, source);
        one.command
            .arg("-include")
            .arg(&prelude)
            .arg("-I")
            .arg(&crate_.mlx_c);
        one.command
            .arg("-isystem")
            .arg(workspace.mlx("mlx/mlx/include"));
        units.push(one);
    }
    // Big files first, so that no core waits for the last one.
    units.sort_by_key(|unit| std::cmp::Reverse(unit.source.metadata().map_or(0, |it| it.len())));
    Ok(units)
}

/// As many compilers at a time as there are processors, until one fails.
fn compile_all(units: &[Unit], bar: &ProgressBar) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = compile(unit) {
                next.store(units.len(), Ordering::Relaxed);
                return Err(error);
            }
            bar.inc(1);
        }
        Ok(())
    };
    let jobs = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| bail!("a thread that ran the compiler ended"))
        })
    })
}

fn compile(unit: &Unit) -> Result<()> {
    let mut command = Command::new(unit.command.get_program());
    command.args(unit.command.get_args());
    for (key, value) in unit.command.get_envs() {
        value.map(|value| command.env(key, value));
    }
    exec::stdout(&mut command)
        .map(drop)
        .with_context(|| format!("cannot compile {}", unit.source.display()))
}

/// The library bears its whole path as its name, so that a program linked to it finds it from
/// wherever it is started, without an rpath of its own: that would need compiler flags for the
/// whole workspace, which a user's own RUSTFLAGS would replace. It looks for MLX in the folder of
/// the CUDA build first, which is there only while that is switched on.
fn link(workspace: &Workspace, tool: &Tool, units: &[Unit], output: &Path) -> Result<()> {
    let text = |path: PathBuf| {
        let text = path
            .to_str()
            .filter(|text| !text.contains([':', '$']))
            .map(str::to_owned);
        text.with_context(|| format!("{}: such a path does not suit a linker", path.display()))
    };
    let name = text(workspace.mlx("mlxc/libmlxc.so"))?;
    let cuda = text(workspace.mlx("cuda/mlx/lib"))?;
    let cpu = text(workspace.mlx("mlx/mlx/lib"))?;
    let mlx = workspace.mlx("mlx/mlx/lib/libmlx.so");
    let inputs = units.iter().map(|unit| &*unit.object).chain([&*mlx]);
    compiler::link(
        tool,
        output,
        inputs,
        &["-soname", &name, "-rpath", &cuda, "-rpath", &cpu],
    )
}
