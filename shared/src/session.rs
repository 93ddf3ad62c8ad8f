//! From a model's name and a prompt to checked ids: the part of a run that no video is about.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::checkpoint::{Checkpoint, check_fit};
use crate::cli::{ModelArgs, PromptArgs};
use crate::hub::{self, ModelFiles};
use crate::machine::{Machine, Versions};
use crate::metrics::Run;
use crate::report::{count, decimal};
use crate::tokenizer::Tokenizer;

/// Everything that is known before the weights are loaded.
#[derive(Debug)]
pub struct Session {
    /// The checkpoint, its header read.
    pub checkpoint: Checkpoint,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The prompt's ids, all of them below the vocabulary size.
    pub prompt: Vec<u32>,
    /// What runs it.
    pub machine: Machine,
    /// Finding the files, reading headers and the tokenizer.
    pub open_time: Duration,
    /// Template and encoding.
    pub tokenize_time: Duration,
    /// Tokens to generate at most: the flag, or what the context has room for.
    pub max_tokens: usize,
    /// Whether the model may end its answer itself.
    pub stops: bool,
}

impl Session {
    /// Finds the model, checks that it fits into memory, and encodes the prompt.
    ///
    /// # Errors
    /// If the model cannot be found or read, does not fit, or if the prompt is empty or longer than
    /// the context.
    pub fn open(model: &ModelArgs, prompt: &PromptArgs) -> Result<Self> {
        let started = Instant::now();
        let checkpoint = open_checkpoint(model)?;
        let machine = Machine::detect()?;
        let tokenizer = Tokenizer::open(&checkpoint)?;
        let open_time = started.elapsed();

        let started = Instant::now();
        let ids = tokenizer.encode_prompt(&prompt.text()?, prompt.raw)?;
        let tokenize_time = started.elapsed();

        let context = checkpoint.config.max_position_embeddings;
        ensure!(
            ids.len() < context,
            "the prompt has {} tokens, but the context of {} has room for {}: shorten the prompt",
            count(ids.len() as u64),
            checkpoint.name,
            count(context as u64),
        );
        let max_tokens = prompt.max_tokens.min(context - ids.len());
        check_fit(&checkpoint, ids.len() + max_tokens, machine.ram_bytes)?;
        let stops = !prompt.ignore_eos;
        let prompt = ids;
        Ok(Self {
            checkpoint,
            tokenizer,
            prompt,
            machine,
            open_time,
            tokenize_time,
            max_tokens,
            stops,
        })
    }

    /// The rows of the card above every report: the model, the machine, its ceiling if that is
    /// known, and how the answer of `run` ended.
    pub fn card(&self, run: &Run, versions: &Versions) -> Vec<(String, String)> {
        let weights = self.checkpoint.weight_bytes();
        let bits = 8.0 * weights as f64 / self.checkpoint.parameters().max(1) as f64;
        let model = format!(
            "{}, {bits:.2} bits per weight, {}",
            self.checkpoint.name,
            decimal(weights)
        );
        let mut rows = vec![
            ("model".to_owned(), model),
            ("machine".to_owned(), self.machine.describe(versions)),
        ];
        rows.extend(self.machine.ceiling_row(weights, run.kv_bytes.unwrap_or(0)));
        let answer = format!(
            "{} prompt tokens, {} generated, ended by {}",
            run.prompt_tokens,
            run.tokens.len(),
            run.finish_reason
        );
        rows.push(("answer".to_owned(), answer));
        rows
    }

    /// The ids that end an answer; none if it is to go on.
    pub fn stop_ids(&self) -> Vec<u32> {
        match self.stops {
            true => self.tokenizer.stop_ids().iter().copied().collect(),
            false => Vec::new(),
        }
    }
}

/// Finds a model's files and reads what they say of themselves, without loading a weight.
///
/// # Errors
/// If the model cannot be found, or if its configuration or headers are broken.
pub fn open_checkpoint(model: &ModelArgs) -> Result<Checkpoint> {
    open_checkpoint_by(model, Checkpoint::open)
}

/// [`open_checkpoint`] that takes GPT-2, too: see [`Checkpoint::open_with_gpt2`].
///
/// # Errors
/// As [`open_checkpoint`].
pub fn open_checkpoint_with_gpt2(model: &ModelArgs) -> Result<Checkpoint> {
    open_checkpoint_by(model, Checkpoint::open_with_gpt2)
}

fn open_checkpoint_by(
    model: &ModelArgs,
    open: fn(&str, ModelFiles) -> Result<Checkpoint>,
) -> Result<Checkpoint> {
    let files = hub::locate(&model.model, model.revision.as_deref())
        .with_context(|| format!("finding the model {}", model.model))?;
    let mut checkpoint = open(&model.model, files)?;
    checkpoint.dtype = model.dtype;
    Ok(checkpoint)
}
