//! The cache with room for the next tokens, which are written in place.

use anyhow::Result;
use mlx_rs::Array;

use crate::cache::KvCache;
use crate::keys_values::{KeysValues, STEP};

/// One array that is longer than what is in it.
///
/// # Cost
/// A step writes `2·Hkv·D` elements per layer; every [`STEP`] tokens everything is copied once. A
/// server that knows the longest answer would reserve pages of a common pool (vLLM).
#[derive(Debug, Default)]
pub struct Prealloc {
    stored: Option<KeysValues>,
    offset: i32,
}

impl KvCache for Prealloc {
    fn update_and_fetch(&mut self, keys: Array, values: Array) -> Result<(Array, Array)> {
        let new = KeysValues { keys, values };
        let end = self.offset + new.len();
        let capacity = (end + STEP - 1) / STEP * STEP;
        let stored = match self.stored.take() {
            Some(stored) if stored.len() >= end => stored,
            Some(stored) => {
                let used = stored.slice(0..self.offset)?;
                KeysValues::join(&[&used, &new.room(capacity - self.offset)?])?
            }
            None => new.room(capacity)?,
        };
        let stored = stored.write(self.offset, &new)?;
        let visible = stored.slice(0..end)?;
        (self.stored, self.offset) = (Some(stored), end);
        Ok((visible.keys, visible.values))
    }

    fn offset(&self) -> i32 {
        self.offset
    }

    fn arrays(&self) -> Vec<&Array> {
        self.stored.iter().flat_map(KeysValues::arrays).collect()
    }

    fn trim(&mut self, n: i32) -> Result<()> {
        self.offset -= n;
        Ok(())
    }
}
