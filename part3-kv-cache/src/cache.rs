//! The KV cache: the keys and values of every position that went through the model.
//!
//! Attention of a new token needs the keys and values of all tokens before it, and these never
//! change: attention is causal. Four ways to keep them, one interface: the model hands over what is
//! new and gets back what is visible.

use anyhow::{Context, Result, ensure};
use mlx_rs::Array;
use shared::config::ModelConfig;

use crate::keys_values::KeysValues;
use crate::rotating::Rotating;

/// Positions by which [`Prealloc`] and [`Rotating`] grow, mlx-lm's number: a copy of everything once
/// in 256 tokens, and at most 255 positions of memory that nobody uses.
pub const STEP: i32 = 256;

/// How to keep keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// Not at all: part 2.
    Off,
    /// A new array for every token.
    Concat,
    /// One array with room for more, written in place.
    Prealloc,
    /// The latest `size` positions only, the first `keep` among them for good.
    Rotating {
        /// Positions that are kept, the first ones included.
        size: i32,
        /// First positions that are never overwritten: attention sinks (arXiv 2309.17453).
        keep: i32,
    },
}

/// The caches of all layers.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<KvCache>,
}

impl Cache {
    /// An empty cache. A layer that has a sliding window itself rotates over no more than that, and
    /// without sinks: its model never saw any.
    pub fn new(kind: CacheKind, config: &ModelConfig) -> Self {
        let layer = |window: &Option<usize>| match (kind, window) {
            (CacheKind::Off, _) => KvCache::Off,
            (CacheKind::Concat, _) => KvCache::Concat(Concat::default()),
            (CacheKind::Prealloc, _) => KvCache::Prealloc(Prealloc::default()),
            (CacheKind::Rotating { size, .. }, Some(window)) if *window as i32 <= size => {
                KvCache::Rotating(Rotating::new(*window as i32, 0))
            }
            (CacheKind::Rotating { size, keep }, _) => KvCache::Rotating(Rotating::new(size, keep)),
        };
        Self {
            layers: config.sliding_window.iter().map(layer).collect(),
        }
    }

    /// One cache per layer, in the order of the layers.
    pub fn layers_mut(&mut self) -> &mut [KvCache] {
        &mut self.layers
    }

    /// Positions that went through the model: where the next token stands. 0 if nothing is kept.
    pub fn offset(&self) -> i32 {
        self.layers.first().map_or(0, KvCache::offset)
    }

    /// Positions of the layer that has room for most.
    pub fn capacity(&self) -> i32 {
        self.layers.iter().map(KvCache::capacity).max().unwrap_or(0)
    }

    /// Bytes of keys and values, unused room included.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(KvCache::bytes).sum()
    }

    /// Whether a step may be given the new token alone.
    pub fn remembers(&self) -> bool {
        !self
            .layers
            .iter()
            .any(|layer| matches!(layer, KvCache::Off))
    }

    /// Whether a sequence of this length is more than some layer keeps.
    pub fn forgets(&self, length: i32) -> bool {
        let windows = self.layers.iter().filter_map(KvCache::window);
        windows.min().is_some_and(|window| length > window)
    }

    /// Goes back by `n` positions, in all layers or in none.
    ///
    /// # Errors
    /// If `n` is more than the offset, or if a layer has overwritten what it would go back to.
    pub fn trim(&mut self, n: i32) -> Result<()> {
        for layer in &self.layers {
            layer.check_trim(n)?;
        }
        self.layers.iter_mut().try_for_each(|layer| layer.trim(n))
    }

    /// All keys and values, for whoever has to evaluate them.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        let kept = self.layers.iter().filter_map(KvCache::kept);
        kept.flat_map(|kv| [&kv.keys, &kv.values])
    }

    /// Keys and values of each layer, oldest position first and without unused room: what a file
    /// has to hold.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn state(&self) -> Result<Vec<KeysValues>> {
        self.layers.iter().map(KvCache::state).collect()
    }

    /// Takes over what [`state`](Self::state) gave, after `offset` positions.
    ///
    /// # Errors
    /// If the number of layers or of positions is not that of such a cache.
    pub fn restore(&mut self, state: Vec<KeysValues>, offset: i32) -> Result<()> {
        ensure!(
            state.len() == self.layers.len(),
            "{} layers are to be restored, the model has {}",
            state.len(),
            self.layers.len()
        );
        let mut pairs = self.layers.iter_mut().zip(state);
        pairs.try_for_each(|(layer, kv)| layer.restore(kv, offset))
    }
}

/// The cache of one layer.
#[derive(Debug)]
pub enum KvCache {
    /// Keeps nothing.
    Off,
    /// See [`Concat`].
    Concat(Concat),
    /// See [`Prealloc`].
    Prealloc(Prealloc),
    /// See [`Rotating`].
    Rotating(Rotating),
}

impl KvCache {
    /// Adds what is new, and returns all that its queries may look at.
    ///
    /// # Shapes
    /// keys, values `[B, Hkv, L, D]` → `[B, Hkv, S, D]`, with `S = offset + L`, or less if the
    /// cache forgets
    ///
    /// # Errors
    /// If the shapes do not fit what is kept.
    pub fn update_and_fetch(&mut self, keys: Array, values: Array) -> Result<(Array, Array)> {
        let new = KeysValues { keys, values };
        let seen = match self {
            Self::Off => new,
            Self::Concat(cache) => cache.update(new)?,
            Self::Prealloc(cache) => cache.update(new)?,
            Self::Rotating(cache) => cache.update(new)?,
        };
        Ok((seen.keys, seen.values))
    }

    /// Positions that were added, the position of the next token.
    pub fn offset(&self) -> i32 {
        match self {
            Self::Off => 0,
            Self::Concat(cache) => cache.kept.as_ref().map_or(0, KeysValues::len),
            Self::Prealloc(cache) => cache.offset,
            Self::Rotating(cache) => cache.offset,
        }
    }

    /// Positions that there is room for.
    pub fn capacity(&self) -> i32 {
        self.kept().map_or(0, KeysValues::len)
    }

    /// Bytes of keys and values, unused room included: `2 · Hkv · D · bytes · capacity`.
    pub fn bytes(&self) -> u64 {
        self.kept().map_or(0, KeysValues::bytes)
    }

    /// How far back a query can look, its own position included; `None`: to the beginning.
    pub fn window(&self) -> Option<i32> {
        match self {
            Self::Rotating(cache) => Some(cache.size),
            _ => None,
        }
    }

    fn kept(&self) -> Option<&KeysValues> {
        match self {
            Self::Off => None,
            Self::Concat(Concat { kept })
            | Self::Prealloc(Prealloc { kept, .. })
            | Self::Rotating(Rotating { kept, .. }) => kept.as_ref(),
        }
    }

    fn check_trim(&self, n: i32) -> Result<()> {
        let offset = self.offset();
        ensure!(
            (0..=offset).contains(&n),
            "the cache has {offset} positions, it cannot go back by {n}"
        );
        let wrapped = self.window().is_some_and(|size| offset >= size);
        ensure!(
            n == 0 || !wrapped,
            "a rotating cache that is full has overwritten what it would go back to"
        );
        Ok(())
    }

    /// Goes back by `n` positions: they are forgotten, or left to be overwritten.
    ///
    /// # Errors
    /// If `n` is more than the offset, or if what it would go back to is overwritten.
    pub fn trim(&mut self, n: i32) -> Result<()> {
        self.check_trim(n)?;
        match self {
            Self::Off => {}
            Self::Concat(Concat { kept }) => {
                if let Some(kv) = kept {
                    *kv = kv.slice(0..kv.len() - n)?;
                }
            }
            Self::Prealloc(cache) => cache.offset -= n,
            Self::Rotating(cache) => {
                cache.offset -= n;
                cache.next -= n;
            }
        }
        Ok(())
    }

    fn state(&self) -> Result<KeysValues> {
        let kept = self.kept().context("there is nothing in the cache")?;
        match self {
            Self::Rotating(cache) => cache.oldest_first(kept),
            _ => kept.slice(0..self.offset()),
        }
    }

    fn restore(&mut self, kv: KeysValues, offset: i32) -> Result<()> {
        let (positions, window) = (kv.len(), self.window().unwrap_or(offset));
        // A rotating cache may hold a whole piece more than its window until the next token.
        ensure!(
            (window.min(offset)..=offset).contains(&positions),
            "{positions} positions are to be restored after {offset} of which {window} are visible"
        );
        match self {
            Self::Off => {}
            Self::Concat(cache) => cache.kept = Some(kv),
            Self::Prealloc(cache) => (cache.kept, cache.offset) = (Some(kv), offset),
            Self::Rotating(cache) => {
                (cache.kept, cache.offset, cache.next) = (Some(kv), offset, positions);
            }
        }
        Ok(())
    }
}

/// Grows by what is new: simple, and everything is copied at every step.
///
/// # Cost
/// Step t copies `2·Hkv·t·D` elements per layer: n steps copy in the order of n².
#[derive(Debug, Default)]
pub struct Concat {
    kept: Option<KeysValues>,
}

impl Concat {
    fn update(&mut self, new: KeysValues) -> Result<KeysValues> {
        let all = match self.kept.take() {
            Some(kept) => KeysValues::join(&[&kept, &new])?,
            None => new,
        };
        let seen = all.slice(0..all.len())?;
        self.kept = Some(all);
        Ok(seen)
    }
}

/// Has room for the next tokens, and writes them in place.
///
/// # Cost
/// A step writes `2·Hkv·D` elements per layer; every [`STEP`] tokens everything is copied once. A
/// server that knows the longest answer would reserve pages of a common pool (vLLM).
#[derive(Debug, Default)]
pub struct Prealloc {
    kept: Option<KeysValues>,
    offset: i32,
}

impl Prealloc {
    fn update(&mut self, new: KeysValues) -> Result<KeysValues> {
        let end = self.offset + new.len();
        let capacity = (end + STEP - 1) / STEP * STEP;
        let kept = match self.kept.take() {
            Some(kept) if kept.len() >= end => kept,
            Some(kept) => {
                let used = kept.slice(0..self.offset)?;
                KeysValues::join(&[&used, &new.room(capacity - self.offset)?])?
            }
            None => new.room(capacity)?,
        };
        let kept = kept.write(self.offset, &new)?;
        let seen = kept.slice(0..end)?;
        (self.kept, self.offset) = (Some(kept), end);
        Ok(seen)
    }
}
