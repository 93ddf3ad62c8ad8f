//! What was measured, as tables and curves, beside what was predicted.

use anyhow::Result;
use console::machine::Versions;
use console::metrics::{Line, Rounds, Run};
use console::numbers::{count, fixed, or_dash, plural};
use console::report::Report;
use console::results::JsonReport;
use shared::machine::versions;

use crate::experiment::{Bench, Variant};
use crate::plot::{self, Curve};

impl Bench<'_> {
    /// Prints the card, the tables, the curves and, if asked for, the chart and the JSON line.
    ///
    /// # Errors
    /// If the report or the chart cannot be written.
    pub(crate) fn report(&self, variants: &[Variant]) -> Result<()> {
        let versions = versions()?;
        let rounds: Vec<Rounds> = variants
            .iter()
            .filter_map(|variant| {
                let runs: Vec<Run> = variant.measured.iter().map(|m| m.run.clone()).collect();
                Rounds::of(&runs)
            })
            .collect();
        let mut report = Report::stdout();
        report.blank()?;
        report.card(&self.card(&rounds, &versions))?;
        report.blank()?;
        report.table(
            &HEAD,
            &rounds
                .iter()
                .map(|r| row(r, &rounds[0]))
                .collect::<Vec<_>>(),
        )?;
        report.blank()?;
        report.note(&same_tokens(&rounds))?;
        for note in variants
            .iter()
            .flat_map(|v| &v.measured)
            .flat_map(|m| &m.notes)
        {
            report.note(note)?;
        }
        report.blank()?;
        let series: Vec<(&str, &[f64])> = variants
            .iter()
            .filter_map(|v| Some((v.kind.name(), v.measured.first()?.steady_ms())))
            .collect();
        report.sparklines("ms/token", 2, &series)?;
        report.blank()?;
        let unit = Unit::of(variants);
        report.table(&unit.head(), &self.memory(variants, unit))?;
        report.blank()?;
        report.note(&self.formula())?;
        report.note(
            "`again`: positions computed before, in each layer. `held` is the formula for \
             `capacity` positions; what MLX says has the last step's arrays on top.",
        )?;
        report.blank()?;
        for sentence in lines(variants) {
            report.note(&sentence)?;
        }
        self.plot(&series)?;
        if self.args.output.json {
            report.json_line(&JsonReport {
                part: env!("CARGO_PKG_NAME"),
                model: &self.args.model.model,
                machine: &self.session.machine,
                versions: &versions,
                runs: &rounds,
            })?;
        }
        Ok(())
    }

    fn card(&self, rounds: &[Rounds], versions: &Versions) -> Vec<(String, String)> {
        let Some(last) = rounds.last() else {
            return Vec::new();
        };
        let mut rows = self.session.card(&last.run, versions);
        let n: Vec<String> = rounds
            .iter()
            .map(|r| format!("{} {}", r.run.variant, r.n))
            .collect();
        rows.push((
            "rounds".to_owned(),
            format!("{}; medians, ± half the IQR", n.join(", ")),
        ));
        rows
    }

    /// Predicted beside measured, per kind of cache.
    fn memory(&self, variants: &[Variant], unit: Unit) -> Vec<Vec<String>> {
        let per_token = self.kv_bytes_per_token();
        let row = |variant: &Variant| {
            let last = variant.measured.last()?;
            let kv = |bytes: u64| fixed(bytes as f64 / unit.bytes, 1);
            Some(vec![
                variant.kind.name().to_owned(),
                count(last.run.positions_recomputed.unwrap_or(0)),
                or_dash(
                    last.run
                        .peak_bytes
                        .map(|bytes| bytes as f64 / f64::from(1 << 20)),
                    1,
                ),
                count(last.offset as u64),
                kv(per_token * last.offset as u64),
                count(last.capacity as u64),
                kv(last.run.kv_bytes.unwrap_or(0)),
                kv(last.active),
            ])
        };
        variants.iter().filter_map(row).collect()
    }

    fn kv_bytes_per_token(&self) -> u64 {
        let checkpoint = &self.session.checkpoint;
        checkpoint
            .config
            .kv_bytes_per_token(checkpoint.activation_bytes())
    }

    fn formula(&self) -> String {
        let config = &self.session.checkpoint.config;
        format!(
            "Formula: 2 × {} layers × {} key/value heads × {} × {} bytes = {} bytes per position; \
             with all {} heads it would be {}.",
            config.num_hidden_layers,
            config.num_key_value_heads,
            config.head_dim,
            self.session.checkpoint.activation_bytes(),
            count(self.kv_bytes_per_token()),
            config.num_attention_heads,
            count(
                self.kv_bytes_per_token() * config.num_attention_heads as u64
                    / config.num_key_value_heads as u64
            ),
        )
    }

    fn plot(&self, series: &[(&str, &[f64])]) -> Result<()> {
        let Some(path) = &self.args.plot else {
            return Ok(());
        };
        let title = format!(
            "{}, {}",
            self.session.checkpoint.name, self.session.machine.name
        );
        let curves: Vec<Curve<'_>> = series
            .iter()
            .map(|&(label, token_ms)| Curve { label, token_ms })
            .collect();
        plot::save(path, &title, &curves)
    }
}

const HEAD: [&str; 6] = [
    "cache",
    "TTFT ms",
    "TPOT ms",
    "ITL p95 ms",
    "decode tok/s",
    "× off",
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
    ]
}

/// No time is told whose tokens were not compared.
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
            variant.kind.name(),
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
