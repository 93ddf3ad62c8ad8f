//! How likely ids are to the model itself: before penalties, filters and the temperature.
//!
//! That is what OpenAI and vLLM tell. What was left after the filters would say as much about the request as about the
//! model, and a text could not be scored by it.

use anyhow::{Context, Result, ensure};
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype, ops, transforms};

/// How likely an id was, and which ones were likeliest.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// The id.
    pub id: u32,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest ids with theirs, best first; of equal ones the lower id.
    pub top: Vec<(u32, f32)>,
}

/// The likelihoods of one id for each row of some logits, on their way to the host.
///
/// # Cost
/// Two passes over the logits of these rows, and one more for the likeliest. Of V scores a row only the id's own and
/// those of the likeliest cross to the host.
#[derive(Debug)]
pub struct Likelihoods {
    /// u32 `[R, 1]`
    ids: Array,
    /// f32 `[R, 1]`
    own: Array,
    /// ln Σ exp(logits), f32 `[R, 1]`
    totals: Array,
    /// The likeliest in any order, u32 and f32 `[R, k]`; none for k = 0.
    top: Option<(Array, Array)>,
}

impl Likelihoods {
    /// Logits `[R, V]` and an id for each row, u32 `[R]`, with so many of the likeliest. Nothing is evaluated yet.
    pub fn new(logits: &Array, ids: &Array, top: usize) -> Result<Self> {
        // In 16-bit types the difference would have two digits.
        let logits = logits.as_dtype(Dtype::Float32)?;
        let totals = ops::logsumexp_axis(&logits, -1, true)?;
        let ids = ids.as_dtype(Dtype::Uint32)?.reshape(&[-1, 1])?;
        let own = logits.take_along_axis(&ids, -1)?.subtract(&totals)?;
        let top = match (top.min(logits.dim(-1) as usize)) as i32 {
            0 => None,
            k => {
                let order = ops::argpartition_axis(logits.negative()?, k - 1, -1)?;
                let best = order.try_index((.., ..k))?.contiguous()?;
                let scores = logits.take_along_axis(&best, -1)?.subtract(&totals)?;
                Some((best.as_dtype(Dtype::Uint32)?, scores))
            }
        };
        Ok(Self {
            ids,
            own,
            totals,
            top,
        })
    }

    /// What has to be evaluated.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        let top = self.top.iter().flat_map(|(ids, scores)| [ids, scores]);
        [&self.ids, &self.own, &self.totals].into_iter().chain(top)
    }

    /// Those of one row with `top` of the likeliest, as soon as they are computed.
    ///
    /// # Errors
    /// If the logits are not numbers.
    pub fn read(&self, row: usize, top: usize) -> Result<Likelihood> {
        transforms::eval(self.arrays())?; // nobody may have asked for it yet
        let number = |array: &Array| -> Result<f32> {
            let number = array.try_as_slice::<f32>()?.get(row).copied();
            number.with_context(|| format!("there are no likelihoods of row {row}"))
        };
        ensure!(
            number(&self.totals)?.is_finite(),
            "the logits are not numbers"
        );
        let id = self.ids.try_as_slice::<u32>()?.get(row).copied();
        Ok(Likelihood {
            id: id.context("no id")?,
            logprob: number(&self.own)?,
            top: self.best(row, top)?,
        })
    }

    fn best(&self, row: usize, top: usize) -> Result<Vec<(u32, f32)>> {
        let Some((ids, scores)) = &self.top else {
            return Ok(Vec::new());
        };
        let k = ids.dim(-1) as usize;
        let of_row = row * k..(row + 1) * k;
        let ids = ids.try_as_slice::<u32>()?.get(of_row.clone());
        let scores = scores.try_as_slice::<f32>()?.get(of_row);
        let pairs = ids.unwrap_or_default().iter().copied();
        let mut best: Vec<(u32, f32)> = pairs
            .zip(scores.unwrap_or_default().iter().copied())
            .collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        best.truncate(top);
        Ok(best)
    }
}

/// A process that ends while MLX still works crashes now and then: whoever starts work waits for it.
impl Drop for Likelihoods {
    fn drop(&mut self) {
        // An error here belongs to a step that nobody will read.
        let _ = transforms::eval(self.arrays());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(all: &Likelihoods, row: usize, top: usize) -> (u32, f32, Vec<(u32, f32)>) {
        let Likelihood { id, logprob, top } = all.read(row, top).unwrap();
        (id, logprob, top)
    }

    #[test]
    fn each_row_has_its_own_id_and_its_likeliest_ones_in_order() {
        let logits = [0.0_f32, 2.0, 1.0, 2.0, f32::NEG_INFINITY, 0.0, 0.0, 0.0];
        let logits = Array::from_slice(&logits, &[2, 4]);
        let ids = Array::from_slice(&[2_u32, 0], &[2]);
        let all = Likelihoods::new(&logits, &ids, 3).unwrap();
        let total = (1.0 + 2.0 * 2.0_f32.exp() + 1.0_f32.exp()).ln();
        let (id, logprob, top) = read(&all, 0, 3);
        assert_eq!(id, 2);
        assert!((logprob - (1.0 - total)).abs() < 1e-6);
        assert_eq!(top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 2]);
        assert_eq!(top[2].1, logprob);
        let (id, logprob, top) = read(&all, 1, 2);
        assert_eq!((id, logprob), (0, f32::NEG_INFINITY));
        assert_eq!(top.len(), 2);
        assert!(all.read(2, 1).is_err());
    }

    #[test]
    fn more_than_there_are_is_all_and_none_is_none() {
        let logits = Array::from_slice(&[1.0_f32, 3.0, 2.0], &[1, 3]);
        let ids = Array::from_slice(&[0_u32], &[1]);
        let all = Likelihoods::new(&logits, &ids, 20).unwrap();
        assert_eq!(read(&all, 0, 20).2.len(), 3);
        let none = Likelihoods::new(&logits, &ids, 0).unwrap();
        assert_eq!(read(&none, 0, 0).2, []);
    }

    #[test]
    fn logits_that_are_not_numbers_are_told() {
        let logits = Array::from_slice(&[1.0_f32, f32::NAN], &[1, 2]);
        let ids = Array::from_slice(&[0_u32], &[1]);
        let all = Likelihoods::new(&logits, &ids, 1).unwrap();
        assert!(all.read(0, 1).is_err());
    }
}
