//! Prompts that begin in the same step: one run of the model for several.

use std::cmp::Reverse;
use std::iter;

use anyhow::{Context, Result, bail, ensure};
use mlx_rs::Array;
use shared::config::ModelConfig;
use shared::layers::ids_array;

use crate::cache::{Cache, KvCache};
use crate::keys_values::KeysValues;
use crate::kinds::{CacheKind, empty_cache, layer_kinds};
use crate::model::Model;
use crate::plan::Piece;

/// Sorts what a step runs of prompts: whole ones of about one length share a run of the model, and each other piece
/// has one of its own.
///
/// # Cost
/// A run is as long for all its rows as for the longest, so up to a quarter of it is computed for nothing. Alone, each
/// short prompt would read every weight for a few tokens. vLLM lays prompts end to end instead, for which its
/// attention has to know where each begins.
pub(crate) fn runs<'a>(
    kind: CacheKind,
    config: &ModelConfig,
    pieces: Vec<&'a Piece>,
) -> (Vec<Vec<&'a Piece>>, Vec<&'a Piece>) {
    // Where a ring's next token goes depends on the length of its own prompt.
    let rings = layer_kinds(kind, config).any(|kind| matches!(kind, CacheKind::Rotating { .. }));
    let whole = |piece: &&Piece| !rings && piece.last && piece.range.start == 0;
    let (mut whole, mut alone): (Vec<_>, Vec<_>) = pieces.into_iter().partition(whole);
    whole.sort_by_key(|piece| Reverse(piece.range.len()));
    let (mut together, mut left) = (Vec::new(), &whole[..]);
    while let [longest, ..] = left {
        let alike = |piece: &&&Piece| 4 * piece.range.len() >= 3 * longest.range.len();
        let (run, shorter) = left.split_at(left.iter().take_while(alike).count());
        match run {
            [piece] => alone.push(piece),
            _ => together.push(run.to_vec()),
        }
        left = shorter;
    }
    (together, alone)
}

/// A cache for one such run. Nothing is ever added to what the run leaves in it.
pub(crate) fn empty(kind: CacheKind, config: &ModelConfig) -> Cache {
    match kind {
        CacheKind::Prealloc => {
            let layer = |_| -> Box<dyn KvCache> { Box::new(AsTheyCame::default()) };
            Cache::new(layer_kinds(kind, config).map(layer).collect())
        }
        _ => empty_cache(kind, config),
    }
}

/// Keys and values of one run, without a copy and without room for more.
#[derive(Debug, Default)]
struct AsTheyCame(Option<KeysValues>);

impl KvCache for AsTheyCame {
    fn update_and_fetch(&mut self, keys: Array, values: Array) -> Result<(Array, Array)> {
        ensure!(self.0.is_none(), "a run of whole prompts is the only one");
        self.0 = Some(KeysValues::of(&keys, &values));
        Ok((keys, values))
    }

    fn offset(&self) -> i32 {
        self.0.as_ref().map_or(0, KeysValues::len)
    }

    fn arrays(&self) -> Vec<&Array> {
        self.0.iter().flat_map(KeysValues::arrays).collect()
    }

    fn trim(&mut self, _: i32) -> Result<()> {
        bail!("what whole prompts left is only copied")
    }
}

/// The scores of the token after each prompt `[B, V]`. The cache, [`empty`] before, then has a row for each, as long as
/// the longest.
///
/// What fills up the shorter ones comes behind their tokens, and attention only looks back.
pub(crate) fn next_logits(model: &Model, prompts: &[&[u32]], cache: &mut Cache) -> Result<Array> {
    let longest = prompts.iter().map(|ids| ids.len()).max();
    let longest = longest.context("no prompt to run")?;
    let filled = prompts.iter().flat_map(|ids| {
        let filling = iter::repeat_n(0, longest - ids.len());
        ids.iter().copied().chain(filling)
    });
    let ids = ids_array(&filled.collect::<Vec<u32>>());
    let ids = ids.reshape(&[prompts.len() as i32, longest as i32])?;
    let hidden = model.hidden(&ids, cache)?; // [B, L, E]
    let place = |(row, ids): (usize, &&[u32])| (row * longest + ids.len() - 1) as i32;
    let places: Vec<i32> = prompts.iter().enumerate().map(place).collect();
    scores(model, &hidden, &places)
}

/// The scores after some positions of `hidden` `[B, L, E]`, which are counted row by row: `[N, V]`.
///
/// # Cost
/// The head is as wide as the vocabulary, so nothing is scored that nobody asks for.
pub(crate) fn scores(model: &Model, hidden: &Array, places: &[i32]) -> Result<Array> {
    let size = hidden.dim(2);
    let mut rows = hidden.reshape(&[-1, size])?;
    if places.len() < rows.dim(0) as usize {
        let places = Array::from_slice(places, &[places.len() as i32]);
        rows = rows.take_axis(&places, 0)?; // [N, E]
    }
    let logits = model.logits(&rows.reshape(&[1, -1, size])?)?; // [1, N, V]
    Ok(logits.squeeze_axes(&[0])?)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use shared::testing::fixtures;

    use super::*;
    use crate::plan::{SequenceId, Why};

    #[allow(clippy::unwrap_used)]
    fn config(sliding_window: Option<usize>) -> ModelConfig {
        let mut config = fixtures::checkpoint("llama").unwrap().config;
        config.sliding_window.fill(sliding_window);
        config
    }

    fn piece(id: u64, range: Range<usize>, last: bool) -> Piece {
        let (id, why) = (SequenceId(id), Why::Prompt);
        Piece {
            id,
            range,
            last,
            why,
        }
    }

    fn ids(pieces: &[&Piece]) -> Vec<u64> {
        pieces.iter().map(|piece| piece.id.0).collect()
    }

    #[test]
    fn whole_prompts_of_about_one_length_share_a_run() {
        let lengths = [40, 9, 30, 29, 10, 100];
        let pieces: Vec<Piece> = (0..)
            .zip(lengths)
            .map(|(id, n)| piece(id, 0..n, true))
            .collect();
        let config = config(None);
        let (together, alone) = runs(CacheKind::Prealloc, &config, pieces.iter().collect());
        let together: Vec<_> = together.iter().map(|run| ids(run)).collect();
        assert_eq!(together, [vec![0, 2], vec![4, 1]]);
        assert_eq!(ids(&alone), [5, 3]);
    }

    #[test]
    fn a_part_of_a_prompt_has_a_run_of_its_own() {
        let pieces = [
            piece(0, 0..16, false),
            piece(1, 16..32, true),
            piece(2, 0..16, true),
        ];
        let config = config(None);
        let (together, alone) = runs(CacheKind::Prealloc, &config, pieces.iter().collect());
        assert!(together.is_empty());
        assert_eq!(ids(&alone), [0, 1, 2]);
    }

    #[test]
    fn so_has_a_prompt_whose_cache_forgets() {
        let pieces = [piece(0, 0..16, true), piece(1, 0..16, true)];
        let kind = CacheKind::Rotating { size: 8, sinks: 0 };
        let together = |kind, window| {
            let config = config(window);
            runs(kind, &config, pieces.iter().collect()).0.len()
        };
        assert_eq!(together(kind, None), 0);
        assert_eq!(
            together(CacheKind::Prealloc, Some(4)),
            1,
            "a mask is all that forgets there"
        );
    }
}
