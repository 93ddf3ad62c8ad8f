//! What is asked of the engine, and what comes back: plain data that may cross threads. None of MLX is in it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use console::metrics::FinishReason;
use serde::{Deserialize, Serialize};
use shared::config::ModelConfig;
use shared::sampling::{Penalties, Sampling};

/// One prompt to continue, once or several times.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// What its client calls it; empty where it has no name.
    pub name: String,
    /// The prompt's ids, all of them below the vocabulary size.
    pub ids: Vec<u32>,
    /// Tokens of each answer at most. 0: only what the model thinks of the prompt.
    pub max_tokens: usize,
    /// How ids are chosen. Of several answers, number k draws with seed + k.
    pub sampling: Sampling,
    /// What is added to the scores that they are chosen by.
    pub penalties: Penalties,
    /// Answers to the same prompt, which runs once.
    pub n: usize,
    /// Texts that end an answer; none of them becomes part of it.
    pub stop: Vec<String>,
    /// Goes on where the model would stop.
    pub ignore_eos: bool,
    /// With each token its log-probability, and those of so many likeliest ones.
    pub logprobs: Option<usize>,
    /// The same for the tokens of the prompt, all of which run then. The id that ends an answer comes as its last token.
    pub prompt_logprobs: Option<usize>,
    /// What every answer must match.
    pub grammar: Option<Arc<Grammar>>,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            name: String::new(),
            ids: Vec::new(),
            max_tokens: 0,
            sampling: Sampling::default(),
            penalties: Penalties::default(),
            n: 1,
            stop: Vec::new(),
            ignore_eos: false,
            logprobs: None,
            prompt_logprobs: None,
            grammar: None,
        }
    }
}

impl Ask {
    /// Refuses what no model could answer, and what would read memory that is not the model's.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        let (tokens, context) = (self.ids.len(), config.max_position_embeddings);
        ensure!(tokens > 0, "the prompt has no tokens");
        ensure!(self.n > 0, "0 answers are asked for");
        ensure!(
            tokens.saturating_add(self.max_tokens) <= context,
            "{tokens} tokens of prompt and up to {} of answer are more than the context, which has {context}",
            self.max_tokens
        );
        // MLX checks no bounds.
        let last = config.vocab_size - 1;
        let foreign = |id: &&u32| **id as usize > last;
        if let Some(id) = self.ids.iter().find(foreign) {
            bail!("the prompt has token id {id}, the vocabulary ends at {last}");
        }
        let biased = self.penalties.biases.iter().map(|(id, _)| id);
        if let Some(id) = biased.clone().find(foreign) {
            bail!("token id {id} has a bias, the vocabulary ends at {last}");
        }
        ensure!(
            biased.clone().collect::<BTreeSet<_>>().len() == biased.len(),
            "a token has two biases"
        );
        ensure!(
            self.stop.iter().all(|stop| !stop.is_empty()),
            "a stop text is empty"
        );
        Ok(())
    }
}

/// What an answer must match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grammar {
    /// Any JSON object.
    Json,
    /// JSON that a schema allows.
    Schema(serde_json::Value),
    /// A text that the whole of a regular expression matches.
    Regex(String),
    /// A grammar in Lark's notation, as llguidance reads it.
    Lark(String),
    /// The same of JSON values and the texts between them.
    Values(String),
}

/// What an ask gets, in this order: `Started`, some `Progress`, `Prompt` if it was asked for, then for every
/// answer its `Delta`s and one `End`, and `Done` when all have ended. `Failed` can come at any moment, as the last.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It has a row.
    Started {
        /// Tokens of the prompt whose keys and values were there already.
        cached: usize,
        /// Why there were not more of them, if another prompt began in the same way and went on in another one.
        missed: Option<Missed>,
    },
    /// A piece of the prompt went through the model.
    Progress {
        /// Tokens of the prompt that the model has seen.
        seen: usize,
    },
    /// How likely the model found the prompt's tokens. The first one has no log-probability.
    Prompt(Vec<TokenInfo>),
    /// More of an answer.
    Delta {
        /// Which of the answers, counted from 0.
        choice: usize,
        /// Whole characters. What may become a stop text is held back until it is clear that it does not.
        text: String,
        /// The tokens whose last character came with this text: those of a stop text never come.
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
    Failed(Fault),
}

/// Why an ask ended without its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It could never be answered as it is: the same ask again would end in the same way.
    Ask(String),
    /// The model failed at it, and would again. Others go on.
    Model(String),
    /// The engine does not take asks any more, or has failed.
    Engine(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Ask(why) | Self::Model(why) | Self::Engine(why)) = self;
        f.write_str(why)
    }
}

/// The first token of a prompt that is not that of an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// Tokens that agree.
    pub at: usize,
    /// The text of the one that came now.
    pub token: String,
    /// The text of the one that came then.
    pub other: String,
    /// The number of the ask that came then.
    pub by: u64,
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
    /// What guesses at the next tokens have cost and brought.
    pub guesses: GuessUsage,
}

/// What guesses at the next tokens have cost and brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuessUsage {
    /// Tokens that were guessed.
    pub guessed: usize,
    /// Those of them that were right.
    pub right: usize,
    /// How much faster tokens came in the steps that had guesses than they would have come without, in hundredths: 100 is
    /// as fast. 0 if it is not known.
    pub gain: u32,
    /// How often guessing was switched off because it lost time.
    pub stopped: usize,
}
