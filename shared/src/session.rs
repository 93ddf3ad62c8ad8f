//! From a model's name and a prompt to checked ids: the part of a run that no video is about.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::checkpoint::{Checkpoint, check_fit};
use crate::cli::{ModelArgs, PromptArgs, interrupted};
use crate::hub;
use crate::machine::{Machine, Versions};
use crate::metrics::{FinishReason, Run};
use crate::report::{Stdout, TextStream, count, decimal};
use crate::tokenizer::{Detokenizer, Tokenizer};

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
        checkpoint
            .config
            .require_llama()
            .with_context(|| format!("opening {}", checkpoint.name))?;
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

    /// The text of one answer; with `out` it can be read while it grows.
    pub fn answer<'a>(&'a self, out: Option<&'a mut TextStream<Stdout>>) -> Answer<'a> {
        Answer {
            detokenizer: self.tokenizer.stream(),
            out,
            text: String::new(),
        }
    }

    /// The ids that end an answer; none if it is to go on.
    pub fn stop_ids(&self) -> Vec<u32> {
        match self.stops {
            true => self.tokenizer.stop_ids().iter().copied().collect(),
            false => Vec::new(),
        }
    }
}

/// Ids in, text out: to a reader at once, as whole characters, and kept for the report.
#[derive(Debug)]
pub struct Answer<'a> {
    detokenizer: Detokenizer<'a>,
    out: Option<&'a mut TextStream<Stdout>>,
    text: String,
}

impl Answer<'_> {
    /// Takes the next id, and says whether to go on: not after Ctrl-C.
    ///
    /// # Errors
    /// If the id is not of this vocabulary, or if the text cannot be written.
    pub fn push(&mut self, id: u32) -> Result<ControlFlow<FinishReason>> {
        let piece = self.detokenizer.push(id)?;
        self.show(piece)?;
        Ok(match interrupted() {
            true => ControlFlow::Break(FinishReason::Interrupted),
            false => ControlFlow::Continue(()),
        })
    }

    /// All of the text, after the last bytes and, for the reader, the end of the line.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn finish(mut self) -> Result<String> {
        let rest = self.detokenizer.finish()?;
        self.show(rest)?;
        if let Some(out) = &mut self.out {
            out.finish()?;
        }
        Ok(self.text)
    }

    fn show(&mut self, piece: Option<String>) -> Result<()> {
        let piece = piece.unwrap_or_default();
        self.text.push_str(&piece);
        if let Some(out) = &mut self.out {
            out.push(&piece)?;
        }
        Ok(())
    }
}

/// Finds a model's files and reads what they say of themselves, without loading a weight.
///
/// # Errors
/// If the model cannot be found, or if its configuration or headers are broken.
pub fn open_checkpoint(model: &ModelArgs) -> Result<Checkpoint> {
    let files = hub::locate(&model.model, model.revision.as_deref())
        .with_context(|| format!("finding the model {}", model.model))?;
    let mut checkpoint = Checkpoint::open(&model.model, files)?;
    checkpoint.dtype = model.dtype;
    Ok(checkpoint)
}
