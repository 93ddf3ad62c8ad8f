//! Logits → the next id, on the device: no logits are copied to the host.
//!
//! The order is mlx-lm's, so that the same flags and seed give the same text: repetition penalty →
//! log-softmax → top-p → min-p → top-k → temperature → draw. The three filters therefore look at
//! the probabilities at temperature 1, and the temperature only flattens what they have left. Other
//! engines apply the temperature first (vLLM, Hugging Face), and keep other sets.

use anyhow::Result;
use mlx_rs::ops::indexing::{IndexOp, argmax_axis};
use mlx_rs::{Array, Dtype, ops, random};
use serde::{Deserialize, Serialize};

use console::cli::SamplingArgs;

/// How the next id is chosen; what each number means is said with the filter that uses it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// 0 always takes the most likely id.
    pub temperature: f32,
    /// 0 for all.
    pub top_k: usize,
    /// In (0, 1]; 1 for all.
    pub top_p: f32,
    /// From 0 to 1; 0 for all.
    pub min_p: f32,
    /// More than 0; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Same seed, same ids.
    pub seed: u64,
}

/// Greedy.
impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl From<&SamplingArgs> for Sampling {
    fn from(flags: &SamplingArgs) -> Self {
        Self {
            temperature: flags.temperature,
            top_k: flags.top_k,
            top_p: flags.top_p,
            min_p: flags.min_p,
            repetition_penalty: flags.repetition_penalty,
            seed: flags.seed,
        }
    }
}

/// How many of the latest tokens, the prompt's included, the repetition penalty looks at.
pub const REPETITION_CONTEXT: usize = 20;

/// Draws one id after the other, each from its own part of one random stream.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    key: Array,
    /// The latest ids `[N]`, on the device, since the last one may not be on the host yet.
    recent: Array,
}

impl Sampler {
    /// A sampler for one request; `prompt` is what the repetition penalty sees at first.
    pub fn new(sampling: &Sampling, prompt: &[u32]) -> Result<Self> {
        let recent = &prompt[prompt.len().saturating_sub(REPETITION_CONTEXT)..];
        Ok(Self {
            sampling: *sampling,
            key: random::key(sampling.seed)?,
            recent: Array::from_slice(recent, &[recent.len() as i32]),
        })
    }

    /// The next id: logits `[1, V]` → `[1]`, u32, not yet evaluated.
    pub fn sample(&mut self, logits: &Array) -> Result<Array> {
        let penalty = self.sampling.repetition_penalty;
        let penalised;
        let logits = if penalty == 1.0 {
            logits
        } else {
            penalised = penalize_repeats(logits, &self.recent, penalty)?;
            &penalised
        };
        let id = if self.sampling.temperature == 0.0 {
            greedy(logits)?
        } else {
            self.draw(logits)?
        };
        if penalty != 1.0 {
            self.remember(&id)?;
        }
        Ok(id)
    }

    /// One draw from the filtered distribution.
    fn draw(&mut self, logits: &Array) -> Result<Array> {
        let kept = filter(&log_softmax(logits)?, &self.sampling)?;
        let (next, key) = random::split(&self.key, 2)?;
        self.key = next;
        let cooled = kept.multiply(scalar_like(1.0 / self.sampling.temperature, &kept)?)?;
        Ok(random::categorical(&cooled, -1, None, &key)?)
    }

    fn remember(&mut self, id: &Array) -> Result<()> {
        let all = ops::concatenate(&[&self.recent, &id.as_dtype(Dtype::Uint32)?], 0)?;
        let surplus = (all.size() - REPETITION_CONTEXT.min(all.size())) as i32;
        self.recent = all.index(surplus..);
        Ok(())
    }
}

/// The most likely id: logits `[B, V]` → `[B]`. The first one if several are equal.
///
/// Taken from the log-probabilities, as mlx-lm does. In 16-bit types the subtraction rounds, so two
/// logits that differ by one step can become equal: without it, other tokens would win.
pub fn greedy(logits: &Array) -> Result<Array> {
    Ok(argmax_axis(&log_softmax(logits)?, -1, false)?)
}

/// `logits − ln Σ exp(logits)` over the last axis, in the type of the logits.
pub fn log_softmax(logits: &Array) -> Result<Array> {
    Ok(logits.subtract(ops::logsumexp_axis(logits, -1, true)?)?)
}

/// What can remove a token, in the order in which it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// The likeliest tokens that make up p.
    TopP,
    /// At least this share of the likeliest token's probability.
    MinP,
    /// The k likeliest.
    TopK,
}

/// Top-p, min-p and top-k in this order, each where its flag is on: log-probabilities `[B, V]` →
/// the same shape, with −∞ for what was removed. At least one token always stays.
pub fn filter(logprobs: &Array, sampling: &Sampling) -> Result<Array> {
    let steps = filter_steps(logprobs, sampling)?;
    Ok(steps.last().map_or(logprobs, |(_, kept)| kept).clone())
}

/// What is left after each of the filters that are on: [`filter`], step by step, for a report that
/// tells which filter removed a token. Nothing is computed that nobody asks for.
pub fn filter_steps(logprobs: &Array, sampling: &Sampling) -> Result<Vec<(Filter, Array)>> {
    let vocab_size = logprobs.size() as i32 / logprobs.shape().first().copied().unwrap_or(1).max(1);
    let mut steps: Vec<(Filter, Array)> = Vec::new();
    for filter in [Filter::TopP, Filter::MinP, Filter::TopK] {
        let left = steps.last().map_or(logprobs, |(_, kept)| kept);
        let kept = match (filter, i32::try_from(sampling.top_k)) {
            (Filter::TopP, _) if sampling.top_p < 1.0 => keep_top_p(left, sampling.top_p)?,
            (Filter::MinP, _) if sampling.min_p > 0.0 => keep_min_p(left, sampling.min_p)?,
            (Filter::TopK, Ok(k)) if 0 < k && k < vocab_size => keep_top_k(left, k)?,
            _ => continue,
        };
        steps.push((filter, kept));
    }
    Ok(steps)
}

/// Keeps the `k` most likely tokens of `[B, V]`, 0 < `k` < `V`. Fan et al. 2018 (arXiv 1805.04833).
pub fn keep_top_k(logprobs: &Array, k: i32) -> Result<Array> {
    // A partition finds the k best in one pass; a full sort would cost eight times as much.
    let order = ops::argpartition_axis(logprobs.negative()?, k - 1, -1)?;
    let rest = order.index((.., k..)); // [B, V − k]
    let removed = scalar_like(f32::NEG_INFINITY, logprobs)?;
    Ok(logprobs.put_along_axis(&rest, &removed, -1)?)
}

/// Keeps the smallest set of most likely tokens whose probabilities reach `p`, the one that crosses
/// it included. Holtzman et al. 2020 (arXiv 1904.09751).
pub fn keep_top_p(logprobs: &Array, p: f32) -> Result<Array> {
    let ascending = ops::sort_axis(logprobs, -1)?;
    let probs = ascending.as_dtype(Dtype::Float32)?.exp()?;
    let above = probs.cumsum(-1, true, false)?; // probability of everything more likely
    // An earlier filter or rounding may leave a sum other than 1: p is a share of what is there.
    let total = probs.sum_axis(-1, true)?;
    let dropped = above.ge(total.multiply(Array::from_f32(p))?)?;
    let count = dropped.as_dtype(Dtype::Int32)?.sum_axis(-1, true)?;
    let threshold = ascending.take_along_axis(&count, -1)?;
    remove(&logprobs.lt(&threshold)?, logprobs)
}

/// Keeps tokens at least `min_p` times as likely as the most likely one. Nguyen et al. 2024 (arXiv
/// 2407.01082).
pub fn keep_min_p(logprobs: &Array, min_p: f32) -> Result<Array> {
    let best = logprobs.max_axis(-1, true)?;
    let threshold = best.add(scalar_like(min_p.ln(), logprobs)?)?;
    remove(&logprobs.lt(&threshold)?, logprobs)
}

/// Divides the positive logits of `ids` `[N]` by `penalty` and multiplies the negative ones: logits
/// `[1, V]` → the same shape. Keskar et al. 2019 (arXiv 1909.05858).
pub fn penalize_repeats(logits: &Array, ids: &Array, penalty: f32) -> Result<Array> {
    if ids.size() == 0 {
        return Ok(logits.clone());
    }
    let ids = ids.reshape(&[1, -1])?;
    let seen = logits.take_along_axis(&ids, -1)?;
    let penalty = scalar_like(penalty, logits)?;
    let negative = seen.lt(scalar_like(0.0, logits)?)?;
    let changed = ops::select(
        &negative,
        &seen.multiply(&penalty)?,
        &seen.divide(&penalty)?,
    )?;
    Ok(logits.put_along_axis(&ids, &changed, -1)?)
}

fn remove(mask: &Array, logprobs: &Array) -> Result<Array> {
    Ok(ops::select(
        mask,
        &scalar_like(f32::NEG_INFINITY, logprobs)?,
        logprobs,
    )?)
}

/// A scalar in the type of `like`: an f32 one would widen 16-bit logits.
fn scalar_like(value: f32, like: &Array) -> Result<Array> {
    Ok(Array::from_f32(value).as_dtype(like.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        sampling: SamplingArgs,
    }

    #[test]
    fn without_flags_sampling_is_what_it_is_by_default() {
        let flags = Flags::parse_from(["part"]);
        assert_eq!(Sampling::from(&flags.sampling), Sampling::default());
        let flags = Flags::parse_from(["part", "--temperature", "0.5", "--seed", "3"]);
        let sampling = Sampling::from(&flags.sampling);
        assert_eq!((sampling.temperature, sampling.seed), (0.5, 3));
    }
}
