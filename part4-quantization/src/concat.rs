//! The cache that grows by what is new: simple, and everything is copied at every step.

use anyhow::Result;
use mlx_rs::Array;

use crate::cache::KvCache;
use crate::keys_values::KeysValues;

/// One array, and a longer one for every token.
///
/// # Cost
/// Step t copies `2·Hkv·t·D` elements per layer: n steps copy in the order of n².
#[derive(Debug, Default)]
pub struct Concat {
    stored: Option<KeysValues>,
}

impl KvCache for Concat {
    fn update_and_fetch(&mut self, keys: Array, values: Array) -> Result<(Array, Array)> {
        let new = KeysValues { keys, values };
        let stored = match self.stored.take() {
            Some(stored) => KeysValues::join(&[&stored, &new])?,
            None => new,
        };
        self.stored = Some(stored.clone());
        Ok((stored.keys, stored.values))
    }

    fn offset(&self) -> i32 {
        self.stored.as_ref().map_or(0, KeysValues::len)
    }

    fn arrays(&self) -> Vec<&Array> {
        self.stored.iter().flat_map(KeysValues::arrays).collect()
    }

    fn trim(&mut self, n: i32) -> Result<()> {
        if let Some(stored) = &mut self.stored {
            *stored = stored.slice(0..stored.len() - n)?;
        }
        Ok(())
    }
}
