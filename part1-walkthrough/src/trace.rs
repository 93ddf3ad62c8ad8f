//! Everything that one walk through the model found, as plain data: the terminal and the page show
//! this and nothing else, so they cannot tell different stories.
//!
//! No array of MLX is in here: a trace can be written as JSON, read back and drawn without the
//! model. Letters as everywhere: L tokens of the prompt, H query heads, Hkv key/value heads, D head
//! width, E model width, F MLP width, V vocabulary. Layers, heads and positions count from 0, like
//! the names in a checkpoint. One file per step of the video.

mod attend;
mod embed;
mod floats;
mod loops;
mod merging;
mod predict;
mod tokens;
mod what_if;

use serde::{Deserialize, Serialize};

use crate::extras::compare::Comparison;

pub use attend::{Check, Focus, Layer, Shape, Strips};
pub use embed::{
    AddedPosition, Direction, Embedded, Embedding, Map, Meaning, Meanings, Neighbour, Order, Point,
    Positions, Reading, Shifted, Width,
};
pub use floats::Floats;
pub use loops::{Answer, Cost, Decode, Recompute, Round};
pub use merging::{Joined, MergeTable, Merging, Word};
pub use predict::{Bar, Candidate, Filter, FilterOutcome, LensRow, NAMED, Prediction, Temperature};
pub use tokens::{Named, Token};
pub use what_if::{WhatIf, WhatIfOutcome};

/// One prompt's whole journey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The model that was watched.
    pub model: ModelFacts,
    /// The prompt as it was typed.
    pub text: String,
    /// Whether the chat template was put around it; `tokens` then has more than `text`.
    pub templated: bool,
    /// Step 1: the L tokens that the model sees.
    pub tokens: Vec<Token>,
    /// How these tokens were put together, if the vocabulary is one of bytes and merges.
    pub merging: Option<Merging>,
    /// Step 2: their vectors.
    pub embedding: Embedding,
    /// How the model knows the order of the tokens.
    pub positions: Positions,
    /// Step 3: per layer, who looked at whom and what was added.
    pub layers: Vec<Layer>,
    /// q, k and v of the layers that a page has room for, those nearest to the one in slow motion first.
    pub strips: Vec<Strips>,
    /// One head in slow motion.
    pub focus: Focus,
    /// What each layer would have said, had it been the last one.
    pub lens: Vec<LensRow>,
    /// Step 4: from the last vector to the next token.
    pub prediction: Prediction,
    /// Step 5: the loop.
    pub decode: Decode,
    /// Step 6: what the loop computes again.
    pub recompute: Recompute,
    /// What one pass over the prompt costs, part by part.
    pub budget: Vec<Cost>,
    /// The single steps against MLX's fused operations.
    pub checks: Vec<Check>,
    /// One word in two sentences, if that was asked for.
    pub comparison: Option<Comparison>,
    /// What happened with something switched off, if that was asked for. The rest of the trace is
    /// of the model as it is.
    pub what_if: Option<WhatIfOutcome>,
}

/// What the checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// The model as it was asked for: `tiny`, a path, a hub id.
    pub name: String,
    /// `llama`, `mistral`, `qwen2`, `qwen3`, `gpt2`.
    pub architecture: String,
    /// Number of blocks.
    pub layers: usize,
    /// H
    pub heads: usize,
    /// Hkv; query head h reads key/value head `h / (H / Hkv)`.
    pub kv_heads: usize,
    /// D
    pub head_dim: usize,
    /// E
    pub width: usize,
    /// F
    pub inner: usize,
    /// V
    pub vocabulary: usize,
    /// Most positions.
    pub context: usize,
    /// How positions enter, for people: `rotated, theta 10,000` or `learned, 1,024 vectors added`.
    pub position_encoding: String,
    /// `RMSNorm` or `LayerNorm`.
    pub norm: String,
    /// `SwiGLU` or `GELU (tanh)`.
    pub activation: String,
    /// Whether the embedding's table is the head, too.
    pub tied: bool,
    /// Number of weights.
    pub parameters: u64,
    /// Their size in memory, as computed with.
    pub weight_bytes: u64,
    /// The type of most weights in the file: `BF16`, `Q4_1`, …
    pub stored_as: String,
    /// The type of the activations: `float32`, …
    pub computed_in: String,
    /// Bytes of one number of the activations, and so of a KV cache.
    pub activation_bytes: usize,
}
