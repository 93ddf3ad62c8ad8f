//! The token loop, the naive way: the whole sequence again for every token.
//!
//! Nothing is kept between two steps, so step `i` computes the keys and values of all the tokens
//! before it once more, only to get the numbers that it had already. This is the code to beat.

use std::ops::ControlFlow;

use anyhow::Result;
use shared::cli::SamplingArgs;
use shared::layers::ids_array;
use shared::metrics::{FinishReason, Timeline};
use shared::sampling::Sampler;

use crate::model::Model;

/// When to stop.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Ids that end the answer; none of them becomes part of it.
    pub stop_ids: Vec<u32>,
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

/// Continues `prompt`, and hands each id to `on_token` as soon as it is known.
///
/// # Cost
/// Step `i` runs the model over `prompt.len() + i` tokens: n tokens after a prompt of p cost
/// `n·p + n(n−1)/2` positions, where `p + n − 1` would do.
///
/// # Errors
/// If the model or the sampler fails, or `on_token` does.
pub fn generate(
    model: &Model,
    prompt: &[u32],
    limits: &Limits,
    sampling: &SamplingArgs,
    mut on_token: impl FnMut(u32) -> Result<ControlFlow<FinishReason>>,
) -> Result<Generation> {
    let mut sampler = Sampler::new(sampling, prompt)?;
    let mut tokens = Vec::new();
    let mut positions_recomputed = Vec::new();
    let mut finish_reason = FinishReason::Length;
    let mut timeline = Timeline::start();
    while tokens.len() < limits.max_tokens {
        let sequence = [prompt, &tokens].concat();
        let logits = model.next_logits(&ids_array(&sequence))?; // [1, V]
        // Reading the id evaluates the whole step: it is needed on the host to go on.
        let token = sampler.sample(&logits)?.try_item_exact::<u32>()?;
        if limits.stop_ids.contains(&token) {
            finish_reason = FinishReason::Stop;
            break;
        }
        timeline.mark();
        positions_recomputed.push(match tokens.is_empty() {
            true => 0,
            false => sequence.len() as u64 - 1,
        });
        tokens.push(token);
        if let ControlFlow::Break(reason) = on_token(token)? {
            finish_reason = reason;
            break;
        }
    }
    Ok(Generation {
        tokens,
        finish_reason,
        timeline,
        positions_recomputed,
    })
}
