//! Steps 5 and 6: the loop, what it computes again, and what all of it costs.

use serde::{Deserialize, Serialize};

use super::predict::Candidate;

/// Step 5: the loop, as the flags ask for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decode {
    /// One per generated token.
    pub rounds: Vec<Round>,
    /// What came out.
    pub text: String,
    /// `stop`, `length`.
    pub ended_by: String,
}

/// One turn of the loop: the whole sequence in, one token out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Tokens that went in.
    pub input: usize,
    /// The token that came out.
    pub chosen: Candidate,
    /// The likeliest ones, likeliest first.
    pub top: Vec<Candidate>,
    /// Measured; not the same in two runs.
    pub micros: f64,
}

/// Step 6: what naive decode computes again, and what a cache would keep instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recompute {
    /// Per round of [`Decode`]: positions that went through every layer.
    pub computed: Vec<u64>,
    /// Per round: those of them that an earlier round had computed.
    pub repeated: Vec<u64>,
    /// Largest difference between the keys and values of the prompt's positions in the first round
    /// and in the last one, over all layers: what is computed again comes out the same.
    pub largest_change: f32,
    /// Operations of all rounds.
    pub flops_naive: u64,
    /// Operations that a cache would have left.
    pub flops_cached: u64,
    /// `2 · layers · Hkv · D · bytes`
    pub kv_bytes_per_token: u64,
    /// The same with H instead of Hkv: what it would be if every query head had its own keys.
    pub kv_bytes_per_token_all_heads: u64,
    /// A cache of prompt and answer, without the answer's last token: nobody asks what follows it.
    pub kv_bytes: u64,
    /// Positions repeated for answers of other lengths after the same prompt.
    pub answers: Vec<Answer>,
}

/// What an answer of some length would cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// n
    pub tokens: u64,
    /// Positions computed again, in each layer: `(n−1)(p−1) + n(n−1)/2` after a prompt of p.
    pub repeated: u64,
    /// `n(n−1)/2` of them are of the answer itself.
    pub of_answer: u64,
    /// A cache of prompt and answer, without the answer's last token: nobody asks what follows it.
    pub kv_bytes: u64,
}

/// What one part of the model costs in one pass over the prompt, summed over the layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// `q k v`, `softmax(q kᵀ) v`, …
    pub part: String,
    /// Number of weights.
    pub parameters: u64,
    /// Additions and multiplications of matrix products.
    pub flops: u64,
    /// Weights that have to be read at least.
    pub bytes: u64,
    /// Measured, with a wait after each part; not the same in two runs.
    pub micros: f64,
}
