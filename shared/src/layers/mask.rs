//! What a query may look at, and where in the sequence it stands.

use anyhow::Result;
use mlx_rs::Array;
use mlx_rs::fast::ScaledDotProductAttentionMask as SdpaMask;

/// Which of the S visible positions each of the L queries may look at.
#[derive(Debug)]
pub enum Mask {
    /// All of them: one query at the end.
    None,
    /// Those up to its own; the queries are the last L of the S positions. MLX needs no array for it.
    Causal,
    /// Those where the array is true, `[L, S]` or `[B, 1, L, S]`.
    Array(Array),
}

impl Mask {
    /// The mask of a sequence: query i sees positions `i − window < j ≤ i`, or all `j ≤ i` without a
    /// window. Mistral 7B (arXiv 2310.06825) §2.
    pub fn causal(l: i32, s: i32, window: Option<i32>) -> Result<Self> {
        Ok(match window {
            Some(window) if s > window => Self::Array(sliding(l, s, window)?),
            _ if l > 1 => Self::Causal,
            _ => Self::None,
        })
    }

    /// As MLX's attention takes it.
    pub fn as_sdpa(&self) -> Option<SdpaMask<'_>> {
        match self {
            Self::None => None,
            Self::Causal => Some(SdpaMask::Causal),
            Self::Array(mask) => Some(SdpaMask::Array(mask)),
        }
    }
}

/// `[L, S]`
fn sliding(l: i32, s: i32, window: i32) -> Result<Array> {
    let query = Array::from_iter(s - l..s, &[l, 1]);
    let position = Array::from_iter(0..s, &[1, s]);
    let causal = position.le(&query)?;
    let near = position.gt(query.subtract(Array::from_int(window))?)?;
    Ok(causal.logical_and(near)?)
}

/// The position of the first token of a call: by how much it is rotated.
#[derive(Debug)]
pub enum Offsets {
    /// The same in all rows.
    All(i32),
    /// Its own in each row, i32 `[B]`.
    Rows(Array),
}
