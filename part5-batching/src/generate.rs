//! The token loop with a cache: the prompt once (prefill), then one token a step (decode).

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};

use anyhow::{Context, Result};
use console::metrics::{FinishReason, Generation, Recorder};
use mlx_rs::{Array, memory, transforms};
use shared::kernels::steps_in_flight;
use shared::layers::ids_array;
use shared::request::{Request, Step};
use shared::sampling::Sampler;

use crate::ahead::Ahead;
use crate::cache::Cache;
use crate::model::Model;

/// Prompt tokens that go through the model at once, where nothing else is said: mlx-lm's number is
/// 2,048, which on a machine with little memory is much.
pub const PREFILL_STEP: usize = 512;

/// One request on its way: a step runs the model once and gives the next id.
#[derive(Debug)]
pub struct Generator<'a> {
    model: &'a Model,
    cache: &'a mut Cache,
    request: &'a Request,
    sampler: Sampler,
    /// Pieces of the prompt that have not run, the last one excepted.
    pieces: VecDeque<Range<usize>>,
    /// What the next step of the answer runs, ids `[1, L]`.
    input: Array,
    ahead: Ahead,
    /// Ids that may still come.
    left: usize,
}

impl<'a> Generator<'a> {
    /// Nothing is run before the first step. Of the prompt only what `cache` has not seen will be run,
    /// in pieces of at most `prefill_step` tokens.
    pub fn new(
        model: &'a Model,
        cache: &'a mut Cache,
        request: &'a Request,
        prefill_step: usize,
    ) -> Result<Self> {
        let mut pieces = VecDeque::from(cache.pieces(request.ids.len(), prefill_step)?);
        let last = pieces.pop_back().context("the prompt has no tokens")?;
        Ok(Self {
            model,
            cache,
            request,
            sampler: Sampler::new(&request.sampling, &request.ids)?,
            pieces,
            input: ids_array(&request.ids[last]),
            ahead: Ahead::default(),
            left: request.max_tokens,
        })
    }

    /// Runs a piece of the prompt, or the new token, and chooses the id that follows it.
    ///
    /// # Cost
    /// n tokens after a prompt of p run `p + n − 1` positions, each of which looks at what is before
    /// it. Without a cache it is `n·p + n(n−1)/2`.
    pub fn step(&mut self) -> Result<Step> {
        if let Some(piece) = self.pieces.pop_front() {
            let seen = piece.end;
            prefill(self.model, self.cache, &self.request.ids[piece])?;
            return Ok(Step::Prefill { seen });
        }
        if self.left == 0 {
            return Ok(Step::End(FinishReason::Length));
        }
        while self.ahead.len() < self.left.min(steps_in_flight()) {
            self.start()?;
        }
        // Reading the id waits for its step; the next one is on its way already.
        let (id, positions) = self.ahead.read()?;
        if self.request.stop_ids.contains(&id) {
            self.left = 0;
            return Ok(Step::End(FinishReason::Stop));
        }
        self.left -= 1;
        Ok(Step::Token { id, positions })
    }

    /// Describes the next step and starts it.
    fn start(&mut self) -> Result<()> {
        let positions = self.input.dim(1) as usize;
        let logits = self.model.next_logits(&self.input, self.cache)?; // [1, V]
        let next = self.sampler.sample(&logits)?;
        let id = next.id.reshape(&[1, 1])?;
        self.input = self.cache.next_input(&self.input, id)?;
        self.ahead.start(next, positions)
    }
}

/// Runs a piece of a prompt only for its keys and values: no logits are needed.
pub fn prefill(model: &Model, cache: &mut Cache, ids: &[u32]) -> Result<()> {
    model.hidden(&ids_array(ids), cache)?;
    // Evaluated piece by piece: one graph of the whole prompt would hold all of its activations.
    transforms::eval(cache.arrays())?;
    memory::clear_cache()?; // the next piece has other sizes
    Ok(())
}

/// The loop: one step after the other until the request has ended. Between two steps `on_step` may show
/// what came, and may end the request itself.
pub fn generate(
    generator: &mut Generator<'_>,
    mut on_step: impl FnMut(Step) -> Result<ControlFlow<FinishReason>>,
) -> Result<Generation> {
    let mut recorder = Recorder::start();
    loop {
        let step = generator.step()?;
        match step {
            Step::Token { id, positions } => recorder.token(id, positions),
            Step::Prefill { .. } => {}
            Step::End(reason) => return Ok(recorder.finish(reason)),
        }
        if let ControlFlow::Break(reason) = on_step(step)? {
            return Ok(recorder.finish(reason));
        }
    }
}
