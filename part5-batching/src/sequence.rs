//! One request on its way, with all that is its own: whoever shares its steps changes nothing of it.

use anyhow::Result;
use console::metrics::FinishReason;
use mlx_rs::Array;
use shared::request::{Request, Step};
use shared::sampling::{Choice, Sampler};

use crate::ahead::Ahead;
use crate::cache::Cache;

/// One request on its way.
#[derive(Debug)]
pub struct Sequence {
    request: Request,
    /// The prompt, then the answer as far as it is on the host.
    pub ids: Vec<u32>,
    /// Keys and values while the prompt runs, piece by piece; those of the answer are in the batch.
    pub cache: Option<Cache>,
    /// Draws from a random stream of its own. It outlives preemption: the next draw is the next one.
    pub sampler: Sampler,
    /// What the next step of the answer runs, an id `[1]`.
    pub input: Array,
    ahead: Ahead,
}

impl Sequence {
    /// A request of which nothing has run.
    pub fn new(request: Request) -> Result<Self> {
        Ok(Self {
            ids: request.ids.clone(),
            cache: None,
            sampler: Sampler::new(&request.sampling, &request.ids)?,
            input: Array::from_slice::<u32>(&[], &[0]),
            ahead: Ahead::default(),
            request,
        })
    }

    /// Starts to compute the next id, for which `positions` are run.
    pub fn start(&mut self, next: Choice, positions: usize) -> Result<()> {
        self.input = next.id.clone();
        self.ahead.start(next, positions)
    }

    /// Waits for the oldest id in flight, and says what it brings. A stop id is no part of the answer, also where
    /// it comes as the last token that was asked for.
    pub fn read(&mut self) -> Result<Vec<Step>> {
        let (id, positions) = self.ahead.read()?;
        if self.request.stop_ids.contains(&id) {
            return Ok(vec![Step::End(FinishReason::Stop)]);
        }
        self.ids.push(id);
        let mut steps = vec![Step::Token { id, positions }];
        if self.ids.len() == self.request.ids.len() + self.request.max_tokens {
            steps.push(Step::End(FinishReason::Length));
        }
        Ok(steps)
    }
}
