//! The merges of a SentencePiece vocabulary, which keeps none.
//!
//! SentencePiece joins the neighbours whose joint piece has the best score. So each way to cut a piece
//! into two pieces is a merge, ranked by the score of the whole.

use tokenizers::Result;
use tokenizers::models::bpe::Merges;

/// What the texts of all merges may take, in bytes. A vocabulary of 256,000 pieces makes 10 MB; one that
/// was made up to be slow, of pieces that are each the beginning of the next, makes more than fits.
const BUDGET: usize = 1 << 26;

/// The merges of `pieces`, best first. `scores` has one value for each; pieces for which `is_made` says
/// no are never made of others.
///
/// # Cost
/// Looks at each byte of each piece twice, not at each cut of it: a file can hold a piece of a million
/// letters.
///
/// # Errors
/// If there are more merges than any vocabulary has.
pub(super) fn from_scores(
    pieces: &[String],
    scores: &[f32],
    is_made: impl Fn(usize) -> bool,
) -> Result<Merges> {
    let forwards = Sorted::new(pieces.iter().map(|piece| piece.bytes().collect()));
    let backwards = Sorted::new(pieces.iter().map(|piece| piece.bytes().rev().collect()));
    let mut merges = Vec::new();
    let mut bytes = 0;
    for (id, piece) in pieces.iter().enumerate().filter(|(id, _)| is_made(*id)) {
        let heads = forwards.beginnings(piece.bytes());
        let mut tails = backwards.beginnings(piece.bytes().rev());
        for (cut, left) in heads {
            while tails
                .last()
                .is_some_and(|(length, _)| cut + length > piece.len())
            {
                tails.pop();
            }
            let Some(&(length, right)) = tails.last() else {
                break;
            };
            if cut + length == piece.len() {
                bytes += piece.len();
                if bytes > BUDGET {
                    return Err(
                        "its tokens can be made of each other in more ways than those of any vocabulary"
                            .into(),
                    );
                }
                let pair = (pieces[left].clone(), pieces[right].clone());
                merges.push((scores[id], (left, right), pair));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    Ok(merges.into_iter().map(|(_, _, pair)| pair).collect())
}

/// Pieces in the order of their bytes, each with its id.
struct Sorted(Vec<(Vec<u8>, usize)>);

impl Sorted {
    fn new(pieces: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut sorted: Vec<_> = pieces
            .zip(0..)
            .filter(|(piece, _)| !piece.is_empty())
            .collect();
        // Of pieces that are there twice the last one counts, as in the vocabulary.
        sorted.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        sorted.dedup_by(|next, kept| next.0 == kept.0);
        Self(sorted)
    }

    /// The pieces that `text` begins with, shortest first: their lengths and ids.
    fn beginnings(&self, text: impl Iterator<Item = u8>) -> Vec<(usize, usize)> {
        let mut range = &self.0[..];
        let mut found = Vec::new();
        for (at, byte) in text.enumerate() {
            // All in the range are equal up to here, so their next bytes rise. None comes before all.
            let start = range.partition_point(|(piece, _)| piece.get(at) < Some(&byte));
            let end = range.partition_point(|(piece, _)| piece.get(at) <= Some(&byte));
            range = &range[start..end];
            match range.first() {
                Some((piece, id)) if piece.len() == at + 1 => found.push((at + 1, *id)),
                Some(_) => {}
                None => break,
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn merges(pieces: &[String]) -> Result<Vec<(String, String)>> {
        let scores: Vec<f32> = (0..pieces.len()).map(|id| -((id % 7) as f32)).collect();
        from_scores(pieces, &scores, |id| id % 5 != 0)
    }

    /// Each cut of each piece looked up: the rule as it reads, and quadratic.
    fn by_the_rule(pieces: &[String]) -> Vec<(String, String)> {
        let ids: HashMap<&str, usize> = pieces.iter().map(String::as_str).zip(0..).collect();
        let mut found = Vec::new();
        for (id, piece) in pieces.iter().enumerate().filter(|(id, _)| id % 5 != 0) {
            for (cut, _) in piece.char_indices().skip(1) {
                let (left, right) = piece.split_at(cut);
                if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                    found.push((
                        -((id % 7) as f32),
                        (l, r),
                        (left.to_owned(), right.to_owned()),
                    ));
                }
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        found.into_iter().map(|(_, _, pair)| pair).collect()
    }

    proptest! {
        #[test]
        fn merges_are_those_of_the_rule(pieces in prop::collection::vec("[abé▁]{0,5}", 0..60)) {
            prop_assert_eq!(merges(&pieces).unwrap(), by_the_rule(&pieces));
        }
    }

    #[test]
    fn a_piece_of_a_million_letters_is_no_hurdle() {
        let started = Instant::now();
        let long = ["a", "aa", "b"].map(str::to_owned).into_iter();
        let pieces: Vec<String> = long.chain(["a".repeat(1_000_000)]).collect();
        assert_eq!(merges(&pieces).unwrap().len(), 1);
        // The rule as it reads hashes half a million million letters for it.
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_vocabulary_made_up_to_be_slow_is_refused() {
        let pieces: Vec<String> = (1..1500).map(|length| "a".repeat(length)).collect();
        let error = merges(&pieces).unwrap_err().to_string();
        assert!(error.contains("more ways"), "{error}");
    }
}
