//! Step 6 on a terminal.

use std::io::Write;

use anyhow::Result;
use console::numbers::{count, decimal, fixed};

use super::{Screen, tiny};
use crate::trace::{Recompute, Trace};

pub(super) fn show<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    let found = &trace.recompute;
    screen.say(&format!(
        "No token sees the ones after it, so what was computed for it cannot change. Keys and values of \
         the prompt in the first and the last round: largest difference {}. The loop \
         computes them again all the same:",
        tiny(found.largest_change)
    ))?;
    screen.report.blank()?;
    let rows = rounds(found);
    let head = [
        "round",
        "positions computed",
        "computed before",
        "with a cache",
    ];
    screen.picture(|report| report.table(&head, &rows))?;
    screen.say(&format!(
        "{} of {} positions for nothing, in each of {} layers: {} million operations where {} would do.",
        count(found.repeated.iter().sum()),
        count(found.computed.iter().sum()),
        trace.model.layers,
        fixed(found.flops_naive as f64 / 1e6, 0),
        fixed(found.flops_cached as f64 / 1e6, 0)
    ))?;
    screen.report.blank()?;
    screen.say(&kv(trace))?;
    screen.report.blank()?;
    answers(screen, trace)
}

fn rounds(found: &Recompute) -> Vec<Vec<String>> {
    let both = found.computed.iter().zip(&found.repeated).enumerate();
    let row = |(round, (computed, repeated)): (usize, (&u64, &u64))| {
        vec![
            (round + 1).to_string(),
            count(*computed),
            count(*repeated),
            count(computed - repeated),
        ]
    };
    both.map(row).collect()
}

fn kv(trace: &Trace) -> String {
    let model = &trace.model;
    let found = &trace.recompute;
    let all_heads = if model.heads == model.kv_heads {
        String::new()
    } else {
        format!(
            " (with all {} query heads it would be {}: only key/value heads are kept)",
            model.heads,
            decimal(found.kv_bytes_per_token_all_heads)
        )
    };
    format!(
        "A cache keeps keys and values: 2 · layers · Hkv · D · bytes = 2 · {} · {} · {} · {} = {} a \
         token{all_heads}.",
        model.layers,
        model.kv_heads,
        model.head_dim,
        model.activation_bytes,
        decimal(found.kv_bytes_per_token)
    )
}

fn answers<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    screen.say(&format!(
        "After this prompt of p = {} tokens, an answer of n repeats (n-1)(p-1) + n(n-1)/2 positions in \
         every layer:",
        trace.tokens.len()
    ))?;
    screen.report.blank()?;
    let rows: Vec<Vec<String>> = trace
        .recompute
        .answers
        .iter()
        .map(|answer| {
            vec![
                count(answer.tokens),
                count(answer.repeated),
                count(answer.of_answer),
                decimal(answer.kv_bytes),
            ]
        })
        .collect();
    let head = [
        "answer",
        "repeated",
        "of them the answer's",
        "a cache would take",
    ];
    screen.picture(|report| report.table(&head, &rows))
}
