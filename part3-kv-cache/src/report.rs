//! What was measured, as tables and curves, beside what was predicted.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use console::metrics::{Rounds, Run};
use console::numbers::{count, fixed, megabytes, or_dash};
use console::report::Report;
use console::results::JsonReport;
use shared::machine::versions;
use shared::session::Session;

use crate::bench::{Bench, Variant};
use crate::plot::{self, Curve};
use crate::says;

/// Prints the card, the tables, the curves, and the result in a sentence.
///
/// # Errors
/// If the report cannot be written.
pub fn print(bench: &Bench<'_>, variants: &[Variant]) -> Result<()> {
    let rounds = rounds(variants);
    let mut report = Report::stdout();
    report.blank()?;
    report.card(&card(bench, &rounds)?)?;
    report.blank()?;
    times(&mut report, &rounds)?;
    report.sparklines("ms/token", 1, &series(variants))?;
    says::lines(variants)
        .iter()
        .try_for_each(|sentence| report.note(sentence))?;
    report.blank()?;
    let unit = Unit::of(variants);
    report.table(&unit.head, &memory(bench, variants, unit))?;
    report.blank()?;
    report.note(&formula(bench))?;
    report.note(
        "`again`, `offset` and `room` are positions: computed though they had been before, seen, and \
         with room. `needs` is the formula for `offset`, `held` for `room`; what MLX says has the last \
         step's arrays on top.",
    )?;
    if let Some(sentence) = says::result(bench, variants, &rounds) {
        report.blank()?;
        report.note(&sentence)?;
    }
    Ok(())
}

/// How fast each answer was, and what the columns are called in full.
fn times<W: Write>(report: &mut Report<W>, rounds: &[Rounds]) -> Result<()> {
    let mut head = HEAD.to_vec();
    let mut rows: Vec<_> = rounds.iter().map(row).collect();
    let off = rounds.first().filter(|r| r.run.variant == "off");
    if let (Some(off), true) = (off, rounds.len() > 1) {
        head.insert(RATIO, "× off");
        for (row, rounds) in rows.iter_mut().zip(rounds) {
            row.insert(RATIO, or_dash(says::ratio(&rounds.run, &off.run), 1));
        }
    }
    report.table(&head, &rows)?;
    report.blank()?;
    report.note(
        "TTFT: time to first token. TPOT: time per output token after it. ITL p95: 95 % of the gaps \
         between two tokens are shorter. MBU: the share of the ceiling that decode reaches.",
    )?;
    let same = says::same_tokens(rounds);
    same.iter().try_for_each(|sentence| report.note(sentence))?;
    Ok(report.blank()?)
}

/// The line of JSON with all numbers.
///
/// # Errors
/// If it cannot be written.
pub fn json(bench: &Bench<'_>, variants: &[Variant], model: &str) -> Result<()> {
    Ok(Report::stdout().json_line(&JsonReport {
        part: env!("CARGO_PKG_NAME"),
        model,
        machine: &bench.session.machine,
        versions: &versions()?,
        runs: &rounds(variants),
    })?)
}

/// The curves as a chart.
///
/// # Errors
/// If the file cannot be written.
pub fn plot(bench: &Bench<'_>, variants: &[Variant], path: &Path) -> Result<()> {
    let Session {
        checkpoint,
        machine,
        ..
    } = bench.session;
    let title = format!("{}, {}", checkpoint.name, machine.name);
    let curves: Vec<Curve<'_>> = series(variants)
        .into_iter()
        .map(|(label, token_ms)| Curve { label, token_ms })
        .collect();
    plot::save(path, &title, &curves)
}

fn rounds(variants: &[Variant]) -> Vec<Rounds> {
    let rounds = |variant: &Variant| {
        let runs: Vec<Run> = variant.measured.iter().map(|m| m.run.clone()).collect();
        Rounds::of(&runs)
    };
    variants.iter().filter_map(rounds).collect()
}

/// Milliseconds per token of the first round of each variant.
fn series(variants: &[Variant]) -> Vec<(&'static str, &[f64])> {
    variants
        .iter()
        .filter_map(|v| Some((v.label, v.measured.first()?.steady_ms())))
        .collect()
}

fn card(bench: &Bench<'_>, rounds: &[Rounds]) -> Result<Vec<(String, String)>> {
    let Some(last) = rounds.last() else {
        return Ok(Vec::new());
    };
    let mut rows = bench.session.card(&last.run, &versions()?);
    if rounds.iter().any(|r| r.n > 1) {
        let n = rounds.iter().map(|r| format!("{} {}", r.run.variant, r.n));
        let n: Vec<String> = n.collect();
        rows.push((
            "rounds".to_owned(),
            format!("{}; medians, ± half the IQR", n.join(", ")),
        ));
    }
    Ok(rows)
}

/// Predicted beside measured, per kind of cache.
fn memory(bench: &Bench<'_>, variants: &[Variant], unit: Unit) -> Vec<Vec<String>> {
    let per_token = kv_bytes_per_token(bench);
    let row = |variant: &Variant| {
        let last = variant.measured.last()?;
        let kv = |bytes: u64| fixed(bytes as f64 / unit.bytes, 1);
        Some(vec![
            variant.label.to_owned(),
            count(last.run.positions_recomputed.unwrap_or(0)),
            count(last.offset as u64),
            count(last.capacity as u64),
            kv(per_token * last.offset as u64),
            kv(last.run.kv_bytes.unwrap_or(0)),
            kv(last.active),
            megabytes(last.run.peak_bytes, 1),
        ])
    };
    variants.iter().filter_map(row).collect()
}

/// Keys and values of one position, in all layers.
pub fn kv_bytes_per_token(bench: &Bench<'_>) -> u64 {
    let checkpoint = &bench.session.checkpoint;
    checkpoint
        .config
        .kv_bytes_per_token(checkpoint.activation_bytes())
}

fn formula(bench: &Bench<'_>) -> String {
    let checkpoint = &bench.session.checkpoint;
    let config = &checkpoint.config;
    let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
    let bytes = kv_bytes_per_token(bench);
    format!(
        "Formula: 2 × {} layers × {kv_heads} key/value heads × {} × {} bytes = {} bytes per position; \
         with all {heads} heads it would be {}.",
        config.num_hidden_layers,
        config.head_dim,
        checkpoint.activation_bytes(),
        count(bytes),
        count(bytes * heads as u64 / kv_heads as u64),
    )
}

const HEAD: [&str; 6] = [
    "cache",
    "TTFT ms",
    "TPOT ms",
    "ITL p95 ms",
    "decode tok/s",
    "MBU %",
];

/// Where the comparison with `off` has its column.
const RATIO: usize = 5;

/// The unit in which a table tells keys and values: the smallest in which the numbers stay short.
#[derive(Debug, Clone, Copy)]
struct Unit {
    head: [&'static str; 8],
    bytes: f64,
}

impl Unit {
    const KB: Self = Self {
        head: [
            "cache", "again", "offset", "room", "needs kB", "held kB", "MLX kB", "peak MB",
        ],
        bytes: 1e3,
    };
    const MB: Self = Self {
        head: [
            "cache", "again", "offset", "room", "needs MB", "held MB", "MLX MB", "peak MB",
        ],
        bytes: 1e6,
    };

    fn of(variants: &[Variant]) -> Self {
        let all = variants.iter().filter_map(|v| v.measured.last());
        let largest = all.map(|m| m.active.max(m.run.kv_bytes.unwrap_or(0))).max();
        Self::for_bytes(largest.unwrap_or(0))
    }

    fn for_bytes(largest: u64) -> Self {
        if largest < 10_000_000 {
            Self::KB
        } else {
            Self::MB
        }
    }
}

fn row(rounds: &Rounds) -> Vec<String> {
    let Rounds { run, .. } = rounds;
    vec![
        run.variant.clone(),
        or_dash(run.ttft_ms, 1),
        or_dash(run.tpot_ms, 2),
        or_dash(run.itl_p95_ms, 2),
        match rounds.decode_tps_half_iqr {
            Some(spread) if rounds.n > 1 => {
                format!("{} ± {}", or_dash(run.decode_tps, 1), fixed(spread, 1))
            }
            _ => or_dash(run.decode_tps, 1),
        },
        or_dash(run.mbu.map(|share| 100.0 * share), 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_memory_stay_short() {
        for bytes in [0, 4096, 9_999_000, 10_000_000, 4_000_000_000, 9_000_000_000] {
            let text = fixed(bytes as f64 / Unit::for_bytes(bytes).bytes, 1);
            assert!(text.len() <= "9,999.9".len(), "{bytes}: {text}");
        }
    }
}
