//! A part beside mlx-lm as text, in 80 columns.

use std::io::{self, Write};

use console::report::Report;
use console::text::clip;

use super::{Beside, Setting};
use crate::text::one_line;

/// Card, table, and whether the tokens are the same.
///
/// # Errors
/// If it cannot be written.
pub fn print<W: Write>(report: &mut Report<W>, beside: &Beside) -> io::Result<()> {
    report.card(&card(beside))?;
    report.blank()?;
    let part = format!("{} {}", short(&beside.part), one_line(&beside.variant));
    let head = ["", &part, "mlx-lm", "ratio"];
    let rows = beside.rows.iter().map(|row| {
        let [ours, theirs] = [row.ours, row.theirs].map(|side| side.text(decimals(side.median)));
        vec![row.name.to_owned(), ours, theirs, row.ratio.text(2) + " ×"]
    });
    report.table(&head, &rows.collect::<Vec<_>>())?;
    report.blank()?;
    report.note(&tokens(beside))
}

/// `part3-kv-cache` → `part 3`.
fn short(package: &str) -> String {
    let name = package.split('-').next().unwrap_or(package);
    name.replacen("part", "part ", 1)
}

fn card(beside: &Beside) -> Vec<(&'static str, String)> {
    let dtype = beside.dtype.as_ref();
    let dtype = dtype.map_or_else(String::new, |dtype| format!(" as {dtype}"));
    let theirs = &beside.their_versions;
    vec![
        ("model", format!("{}{dtype}", beside.model)),
        ("machine", beside.machine.describe(&beside.versions)),
        (
            "beside",
            format!("mlx-lm {}, MLX {}", theirs.mlx_lm, theirs.mlx),
        ),
        (
            "asked",
            format!(
                "{} ({} tokens), {} new tokens, greedy",
                clip(&one_line(&beside.prompt), 120),
                beside.prompt_tokens,
                beside.new_tokens
            ),
        ),
        ("both", both(&beside.setting)),
        (
            "measured",
            format!(
                "n = {}, a fresh process each, in turns; medians ± half the IQR; the ratio is that of each round",
                beside.n
            ),
        ),
    ]
}

/// `2 threads, OMP_WAIT_POLICY=passive, libblas-….so.3`
fn both(setting: &Setting) -> String {
    let blas = setting.blas.as_ref();
    let blas = blas.map_or_else(String::new, |name| format!(", {name}"));
    let Setting {
        threads,
        wait_policy,
        ..
    } = setting;
    format!("{threads} threads, OMP_WAIT_POLICY={wait_policy}{blas}")
}

/// Three figures or more.
fn decimals(median: f64) -> usize {
    match median {
        median if median < 10.0 => 2,
        median if median < 1000.0 => 1,
        _ => 0,
    }
}

fn tokens(beside: &Beside) -> String {
    match beside.first_difference {
        None => format!(
            "Tokens: the same {} in all answers of both.",
            beside.new_tokens
        ),
        Some(at) => format!(
            "Tokens: DIFFERENT from token {} of {} on.",
            at + 1,
            beside.new_tokens
        ),
    }
}
