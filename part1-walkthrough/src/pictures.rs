//! What of a block is drawn: who looks at whom, how much each head adds, one head in slow motion.

use anyhow::Result;
use mlx_rs::{Array, Dtype, ops};
use shared::layers::to_f32;

use crate::block::BlockPass;
use crate::decoder::Decoder;
use crate::pass::Pass;
use crate::trace::{Focus, Layer, Shape, Strips};

/// What each head alone adds to the stream: `[H, L, E]`. The output projection is linear, so the
/// heads' shares sum to what attention adds (a bias of the projection belongs to no head).
pub fn contributions(decoder: &dyn Decoder, layer: usize, block: &BlockPass) -> Result<Array> {
    let [h, l, d] = [block.mixed.dim(1), block.mixed.dim(2), block.mixed.dim(3)];
    let alone = ops::eye::<f32>(h, None, None)?.as_dtype(block.mixed.dtype())?;
    let alone = alone.reshape(&[h, 1, h, 1])?;
    let heads = block.mixed.transpose_axes(&[0, 2, 1, 3])?; // [1, L, H, D]
    let heads = heads.multiply(alone)?.reshape(&[h, l, h * d])?; // [H, L, H·D], one head each
    let nothing = ops::zeros_like(&block.joined)?;
    let bias = decoder.project_out(layer, &nothing)?; // [1, L, E]
    Ok(decoder.project_out(layer, &heads)?.subtract(bias)?)
}

/// Lengths over the last axis, as numbers.
pub fn norms(x: &Array) -> Result<Vec<f32>> {
    let squares = x.as_dtype(Dtype::Float32)?.square()?;
    to_f32(&squares.sum_axis(-1, false)?.sqrt()?)
}

/// The pictures of all layers.
pub fn layers(decoder: &dyn Decoder, pass: &Pass) -> Result<Vec<Layer>> {
    let picture = |(layer, block): (usize, &BlockPass)| {
        Ok(Layer {
            weights: to_f32(&block.scores.weights)?.into(),
            head_norms: norms(&contributions(decoder, layer, block)?)?.into(),
            attention_norms: norms(&block.attention)?,
            mlp_norms: norms(&block.mlp)?,
            stream_norms: norms(&block.output)?,
        })
    };
    pass.blocks.iter().enumerate().map(picture).collect()
}

/// Numbers of q, k and v that a page has room for, 5⅓ characters each; fewer of a model whose vocabulary and layers
/// take more of the page themselves.
const STRIPS: usize = 75_000;
const STRIPS_OF_LARGE: usize = 45_000;

/// Queries, keys and values of as many layers as a page has room for: those nearest to `layer` first.
pub fn strips(decoder: &dyn Decoder, pass: &Pass, layer: usize) -> Result<Vec<Strips>> {
    let facts = decoder.facts();
    let heads = facts.heads + 2 * facts.kv_heads;
    let numbers = heads * pass.length() * facts.head_dim; // of a layer
    let room = if facts.layers * numbers > STRIPS {
        STRIPS_OF_LARGE / numbers
    } else {
        facts.layers
    };
    let mut nearest: Vec<usize> = (0..facts.layers).collect();
    nearest.sort_by_key(|other| other.abs_diff(layer));
    let strips = |layer: usize| {
        let block = &pass.blocks[layer];
        Ok(Strips {
            layer,
            q: to_f32(&block.q)?.into(),
            k: to_f32(&block.k)?.into(),
            v: to_f32(&block.plain.v)?.into(),
        })
    };
    nearest.into_iter().take(room).map(strips).collect()
}

/// One head of one layer in slow motion.
pub fn focus(decoder: &dyn Decoder, pass: &Pass, layer: usize, head: usize) -> Result<Focus> {
    let facts = decoder.facts();
    let block = &pass.blocks[layer];
    let kv_head = head / (facts.heads / facts.kv_heads);
    let of = |x: &Array, head: usize| -> Result<Array> {
        Ok(x.take_axis(Array::from_int(head as i32), 1)?)
    };
    let cells = |x: &Array| Ok::<_, anyhow::Error>(to_f32(&of(x, head)?)?.into());
    Ok(Focus {
        layer,
        head,
        kv_head,
        raw: cells(&block.scores.raw)?,
        scaled: cells(&block.scores.scaled)?,
        masked: cells(&block.scores.masked)?,
        weights: cells(&block.scores.weights)?,
        value_norms: norms(&of(&block.plain.v, kv_head)?)?,
        mixed_norms: norms(&of(&block.mixed, head)?)?,
        shapes: shapes(block),
    })
}

/// The query of the last token and the key of the first, before the rotation: `[1, 1, 1, D]` each.
pub fn query_and_key(pass: &Pass, focus: &Focus) -> Result<(Array, Array)> {
    let plain = &pass.blocks[focus.layer].plain;
    let one = |x: &Array, head: usize, position: i32| -> Result<Array> {
        let head = x.take_axis(Array::from_slice(&[head as i32], &[1]), 1)?;
        Ok(head.take_axis(Array::from_slice(&[position], &[1]), 2)?)
    };
    let last = pass.length() as i32 - 1;
    Ok((
        one(&plain.q, focus.head, last)?,
        one(&plain.k, focus.kv_head, 0)?,
    ))
}

fn shapes(block: &BlockPass) -> Vec<Shape> {
    let shape = |name: &str, letters: &str, x: &Array| Shape {
        name: name.to_owned(),
        letters: letters.to_owned(),
        sizes: x.shape().iter().map(|&size| size as usize).collect(),
    };
    vec![
        shape("x, the stream", "[B, L, E]", &block.input),
        shape("norm(x)", "[B, L, E]", &block.normed),
        shape("q", "[B, H, L, D]", &block.q),
        shape("k", "[B, Hkv, S, D]", &block.k),
        shape("v", "[B, Hkv, S, D]", &block.plain.v),
        shape(
            "softmax(q kᵀ / √D + mask)",
            "[B, H, L, S]",
            &block.scores.weights,
        ),
        shape("weights · v", "[B, H, L, D]", &block.mixed),
        shape("heads side by side", "[B, L, H·D]", &block.joined),
        shape("output projection", "[B, L, E]", &block.attention),
        shape("MLP", "[B, L, E]", &block.mlp),
    ]
}
