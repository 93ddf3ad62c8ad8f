//! Logits → the next id, on the device: no logits are copied to the host.
//!
//! The order is mlx-lm's, so that the same flags and seed give the same text: what a grammar allows → biases →
//! repetition penalty → presence and frequency penalties → log-softmax → top-p → min-p → top-k → temperature → draw. The three filters therefore look at
//! the probabilities at temperature 1, and the temperature only flattens what they have left. Other
//! engines apply the temperature first (vLLM, Hugging Face), and keep other sets.

mod choice;
mod likelihood;
mod penalties;

use anyhow::{Result, ensure};
use mlx_rs::ops::indexing::{IndexOp, argmax_axis};
use mlx_rs::{Array, Dtype, ops, random};
use serde::{Deserialize, Serialize};

use console::cli::SamplingArgs;

use crate::kernels::cpu;
use penalties::Added;

pub use choice::{Choice, joined};
pub use likelihood::{Likelihood, Likelihoods};
pub use penalties::Penalties;

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

/// Draws one id after the other, each from its own part of one random stream. A copy draws the same.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    key: Array,
    /// The latest ids `[N]`, on the device, since the last one may not be on the host yet.
    recent: Array,
    /// Ids that were asked for.
    count: usize,
    /// What the next id may be, bool `[1, V]`.
    allowed: Option<Array>,
    added: Added,
}

impl Sampler {
    /// A sampler for one request; `prompt` is what the repetition penalty sees at first.
    pub fn new(sampling: &Sampling, prompt: &[u32]) -> Result<Self> {
        let recent = &prompt[prompt.len().saturating_sub(REPETITION_CONTEXT)..];
        Ok(Self {
            sampling: *sampling,
            key: random::key(sampling.seed)?,
            recent: Array::from_slice(recent, &[recent.len() as i32]),
            count: 0,
            allowed: None,
            added: Added::default(),
        })
    }

    /// Scores are changed by these from now on, of an answer that has no tokens yet.
    pub fn penalize(&mut self, penalties: &Penalties) {
        self.added = Added::new(penalties);
    }

    /// Whether it takes the likeliest id and needs nothing but the logits for it.
    fn is_plain(&self) -> bool {
        self.sampling.temperature == 0.0
            && self.sampling.repetition_penalty == 1.0
            && self.allowed.is_none()
            && self.added.is_nothing()
    }

    /// The next id is one of these; the one after it is free again.
    pub fn allow(&mut self, ids: &[bool]) {
        self.allowed = Some(Array::from_slice(ids, &[1, ids.len() as i32]));
    }

    /// Ids that came without being asked for, since they were the only ones allowed. What comes after them is what it
    /// would be if each had been drawn.
    pub fn skip(&mut self, ids: &[u32]) -> Result<()> {
        self.count += ids.len();
        if self.sampling.temperature != 0.0 {
            for _ in ids {
                self.key = random::split(&self.key, 2)?.0;
            }
        }
        let ids = Array::from_slice(ids, &[ids.len() as i32]);
        self.added.skip(&ids)?;
        if self.sampling.repetition_penalty == 1.0 {
            return Ok(());
        }
        self.remember(&ids)
    }

    /// The next id, not yet evaluated, from logits `[1, V]`.
    pub fn sample(&mut self, logits: &Array) -> Result<Choice> {
        if let Some(allowed) = self.allowed.take() {
            return self.sample(&keep(&allowed, logits)?);
        }
        if self.is_plain() {
            let (total, id) = greedy_rows(logits)?;
            self.count += 1;
            return Choice::new(id, &total, self.count, logits, 1.0);
        }
        let penalty = self.sampling.repetition_penalty;
        let scores = penalize_repeats(&self.added.bias(logits)?, &self.recent, penalty)?;
        let scores = self.added.penalize(&scores)?;
        let total = ops::logsumexp_axis(&scores, -1, true)?;
        let logprobs = scores.subtract(&total)?;
        let id = if self.sampling.temperature == 0.0 {
            argmax_axis(&logprobs, -1, false)?
        } else {
            self.draw(&logprobs)?
        };
        if penalty != 1.0 {
            self.remember(&id)?;
        }
        self.added.count(&id, logits.dim(-1))?;
        self.count += 1;
        Choice::new(id, &total, self.count, logits, penalty)
    }

    /// One draw from the filtered distribution.
    fn draw(&mut self, logprobs: &Array) -> Result<Array> {
        let kept = filter(logprobs, &self.sampling)?;
        let (next, key) = random::split(&self.key, 2)?;
        self.key = next;
        let cooled = cool(&kept, self.sampling.temperature)?;
        Ok(random::categorical(&cooled, -1, None, &key)?)
    }

    fn remember(&mut self, id: &Array) -> Result<()> {
        let all = ops::concatenate(&[&self.recent, &id.as_dtype(Dtype::Uint32)?], 0)?;
        let surplus = (all.size() - REPETITION_CONTEXT.min(all.size())) as i32;
        self.recent = all.index(surplus..);
        Ok(())
    }
}

/// The next id of each row, from logits `[B, V]` and the sampler of each: what it would choose alone.
///
/// # Cost
/// One operation for all rows where all are greedy; else some operations for each row.
///
/// # Errors
/// If there are not as many samplers as rows.
pub fn sample_rows(samplers: &mut [&mut Sampler], logits: &Array) -> Result<Vec<Choice>> {
    let rows = logits.dim(0);
    ensure!(
        samplers.len() as i32 == rows,
        "{} samplers for {rows} rows",
        samplers.len()
    );
    let logits = &keep_allowed(samplers, logits)?;
    if samplers.iter().all(|sampler| sampler.is_plain()) {
        let (totals, ids) = greedy_rows(logits)?;
        let counts = samplers.iter_mut().map(|sampler| {
            sampler.count += 1;
            sampler.count
        });
        return Choice::of_rows(ids, &totals, counts, logits);
    }
    let at: Vec<i32> = (1..rows).collect();
    let rows = ops::split_at_indices(logits, &at, 0)?;
    let pairs = samplers.iter_mut().zip(&rows);
    pairs.map(|(sampler, row)| sampler.sample(row)).collect()
}

/// The most likely id: logits `[B, V]` → `[B]`. The first one if several are equal.
///
/// Taken from the log-probabilities, as mlx-lm does. In 16-bit types the subtraction rounds, so two
/// logits that differ by one step can become equal: without it, other tokens would win.
pub fn greedy(logits: &Array) -> Result<Array> {
    Ok(greedy_rows(logits)?.1)
}

/// Of each row the logarithm of the sum `[B, 1]`, and the most likely id `[B]`.
fn greedy_rows(logits: &Array) -> Result<(Array, Array)> {
    if let Some(found) = cpu::greedy(logits)? {
        return Ok(found);
    }
    let totals = ops::logsumexp_axis(logits, -1, true)?;
    let ids = argmax_axis(logits.subtract(&totals)?, -1, false)?;
    Ok((totals, ids))
}

/// `logits − ln Σ exp(logits)` over the last axis, in the type of the logits.
pub fn log_softmax(logits: &Array) -> Result<Array> {
    Ok(logits.subtract(ops::logsumexp_axis(logits, -1, true)?)?)
}

/// Log-probabilities divided by a temperature above 0, the best one moved to 0: `[B, V]` → f32, the same
/// shape.
///
/// In 16-bit types mlx-lm's division rounds, and that decides some draws: so the type is theirs as far
/// as the best score stays far from its largest number. The rest of a temperature near 0 comes in f32
/// and from the best score down: the others go to −∞, which is greedy. If all of them overflowed, they
/// would be equal, and the draw noise.
pub fn cool(logprobs: &Array, temperature: f32) -> Result<Array> {
    // The inverse of the smallest floats is infinite, and 0 · ∞ is not a number.
    let inverse = (1.0 / temperature).min(f32::MAX);
    let largest = match logprobs.dtype() {
        Dtype::Float16 => 65_504.0,
        _ => f32::MAX,
    };
    // The best of V log-probabilities is at least −ln V: it would be −100 if V were 10⁴³.
    let first = inverse.min(largest / 100.0);
    let scaled = logprobs.multiply(scalar_like(first, logprobs)?)?;
    let scaled = scaled.as_dtype(Dtype::Float32)?;
    let below_best = scaled.subtract(scaled.max_axis(-1, true)?)?;
    Ok(below_best.multiply(Array::from_f32(inverse / first))?)
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
    if ids.size() == 0 || penalty == 1.0 {
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

/// Takes away all but what `mask` `[1, V]` has.
fn keep(mask: &Array, logits: &Array) -> Result<Array> {
    let removed = scalar_like(f32::NEG_INFINITY, logits)?;
    Ok(ops::select(mask, logits, &removed)?)
}

/// Takes from each row of `[B, V]` what its sampler does not allow, from all of them at once: rows with grammars are then
/// chosen from like any others.
fn keep_allowed(samplers: &mut [&mut Sampler], logits: &Array) -> Result<Array> {
    if samplers.iter().all(|sampler| sampler.allowed.is_none()) {
        return Ok(logits.clone());
    }
    let any = Array::ones::<bool>(&[1, logits.dim(-1)])?;
    let masks = (samplers.iter_mut()).map(|sampler| sampler.allowed.take());
    let masks: Vec<Array> = masks
        .map(|mask| mask.unwrap_or_else(|| any.clone()))
        .collect();
    keep(&ops::concatenate(&masks, 0)?, logits)
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

    const FLOATS: [Dtype; 3] = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];

    fn logits(values: &[f32], dtype: Dtype) -> Array {
        let values = Array::from_slice(values, &[1, values.len() as i32]);
        values.as_dtype(dtype).unwrap()
    }

    #[test]
    fn every_temperature_above_0_tends_to_greedy() {
        for dtype in FLOATS {
            let logits = logits(&[1.0, -30.0, 20.0, 21.0, -2e4, 0.0], dtype);
            for temperature in [1e-45, 1e-39, 1e-30, 1e-5, 1e-2] {
                for seed in 0..20 {
                    let sampling = Sampling {
                        temperature,
                        seed,
                        ..Sampling::default()
                    };
                    let mut sampler = Sampler::new(&sampling, &[]).unwrap();
                    let id = sampler.sample(&logits).unwrap().read().unwrap();
                    assert_eq!(id, 3, "{dtype:?} at {temperature:e}");
                }
            }
        }
    }

    #[test]
    fn an_ordinary_temperature_draws_what_mlx_lm_draws() {
        let values: Vec<f32> = (0..500_u16)
            .map(|i| f32::from(i * 37 % 501) / 97.0)
            .collect();
        for dtype in FLOATS {
            let logprobs = log_softmax(&logits(&values, dtype)).unwrap();
            for temperature in [0.1, 0.7, 1.0, 2.5] {
                let theirs = scalar_like(1.0 / temperature, &logprobs).unwrap();
                let theirs = logprobs.multiply(theirs).unwrap();
                let ours = cool(&logprobs, temperature).unwrap();
                for seed in 0..50 {
                    let draw = |scores: &Array| {
                        let key = random::key(seed).unwrap();
                        let id = random::categorical(scores, -1, None, &key).unwrap();
                        id.item_exact::<u32>()
                    };
                    assert_eq!(draw(&ours), draw(&theirs), "{dtype:?} {temperature} {seed}");
                }
            }
        }
    }

    #[test]
    fn a_filtered_score_stays_filtered_at_any_temperature() {
        let scores = logits(&[-0.5, f32::NEG_INFINITY, -1.0], Dtype::Float32);
        for temperature in [1e-45, 0.7, 1e38] {
            let cooled = cool(&scores, temperature).unwrap();
            let cooled = cooled.try_as_slice::<f32>().unwrap();
            assert_eq!((cooled[0], cooled[1]), (0.0, f32::NEG_INFINITY));
            assert!(cooled[2] <= 0.0);
        }
    }

    /// What the sampler says of the second of two rows.
    fn refusal(second: &Array, sampling: &Sampling) -> String {
        let first = logits(&[1.0, 2.0, 3.0], second.dtype());
        let mut sampler = Sampler::new(sampling, &[0, 1, 2]).unwrap();
        let first = sampler.sample(&first).unwrap();
        let second = sampler.sample(second).unwrap();
        assert!(first.read().is_ok());
        second.read().unwrap_err().to_string()
    }

    #[test]
    fn scores_that_are_not_numbers_are_refused_from_their_token_on() {
        let (nan, infinity) = (f32::NAN, f32::INFINITY);
        for dtype in FLOATS {
            for values in [[1.0, nan, 2.0], [1.0, infinity, 2.0], [-infinity; 3]] {
                for temperature in [0.0, 0.7] {
                    let sampling = Sampling {
                        temperature,
                        repetition_penalty: 1.0 + temperature,
                        top_p: 0.9,
                        ..Sampling::default()
                    };
                    let told = refusal(&logits(&values, dtype), &sampling);
                    let expected = "the logits are not numbers, from token 2 of the answer on: ";
                    assert!(told.starts_with(expected), "{told}");
                    assert_eq!(told.contains("--dtype bf16"), dtype == Dtype::Float16);
                }
            }
        }
        let one_removed = logits(&[1.0, -infinity, 2.0], Dtype::Float32);
        let mut sampler = Sampler::new(&Sampling::default(), &[]).unwrap();
        assert_eq!(sampler.sample(&one_removed).unwrap().read().unwrap(), 2);
    }

    #[test]
    fn a_penalty_that_overflows_is_told_by_its_name() {
        for (penalty, dtype) in [(1e-38, Dtype::Float32), (1e-5, Dtype::Float16)] {
            let sampling = Sampling {
                repetition_penalty: penalty,
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(&sampling, &[1]).unwrap();
            let told = sampler.sample(&logits(&[1.0, 20.0], dtype)).unwrap();
            let told = told.read().unwrap_err().to_string();
            let name =
                format!("a repetition penalty of {penalty:e} makes scores that are too large");
            assert!(told.starts_with(&name), "{told}");
        }
    }

    #[test]
    fn rows_of_which_some_may_not_take_all_ids_choose_what_each_chooses_alone() {
        let size = 50_i32;
        let scores = (0..3 * size).map(|at| (at * 7919 % 101) as f32 / 10.0);
        let logits = Array::from_iter(scores, &[3, size]);
        for warm in [false, true] {
            let samplers = || -> Vec<Sampler> {
                let new = |row: u64| {
                    let temperature = if warm && row != 1 { 1.0 } else { 0.0 };
                    let sampling = Sampling {
                        temperature,
                        seed: row,
                        ..Sampling::default()
                    };
                    let mut sampler = Sampler::new(&sampling, &[]).unwrap();
                    if row != 1 {
                        let mask: Vec<bool> =
                            (0..size as u64).map(|id| id % 5 == row + 1).collect();
                        sampler.allow(&mask);
                    }
                    sampler
                };
                (0..3).map(new).collect()
            };
            let rows = ops::split_at_indices(&logits, &[1, 2], 0).unwrap();
            let mut alone = samplers();
            let alone = (alone.iter_mut().zip(&rows)).map(|(sampler, row)| sampler.sample(row));
            let alone: Vec<u32> = alone.map(|next| next.unwrap().read().unwrap()).collect();
            let mut together = samplers();
            let mut together: Vec<&mut Sampler> = together.iter_mut().collect();
            let next = sample_rows(&mut together, &logits).unwrap();
            let next: Vec<u32> = next.iter().map(|next| next.read().unwrap()).collect();
            assert_eq!(next, alone);
            assert!(next[0] % 5 == 1 && next[2] % 5 == 3, "{next:?}");
            // The id after it is free again.
            assert!(together.iter().all(|sampler| sampler.allowed.is_none()));
        }
    }
}
