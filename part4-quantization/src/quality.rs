//! How far a quantized model is from the one that it was made from, on a text.
//!
//! The text is cut into windows that do not overlap, each of which goes through both models from an empty
//! cache. At every scored position both give a probability to every token of the vocabulary, and one of these
//! tokens is the one that the text goes on with. Perplexity looks at that one alone, the divergence at all.

use anyhow::{Result, ensure};
use clap::ValueEnum;
use mlx_rs::ops::indexing::{TryIndexOp, argmax_axis, take_along_axis};
use mlx_rs::{Array, Dtype, ops, transforms};
use serde::Serialize;
use shared::layers::ids_array;
use shared::sampling::log_softmax;

use crate::cache::Cache;
use crate::model::Model;

/// Which tokens of a window are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scored {
    /// All but the first, as mlx-lm does: those at the beginning have little before them.
    All,
    /// Those after the middle, as llama.cpp does: each has at least half a window before it.
    SecondHalf,
}

/// A stretch of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// What the model reads; the last one is only predicted.
    pub ids: Vec<u32>,
    /// The first position whose prediction is scored.
    pub first: usize,
}

impl Window {
    /// The tokens that are predicted.
    pub fn targets(&self) -> &[u32] {
        &self.ids[self.first + 1..]
    }
}

/// The first `count` windows of `size` tokens; what is left at the end of the text is not used.
///
/// `bos` is the id that starts a text, where the tokenizer writes one. Of mlx-lm's windows only the first
/// begins with it. llama.cpp puts it in the place of each window's first token.
///
/// # Errors
/// If the text is shorter than one window.
pub fn windows(
    ids: &[u32],
    size: usize,
    count: usize,
    scored: Scored,
    bos: Option<u32>,
) -> Result<Vec<Window>> {
    ensure!(
        ids.len() >= size,
        "the text has {} tokens, but a window takes {size}: take a longer text, or a smaller --window",
        ids.len()
    );
    let cut = |ids: &[u32]| match scored {
        Scored::All => Window {
            ids: ids.to_vec(),
            first: 0,
        },
        Scored::SecondHalf => Window {
            ids: bos
                .iter()
                .chain(&ids[bos.iter().len()..])
                .copied()
                .collect(),
            first: size / 2,
        },
    };
    Ok(ids.chunks_exact(size).take(count).map(cut).collect())
}

/// What a model says at the scored positions, as logarithms of probabilities.
///
/// # Shapes
/// f32 `[n, V]` for n scored positions
///
/// # Cost
/// `4·n·V` bytes. llama.cpp keeps 16 bits over the upper 16 nats of each position: half of that, but at 8 bits
/// the rounding would be as large as what is measured.
pub fn logprobs(model: &Model, cache: &mut Cache, window: &Window) -> Result<Array> {
    let read = &window.ids[..window.ids.len() - 1];
    let hidden = model.hidden(&ids_array(read), cache)?; // [1, L, E]
    let hidden = hidden.try_index((.., window.first as i32.., ..))?; // [1, n, E]
    // In 16 bits the sum over a vocabulary would lose the digits that two models differ in.
    let logits = model.logits(&hidden)?.as_dtype(Dtype::Float32)?; // [1, n, V]
    let logprobs = log_softmax(&logits)?.squeeze_axes(&[0])?;
    logprobs.eval()?;
    Ok(logprobs)
}

/// One window's scores, a number for each scored position.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// −ln p of the text's token, in nats.
    pub surprise: Vec<f64>,
    /// KL(base ‖ model) = Σ p·(ln p − ln q) over the vocabulary, in nats.
    pub divergence: Vec<f64>,
    /// 1 where the most likely token is another one than the base's, else 0.
    pub flipped: Vec<f64>,
    /// How much more likely than for the base the text's token is: −1 to 1.
    pub shift: Vec<f64>,
}

/// Compares what a model says with what the base says, both `[n, V]`.
///
/// # Errors
/// If a score is no finite number: then the model is broken.
pub fn score(logprobs: &Array, base: &Array, targets: &[u32]) -> Result<Scores> {
    let targets = ids_array(targets).reshape(&[-1, 1])?; // [n, 1]
    let of_target = |logprobs: &Array| take_along_axis(logprobs, &targets, -1);
    let (q, p) = (of_target(logprobs)?, of_target(base)?); // [n, 1]
    let divergence = base
        .exp()?
        .multiply(base.subtract(logprobs)?)?
        .sum_axis(-1, false)?;
    let best = |logprobs: &Array| argmax_axis(logprobs, -1, false);
    let flipped = best(logprobs)?.ne(best(base)?)?;
    let shift = q.exp()?.subtract(p.exp()?)?;
    let scores = Scores {
        surprise: numbers(&ops::negative(&q)?)?,
        divergence: numbers(&divergence)?,
        flipped: numbers(&flipped)?,
        shift: numbers(&shift)?,
    };
    let mut all = scores.surprise.iter().chain(&scores.divergence);
    ensure!(
        all.all(|score| score.is_finite()),
        "the model's scores are not finite numbers: these weights do not work in this type"
    );
    Ok(scores)
}

/// Any array as numbers of the host.
fn numbers(array: &Array) -> Result<Vec<f64>> {
    let array = array.as_dtype(Dtype::Float32)?.contiguous()?;
    transforms::eval([&array])?;
    let numbers = array.try_as_slice::<f32>()?;
    Ok(numbers.iter().map(|number| f64::from(*number)).collect())
}
