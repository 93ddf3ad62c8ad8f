//! What a query may look at, and where in the sequence it stands.

use std::rc::Rc;

use anyhow::Result;
use mlx_rs::Array;
use mlx_rs::fast::ScaledDotProductAttentionMask as SdpaMask;

/// Which of the S visible positions each of the L queries may look at.
#[derive(Debug, Clone)]
pub enum Mask {
    /// All of them: one query at the end.
    None,
    /// Those up to its own; the queries are the last L of the S positions. MLX needs no array for it.
    Causal,
    /// Those of a span that is the query's own: rows of different lengths, or a window.
    Spans(Spans),
}

impl Mask {
    /// The mask of a sequence: query i sees positions `i − window < j ≤ i`, or all `j ≤ i` without a
    /// window. Mistral 7B (arXiv 2310.06825) §2.
    pub fn causal(l: i32, s: i32, window: Option<i32>) -> Result<Self> {
        Ok(match window {
            Some(window) if s > window => Self::Spans(Spans::new(&[s], l, Some(window))?),
            _ if l > 1 => Self::Causal,
            _ => Self::None,
        })
    }

    /// The mask of one query in each row, where row b has positions `0..lengths[b]`, the query's own being
    /// the last of them.
    pub fn rows(lengths: &[i32], window: Option<i32>) -> Result<Self> {
        Self::ends_of_rows(lengths, 1, window)
    }

    /// The mask of L queries in each row, where row b has positions `0..lengths[b]`, the queries' own being the last
    /// of them.
    pub fn ends_of_rows(lengths: &[i32], l: i32, window: Option<i32>) -> Result<Self> {
        match lengths {
            [first, rest @ ..] if rest.iter().any(|length| length != first) => {
                Ok(Self::Spans(Spans::new(lengths, l, window)?))
            }
            _ => Self::causal(l, lengths.first().copied().unwrap_or(0), window),
        }
    }

    /// As MLX's attention takes it.
    pub fn as_sdpa(&self) -> Option<SdpaMask<'_>> {
        match self {
            Self::None => None,
            Self::Causal => Some(SdpaMask::Causal),
            Self::Spans(spans) => Some(SdpaMask::Array(&spans.array)),
        }
    }
}

/// The queries of a row are the last L of its positions: each looks at its own and at those before it, not
/// farther back than a window.
#[derive(Debug, Clone)]
pub struct Spans {
    /// How many positions a row has: one number for each row, or one for all of them.
    pub(crate) lengths: Rc<[i32]>,
    pub(crate) window: Option<i32>,
    /// The same for MLX, `[B, 1, L, S]` with B 1 where one length is that of all rows: true where a query
    /// looks. Only described: loops that know the lengths never ask for it.
    array: Array,
}

impl Spans {
    fn new(lengths: &[i32], l: i32, window: Option<i32>) -> Result<Self> {
        let rows = lengths.len() as i32;
        let s = lengths.iter().copied().max().unwrap_or(0);
        let queries = lengths.iter().flat_map(|length| length - l..*length);
        let query = Array::from_iter(queries, &[rows, 1, l, 1]);
        let position = Array::from_iter(0..s, &[1, 1, 1, s]);
        let mut array = position.le(&query)?;
        if let Some(window) = window {
            let near = position.gt(query.subtract(Array::from_int(window))?)?;
            array = array.logical_and(near)?;
        }
        Ok(Self {
            lengths: lengths.into(),
            window,
            array,
        })
    }
}

/// The position of the first token of a call: by how much it is rotated.
#[derive(Debug, Clone)]
pub enum Offsets {
    /// The same in all rows.
    All(i32),
    /// Its own in each row, i32 `[B]`.
    Rows(Array),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the mask is true, row after row; None: everywhere.
    fn seen(mask: &Mask) -> Option<(Vec<i32>, Vec<bool>)> {
        let Mask::Spans(spans) = mask else {
            return None;
        };
        let numbers = spans.array.try_as_slice::<bool>().unwrap();
        Some((spans.array.shape().to_vec(), numbers.to_vec()))
    }

    #[test]
    fn a_query_looks_back_by_its_window_and_no_farther() {
        for (l, s, window) in [(1, 9, 8), (3, 9, 4), (9, 9, 1), (5, 40, 39)] {
            let (shape, numbers) = seen(&Mask::causal(l, s, Some(window)).unwrap()).unwrap();
            assert_eq!(shape, [1, 1, l, s]);
            for (at, seen) in numbers.into_iter().enumerate() {
                let (query, position) = (s - l + at as i32 / s, at as i32 % s);
                assert_eq!(seen, position <= query && position > query - window);
            }
        }
    }

    #[test]
    fn a_row_sees_its_own_length_and_of_that_its_window() {
        let lengths = [3, 9, 1, 5];
        for window in [None, Some(4), Some(20)] {
            let (shape, numbers) = seen(&Mask::rows(&lengths, window).unwrap()).unwrap();
            assert_eq!(shape, [4, 1, 1, 9]);
            for (row, length) in numbers.chunks(9).zip(lengths) {
                let first = window.map_or(0, |window| length - window);
                let own = (0..9).map(|position| position >= first && position < length);
                assert_eq!(row, own.collect::<Vec<_>>(), "{length} and {window:?}");
            }
        }
    }

    #[test]
    fn where_all_positions_are_seen_there_is_no_array() {
        assert!(matches!(Mask::causal(1, 8, Some(8)).unwrap(), Mask::None));
        assert!(matches!(Mask::causal(2, 8, Some(8)).unwrap(), Mask::Causal));
        assert!(matches!(Mask::rows(&[7, 7], None).unwrap(), Mask::None));
        assert!(matches!(Mask::rows(&[7], Some(7)).unwrap(), Mask::None));
        assert!(matches!(
            Mask::rows(&[7, 7], Some(6)).unwrap(),
            Mask::Spans(_)
        ));
    }
}
