//! Arrays with a slot for each row of a batch: how they grow, and what is copied when.

use std::ops::Range;

use anyhow::{Result, bail};
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, ops, transforms};
use shared::ops::{Places, slice_update_at};

use crate::keys_values::{KeysValues, STEP};
use crate::kinds::CacheKind;
use crate::quantized_cache::{KvBits, group_size};
use crate::slots::most_positions;

/// One layer's arrays `[slots, Hkv, N, …]`: keys and values, or codes, scales and biases of the keys and then
/// those of the values.
///
/// # Cost
/// N grows by [`STEP`] and the number of slots doubles: everything is copied once in 256 steps, and as often as
/// the largest batch doubles.
#[derive(Debug)]
pub(crate) struct Store {
    kind: CacheKind,
    arrays: Vec<Array>,
}

impl Store {
    pub(crate) fn new(kind: CacheKind) -> Self {
        Self {
            kind,
            arrays: Vec::new(),
        }
    }

    pub(crate) fn arrays(&self) -> Vec<&Array> {
        self.arrays.iter().collect()
    }

    /// Gives all memory back.
    pub(crate) fn clear(&mut self) {
        self.arrays.clear();
    }

    /// Puts the new positions of each row at their places, all of them before `end`: keys, values `[B, Hkv, L, D]`.
    pub(crate) fn write(
        &mut self,
        places: &Places,
        end: i32,
        keys: Array,
        values: Array,
    ) -> Result<()> {
        let rows = keys.dim(0);
        let bits = self.bits();
        let mut new = packed(keys, bits.map(|bits| bits.keys))?;
        new.extend(packed(values, bits.map(|bits| bits.values))?);
        self.make_room(rows, end, &new.iter().collect::<Vec<_>>())?;
        for (array, new) in self.arrays.iter_mut().zip(&new) {
            *array = places.write(array, new)?;
        }
        Ok(())
    }

    /// The first positions of the first rows: keys and values `[rows, Hkv, positions, D]`.
    pub(crate) fn visible(&self, rows: i32, positions: i32) -> Result<(Array, Array)> {
        let view = |array: &Array| array.try_index((0..rows, .., 0..positions, ..));
        let views: Vec<Array> = self.arrays.iter().map(view).collect::<Result<_, _>>()?;
        let (keys, values) = views.split_at(views.len() / 2);
        let bits = self.bits();
        Ok((
            unpacked(keys, bits.map(|bits| bits.keys))?,
            unpacked(values, bits.map(|bits| bits.values))?,
        ))
    }

    /// Copies the `used` positions of arrays `[B, Hkv, …]` into B slots, one range after the other.
    pub(crate) fn fill(&mut self, slot: i32, of: &[&Array], used: &[Range<i32>]) -> Result<()> {
        let end = used.iter().map(|range| range.end - range.start).sum();
        let rows = of.first().map_or(0, |of| of.dim(0));
        self.make_room(slot + rows, end, of)?;
        for (array, of) in self.arrays.iter_mut().zip(of) {
            let mut at = 0;
            for range in used.iter().filter(|range| !range.is_empty()) {
                let part = of.try_index((.., .., range.clone(), ..))?;
                *array = slice_update_at(array, &part, &[slot, 0, at, 0])?;
                at += range.end - range.start;
            }
        }
        self.finish()
    }

    /// A copy of these positions of a slot, one range after the other.
    pub(crate) fn copy(&self, slot: i32, parts: &[Range<i32>]) -> Result<KeysValues> {
        let [keys, values] = &self.arrays[..] else {
            bail!("a row with packed keys and values cannot leave with them");
        };
        let slot = Array::from_slice(&[slot], &[1]);
        let part = |range: &Range<i32>| -> Result<KeysValues> {
            let used = KeysValues::of(keys, values).slice(range.clone())?;
            Ok(KeysValues {
                keys: used.keys.take_axis(&slot, 0)?,
                values: used.values.take_axis(&slot, 0)?,
            })
        };
        let parts: Vec<KeysValues> = parts.iter().map(part).collect::<Result<_>>()?;
        let copy = KeysValues::join(&parts.iter().collect::<Vec<_>>())?;
        transforms::eval(copy.arrays())?; // until then it would be another holder of the array
        Ok(copy)
    }

    /// Copies the first `used` positions of a slot into another one.
    pub(crate) fn move_slot(&mut self, from: i32, to: i32, used: i32) -> Result<()> {
        let from = Array::from_slice(&[from], &[1]);
        let take = |array: &Array| {
            let used = array.try_index((.., .., 0..used, ..))?;
            // Taken, not sliced: a view would be another holder of the array, and the write a copy of all.
            used.take_axis(&from, 0)
        };
        let rows: Vec<Array> = self.arrays.iter().map(take).collect::<Result<_, _>>()?;
        transforms::eval(&rows)?;
        for (array, row) in self.arrays.iter_mut().zip(&rows) {
            *array = slice_update_at(array, row, &[to, 0, 0, 0])?;
        }
        self.finish()
    }

    /// Nothing is left described only: rows that come and go would make the description ever longer.
    fn finish(&self) -> Result<()> {
        Ok(transforms::eval(&self.arrays)?)
    }

    fn make_room(&mut self, slots: i32, positions: i32, like: &[&Array]) -> Result<()> {
        let most = most_positions(self.kind);
        if self.arrays.is_empty() {
            let n = rounded_up(positions).min(most);
            let zeros = |like: &&Array| zeros(like, slots, n);
            self.arrays = like.iter().map(zeros).collect::<Result<_>>()?;
        }
        for array in &mut self.arrays {
            let (now, n) = (array.dim(0), array.dim(2));
            if n < positions {
                let more = rounded_up(positions).min(most) - n;
                *array = ops::concatenate(&[&*array, &zeros(array, now, more)?], 2)?;
            }
            if now < slots {
                let more = now.max(slots - now);
                *array = ops::concatenate(&[&*array, &zeros(array, more, array.dim(2))?], 0)?;
            }
        }
        Ok(())
    }

    fn bits(&self) -> Option<KvBits> {
        match self.kind {
            CacheKind::Quantized(bits) => Some(bits),
            CacheKind::Prealloc | CacheKind::Rotating { .. } => None,
        }
    }
}

fn rounded_up(positions: i32) -> i32 {
    (positions + STEP - 1) / STEP * STEP
}

fn zeros(like: &Array, slots: i32, n: i32) -> Result<Array> {
    let shape = [slots, like.dim(1), n, like.dim(3)];
    Ok(ops::zeros_dtype(&shape, like.dtype())?)
}

/// Numbers as they are stored.
fn packed(new: Array, bits: Option<i32>) -> Result<Vec<Array>> {
    let Some(bits) = bits else {
        return Ok(vec![new]);
    };
    let (codes, scales, biases) = ops::quantize(&new, group_size(new.dim(3))?, bits)?;
    Ok(vec![codes, scales, biases])
}

/// What is stored, as numbers.
fn unpacked(stored: &[Array], bits: Option<i32>) -> Result<Array> {
    match (stored, bits) {
        ([numbers], None) => Ok(numbers.clone()),
        ([codes, scales, biases], Some(bits)) => {
            let group = group_size(codes.dim(3) * 32 / bits)?;
            Ok(ops::dequantize(codes, scales, biases, group, bits)?)
        }
        _ => bail!("there is nothing in the batch"),
    }
}
