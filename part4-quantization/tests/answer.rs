//! One answer at one width, and by how much the model prefers a token where two answers part.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};

fn part4(args: &[&str]) -> std::process::Output {
    let mut command = Command::cargo_bin("part4-quantization").unwrap();
    command
        .args(args)
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap()
}

/// The report, all of whose lines fit, and its JSON line.
fn report(args: &[&str]) -> (String, Value) {
    let output = part4(&[args, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let (text, json) = stdout.trim_end().rsplit_once('\n').unwrap_or(("", &stdout));
    (text.to_owned(), serde_json::from_str(json).unwrap())
}

fn margin(file: &Path, ours: &[u32], theirs: &[u32]) -> Value {
    fs::write(file, json!({"ours": ours, "theirs": theirs}).to_string()).unwrap();
    report(&["margin", file.to_str().unwrap(), "--prompt", "Hello"]).1
}

/// The one error line.
fn refusal(args: &[&str]) -> String {
    let output = part4(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let mut lines = stderr.lines().filter(|line| line.starts_with("error: "));
    let line = lines.next().unwrap_or_else(|| panic!("{stderr}"));
    assert_eq!(lines.next(), None, "{stderr}");
    line.to_owned()
}

#[test]
fn fewer_bits_are_fewer_bytes_and_no_bits_are_the_model_as_it_is() {
    let bytes = |flags: &[&str]| {
        let (text, json) = report(&[&["answer", "--max-tokens", "6"], flags].concat());
        let numbers = text.split_once("\n\n").unwrap().1;
        assert!(
            numbers.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        let run = &json["runs"][0];
        assert_eq!(run["tokens"].as_array().unwrap().len(), 6);
        assert!(run["decode_tps"].as_f64().unwrap() > 0.0);
        (
            run["variant"].as_str().unwrap().to_owned(),
            run["weight_bytes"].as_u64().unwrap(),
        )
    };
    assert_eq!(bytes(&[]), ("bf16".to_owned(), 14_688_768));
    let (four, eight) = (bytes(&["--bits", "4"]), bytes(&["--bits", "8"]));
    assert_eq!((four.0.as_str(), eight.0.as_str()), ("4-bit", "8-bit"));
    assert!(four.1 < eight.1 && eight.1 < 14_688_768);
}

#[test]
fn a_model_that_is_packed_already_keeps_its_weights_and_says_so() {
    let place = tempfile::tempdir().unwrap();
    let packed = place.path().join("packed");
    let packed = packed.to_str().unwrap();
    assert!(
        part4(&["convert", "--bits", "8", "--out", packed])
            .status
            .success()
    );
    let output = part4(&[
        "answer",
        "--bits",
        "4",
        "--max-tokens",
        "2",
        "--model",
        packed,
    ]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("is quantized already: its weights stay as they are"),
        "{stderr}"
    );
}

#[test]
fn the_margin_is_the_tables_and_turns_its_sign_with_the_answers() {
    let prompt = ["--prompt", "Hello", "--max-tokens", "48", "--ignore-eos"];
    let quick = ["--windows", "1", "--window", "64", "--rounds", "1"];
    let width = ["--bits", "3", "--group-size", "64"];
    let (_, table) = report(&[&prompt[..], &quick, &width].concat());
    let (base, row) = (&table["runs"][0], &table["runs"][1]);
    let told = &row["first_difference"];
    let index = told["index"].as_u64().unwrap();
    let tokens =
        |run: &Value| -> Vec<u32> { serde_json::from_value(run["tokens"].clone()).unwrap() };
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("answers.json");
    let found = margin(&file, &tokens(base), &tokens(row));
    assert_eq!(found["index"], index);
    let (nats, expected) = (
        found["nats"].as_f64().unwrap(),
        told["margin"].as_f64().unwrap(),
    );
    // The table runs prompt and answer at once, in 16 bits.
    assert!(
        (nats - expected).abs() < 0.1 + 0.02 * expected,
        "{nats} {expected}"
    );
    let turned = margin(&file, &tokens(row), &tokens(base));
    assert_eq!(turned["nats"].as_f64(), Some(-nats));
}

#[test]
fn answers_that_do_not_part_or_end_have_no_margin() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("answers.json");
    let none = json!({"index": null, "nats": null});
    assert_eq!(margin(&file, &[5, 6], &[5, 6]), none);
    let ends = json!({"index": 2, "nats": null});
    assert_eq!(margin(&file, &[5, 6], &[5, 6, 7]), ends);
}

#[test]
fn answers_that_are_none_are_refused_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("answers.json");
    let name = file.to_str().unwrap();
    let missing = refusal(&["margin", name]);
    assert!(
        missing.starts_with("error: reading two answers from "),
        "{missing}"
    );
    for text in ["", "{}", r#"{"ours": [1], "theirs": [-2]}"#, "\u{ff}"] {
        fs::write(&file, text).unwrap();
        let line = refusal(&["margin", name]);
        assert!(
            line.starts_with("error: reading two answers from "),
            "{line}"
        );
    }
    fs::write(&file, r#"{"ours": [1], "theirs": [4000000000]}"#).unwrap();
    let line = refusal(&["margin", name]);
    assert!(
        line.contains("beyond the vocabulary of tiny, which has 4096"),
        "{line}"
    );
}
