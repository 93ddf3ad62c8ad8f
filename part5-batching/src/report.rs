//! What was measured, in cells and sentences.

use std::io::Write;

use anyhow::Result;
use console::numbers::{fixed, or_dash, plural};
use console::report::{Report, warn};
use console::results::JsonReport;
use console::serving::{Batched, Latency, Serving, batched_table};
use serde_json::{Value, json};
use shared::machine::versions;
use shared::session::Session;

use crate::load::Load;
use crate::roofline;
use crate::serve::Run;
use crate::tour::{self, Outcome, Point, SERVED_ROWS, SWEEP};

/// The model and the machine.
///
/// # Errors
/// If it cannot be written.
pub fn card<W: Write>(report: &mut Report<W>, session: &Session) -> Result<()> {
    let mut rows = session.about(&versions()?);
    rows.extend(session.machine.products_row());
    report.card(&rows)?;
    Ok(report.blank()?)
}

/// What a batch buys.
///
/// # Errors
/// If it cannot be written.
pub fn sweep<W: Write>(report: &mut Report<W>, session: &Session, points: &[Point]) -> Result<()> {
    let (prompt, answer) = SWEEP;
    report.note(&format!(
        "1. A batch: rows of {prompt} prompt and {answer} answer tokens, all in step."
    ))?;
    report.blank()?;
    let alone = points.first().map_or(f64::NAN, Point::throughput);
    let bandwidth = session.machine.bandwidth_bytes_per_s;
    let row = |point: &Point| {
        let dot = roofline::decode(&session.checkpoint, point);
        let share = bandwidth.map(|bandwidth| dot.flops / dot.intensity / bandwidth);
        vec![
            point.rows.to_string(),
            fixed(1e3 * point.step, 2),
            fixed(point.throughput(), 0),
            fixed(point.throughput() / alone, 2),
            or_dash(share.map(|share| 100.0 * share), 0),
            fixed(dot.intensity, 1),
            fixed(dot.flops / 1e9, 1),
        ]
    };
    let rows: Vec<_> = points.iter().map(row).collect();
    report.table(
        &[
            "rows",
            "TPOT ms",
            "tok/s",
            "× 1 row",
            "roof %",
            "FLOP/byte",
            "GFLOP/s",
        ],
        &rows,
    )?;
    report.blank()?;
    let bars: Vec<(String, f64)> = points
        .iter()
        .map(|point| (point.rows.to_string(), point.throughput()))
        .collect();
    let bars: Vec<(&str, f64)> = bars
        .iter()
        .map(|(rows, tps)| (rows.as_str(), *tps))
        .collect();
    report.bars("rows", "tok/s", 0, &bars)?;
    report.blank()?;
    if let Some(last) = points.last() {
        report.note(&format!(
            "{} rows give {} times the tokens of one, and each of them waits {} times as long for its next \
             token: a step reads the weights once for all rows, but multiplies for each.",
            last.rows,
            fixed(last.throughput() / alone, 1),
            fixed(last.step * alone, 1),
        ))?;
    }
    Ok(report.blank()?)
}

/// A latency's median and its 99th percentile.
fn two(latency: &Latency, decimals: usize) -> [String; 2] {
    [
        or_dash(latency.median, decimals),
        or_dash(latency.p99, decimals),
    ]
}

fn cells(outcome: &Outcome) -> Vec<String> {
    let Serving {
        ttft,
        tpot,
        itl,
        output_throughput,
        steps,
        ..
    } = &outcome.serving;
    let [ttft, ttft_p99] = two(ttft, 0);
    let [tpot, _] = two(tpot, 1);
    let [_, itl_p99] = two(itl, 1);
    let rows = steps.as_ref().and_then(|steps| steps.mean_rows);
    vec![
        outcome.name.clone(),
        or_dash(*output_throughput, 0),
        ttft,
        ttft_p99,
        tpot,
        itl_p99,
        or_dash(rows, 1),
    ]
}

fn outcomes<W: Write>(report: &mut Report<W>, name: &str, all: &[Outcome]) -> Result<()> {
    report.blank()?;
    let rows: Vec<_> = all.iter().map(cells).collect();
    report.table(
        &[
            name,
            "tok/s",
            "TTFT ms",
            "TTFT p99",
            "TPOT ms",
            "ITL p99 ms",
            "rows/step",
        ],
        &rows,
    )?;
    Ok(report.blank()?)
}

/// Who may join.
///
/// # Errors
/// If it cannot be written.
pub fn policies<W: Write>(report: &mut Report<W>, all: &[Outcome]) -> Result<()> {
    let sent = all.first().map_or(0, |outcome| outcome.run.served.len());
    report.note(&format!(
        "2. Who may join: {sent} requests, the same arrivals each time, {SERVED_ROWS} rows."
    ))?;
    outcomes(report, "policy", all)?;
    if let [statically, .., continuous] = all
        && let (Some(waited), Some(waits)) = (
            statically.serving.ttft.median,
            continuous.serving.ttft.median,
        )
    {
        report.note(&format!(
            "A request waits for the batch before it, or for others to fill its own. Taken in at any step it has its \
             first token {} times as soon.",
            fixed(waited / waits, 1)
        ))?;
    }
    Ok(report.blank()?)
}

/// In which pieces prompts are read.
///
/// # Errors
/// If it cannot be written.
pub fn pieces<W: Write>(report: &mut Report<W>, all: &[Outcome]) -> Result<()> {
    report.note(
        "3. Pieces of prompts: each third request has a prompt of 480 tokens. While a piece is read, all answers \
         wait for it.",
    )?;
    outcomes(report, "piece", all)
}

/// How many requests a second.
///
/// # Errors
/// If it cannot be written.
pub fn rates<W: Write>(report: &mut Report<W>, all: &[Outcome]) -> Result<()> {
    report.note("4. Rates: the same requests, faster and faster.")?;
    outcomes(report, "req/s", all)?;
    if let Some(knee) = tour::knee(all) {
        report.note(&format!(
            "Up to {} requests a second an answer takes at most twice as long as on an idle machine: that is the \
             knee. Beyond it the queue grows.",
            knee.name
        ))?;
    }
    Ok(())
}

/// Says on stderr what was refused or cut off.
pub fn told(run: &Run) {
    if let (number @ 1.., Some(why)) = &run.refused {
        warn(&format!(
            "{number} {} refused: {why}",
            plural(*number, "request")
        ));
    }
    if run.interrupted {
        let done = run
            .served
            .iter()
            .filter(|served| served.completed())
            .count();
        warn(&format!(
            "interrupted: {done} of {} requests had ended, the numbers are theirs",
            run.served.len()
        ));
    }
}

/// The load as a row of llama.cpp's table.
///
/// # Errors
/// If it cannot be written.
pub fn llama_bench<W: Write>(report: &mut Report<W>, load: &Load, run: &Run) -> Result<()> {
    let longest = |number: fn(&crate::load::Planned) -> usize| {
        load.requests.iter().map(number).max().unwrap_or(0)
    };
    let [prompt_seconds, answer_seconds] = run.seconds();
    let row = Batched {
        prompt: longest(|request| request.prompt_tokens),
        answer: longest(|request| request.output_tokens),
        rows: load.requests.len(),
        prompt_seconds,
        answer_seconds,
    };
    Ok(batched_table(report, &[row])?)
}

/// All tables of the default run as one JSON line.
///
/// # Errors
/// If it cannot be written.
pub fn json<W: Write>(
    report: &mut Report<W>,
    session: &Session,
    model: &str,
    points: &[Point],
    all: &[(&str, &[Outcome])],
) -> Result<()> {
    let point = |point: &Point| {
        json!({
            "table": "batch", "variant": point.rows.to_string(), "rows": point.rows,
            "tpot_ms": 1e3 * point.step, "throughput_tps": point.throughput(),
            "prompt_seconds": point.prompts, "answer_seconds": point.answers,
        })
    };
    let mut runs: Vec<Value> = points.iter().map(point).collect();
    for (table, outcomes) in all {
        runs.extend(outcomes.iter().map(|outcome| {
            let mut run = outcome.serving.json();
            run["table"] = json!(table);
            run["variant"] = json!(outcome.name);
            run
        }));
    }
    line(report, session, model, &runs)
}

/// One load as the JSON line.
///
/// # Errors
/// If it cannot be written.
pub fn serving_json<W: Write>(
    report: &mut Report<W>,
    session: &Session,
    model: &str,
    variant: &str,
    mut run: Value,
) -> Result<()> {
    run["variant"] = json!(variant);
    line(report, session, model, &[run])
}

fn line<W: Write>(
    report: &mut Report<W>,
    session: &Session,
    model: &str,
    runs: &[Value],
) -> Result<()> {
    Ok(report.json_line(&JsonReport {
        part: "part5-batching",
        model,
        machine: &session.machine,
        versions: &versions()?,
        runs,
    })?)
}

/// The numbers that a prediction is about: tokens per second, then medians and 99th percentiles in ms.
pub const PREDICTED: [&str; 6] = [
    "output tok/s",
    "TTFT median ms",
    "TTFT p99 ms",
    "TPOT median ms",
    "TPOT p99 ms",
    "E2E median ms",
];

/// The same of a run.
pub fn predicted(serving: &Serving) -> [Option<f64>; 6] {
    let Serving {
        output_throughput,
        ttft,
        tpot,
        e2el,
        ..
    } = serving;
    [
        *output_throughput,
        ttft.median,
        ttft.p99,
        tpot.median,
        tpot.p99,
        e2el.median,
    ]
}
