//! One load, for the engine and for a server of it; and one question of several clients.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn part6(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_part6-pipeline"));
    command.args(args).output().unwrap()
}

/// The report, and its JSON line.
fn report(args: &[&str]) -> (String, Value) {
    let output = part6(&[args, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let (text, json) = stdout.trim_end().rsplit_once('\n').unwrap();
    (text.to_owned(), serde_json::from_str(json).unwrap())
}

/// The one error line.
fn refusal(args: &[&str]) -> String {
    let output = part6(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let line = stderr.trim_end().lines().next_back().unwrap();
    assert!(
        line.starts_with("error: ") && !stderr.contains("panicked"),
        "{stderr}"
    );
    line.to_owned()
}

/// Both rounds of one way have all answers, and as many tokens as the engine's first one.
fn answered_all(json: &Value, way: &str) {
    let first = &json["engine"][0];
    let rounds = json[way].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        assert_eq!(
            (&round["completed"], &round["failed"]),
            (&7.into(), &0.into())
        );
        for key in ["total_input_tokens", "total_output_tokens"] {
            assert_eq!(round[key], first[key], "{key}");
        }
        assert!(round["max_concurrent_requests"].as_u64().unwrap() <= 3);
        assert!(round["mean_ttft_ms"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_load_is_answered_by_the_engine_and_by_the_server_with_the_same_texts() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("bench.json");
    let load = [
        "--requests",
        "7",
        "--concurrency",
        "3",
        "--rows",
        "3",
        "--dtype",
        "f32",
    ];
    let lengths = [
        "--prompt-tokens",
        "4..20",
        "--output-tokens",
        "3..9",
        "--rounds",
        "2",
    ];
    let out = ["bench", "--out", file.to_str().unwrap()];
    let (text, json) = report(&[&out[..], &load, &lengths].concat());
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    for name in [
        "Output token throughput (tok/s)",
        "P99 TTFT (ms)",
        "Median TPOT (ms)",
        "P99 ITL (ms)",
    ] {
        let first = name.split(" (").next().unwrap();
        assert!(text.contains(first), "no {name}: {text}");
    }
    assert!(
        text.contains("All 14 answers of the server are those of the engine."),
        "{text}"
    );
    assert_eq!(json["other_answers"], 0);
    for way in ["engine", "server"] {
        answered_all(&json, way);
    }
    assert!(json["server_to_engine"]["median"].as_f64().unwrap() > 0.0);
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(written, json);
}

#[test]
fn a_load_that_makes_no_sense_is_refused_in_one_line() {
    let none = refusal(&["bench", "--requests", "0"]);
    assert_eq!(none, "error: --requests 0 is no load");
    let long = refusal(&["bench", "--requests", "2", "--prompt-tokens", "100000"]);
    assert!(long.contains("take shorter --prompt-tokens"), "{long}");
    let place = refusal(&["bench", "--out", "/no/such/folder/x.json"]);
    assert!(place.contains("/no/such/folder"), "{place}");
}

#[test]
fn several_clients_who_ask_the_same_get_the_same() {
    let ask = ["answer", "--rows", "3", "--max-tokens", "6"];
    let (text, json) = report(&ask);
    assert!(
        text.contains("All 3 rows have the same 6 tokens."),
        "{text}"
    );
    let run = &json["runs"][0];
    assert_eq!(run["row_tokens"].as_array().unwrap().len(), 3);
    assert_eq!(run["weight_bytes"], 14_688_768);
    assert!(run["kv_bytes"].as_u64().unwrap() > 0);
    assert!(run["throughput_tps"].as_f64().unwrap() > 0.0);
    let long = refusal(&["answer", "--model", "/no/such/model"]);
    assert!(long.contains("/no/such/model"), "{long}");
}

#[test]
fn what_guesses_bring_is_told_of_each_kind_of_text_and_is_in_the_file() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("speculation.json");
    let few = ["--rounds", "2", "--max-tokens", "24", "--guess", "3"];
    let rows = ["--rows", "2", "--dtype", "f32"];
    let out = ["speculate", "--out", file.to_str().unwrap()];
    let (text, json) = report(&[&out[..], &few, &rows].concat());
    assert!(
        text.contains("break-even") || text.contains("even"),
        "{text}"
    );
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(written, json);
    assert_eq!(
        (&json["model"], &json["draft"]),
        (&"tiny".into(), &"tiny-draft".into())
    );
    assert_eq!(
        (&json["rows"], &json["guess"], &json["n"]),
        (&2.into(), &3.into(), &2.into())
    );
    let lanes = json["lanes"].as_array().unwrap();
    assert_eq!(lanes.len(), 3 * 5);
    for lane in lanes {
        assert_eq!(lane["same_tokens"], true);
        assert!(lane["gain"]["median"].as_f64().unwrap() > 0.0, "{lane}");
        let number = |key: &str| lane[key].as_u64().unwrap();
        assert!(number("right") <= number("guessed") && number("guessed") <= 3 * number("trials"));
        let places = lane["right_by_place"].as_array().unwrap();
        assert_eq!(places.is_empty(), number("trials") == 0);
        if lane["guesses"] == "draft" {
            assert_eq!(places.len(), 3);
            assert!(
                lane["cost"].as_f64().unwrap() > 0.0 && number("trials") > 0,
                "{lane}"
            );
        }
    }
    let place = refusal(&["speculate", "--out", "/no/such/folder/x.json"]);
    assert!(place.contains("/no/such/folder"), "{place}");
}
