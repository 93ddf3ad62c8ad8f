//! Bad input: one clear line that says what to try next, exit code 1, never a panic.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::path::Path;

use assert_cmd::Command;
use shared::testing::checkpoints::{Defect, broken};
use tempfile::TempDir;

/// The one line of the error.
fn refusal(home: &Path, args: &[&str]) -> String {
    let mut command = Command::cargo_bin("part3-kv-cache").unwrap();
    command.env("HF_HOME", home).env("HF_HUB_OFFLINE", "1");
    let output = command
        .args(["--max-tokens", "2", "--rounds", "1"])
        .args(args)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?}");
    let mut lines = stderr.lines().filter(|line| line.starts_with("error: "));
    let line = lines.next().unwrap_or_else(|| panic!("{args:?}: {stderr}"));
    assert_eq!(lines.next(), None, "{stderr}");
    line.to_owned()
}

#[test]
fn every_defect_of_a_checkpoint_is_refused_in_one_line() {
    for defect in Defect::ALL {
        let place = TempDir::new().unwrap();
        let model = broken(defect, place.path()).unwrap();
        let line = refusal(place.path(), &["--model", model.to_str().unwrap()]);
        // Each of them names the file, the tensor or the key: more than a class of errors.
        assert!(line.len() > 40, "{defect:?}: {line}");
    }
}

#[test]
fn prompts_that_cannot_be_answered_are_refused() {
    let place = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = place.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let with = |path: &str| refusal(place.path(), &["--prompt-file", path]);
    assert!(with(&file("long", "star ".repeat(2000).as_bytes())).contains("has room for 1,024"));
    assert!(with(&file("empty", b"\n")).contains("prompt"));
    assert!(with(&file("binary", &[0xff, 0xfe, 0])).contains("reading the prompt from"));
    assert!(with("no/such/file").contains("reading the prompt from no/such/file"));
}

#[test]
fn a_prompt_of_one_token_leaves_nothing_to_save() {
    let place = TempDir::new().unwrap();
    let mut command = Command::cargo_bin("part3-kv-cache").unwrap();
    let file = place.path().join("cache");
    command.arg("save").arg(&file);
    command.args(["--raw", "--prompt", "a"]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("one token"), "{stderr}");
    assert!(!file.exists());
}
