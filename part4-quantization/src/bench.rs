//! One row of the table after the other: loaded, scored on the text, and asked the prompt.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use console::interrupt::check_interrupted;
use console::metrics::{FinishReason, Generation, Rounds, Run};
use console::report::TextStream;
use mlx_rs::Array;
use mlx_rs::ops::indexing::TryIndexOp;
use serde::Serialize;
use shared::checkpoint::mlx_dtype;
use shared::layers::to_f32;
use shared::machine::{on_one_stream, peak_bytes, reset_peak};
use shared::request::{Request, Step};
use shared::session::Session;
use shared::weights::{Weights, is_read_whole};

use crate::cache::Cache;
use crate::estimates::Quality;
use crate::generate::{Generator, PREFILL_STEP, generate};
use crate::kinds::empty_cache;
use crate::model::Model;
use crate::quality::{Scores, Window, logprobs, score};
use crate::quantize::quantize_weights;
use crate::variants::Variant;

/// What all rows share.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The model's files, its tokenizer, the machine.
    pub session: &'a Session,
    /// The prompt that every row answers.
    pub request: &'a Request,
    /// Text → ids.
    pub tokenize_time: Duration,
    /// The text, in the windows that are scored.
    pub windows: &'a [Window],
    /// Answers that are measured, of each row.
    pub rounds: u32,
}

/// A row's model in memory.
#[derive(Debug)]
pub struct Loaded<'a> {
    variant: &'a Variant,
    model: Model,
    /// Of all tensors.
    pub weight_bytes: u64,
    /// Of those that a decode step reads whole.
    read_bytes: u64,
    load_time: Duration,
}

/// What the others are compared with.
#[derive(Debug)]
pub struct Base {
    /// Of each window, f32 `[n, V]`.
    logprobs: Vec<Array>,
    scores: Vec<Scores>,
    /// Its answer.
    tokens: Vec<u32>,
    /// What it says of each token of its answer, f32 `[n, V]`; None if that has no tokens.
    answer: Option<Array>,
}

/// Where an answer leaves the base's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Tokens before it, which are the same.
    pub index: usize,
    /// By how many nats the base prefers its own token; None if one of the answers ends there.
    pub margin: Option<f64>,
}

/// Bytes that the base's log-probabilities may take.
const MOST_BYTES: u64 = 4 << 30;

impl<'a> Bench<'a> {
    /// Refuses windows whose log-probabilities would not fit into memory, before anything is loaded.
    ///
    /// # Errors
    /// With the number of windows that would do.
    pub fn check_memory(&self) -> Result<()> {
        let vocab = self.session.checkpoint.config.vocab_size;
        let positions = self.windows.iter().map(|window| window.targets().len());
        let each = 4 * (vocab * positions.max().unwrap_or(0)) as u64;
        let fit = MOST_BYTES.min(self.session.machine.ram_bytes / 4) / each.max(1);
        ensure!(
            self.windows.len() as u64 <= fit,
            "the unquantized model's log-probabilities of {} windows do not fit into memory: take --windows \
             {fit} or less, or a smaller --window",
            self.windows.len()
        );
        Ok(())
    }

    /// Reads the weights and packs them as the row says. Its model is the only one in memory.
    ///
    /// # Errors
    /// If they cannot be read or packed.
    pub fn load(&self, variant: &'a Variant) -> Result<Loaded<'a>> {
        let started = Instant::now();
        let checkpoint = &self.session.checkpoint;
        let (mut config, mut weights) = (checkpoint.config.clone(), checkpoint.load_weights()?);
        if let Some(plan) = &variant.plan {
            (config, weights) = quantize_weights(&config, weights, plan, variant.fit)
                .with_context(|| format!("quantizing to {}", variant.name))?;
        }
        let tied = weights.tied();
        let tensors = weights.into_tensors();
        let bytes = |all: bool| {
            let counted = tensors
                .iter()
                .filter(|(name, _)| all || is_read_whole(name, tied));
            counted.map(|(_, array)| array.nbytes() as u64).sum()
        };
        let (weight_bytes, read_bytes) = (bytes(true), bytes(false));
        let weights = Weights::new(tensors, &config);
        let weights = match checkpoint.dtype {
            Some(dtype) => weights.unpacked_to(mlx_dtype(dtype)),
            None => weights,
        };
        Ok(Loaded {
            variant,
            model: Model::new(&config, weights)?,
            weight_bytes,
            read_bytes,
            load_time: started.elapsed(),
        })
    }

    /// The first row: it is compared with itself.
    ///
    /// # Errors
    /// If the model fails.
    pub fn base(&self, loaded: &Loaded<'_>) -> Result<Base> {
        let (mut all, mut scores) = (Vec::new(), Vec::new());
        for window in self.windows {
            let logprobs = self.logprobs(loaded, window)?;
            scores.push(score(&logprobs, &logprobs, window.targets())?);
            all.push(logprobs);
        }
        let tokens = self.generate(loaded)?.0.tokens;
        let answer = (!tokens.is_empty()).then(|| self.logprobs(loaded, &self.answered(&tokens)));
        Ok(Base {
            logprobs: all,
            scores,
            answer: answer.transpose()?,
            tokens,
        })
    }

    /// The prompt and an answer, whose tokens are what is scored.
    fn answered(&self, tokens: &[u32]) -> Window {
        Window {
            ids: [&self.request.ids, tokens].concat(),
            first: self.request.ids.len() - 1,
        }
    }

    /// A row on the text, beside the base.
    ///
    /// # Errors
    /// If the model fails.
    pub fn quality(&self, loaded: &Loaded<'_>, base: &Base) -> Result<Quality> {
        let scores = self
            .windows
            .iter()
            .zip(&base.logprobs)
            .map(|(window, base)| {
                let logprobs = self.logprobs(loaded, window)?;
                score(&logprobs, base, window.targets())
            });
        let scores: Vec<Scores> = scores
            .collect::<Result<_>>()
            .with_context(|| format!("scoring {}", loaded.variant.name))?;
        quality(&scores, &base.scores)
    }

    fn logprobs(&self, loaded: &Loaded<'_>, window: &Window) -> Result<Array> {
        check_interrupted()?;
        let mut cache = empty_cache(loaded.variant.cache, &self.session.checkpoint.config);
        logprobs(&loaded.model, &mut cache, window)
    }

    /// The answers of a row, and what a position takes in its cache; the scores were the warm-up.
    ///
    /// # Errors
    /// If the model fails.
    pub fn answers(&self, loaded: &Loaded<'_>, base: &Base) -> Result<(Rounds, u64)> {
        let held: usize = base
            .logprobs
            .iter()
            .chain(&base.answer)
            .map(Array::nbytes)
            .sum();
        let (mut runs, mut per_position) = (Vec::new(), 0);
        for _ in 0..self.rounds {
            reset_peak()?;
            let (generation, cache) = self.generate(loaded)?;
            per_position = cache.bytes() / cache.capacity().max(1) as u64;
            let text = self.session.tokenizer.decode(&generation.tokens, true)?;
            let run = self.run_of(loaded, &generation, text, &cache);
            runs.push(run.peak_bytes(peak_bytes()?.saturating_sub(held as u64)));
            check_interrupted()?;
        }
        let rounds = Rounds::of(&runs).context("there are no rounds")?;
        Ok((rounds, per_position))
    }

    /// One answer, shown as it comes.
    ///
    /// # Errors
    /// If the model fails, or if nothing can be shown.
    pub fn shown(&self, loaded: &Loaded<'_>) -> Result<Run> {
        let mut out = TextStream::stdout();
        let mut answer = self.session.answer(|piece| Ok(out.push(piece)?));
        let prompt_tokens = self.request.ids.len();
        reset_peak()?; // what was packed is no longer there as it was
        let (generation, cache) =
            self.generate_with(loaded, |step| answer.watch(step, prompt_tokens))?;
        let text = answer.finish()?;
        out.finish()?;
        let run = self.run_of(loaded, &generation, text, &cache);
        Ok(run.peak_bytes(peak_bytes()?))
    }

    /// An answer as numbers.
    fn run_of(
        &self,
        loaded: &Loaded<'_>,
        generation: &Generation,
        text: String,
        cache: &Cache,
    ) -> Run {
        let (name, prompt_tokens) = (&loaded.variant.name, self.request.ids.len());
        let per_position = cache.bytes() / cache.capacity().max(1) as u64;
        Run::from_generation(name, prompt_tokens, generation, text)
            .load(self.session.open_time + loaded.load_time)
            .tokenize(self.tokenize_time)
            .weight_bytes(loaded.weight_bytes)
            .kv_bytes(cache.bytes())
            .step_bytes(
                loaded.read_bytes + per_position * self.positions_seen(generation),
                &self.session.machine,
            )
    }

    /// Positions that a decode step looks at, on average over an answer.
    fn positions_seen(&self, generation: &Generation) -> u64 {
        (self.request.ids.len() + generation.tokens.len() / 2) as u64
    }

    /// One answer, and its cache.
    fn generate(&self, loaded: &Loaded<'_>) -> Result<(Generation, Cache)> {
        self.generate_with(loaded, |_| {
            check_interrupted()?;
            Ok(ControlFlow::Continue(()))
        })
    }

    fn generate_with(
        &self,
        loaded: &Loaded<'_>,
        watch: impl FnMut(Step) -> Result<ControlFlow<FinishReason>>,
    ) -> Result<(Generation, Cache)> {
        let mut cache = empty_cache(loaded.variant.cache, &self.session.checkpoint.config);
        let mut generator = Generator::new(&loaded.model, &mut cache, self.request, PREFILL_STEP)?;
        let generation = on_one_stream(|| generate(&mut generator, watch))?;
        drop(generator);
        Ok((generation, cache))
    }
}

fn quality(scores: &[Scores], base: &[Scores]) -> Result<Quality> {
    Quality::of(scores, base).context("there are no windows")
}

impl Base {
    /// Beside itself.
    ///
    /// # Errors
    /// If there are no windows.
    pub fn quality(&self) -> Result<Quality> {
        quality(&self.scores, &self.scores)
    }

    /// Where `tokens` leave the base's answer; None if they do not.
    ///
    /// # Errors
    /// If an id is beyond the vocabulary.
    pub fn difference(&self, tokens: &[u32]) -> Result<Option<Difference>> {
        let mut pairs = self.tokens.iter().zip(tokens);
        let (a, b) = (self.tokens.len(), tokens.len());
        let Some(index) = pairs.position(|(a, b)| a != b) else {
            let ended = (a != b).then_some(Difference {
                index: a.min(b),
                margin: None,
            });
            return Ok(ended);
        };
        let answer = self.answer.as_ref().context("the answer has no tokens")?;
        let logprobs = to_f32(&answer.try_index((index as i32, ..))?)?;
        let of = |id: u32| {
            let logprob = logprobs.get(id as usize);
            logprob
                .copied()
                .map(f64::from)
                .context("an id beyond the vocabulary")
        };
        Ok(Some(Difference {
            index,
            margin: Some(of(self.tokens[index])? - of(tokens[index])?),
        }))
    }

    /// Its answer.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}
