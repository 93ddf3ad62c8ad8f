//! What people read of the table: 80 columns, the JSON line, the chart; and what bad flags and texts get.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use part4_quantization::experiment::Args;
use serde_json::Value;
use shared::testing::fixtures;
use shared::testing::process::run;

fn part4(args: &[&str]) -> (i32, String, String) {
    run(Command::new(cargo_bin("part4-quantization")).args(args)).unwrap()
}

/// Little of everything: two windows of 32 tokens, two widths, one answer of four tokens.
const QUICK: [&str; 12] = [
    "--window",
    "32",
    "--windows",
    "2",
    "--bits",
    "4,2",
    "--group-size",
    "64",
    "--rounds",
    "1",
    "--max-tokens",
    "4",
];

#[test]
fn help_fits_the_terminal() {
    let help = console::cli::command::<Args>()
        .render_long_help()
        .to_string();
    assert!(help.lines().all(|line| line.chars().count() <= 80));
    insta::assert_snapshot!(help);
}

#[test]
fn the_table_fits_80_columns_and_the_chart_has_its_points() {
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("chart.svg");
    let plot = ["plot", chart.to_str().unwrap(), "--json"];
    let (code, stdout, stderr) = part4(&[&plot[..], &QUICK].concat());
    assert_eq!(code, 0, "{stderr}");
    let (report, json) = stdout.trim_end().rsplit_once('\n').unwrap();
    for line in report.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let table: Vec<&str> = report
        .lines()
        .skip_while(|line| !line.contains("PPL ± se"))
        .collect();
    let names: Vec<&str> = table[2..9].iter().map(|line| line[1..10].trim()).collect();
    assert_eq!(
        names,
        [
            "bf16",
            "4-bit g64",
            "2-bit g64",
            "K8 V8",
            "K8 V4",
            "K4 V8",
            "K4 V4"
        ]
    );
    // The base beside itself: no number of it is measured.
    let base = table[2];
    assert!(
        base.contains(" +0.0000 ± 0.0000 ") && base.contains("  0.00%"),
        "{base}"
    );
    let words = report.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("the first 2 windows of 32"), "{report}");
    assert!(words.contains("of each: 62 tokens"), "{report}");
    assert!(
        words.contains("= 2,176, measured 2,176; dense: 4,096"),
        "{report}"
    );
    let svg = std::fs::read_to_string(chart).unwrap();
    assert!(
        svg.contains("4-bit g64") && svg.contains("groups of 64"),
        "{svg}"
    );
    check(&serde_json::from_str(json).unwrap());
}

fn check(json: &Value) {
    assert_eq!(json["part"], "part4-quantization");
    let quality = &json["quality"];
    assert_eq!(
        (&quality["windows"], &quality["positions"]),
        (&2.into(), &62.into())
    );
    assert_eq!(
        (&quality["scored"], &quality["bos"]),
        (&"all".into(), &Value::Null)
    );
    let runs = json["runs"].as_array().unwrap();
    assert_eq!(runs[0]["variant"], "bf16");
    assert_eq!(runs[0]["quality"]["divergence"]["value"], 0.0);
    assert_eq!(runs[0]["first_difference"], Value::Null);
    let bits = |run: &Value| run["bits_per_weight"].as_f64().unwrap();
    assert_eq!(bits(&runs[0]), 16.0);
    // 4 bits, and 32 of a scale and a bias for 64 weights; the norms are not packed.
    assert!((4.5..4.52).contains(&bits(&runs[1])), "{}", bits(&runs[1]));
    let bytes = runs[1]["weight_bytes"].as_f64().unwrap();
    assert!((8.0 * bytes / 7_344_384.0 - bits(&runs[1])).abs() < 1e-9);
    let divergence = |run: &Value| run["quality"]["divergence"]["value"].as_f64().unwrap();
    assert!(divergence(&runs[1]) < divergence(&runs[2]));
    let error = &runs[1]["quality"]["delta"];
    assert!(error["error"].as_f64().unwrap() >= 0.0 && error["naive"].as_f64().unwrap() > 0.0);
    let per_position: Vec<_> = runs
        .iter()
        .map(|r| r["kv_bytes_per_position"].as_u64().unwrap())
        .collect();
    assert_eq!(per_position, [4096, 4096, 4096, 2176, 1664, 1664, 1152]);
    assert!(runs[1]["decode_tps"].as_f64().unwrap() > 0.0);
    assert_eq!(runs[1]["tokens"].as_array().unwrap().len(), 4);
}

#[test]
fn the_card_says_what_is_scored_and_how() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "the sun is a star. ".repeat(60)).unwrap();
    let args = [
        "--text",
        text.to_str().unwrap(),
        "--score",
        "second-half",
        "--bits",
        "8",
    ];
    let (code, stdout, stderr) = part4(&[&args[..], &QUICK[..4], &QUICK[6..]].concat());
    assert_eq!(code, 0, "{stderr}");
    let start = stdout.find(" text ").unwrap();
    let card: Vec<&str> = stdout[start..]
        .lines()
        .take_while(|line| !line.is_empty())
        .collect();
    let card = card
        .join(" ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let card = card.replace(text.to_str().unwrap(), "FILE");
    insta::assert_snapshot!(card);
    assert!(card.contains("32") && card.ends_with("30 tokens"), "{card}");
}

#[test]
fn a_packed_cache_can_stand_in_all_rows_but_the_first() {
    let (code, stdout, stderr) =
        part4(&[&QUICK[..], &["--cache", "quantized:K4:V8", "--json"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains("cache    K4 V8 in all rows but the first"),
        "{stdout}"
    );
    let json: Value = serde_json::from_str(stdout.trim_end().lines().next_back().unwrap()).unwrap();
    let runs = json["runs"].as_array().unwrap();
    let rows = runs.iter().map(|run| {
        (
            run["variant"].as_str(),
            run["kv_bytes_per_position"].as_u64(),
        )
    });
    let expected = [
        ("bf16", 4096),
        ("4-bit g64", 1664),
        ("2-bit g64", 1664),
        ("K4 V8", 1664),
    ];
    assert_eq!(
        rows.collect::<Vec<_>>(),
        expected.map(|(name, bytes)| (Some(name), Some(bytes)))
    );
}

#[test]
fn without_flags_there_are_all_widths_and_the_float_modes_with_both_scales() {
    let little = [&QUICK[..4], &QUICK[8..], &["--json"]].concat();
    let (code, stdout, stderr) = part4(&little);
    assert_eq!(code, 0, "{stderr}");
    let json: Value = serde_json::from_str(stdout.trim_end().lines().next_back().unwrap()).unwrap();
    let runs = json["runs"].as_array().unwrap();
    let names: Vec<_> = runs.iter().map(|run| run["variant"].as_str()).collect();
    let widths = ["8", "6", "5", "4", "3", "2"]
        .into_iter()
        .flat_map(|bits| ["64", "32"].map(|size| format!("{bits}-bit g{size}")));
    let others = [
        "mxfp4",
        "mxfp4 fit",
        "nvfp4",
        "nvfp4 fit",
        "K8 V8",
        "K8 V4",
        "K4 V8",
        "K4 V4",
    ];
    let expected: Vec<String> = std::iter::once("bf16".to_owned())
        .chain(widths)
        .chain(others.map(str::to_owned))
        .collect();
    let expected: Vec<_> = expected.iter().map(|name| Some(name.as_str())).collect();
    assert_eq!(names, expected);
    // Other scales in the same bytes.
    let of = |name: &str| runs.iter().find(|run| run["variant"] == name).unwrap();
    for mode in ["mxfp4", "nvfp4"] {
        let (mlx, best) = (of(mode), of(&format!("{mode} fit")));
        assert_eq!(mlx["weight_bytes"], best["weight_bytes"]);
        assert_ne!(mlx["quality"]["divergence"], best["quality"]["divergence"]);
    }
}

#[test]
fn a_model_that_is_quantized_already_keeps_its_weights() {
    let path = fixtures::directory().join("gguf-llama/model.gguf");
    let args = [
        "--model",
        path.to_str().unwrap(),
        "--raw",
        "--prompt",
        "a",
        "--text",
        "alice",
    ];
    let (code, stdout, stderr) = part4(&[&args[..], &QUICK[..4], &QUICK[8..]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(!stdout.contains("-bit g"), "{stdout}");
    for [flag, value] in [["--bits", "4"], ["--group-size", "64"], ["--mode", "mxfp4"]] {
        let (code, _, stderr) = part4(&[&args[..], &[flag, value]].concat());
        assert_eq!(code, 1);
        let says = format!("is quantized already, so {flag} cannot quantize it");
        assert!(stderr.contains(&says), "{stderr}");
    }
}

#[test]
fn bad_texts_get_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (short, empty) = (
        file("short.txt", b"Once upon a time."),
        file("empty.txt", b""),
    );
    let binary = file("binary.txt", &[0xff, 0xfe, 0x00]);
    for (text, says) in [
        (
            &*short,
            "tokens, but a window takes 256: take a longer text",
        ),
        (&empty, "is empty"),
        (&binary, "UTF-8"),
        ("/no/such/file", "reading the text /no/such/file"),
    ] {
        ends_with(&["--text", text], 1, says);
    }
}

#[test]
fn bad_flags_get_one_clear_line() {
    for (args, code, says) in [
        (
            &["--window", "2048"][..],
            1,
            "is longer than the context of tiny, which is 1024",
        ),
        (&["--window", "3"], 2, "--window"),
        (&["--windows", "0"], 2, "--windows"),
        (&["--bits", "7"], 2, "must be one of [2, 3, 4, 5, 6, 8]"),
        (&["--bits", "4,9"], 2, "must be one of [2, 3, 4, 5, 6, 8]"),
        (&["--group-size", "48"], 2, "must be one of [32, 64, 128]"),
        (
            &["--mode", "mxfp4", "--group-size", "64"],
            1,
            "are of affine codes: leave them away",
        ),
        (&["--score", "none"], 2, "second-half"),
        (&["--rounds", "0"], 2, "--rounds"),
        (&["--cache", "quantized:K8"], 2, "must be quantized:K8:V8"),
        (
            &["--cache", "quantized:K8:V5"],
            2,
            "must be quantized:K8:V8",
        ),
        (
            &["plot", "/no/such/folder/x.svg"],
            1,
            "there is no directory /no/such/folder: make it first",
        ),
        (&["plot", "-"], 1, "`-` is no name of a file"),
        (&["--json", "plot", "x.svg"], 2, "cannot be used with"),
        (&["--prompt", ""], 1, "the prompt is empty"),
    ] {
        ends_with(args, code, says);
    }
}

/// Nothing on stdout, one line on stderr, no panic.
fn ends_with(args: &[&str], code: i32, says: &str) {
    let (found, stdout, stderr) = part4(args);
    assert_eq!(found, code, "{args:?}: {stderr}");
    assert!(stderr.contains(says), "{args:?}: {stderr}");
    assert!(
        stdout.is_empty() && !stderr.contains("panicked"),
        "{args:?}: {stderr}"
    );
}
