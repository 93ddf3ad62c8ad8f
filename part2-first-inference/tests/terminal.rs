//! What people read: help, the card of a checkpoint, the report, at 80 columns.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use assert_cmd::Command;
use part2_first_inference::experiment::Args;
use serde_json::Value;

fn part2(args: &[&str]) -> String {
    let output = Command::cargo_bin("part2-first-inference")
        .unwrap()
        .args(args)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_fits_the_terminal() {
    let help = console::cli::command::<Args>()
        .render_long_help()
        .to_string();
    insta::assert_snapshot!(help);
}

#[test]
fn inspect_says_what_the_built_in_model_is() {
    let text = part2(&["--inspect"]);
    // The last row is about this machine.
    let rows: Vec<&str> = text
        .lines()
        .take_while(|line| !line.contains(" fits"))
        .collect();
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn no_line_of_the_report_is_wider_than_80_columns() {
    let text = part2(&["--max-tokens", "12", "--json"]);
    let (report, json) = text.trim_end().rsplit_once('\n').unwrap();
    let answer = report.lines().next().unwrap();
    assert!(answer.starts_with("A black hole is"), "{answer}");
    for line in report.lines().skip(1) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(
        report.contains("187 positions computed again for 12 tokens"),
        "{report}"
    );
    // 12 tokens of the prompt and 12 of the answer: 210 positions, 23 of them for the first time.
    let last = report.lines().next_back().unwrap();
    let result = "89 % of the work had been done before: 210 positions computed, 23 needed.";
    assert_eq!(last.trim(), result);
    for words in [
        "TTFT",
        "time to first token",
        "TPOT",
        "time per output token",
        "MB, the most memory",
    ] {
        assert!(report.contains(words), "{words}: {report}");
    }
    let json: Value = serde_json::from_str(json).unwrap();
    let run = &json["runs"][0];
    // p = 12 prompt tokens, n = 12: (n − 1)(p − 1) + n(n − 1)/2
    assert_eq!(run["positions_recomputed"], 11 * 11 + 12 * 11 / 2);
    assert_eq!(run["tokens"].as_array().unwrap().len(), 12);
    assert_eq!(run["prompt_tokens"], 12);
    assert_eq!(run["finish_reason"], "length");
    assert_eq!(run["text"].as_str().unwrap(), answer);
}

#[test]
fn memory_is_shown_and_told_for_this_machine() {
    let text = part2(&["--show", "memory"]);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let row = |label: &str| -> Vec<&str> {
        let line = text.lines().find(|line| line.starts_with(label)).unwrap();
        line.split_whitespace().collect()
    };
    // 64 MB of numbers; what is only described takes nothing, what is evaluated as much again.
    assert_eq!(row(" a, made by the host").last(), Some(&"64.0"));
    assert_eq!(row(" b, described").last(), Some(&"64.0"));
    assert_eq!(row(" b, evaluated").last(), Some(&"128.0"));
    let described: f64 = row(" b, described")[2].parse().unwrap();
    let evaluated: f64 = row(" b, evaluated")[2].parse().unwrap();
    assert!(described < evaluated, "{text}");
    let addresses: Vec<&str> = text
        .lines()
        .filter_map(|line| line.rsplit_once("0x"))
        .map(|(_, at)| at)
        .collect();
    assert!(addresses.len() >= 3, "{text}");
    if text.contains("one stream of the CPU") {
        assert!(
            addresses.windows(2).all(|pair| pair[0] == pair[1]),
            "{text}"
        );
        assert!(text.contains("What cannot be shown here"), "{text}");
        assert!(
            text.contains(" ceiling ") && text.contains("% of the ceiling"),
            "{text}"
        );
    }
}

#[test]
fn a_base_model_says_that_it_continues_the_prompt() {
    let place = tempfile::tempdir().unwrap();
    let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/models/tiny");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(tiny.join(name), place.path().join(name)).unwrap();
    }
    let run = |model: &str| {
        let mut command = Command::cargo_bin("part2-first-inference").unwrap();
        command.args(["--max-tokens", "2", "--model", model]);
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let stderr = run(place.path().to_str().unwrap());
    let says =
        "has no chat template: a base model, which continues the prompt and does not answer it";
    assert!(stderr.contains(says), "{stderr}");
    assert!(!run("tiny").contains("base model"));
}

/// Both READMEs show this part's screen: what a machine does not change is as the program prints it.
#[test]
fn the_readmes_show_what_the_program_prints() {
    let printed = part2(&[]);
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for readme in [
        include_str!("../README.md"),
        include_str!("../../README.md"),
    ] {
        let readme = readme.replace("\r\n", "\n");
        let start = readme.find("```text\nA black hole").unwrap() + "```text\n".len();
        let sample = readme[start..].split("\n```").next().unwrap();
        let (answer, report) = sample.split_once("\n\n").unwrap();
        let (said, shown) = printed.split_once("\n\n").unwrap();
        assert_eq!(one_line(answer), one_line(said));
        let labels = |text: &str| -> Vec<String> {
            let labels = text.lines().filter(|line| !line.starts_with("    "));
            labels
                .map(|line| one_line(line.get(..9).unwrap_or("")))
                .collect()
        };
        assert_eq!(labels(report), labels(shown.trim_end()));
        let last = |text: &str| text.trim_end().lines().next_back().map(str::to_owned);
        assert_eq!(last(report), last(shown));
    }
}
