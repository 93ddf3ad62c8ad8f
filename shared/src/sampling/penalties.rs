//! What is added to the scores of ids: what a client wants more or less of, and penalties for what the answer has
//! already.
//!
//! mlx-lm's order: biases, then the repetition penalty, then these two. Their counts are OpenAI's and vLLM's, of the
//! answer alone and all of it; mlx-lm counts the latest 20 tokens, the prompt's included.

use anyhow::{Context, Result};
use mlx_rs::{Array, Dtype, ops};
use serde::{Deserialize, Serialize};

/// What is added to the scores of ids, and when.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Penalties {
    /// Taken from the score of each id that the answer has; 0 changes nothing.
    pub presence: f32,
    /// Taken from the score of each id as often as the answer has it; 0 changes nothing.
    pub frequency: f32,
    /// Added to the scores of these ids, each of them once and below the vocabulary size.
    pub biases: Vec<(u32, f32)>,
}

/// The penalties of one answer and what they count, on the device: the latest id may not be on the host yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Added {
    presence: f32,
    frequency: f32,
    /// u32 and f32 `[1, N]`
    biases: Option<[Array; 2]>,
    /// How often the answer has each id, f32 `[1, V]`; none before the first one.
    counts: Option<Array>,
}

impl Added {
    pub(super) fn new(penalties: &Penalties) -> Self {
        let (ids, values): (Vec<u32>, Vec<f32>) = penalties.biases.iter().copied().unzip();
        let shape = [1, ids.len() as i32];
        let arrays = || {
            [
                Array::from_slice(&ids, &shape),
                Array::from_slice(&values, &shape),
            ]
        };
        Self {
            presence: penalties.presence,
            frequency: penalties.frequency,
            biases: (!ids.is_empty()).then(arrays),
            counts: None,
        }
    }

    /// Whether scores stay as they are.
    pub(super) fn is_nothing(&self) -> bool {
        self.biases.is_none() && !self.counts_any()
    }

    fn counts_any(&self) -> bool {
        self.presence != 0.0 || self.frequency != 0.0
    }

    /// Logits `[1, V]` with the biases.
    pub(super) fn bias(&self, logits: &Array) -> Result<Array> {
        let Some([ids, values]) = &self.biases else {
            return Ok(logits.clone());
        };
        let values = values.as_dtype(logits.dtype())?;
        let changed = logits.take_along_axis(ids, -1)?.add(&values)?;
        Ok(logits.put_along_axis(ids, &changed, -1)?)
    }

    /// Logits `[1, V]` without the penalties.
    pub(super) fn penalize(&self, logits: &Array) -> Result<Array> {
        let Some(counts) = &self.counts else {
            return Ok(logits.clone());
        };
        let often = counts.multiply(Array::from_f32(self.frequency))?;
        let there = counts.gt(Array::from_f32(0.0))?.as_dtype(Dtype::Float32)?;
        let penalty = often.add(&there.multiply(Array::from_f32(self.presence))?)?;
        Ok(logits.subtract(&penalty.as_dtype(logits.dtype())?)?)
    }

    /// The answer has got some ids `[N]`, of a vocabulary of so many.
    ///
    /// # Cost
    /// N · V comparisons on the device: nothing beside the head, which has multiplied each score out of E numbers.
    pub(super) fn count(&mut self, ids: &Array, vocabulary: i32) -> Result<()> {
        if !self.counts_any() {
            return Ok(());
        }
        let all = ops::arange::<i32, u32>(None, vocabulary, None)?.reshape(&[1, -1])?;
        let ids = ids.as_dtype(Dtype::Uint32)?.reshape(&[-1, 1])?;
        let new = all.eq(&ids)?.as_dtype(Dtype::Float32)?;
        let new = new.sum_axis(0, true)?; // [1, V]
        self.counts = Some(match self.counts.take() {
            Some(counts) => counts.add(&new)?,
            None => new,
        });
        Ok(())
    }

    /// The same for ids that came without having been sampled: after others, so the vocabulary is known.
    pub(super) fn skip(&mut self, ids: &Array) -> Result<()> {
        if !self.counts_any() {
            return Ok(());
        }
        let counts = self.counts.as_ref().context("ids that come first")?;
        let vocabulary = counts.dim(-1);
        self.count(ids, vocabulary)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sampler, Sampling, sample_rows};
    use super::*;

    fn sampler(penalties: &Penalties) -> Sampler {
        let mut sampler = Sampler::new(&Sampling::default(), &[]).unwrap();
        sampler.penalize(penalties);
        sampler
    }

    fn logits(values: &[f32]) -> Array {
        Array::from_slice(values, &[1, values.len() as i32])
    }

    /// The ids that one answer draws from always the same scores.
    fn drawn(penalties: &Penalties, values: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = sampler(penalties);
        let draw = |_| sampler.sample(&logits(values)).unwrap().read().unwrap();
        (0..count).map(draw).collect()
    }

    #[test]
    fn a_frequency_is_paid_for_each_time_and_a_presence_once() {
        let frequency = Penalties {
            frequency: 1.0,
            ..Penalties::default()
        };
        // 3.0, 2.0 → 2.0, 2.0 → 1.0, 2.0 → 1.0, 1.0 → …; of equal scores the lower id.
        assert_eq!(drawn(&frequency, &[3.0, 2.0, -9.0], 5), [0, 0, 1, 0, 1]);
        let presence = Penalties {
            presence: 1.5,
            ..Penalties::default()
        };
        assert_eq!(drawn(&presence, &[3.0, 2.0, 1.0], 5), [0, 1, 0, 0, 0]);
        let wanted = Penalties {
            presence: -2.0,
            ..Penalties::default()
        };
        let mut sampler = sampler(&wanted);
        let first = sampler.sample(&logits(&[0.0, 1.0])).unwrap();
        assert_eq!(first.read().unwrap(), 1);
        let second = sampler.sample(&logits(&[2.5, 1.0])).unwrap();
        assert_eq!(second.read().unwrap(), 1);
    }

    #[test]
    fn a_bias_forces_and_bans() {
        let biases = |biases: &[(u32, f32)]| Penalties {
            biases: biases.to_vec(),
            ..Penalties::default()
        };
        assert_eq!(drawn(&biases(&[(2, 100.0)]), &[30.0, 2.0, -9.0], 2), [2, 2]);
        assert_eq!(
            drawn(&biases(&[(0, -100.0), (1, 0.5)]), &[30.0, 2.0, 2.25], 2),
            [1, 1]
        );
    }

    #[test]
    fn ids_that_were_not_drawn_count_as_often_as_they_came() {
        let penalties = Penalties {
            frequency: 1.0,
            ..Penalties::default()
        };
        let mut sampler = sampler(&penalties);
        let mut draw = |skip: &[u32]| {
            let id = sampler.sample(&logits(&[4.5, 4.0, 0.0])).unwrap();
            sampler.skip(skip).unwrap();
            id.read().unwrap()
        };
        assert_eq!([draw(&[0, 0, 1]), draw(&[]), draw(&[])], [0, 1, 1]);
    }

    #[test]
    fn rows_choose_beside_others_what_they_choose_alone() {
        let all = [
            Penalties::default(),
            Penalties {
                frequency: 0.7,
                presence: 0.2,
                biases: vec![(1, 0.4)],
            },
            Penalties {
                presence: 2.0,
                ..Penalties::default()
            },
        ];
        let values = [2.0, 1.5, 1.0, 1.75, 0.5];
        let mut samplers = all.each_ref().map(sampler);
        let mut together = vec![Vec::new(); 3];
        for _ in 0..8 {
            let rows = Array::from_slice(&values.repeat(3), &[3, 5]);
            let mut samplers: Vec<&mut Sampler> = samplers.iter_mut().collect();
            let next = sample_rows(&mut samplers, &rows).unwrap();
            for (ids, choice) in together.iter_mut().zip(next) {
                ids.push(choice.read().unwrap());
            }
        }
        let alone = all.each_ref().map(|one| drawn(one, &values, 8));
        assert_eq!(together, alone);
        assert_ne!(alone[0], alone[1]);
    }
}
