//! What people read: help and the report, at 80 columns; and what bad flags and inputs get.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use part3_kv_cache::experiment::Args;
use serde_json::Value;
use shared::testing::fixtures;
use shared::testing::process::run;

fn part3(args: &[&str]) -> (i32, String, String) {
    run(Command::new(cargo_bin("part3-kv-cache")).args(args)).unwrap()
}

#[test]
fn help_fits_the_terminal() {
    let help = console::cli::command::<Args>()
        .render_long_help()
        .to_string();
    insta::assert_snapshot!(help);
}

#[test]
fn the_comparison_has_four_caches_and_fits_80_columns() {
    let chart = tempfile::tempdir().unwrap();
    let chart = chart.path().join("chart.svg");
    let path = chart.to_str().unwrap();
    let (code, stdout, stderr) = part3(&["plot", path, "--max-tokens", "12", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let (report, json) = stdout.trim_end().rsplit_once('\n').unwrap();
    for line in report.lines().skip(1) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let json: Value = serde_json::from_str(json).unwrap();
    if json["machine"]["device"] == "cpu" {
        let measured = json["machine"]["bandwidth_bytes_per_s"].as_f64().unwrap();
        assert!(report.contains("GB/s (measured)"), "{report}");
        let products = json["machine"]["products"].as_str().unwrap();
        assert!(report.contains("\n products  own loops"), "{report}");
        assert!(products.contains("own loops"), "{products}");
        for run in json["runs"].as_array().unwrap() {
            let [tps, bytes, share] =
                ["decode_tps", "step_bytes", "mbu"].map(|key| run[key].as_f64().unwrap());
            let weights = run["weight_bytes"].as_f64().unwrap();
            // One round, or medians of three.
            assert!(
                (share / (bytes * tps / measured) - 1.0).abs() < 1e-9,
                "{run}"
            );
            assert!(bytes >= weights, "{run}");
        }
        assert_eq!(
            json["runs"][0]["step_bytes"],
            json["runs"][0]["weight_bytes"]
        );
    }
    let report = report.replace('\n', "");
    assert!(
        report.contains("concat, prealloc and rotating give the same tokens as off."),
        "{report}"
    );
    assert!(report.contains("= 4,096 bytes per position"), "{report}");
    let runs = json["runs"].as_array().unwrap();
    let variants: Vec<&str> = runs
        .iter()
        .map(|r| r["variant"].as_str().unwrap())
        .collect();
    assert_eq!(variants, ["off", "concat", "prealloc", "rotating"]);
    // p = 12 prompt tokens, n = 12: (n − 1)(p − 1) + n(n − 1)/2
    assert_eq!(runs[0]["positions_recomputed"], 11 * 11 + 12 * 11 / 2);
    assert_eq!(runs[2]["positions_recomputed"], 0);
    assert_eq!(runs[1]["kv_bytes"], 4096 * 23);
    assert_eq!(runs[2]["kv_bytes"], 4096 * 256);
    let svg = std::fs::read_to_string(chart).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("ms per token"));
}

#[test]
fn the_comparison_fits_80_columns_with_a_real_model_too() {
    let Some(path) = fixtures::smollm2() else {
        return;
    };
    let model = ["--model", path.to_str().unwrap(), "--prompt", "Stars"];
    let (code, stdout, stderr) = part3(&[&model[..], &["--max-tokens", "3"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains(" held MB "), "{stdout}");
    for line in stdout.lines().skip(1) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    // No cell is broken into two rows.
    let row = |name: &str| stdout.lines().filter(|l| l.starts_with(name)).count();
    assert_eq!(
        [" off  ", " concat  ", " prealloc  ", " rotating  "].map(row),
        [2; 4],
        "{stdout}"
    );
}

#[test]
fn the_report_ends_with_its_result_and_tells_no_spread_of_one_run() {
    let (code, stdout, stderr) = part3(&["--max-tokens", "12", "--rounds", "1"]);
    assert_eq!(code, 0, "{stderr}");
    let last = stdout.lines().next_back().unwrap();
    // 12 tokens of the prompt and all of the answer but its last, 4,096 bytes each.
    assert!(last.starts_with(" The same 12 tokens, "), "{stdout}");
    assert!(
        last.ends_with(" times as fast, for 94.21 kB of keys and values."),
        "{stdout}"
    );
    assert!(!stdout.contains("IQR"), "{stdout}");
    let (_, alone, _) = part3(&["--max-tokens", "4", "--cache", "concat"]);
    for absent in ["IQR", "× off", "rounds", "same tokens", "noise"] {
        assert!(!alone.contains(absent), "{absent}: {alone}");
    }
    assert!(alone.contains("TTFT: time to first token."), "{alone}");
}

#[test]
fn the_needle_shows_its_prompt_and_ends_in_a_verdict() {
    let (code, stdout, stderr) = part3(&["needle", "--dtype", "f32"]);
    assert_eq!(code, 0, "{stderr}");
    let text = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.starts_with("The model reads 87 tokens: The blue box of Anna holds"),
        "{text}"
    );
    assert!(text.contains("tiny is too small for this test"), "{text}");
    assert!(!text.contains('✓'), "{text}");
    let Some(path) = fixtures::smollm2() else {
        return;
    };
    let (_, stdout, _) = part3(&["needle", "--model", path.to_str().unwrap()]);
    let text = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("With everything stored 6 of 6 sentences are found."),
        "{text}"
    );
    for line in stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn progress_counts_the_whole_prompt() {
    let args = [
        "--raw",
        "--prompt",
        "one two three four five six seven eight",
    ];
    let more = [
        "--cache",
        "concat",
        "--prefill-step",
        "2",
        "--max-tokens",
        "2",
    ];
    let (code, _, stderr) = part3(&[&args[..], &more].concat());
    assert_eq!(code, 0, "{stderr}");
    let totals: Vec<&str> = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("prefill: ")?.split(" of ").nth(1))
        .collect();
    let (last, rest) = (totals[0], &totals[1..]);
    assert!(rest.iter().all(|total| *total == last), "{stderr}");
    let done = format!("prefill: {last}");
    assert!(
        !stderr.contains(&done),
        "the last piece is still to run: {stderr}"
    );
}

#[test]
fn bad_flags_and_files_get_one_clear_line() {
    for (args, code, says) in [
        (
            &["--cache", "rotating:8:8"][..],
            2,
            "a window of 8 positions has no room for 8 sinks",
        ),
        (&["--cache", "rotating:1"], 2, "a window of 1 positions"),
        (&["--prefill-step", "0"], 2, "--prefill-step"),
        (&["--rounds", "0"], 2, "--rounds"),
        (
            &["--cache", "none"],
            2,
            "must be off, concat, prealloc, rotating or rotating:SIZE:SINKS",
        ),
        (&["--prompt", ""], 1, "prompt"),
        (
            &["plot", "/no/such/folder/x.svg"],
            1,
            "there is no directory /no/such/folder: make it first",
        ),
        (&["plot", "/tmp"], 1, "/tmp is a directory"),
        (&["save", "/dev/null"], 1, "is a device or a pipe"),
        (
            &["load", "/dev/null"],
            1,
            "/dev/null is a device or a pipe, not a regular file",
        ),
        (&["save", "-"], 1, "`-` is no name of a file"),
        (&["load", "-"], 1, "`-` is no name of a file"),
        (&["plot", "-"], 1, "`-` is no name of a file"),
        (
            &["save", "x", "--cache", "off"],
            1,
            "--cache off stores nothing that a file could hold",
        ),
        (&["needle", "--json"], 2, "unexpected argument '--json'"),
        (
            &["needle", "--prompt", "x"],
            2,
            "unexpected argument '--prompt'",
        ),
        (&["--json", "needle"], 2, "cannot be used with"),
        (
            &["save", "x", "--rounds", "2"],
            2,
            "unexpected argument '--rounds'",
        ),
    ] {
        let (found, _, stderr) = part3(args);
        assert_eq!(found, code, "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}

/// Without its numbers, and without the bars that are drawn of them.
fn skeleton(text: &str) -> String {
    let word =
        |word: &&str| !word.contains(|c: char| c.is_ascii_digit() || ('▁'..='█').contains(&c));
    text.split_whitespace()
        .filter(word)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Program output in the README that begins with this text.
fn quoted(beginning: &str) -> String {
    let readme = include_str!("../README.md").replace("\r\n", "\n");
    let start = readme.find(&format!("```text\n{beginning}")).unwrap() + "```text\n".len();
    readme[start..].split("\n```").next().unwrap().to_owned()
}

#[test]
fn the_readme_shows_what_the_program_prints() {
    let (_, stdout, _) = part3(&[]);
    // The machine is another one, and noise and slope may be told in other words.
    let parts = |text: &str| {
        let (answer, rest) = text.split_once("\n\n").unwrap();
        let tables = rest[rest.find(" cache ").unwrap()..].to_owned();
        let told = |line: &&str| !line.contains(" ms");
        let tables: Vec<&str> = tables.lines().filter(told).collect();
        (
            answer.split_whitespace().collect::<Vec<_>>().join(" "),
            skeleton(&tables.join("\n")),
        )
    };
    assert_eq!(parts(&quoted("A black hole")), parts(&stdout));
}

#[test]
fn the_readme_runs_a_conversation_of_as_many_tokens_as_it_says() {
    let talk = fixtures::directory().join("../texts/talk.txt");
    let args = [
        "--raw",
        "--prompt-file",
        talk.to_str().unwrap(),
        "--max-tokens",
        "24",
    ];
    let (code, stdout, stderr) = part3(&[&args[..], &["--cache", "prealloc"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.starts_with("Dinosaurs were reptiles that lived on Earth"),
        "{stdout}"
    );
    assert!(stdout.contains(" 634 prompt tokens"), "{stdout}");
    let told = quoted(" First token")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(
        told.contains("the prompt of 634 tokens") && told.contains("with 633 of them"),
        "{told}"
    );
}

#[test]
fn the_readmes_needle_is_the_programs() {
    let Some(path) = fixtures::smollm2_f32() else {
        return;
    };
    let (_, stdout, _) = part3(&["needle", "--model", path.to_str().unwrap()]);
    let table = quoted(" sentence  ");
    let marks = |text: &str| -> Vec<usize> {
        text.lines().map(|line| line.matches('✓').count()).collect()
    };
    let printed = &stdout[stdout.find(" sentence  ").unwrap()..];
    assert_eq!(skeleton(&table), skeleton(printed));
    assert_eq!(marks(&table), marks(printed.trim_end()));
}
