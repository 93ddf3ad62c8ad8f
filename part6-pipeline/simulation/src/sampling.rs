//! How a token is drawn, as `shared::sampling` has it: a stream of random numbers of its own for each answer.

use anyhow::{Result, ensure};
pub use real_shared::sampling::{Likelihood, Penalties, Sampling};

use crate::array::Array;
use crate::constraint::Allowed;
use crate::model::mix;

/// Ids are among the first so many, or this one, which ends an answer.
const VOCABULARY: u32 = 600;
/// The tokenizer's.
pub(crate) const END: u32 = 2;

/// Draws one id after the other.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    drawn: u32,
    allowed: Option<Allowed>,
}

/// A drawn id.
#[derive(Debug)]
pub struct Choice {
    pub(crate) id: Array,
}

impl Choice {
    pub(crate) fn arrays(&self) -> [&Array; 1] {
        [&self.id]
    }

    pub(crate) fn read(&self) -> Result<u32> {
        Ok(self.id.numbers()[0])
    }
}

impl Sampler {
    pub(crate) fn new(sampling: &Sampling, _prompt: &[u32]) -> Result<Self> {
        Ok(Self {
            sampling: *sampling,
            drawn: 0,
            allowed: None,
        })
    }

    /// Clients here ask for none: what they do to logits is not what is tried.
    pub(crate) fn penalize(&mut self, _: &Penalties) {}

    pub(crate) fn allow(&mut self, allowed: &Allowed) {
        self.allowed = Some(*allowed);
    }

    pub(crate) fn skip(&mut self, ids: &[u32]) -> Result<()> {
        self.drawn += ids.len() as u32;
        Ok(())
    }

    pub(crate) fn draw(&mut self, logits: u32) -> u32 {
        let stream = mix(self.sampling.seed as u32, self.drawn);
        self.drawn += 1;
        let number = if self.sampling.temperature == 0.0 {
            logits
        } else {
            mix(logits, stream)
        };
        if let Some(allowed) = self.allowed.take() {
            return allowed.nearest(3 + number % VOCABULARY);
        }
        if number.is_multiple_of(31) {
            END
        } else {
            3 + number % VOCABULARY
        }
    }

    pub(crate) fn sample(&mut self, logits: &Array) -> Result<Choice> {
        let id = self.draw(logits.numbers()[0]);
        Ok(Choice {
            id: Array::from_slice(&[id], &[1]),
        })
    }
}

/// The next id of each row.
pub(crate) fn sample_rows(samplers: &mut [&mut Sampler], logits: &Array) -> Result<Vec<Choice>> {
    ensure!(samplers.len() == logits.dim(0) as usize, "other rows");
    let rows = samplers.iter_mut().zip(logits.numbers());
    let choice = |(sampler, logits): (&mut &mut Sampler, &u32)| Choice {
        id: Array::from_slice(&[sampler.draw(*logits)], &[1]),
    };
    Ok(rows.map(choice).collect())
}
