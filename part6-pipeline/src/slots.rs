//! A batch as the layers see it: the cache that hands each row what it may look at.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use mlx_rs::Array;
use shared::config::ModelConfig;
use shared::layers::{Mask, Offsets};
use shared::ops::Places;

use crate::cache::KvCache;
use crate::keys_values::KeysValues;
use crate::kinds::{CacheKind, layer_kinds};
use crate::store::Store;

/// Of all layers that store the same positions.
pub(crate) type SharedPositions = Rc<RefCell<Positions>>;

/// The slots of each layer, and where the rows stand: once for each kind of layer.
pub(crate) fn slots(
    kind: CacheKind,
    config: &ModelConfig,
) -> (Vec<Box<dyn KvCache>>, Vec<SharedPositions>) {
    let mut all: Vec<SharedPositions> = Vec::new();
    let mut layers: Vec<Box<dyn KvCache>> = Vec::new();
    for kind in layer_kinds(kind, config) {
        let alike = all.iter().find(|other| other.borrow().kind == kind);
        let positions = alike.cloned().unwrap_or_else(|| {
            let new = SharedPositions::new(RefCell::new(Positions::new(kind)));
            all.push(new.clone());
            new
        });
        let store = Store::new(kind);
        layers.push(Box::new(Slots { positions, store }));
    }
    (layers, all)
}

/// Where the rows stand: once for all layers that store the same positions.
#[derive(Debug)]
pub(crate) struct Positions {
    kind: CacheKind,
    /// Positions that each row has seen, those of the step that runs included.
    seen: Vec<i32>,
    /// Where in its slot the next one goes.
    next: Vec<i32>,
    /// Of the step that runs: how many tokens of each row, the positions of the first ones i32 `[B]`, where they are
    /// written, and how many positions each row then has.
    each: i32,
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
            each: 0,
            offsets: Array::from_slice::<i32>(&[], &[0]),
            places: Places::new(&[]),
            lengths: Vec::new(),
            masks: Vec::new(),
        }
    }

    /// A step of all rows begins, with so many tokens of each.
    pub(crate) fn advance(&mut self, l: i32) {
        if let CacheKind::Rotating { size, sinks } = self.kind {
            let full = self.next.iter_mut().filter(|next| **next == size);
            full.for_each(|next| *next = sinks);
        }
        self.offsets = Array::from_slice(&self.seen, &[self.seen.len() as i32]);
        self.places = Places::runs(&self.next, l);
        let counts = self.seen.iter_mut().chain(&mut self.next);
        counts.for_each(|count| *count += l);
        self.each = l;
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
        let mask = Mask::ends_of_rows(&self.lengths, self.each, window)?;
        self.masks.push((window, mask.clone()));
        Ok(mask)
    }

    pub(crate) fn seen(&self, row: usize) -> usize {
        self.seen.get(row).map_or(0, |seen| *seen as usize)
    }

    fn longest(&self) -> i32 {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// The latest `n` positions of a row are left to be overwritten.
    pub(crate) fn go_back(&mut self, row: usize, n: i32) {
        self.seen[row] -= n;
        self.next[row] -= n;
    }

    /// Whether rows can.
    pub(crate) fn goes_back(&self) -> bool {
        // A ring has overwritten what it would go back to.
        !matches!(self.kind, CacheKind::Rotating { .. })
    }

    pub(crate) fn leave(&mut self, row: usize) {
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
pub(crate) struct Slots {
    positions: SharedPositions,
    store: Store,
}

impl Slots {
    /// A batch's cache has no other kind.
    pub(crate) fn of(layer: &mut dyn KvCache) -> Result<&mut Self> {
        let layer: &mut dyn Any = layer;
        layer.downcast_mut().context("a layer that has no slots")
    }

    /// Copies what the own cache of new rows stores, so that it lies here as the next token would find it there.
    /// Of rows that have seen less than the longest, what is behind that is copied for nothing.
    pub(crate) fn join(&mut self, row: usize, seen: &[usize], layer: &dyn KvCache) -> Result<()> {
        let mut positions = self.positions.borrow_mut();
        let (longest, next) = (layer.offset(), layer.next());
        let most = most_positions(positions.kind);
        // A ring holds more than its size until the first token of the answer.
        let (end, surplus) = (next.max(longest.min(most)), (next - most).max(0));
        let sinks = match positions.kind {
            CacheKind::Rotating { sinks, .. } => sinks.min(end),
            _ => 0,
        };
        let used = [0..sinks, sinks + surplus..end];
        self.store.fill(row as i32, &layer.arrays(), &used)?;
        // The other layers of this kind have said the same.
        if positions.seen.len() == row {
            let seen = seen.iter().map(|seen| *seen as i32);
            let next = seen.clone().map(|seen| next.min(most).min(seen));
            positions.next.extend(next);
            positions.seen.extend(seen);
        }
        Ok(())
    }

    /// What a row stores, oldest position first, and how many it has seen.
    pub(crate) fn copy(&self, row: usize) -> Result<(KeysValues, i32)> {
        let positions = self.positions.borrow();
        let (seen, next) = (positions.seen[row], positions.next[row]);
        let end = seen.min(most_positions(positions.kind));
        let row = row as i32;
        let copied = match positions.kind {
            CacheKind::Rotating { sinks, .. } if next < end => {
                (self.store).copy(row, &[0..sinks, next..end, sinks..next])?
            }
            _ => self.store.copy(row, std::slice::from_ref(&(0..end)))?,
        };
        Ok((copied, seen))
    }

    /// Moves the last row into the place of another one.
    pub(crate) fn vacate(&mut self, row: usize, last: usize) -> Result<()> {
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
        let mut positions = self.positions.borrow_mut();
        ensure!(
            l == positions.each,
            "a step of a batch has {} tokens of each row, not {l}",
            positions.each
        );
        positions.mask(window)
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
