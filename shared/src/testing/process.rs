//! Starting a part's program and waiting for its end.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longer than any of the programs takes for what the tests ask of it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts `program` with stdout and stderr piped.
///
/// # Errors
/// If it cannot be started.
pub fn start(program: &Path, args: &[&str]) -> Result<Child> {
    Command::new(program)
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", program.display()))
}

/// Runs a command to its end: the exit status, stdout and stderr.
///
/// # Errors
/// If it cannot be started, if a signal ended it, or if it wrote something else than text.
pub fn run(command: &mut Command) -> Result<(i32, String, String)> {
    let output = command.output().context("starting the program")?;
    let code = output.status.code().context("a signal ended it")?;
    let (stdout, stderr) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    );
    Ok((code, stdout, stderr))
}

/// Waits, but not for ever: a hang at exit is a failure with a name. None if a signal ended it.
///
/// # Errors
/// If the process hangs.
pub fn exit_code(child: &mut Child) -> Result<Option<i32>> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    bail!("the process hangs at exit")
}
