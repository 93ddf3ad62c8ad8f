//! What is watched, and what it is asked to do.

use anyhow::{Context, Result, ensure};
use console::cli::{FloatType, ModelArgs};
use console::report::status;
use shared::checkpoint::Checkpoint;
use shared::config::Family;
use shared::machine;
use shared::request::Request;
use shared::sampling::Sampling;
use shared::session::{check_memory, open_checkpoint};
use shared::tokenizer::Tokenizer;

use crate::decoder::Decoder;
use crate::gpt2::Gpt2;
use crate::llama::{Llama, UNPACK_UP_TO};
use crate::tokenize;
use crate::trace::WhatIf;

/// A model that is ready to be watched. Any family: this is all that the steps know of it.
pub struct Subject {
    /// The model.
    pub decoder: Box<dyn Decoder>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// What to watch it do, as the flags say it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The prompt as it was typed.
    pub text: String,
    /// Without the chat template.
    pub raw: bool,
    /// Rounds of the loop at most.
    pub max_tokens: usize,
    /// Whether the model may end its answer itself.
    pub stops: bool,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// The layer to show in slow motion; `None`: the one in the middle.
    pub layer: Option<usize>,
    /// The head to show in slow motion; `None`: the one that adds most to the last token.
    pub head: Option<usize>,
    /// What to leave out, to see what it was good for.
    pub what_if: Option<WhatIf>,
}

impl Subject {
    /// Finds and loads a model.
    ///
    /// Small models are computed in float32 unless `model` says otherwise: it is the type in which
    /// a viewer can check the numbers, a 16-bit weight is exact in it, and on a CPU it is the
    /// fastest.
    pub fn open(model: &ModelArgs) -> Result<Self> {
        let mut checkpoint = open_checkpoint(model)?;
        if checkpoint.dtype.is_none() && 4 * checkpoint.parameters() <= UNPACK_UP_TO {
            checkpoint.dtype = Some(FloatType::F32);
        }
        check_memory(&checkpoint, &machine::detect()?)?;
        status(&format!("loading {}", checkpoint.name));
        Self::load(&checkpoint)
    }

    /// Loads a checkpoint as it stands.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        Ok(Self {
            tokenizer: Tokenizer::open(checkpoint)?,
            decoder: match checkpoint.config.family {
                Family::Gpt2 => Box::new(Gpt2::load(checkpoint)?),
                Family::Llama => Box::new(Llama::load(checkpoint)?),
            },
        })
    }

    /// The prompt's ids and the limits of the answer.
    ///
    /// # Errors
    /// If the prompt is empty, or too long for the pictures or for the model's context.
    pub fn request(&self, plan: &Plan) -> Result<Request> {
        let ids = tokenize::encode(&self.tokenizer, &plan.text, plan.raw)?;
        let facts = self.decoder.facts();
        let context = facts.context;
        ensure!(
            ids.len() < context,
            "the prompt has {} tokens, but the context of {} has room for {context}: shorten the \
             prompt",
            ids.len(),
            facts.name,
        );
        let stop_ids = if plan.stops {
            self.tokenizer.stop_ids().iter().copied().collect()
        } else {
            Vec::new()
        };
        Ok(Request {
            max_tokens: plan.max_tokens.min(context - ids.len()),
            ids,
            stop_ids,
            sampling: plan.sampling,
        })
    }

    /// The layer to show in slow motion.
    ///
    /// # Errors
    /// If the model has no such layer, or no head that the flags name.
    pub fn focus_layer(&self, plan: &Plan) -> Result<usize> {
        let layer = plan.layer.unwrap_or(self.decoder.facts().layers / 2);
        check_place(self, layer, plan.head.unwrap_or(0))?;
        if let Some(WhatIf::ZeroHead { layer, head }) = plan.what_if {
            check_place(self, layer, head).context("switching off a head")?;
        }
        Ok(layer)
    }
}

fn check_place(subject: &Subject, layer: usize, head: usize) -> Result<()> {
    let facts = subject.decoder.facts();
    for (what, number, count) in [("layer", layer, facts.layers), ("head", head, facts.heads)] {
        ensure!(
            number < count,
            "there is no {what} {number}: {} has {what}s 0 to {}",
            facts.name,
            count - 1
        );
    }
    Ok(())
}
