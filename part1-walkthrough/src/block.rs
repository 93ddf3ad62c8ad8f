//! Everything that one block computes on the way, by name.

use mlx_rs::Array;

/// Queries, keys and values of one layer, cut into heads; before any rotation.
#[derive(Debug, Clone)]
pub struct Projected {
    /// `[1, H, L, D]`
    pub q: Array,
    /// `[1, Hkv, L, D]`
    pub k: Array,
    /// `[1, Hkv, L, D]`
    pub v: Array,
}

/// Everything that one block computed, by name.
#[derive(Debug)]
pub struct BlockPass {
    /// The residual stream that entered, `[1, L, E]`.
    pub input: Array,
    /// After the first norm, `[1, L, E]`.
    pub normed: Array,
    /// q, k, v before the rotation.
    pub plain: Projected,
    /// q after the rotation, `[1, H, L, D]`.
    pub q: Array,
    /// k after the rotation, `[1, Hkv, L, D]`.
    pub k: Array,
    /// `softmax(q kᵀ / √D + mask)`, step by step.
    pub scores: Scores,
    /// `weights · v`, `[1, H, L, D]`.
    pub mixed: Array,
    /// The heads side by side, `[1, L, H·D]`.
    pub joined: Array,
    /// What attention adds to the stream, `[1, L, E]`.
    pub attention: Array,
    /// The stream between attention and MLP, `[1, L, E]`.
    pub middle: Array,
    /// After the second norm, `[1, L, E]`.
    pub mlp_normed: Array,
    /// What the MLP adds to the stream, `[1, L, E]`.
    pub mlp: Array,
    /// The residual stream that leaves, `[1, L, E]`.
    pub output: Array,
}

/// `softmax(q kᵀ / √D + mask)`, step by step; each `[1, H, L, L]`.
#[derive(Debug)]
pub struct Scores {
    /// `q kᵀ`
    pub raw: Array,
    /// Divided by √D.
    pub scaled: Array,
    /// With −∞ where a token may not look.
    pub masked: Array,
    /// After softmax: each row sums to 1.
    pub weights: Array,
}
