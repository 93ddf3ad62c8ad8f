//! Bad input: one clear line that says what to try next, exit code 1 (2 for flags), or the right picture.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use assert_cmd::Command;
use unicode_width::UnicodeWidthStr;

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::cargo_bin("part1-walkthrough")
        .unwrap()
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Runs it and returns the one line of its error.
fn fails(args: &[&str]) -> String {
    let (code, stdout, stderr) = run(args);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(stdout, "");
    let errors: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    assert_eq!(stderr.lines().last(), Some(errors[0]), "{stderr}");
    errors[0].to_owned()
}

fn succeeds(args: &[&str]) -> String {
    let (code, stdout, stderr) = run(args);
    assert_eq!(code, Some(0), "{stderr}");
    for line in stdout.lines() {
        assert!(line.width() <= 80, "{line}");
    }
    stdout
}

#[test]
fn what_cannot_be_shown_is_refused_in_one_line() {
    let long = "word ".repeat(5000);
    let errors = [
        fails(&["--prompt", ""]),
        fails(&["--raw", "--prompt", ""]),
        fails(&["--raw", "--prompt", &long]),
        fails(&["--layer", "8"]),
        fails(&["--head", "4"]),
        fails(&["--what-if", "zero-head=8.0"]),
        fails(&["--what-if", "zero-head=0.4"]),
        fails(&["--compare", "A cat.", "The dog."]),
        fails(&["--compare", "", "The dog."]),
        fails(&["--compare", "A cat.", "A cat."]),
        fails(&["--compare", "A cat.", "The cat.", "--word", "dog"]),
        fails(&["--compare", "The cat.", &format!("The cat {long}")]),
        fails(&["--from", "decode", "--to", "embed"]),
        fails(&["--prompt-file", "/no/such/file"]),
        fails(&["--html", "/"]),
    ];
    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn wrong_flags_exit_with_2() {
    for args in [
        ["--what-if", "no-idea"],
        ["--what-if", "zero-head=1"],
        ["--step", "dance"],
        ["--pace", "-1"],
        ["--layer", "x"],
        ["--compare", "only one"],
        ["--word", "alone"],
    ] {
        let (code, _, stderr) = run(&args);
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
    }
}

#[test]
fn a_single_token_has_every_picture() {
    let text = succeeds(&["--raw", "--prompt", "The", "--max-tokens", "2"]);
    assert!(text.contains("[1, 1]") && text.contains("█100"), "{text}");
}

#[test]
fn what_cannot_be_printed_is_spelled_out() {
    let text = succeeds(&[
        "--raw",
        "--prompt",
        "a\u{1b}[31m\u{202e}b\u{7}",
        "--step",
        "tokenize",
    ]);
    assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text:?}");
    assert!(text.contains("\\x1B"), "{text}");
}

#[test]
fn right_to_left_text_keeps_its_table() {
    let text = succeeds(&[
        "--raw",
        "--prompt",
        "שלום עולם नमस्ते 🐧",
        "--max-tokens",
        "1",
    ]);
    let rows = text.lines().filter(|line| line.contains("\\xD7")).count();
    assert!(
        rows > 0,
        "this vocabulary has no Hebrew letters, so their bytes are shown: {text}"
    );
    assert!(text.contains("\\xF0"), "nor has it a penguin: {text}");
}

#[test]
fn a_closed_stdout_ends_quietly() {
    let binary = assert_cmd::cargo::cargo_bin("part1-walkthrough");
    let mut child = std::process::Command::new(binary)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take()); // the reader goes away before the first picture
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && !stderr.contains("error"),
        "{stderr}"
    );
}
