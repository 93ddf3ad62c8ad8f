//! Step 6: what the loop computes again, and what a cache would keep instead.
//!
//! A token never sees the tokens after it, so its key and its value in each layer cannot change
//! when the text goes on. Naive decode computes them again in every round all the same: an answer
//! of n tokens after a prompt of p repeats `(n−1)(p−1) + n(n−1)/2` positions in every layer, each
//! of them all the matrix products of the layer. Keeping keys and values costs
//! `2 · layers · Hkv · D · bytes` of memory a token, of `p + n − 1` tokens: nobody asks what follows the
//! last one. Part 3 builds that.

use anyhow::Result;
use console::metrics::median;
use mlx_rs::{Array, Dtype, ops};
use shared::layers::to_f32;

use crate::clock::Clock;
use crate::decoder::{Decoder, Part};
use crate::pass::Pass;
use crate::trace::{Answer, Cost, Decode, ModelFacts, Recompute};

/// Lengths of answers that the table shows.
const ANSWERS: [u64; 4] = [10, 50, 200, 1000];

/// What the rounds computed again; `first` and `last` are the passes of the first and the last one.
pub fn recompute(
    decoder: &dyn Decoder,
    decode: &Decode,
    first: &Pass,
    last: Option<&Pass>,
) -> Result<Recompute> {
    let facts = decoder.facts();
    let computed: Vec<u64> = decode
        .rounds
        .iter()
        .map(|round| round.input as u64)
        .collect();
    let prompt = first.length() as u64;
    let repeated = computed.iter().enumerate();
    let repeated = repeated.map(|(round, positions)| if round == 0 { 0 } else { positions - 1 });
    let with_cache = computed.iter().enumerate().map(|(round, &seen)| {
        let new = if round == 0 { seen } else { 1 };
        pass_flops(decoder, new, seen)
    });
    Ok(Recompute {
        repeated: repeated.collect(),
        largest_change: last.map_or(Ok(0.0), |last| largest_change(first, last))?,
        flops_naive: computed.iter().map(|&l| pass_flops(decoder, l, l)).sum(),
        flops_cached: with_cache.sum(),
        kv_bytes_per_token: kv_bytes(facts, facts.kv_heads),
        kv_bytes_per_token_all_heads: kv_bytes(facts, facts.heads),
        kv_bytes: kept(facts, prompt, computed.len() as u64),
        answers: ANSWERS.map(|n| answer(facts, prompt, n)).to_vec(),
        computed,
    })
}

/// `2 · layers · heads · D · bytes`: keys and values of one token.
fn kv_bytes(facts: &ModelFacts, heads: usize) -> u64 {
    (2 * facts.layers * heads * facts.head_dim * facts.activation_bytes) as u64
}

fn answer(facts: &ModelFacts, prompt: u64, n: u64) -> Answer {
    let of_answer = n * (n - 1) / 2;
    Answer {
        tokens: n,
        repeated: (n - 1) * (prompt - 1) + of_answer,
        of_answer,
        kv_bytes: kept(facts, prompt, n),
    }
}

/// Keys and values of a prompt and of an answer of n tokens without its last one.
fn kept(facts: &ModelFacts, prompt: u64, n: u64) -> u64 {
    kv_bytes(facts, facts.kv_heads) * (prompt + n.saturating_sub(1))
}

/// Largest difference between keys and values of the prompt in two passes, over all layers.
fn largest_change(first: &Pass, last: &Pass) -> Result<f32> {
    let l = first.length() as i32;
    let change = |a: &Array, b: &Array| -> Result<f32> {
        let same = ops::split_at_indices(b, &[l], 2)?.swap_remove(0); // [1, Hkv, L, D]
        let difference = a.subtract(same)?.abs()?.as_dtype(Dtype::Float32)?;
        Ok(to_f32(&difference.max(false)?)?[0])
    };
    let mut largest = 0.0_f32;
    for (a, b) in first.blocks.iter().zip(&last.blocks) {
        largest = largest
            .max(change(&a.k, &b.k)?)
            .max(change(&a.plain.v, &b.plain.v)?);
    }
    Ok(largest)
}

/// Additions and multiplications of all matrix products for `new` positions that see `seen` of
/// them.
fn pass_flops(decoder: &dyn Decoder, new: u64, seen: u64) -> u64 {
    Part::ALL
        .iter()
        .map(|part| flops(decoder, *part, new, seen))
        .sum()
}

/// `2 · weights` per position, and for attention `4·H·D` per pair of positions and layer: the
/// square is computed whole, though the mask hides half of it.
fn flops(decoder: &dyn Decoder, part: Part, new: u64, seen: u64) -> u64 {
    let facts = decoder.facts();
    match part {
        Part::Attention => (4 * facts.layers * facts.heads * facts.head_dim) as u64 * new * seen,
        Part::Embedding | Part::Norms | Part::Rotation => 0,
        Part::Head => 2 * decoder.weights(part, 1).multiplied, // the last position alone
        part => 2 * decoder.weights(part, new as usize).multiplied * new,
    }
}

/// Passes that are measured; the page names the number.
const PASSES: usize = 5;

/// What one pass over `ids` costs, part by part: weights and operations counted, time measured (the
/// median of some passes).
pub fn budget(decoder: &dyn Decoder, ids: &[u32]) -> Result<Vec<Cost>> {
    let mut clocks = Vec::new();
    for _ in 0..PASSES {
        let mut clock = Clock::running();
        let pass = Pass::timed(decoder, ids, None, &mut clock)?;
        let logits = pass.next_logits(decoder)?;
        clock.lap(Part::Head, &[&logits])?;
        clocks.push(clock);
    }
    let tokens = ids.len() as u64;
    let cost = |part: Part| {
        let weights = decoder.weights(part, ids.len());
        let micros: Vec<f64> = clocks.iter().map(|clock| clock.micros(part)).collect();
        Cost {
            part: part.name().to_owned(),
            parameters: weights.parameters,
            flops: flops(decoder, part, tokens, tokens),
            bytes: weights.bytes,
            micros: median(&micros).unwrap_or_default(),
        }
    };
    Ok(Part::ALL.into_iter().map(cost).collect())
}
