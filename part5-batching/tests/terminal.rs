//! What people read: help and reports, at 80 columns; and what the numbers must agree on.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;

struct Printed {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn part5(args: &[&str]) -> Printed {
    printed(started(args))
}

fn started(args: &[&str]) -> Child {
    let mut command = Command::new(cargo_bin("part5-batching"));
    let command = command.args(args).env("HF_HUB_OFFLINE", "1");
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().unwrap()
}

fn printed(child: Child) -> Printed {
    let output = child.wait_with_output().unwrap();
    Printed {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The report, all of whose lines fit, and its JSON line.
fn report(args: &[&str]) -> (String, Value) {
    let Printed {
        code,
        stdout,
        stderr,
    } = part5(args);
    assert_eq!(code, Some(0), "{stderr}");
    let (report, json) = stdout.trim_end().rsplit_once('\n').unwrap();
    for line in report.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    (report.to_owned(), serde_json::from_str(json).unwrap())
}

/// Few and short requests: what is tried here is not the time.
const LOAD: [&str; 6] = [
    "--requests",
    "6",
    "--prompt-tokens",
    "4..40",
    "--output-tokens",
    "2..9",
];

#[test]
fn help_fits_the_terminal() {
    for command in ["answer", "serve", "simulate", "capacity"] {
        let help = part5(&[command, "--help"]).stdout;
        assert!(help.lines().all(|line| line.chars().count() <= 80));
        insta::assert_snapshot!(format!("help_of_{command}"), help);
    }
}

#[test]
fn the_default_run_has_four_tables_whose_answers_are_all_there() {
    let place = tempfile::tempdir().unwrap();
    let charts = place.path().to_str().unwrap();
    let (report, json) = report(&["--json", "--charts", charts]);
    let chart = |name: &str| std::fs::read_to_string(place.path().join(name)).unwrap();
    let roofline = chart("part5-roofline.svg");
    for said in [
        "the roofs:",
        "decode, by rows",
        "prefers-color-scheme: dark",
    ] {
        assert!(roofline.contains(said), "{roofline}");
    }
    // A dot for each number of rows and each piece, and one of each kind in the legend.
    assert_eq!(roofline.matches("<circle").count(), 6 + 4 + 2);
    let rates = chart("part5-rates.svg");
    assert!(rates.contains("the knee:"), "{rates}");
    assert_eq!(rates.matches("<circle").count(), 3 * 6);
    for title in ["1. A batch", "2. Who may join", "3. Pieces", "4. Rates"] {
        assert!(report.contains(title), "{report}");
    }
    let runs = json["runs"].as_array().unwrap();
    let rows: Vec<u64> = runs.iter().filter_map(|run| run["rows"].as_u64()).collect();
    assert_eq!(rows, [1, 2, 4, 8, 16, 32]);
    for run in runs.iter().filter(|run| run["table"] != "batch") {
        assert!(run["completed"].as_u64() > Some(0), "{run}");
        assert_eq!(run["failed"], 0, "{run}");
    }
}

#[test]
fn charts_that_cannot_be_written_are_refused_before_anything_is_measured() {
    let refused = part5(&["--charts", "/no/such/directory"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert!(
        refused.stderr.contains("/no/such/directory"),
        "{}",
        refused.stderr
    );
}

#[test]
fn every_token_of_a_load_is_counted_whatever_the_policy() {
    let tokens = |policy: &str| {
        let args = [
            &["serve", "--json", "--policy", policy, "--rows", "3"],
            &LOAD[..],
        ]
        .concat();
        let (report, json) = report(&args);
        assert!(report.contains("Serving Benchmark Result"), "{report}");
        let run = &json["runs"][0];
        assert_eq!(run["completed"], 6);
        (
            run["total_input_tokens"].clone(),
            run["total_output_tokens"].clone(),
        )
    };
    let first = tokens("continuous");
    assert_eq!(tokens("static"), first);
    assert_eq!(tokens("dynamic"), first);
}

#[test]
fn little_memory_makes_requests_wait_or_start_again_and_all_end() {
    for memory in ["reserve", "preempt"] {
        let args = ["serve", "--json", "--kv-tokens", "64", "--memory", memory];
        let (_, json) = report(&[&args, &LOAD[..]].concat());
        assert_eq!(json["runs"][0]["completed"], 6, "{memory}");
    }
}

#[test]
fn a_request_that_can_never_run_is_refused_alone() {
    let place = tempfile::tempdir().unwrap();
    let trace = place.path().join("trace.jsonl");
    let line =
        |tokens| format!("{{\"timestamp\":0,\"input_length\":{tokens},\"output_length\":3}}\n");
    std::fs::write(&trace, [line(5), line(90), line(7)].concat()).unwrap();
    let trace = trace.to_str().unwrap();
    let run = part5(&["serve", "--json", "--trace", trace, "--kv-tokens", "64"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("1 request refused: "), "{}", run.stderr);
    let json: Value = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&json["runs"][0]["completed"], &json["runs"][0]["failed"]),
        (&2.into(), &1.into())
    );
}

#[test]
fn a_load_has_its_row_in_llama_cpps_table() {
    let args = ["serve", "--format", "llama-bench", "--requests", "4"];
    let lengths = ["--prompt-tokens", "16", "--output-tokens", "8"];
    let run = part5(&[&args[..], &lengths].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let row = run
        .stdout
        .lines()
        .find(|line| line.starts_with("|    16 |      8 |    4 |     96 |"));
    assert!(row.is_some(), "{}", run.stdout);
}

#[test]
fn a_prediction_stands_beside_the_run_with_its_error() {
    let args = ["simulate", "--json", "--rate", "50", "--rows", "4"];
    let (report, json) = report(&[&args, &LOAD[..]].concat());
    assert!(report.contains("steps were measured"), "{report}");
    assert!(report.contains("nine in ten"), "{report}");
    assert_eq!(json["runs"][0]["completed"], 6);
}

#[test]
fn what_is_from_a_data_sheet_says_simulated_in_every_line_of_its_table() {
    let machine = [
        "simulate",
        "--machine",
        "m4-max",
        "--shape",
        "qwen3-4b-4bit",
    ];
    let run = part5(&[&machine[..], &["--rate", "2", "--requests", "5"]].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    insta::assert_snapshot!(run.stdout);
}

#[test]
fn a_capacity_is_tried_in_a_real_run() {
    let args = [
        "capacity",
        "--json",
        "--rows",
        "4",
        "--slo",
        "e2el=800",
        "--requests",
        "300",
    ];
    let (report, json) = report(&[&args[..], &LOAD[2..]].concat());
    assert!(report.contains("requests a second can be held"), "{report}");
    assert!(report.contains("Served at that rate"), "{report}");
    assert_eq!(json["runs"][0]["failed"], 0);
}

#[test]
fn bad_input_is_one_line() {
    let place = tempfile::tempdir().unwrap();
    let broken = place.path().join("broken.jsonl");
    std::fs::write(
        &broken,
        "{\"timestamp\":0,\"input_length\":5,\"output_length\":3}\n{",
    )
    .unwrap();
    let broken = broken.to_str().unwrap();
    for (args, told) in [
        (&["serve", "--rate", "0"][..], "would never send a request"),
        (&["serve", "--trace", broken], "line 2"),
        (&["serve", "--rows", "0"], "at least 1 row"),
        (&["serve", "--piece", "0"], "block"),
        (&["serve", "--kv-tokens", "0"], "too little"),
        (
            &["serve", "--prompt-tokens", "100000"],
            "longer than the context",
        ),
        (
            &["serve", "--policy", "static", "--concurrency", "2"],
            "never fills",
        ),
        (&["serve", "--gantt", "/nowhere/there/x.html"], "gantt"),
        (&["simulate", "--machine", "m99"], "m99"),
        (
            &["simulate", "--machine", "m4", "--shape", "no-model"],
            "no-model",
        ),
        (&["capacity"], "--slo"),
    ] {
        let run = part5(args);
        assert_eq!(run.code, Some(1), "{args:?}: {}", run.stderr);
        let errors: Vec<&str> = (run.stderr.lines())
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{args:?}: {}", run.stderr);
        assert!(errors[0].contains(told), "{args:?}: {}", errors[0]);
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_in_the_middle_reports_what_has_ended() {
    let load = [
        "serve",
        "--requests",
        "1200",
        "--prompt-tokens",
        "8",
        "--output-tokens",
        "40",
    ];
    let child = started(&[&load[..], &["--rows", "2", "--json"]].concat());
    std::thread::sleep(Duration::from_secs(5));
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
    let begun = Instant::now();
    let run = printed(child);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(run.code, Some(130), "{}", run.stderr);
    assert!(run.stderr.contains("interrupted: "), "{}", run.stderr);
    assert!(run.stdout.contains("Serving Benchmark Result"));
}

#[test]
fn ten_thousand_requests_at_once_wait_in_little_memory() {
    let args = [
        "simulate",
        "--machine",
        "h100",
        "--shape",
        "qwen3-4b",
        "--requests",
        "10000",
    ];
    let run = part5(&args);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let args = [
        "serve",
        "--json",
        "--requests",
        "10000",
        "--prompt-tokens",
        "1",
    ];
    let (_, json) = report(&[&args[..], &["--output-tokens", "1", "--rows", "32"]].concat());
    assert_eq!(json["runs"][0]["completed"], 10_000);
}

#[test]
fn one_prompt_in_rows_has_a_speed_of_each_and_of_all() {
    let args = ["answer", "--json", "--rows", "3", "--max-tokens", "6"];
    let output = part5(&args);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let (text, json) = output.stdout.trim_end().rsplit_once('\n').unwrap();
    assert!(
        text.contains("All 3 rows have the same 6 tokens."),
        "{text}"
    );
    let run = &serde_json::from_str::<Value>(json).unwrap()["runs"][0];
    assert_eq!(
        (&run["rows"], &run["variant"]),
        (&3.into(), &"3 rows".into())
    );
    let rows = run["row_tokens"].as_array().unwrap();
    assert!(rows.len() == 3 && rows.iter().all(|row| *row == run["tokens"]));
    let number = |key: &str| run[key].as_f64().unwrap();
    assert!(number("throughput_tps") > 0.0 && number("decode_tps") > 0.0);
    // 12 tokens of prompt and 6 of answer in each row, 4,096 bytes each.
    assert_eq!(number("kv_bytes"), 3.0 * 18.0 * 4096.0);
}

#[test]
fn rows_that_draw_have_a_seed_each() {
    let draw = ["--temperature", "3", "--raw", "--prompt", "The"];
    let args = ["answer", "--json", "--rows", "4", "--max-tokens", "6"];
    let output = part5(&[&args[..], &draw].concat());
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let (text, _) = output.stdout.trim_end().rsplit_once('\n').unwrap();
    assert!(text.contains(" differs from row 1 at token "), "{text}");
}

#[test]
fn rows_that_do_not_fit_are_refused_before_the_model_is_loaded() {
    let many = part5(&["answer", "--rows", "2000", "--max-tokens", "100000"]);
    assert_eq!((many.code, many.stdout.as_str()), (Some(1), ""));
    assert!(many.stderr.contains("take fewer --rows"), "{}", many.stderr);
    assert_eq!(part5(&["answer", "--rows", "0"]).code, Some(2));
}
