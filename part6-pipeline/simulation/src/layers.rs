//! What a query may look at, and where it stands, as `shared::layers` has it.

use std::rc::Rc;

use anyhow::Result;

use crate::array::Array;

/// Which of the visible positions each of the L queries may look at.
#[derive(Debug, Clone)]
pub enum Mask {
    /// All.
    None,
    /// Those up to its own.
    Causal,
    /// The queries of a row are the last of its positions, and look back by no more than a window.
    Spans(Rc<[i32]>, Option<i32>),
}

impl Mask {
    /// Of a sequence.
    pub fn causal(l: i32, s: i32, window: Option<i32>) -> Result<Self> {
        Ok(match window {
            Some(window) if s > window => Self::Spans([s].into(), Some(window)),
            _ if l > 1 => Self::Causal,
            _ => Self::None,
        })
    }

    /// Of one query in each row.
    pub fn rows(lengths: &[i32], window: Option<i32>) -> Result<Self> {
        Self::ends_of_rows(lengths, 1, window)
    }

    /// Of several in each row.
    pub fn ends_of_rows(lengths: &[i32], _: i32, window: Option<i32>) -> Result<Self> {
        Ok(Self::Spans(lengths.into(), window))
    }

    /// What query `at` of `l` may look at among `s` positions.
    pub(crate) fn visible(&self, row: usize, at: i32, l: i32, s: i32) -> std::ops::Range<i32> {
        match self {
            Self::None => 0..s,
            Self::Causal => 0..s - l + at + 1,
            Self::Spans(lengths, window) => {
                let length = lengths[row.min(lengths.len() - 1)];
                let end = length - l + at + 1;
                window.map_or(0, |window| (end - window).max(0))..end
            }
        }
    }
}

/// The position of the first token of a call.
#[derive(Debug, Clone)]
pub enum Offsets {
    /// The same in all rows.
    All(i32),
    /// Its own in each row.
    Rows(Array),
}

/// Ids as `[1, L]`.
pub fn ids_array(ids: &[u32]) -> Array {
    Array::from_slice(ids, &[1, ids.len() as i32])
}
