//! A model whose next token depends on every token before it, on its position, and on nothing else.
//!
//! As in a real one, each layer makes a key and a value of a position out of all that the layer below saw there. So one
//! wrong number anywhere in a cache, in whatever position of whatever row, changes the answer.

use std::cell::Cell;

use anyhow::{Result, bail};

use crate::array::Array;
use crate::cache::Cache;
use crate::layers::Offsets;

/// As many as it takes for a number to depend on what was seen before it.
pub(crate) const LAYERS: usize = 2;

/// The model.
#[derive(Debug, Default)]
pub struct Model {
    /// It fails for good after so many runs.
    pub(crate) breaks_after: Cell<Option<usize>>,
}

/// Numbers without a pattern.
pub(crate) fn mix(a: u32, b: u32) -> u32 {
    let mut x = (u64::from(a) << 32 | u64::from(b)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as u32
}

pub(crate) fn embed(id: u32) -> u32 {
    mix(id, 77)
}

pub(crate) fn key(hidden: u32, position: i32, layer: usize) -> u32 {
    mix(hidden, (position as u32) << 2 | layer as u32)
}

pub(crate) fn value(hidden: u32, layer: usize) -> u32 {
    mix(hidden, 1000 + layer as u32)
}

/// What a position adds to what is seen. The order of positions does not matter: a ring has another one.
pub(crate) fn seen(key: u32, value: u32) -> u32 {
    mix(key, value)
}

impl Model {
    /// Runs tokens `[B, L]`, and gives what the last layer made of each, `[B, L, 1]`.
    pub fn hidden(&self, ids: &Array, cache: &mut Cache) -> Result<Array> {
        self.count()?;
        let (rows, l) = (ids.dim(0), ids.dim(1));
        let mut hidden: Vec<u32> = ids.numbers().iter().map(|id| embed(*id)).collect();
        for (number, layer) in cache.layers_mut().enumerate() {
            let (offsets, mask) = (layer.offsets(), layer.mask(l, None)?);
            let place = |at: usize| {
                let (row, token) = (at / l as usize, at as i32 % l);
                match &offsets {
                    Offsets::All(offset) => offset + token,
                    Offsets::Rows(offsets) => offsets.numbers()[row] as i32 + token,
                }
            };
            let pairs = hidden.iter().enumerate();
            let keys = pairs.map(|(at, hidden)| key(*hidden, place(at), number));
            let values = hidden.iter().map(|hidden| value(*hidden, number));
            let shape = [rows, 1, l, 1];
            let keys = Array::new(keys.collect(), &shape);
            let values = Array::new(values.collect(), &shape);
            let (keys, values) = layer.update_and_fetch(keys, values)?;
            let s = keys.dim(2);
            for (at, hidden) in hidden.iter_mut().enumerate() {
                let (row, token) = (at / l as usize, at as i32 % l);
                let visible = mask.visible(row, token, l, s);
                let start = row * s as usize;
                let of = start + visible.start as usize..start + visible.end as usize;
                let pairs = keys.numbers()[of.clone()].iter().zip(&values.numbers()[of]);
                let sum = pairs.fold(0_u32, |sum, (k, v)| sum.wrapping_add(seen(*k, *v)));
                *hidden = mix(*hidden, sum);
            }
        }
        Ok(Array::new(hidden, &[rows, l, 1]))
    }

    /// For each row what its next token is drawn from, `[B, 1]`.
    pub fn next_logits(&self, ids: &Array, cache: &mut Cache) -> Result<Array> {
        let hidden = self.hidden(ids, cache)?;
        let last = hidden.numbers().chunks(ids.dim(1) as usize);
        let last: Vec<u32> = last.filter_map(|row| row.last().copied()).collect();
        Ok(Array::new(last, &[ids.dim(0), 1]))
    }

    /// What the head makes of it: nothing.
    pub(crate) fn logits(&self, hidden: &Array) -> Result<Array> {
        Ok(hidden.clone())
    }

    fn count(&self) -> Result<()> {
        match self.breaks_after.get() {
            Some(0) => bail!("the device is gone"),
            left => self.breaks_after.set(left.map(|left| left - 1)),
        }
        Ok(())
    }
}
