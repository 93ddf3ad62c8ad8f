//! The likeliest tokens, with their probabilities.

use anyhow::{Context, Result};
use mlx_rs::Array;
use shared::layers::to_f32;
use shared::tokenizer::Tokenizer;

use crate::attend::softmax;
use crate::tokenize::name;
use crate::trace::Candidate;

/// Probabilities of a whole vocabulary, one row per position, on the host.
#[derive(Debug)]
pub struct Candidates {
    values: Vec<f32>,
    vocabulary: usize,
}

impl Candidates {
    /// Of logits `[…, V]`.
    pub fn of(logits: &Array) -> Result<Self> {
        let vocabulary = *logits.shape().last().context("logits without an axis")?;
        Ok(Self {
            values: to_f32(&softmax(logits)?)?,
            vocabulary: vocabulary as usize,
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.vocabulary
    }

    /// Of one token in one row.
    pub fn probability(&self, row: usize, id: u32) -> f32 {
        self.values[row * self.vocabulary + id as usize]
    }

    /// One token of the first row.
    ///
    /// # Errors
    /// For an id that neither the tokenizer nor the model has.
    pub fn candidate(&self, tokenizer: &Tokenizer, id: u32) -> Result<Candidate> {
        Ok(Candidate {
            id,
            piece: name(tokenizer, id)?,
            probability: self.probability(0, id),
        })
    }

    /// The `n` likeliest of a row.
    pub fn top(&self, tokenizer: &Tokenizer, row: usize, n: usize) -> Result<Vec<Candidate>> {
        let row = &self.values[row * self.vocabulary..][..self.vocabulary];
        let candidate = |(id, probability)| {
            Ok(Candidate {
                id,
                piece: name(tokenizer, id)?,
                probability,
            })
        };
        likeliest(row, n).into_iter().map(candidate).collect()
    }
}

/// Index and value of the `n` largest, largest first; of equal ones the first.
pub fn likeliest(values: &[f32], n: usize) -> Vec<(u32, f32)> {
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    let better = |a: &u32, b: &u32| {
        values[*b as usize]
            .total_cmp(&values[*a as usize])
            .then(a.cmp(b))
    };
    if n < order.len() {
        order.select_nth_unstable_by(n, better);
        order.truncate(n);
    }
    order.sort_unstable_by(better);
    order
        .into_iter()
        .map(|id| (id, values[id as usize]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_of_equal_ones_the_first() {
        let values = [0.1, 0.7, f32::NEG_INFINITY, 0.7, 0.2];
        assert_eq!(likeliest(&values, 3), [(1, 0.7), (3, 0.7), (4, 0.2)]);
        assert_eq!(likeliest(&values, 9).len(), 5);
        assert_eq!(likeliest(&[], 3), []);
    }
}
