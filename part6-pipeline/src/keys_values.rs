//! Keys and values of some positions, always handled as a pair.

use std::ops::Range;

use anyhow::Result;
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, ops};
use shared::ops::slice_update;

/// Positions by which a cache with room grows, mlx-lm's number: a copy of everything once in 256
/// tokens, and at most 255 positions of memory that nobody uses.
pub const STEP: i32 = 256;

/// Keys and values of one layer, `[B, Hkv, N, D]` each.
#[derive(Debug, Clone)]
pub struct KeysValues {
    /// Rotated by their positions.
    pub keys: Array,
    /// Not rotated.
    pub values: Array,
}

impl KeysValues {
    /// N
    pub(crate) fn len(&self) -> i32 {
        self.keys.dim(2)
    }

    /// The pair of these arrays.
    pub(crate) fn of(keys: &Array, values: &Array) -> Self {
        Self {
            keys: keys.clone(),
            values: values.clone(),
        }
    }

    /// Keys, then values.
    pub(crate) fn arrays(&self) -> [&Array; 2] {
        [&self.keys, &self.values]
    }

    /// Positions in `range`, as views.
    pub(crate) fn slice(&self, range: Range<i32>) -> Result<Self> {
        Ok(Self {
            keys: self.keys.try_index((.., .., range.clone(), ..))?,
            values: self.values.try_index((.., .., range, ..))?,
        })
    }

    /// A copy of all parts, one after the other.
    pub(crate) fn join(parts: &[&Self]) -> Result<Self> {
        let keys: Vec<&Array> = parts.iter().map(|part| &part.keys).collect();
        let values: Vec<&Array> = parts.iter().map(|part| &part.values).collect();
        Ok(Self {
            keys: ops::concatenate(&keys, 2)?,
            values: ops::concatenate(&values, 2)?,
        })
    }

    /// Zeros for `n` positions of the same kind.
    pub(crate) fn room(&self, n: i32) -> Result<Self> {
        let zeros = |like: &Array| {
            let shape = [like.dim(0), like.dim(1), n, like.dim(3)];
            ops::zeros_dtype(&shape, like.dtype())
        };
        Ok(Self {
            keys: zeros(&self.keys)?,
            values: zeros(&self.values)?,
        })
    }

    /// Puts `new` at position `at` and the following. MLX writes in place if nothing else holds the
    /// array or a view of it, which is why this takes the array and gives it back; else it copies.
    pub(crate) fn write(self, at: i32, new: &Self) -> Result<Self> {
        Ok(Self {
            keys: slice_update(&self.keys, &new.keys, at, 2)?,
            values: slice_update(&self.values, &new.values, at, 2)?,
        })
    }
}
