use super::*;
use crate::testing::{NAIVE, PREALLOC, ROTATING, contestant, output, report};

#[test]
fn the_last_line_is_the_report_whatever_stands_before() {
    let stdout = format!("A black hole\n\n model    tiny\n{PREALLOC}");
    let report = Answers::of(&contestant(3, &[], true), &output(0, &stdout, "loading\n")).unwrap();
    assert_eq!(report.machine.backend, "cpu");
    assert_eq!(report.versions.mlx_rs, "0.33.0");
    assert_eq!(report.run().variant, "prealloc");
    assert_eq!(report.run().kv_bytes, Some(1 << 20));
}

#[test]
fn of_several_rows_the_one_that_leaves_the_reference_first_is_told() {
    let mut rows = report(NAIVE).runs.remove(0);
    let reference = rows.run.clone();
    rows.row_tokens = vec![reference.tokens.clone(); 3];
    assert_eq!(rows.difference(&reference), None);
    (rows.row_tokens[1][6], rows.row_tokens[2][4]) = (0, 1);
    let (at, tokens) = rows.difference(&reference).unwrap();
    assert_eq!((at, tokens), (4, rows.row_tokens[2].as_slice()));
}

#[test]
fn a_part_that_fails_is_told_by_its_own_error_line() {
    let failed = |code, stdout: &str, stderr: &str| {
        let of = Answers::of(
            &contestant(3, &["--cache", "off"], false),
            &output(code, stdout, stderr),
        );
        format!("{:#}", of.unwrap_err())
    };
    let stderr = "loading x\nerror: finding the model x: no config.json in it\n";
    assert_eq!(
        failed(1, "", stderr),
        "part 3 --cache off: finding the model x: no config.json in it"
    );
    let coloured = "\u{1b}[1merror:\u{1b}[0m no room\n";
    assert_eq!(failed(1, "", coloured), "part 3 --cache off: no room");
    let silent = failed(3, "A black hole\n", "");
    assert_eq!(silent, "part 3 --cache off: it ended with exit status: 3");
    let killed = failed(3, "A black hole\n", "loading tiny\n");
    assert_eq!(killed, format!("{silent}: loading tiny"));
    assert!(
        failed(0, "no JSON", "")
            .starts_with("part 3 --cache off: the last line of stdout is no report: no JSON")
    );
    assert!(failed(0, "{}", "").contains("no report: {}: missing field"));
}

#[test]
fn throughput_of_one_request_has_the_prefill_in_it() {
    let answer = report(NAIVE).answer().clone();
    let seconds = (48.046561 + 7.0 * 66.375953) / 1e3;
    assert!((answer.throughput().unwrap() - 8.0 / seconds).abs() < 1e-9);
    let mut batch = answer.clone();
    batch.throughput_tps = Some(99.0);
    assert_eq!(batch.throughput(), Some(99.0));
    let mut single = answer;
    single.run.tpot_ms = None;
    assert_eq!(single.throughput(), None);
}

#[test]
fn the_first_token_that_differs_is_found_and_a_missing_one_differs() {
    let (naive, other) = (report(NAIVE).run().clone(), report(ROTATING).run().clone());
    assert_eq!(naive.first_difference(report(PREALLOC).run()), None);
    assert_eq!(naive.first_difference(&other), Some(0));
    let mut shorter = naive.clone();
    shorter.tokens.pop();
    assert_eq!(naive.first_difference(&shorter), Some(7));
    shorter.tokens[3] += 1;
    assert_eq!(shorter.first_difference(&naive), Some(3));
}
