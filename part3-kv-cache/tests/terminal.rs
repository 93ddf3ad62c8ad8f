//! What people read: help and the report, at 80 columns; and what bad flags and inputs get.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use assert_cmd::Command;
use part3_kv_cache::experiment::Args;
use serde_json::Value;

fn part3(args: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("part3-kv-cache")
        .unwrap()
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn help_fits_the_terminal() {
    let help = shared::cli::command::<Args>()
        .render_long_help()
        .to_string();
    insta::assert_snapshot!(help);
}

#[test]
fn the_comparison_has_four_caches_and_fits_80_columns() {
    let chart = tempfile::tempdir().unwrap();
    let chart = chart.path().join("chart.svg");
    let path = chart.to_str().unwrap();
    let (code, stdout, stderr) = part3(&["--max-tokens", "12", "--json", "--plot", path]);
    assert_eq!(code, 0, "{stderr}");
    let (report, json) = stdout.trim_end().rsplit_once('\n').unwrap();
    for line in report.lines().skip(1) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let report = report.replace('\n', "");
    assert!(
        report.contains("prealloc gives the same tokens"),
        "{report}"
    );
    assert!(report.contains("= 4,096 bytes per position"), "{report}");
    let json: Value = serde_json::from_str(json).unwrap();
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
fn bad_flags_and_files_get_one_clear_line() {
    for (args, code, says) in [
        (
            &["--window", "8", "--keep", "8"][..],
            1,
            "--keep 8 leaves no room in --window 8",
        ),
        (&["--window", "1"], 2, "--window"),
        (&["--prefill-step", "0"], 2, "--prefill-step"),
        (&["--rounds", "0"], 2, "--rounds"),
        (
            &["--cache", "none"],
            2,
            "possible values: off, concat, prealloc, rotating",
        ),
        (&["--prompt", ""], 1, "prompt"),
        (
            &[
                "--max-tokens",
                "2",
                "--rounds",
                "1",
                "--plot",
                "/no/such/folder/x.svg",
            ],
            1,
            "writing the chart /no/such/folder/x.svg",
        ),
    ] {
        let (found, _, stderr) = part3(args);
        assert_eq!(found, code, "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}
