//! Which sentence of a long prompt is forgotten as the window shrinks.
//!
//! The model reads all sentences, then one of them again, token by token. What it has seen it finds
//! less surprising the second time; what its cache has dropped surprises it as before. Perplexity is
//! `exp(mean(−ln p))` over the tokens of the repeated sentence but the first two, which say which
//! sentence it is. A sentence is found if its perplexity is nearer, in ratio, to that with everything
//! stored than to that with nothing read before.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use console::numbers::fixed;
use console::report::{Report, status};
use shared::layers::{ids_array, to_f32};
use shared::sampling::log_softmax;
use shared::session::Session;

use crate::cache::Cache;
use crate::generate::prefill;
use crate::keys_values::KeysValues;
use crate::kinds::{CacheKind, empty_cache};
use crate::model::Model;

/// Made-up facts: nothing that a model could know from elsewhere.
const SENTENCES: [&str; 6] = [
    " The blue box of Anna holds seven small stones.",
    " The old clock of Peter stands in a green kitchen.",
    " The red boat of Maria sails to a quiet island.",
    " The black horse of John sleeps under a tall tree.",
    " The white lamp of Clara burns in a dark tunnel.",
    " The brown dog of Henry digs in a wet garden.",
];
/// Tokens that tell which sentence comes.
const CUE: usize = 2;
/// Sinks where there are any: mlx-lm's number.
const SINKS: i32 = 4;

/// Perplexity of each sentence for each cache, as a table, and which ones are found.
///
/// # Errors
/// If the model fails, or the report cannot be written.
pub fn run(session: &Session, model: &Model, prefill_step: usize) -> Result<()> {
    let tokenizer = &session.tokenizer;
    let prompt = tokenizer.encode_prompt(SENTENCES.concat().trim_start(), true)?;
    let full = prompt.len() as i32;
    let mut report = Report::stdout();
    ask(&mut report, full)?;
    let mut caches = vec![("all".to_owned(), CacheKind::Prealloc)];
    for share in [2, 4] {
        let size = full / share;
        for sinks in [0, SINKS] {
            let name = format!("{size}:{sinks}");
            caches.push((name, CacheKind::Rotating { size, sinks }));
        }
    }
    status("needle: nothing read before");
    let unread = perplexities(
        session,
        model,
        CacheKind::Prealloc,
        &prompt[..1],
        prefill_step,
    )?;
    let mut columns = Vec::new();
    for (name, kind) in caches {
        status(&format!("needle: a cache of {name}"));
        let perplexity = perplexities(session, model, kind, &prompt, prefill_step)?;
        columns.push(Column { name, perplexity });
    }
    answer(&mut report, &session.checkpoint.name, &unread, &columns)
}

/// What one cache remembers.
struct Column {
    name: String,
    /// Of each sentence.
    perplexity: Vec<f64>,
}

impl Column {
    /// The geometric mean: that of the surprise.
    fn mean(&self) -> f64 {
        let logs: f64 = self.perplexity.iter().map(|value| value.ln()).sum();
        (logs / self.perplexity.len() as f64).exp()
    }
}

/// Perplexity of each sentence after the whole prompt.
fn perplexities(
    session: &Session,
    model: &Model,
    kind: CacheKind,
    prompt: &[u32],
    prefill_step: usize,
) -> Result<Vec<f64>> {
    let config = &session.checkpoint.config;
    let mut read = empty_cache(kind, config);
    for piece in read.pieces(prompt.len(), prefill_step)? {
        prefill(model, &mut read, &prompt[piece])?;
    }
    let repeat = |sentence: &&str| {
        let ids = session.tokenizer.encode_prompt(sentence, true)?;
        // Each sentence is repeated right after the prompt, none after another one's repetition.
        let state: Vec<KeysValues> = read.state()?;
        let mut cache = empty_cache(kind, config);
        cache.restore(state, read.offset())?;
        perplexity(model, &mut cache, &ids)
    };
    SENTENCES.iter().map(repeat).collect()
}

/// Of the ids after the cue, each given those before it.
fn perplexity(model: &Model, cache: &mut Cache, ids: &[u32]) -> Result<f64> {
    ensure!(ids.len() > CUE, "a sentence has only {} tokens", ids.len());
    let mut surprise = 0.0;
    for (index, pair) in ids.windows(2).enumerate() {
        let logits = model.next_logits(&ids_array(&pair[..1]), cache)?;
        if index + 1 < CUE {
            continue;
        }
        // Read here: the sum is the host's, and the graph stays one step long.
        let logprobs = to_f32(&log_softmax(&logits)?)?;
        let logprob = logprobs
            .get(pair[1] as usize)
            .context("an id beyond the vocabulary")?;
        surprise -= f64::from(*logprob);
    }
    Ok((surprise / (ids.len() - CUE) as f64).exp())
}

/// The prompt, and what is asked about it.
fn ask<W: Write>(report: &mut Report<W>, full: i32) -> Result<()> {
    report.note(&format!("The model reads {full} tokens:"))?;
    report.blank()?;
    report.note(SENTENCES.concat().trim_start())?;
    report.blank()?;
    report.note(
        "Then one of the sentences once more. How much do its tokens surprise the model? (Perplexity: \
         among how many equally likely tokens it would have to guess.) With nothing read before, with \
         everything stored, and with windows: 9:4 is --cache rotating:9:4, which stores 9 positions and \
         keeps the first 4.",
    )?;
    Ok(report.blank()?)
}

fn answer<W: Write>(
    report: &mut Report<W>,
    model: &str,
    unread: &[f64],
    columns: &[Column],
) -> Result<()> {
    let Some(all) = columns.first() else {
        return Ok(());
    };
    let head: Vec<&str> = ["sentence", "unread"]
        .into_iter()
        .chain(columns.iter().map(|column| column.name.as_str()))
        .collect();
    let small = all.mean() > LOOKED_UP;
    let row = |(index, sentence): (usize, &&str)| {
        let words: Vec<&str> = sentence.split_whitespace().skip(1).take(4).collect();
        let cell = |column: &Column| {
            let found = !small
                && found(
                    column.perplexity[index],
                    all.perplexity[index],
                    unread[index],
                );
            format!(
                "{} {}",
                short(column.perplexity[index]),
                if found { '✓' } else { ' ' }
            )
        };
        let mut row = vec![words.join(" "), short(unread[index])];
        row.extend(columns.iter().map(cell));
        row
    };
    let rows: Vec<Vec<String>> = SENTENCES.iter().enumerate().map(row).collect();
    report.table(&head, &rows)?;
    report.blank()?;
    report.note(&verdict(model, unread, columns))?;
    Ok(())
}

fn short(perplexity: f64) -> String {
    fixed(perplexity, usize::from(perplexity < 1000.0))
}

/// Nearer in ratio to what it is with everything stored than to what it is unread.
fn found(perplexity: f64, all: f64, unread: f64) -> bool {
    all < unread && perplexity < (all * unread).sqrt()
}

/// Perplexity of a sentence that is looked up, at most: a model that would still have to guess among
/// more tokens does not look it up.
const LOOKED_UP: f64 = 20.0;

/// What the table says: for each cache how many sentences are found. Or that this model looks nothing
/// up, so that nothing can be found or forgotten.
fn verdict(model: &str, unread: &[f64], columns: &[Column]) -> String {
    let Some((all, windows)) = columns.split_first() else {
        return String::new();
    };
    if all.mean() > LOOKED_UP {
        return format!(
            "{model} is too small for this test: even with everything stored it would have to guess among \
             {} tokens. A model that looks sentences up: `cargo xtask fetch smollm2-f32`, then needle \
             --model .mlx/models/smollm2-f32.",
            fixed(all.mean(), 0)
        );
    }
    let told = |column: &Column| {
        let triples = column.perplexity.iter().zip(&all.perplexity).zip(unread);
        let count = triples
            .filter(|((p, all), unread)| found(**p, **all, **unread))
            .count();
        match count {
            0 => format!("{} has forgotten all of them", column.name),
            n => format!("{} finds {n}", column.name),
        }
    };
    let windows: Vec<String> = windows.iter().map(told).collect();
    format!(
        "✓ found: nearer to what everything stored gives than to what nothing gives. With everything \
         stored {} of {} sentences are found. A window forgets: {}.",
        all.perplexity
            .iter()
            .zip(unread)
            .filter(|(all, unread)| found(**all, **all, **unread))
            .count(),
        all.perplexity.len(),
        windows.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, perplexity: [f64; 2]) -> Column {
        Column {
            name: name.to_owned(),
            perplexity: perplexity.to_vec(),
        }
    }

    #[test]
    fn a_sentence_is_found_or_forgotten() {
        let unread = [400.0, 900.0];
        let columns = [
            column("all", [4.0, 9.0]),
            column("33:0", [390.0, 9e5]),
            column("33:4", [39.0, 91.0]),
        ];
        assert_eq!(
            verdict("m", &unread, &columns),
            "✓ found: nearer to what everything stored gives than to what nothing gives. With everything \
             stored 2 of 2 sentences are found. A window forgets: 33:0 has forgotten all \
             of them, 33:4 finds 1."
        );
    }

    #[test]
    fn a_model_that_looks_nothing_up_is_told_to_be_too_small() {
        let told = verdict("tiny", &[900.0, 900.0], &[column("all", [100.0, 144.0])]);
        assert!(
            told.starts_with("tiny is too small for this test"),
            "{told}"
        );
        assert!(
            told.contains("among 120 tokens") && told.contains("smollm2-f32"),
            "{told}"
        );
    }
}
