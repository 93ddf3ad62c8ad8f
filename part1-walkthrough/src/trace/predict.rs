//! Step 4: from the last vector to one token.

use serde::{Deserialize, Serialize};
pub use shared::sampling::Filter;
use shared::sampling::Sampling;

use super::floats::Floats;
use super::tokens::Named;

/// How many of the likeliest tokens a trace names, see [`Prediction::named`].
pub const NAMED: usize = 256;

/// A token and how likely it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its id.
    pub id: u32,
    /// As [`Token::piece`](super::Token::piece).
    pub piece: String,
    /// Softmax of the logits over the whole vocabulary, at temperature 1.
    pub probability: f32,
}

/// What the head makes of the stream after a layer (nostalgebraist's logit lens).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LensRow {
    /// Blocks behind it: 0 for the embedding, `layers` for what the model says.
    pub after: usize,
    /// The likeliest next tokens at the last position, likeliest first.
    pub last: Vec<Candidate>,
    /// The likeliest next token at every position.
    pub each: Vec<Candidate>,
    /// Probability that the last position gives to the token that the model will say.
    pub answer: f32,
}

/// Step 4: from logits to one token.
///
/// The picture is drawn with `settings`. The flags' defaults are greedy, and nothing would be to be
/// seen; then `example` is set, `settings` are chosen to show each filter at work, and `chosen` is
/// still what the flags ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Of the last position, `[V]`, as the model gives them.
    pub logits: Floats,
    /// Spelling of the [`NAMED`] likeliest tokens, likeliest first. Temperature, top-k, top-p and
    /// min-p never change the order of two tokens, so under any of their settings the tokens to be
    /// named are the first of these; the others can be counted and summed up from `logits`.
    pub named: Vec<Named>,
    /// What is drawn.
    pub settings: Sampling,
    /// Whether `settings` are an example and not the flags.
    pub example: bool,
    /// The likeliest tokens, likeliest first.
    pub bars: Vec<Bar>,
    /// What is kept and removed, of the whole vocabulary.
    pub filters: Vec<FilterOutcome>,
    /// Probabilities of the first tokens of `bars` at other temperatures, nothing removed.
    pub temperatures: Vec<Temperature>,
    /// The token with the largest logit.
    pub greedy: Candidate,
    /// The token that the flags choose; probability at temperature 1, nothing removed.
    pub chosen: Candidate,
}

/// One token before and after the sampler's steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Its id.
    pub id: u32,
    /// As [`Token::piece`](super::Token::piece).
    pub piece: String,
    /// Its logit, after the repetition penalty.
    pub logit: f32,
    /// Probability at temperature 1, after the repetition penalty.
    pub before: f32,
    /// Probability of being drawn: filters and temperature applied. 0 if it was removed.
    pub after: f32,
    /// Probability of this and all likelier tokens, at temperature 1.
    pub cumulative: f32,
    /// The filter that removed it.
    pub removed_by: Option<Filter>,
    /// Why, in words with numbers: `top-p: 0.961 before it ≥ 0.95`.
    pub reason: Option<String>,
}

/// What one filter did to the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FilterOutcome {
    /// Which one.
    pub filter: Filter,
    /// Tokens that it removed.
    pub removed: usize,
    /// Tokens that are left after it.
    pub kept: usize,
    /// Probability at temperature 1 of those left.
    pub mass: f32,
}

/// The distribution at one temperature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    /// T
    pub temperature: f32,
    /// For the first tokens of [`Prediction::bars`].
    pub probabilities: Vec<f32>,
}
