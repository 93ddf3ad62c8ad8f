//! What was measured, as tables and curves, beside what was predicted.

use std::path::Path;

use anyhow::Result;
use console::metrics::{Line, Rounds, Run};
use console::numbers::{count, fixed, or_dash, plural};
use console::report::Report;
use console::results::JsonReport;
use shared::machine::versions;
use shared::session::Session;

use crate::bench::{Bench, Variant, name};
use crate::plot::{self, Curve};

/// Prints the card, the tables and the curves.
///
/// # Errors
/// If the report cannot be written.
pub fn print(bench: &Bench<'_>, variants: &[Variant], notes: &[String]) -> Result<()> {
    let rounds = rounds(variants);
    let mut report = Report::stdout();
    report.blank()?;
    report.card(&card(bench, &rounds)?)?;
    report.blank()?;
    let rows: Vec<_> = rounds.iter().map(|r| row(r, &rounds[0])).collect();
    report.table(&HEAD, &rows)?;
    report.blank()?;
    report.note(&same_tokens(&rounds))?;
    for note in notes {
        report.note(note)?;
    }
    report.blank()?;
    report.sparklines("ms/token", 2, &series(variants))?;
    report.blank()?;
    let unit = Unit::of(variants);
    report.table(&unit.head(), &memory(bench, variants, unit))?;
    report.blank()?;
    report.note(&formula(bench))?;
    report.note(
        "`again`: positions computed before, in each layer. `held` is the formula for \
         `capacity` positions; what MLX says has the last step's arrays on top.",
    )?;
    report.blank()?;
    lines(variants)
        .iter()
        .try_for_each(|sentence| report.note(sentence))?;
    Ok(())
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
        .filter_map(|v| Some((name(v.kind), v.measured.first()?.steady_ms())))
        .collect()
}

fn card(bench: &Bench<'_>, rounds: &[Rounds]) -> Result<Vec<(String, String)>> {
    let Some(last) = rounds.last() else {
        return Ok(Vec::new());
    };
    let mut rows = bench.session.card(&last.run, &versions()?);
    let n: Vec<String> = rounds
        .iter()
        .map(|r| format!("{} {}", r.run.variant, r.n))
        .collect();
    rows.push((
        "rounds".to_owned(),
        format!("{}; medians, ± half the IQR", n.join(", ")),
    ));
    Ok(rows)
}

/// Predicted beside measured, per kind of cache.
fn memory(bench: &Bench<'_>, variants: &[Variant], unit: Unit) -> Vec<Vec<String>> {
    let per_token = kv_bytes_per_token(bench);
    let row = |variant: &Variant| {
        let last = variant.measured.last()?;
        let kv = |bytes: u64| fixed(bytes as f64 / unit.bytes, 1);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Some(vec![
            name(variant.kind).to_owned(),
            count(last.run.positions_recomputed.unwrap_or(0)),
            or_dash(last.run.peak_bytes.map(mib), 1),
            count(last.offset as u64),
            kv(per_token * last.offset as u64),
            count(last.capacity as u64),
            kv(last.run.kv_bytes.unwrap_or(0)),
            kv(last.active),
        ])
    };
    variants.iter().filter_map(row).collect()
}

fn kv_bytes_per_token(bench: &Bench<'_>) -> u64 {
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

const HEAD: [&str; 7] = [
    "cache",
    "TTFT ms",
    "TPOT ms",
    "ITL p95 ms",
    "decode tok/s",
    "× off",
    "MBU %",
];

/// The unit in which a table tells keys and values: the smallest in which the numbers stay short.
#[derive(Debug, Clone, Copy)]
struct Unit {
    name: &'static str,
    bytes: f64,
}

impl Unit {
    fn of(variants: &[Variant]) -> Self {
        let all = variants.iter().filter_map(|v| v.measured.last());
        let largest = all.map(|m| m.active.max(m.run.kv_bytes.unwrap_or(0))).max();
        Self::for_bytes(largest.unwrap_or(0))
    }

    fn for_bytes(largest: u64) -> Self {
        match largest >> 10 {
            0..10_000 => Self {
                name: "KV KiB",
                bytes: 1024.0,
            },
            _ => Self {
                name: "KV MiB",
                bytes: 1024.0 * 1024.0,
            },
        }
    }

    fn head(self) -> [&'static str; 8] {
        [
            self.name, "again", "peak MiB", "offset", "formula", "capacity", "held", "MLX says",
        ]
    }
}

fn row(rounds: &Rounds, first: &Rounds) -> Vec<String> {
    let Rounds { run, .. } = rounds;
    let ratio = run.decode_tps.zip(first.run.decode_tps).map(|(a, b)| a / b);
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
        or_dash(ratio.filter(|_| first.run.variant == "off"), 2),
        or_dash(run.mbu.map(|share| 100.0 * share), 1),
    ]
}

/// Times are worth comparing only if the tokens are the same.
fn same_tokens(rounds: &[Rounds]) -> String {
    let first = &rounds[0].run;
    let difference = |other: &Run| {
        let mut pairs = first.tokens.iter().zip(&other.tokens);
        let at = pairs.position(|(a, b)| a != b);
        at.or((first.tokens.len() != other.tokens.len())
            .then_some(first.tokens.len().min(other.tokens.len())))
    };
    let others = rounds.iter().skip(1).map(|other| {
        let name = &other.run.variant;
        match difference(&other.run) {
            None => format!("{name} gives the same tokens"),
            Some(index) => format!("{name} differs from token {} on", index + 1),
        }
    });
    let others: Vec<String> = others.collect();
    if others.is_empty() {
        let tokens = first.tokens.len();
        return format!("{tokens} {}.", plural(tokens, "token"));
    }
    format!("Beside {}: {}.", first.variant, others.join(", "))
}

/// What a line through the times of the first round says, the same that the curves show: with a cache
/// it should be flat. The first gap is left out, too: there the host is not yet a step ahead.
fn lines(variants: &[Variant]) -> Vec<String> {
    let sentence = |variant: &Variant| {
        let times = variant.measured.first()?.steady_ms();
        let line = Line::fit(times.get(1..)?)?;
        let sign = if line.slope < 0.0 { '−' } else { '+' };
        Some(format!(
            "{}: {} ms {sign} {} µs for each further token, residual {} ms",
            name(variant.kind),
            fixed(line.intercept, 2),
            fixed(line.slope.abs() * 1e3, 1),
            fixed(line.residual, 2),
        ))
    };
    variants.iter().filter_map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_memory_stay_short() {
        for bytes in [0, 4096, 9_999 << 10, 10_000 << 10, 4 << 30, 9 << 30] {
            let text = fixed(bytes as f64 / Unit::for_bytes(bytes).bytes, 1);
            assert!(text.len() <= "9,999.9".len(), "{bytes}: {text}");
        }
    }
}
