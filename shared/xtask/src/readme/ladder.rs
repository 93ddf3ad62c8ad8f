//! The ladder: what each part made of the same question, as `cargo compare` measured it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use console::metrics::Summary;
use console::results::{self, Results, Step};

use crate::series::Series;

const NONE: &str = "Nothing has been measured for this table yet. Run it: `cargo compare`.";

/// The newest file of each machine, model and type; a sentence if there is none.
pub(super) fn render(series: &Series) -> Result<String> {
    let mut newest = BTreeMap::new();
    for (path, results) in results::read_all(&series.root.join(results::FOLDER))? {
        let key = (
            results.machine.name.clone(),
            results.model.clone(),
            results.dtype.clone(),
        );
        let entry = newest.entry(key).or_insert((path.clone(), results.clone()));
        if entry.1.date <= results.date {
            *entry = (path, results);
        }
    }
    let mut tables = Vec::new();
    for (path, results) in newest.values() {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut text = table(series, results, &stem);
        if path.with_extension("svg").is_file() {
            let folder = results::FOLDER;
            let _ = write!(text, "\n![the same as a chart]({folder}/{stem}.svg)\n");
        }
        tables.push(text);
    }
    Ok(if tables.is_empty() {
        NONE.to_owned()
    } else {
        tables.join("\n")
    })
}

fn table(series: &Series, results: &Results, stem: &str) -> String {
    let mut text = format!("{}\n\n{HEAD}", caption(results, stem));
    for (index, step) in results.rungs().enumerate() {
        let _ = writeln!(text, "{}", row(series, step, index == 0));
    }
    text
}

const HEAD: &str = "\
| part | what it adds | TTFT ms | TPOT ms | decode tok/s per row | tok/s of all rows | peak MB | weights MB | KV kB | × part 2 | tokens |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

fn caption(results: &Results, stem: &str) -> String {
    let machine = &results.machine;
    let dtype = results
        .dtype
        .as_deref()
        .map_or_else(String::new, |dtype| format!(" in {dtype}"));
    format!(
        "**{}{dtype}** on {} ({} cores, {}, {}, MLX {} on {}, mlx-rs {}), {}: \
         {} prompt tokens, {} new ones, greedy; median ± half the interquartile range of {} fresh \
         processes each, in alternating order. [All numbers]({}/{stem}.json)",
        results.model,
        machine.name,
        machine.cores,
        machine.memory_text(),
        machine.os,
        results.versions.mlx,
        machine.backend,
        results.versions.mlx_rs,
        results.date,
        results.prompt_tokens,
        results.new_tokens,
        results.n,
        results::FOLDER,
    )
}

fn row(series: &Series, step: &Step, reference: bool) -> String {
    let there = series.parts.iter().any(|part| part.package == step.part);
    let part = if there {
        format!("[{}]({}) {}", step.number, step.part, step.variant)
    } else {
        format!("{} {}", step.number, step.variant)
    };
    let bytes = |bytes: Option<u64>, unit: f64| {
        bytes.map_or_else(String::new, |bytes| format!("{:.1}", bytes as f64 / unit))
    };
    let tokens = match (reference, step.first_difference) {
        (true, _) => "reference".to_owned(),
        (_, None) => "the same".to_owned(),
        (_, Some(at)) => format!("differ from no. {} on{}", at + 1, margin(step)),
    };
    let cells = [
        part,
        step.adds.clone(),
        spread(&step.ttft_ms),
        spread(&step.tpot_ms),
        spread(&step.decode_tps),
        spread(&step.throughput_tps),
        bytes(step.peak_bytes, 1e6),
        bytes(step.weight_bytes, 1e6),
        bytes(step.kv_bytes, 1e3),
        step.ratio_to_part2
            .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        tokens,
    ];
    format!("| {} |", cells.join(" | "))
}

/// ` (0.12 nats)`
fn margin(step: &Step) -> String {
    let nats = step.margin_nats;
    nats.map_or_else(String::new, |nats| format!(" ({nats:.3} nats)"))
}

fn spread(spread: &Summary) -> String {
    let digits = match spread.median {
        median if median < 10.0 => 2,
        median if median < 1000.0 => 1,
        _ => 0,
    };
    spread.text(digits)
}
