//! The token loop, the naive way: the whole sequence again for every token.
//!
//! Nothing is kept between two steps, so step `i` computes the keys and values of all the tokens
//! before it once more, only to get the numbers that it had already. This is the code to beat.

use std::ops::ControlFlow;

use anyhow::Result;
use console::metrics::{FinishReason, Generation, Recorder};
use shared::layers::ids_array;
use shared::request::{Request, Step};
use shared::sampling::Sampler;

use crate::model::Model;

/// One request on its way: a step runs the model once and gives the next id.
#[derive(Debug)]
pub struct Generator<'a> {
    model: &'a Model,
    request: &'a Request,
    sampler: Sampler,
    /// The prompt, and the answer so far.
    sequence: Vec<u32>,
    /// Ids that may still come.
    left: usize,
}

impl<'a> Generator<'a> {
    /// Nothing is run before the first step.
    pub fn new(model: &'a Model, request: &'a Request) -> Result<Self> {
        Ok(Self {
            model,
            request,
            sampler: Sampler::new(&request.sampling, &request.ids)?,
            sequence: request.ids.clone(),
            left: request.max_tokens,
        })
    }

    /// Runs the whole sequence and chooses the id that follows it.
    ///
    /// # Cost
    /// Step `i` runs the model over `p + i` tokens, p of them the prompt's: n tokens cost
    /// `n·p + n(n−1)/2` positions, where `p + n − 1` would do.
    pub fn step(&mut self) -> Result<Step> {
        if self.left == 0 {
            return Ok(Step::End(FinishReason::Length));
        }
        let positions = self.sequence.len();
        let logits = self.model.next_logits(&ids_array(&self.sequence))?; // [1, V]
        // Reading the id evaluates the whole step: the next one cannot begin without it.
        let id = self.sampler.sample(&logits)?.read()?;
        if self.request.stop_ids.contains(&id) {
            self.left = 0;
            return Ok(Step::End(FinishReason::Stop));
        }
        self.sequence.push(id);
        self.left -= 1;
        Ok(Step::Token { id, positions })
    }
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
