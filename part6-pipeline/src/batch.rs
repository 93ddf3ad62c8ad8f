//! The rows that decode together, each at a position of its own.
//!
//! A batch is a kind of cache: the model hands over one new token of every row and gets back what the rows
//! may look at. Each row has a slot with more room than it uses, and a length. Where the rows of a batch are
//! padded until all are equally long (mlx-lm), whoever joins or leaves makes all others move. Here only that
//! one row is copied.

use anyhow::{Result, ensure};
use mlx_rs::Array;
use shared::config::ModelConfig;

use crate::cache::Cache;
use crate::keys_values::KeysValues;
use crate::kinds::CacheKind;
use crate::model::Model;
use crate::scheduler::SequenceId;
use crate::slots::{SharedPositions, Slots, slots};

/// The rows that decode, and their keys and values.
///
/// # Cost
/// Each slot has room for the longest row, so that one operation writes all rows and one view shows them: a
/// short row beside a long one wastes memory, and where MLX's attention reads what a mask hides, time. vLLM cuts
/// rows into pages of a common pool instead, for which its attention follows a table.
#[derive(Debug)]
pub struct Batch {
    /// Whose row it is.
    rows: Vec<SequenceId>,
    /// [`Slots`], one for each layer.
    pub(crate) cache: Cache,
    /// Where the rows stand, which many layers share.
    pub(crate) positions: Vec<SharedPositions>,
}

impl Batch {
    /// No rows yet. Caches of this kind can join.
    pub fn new(kind: CacheKind, config: &ModelConfig) -> Self {
        let (layers, positions) = slots(kind, config);
        Self {
            rows: Vec::new(),
            cache: Cache::new(layers),
            positions,
        }
    }

    /// Whose rows they are. When one leaves, the last one takes its place.
    pub fn rows(&self) -> &[SequenceId] {
        &self.rows
    }

    /// Keys and values of all rows.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Which of the rows it is, if it is one.
    pub fn row(&self, id: SequenceId) -> Option<usize> {
        self.rows.iter().position(|other| *other == id)
    }

    /// Positions that one of the rows has seen.
    pub fn seen(&self, row: usize) -> usize {
        let seen = |positions: &SharedPositions| positions.borrow().seen(row);
        self.positions.first().map_or(0, seen)
    }

    /// Rows whose prompts have run come with their cache. What each has `seen` is copied, once.
    pub fn join(&mut self, ids: &[SequenceId], seen: &[usize], mut cache: Cache) -> Result<()> {
        let row = self.rows.len();
        for (slots, layer) in self.cache.layers_mut().zip(cache.layers_mut()) {
            Slots::of(slots)?.join(row, seen, layer)?;
        }
        self.rows.extend(ids);
        Ok(())
    }

    /// A row leaves, and the last one moves into its slot. Nothing happens if it is not here.
    pub fn leave(&mut self, id: SequenceId) -> Result<()> {
        let Some(row) = self.row(id) else {
            return Ok(());
        };
        let last = self.rows.len() - 1;
        for slots in self.cache.layers_mut() {
            Slots::of(slots)?.vacate(row, last)?;
        }
        for positions in &self.positions {
            positions.borrow_mut().leave(row);
        }
        self.rows.swap_remove(row);
        Ok(())
    }

    /// A row leaves and takes its positions along: of each layer, oldest first, and how many it has seen. None if it is
    /// not here.
    ///
    /// # Errors
    /// Where they are packed: they would not come out as they went in.
    pub fn take(&mut self, id: SequenceId) -> Result<Option<(Vec<KeysValues>, i32)>> {
        let Some(row) = self.row(id) else {
            return Ok(None);
        };
        let layers = self.cache.layers_mut();
        let copies = layers.map(|layer| Slots::of(layer)?.copy(row));
        let copies: Vec<(KeysValues, i32)> = copies.collect::<Result<_>>()?;
        let seen = copies.first().map_or(0, |(_, seen)| *seen);
        self.leave(id)?;
        Ok(Some((copies.into_iter().map(|(kv, _)| kv).collect(), seen)))
    }

    /// One token of every row: ids `[B, 1]`, in the order of the rows → the scores of the next `[B, V]`.
    ///
    /// # Cost
    /// Each weight is read once for all rows, the keys and values of each row for that row: the first is why
    /// rows run together, the second does not get less by it.
    pub fn run(&mut self, model: &Model, ids: &Array) -> Result<Array> {
        let (shape, n) = (ids.shape(), self.rows.len());
        ensure!(shape == [n as i32, 1], "ids {shape:?} for {n} rows");
        for positions in &self.positions {
            positions.borrow_mut().advance(1);
        }
        model.next_logits(ids, &mut self.cache)
    }
}
