//! An id on its way to the host, and with it the sign that it was chosen from numbers.
//!
//! The largest of scores that are not numbers is id 0, by chance: an overflow would go on as a row of
//! `!`, or end the answer where id 0 is the end of the text. Log-softmax has to compute one scalar that
//! tells, the logarithm of the sum: it is a number if all scores are, except for those of −∞, which are
//! tokens that cannot come. So the check costs one more number to read, at a moment when it is there.

use anyhow::{Result, bail};
use mlx_rs::{Array, Dtype, ops};

/// What a sampler chose, not yet evaluated.
#[derive(Debug)]
pub struct Choice {
    /// The id `[1]`, u32.
    pub id: Array,
    /// ln Σ exp(scores) `[1, 1]`, f32, of the scores that it was chosen from.
    total: Array,
    /// Which id of the answer it is, from 1.
    number: usize,
    penalty: f32,
    /// As `total`, of the logits before the penalty. Evaluated only for an error.
    logits_total: Array,
    dtype: Dtype,
}

impl Choice {
    /// The `number`th id of an answer, chosen from `logits` `[1, V]` and what `penalty` made of them.
    pub(super) fn new(
        id: Array,
        total: &Array,
        number: usize,
        logits: &Array,
        penalty: f32,
    ) -> Result<Self> {
        let logits_total = if penalty == 1.0 {
            total.clone()
        } else {
            ops::logsumexp_axis(logits, -1, true)?
        };
        Ok(Self {
            id,
            total: total.as_dtype(Dtype::Float32)?,
            number,
            penalty,
            logits_total: logits_total.as_dtype(Dtype::Float32)?,
            dtype: logits.dtype(),
        })
    }

    /// What has to be evaluated for it.
    pub fn arrays(&self) -> [&Array; 2] {
        [&self.id, &self.total]
    }

    /// The id, as soon as it is computed.
    ///
    /// # Errors
    /// If it was chosen from scores that are not numbers.
    pub fn read(&self) -> Result<u32> {
        let id = self.id.try_item_exact::<u32>()?;
        if !self.total.try_item_exact::<f32>()?.is_finite() {
            self.refuse()?;
        }
        Ok(id)
    }

    fn refuse(&self) -> Result<()> {
        let dtype = match self.dtype {
            Dtype::Float16 => "f16",
            Dtype::Bfloat16 => "bf16",
            _ => "f32",
        };
        let number = self.number;
        if self.logits_total.try_item_exact::<f32>()?.is_finite() {
            bail!(
                "a repetition penalty of {:e} makes scores that are too large for {dtype}, from token \
                 {number} of the answer on: give one nearer to 1",
                self.penalty
            );
        }
        let why = if self.dtype == Dtype::Float16 {
            "f16 ends at 65,504, so try --dtype bf16; if that fails as well, the weights are damaged"
        } else {
            "the weights are damaged or made for something else: download the model again, or take \
             another one"
        };
        bail!("the logits are not numbers, from token {number} of the answer on: {why}")
    }
}
