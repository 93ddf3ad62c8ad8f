//! One request on its way, with all that is its own: whoever shares its steps changes nothing of it.

use anyhow::Result;
use console::metrics::FinishReason;
use shared::request::{Request, Step};
use shared::sampling::Sampler;

use crate::cache::Cache;

/// One request on its way.
#[derive(Debug)]
pub struct Sequence {
    request: Request,
    /// The prompt, then the answer so far.
    pub ids: Vec<u32>,
    /// Draws from a random stream of its own. It outlives preemption: the next draw is the next one.
    pub sampler: Sampler,
    /// Keys and values while the prompt runs, piece by piece; those of the answer are in the batch.
    pub cache: Option<Cache>,
}

impl Sequence {
    /// A request of which nothing has run.
    pub fn new(request: Request) -> Result<Self> {
        Ok(Self {
            ids: request.ids.clone(),
            sampler: Sampler::new(&request.sampling, &request.ids)?,
            cache: None,
            request,
        })
    }

    /// Takes the next id into the answer, for which `positions` were run: what its caller gets. A stop id is no
    /// part of the answer, also where it comes as the last token that was asked for.
    pub fn push(&mut self, id: u32, positions: usize) -> Vec<Step> {
        if self.request.stop_ids.contains(&id) {
            return vec![Step::End(FinishReason::Stop)];
        }
        self.ids.push(id);
        let mut steps = vec![Step::Token { id, positions }];
        if self.ids.len() == self.request.ids.len() + self.request.max_tokens {
            steps.push(Step::End(FinishReason::Length));
        }
        steps
    }
}
