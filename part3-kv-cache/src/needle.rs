//! Which sentence of a long prompt is forgotten as the window shrinks.
//!
//! The model reads all sentences, then one of them again, token by token. What it has seen it finds
//! less surprising the second time; what its cache has dropped surprises it as before. Perplexity is
//! `exp(mean(−ln p))` over the tokens of the repeated sentence but the first two, which say which
//! sentence it is.

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

/// Perplexity of each sentence for each cache, as a table.
///
/// # Errors
/// If the model fails, or the report cannot be written.
pub fn run(session: &Session, model: &Model, prefill_step: usize) -> Result<()> {
    let tokenizer = &session.tokenizer;
    let prompt = tokenizer.encode_prompt(SENTENCES.concat().trim_start(), true)?;
    let full = prompt.len() as i32;
    let mut caches = vec![("all".to_owned(), CacheKind::Prealloc)];
    for share in [2, 4] {
        let size = full / share;
        for sinks in [0, SINKS] {
            let name = format!("{size}, {sinks} sinks");
            caches.push((name, CacheKind::Rotating { size, sinks }));
        }
    }
    let mut columns = Vec::new();
    for (name, kind) in &caches {
        status(&format!("needle: a cache of {name}"));
        columns.push(perplexities(session, model, *kind, &prompt, prefill_step)?);
    }
    print(&caches, &columns, full)
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

fn print(caches: &[(String, CacheKind)], columns: &[Vec<f64>], full: i32) -> Result<()> {
    let head: Vec<&str> = ["repeated sentence"]
        .into_iter()
        .chain(caches.iter().map(|(name, _)| name.as_str()))
        .collect();
    let row = |(index, sentence): (usize, &&str)| {
        let mut words = sentence.split_whitespace();
        let name: Vec<&str> = words.by_ref().skip(1).take(4).collect();
        let values = columns.iter().map(|column| fixed(column[index], 1));
        [name.join(" ")].into_iter().chain(values).collect()
    };
    let mut rows: Vec<Vec<String>> = SENTENCES.iter().enumerate().map(row).collect();
    let mean = |column: &Vec<f64>| {
        let logs: f64 = column.iter().map(|value| value.ln()).sum();
        fixed((logs / column.len() as f64).exp(), 1)
    };
    let means = columns.iter().map(mean);
    rows.push(["all".to_owned()].into_iter().chain(means).collect());
    let mut report = Report::stdout();
    report.table(&head, &rows)?;
    report.blank()?;
    report.note(&format!(
        "Perplexity of a sentence that is repeated after {full} tokens, by what the cache stores: \
         low where the model can look it up, high where it was forgotten. Sinks are the first \
         tokens of the prompt, whatever they say; the row `all` is the geometric mean."
    ))?;
    Ok(())
}
