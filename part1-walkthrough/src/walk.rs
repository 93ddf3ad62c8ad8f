//! From a model and a text to a [`Trace`].

use shared::cli::SamplingArgs;
use shared::tokenizer::Tokenizer;

use crate::decoder::Decoder;
use crate::trace::WhatIf;

/// A model that is ready to be watched. Any family: this is all that the steps know of it.
pub struct Subject {
    /// The model.
    pub decoder: Box<dyn Decoder>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// What to watch it do.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt as it was typed.
    pub text: String,
    /// Without the chat template.
    pub raw: bool,
    /// Rounds of the loop at most.
    pub max_tokens: usize,
    /// Whether the model may end its answer itself.
    pub stops: bool,
    /// How the next token is chosen.
    pub sampling: SamplingArgs,
    /// The layer to show in slow motion; `None`: the one in the middle.
    pub layer: Option<usize>,
    /// The head to show in slow motion; `None`: the first.
    pub head: Option<usize>,
    /// What to leave out, to see what it was good for.
    pub what_if: Option<WhatIf>,
}

// pub fn open(model: &ModelArgs) -> Result<Subject>;
// pub fn walk(subject: &Subject, request: &Request) -> Result<Trace>;
