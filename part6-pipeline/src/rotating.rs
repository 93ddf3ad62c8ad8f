//! The cache that forgets: a window that moves over the sequence, with its first positions fixed.

use anyhow::{Context, Result};
use mlx_rs::Array;
use shared::layers::Mask;

use crate::cache::KvCache;
use crate::keys_values::{KeysValues, STEP};

/// A ring: the latest positions take the place of the oldest, except for the first ones, the sinks.
///
/// The order in the ring does not matter: keys carry their positions, and softmax sums over them.
/// Same rules as mlx-lm's `RotatingKVCache`. Within one call of several tokens a query looks back by
/// `size` positions, so the later ones do not see the sinks; a single token sees all that is stored.
///
/// # Cost
/// A step writes `2·Hkv·D` elements per layer; a piece of a prompt copies the window once.
#[derive(Debug)]
pub struct Rotating {
    stored: Option<KeysValues>,
    offset: i32,
    size: i32,
    sinks: i32,
    /// Where in the ring the next position goes.
    next: i32,
}

impl KvCache for Rotating {
    fn update_and_fetch(&mut self, keys: Array, values: Array) -> Result<(Array, Array)> {
        let new = KeysValues { keys, values };
        let added = new.len();
        let stored = if added == 1 {
            self.write_over(new)?
        } else {
            self.append(new)?
        };
        self.offset += added;
        let visible = stored.slice(0..stored.len().min(self.offset))?;
        self.stored = Some(stored);
        Ok((visible.keys, visible.values))
    }

    fn offset(&self) -> i32 {
        self.offset
    }

    fn next(&self) -> i32 {
        self.next
    }

    /// One token sees the whole ring. Several come after the `size − 1` latest positions.
    fn mask(&self, l: i32, _: Option<i32>) -> Result<Mask> {
        if l == 1 {
            return Ok(Mask::None);
        }
        let before = self.offset.min(self.size - 1);
        Mask::causal(l, before + l, Some(self.size))
    }

    fn window(&self) -> Option<i32> {
        Some(self.size)
    }

    fn arrays(&self) -> Vec<&Array> {
        self.stored.iter().flat_map(KeysValues::arrays).collect()
    }

    fn is_trimmable(&self) -> bool {
        self.offset < self.size
    }

    fn trim(&mut self, n: i32) -> Result<()> {
        self.offset -= n;
        self.next -= n;
        Ok(())
    }

    fn state(&self) -> Result<KeysValues> {
        let stored = self.stored.as_ref();
        self.oldest_first(stored.context("there is nothing in the cache")?)
    }

    fn restore(&mut self, state: KeysValues, offset: i32) -> Result<()> {
        self.next = state.len();
        (self.stored, self.offset) = (Some(state), offset);
        Ok(())
    }
}

impl Rotating {
    /// A window of `size` positions, the first `sinks` of which stay; `sinks < size`.
    pub fn new(size: i32, sinks: i32) -> Self {
        Self {
            stored: None,
            offset: 0,
            size,
            sinks,
            next: 0,
        }
    }

    /// Several tokens: put into order, so that the mask by distance is right, then longer by all of
    /// them, because the first one looks back by `size − 1` positions.
    fn append(&mut self, new: KeysValues) -> Result<KeysValues> {
        let all = match self.stored.take() {
            Some(stored) => {
                let ordered = self.oldest_first(&stored)?;
                let surplus = ordered.len() - self.size + 1;
                KeysValues::join(&[&self.without(&ordered, surplus)?, &new])?
            }
            None => new,
        };
        self.next = all.len();
        Ok(all)
    }

    /// One token: takes the place of the oldest one.
    fn write_over(&mut self, new: KeysValues) -> Result<KeysValues> {
        let stored = match self.stored.take() {
            Some(stored) if stored.len() > self.size => {
                self.next = self.size;
                self.without(&stored, stored.len() - self.size)?
            }
            Some(stored) if stored.len() <= self.offset && stored.len() < self.size => {
                let more = STEP.min(self.size - stored.len());
                KeysValues::join(&[&stored, &new.room(more)?])?
            }
            Some(stored) => stored,
            None => new.room(STEP.min(self.size))?,
        };
        if self.next == self.size {
            self.next = self.sinks;
        }
        let stored = stored.write(self.next, &new)?;
        self.next += 1;
        Ok(stored)
    }

    /// Without the `surplus` oldest positions after the sinks.
    fn without(&self, kv: &KeysValues, surplus: i32) -> Result<KeysValues> {
        if surplus <= 0 {
            return Ok(kv.clone());
        }
        let sinks = kv.slice(0..self.sinks)?;
        KeysValues::join(&[&sinks, &kv.slice(surplus + self.sinks..kv.len())?])
    }

    /// The positions in the order in which they came.
    fn oldest_first(&self, kv: &KeysValues) -> Result<KeysValues> {
        if self.next == kv.len() || self.next >= self.offset {
            return kv.slice(0..self.next);
        }
        let sinks = kv.slice(0..self.sinks)?;
        let (old, new) = (
            kv.slice(self.next..kv.len())?,
            kv.slice(self.sinks..self.next)?,
        );
        KeysValues::join(&[&sinks, &old, &new])
    }
}
