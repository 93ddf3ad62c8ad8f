//! `cargo xtask fixtures`: what mlx-lm, the reference, makes of small checkpoints, as files that
//! the Rust tests compare with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use console::workspace::Workspace;

/// Groups that run a real model. They take a fast BLAS where there is one; the small ones do with
/// the slow one of the wheel, which rounds the same way on every machine.
const REAL: [&str; 5] = [
    "tiny",
    "quality",
    "conversions",
    "smollm2",
    "rotating-smollm2",
];

/// All groups, in the order in which they are written.
const GROUPS: [&str; 12] = [
    "synthetic",
    "gpt2",
    "gguf",
    "ops",
    "affine",
    "rotating",
    "tokenizer",
    "tiny",
    "quality",
    "conversions",
    "smollm2",
    "rotating-smollm2",
];

/// Write assets/fixtures with mlx-lm as the reference (needs python3 with venv and pip)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these groups; smollm2 takes more than half an hour
    #[arg(value_parser = GROUPS)]
    groups: Vec<String>,
}

/// Makes the reference's Python environment if need be, then the fixtures.
///
/// # Errors
/// When Python is missing, a package cannot be installed, or the reference contradicts itself.
pub fn run(args: Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let root = workspace.root();
    let python = python(root)?;
    let chosen = |real: bool| {
        let all = GROUPS.map(str::to_owned);
        let wanted = if args.groups.is_empty() {
            all.to_vec()
        } else {
            args.groups.clone()
        };
        wanted
            .into_iter()
            .filter(move |g| REAL.contains(&g.as_str()) == real)
            .collect::<Vec<_>>()
    };
    write(root, &python, &chosen(false), None)?;
    let blas = workspace.blas();
    write(root, &python, &chosen(true), blas.as_deref())
}

fn write(root: &Path, python: &Path, groups: &[String], blas: Option<&Path>) -> Result<()> {
    if groups.is_empty() {
        return Ok(());
    }
    let mut script = Command::new(python);
    script
        .arg(root.join("shared/xtask/python/fixtures.py"))
        .arg(root)
        .args(groups);
    // Sums in one order: with more threads the last digits could change from run to run.
    script
        .env("OMP_NUM_THREADS", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if let Some(blas) = blas {
        script.env("LD_PRELOAD", blas);
    }
    finish(&mut script, "writing the fixtures")
}

/// The interpreter of `.mlx/oracle`, which has mlx-lm.
pub(crate) fn python(root: &Path) -> Result<PathBuf> {
    environment(root, "oracle", "requirements.txt", "the reference, mlx-lm,")
}

/// The interpreter of `.mlx/<name>`, which holds the packages of a list among the scripts. The list is
/// copied there when all of them are in: so an interrupted or outdated installation is redone.
pub(crate) fn environment(root: &Path, name: &str, list: &str, what: &str) -> Result<PathBuf> {
    let folder = root.join(".mlx").join(name);
    let python = folder.join("bin/python");
    let list = root.join("shared/xtask/python").join(list);
    let receipt = folder.join("requirements.txt");
    let wanted = fs::read(&list).with_context(|| format!("reading {}", list.display()))?;
    if fs::read(&receipt).is_ok_and(|there| there == wanted) && python.is_file() {
        return Ok(python);
    }
    anstream::eprintln!("installing {what} in {}", folder.display());
    let mut venv = Command::new("python3");
    finish(
        venv.args(["-m", "venv", "--clear"]).arg(&folder),
        "making its Python environment",
    )?;
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
    ])
    .arg(&list);
    finish(&mut pip, "installing its packages")?;
    fs::write(&receipt, wanted).with_context(|| format!("writing {}", receipt.display()))?;
    Ok(python)
}

fn finish(command: &mut Command, doing: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| {
        format!("{doing}: cannot start {program}; install Python 3.10 or newer with venv and pip")
    })?;
    if !status.success() {
        bail!("{doing}: {program} ended with {status}; its own message is above");
    }
    Ok(())
}
