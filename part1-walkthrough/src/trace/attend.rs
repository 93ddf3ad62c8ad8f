//! Step 3: who looked at whom, and what was added.

use serde::{Deserialize, Serialize};

use super::floats::Floats;

/// Step 3 in one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// After softmax, `[H, L, L]`: row = who looks, column = at whom; a row sums to 1.
    pub weights: Floats,
    /// Length of what each head adds to each token's stream, `[H, L]`.
    pub head_norms: Floats,
    /// Length of what attention adds, per token.
    pub attention_norms: Vec<f32>,
    /// Length of what the MLP adds, per token.
    pub mlp_norms: Vec<f32>,
    /// Length of the residual stream after this layer, per token.
    pub stream_norms: Vec<f32>,
}

impl Layer {
    /// The head that adds most to the stream of one token; the first of equal ones.
    pub fn loudest(&self, position: usize) -> usize {
        let tokens = self.stream_norms.len();
        let heads = self.head_norms.0.len() / tokens;
        let added = |head: usize| self.head_norms.row(head, tokens)[position];
        (1..heads).fold(0, |best, head| {
            if added(head) > added(best) {
                head
            } else {
                best
            }
        })
    }
}

/// One head of one layer, every step of `softmax(q kᵀ / √D + mask) v`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Focus {
    /// The layer.
    pub layer: usize,
    /// The query head.
    pub head: usize,
    /// The key/value head that it reads.
    pub kv_head: usize,
    /// `q kᵀ`, `[L, L]`
    pub raw: Floats,
    /// Divided by √D.
    pub scaled: Floats,
    /// With −∞ where a token may not look.
    pub masked: Floats,
    /// After softmax.
    pub weights: Floats,
    /// Lengths of the values `v`, per token.
    pub value_norms: Vec<f32>,
    /// Lengths of `weights · v`, per token.
    pub mixed_norms: Vec<f32>,
    /// The arrays on the way, each with its letters and sizes.
    pub shapes: Vec<Shape>,
}

/// Queries, keys and values of one layer, as attention multiplies them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Strips {
    /// The layer.
    pub layer: usize,
    /// After the rotation, `[H, L, D]`.
    pub q: Floats,
    /// After the rotation, `[Hkv, L, D]`.
    pub k: Floats,
    /// `[Hkv, L, D]`
    pub v: Floats,
}

/// An array on the way through the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// What it is: `q`, `scores = q kᵀ`.
    pub name: String,
    /// `[B, H, L, D]`
    pub letters: String,
    /// `[1, 4, 12, 64]`
    pub sizes: Vec<usize>,
}

/// A result in single steps beside the same from one operation of MLX.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What was computed in single steps: `RMSNorm`.
    pub name: String,
    /// The operation that it is compared with: `fast::rms_norm`.
    pub fused: String,
    /// Largest difference of two numbers.
    pub difference: f32,
    /// Largest number of the fused result.
    pub largest: f32,
    /// Most that `difference / largest` may be: a few units in the last place of the type.
    pub tolerance: f32,
}

impl Check {
    /// Whether the two agree.
    pub fn holds(&self) -> bool {
        self.difference <= self.tolerance * self.largest
    }
}
