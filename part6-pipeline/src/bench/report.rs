//! Both ways beside each other.

use std::io::Write;

use anyhow::Result;
use console::metrics::Summary;
use console::report::Report;
use console::serving::Serving;
use part5_batching::load::Load;
use serde_json::{Value, json};

use super::{Found, Round};

/// A number of a round.
type Number = fn(&Serving) -> Option<f64>;

/// The rows, named as vLLM names them.
const ROWS: [(&str, Number); 11] = [
    ("Output token throughput (tok/s)", |run| {
        run.output_throughput
    }),
    ("Total token throughput (tok/s)", |run| {
        run.total_token_throughput
    }),
    ("Request throughput (req/s)", |run| run.request_throughput),
    ("Mean TTFT (ms)", |run| run.ttft.mean),
    ("Median TTFT (ms)", |run| run.ttft.median),
    ("P99 TTFT (ms)", |run| run.ttft.p99),
    ("Median TPOT (ms)", |run| run.tpot.median),
    ("P99 TPOT (ms)", |run| run.tpot.p99),
    ("Median ITL (ms)", |run| run.itl.median),
    ("P99 ITL (ms)", |run| run.itl.p99),
    ("P99 E2EL (ms)", |run| run.e2el.p99),
];

/// Card and table, and whether the answers are the same.
///
/// # Errors
/// If it cannot be written.
pub(super) fn print<W: Write>(report: &mut Report<W>, found: &Found) -> Result<()> {
    let mut card = vec![
        ("model".to_owned(), found.model.clone()),
        (
            "machine".to_owned(),
            found.machine.describe(&found.versions),
        ),
    ];
    card.extend(found.machine.products_row());
    card.push(("load".to_owned(), load(found)));
    report.card(&card)?;
    report.blank()?;
    let rows: Vec<Vec<String>> = ROWS
        .iter()
        .map(|(name, number)| row(name, *number, found))
        .collect();
    report.table(&["", "engine", "server", "server ÷ engine"], &rows)?;
    report.blank()?;
    report.note(&same(found))?;
    let rounds = found.engine.len();
    let what = match rounds {
        1 => "One round, so no spread.".to_owned(),
        _ => format!(
            "Medians of {rounds} rounds in turns, ± half the IQR; the ratio is that of each pair."
        ),
    };
    report.note(&format!(
        "{what} engine: asked directly; server: over HTTP on this machine, whose cores the client needs, too."
    ))?;
    Ok(())
}

fn load(found: &Found) -> String {
    let Some(round) = found.server.first() else {
        return String::new();
    };
    let run = &round.serving;
    let rate = match run.offered.request_rate {
        rate if rate.is_finite() => format!("{rate} a second"),
        _ => "all at once".to_owned(),
    };
    let most = run.offered.max_concurrency;
    let most = most.map_or_else(String::new, |most| {
        format!(", {most} of them at the same time")
    });
    format!(
        "{} requests, {rate}{most}; {} tokens of prompts, {} of answers",
        run.completed, run.total_input_tokens, run.total_output_tokens
    )
}

fn row(name: &str, number: Number, found: &Found) -> Vec<String> {
    let of = |rounds: &[Round]| -> Vec<f64> {
        rounds
            .iter()
            .filter_map(|round| number(&round.serving))
            .collect()
    };
    let (ours, theirs) = (of(&found.engine), of(&found.server));
    let ratios: Vec<f64> = ours
        .iter()
        .zip(&theirs)
        .map(|(ours, theirs)| theirs / ours)
        .collect();
    let decimals = if name.contains("tok/s") { 0 } else { 2 };
    vec![
        name.to_owned(),
        spread(&ours, decimals),
        spread(&theirs, decimals),
        spread(&ratios, 3),
    ]
}

fn spread(values: &[f64], decimals: usize) -> String {
    Summary::of(values).map_or_else(|| "–".to_owned(), |summary| summary.text(decimals))
}

/// Answers of all rounds that are not those of the engine's first one.
fn others(found: &Found) -> usize {
    let Some(first) = found.engine.first() else {
        return 0;
    };
    let rounds = found.engine.iter().chain(&found.server);
    let other = |round: &Round| {
        let pairs = first.texts.iter().zip(&round.texts);
        pairs.filter(|(first, other)| first != other).count()
    };
    rounds.map(other).sum()
}

fn same(found: &Found) -> String {
    let all: usize = found.server.iter().map(|round| round.texts.len()).sum();
    match others(found) {
        0 => format!("All {all} answers of the server are those of the engine."),
        some => format!(
            "{some} answers of {} are not those of the first round: a batch of another size rounds in another way.",
            2 * all
        ),
    }
}

/// All rounds, with the keys of vLLM's result files.
pub(super) fn json(found: &Found, load: &Load) -> Value {
    let rounds = |rounds: &[Round]| -> Vec<Value> {
        rounds.iter().map(|round| round.serving.json()).collect()
    };
    let ratio = |found: &Found| -> Option<Summary> {
        let pairs = found.engine.iter().zip(&found.server);
        let ratio = |(ours, theirs): (&Round, &Round)| {
            Some(theirs.serving.output_throughput? / ours.serving.output_throughput?)
        };
        Summary::of(&pairs.filter_map(ratio).collect::<Vec<f64>>())
    };
    json!({
        "part": env!("CARGO_PKG_NAME"),
        "model": found.model,
        "machine": found.machine,
        "versions": found.versions,
        "requests": load.requests.len(),
        "engine": rounds(&found.engine),
        "server": rounds(&found.server),
        "server_to_engine": ratio(found),
        "other_answers": others(found),
    })
}
