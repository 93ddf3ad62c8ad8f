//! The token loop with a cache: the prompt once (prefill), then one token a step (decode).
//!
//! Reading an id would leave the device idle until the host has described the next step. So the next
//! step is described and started first, from an id that is still being computed, and only then does
//! the host read it: what the host does for a token (the graph, the text, the terminal) happens while
//! the device works. The cost: when an answer ends early, one step was started for nothing.

use std::ops::ControlFlow;

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, memory, ops, transforms};
use shared::cli::{SamplingArgs, check_interrupted};
use shared::layers::ids_array;
use shared::metrics::{FinishReason, Timeline};
use shared::report::status;
use shared::sampling::Sampler;

use crate::cache::Cache;
use crate::model::Model;

/// When to stop.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Ids that end the answer; none of them becomes part of it.
    pub stop_ids: Vec<u32>,
    /// Prompt tokens that go through the model at once.
    pub prefill_step: usize,
}

/// What came out, and when.
#[derive(Debug)]
pub struct Generation {
    /// The generated ids, without the stop token.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The instant of each token.
    pub timeline: Timeline,
    /// Per step: positions whose keys and values an earlier step had already computed.
    pub positions_recomputed: Vec<u64>,
}

/// Continues `prompt`, and hands each id to `on_token` as soon as it is known. Of the prompt only
/// what `cache` has not seen is run.
///
/// # Cost
/// n tokens after a prompt of p run `p + n − 1` positions, each of which looks at what is before it.
/// Without a cache it is `n·p + n(n−1)/2`.
///
/// # Errors
/// If the model or the sampler fails, or `on_token` does, or if the cache has seen all of the prompt.
pub fn generate(
    model: &Model,
    cache: &mut Cache,
    prompt: &[u32],
    limits: &Limits,
    sampling: &SamplingArgs,
    mut on_token: impl FnMut(u32) -> Result<ControlFlow<FinishReason>>,
) -> Result<Generation> {
    let sampler = Sampler::new(sampling, prompt)?;
    let mut tokens = Vec::new();
    let mut positions_recomputed = Vec::new();
    let mut finish_reason = FinishReason::Length;
    let mut timeline = Timeline::start();
    let input = prefill(model, cache, prompt, limits.prefill_step)?;
    let mut decoder = Decoder {
        model,
        cache,
        sampler,
        input,
        in_flight: None,
    };
    let mut step = decoder.start()?;
    while tokens.len() < limits.max_tokens {
        let last = tokens.len() + 1 == limits.max_tokens;
        let next = (!last).then(|| decoder.start()).transpose()?;
        // Reading the id waits for its step; the next one is on its way already.
        let token = step.id.try_item_exact::<u32>()?;
        if limits.stop_ids.contains(&token) {
            finish_reason = FinishReason::Stop;
            break;
        }
        timeline.mark();
        positions_recomputed.push(match tokens.is_empty() {
            true => 0,
            false => step.positions - 1,
        });
        tokens.push(token);
        if let ControlFlow::Break(reason) = on_token(token)? {
            finish_reason = reason;
            break;
        }
        match next {
            Some(next) => step = next,
            None => break,
        }
    }
    Ok(Generation {
        tokens,
        finish_reason,
        timeline,
        positions_recomputed,
    })
}

/// Runs the prompt through the model in pieces of `step`, and returns the last piece, ids `[1, L]`,
/// which is left to the first step of the decoder: only there are logits needed.
///
/// # Cost
/// The scores of a piece take `H·step·S` elements where a backend writes them out, those of a whole
/// prompt `H·S²`: pieces bound the memory, and let a long prompt show its progress.
///
/// # Errors
/// If the model fails, or if the cache has seen all of the prompt.
pub fn prefill(model: &Model, cache: &mut Cache, prompt: &[u32], step: usize) -> Result<Array> {
    let seen = cache.offset() as usize;
    let rest = prompt
        .get(seen..)
        .filter(|rest| !rest.is_empty())
        .with_context(|| format!("the cache has seen {seen} tokens, the prompt has no more"))?;
    ensure!(step > 0, "the prompt cannot be run in pieces of 0 tokens");
    // Without a cache there are no pieces. If the cache forgets, the last token goes alone: alone it
    // sees all that is kept.
    let before = match (cache.remembers(), cache.forgets(prompt.len() as i32)) {
        (false, _) => 0,
        (true, false) => (rest.len() - 1) / step * step,
        (true, true) => rest.len() - 1,
    };
    fill(model, cache, prompt, seen + before, step)?;
    Ok(ids_array(&rest[before..]))
}

/// Runs what `cache` has not seen of the first `end` tokens of `prompt`, in pieces of `step`.
///
/// # Errors
/// If the model fails.
pub fn fill(
    model: &Model,
    cache: &mut Cache,
    prompt: &[u32],
    end: usize,
    step: usize,
) -> Result<()> {
    let seen = cache.offset() as usize;
    for piece in prompt.get(seen..end).unwrap_or_default().chunks(step) {
        model.hidden(&ids_array(piece), cache)?;
        // Evaluated piece by piece: one graph of the whole prompt would hold all of its activations.
        transforms::eval(cache.arrays())?;
        memory::clear_cache()?; // the next piece has other sizes
        let (done, all) = (cache.offset(), prompt.len());
        status(&format!("prefill: {done} of {all} tokens"));
        check_interrupted()?;
    }
    Ok(())
}

/// A step that was started.
struct Step {
    /// The id `[1]`, u32, on the device.
    id: Array,
    /// Positions that it ran.
    positions: u64,
}

/// Runs one step ahead of the host.
struct Decoder<'a> {
    model: &'a Model,
    cache: &'a mut Cache,
    sampler: Sampler,
    /// What the next step runs, ids `[1, L]`.
    input: Array,
    /// The id that was started last.
    in_flight: Option<Array>,
}

impl Decoder<'_> {
    /// Describes the next step and starts it, without waiting for the one before.
    fn start(&mut self) -> Result<Step> {
        let positions = self.input.dim(1) as u64;
        let logits = self.model.next_logits(&self.input, self.cache)?; // [1, V]
        let id = self.sampler.sample(&logits)?; // [1]
        // Not `eval`: the host has more to do.
        transforms::async_eval([&id])?;
        self.in_flight = Some(id.clone());
        let token = id.reshape(&[1, 1])?;
        self.input = match self.cache.remembers() {
            true => token,
            false => ops::concatenate(&[&self.input, &token], 1)?,
        };
        Ok(Step { id, positions })
    }
}

/// A process that ends while MLX still works crashes now and then: whoever starts work waits for it.
impl Drop for Decoder<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.in_flight.take() {
            // An error here belongs to a step that nobody will read.
            let _ = id.eval();
        }
    }
}
