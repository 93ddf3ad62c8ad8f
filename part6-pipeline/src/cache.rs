//! The KV cache: the keys and values of every position that went through the model.
//!
//! Attention of a new token needs the keys and values of all tokens before it, and these never
//! change: attention is causal. There are several ways to store them behind one interface: the model
//! hands over what is new and gets back what is visible.

use std::any::Any;
use std::fmt::Debug;
use std::iter;
use std::ops::Range;

use anyhow::{Result, bail, ensure};
use mlx_rs::{Array, ops};
use shared::layers::{Mask, Offsets};

use crate::keys_values::KeysValues;

/// The cache of one layer. `Any`, so that whoever made a kind can ask for it back.
pub trait KvCache: Any + Debug {
    /// Adds what is new, and returns all that its queries may look at.
    ///
    /// # Shapes
    /// keys, values `[B, Hkv, L, D]` → `[B, Hkv, S, D]`, with `S = offset + L`, or less if the
    /// cache forgets
    fn update_and_fetch(&mut self, keys: Array, values: Array) -> Result<(Array, Array)>;

    /// Positions that were added.
    fn offset(&self) -> i32;

    /// Where among the stored positions the next one goes: behind all others, unless the cache forgets.
    fn next(&self) -> i32 {
        self.offset()
    }

    /// The position of the next token, by which it is rotated.
    fn offsets(&self) -> Offsets {
        Offsets::All(self.offset())
    }

    /// What the next `l` tokens may look at, in a layer that has this sliding window.
    fn mask(&self, l: i32, window: Option<i32>) -> Result<Mask> {
        Mask::causal(l, self.offset() + l, window)
    }

    /// The most positions that a token can see, its own included; `None`: all of them.
    fn window(&self) -> Option<i32> {
        None
    }

    /// Whether a step may be given the new token alone.
    fn stores(&self) -> bool {
        true
    }

    /// All that is stored, unused room included: `[B, Hkv, N, …]` each, what belongs to the keys first.
    fn arrays(&self) -> Vec<&Array>;

    /// Whether it still has what it would go back to.
    fn is_trimmable(&self) -> bool {
        true
    }

    /// Goes back by `n` positions, at most the offset: they are forgotten, or left to be overwritten.
    fn trim(&mut self, n: i32) -> Result<()>;

    /// The stored positions, oldest first and without unused room: what a file has to hold.
    fn state(&self) -> Result<KeysValues> {
        let [keys, values] = self.arrays()[..] else {
            bail!("there is nothing in the cache");
        };
        KeysValues::of(keys, values).slice(0..self.offset())
    }

    /// Takes over what [`state`](Self::state) gave, after `offset` positions, into an empty cache.
    fn restore(&mut self, state: KeysValues, _offset: i32) -> Result<()> {
        self.update_and_fetch(state.keys, state.values).map(drop)
    }
}

/// The caches of all layers.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<Box<dyn KvCache>>,
}

impl Cache {
    /// One cache per layer, in the order of the layers.
    pub fn new(layers: Vec<Box<dyn KvCache>>) -> Self {
        Self { layers }
    }

    /// One cache per layer, in the order of the layers.
    pub fn layers_mut(&mut self) -> impl Iterator<Item = &mut dyn KvCache> {
        self.layers.iter_mut().map(|layer| &mut **layer as _)
    }

    /// Positions that went through the model. 0 if nothing is stored.
    pub fn offset(&self) -> i32 {
        self.layers.first().map_or(0, |layer| layer.offset())
    }

    /// Positions that the layer with the most room has room for.
    pub fn capacity(&self) -> i32 {
        self.arrays().map(|array| array.dim(2)).max().unwrap_or(0)
    }

    /// Bytes of keys and values, unused room included: `2 · Hkv · D · bytes · capacity` in each layer.
    pub fn bytes(&self) -> u64 {
        self.arrays().map(|array| array.nbytes() as u64).sum()
    }

    /// All keys and values, for whoever has to evaluate them.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.layers.iter().flat_map(|layer| layer.arrays())
    }

    fn stores(&self) -> bool {
        self.layers.iter().all(|layer| layer.stores())
    }

    /// The rest of a prompt of `length` tokens, cut into pieces of at most `step` for one run of the
    /// model each. The last one is followed by the first id of the answer.
    ///
    /// # Cost
    /// The scores of a piece take `H·step·S` elements where a backend writes them out, those of a
    /// whole prompt `H·S²`: pieces bound the memory, and let a long prompt show its progress.
    pub fn pieces(&self, length: usize, step: usize) -> Result<Vec<Range<usize>>> {
        let seen = self.offset() as usize;
        ensure!(
            seen < length,
            "the cache has seen {seen} tokens, the prompt has no more"
        );
        ensure!(step > 0, "the prompt cannot be run in pieces of 0 tokens");
        if !self.stores() {
            return Ok(iter::once(0..length).collect());
        }
        let window = self.layers.iter().filter_map(|layer| layer.window()).min();
        let forgets = window.is_some_and(|window| length as i32 > window);
        // A token that goes alone sees all that is stored, the first one of the answer included.
        let end = if forgets { length - 1 } else { length };
        let starts = (seen..end).step_by(step);
        let pieces = starts.map(|start| start..end.min(start + step));
        Ok(pieces
            .chain((end < length).then_some(end..length))
            .collect())
    }

    /// What the next step has to run: the new `id` `[1, 1]` alone, or if nothing is stored, all that the
    /// last step ran, `[1, L]`, and the new one.
    pub fn next_input(&self, last: &Array, id: Array) -> Result<Array> {
        if self.stores() {
            return Ok(id);
        }
        Ok(ops::concatenate(&[last, &id], 1)?)
    }

    /// Goes back by `n` positions, in all layers or in none.
    ///
    /// # Errors
    /// If `n` is more than the offset, or if a layer has overwritten what it would go back to.
    pub fn trim(&mut self, n: i32) -> Result<()> {
        let offset = self.offset();
        ensure!(
            (0..=offset).contains(&n),
            "the cache has {offset} positions, it cannot go back by {n}"
        );
        ensure!(
            n == 0 || self.layers.iter().all(|layer| layer.is_trimmable()),
            "a rotating cache that is full has overwritten what it would go back to"
        );
        self.layers.iter_mut().try_for_each(|layer| layer.trim(n))
    }

    /// Keys and values of each layer, oldest position first and without unused room.
    pub fn state(&self) -> Result<Vec<KeysValues>> {
        self.layers.iter().map(|layer| layer.state()).collect()
    }

    /// Takes over what [`state`](Self::state) gave, after `offset` positions.
    ///
    /// # Errors
    /// If the number of layers or of positions is not that of such a cache.
    pub fn restore(&mut self, state: Vec<KeysValues>, offset: i32) -> Result<()> {
        let (found, layers) = (state.len(), self.layers.len());
        ensure!(
            found == layers,
            "{found} layers are to be restored, the model has {layers}"
        );
        for (layer, kv) in self.layers.iter_mut().zip(state) {
            let (positions, window) = (kv.len(), layer.window().unwrap_or(offset));
            // A rotating cache may hold a whole piece more than its window until the next token.
            ensure!(
                (window.min(offset)..=offset).contains(&positions),
                "{positions} positions are to be restored after {offset} of which {window} are visible"
            );
            layer.restore(kv, offset)?;
        }
        Ok(())
    }
}
