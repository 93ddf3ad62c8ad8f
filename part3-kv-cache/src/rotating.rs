//! The cache that forgets: a window that moves over the sequence, with its first positions kept.

use anyhow::Result;

use crate::cache::STEP;
use crate::keys_values::KeysValues;

/// A ring: the latest positions take the place of the oldest, except for the first `keep`.
///
/// The order in the ring does not matter: keys carry their positions, and softmax sums over them.
/// Same rules as mlx-lm's `RotatingKVCache`. Within one call of several tokens a query looks back by
/// `size` positions, so the later ones do not see the sinks; a single token sees all that is kept.
#[derive(Debug)]
pub struct Rotating {
    pub(crate) kept: Option<KeysValues>,
    pub(crate) offset: i32,
    pub(crate) size: i32,
    keep: i32,
    /// Where in the ring the next position goes.
    pub(crate) next: i32,
}

impl Rotating {
    pub(crate) fn new(size: i32, keep: i32) -> Self {
        Self {
            kept: None,
            offset: 0,
            size,
            keep,
            next: 0,
        }
    }

    pub(crate) fn update(&mut self, new: KeysValues) -> Result<KeysValues> {
        let added = new.len();
        let kept = if added == 1 {
            self.write_over(new)?
        } else {
            self.append(new)?
        };
        self.offset += added;
        let seen = kept.slice(0..kept.len().min(self.offset))?;
        self.kept = Some(kept);
        Ok(seen)
    }

    /// Several tokens: put into order, so that the mask by distance is right, then longer by all of
    /// them, because the first one looks back by `size − 1` positions.
    fn append(&mut self, new: KeysValues) -> Result<KeysValues> {
        let all = match self.kept.take() {
            Some(kept) => {
                let ordered = self.oldest_first(&kept)?;
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
        let mut kept = match self.kept.take() {
            Some(kept) if kept.len() > self.size => {
                self.next = self.size;
                self.without(&kept, kept.len() - self.size)?
            }
            Some(kept) if kept.len() <= self.offset && kept.len() < self.size => {
                let more = STEP.min(self.size - kept.len());
                KeysValues::join(&[&kept, &new.room(more)?])?
            }
            Some(kept) => kept,
            None => new.room(STEP.min(self.size))?,
        };
        if self.next == self.size {
            self.next = self.keep;
        }
        kept = kept.write(self.next, &new)?;
        self.next += 1;
        Ok(kept)
    }

    /// Without the `surplus` oldest positions after the kept ones.
    fn without(&self, kv: &KeysValues, surplus: i32) -> Result<KeysValues> {
        if surplus <= 0 {
            return kv.slice(0..kv.len());
        }
        let sinks = kv.slice(0..self.keep)?;
        KeysValues::join(&[&sinks, &kv.slice(surplus + self.keep..kv.len())?])
    }

    /// The positions in the order in which they came.
    pub(crate) fn oldest_first(&self, kv: &KeysValues) -> Result<KeysValues> {
        if self.next == kv.len() || self.next >= self.offset {
            return kv.slice(0..self.next);
        }
        let sinks = kv.slice(0..self.keep)?;
        let (old, new) = (
            kv.slice(self.next..kv.len())?,
            kv.slice(self.keep..self.next)?,
        );
        KeysValues::join(&[&sinks, &old, &new])
    }
}
