//! What is asked of a model, and what one step of the answer brings: the nouns that every loop, batch
//! and server of the series is made of.

use console::metrics::FinishReason;

use crate::sampling::Sampling;

/// One text to continue, with its limits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// The prompt's ids, all of them below the vocabulary size.
    pub ids: Vec<u32>,
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Ids that end the answer; none of them becomes part of it.
    pub stop_ids: Vec<u32>,
    /// How the next id is chosen.
    pub sampling: Sampling,
}

/// What one step of a generator brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A piece of the prompt went through the model; more of it is left.
    Prefill {
        /// Tokens of the prompt that the model has seen.
        seen: usize,
    },
    /// The next id of the answer.
    Token {
        /// The id.
        id: u32,
        /// Positions that the model ran for it.
        positions: usize,
    },
    /// There are no more ids, and nothing was run.
    End(FinishReason),
}
