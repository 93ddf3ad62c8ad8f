//! What the tests share: reports that real parts printed, and contestants that go with them.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use console::interrupt::Interrupt;
use console::results::Results;

use crate::answer::Answers;
use crate::ask::Ask;
use crate::measure::Bench;
use crate::parts::{Contestant, Part};
use crate::process::Output;

/// The last line of stdout of `part2-first-inference --json --ignore-eos --max-tokens 8`.
pub(crate) const NAIVE: &str = include_str!("../tests/recorded/part2-naive.json");
/// The same of part 3 with `--cache prealloc`.
pub(crate) const PREALLOC: &str = include_str!("../tests/recorded/part3-prealloc.json");
/// The same with `--cache rotating --window 8`, whose tokens differ from the first one on.
pub(crate) const ROTATING: &str = include_str!("../tests/recorded/part3-rotating.json");

pub(crate) fn contestant(number: u32, flags: &[&str], rung: bool) -> Contestant {
    let adds = match number {
        2 => "a real model generates text, the naive way",
        3 => "the KV cache, measured against its own prediction",
        4 => "quantization: smaller models that still work",
        5 => "batching, throughput and latency, from static batches to a scheduler you can predict",
        _ => "字 something that takes a good deal more than the forty columns of a lane",
    };
    let part = Part {
        package: format!("part{number}-x"),
        number,
        adds: adds.to_owned(),
        rung: Vec::new(),
        more: Vec::new(),
        others: Vec::new(),
        against: None,
        rows: number >= 5,
        margin: None,
    };
    Contestant {
        part,
        program: PathBuf::from("no-such-program"),
        flags: flags.iter().map(ToString::to_string).collect(),
        rung,
        first: rung,
        rows: (number >= 5).then_some(8),
    }
}

pub(crate) fn output(code: i32, stdout: &str, stderr: &str) -> Output {
    Output {
        status: status(code),
        stdout: stdout.into(),
        stderr: stderr.into(),
    }
}

pub(crate) fn status(code: i32) -> ExitStatus {
    ExitStatus::from_raw(code << 8)
}

pub(crate) fn report(line: &str) -> Answers {
    Answers::of(&contestant(2, &[], true), &output(0, line, "")).unwrap()
}

/// Parts 2 and 3, and a variant of part 3 with other tokens.
pub(crate) fn results() -> Results {
    let rounds = |line: &str, speeds: [f64; 3]| {
        speeds.map(|decode_tps| {
            let mut report = report(line);
            report.runs[0].run.decode_tps = Some(decode_tps);
            report
        })
    };
    let contestants = [
        contestant(2, &[], true),
        contestant(3, &["--cache", "prealloc"], true),
        contestant(3, &["--cache", "rotating"], false),
    ];
    let reports = [
        rounds(NAIVE, [15.1, 14.9, 15.4]).to_vec(),
        rounds(PREALLOC, [139.9, 131.2, 141.0]).to_vec(),
        rounds(ROTATING, [75.4, 81.0, 79.3]).to_vec(),
    ];
    let ask = Ask {
        model: "tiny".into(),
        revision: None,
        dtype: None,
        prompt: "Explain black holes".into(),
        prompt_file: None,
        max_tokens: None,
        raw: false,
    };
    let bench = Bench {
        ask: &ask,
        contestants: &contestants,
        max_tokens: 8,
        rounds: 3,
        judge: None,
        interrupt: &Interrupt::default(),
    };
    bench.results(&reports, "2026-01-31", None).unwrap()
}
