//! From a model's name and a prompt to checked ids: the part of a run that no video is about.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use console::cli::{ModelArgs, PromptArgs, SamplingArgs};
use console::interrupt::{check_interrupted, interrupted};
use console::machine::{Machine, Versions};
use console::metrics::{FinishReason, Run};
use console::numbers::{count, decimal};
use console::report::{status, tell, warn};

use crate::checkpoint::Checkpoint;
use crate::hub;
use crate::machine;
use crate::request::{Request, Step};
use crate::tokenizer::{Detokenizer, Tokenizer};

/// A model that is open, its weights not loaded yet: it makes requests from texts.
#[derive(Debug)]
pub struct Session {
    /// The checkpoint, its header read.
    pub checkpoint: Checkpoint,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// What runs it.
    pub machine: Machine,
    /// Finding the files, reading headers and the tokenizer.
    pub open_time: Duration,
}

impl Session {
    /// Finds the model and reads all of it but the weights.
    ///
    /// # Errors
    /// If the model cannot be found or read.
    pub fn open(model: &ModelArgs) -> Result<Self> {
        let started = Instant::now();
        let checkpoint = open_checkpoint(model)?;
        checkpoint
            .config
            .require_llama()
            .with_context(|| format!("opening {}", checkpoint.name))?;
        let machine = machine::detect()?;
        check_memory(&checkpoint, &machine)?;
        let tokenizer = Tokenizer::open(&checkpoint)?;
        Ok(Self {
            checkpoint,
            tokenizer,
            machine,
            open_time: started.elapsed(),
        })
    }

    /// The same with the memory roof of its machine, for a report that says which share of it was
    /// reached. Measured before the weights take memory.
    pub fn with_roof(mut self) -> Self {
        self.machine = machine::with_roof(self.machine);
        self
    }

    /// The request that the flags ask for, and how long it took to encode its text.
    ///
    /// # Errors
    /// If the prompt is empty or longer than the context, or if the weights and the longest answer do
    /// not fit into memory.
    pub fn request(
        &self,
        prompt: &PromptArgs,
        sampling: &SamplingArgs,
    ) -> Result<(Request, Duration)> {
        if !prompt.raw && !self.tokenizer.has_chat_template() {
            tell(&format!(
                "{} has no chat template: a base model, which continues the prompt and does not answer it",
                self.checkpoint.name
            ));
        }
        let started = Instant::now();
        let ids = self.tokenizer.encode_prompt(&prompt.text()?, prompt.raw)?;
        let tokenize_time = started.elapsed();
        let max_tokens = prompt.max_tokens.min(self.room(ids.len())?);
        self.checkpoint
            .check_fit(ids.len() + max_tokens, self.machine.ram_bytes)?;
        let stop_ids = if prompt.ignore_eos {
            Vec::new()
        } else {
            self.tokenizer.stop_ids().iter().copied().collect()
        };
        let request = Request {
            ids,
            max_tokens,
            stop_ids,
            sampling: sampling.into(),
        };
        Ok((request, tokenize_time))
    }

    /// The prompt, if the model continues it instead of answering: then a reader needs it to read on.
    ///
    /// # Errors
    /// If the prompt cannot be read.
    pub fn continued(&self, prompt: &PromptArgs) -> Result<Option<String>> {
        let continues = prompt.raw || !self.tokenizer.has_chat_template();
        continues
            .then(|| Ok(prompt.text()?.into_owned()))
            .transpose()
    }

    /// Tokens that the context has room for after a prompt.
    fn room(&self, prompt_tokens: usize) -> Result<usize> {
        let context = self.checkpoint.config.max_position_embeddings;
        let room = context.saturating_sub(prompt_tokens);
        ensure!(
            room > 0,
            "the prompt has {} tokens, but the context of {} has room for {}: shorten the prompt",
            count(prompt_tokens as u64),
            self.checkpoint.name,
            count(context as u64),
        );
        Ok(room)
    }

    /// The first rows of the card above every report: the model and the machine.
    pub fn about(&self, versions: &Versions) -> Vec<(String, String)> {
        let weights = self.checkpoint.weight_bytes();
        let bits = 8.0 * weights as f64 / self.checkpoint.parameters().max(1) as f64;
        let model = format!(
            "{}, {bits:.2} bits per weight, {}",
            self.checkpoint.name,
            decimal(weights)
        );
        vec![
            ("model".to_owned(), model),
            ("machine".to_owned(), self.machine.describe(versions)),
        ]
    }

    /// The rows of the card above every report: the model, the machine, its ceiling if that is
    /// known, and how the answer of `run` ended.
    pub fn card(&self, run: &Run, versions: &Versions) -> Vec<(String, String)> {
        let mut rows = self.about(versions);
        rows.extend(self.machine.products_row());
        let read = self.checkpoint.read_bytes();
        let kv = run.step_bytes.unwrap_or(read).saturating_sub(read);
        rows.extend(self.machine.ceiling_row(read, kv));
        let answer = format!(
            "{} prompt tokens, {} generated, ended by {}",
            run.prompt_tokens,
            run.tokens.len(),
            run.finish_reason
        );
        rows.push(("answer".to_owned(), answer));
        rows
    }

    /// The text of one answer; each piece of whole characters goes to `show` as soon as it is there.
    pub fn answer<F: FnMut(&str) -> Result<()>>(&self, show: F) -> Answer<'_, F> {
        Answer {
            detokenizer: self.tokenizer.stream(),
            show,
            text: String::new(),
        }
    }
}

/// Ids in, text out: piece by piece to whoever reads along, and whole for the report.
#[derive(Debug)]
pub struct Answer<'a, F> {
    detokenizer: Detokenizer<'a>,
    show: F,
    text: String,
}

impl<F: FnMut(&str) -> Result<()>> Answer<'_, F> {
    /// Takes the next id.
    ///
    /// # Errors
    /// If the id is not of this vocabulary, or if the text cannot be shown.
    pub fn push(&mut self, id: u32) -> Result<()> {
        let piece = self.detokenizer.push(id)?;
        self.take(piece)
    }

    /// What a program at a terminal does between two steps of a generator: shows the progress of a prompt
    /// of `prompt_tokens`, or the text, and says whether to go on: not after Ctrl-C.
    ///
    /// # Errors
    /// As [`push`](Self::push), or if Ctrl-C came before the first token.
    pub fn watch(&mut self, step: Step, prompt_tokens: usize) -> Result<ControlFlow<FinishReason>> {
        match step {
            Step::Prefill { seen } => {
                status(&format!("prefill: {seen} of {prompt_tokens} tokens"));
                check_interrupted()?;
            }
            Step::Token { id, .. } => self.push(id)?,
            Step::End(_) => {}
        }
        Ok(if interrupted() {
            ControlFlow::Break(FinishReason::Interrupted)
        } else {
            ControlFlow::Continue(())
        })
    }

    /// All of the text, after its last bytes.
    ///
    /// # Errors
    /// If the text cannot be shown.
    pub fn finish(mut self) -> Result<String> {
        let rest = self.detokenizer.finish()?;
        self.take(rest)?;
        Ok(self.text)
    }

    fn take(&mut self, piece: Option<String>) -> Result<()> {
        let Some(piece) = piece else {
            return Ok(());
        };
        self.text.push_str(&piece);
        (self.show)(&piece)
    }
}

/// Whether the weights have room, before any of them is loaded.
///
/// # Errors
/// If they cannot have it. If they only have none at the moment, that is a warning.
pub fn check_memory(checkpoint: &Checkpoint, machine: &Machine) -> Result<()> {
    checkpoint.check_fit(0, machine.ram_bytes)?;
    // A GPU with memory of its own does not take this one.
    let available = machine::available_bytes().filter(|_| machine.device == "cpu");
    if let Some(line) = available.and_then(|bytes| checkpoint.crowded(bytes)) {
        warn(&line);
    }
    Ok(())
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
