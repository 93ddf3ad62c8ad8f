//! An id on its way to the host, and with it the sign that it was chosen from numbers.
//!
//! The largest of scores that are not numbers is id 0, by chance: an overflow would go on as a row of
//! `!`, or end the answer where id 0 is the end of the text. Log-softmax has to compute one scalar that
//! tells, the logarithm of the sum: it is a number if all scores are, except for those of −∞, which are
//! tokens that cannot come. So the check costs one more number to read, at a moment when it is there.

use std::rc::Rc;

use anyhow::{Context, Result, bail};
use mlx_rs::{Array, Dtype, ops, transforms};

/// What a sampler chose, not yet evaluated.
#[derive(Debug)]
pub struct Choice {
    /// The id `[1]`, u32.
    pub id: Array,
    /// What it was computed with, and where it is there.
    rows: Rc<Rows>,
    row: usize,
    /// Which id of the answer it is, from 1.
    number: usize,
    penalty: f32,
    /// As the total, of the logits before the penalty. Evaluated only for an error.
    logits_total: Array,
    dtype: Dtype,
}

/// Ids that were chosen by one operation.
#[derive(Debug)]
struct Rows {
    /// u32 `[B]`
    ids: Array,
    /// ln Σ exp(scores) `[B, 1]`, f32, of the scores that each was chosen from.
    totals: Array,
}

impl Choice {
    /// One id for each row of `logits` `[B, V]`, chosen without a penalty: which id of its answer each is comes
    /// with `numbers`.
    pub(super) fn of_rows(
        ids: Array,
        totals: &Array,
        numbers: impl Iterator<Item = usize>,
        logits: &Array,
    ) -> Result<Vec<Self>> {
        let at: Vec<i32> = (1..ids.dim(0)).collect();
        let single = ops::split_at_indices(&ids, &at, 0)?;
        let totals = totals.as_dtype(Dtype::Float32)?;
        let rows = Rc::new(Rows { ids, totals });
        let choices = single.into_iter().zip(numbers).enumerate();
        let choice = |(row, (id, number))| Self {
            id,
            rows: Rc::clone(&rows),
            row,
            number,
            penalty: 1.0,
            logits_total: rows.totals.clone(),
            dtype: logits.dtype(),
        };
        Ok(choices.map(choice).collect())
    }

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
        let rows = Rows {
            ids: id.clone(),
            totals: total.as_dtype(Dtype::Float32)?,
        };
        Ok(Self {
            id,
            rows: Rc::new(rows),
            row: 0,
            number,
            penalty,
            logits_total: logits_total.as_dtype(Dtype::Float32)?,
            dtype: logits.dtype(),
        })
    }

    /// What has to be evaluated for it.
    pub fn arrays(&self) -> [&Array; 2] {
        [&self.rows.ids, &self.rows.totals]
    }

    /// The id, as soon as it is computed.
    ///
    /// # Errors
    /// If it was chosen from scores that are not numbers.
    pub fn read(&self) -> Result<u32> {
        let Rows { ids, totals } = &*self.rows;
        transforms::eval([ids, totals])?; // nobody may have asked for it yet
        let read = |what| format!("there is no {what} of row {}", self.row);
        let total = totals.try_as_slice::<f32>()?.get(self.row);
        let id = ids.try_as_slice::<u32>()?.get(self.row);
        if !total.with_context(|| read("total"))?.is_finite() {
            self.refuse()?;
        }
        id.copied().with_context(|| read("id"))
    }

    fn refuse(&self) -> Result<()> {
        let dtype = match self.dtype {
            Dtype::Float16 => "f16",
            Dtype::Bfloat16 => "bf16",
            _ => "f32",
        };
        let number = self.number;
        let logits_total = &self.logits_total;
        if self.penalty != 1.0 && logits_total.try_item_exact::<f32>()?.is_finite() {
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

/// The ids of these choices, u32 `[B]`, still on the device.
///
/// # Cost
/// None where they were chosen together, in this order; else a copy of each.
pub fn joined<'a>(choices: impl IntoIterator<Item = &'a Choice>) -> Result<Array> {
    let choices: Vec<&Choice> = choices.into_iter().collect();
    let first = choices.first().context("there are no ids to join")?;
    let together = choices.len() == first.rows.ids.dim(0) as usize;
    let mut choices_at = choices.iter().enumerate();
    let in_order =
        choices_at.all(|(at, choice)| choice.row == at && Rc::ptr_eq(&choice.rows, &first.rows));
    if together && in_order {
        return Ok(first.rows.ids.clone());
    }
    let ids: Vec<&Array> = choices.iter().map(|choice| &choice.id).collect();
    Ok(ops::concatenate(&ids, 0)?)
}
