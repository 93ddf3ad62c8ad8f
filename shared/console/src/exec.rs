//! Other programs: their output is kept, and a failure becomes one line.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs to the end without a terminal; a program that fails is not an error yet.
///
/// # Errors
/// If it cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{name}`"))
}

/// What the program printed on stdout; its own words, in one line, when it fails.
///
/// # Errors
/// If it cannot be started, or fails.
pub fn stdout(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("{}", complaint(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The one line of a failed program's output that says most: the first with "error" in it, as
/// compilers and Cargo put the cause first; else the last one.
pub fn complaint(output: &Output) -> String {
    let text = [&output.stderr[..], b"\n", &output.stdout[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let told = lines().find(|line| line.to_lowercase().contains("error"));
    match told.or_else(|| lines().next_back()) {
        Some(line) => line.chars().take(240).collect(),
        None => format!("it ended with {}", output.status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<String> {
        stdout(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn a_failure_is_told_in_one_line() {
        let error = shell(
            "echo reading; echo 'x.c:1: error: no such type' >&2; echo 'error: 2' >&2; exit 1",
        );
        assert_eq!(error.unwrap_err().to_string(), "x.c:1: error: no such type");
        assert_eq!(
            shell("echo one; echo two; exit 3").unwrap_err().to_string(),
            "two"
        );
        assert_eq!(
            shell("exit 3").unwrap_err().to_string(),
            "it ended with exit status: 3"
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = stdout(&mut Command::new("no-such-program")).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot start `no-such-program`: "));
    }
}
