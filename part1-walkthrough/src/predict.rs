//! Step 4: the last vector → a score for every token → probabilities → one token.
//!
//! ```text
//! last position of the stream            [1, E]
//! norm, head                             [1, V]   logits: any numbers
//! softmax(logits / T)                    [1, V]   probabilities: sum to 1
//! ```
//!
//! The temperature T is not a property of the model: below 1 it sharpens the distribution, above 1
//! it flattens it. The filters take tokens out before the draw. What they do here is what
//! `shared::sampling` does, by the same code and in its order: top-p, min-p, top-k, and the
//! temperature last.

use anyhow::Result;
use console::numbers::fixed;
use mlx_rs::{Array, ops};
use shared::layers::{ids_array, to_f32};
use shared::sampling::{
    REPETITION_CONTEXT, Sampler, Sampling, cool, filter_steps, greedy, log_softmax,
    penalize_repeats,
};
use shared::tokenizer::Tokenizer;

use crate::attend::{compare, like, softmax};
use crate::candidates::{Candidates, likeliest};
use crate::decoder::Decoder;
use crate::pass::Pass;
use crate::tokenize::{name, named};
use crate::trace::{Bar, Check, Filter, FilterOutcome, LensRow, NAMED, Prediction, Temperature};

/// Tokens that are drawn as bars.
const BARS: usize = 12;
/// Tokens that are listed in a row of the lens and of the loop.
pub const TOP: usize = 5;
/// Temperatures that are compared: those of the video.
const TEMPERATURES: [f32; 4] = [0.2, 0.7, 1.0, 1.5];
/// Settings that are drawn where the flags leave nothing to be seen.
const EXAMPLE: Sampling = Sampling {
    temperature: 0.7,
    top_k: 2,
    top_p: 0.95,
    min_p: 0.05,
    repetition_penalty: 1.0,
    seed: 0,
};

/// The scores of a pass, what the flags make of them, and the token that comes out.
pub fn prediction(
    decoder: &dyn Decoder,
    tokenizer: &Tokenizer,
    pass: &Pass,
    flags: &Sampling,
) -> Result<Prediction> {
    let logits = pass.next_logits(decoder)?; // [1, V]
    let args = drawn(flags);
    let values = to_f32(&logits)?;
    let order: Vec<u32> = likeliest(&values, NAMED)
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    let candidate = |id: u32| Candidates::of(&logits)?.candidate(tokenizer, id);
    let chosen = Sampler::new(flags, &pass.ids)?.sample(&logits)?;
    let penalised = penalised(&logits, &pass.ids, &args)?;
    let (bars, filters) = bars(tokenizer, &penalised, &args)?;
    Ok(Prediction {
        named: named(tokenizer, order)?,
        settings: args,
        example: args != *flags,
        temperatures: temperatures(&penalised, &bars)?,
        bars,
        filters,
        greedy: candidate(greedy(&logits)?.try_item_exact::<u32>()?)?,
        chosen: candidate(chosen.read()?)?,
        logits: values.into(),
    })
}

/// What is drawn: the flags, or where they are greedy and no filter runs, an example (with the
/// filters that were asked for, if any were).
fn drawn(flags: &Sampling) -> Sampling {
    if flags.temperature > 0.0 {
        return *flags;
    }
    let filtered = flags.top_k > 0 || flags.top_p < 1.0 || flags.min_p > 0.0;
    let filters = if filtered { flags } else { &EXAMPLE };
    Sampling {
        temperature: EXAMPLE.temperature,
        top_k: filters.top_k,
        top_p: filters.top_p,
        min_p: filters.min_p,
        ..*flags
    }
}

/// The logits as the sampler sees them.
fn penalised(logits: &Array, ids: &[u32], args: &Sampling) -> Result<Array> {
    if args.repetition_penalty == 1.0 {
        return Ok(logits.clone());
    }
    let recent = &ids[ids.len().saturating_sub(REPETITION_CONTEXT)..];
    let recent = Array::from_slice(recent, &[recent.len() as i32]);
    penalize_repeats(logits, &recent, args.repetition_penalty)
}

/// `softmax(logits / T)` in single steps, in f32: near 0 the inverse of T is too large for 16 bits.
///
/// # Shapes
/// logits `[…, V]` → the same
pub fn probabilities(logits: &Array, temperature: f32) -> Result<Array> {
    softmax(&cool(logits, temperature)?)
}

/// The likeliest tokens before and after the filters and the temperature, and what each filter did.
fn bars(
    tokenizer: &Tokenizer,
    logits: &Array,
    args: &Sampling,
) -> Result<(Vec<Bar>, Vec<FilterOutcome>)> {
    let before = to_f32(&probabilities(logits, 1.0)?)?;
    let values = to_f32(logits)?;
    let logprobs = log_softmax(logits)?;
    let mut left = vec![(None, to_f32(&logprobs)?)];
    let steps = filter_steps(&logprobs, args)?;
    for (filter, kept) in &steps {
        left.push((Some(*filter), to_f32(kept)?));
    }
    let kept = steps.last().map_or(&logprobs, |(_, kept)| kept);
    let after = to_f32(&probabilities(kept, args.temperature)?)?;
    let likely = likeliest(&values, BARS);
    let best = before[likely[0].0 as usize];
    let mut cumulative = 0.0;
    let mut bars = Vec::new();
    for (rank, (id, logit)) in likely.into_iter().enumerate() {
        let i = id as usize;
        let removed = left.iter().find(|(_, left)| left[i] == f32::NEG_INFINITY);
        let removed_by = removed.and_then(|(filter, _)| *filter);
        let facts = (before[i], cumulative, best, rank + 1);
        cumulative += before[i];
        bars.push(Bar {
            id,
            piece: name(tokenizer, id)?,
            logit,
            before: before[i],
            after: after[i],
            cumulative,
            removed_by,
            reason: removed_by.map(|filter| reason(filter, args, facts)),
        });
    }
    Ok((bars, outcomes(&left, &before)))
}

/// Which rule took a token out; `facts`: its probability, that of all likelier ones together, that
/// of the likeliest, its rank.
fn reason(filter: Filter, args: &Sampling, facts: (f32, f32, f32, usize)) -> String {
    let (own, above, best, rank) = facts;
    let number = |value: f32| fixed(f64::from(value), 3);
    match filter {
        Filter::TopP => format!("top-p: {} before it ≥ {}", number(above), args.top_p),
        Filter::MinP => format!("min-p: {} < {} · {}", number(own), args.min_p, number(best)),
        Filter::TopK => format!("top-k: rank {rank} > {}", args.top_k),
    }
}

fn outcomes(left: &[(Option<Filter>, Vec<f32>)], before: &[f32]) -> Vec<FilterOutcome> {
    let kept = |values: &[f32]| values.iter().filter(|value| value.is_finite()).count();
    let outcome = |pair: &[(Option<Filter>, Vec<f32>)]| {
        let [(_, earlier), (Some(filter), later)] = pair else {
            return None;
        };
        let left = later
            .iter()
            .zip(before)
            .filter(|(value, _)| value.is_finite());
        Some(FilterOutcome {
            filter: *filter,
            removed: kept(earlier) - kept(later),
            kept: kept(later),
            mass: left.map(|(_, probability)| probability).sum(),
        })
    };
    left.windows(2).filter_map(outcome).collect()
}

fn temperatures(logits: &Array, bars: &[Bar]) -> Result<Vec<Temperature>> {
    let at = |temperature| {
        let all = to_f32(&probabilities(logits, temperature)?)?;
        Ok(Temperature {
            temperature,
            probabilities: bars.iter().map(|bar| all[bar.id as usize]).collect(),
        })
    };
    TEMPERATURES.into_iter().map(at).collect()
}

/// What the head would say after each layer: nostalgebraist 2020, "interpreting GPT: the logit
/// lens".
///
/// # Cost
/// The head once per layer and position: more than the rest of the walk for a large vocabulary.
pub fn lens(decoder: &dyn Decoder, tokenizer: &Tokenizer, pass: &Pass) -> Result<Vec<LensRow>> {
    let answer = greedy(&pass.next_logits(decoder)?)?.try_item_exact::<u32>()?;
    let row = |after: usize| {
        let stream = pass.stream_after(after); // [1, L, E]
        let logits = decoder.head(&decoder.final_norm(stream)?)?; // [1, L, V]
        let all = Candidates::of(&logits)?;
        let last = all.rows() - 1;
        let each = (0..=last).map(|row| Ok(all.top(tokenizer, row, 1)?.remove(0)));
        Ok(LensRow {
            after,
            last: all.top(tokenizer, last, TOP)?,
            answer: all.probability(last, answer),
            each: each.collect::<Result<_>>()?,
        })
    };
    (0..=pass.blocks.len()).map(row).collect()
}

/// Softmax with a temperature beside MLX's own.
pub fn checks(decoder: &dyn Decoder, pass: &Pass) -> Result<Vec<Check>> {
    let logits = pass.next_logits(decoder)?;
    let mut pairs = Vec::new();
    for temperature in TEMPERATURES {
        let scaled = logits.multiply(like(&logits, 1.0 / temperature)?)?;
        let fused = ops::softmax_axis(scaled, -1, true)?;
        pairs.push((probabilities(&logits, temperature)?, fused));
    }
    let rows = decoder.embed(&ids_array(&pass.ids))?.tokens;
    let one_hot = one_hot(&pass.ids, decoder.facts().vocabulary)?;
    let product = ops::matmul(one_hot.as_dtype(rows.dtype())?, decoder.table()?)?;
    Ok(vec![
        compare("embedding", "one-hot matrix × table", &[(rows, product)])?,
        compare("softmax(logits / T)", "ops::softmax", &pairs)?,
    ])
}

/// `[L, V]`, a single 1 in each row: multiplied with the table it picks a row, which is why the
/// embedding counts as a linear layer.
fn one_hot(ids: &[u32], vocabulary: usize) -> Result<Array> {
    let columns = Array::from_iter(0..vocabulary as u32, &[1, vocabulary as i32]);
    let rows = Array::from_slice(ids, &[ids.len() as i32, 1]);
    Ok(columns.eq(&rows)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_were_asked_for_are_drawn_although_greedy_ignores_them() {
        let flags = Sampling {
            top_k: 3,
            ..Sampling::default()
        };
        let drawn = drawn(&flags);
        assert_eq!(
            (drawn.top_k, drawn.top_p, drawn.temperature),
            (3, 1.0, EXAMPLE.temperature)
        );
        let warm = Sampling {
            temperature: 0.3,
            ..flags
        };
        assert_eq!(super::drawn(&warm), warm);
    }
}
