//! What is asked of the engine, and what comes back: plain data that may cross threads. None of MLX is in it.

use std::sync::Arc;

use console::metrics::FinishReason;
use shared::sampling::Sampling;

/// One prompt to continue, once or several times.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The prompt's ids, all of them below the vocabulary size.
    pub ids: Vec<u32>,
    /// Tokens of each answer at most.
    pub max_tokens: usize,
    /// How ids are chosen. Of several answers, number k draws with seed + k.
    pub sampling: Sampling,
    /// Answers to the same prompt, which runs once.
    pub n: usize,
    /// Texts that end an answer; none of them becomes part of it.
    pub stop: Vec<String>,
    /// Goes on where the model would stop.
    pub ignore_eos: bool,
    /// With each token its log-probability, and those of so many likeliest ones.
    pub logprobs: Option<usize>,
    /// The same for the tokens of the prompt.
    pub prompt_logprobs: Option<usize>,
    /// What every answer must match.
    pub grammar: Option<Arc<Grammar>>,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            max_tokens: 0,
            sampling: Sampling::default(),
            n: 1,
            stop: Vec::new(),
            ignore_eos: false,
            logprobs: None,
            prompt_logprobs: None,
            grammar: None,
        }
    }
}

/// What an answer must match.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// Any JSON object.
    Json,
    /// JSON that a schema allows.
    Schema(serde_json::Value),
    /// A text that the whole of a regular expression matches.
    Regex(String),
    /// A grammar in Lark's notation, as llguidance reads it.
    Lark(String),
}

/// What an ask gets, in this order: `Started`, some `Progress`, `Prompt` if it was asked for, then for every
/// answer its `Delta`s and one `End`, and `Done` when all have ended. `Failed` can come at any moment, as the last.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It has a row.
    Started {
        /// Tokens of the prompt whose keys and values were there already.
        cached: usize,
    },
    /// A piece of the prompt went through the model.
    Progress {
        /// Tokens of the prompt that the model has seen.
        seen: usize,
    },
    /// What the model thought of the prompt's tokens. The first one has no log-probability.
    Prompt(Vec<TokenInfo>),
    /// More of an answer.
    Delta {
        /// Which of the answers, counted from 0.
        choice: usize,
        /// Whole characters. Empty if the token's text is held back: it may become a stop text, or half a character.
        text: String,
        /// The tokens that this text is made of, as far as they are known now.
        tokens: Vec<TokenInfo>,
    },
    /// An answer is complete.
    End {
        /// Which of the answers.
        choice: usize,
        /// Why.
        reason: FinishReason,
        /// The stop text that ended it.
        stop: Option<String>,
    },
    /// All answers are complete.
    Done(Usage),
    /// The engine cannot go on with this ask.
    Failed(String),
}

/// A token, and how likely it was.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenInfo {
    /// The id.
    pub id: u32,
    /// Its bytes: those of several tokens may be needed for one character.
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability before any filter, penalty or temperature; if it was asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens with theirs, best first.
    pub top: Vec<(u32, Vec<u8>, f32)>,
}

/// What an ask has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were not run again.
    pub cached_tokens: usize,
    /// Tokens of all answers.
    pub completion_tokens: usize,
    /// Those of them that a grammar left no choice about, and that no step was run for.
    pub forced_tokens: usize,
}
