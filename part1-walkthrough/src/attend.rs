//! Step 3: one block in single steps. Every token collects from the tokens before it what it needs.
//!
//! ```text
//! x                                      [1, L, E]     the stream
//! norm                                   [1, L, E]
//! q, k, v = three projections            [1, H, L, D]  [1, Hkv, L, D] twice
//! q kᵀ                                   [1, H, L, L]  how well does each pair fit?
//! / √D, + mask, softmax                  [1, H, L, L]  each row: shares that sum to 1
//! · v                                    [1, H, L, D]  what was collected
//! heads side by side, output projection  [1, L, E]     added to the stream
//! norm, MLP                              [1, L, E]     added to the stream
//! ```
//!
//! Vaswani et al. 2017 (arXiv 1706.03762); heads that share keys and values: GQA (arXiv
//! 2305.13245).

use anyhow::{Result, ensure};
use mlx_rs::fast::{ScaledDotProductAttentionMask as Mask, scaled_dot_product_attention};
use mlx_rs::{Array, Dtype, ops};
use shared::layers::to_f32;

use crate::block::{BlockPass, Scores};
use crate::clock::Clock;
use crate::decoder::{Decoder, Part};
use crate::trace::{Check, WhatIf};

/// Attention and MLP, each on a normalised copy of the stream and added to it.
///
/// # Shapes
/// x `[1, L, E]` → `output` `[1, L, E]`
pub fn block(
    decoder: &dyn Decoder,
    layer: usize,
    x: &Array,
    switch: Option<WhatIf>,
    clock: &mut Clock,
) -> Result<BlockPass> {
    let normed = decoder.attention_norm(layer, x)?;
    clock.lap(Part::Norms, &[&normed])?;
    let plain = decoder.project(layer, &normed)?;
    clock.lap(Part::Qkv, &[&plain.q, &plain.k, &plain.v])?;
    let (q, k) = match switch {
        Some(WhatIf::NoPositions) => (plain.q.clone(), plain.k.clone()),
        _ => (decoder.rotate(&plain.q, 0)?, decoder.rotate(&plain.k, 0)?),
    };
    clock.lap(Part::Rotation, &[&q, &k])?;

    let scores = scores(&q, &k, decoder.sliding_window(layer), switch)?; // [1, H, L, L]
    let mixed = mix(&scores.weights, &plain.v)?; // [1, H, L, D]
    let mixed = match switch {
        Some(WhatIf::ZeroHead { layer: at, head }) if at == layer => without_head(&mixed, head)?,
        _ => mixed,
    };
    clock.lap(Part::Attention, &[&mixed])?;
    let joined = join_heads(&mixed)?; // [1, L, H·D]
    let attention = decoder.project_out(layer, &joined)?; // [1, L, E]
    let middle = x.add(&attention)?;
    clock.lap(Part::Output, &[&middle])?;

    let mlp_normed = decoder.mlp_norm(layer, &middle)?;
    clock.lap(Part::Norms, &[&mlp_normed])?;
    let mlp = decoder.mlp(layer, &mlp_normed)?;
    let output = middle.add(&mlp)?;
    clock.lap(Part::Mlp, &[&output])?;
    Ok(BlockPass {
        input: x.clone(),
        normed,
        plain,
        q,
        k,
        scores,
        mixed,
        joined,
        attention,
        middle,
        mlp_normed,
        mlp,
        output,
    })
}

/// Who looks at whom: `softmax(q kᵀ / √D + mask)`.
///
/// # Shapes
/// q `[1, H, L, D]`, k `[1, Hkv, L, D]` → each step `[1, H, L, L]`
///
/// # Cost
/// `2·H·D·L²` operations, and `H·L²` numbers that have to be written and read three times; the
/// fused operation never writes them.
///
/// # Errors
/// If H is not a multiple of Hkv.
pub fn scores(q: &Array, k: &Array, window: Option<i32>, switch: Option<WhatIf>) -> Result<Scores> {
    let [l, d] = [q.dim(2), q.dim(3)];
    let raw = ops::matmul(
        &grouped(q, k.dim(1))?,
        &k.expand_dims(2)?.swap_axes(-1, -2)?,
    )?;
    let raw = raw.reshape(&[1, q.dim(1), l, l])?; // [1, H, L, L]
    let scaled = match switch {
        Some(WhatIf::NoScaling) => raw.clone(),
        // q·k is a sum of D products: with numbers around 1 it spreads like √D.
        _ => raw.divide(like(&raw, (d as f32).sqrt())?)?,
    };
    let masked = match switch {
        Some(WhatIf::NoMask) => scaled.clone(),
        _ => scaled.add(causal_mask(l, window)?.as_dtype(scaled.dtype())?)?,
    };
    let weights = softmax(&masked)?;
    Ok(Scores {
        raw,
        scaled,
        masked,
        weights,
    })
}

/// What each token collects: the values of the others, each times its share.
///
/// # Shapes
/// weights `[1, H, L, L]`, v `[1, Hkv, L, D]` → `[1, H, L, D]`
///
/// # Errors
/// If H is not a multiple of Hkv.
pub fn mix(weights: &Array, v: &Array) -> Result<Array> {
    let mixed = ops::matmul(&grouped(weights, v.dim(1))?, &v.expand_dims(2)?)?; // [1, Hkv, H/Hkv, L, D]
    Ok(mixed.reshape(&[1, weights.dim(1), weights.dim(2), v.dim(3)])?)
}

/// The heads that share one key/value head side by side: `[1, H, L, N]` → `[1, Hkv, H/Hkv, L, N]`.
fn grouped(x: &Array, kv_heads: i32) -> Result<Array> {
    let heads = x.dim(1);
    ensure!(
        kv_heads > 0 && heads % kv_heads == 0,
        "{heads} query heads cannot share {kv_heads} key/value heads"
    );
    Ok(x.reshape(&[1, kv_heads, heads / kv_heads, x.dim(2), x.dim(3)])?)
}

/// 0 where token i (row) may look at token j (column), −∞ where it may not: `j ≤ i`, and with a
/// window `j > i − window`. `[L, L]`, f32.
pub fn causal_mask(l: i32, window: Option<i32>) -> Result<Array> {
    let sees = |i: i32, j: i32| j <= i && window.is_none_or(|window| j > i - window);
    let cell = |(i, j)| if sees(i, j) { 0.0 } else { f32::NEG_INFINITY };
    let cells = (0..l).flat_map(|i| (0..l).map(move |j| (i, j)));
    Ok(Array::from_iter(cells.map(cell), &[l, l]))
}

/// `exp(x) / Σ exp(x)` over the last axis. The largest x is taken off first: it changes nothing in
/// the result, and exp of a large number would overflow.
pub fn softmax(x: &Array) -> Result<Array> {
    let exp = x.subtract(x.max_axis(-1, true)?)?.exp()?;
    Ok(exp.divide(exp.sum_axis(-1, true)?)?)
}

/// `x / √(mean(x²) + ε) · w` over the last axis, added up in f32. Zhang and Sennrich 2019 (arXiv
/// 1910.07467).
///
/// # Shapes
/// x `[…, N]`, w `[N]` → as x
pub fn rms_norm(x: &Array, w: &Array, eps: f32) -> Result<Array> {
    let wide = x.as_dtype(Dtype::Float32)?;
    let mean_square = wide.square()?.mean_axis(-1, true)?;
    let inverse = mean_square.add(Array::from_f32(eps))?.rsqrt()?;
    // A 16-bit x with f32 weights (GGUF) gives f32: it must not be rounded in between.
    let dtype = if x.dtype() == w.dtype() {
        x.dtype()
    } else {
        Dtype::Float32
    };
    Ok(wide.multiply(inverse)?.as_dtype(dtype)?.multiply(w)?)
}

/// `silu(gate) · up` with `silu(x) = x / (1 + exp(−x))`. Shazeer 2020 (arXiv 2002.05202).
pub fn swiglu(gate: &Array, up: &Array) -> Result<Array> {
    let silu = gate.divide(like(gate, 1.0)?.add(gate.negative()?.exp()?)?)?;
    Ok(silu.multiply(up)?)
}

/// `[1, L, heads·D]` → `[1, heads, L, D]`.
pub fn split_heads(x: &Array, heads: usize, head_dim: usize) -> Result<Array> {
    let x = x.reshape(&[1, x.dim(1), heads as i32, head_dim as i32])?; // [1, L, heads, D]
    Ok(x.transpose_axes(&[0, 2, 1, 3])?)
}

/// `[1, H, L, D]` → `[1, L, H·D]`.
pub fn join_heads(x: &Array) -> Result<Array> {
    let l = x.dim(2);
    Ok(x.transpose_axes(&[0, 2, 1, 3])?.reshape(&[1, l, -1])?)
}

fn without_head(mixed: &Array, head: usize) -> Result<Array> {
    let heads = mixed.dim(1);
    let keep = (0..heads).map(|h| if h == head as i32 { 0.0 } else { 1.0 });
    let keep = Array::from_iter(keep, &[1, heads, 1, 1]).as_dtype(mixed.dtype())?;
    Ok(mixed.multiply(keep)?)
}

/// A number in the type of `x`: an f32 one would widen 16-bit arrays.
pub fn like(x: &Array, value: f32) -> Result<Array> {
    Ok(Array::from_f32(value).as_dtype(x.dtype())?)
}

/// Attention in single steps beside MLX's fused operation, over all layers.
pub fn checks(decoder: &dyn Decoder, blocks: &[BlockPass]) -> Result<Vec<Check>> {
    let mut pairs = Vec::new();
    for (layer, block) in blocks.iter().enumerate() {
        let scale = 1.0 / (block.q.dim(3) as f32).sqrt();
        let mask = causal_mask(block.q.dim(2), decoder.sliding_window(layer))?;
        let mask = mask.as_dtype(block.q.dtype())?;
        let (q, k, v) = (&block.q, &block.k, &block.plain.v);
        let fused = scaled_dot_product_attention(q, k, v, scale, Some(Mask::Array(&mask)), None)?;
        pairs.push((block.mixed.clone(), fused));
    }
    Ok(vec![compare(
        "attention",
        "fast::scaled_dot_product_attention",
        &pairs,
    )?])
}

/// The largest difference over several pairs of arrays: one computed in single steps, one fused.
///
/// # Errors
/// If the arrays of a pair have different sizes.
pub fn compare(name: &str, fused: &str, pairs: &[(Array, Array)]) -> Result<Check> {
    let mut check = Check {
        name: name.to_owned(),
        fused: fused.to_owned(),
        difference: 0.0,
        largest: 0.0,
        tolerance: 0.0,
    };
    for (ours, theirs) in pairs {
        check.tolerance = check.tolerance.max(tolerance(theirs.dtype()));
        let (ours, theirs) = (to_f32(ours)?, to_f32(theirs)?);
        ensure!(ours.len() == theirs.len(), "{name}: other number of values");
        for (a, b) in ours.iter().zip(&theirs) {
            // A NaN must not pass as "no difference".
            let difference = if (a - b).is_nan() {
                f32::INFINITY
            } else {
                (a - b).abs()
            };
            check.difference = check.difference.max(difference);
            check.largest = check.largest.max(b.abs());
        }
    }
    Ok(check)
}

/// Sums in another order differ by a few units in the last place: float32 has 24 bits, float16 11,
/// bfloat16 8.
fn tolerance(dtype: Dtype) -> f32 {
    match dtype {
        Dtype::Float32 => 1e-5,
        Dtype::Float16 => 4e-3,
        _ => 2e-2,
    }
}
