//! What a family of models has to provide.
//!
//! A family says what its own pieces are: its table, its norms, its projections, its MLP. The order
//! in which they are put together, and attention itself, is the same for all and written once: in
//! [`crate::pass`] and in [`crate::attend`].

use anyhow::Result;
use mlx_rs::Array;

use crate::block::{BlockPass, Projected};
use crate::trace::{Check, ModelFacts, Positions};

/// The vectors that enter the first layer.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The rows of the table, `[1, L, E]`.
    pub tokens: Array,
    /// What is added to them for their positions, `[1, L, E]`; `None` where positions enter by
    /// rotation.
    pub positions: Option<Array>,
}

/// A decoder whose every intermediate result can be looked at.
///
/// Each method is one step in plain array operations; the fused operations that the later parts use
/// appear in [`Decoder::checks`] only. B is 1 everywhere.
pub trait Decoder {
    /// Sizes and names.
    fn facts(&self) -> &ModelFacts;

    /// ids `[1, L]`, all below V → their vectors.
    fn embed(&self, ids: &Array) -> Result<Embedded>;

    /// The whole table, dense: `[V, E]`.
    fn table(&self) -> Result<Array>;

    /// The norm before attention: x `[1, L, E]` → the same shape.
    fn attention_norm(&self, layer: usize, x: &Array) -> Result<Array>;

    /// normed `[1, L, E]` → q, k, v, with the norm on q and k where the model has one.
    fn project(&self, layer: usize, normed: &Array) -> Result<Projected>;

    /// Turns q or k `[1, heads, L, D]`, whose first position is `offset`; without rotation: as it
    /// is.
    fn rotate(&self, x: &Array, offset: usize) -> Result<Array> {
        let _ = offset;
        Ok(x.clone())
    }

    /// How many positions a token of this layer sees, itself included; `None`: all before it.
    fn sliding_window(&self, layer: usize) -> Option<i32> {
        let _ = layer;
        None
    }

    /// The heads side by side, `[…, L, H·D]`, back to the width of the stream: `[…, L, E]`. Any
    /// number of axes in front: the contribution of single heads is asked for in one batch.
    fn project_out(&self, layer: usize, joined: &Array) -> Result<Array>;

    /// The norm before the MLP: x `[1, L, E]` → the same shape.
    fn mlp_norm(&self, layer: usize, x: &Array) -> Result<Array>;

    /// normed `[1, L, E]` → `[1, L, E]`.
    fn mlp(&self, layer: usize, normed: &Array) -> Result<Array>;

    /// The norm after the last layer: x `[…, E]` → the same shape.
    fn final_norm(&self, x: &Array) -> Result<Array>;

    /// normed `[…, E]` → a score for every token, `[…, V]`.
    fn head(&self, normed: &Array) -> Result<Array>;

    /// How positions enter, with what a picture of `length` tokens needs. `q` and `k` are one query
    /// and one key, `[1, 1, 1, D]` each, not rotated, for a demonstration.
    fn positions(&self, length: usize, q: &Array, k: &Array) -> Result<Positions>;

    /// The weights that `part` uses in all layers together, for a pass over `tokens` positions.
    fn weights(&self, part: Part, tokens: usize) -> PartWeights;

    /// This family's own steps (norm, MLP, rotation) beside MLX's fused operations, with the arrays
    /// of a pass as input. Attention itself is compared by [`crate::attend::checks`] for all
    /// families.
    fn checks(&self, blocks: &[BlockPass]) -> Result<Vec<Check>>;
}

/// The parts that the budget tells apart, in the order of the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The rows of the table.
    Embedding,
    /// All norms.
    Norms,
    /// The three projections to q, k and v.
    Qkv,
    /// Turning q and k.
    Rotation,
    /// `softmax(q kᵀ / √D + mask) v`: the only part without weights that multiplies matrices.
    Attention,
    /// The projection of the joined heads.
    Output,
    /// The MLP.
    Mlp,
    /// The scores for the whole vocabulary, at one position.
    Head,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Embedding,
        Self::Norms,
        Self::Qkv,
        Self::Rotation,
        Self::Attention,
        Self::Output,
        Self::Mlp,
        Self::Head,
    ];

    /// As the budget calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Norms => "norms",
            Self::Qkv => "q k v",
            Self::Rotation => "rotation",
            Self::Attention => "attention",
            Self::Output => "output",
            Self::Mlp => "MLP",
            Self::Head => "head",
        }
    }
}

/// The weights of a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartWeights {
    /// Number of weights that belong to the part. A tied head has none of its own.
    pub parameters: u64,
    /// Those of the matrices that each position is multiplied with, a tied head's included.
    pub multiplied: u64,
    /// Bytes that have to be read at least: all of a matrix, one row per token of a table.
    pub bytes: u64,
}
