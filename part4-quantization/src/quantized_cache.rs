//! The cache whose keys and values are packed, as weights are.
//!
//! The prompt and the answer of a long conversation outgrow the weights, so the same recipe is worth it here:
//! groups along the head, each with a scale and a bias. A key decides where all later queries look, a value
//! only what is found there: keys need more bits.

use std::{fmt, mem};

use anyhow::{Context, Result, bail};
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, ops};
use shared::ops::slice_update;

use crate::cache::KvCache;
use crate::keys_values::{KeysValues, STEP};

/// Bits of keys and values, which differ in how much they bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvBits {
    /// Of one number of a key.
    pub keys: i32,
    /// Of one number of a value.
    pub values: i32,
}

impl fmt::Display for KvBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "K{} V{}", self.keys, self.values)
    }
}

/// G, how many numbers of a head share a scale and a bias: mlx-lm's 64, or 32 where that does not divide the
/// head.
///
/// # Errors
/// If neither does.
pub fn group_size(head_dim: i32) -> Result<i32> {
    let fitting = [64, 32].into_iter().find(|group| head_dim % group == 0);
    fitting.with_context(|| {
        format!("heads of {head_dim} numbers cannot be quantized: groups are 64 or 32 of them")
    })
}

/// An array with room, as [`Prealloc`](crate::prealloc::Prealloc) has it, of codes, scales and biases.
///
/// # Cost
/// `D·bits/8 + 2·D/G·bytes` bytes per position and head, for keys and values each. A step unpacks all that is
/// visible, `2·Hkv·S·D` numbers per layer, so attention stays what it was. mlx-lm multiplies the packed ones
/// instead, and where kernels do both at once (vLLM, llama.cpp) a step reads fewer bytes: here it reads more.
#[derive(Debug)]
pub struct QuantizedCache {
    keys: Packed,
    values: Packed,
    offset: i32,
}

impl QuantizedCache {
    /// An empty cache.
    pub fn new(bits: KvBits) -> Self {
        Self::packed(bits, Vec::new(), 0)
    }

    /// A cache of these codes, scales and biases, those of the keys first, `[B, Hkv, offset, …]` each.
    pub fn packed(bits: KvBits, mut stored: Vec<Array>, offset: i32) -> Self {
        let of_values = stored.split_off(stored.len() / 2);
        let packed = |bits, stored| Packed { bits, stored };
        Self {
            keys: packed(bits.keys, stored),
            values: packed(bits.values, of_values),
            offset,
        }
    }
}

impl KvCache for QuantizedCache {
    fn update_and_fetch(&mut self, keys: Array, values: Array) -> Result<(Array, Array)> {
        let (at, end) = (self.offset, self.offset + keys.dim(2));
        self.keys.write(at, &keys)?;
        self.values.write(at, &values)?;
        self.offset = end;
        Ok((self.keys.unpack(end)?, self.values.unpack(end)?))
    }

    fn offset(&self) -> i32 {
        self.offset
    }

    fn arrays(&self) -> Vec<&Array> {
        let both = [&self.keys, &self.values].into_iter();
        both.flat_map(|packed| &packed.stored).collect()
    }

    fn trim(&mut self, n: i32) -> Result<()> {
        self.offset -= n;
        Ok(())
    }

    /// Unpacked: another kind of cache may go on with it.
    fn state(&self) -> Result<KeysValues> {
        Ok(KeysValues {
            keys: self.keys.unpack(self.offset)?,
            values: self.values.unpack(self.offset)?,
        })
    }
}

/// Codes `[B, Hkv, N, D·bits/32]`, scales and biases `[B, Hkv, N, D/G]`.
#[derive(Debug)]
struct Packed {
    bits: i32,
    stored: Vec<Array>,
}

impl Packed {
    /// Packs `new` `[B, Hkv, L, D]` and puts it at position `at` and the following.
    fn write(&mut self, at: i32, new: &Array) -> Result<()> {
        let (codes, scales, biases) = ops::quantize(new, group_size(new.dim(3))?, self.bits)?;
        let mut stored = mem::take(&mut self.stored).into_iter();
        for new in [codes, scales, biases] {
            let room = with_room(stored.next(), &new, at)?;
            self.stored.push(slice_update(&room, &new, at, 2)?);
        }
        Ok(())
    }

    /// The first `n` positions as numbers `[B, Hkv, n, D]`, in the type in which they came.
    fn unpack(&self, n: i32) -> Result<Array> {
        let [codes, scales, biases] = &self.stored[..] else {
            bail!("there is nothing in the cache");
        };
        let visible = |array: &Array| array.try_index((.., .., 0..n, ..));
        let head_dim = codes.dim(3) * 32 / self.bits;
        Ok(ops::dequantize(
            &visible(codes)?,
            &visible(scales)?,
            &visible(biases)?,
            group_size(head_dim)?,
            self.bits,
        )?)
    }
}

/// An array with room for `new` at position `at`, which begins as `stored` does.
fn with_room(stored: Option<Array>, new: &Array, at: i32) -> Result<Array> {
    let end = at + new.dim(2);
    let capacity = (end + STEP - 1) / STEP * STEP;
    let zeros = |n| ops::zeros_dtype(&[new.dim(0), new.dim(1), n, new.dim(3)], new.dtype());
    match stored {
        Some(stored) if stored.dim(2) >= end => Ok(stored),
        Some(stored) => {
            let used = stored.try_index((.., .., 0..at, ..))?;
            Ok(ops::concatenate(&[&used, &zeros(capacity - at)?], 2)?)
        }
        None => Ok(zeros(capacity)?),
    }
}
