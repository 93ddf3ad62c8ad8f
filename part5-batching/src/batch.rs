//! The rows that decode together, each at a position of its own.
//!
//! A batch is a kind of cache: the model hands over one new token of every row and gets back what the rows
//! may look at. Each row has a slot with more room than it uses, and a length. Where the rows of a batch are
//! padded until all are equally long (mlx-lm), whoever joins or leaves makes all others move. Here only that
//! one row is copied.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use mlx_rs::Array;
use shared::config::ModelConfig;
use shared::layers::{Mask, Offsets};
use shared::ops::Places;

use crate::cache::{Cache, KvCache};
use crate::kinds::{CacheKind, layer_kinds};
use crate::model::Model;
use crate::scheduler::SequenceId;
use crate::store::Store;

/// The rows that decode, and their keys and values.
///
/// # Cost
/// Each slot has room for the longest row, so that one operation writes all rows and a view shows them: a
/// short row beside a long one wastes memory, though no time. vLLM cuts the rows into pages of a common
/// pool instead, for which its attention follows a table.
#[derive(Debug)]
pub struct Batch {
    /// Whose row it is.
    rows: Vec<SequenceId>,
    /// [`Slots`], one for each layer.
    cache: Cache,
    positions: Vec<Rc<RefCell<Positions>>>,
}

impl Batch {
    /// No rows yet. Caches of this kind can join.
    pub fn new(kind: CacheKind, config: &ModelConfig) -> Self {
        let mut positions: Vec<Rc<RefCell<Positions>>> = Vec::new();
        let mut layers: Vec<Box<dyn KvCache>> = Vec::new();
        for kind in layer_kinds(kind, config) {
            let alike = positions.iter().find(|other| other.borrow().kind == kind);
            let shared = match alike {
                Some(shared) => shared.clone(),
                None => {
                    positions.push(Rc::new(RefCell::new(Positions::new(kind))));
                    positions[positions.len() - 1].clone()
                }
            };
            layers.push(Box::new(Slots {
                positions: shared,
                store: Store::new(kind),
            }));
        }
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

    /// Whether it is one of the rows.
    pub fn has(&self, id: SequenceId) -> bool {
        self.rows.contains(&id)
    }

    /// A row whose prompt has run comes with its cache. Its positions are copied, once.
    pub fn join(&mut self, id: SequenceId, mut cache: Cache) -> Result<()> {
        let row = self.rows.len();
        for (slots, layer) in self.cache.layers_mut().zip(cache.layers_mut()) {
            Slots::of(slots)?.join(row, layer)?;
        }
        self.rows.push(id);
        Ok(())
    }

    /// A row leaves, and the last one moves into its slot. Nothing happens if it is not here.
    pub fn leave(&mut self, id: SequenceId) -> Result<()> {
        let Some(row) = self.rows.iter().position(|other| *other == id) else {
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

    /// One token of every row: ids `[B, 1]`, in the order of the rows → the scores of the next `[B, V]`.
    ///
    /// # Cost
    /// Each weight is read once for all rows, the keys and values of each row for that row: the first is why
    /// rows run together, the second does not get less by it.
    pub fn run(&mut self, model: &Model, ids: &Array) -> Result<Array> {
        ensure!(
            ids.shape() == [self.rows.len() as i32, 1],
            "ids {:?} for {} rows",
            ids.shape(),
            self.rows.len()
        );
        for positions in &self.positions {
            positions.borrow_mut().advance();
        }
        model.next_logits(ids, &mut self.cache)
    }
}

/// Where the rows stand: once for all layers that store the same positions.
#[derive(Debug)]
struct Positions {
    kind: CacheKind,
    /// Positions that each row has seen, those of the step that runs included.
    seen: Vec<i32>,
    /// Where in its slot the next one goes.
    next: Vec<i32>,
    /// Of the step that runs: the positions of its tokens i32 `[B]`, where they are written, and how many
    /// positions each row then has.
    offsets: Array,
    places: Places,
    lengths: Vec<i32>,
    /// By the sliding window of the layers that asked.
    masks: Vec<(Option<i32>, Mask)>,
}

impl Positions {
    fn new(kind: CacheKind) -> Self {
        Self {
            kind,
            seen: Vec::new(),
            next: Vec::new(),
            offsets: Array::from_slice::<i32>(&[], &[0]),
            places: Places::new(&[]),
            lengths: Vec::new(),
            masks: Vec::new(),
        }
    }

    /// A step of all rows begins.
    fn advance(&mut self) {
        if let CacheKind::Rotating { size, sinks } = self.kind {
            let full = self.next.iter_mut().filter(|next| **next == size);
            full.for_each(|next| *next = sinks);
        }
        self.offsets = Array::from_slice(&self.seen, &[self.seen.len() as i32]);
        self.places = Places::new(&self.next);
        let counts = self.seen.iter_mut().chain(&mut self.next);
        counts.for_each(|count| *count += 1);
        let most = most_positions(self.kind);
        self.lengths = self.seen.iter().map(|seen| most.min(*seen)).collect();
        self.masks.clear();
    }

    /// Rows of different lengths see their own positions and nothing of the room behind them.
    fn mask(&mut self, window: Option<i32>) -> Result<Mask> {
        // A ring has forgotten what is outside of it.
        let forgets = matches!(self.kind, CacheKind::Rotating { .. });
        let window = window.filter(|_| !forgets);
        if let Some((_, mask)) = self.masks.iter().find(|(of, _)| *of == window) {
            return Ok(mask.clone());
        }
        let mask = Mask::rows(&self.lengths, window)?;
        self.masks.push((window, mask.clone()));
        Ok(mask)
    }

    fn longest(&self) -> i32 {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    fn leave(&mut self, row: usize) {
        self.seen.swap_remove(row);
        self.next.swap_remove(row);
    }
}

/// The most positions that a row of this kind stores.
pub(crate) fn most_positions(kind: CacheKind) -> i32 {
    match kind {
        CacheKind::Rotating { size, .. } => size,
        CacheKind::Prealloc | CacheKind::Quantized(_) => i32::MAX,
    }
}

/// One layer's keys and values of all rows.
#[derive(Debug)]
struct Slots {
    positions: Rc<RefCell<Positions>>,
    store: Store,
}

impl Slots {
    /// A batch's cache has no other kind.
    fn of(layer: &mut dyn KvCache) -> Result<&mut Self> {
        let layer: &mut dyn Any = layer;
        layer.downcast_mut().context("a layer that has no slots")
    }

    fn join(&mut self, row: usize, layer: &dyn KvCache) -> Result<()> {
        let mut positions = self.positions.borrow_mut();
        let (seen, next, most) = (layer.offset(), layer.next(), most_positions(positions.kind));
        // A ring holds more than its size until the first token of the answer.
        let (end, surplus) = (next.max(seen.min(most)), (next - most).max(0));
        let sinks = match positions.kind {
            CacheKind::Rotating { sinks, .. } => sinks.min(end),
            _ => 0,
        };
        let used = [0..sinks, sinks + surplus..end];
        self.store.fill(row as i32, &layer.arrays(), &used)?;
        // The other layers of this kind have said the same.
        if positions.seen.len() == row {
            positions.seen.push(seen);
            positions.next.push(next.min(most));
        }
        Ok(())
    }

    fn vacate(&mut self, row: usize, last: usize) -> Result<()> {
        let positions = self.positions.borrow();
        if last == 0 {
            self.store.clear();
        } else if row < last {
            let used = positions.seen[last].min(most_positions(positions.kind));
            self.store.move_slot(last as i32, row as i32, used)?;
        }
        Ok(())
    }
}

impl KvCache for Slots {
    fn update_and_fetch(&mut self, keys: Array, values: Array) -> Result<(Array, Array)> {
        let positions = self.positions.borrow();
        let (rows, longest) = (positions.lengths.len() as i32, positions.longest());
        self.store.write(&positions.places, longest, keys, values)?;
        self.store.visible(rows, longest)
    }

    fn offset(&self) -> i32 {
        self.positions
            .borrow()
            .seen
            .iter()
            .copied()
            .max()
            .unwrap_or(0)
    }

    fn offsets(&self) -> Offsets {
        Offsets::Rows(self.positions.borrow().offsets.clone())
    }

    fn mask(&self, l: i32, window: Option<i32>) -> Result<Mask> {
        ensure!(
            l == 1,
            "a step of a batch has one token of each row, not {l}"
        );
        self.positions.borrow_mut().mask(window)
    }

    fn arrays(&self) -> Vec<&Array> {
        self.store.arrays()
    }

    fn is_trimmable(&self) -> bool {
        false
    }

    fn trim(&mut self, _: i32) -> Result<()> {
        bail!("the rows of a batch do not go back")
    }
}
