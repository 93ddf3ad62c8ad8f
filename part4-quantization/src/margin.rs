//! Two answers to one prompt part at a token. By how much does the model as it is prefer the one to the other?
//!
//! A difference that is as small as the rounding of its numbers says nothing of a quantization or a batch; a large one
//! does. `cargo compare` asks this for every answer that is not the reference's.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use console::cli::{ModelArgs, OutputArgs, PromptArgs};
use console::files::read_text;
use console::metrics::first_difference;
use console::numbers::fixed;
use console::report::{Report, status};
use mlx_rs::{Array, Dtype};
use serde::{Deserialize, Serialize};
use shared::layers::{ids_array, to_f32};
use shared::machine::on_one_stream;
use shared::sampling::log_softmax;
use shared::session::Session;

use crate::cache::Cache;
use crate::generate::{PREFILL_STEP, prefill};
use crate::kinds::{CacheKind, empty_cache};
use crate::model::Model;

/// What a margin takes.
#[derive(Debug, Args)]
pub struct MarginArgs {
    /// Two answers as JSON, in ids: `{"ours": [1, 2, 3], "theirs": [1, 4]}`
    file: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Bytes of the longest file of answers: some 2 million ids.
const LONGEST: u64 = 16 << 20;

#[derive(Debug, Deserialize)]
struct Answers {
    ours: Vec<u32>,
    theirs: Vec<u32>,
}

#[derive(Debug, Serialize)]
struct Margin {
    /// Tokens before the difference; None if there is no difference.
    index: Option<usize>,
    /// ln p of our token − ln p of theirs; None if one of the answers ends there.
    nats: Option<f64>,
}

/// Reads two answers, runs what they have in common, and prints the margin.
///
/// # Errors
/// If the file, the model or the prompt cannot be read.
pub fn run(args: &MarginArgs) -> Result<()> {
    let answers = read(args)?;
    let session = Session::open(&args.model)?;
    let ids = session
        .tokenizer
        .encode_prompt(&args.prompt.text()?, args.prompt.raw)?;
    let index = first_difference(&answers.ours, &answers.theirs);
    let parts = index.and_then(|at| answers.ours.get(at).zip(answers.theirs.get(at)));
    let nats = match (index, parts) {
        (Some(at), Some((ours, theirs))) => {
            let before = [&ids, &answers.ours[..at]].concat();
            Some(margin(&session, &before, *ours, *theirs)?)
        }
        _ => None,
    };
    let mut report = Report::stdout();
    report.note(&told(index, nats))?;
    if args.output.json {
        report.json_line(&Margin { index, nats })?;
    }
    Ok(())
}

fn read(args: &MarginArgs) -> Result<Answers> {
    let doing = || format!("reading two answers from {}", args.file.display());
    let text = read_text(&args.file, LONGEST).with_context(doing)?;
    serde_json::from_str(&text).with_context(doing)
}

fn told(index: Option<usize>, nats: Option<f64>) -> String {
    match (index, nats) {
        (None, _) => "The answers are the same.".to_owned(),
        (Some(at), None) => format!("One answer ends after {at} tokens, the other goes on."),
        (Some(at), Some(nats)) => format!(
            "They differ at token {}: the model prefers ours by {} nats.",
            at + 1,
            fixed(nats, 4)
        ),
    }
}

/// ln p of one id − ln p of another one, after `before`.
fn margin(session: &Session, before: &[u32], ours: u32, theirs: u32) -> Result<f64> {
    let config = &session.checkpoint.config;
    let (vocab, context) = (config.vocab_size, config.max_position_embeddings);
    let known = |id: &u32| (*id as usize) < vocab;
    ensure!(
        before.iter().chain([&ours, &theirs]).all(known),
        "an id of the answers is beyond the vocabulary of {}, which has {vocab}",
        session.checkpoint.name
    );
    ensure!(
        before.len() <= context,
        "prompt and answer have {} tokens up to the difference, the context of {} has {context}",
        before.len(),
        session.checkpoint.name
    );
    status(&format!("loading {}", session.checkpoint.name));
    let model = Model::load(&session.checkpoint)?;
    let mut cache = empty_cache(CacheKind::Prealloc, config);
    let logprobs = on_one_stream(|| next(&model, &mut cache, before))?;
    let of = |id: u32| logprobs.get(id as usize).copied().map(f64::from);
    let margin = of(ours).zip(of(theirs)).map(|(ours, theirs)| ours - theirs);
    margin.context("the model scores fewer tokens than its vocabulary has")
}

/// What the model thinks of each token that may come next.
fn next(model: &Model, cache: &mut Cache, ids: &[u32]) -> Result<Vec<f32>> {
    let mut pieces = cache.pieces(ids.len(), PREFILL_STEP)?;
    let last = pieces.pop().context("the prompt has no tokens")?;
    for piece in pieces {
        prefill(model, cache, &ids[piece])?;
    }
    let logits: Array = model.next_logits(&ids_array(&ids[last]), cache)?; // [1, V]
    to_f32(&log_softmax(&logits.as_dtype(Dtype::Float32)?)?)
}
