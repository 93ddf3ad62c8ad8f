//! Keys and values of beginnings of prompts: out of caches into the tree, and out of the tree into caches.
//!
//! Where a cache stores all positions, each block of the tree has those of its tokens. A window that forgets cannot be
//! put together out of blocks: there the tree has checkpoints, whole windows as they were at the end of a block. A prompt
//! leaves one near its end, for the next turn of its chat, and one where it leaves the way of an earlier prompt, for the
//! third that begins so: what two have in common is often what an application always begins with.

use std::ops::Range;

use anyhow::{Context, Result};
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, ops, transforms};
use shared::config::ModelConfig;

use crate::cache::{Cache, KvCache};
use crate::generate::Generator;
use crate::keys_values::KeysValues;
use crate::kinds::{CacheKind, layer_kinds};
use crate::model::Model;
use crate::plan::SequenceId;
use crate::prealloc::Prealloc;
use crate::prefix::{BLOCK, Missed, Pin, Prefixes};
use crate::quantized_cache::QuantizedCache;
use crate::rotating::Rotating;
use crate::sequence::Sequence;

/// What is kept of prompts that ran.
///
/// # Cost
/// A row that begins with what is known copies it, once, and so does whoever makes it known. Attention that follows a
/// table of blocks (vLLM) shares them without a copy.
#[derive(Debug)]
pub struct Known {
    /// Of a block the arrays of all layers as one `[layers, Hkv, BLOCK, …]`: keys and values, or what they are packed
    /// to. Of a checkpoint keys and values of each layer, one after the other.
    pub(crate) tree: Prefixes<Vec<Array>>,
    kinds: Vec<CacheKind>,
    /// Whether there is room for anything.
    keeps: bool,
}

/// How a prompt begins.
#[derive(Debug, Default)]
pub struct Beginning {
    /// As if the first tokens had just run.
    pub cache: Option<Cache>,
    /// Keeps what it was made of in memory, for whoever comes next.
    pub pin: Pin,
    /// Why there are not more of them.
    pub missed: Option<Missed>,
    /// So many tokens are those of an earlier prompt, and where they end there is no checkpoint.
    pub fork: Option<usize>,
}

impl Known {
    /// Nothing, and never more than so many bytes.
    pub fn new(kind: CacheKind, config: &ModelConfig, budget: u64) -> Self {
        Self {
            tree: Prefixes::new(budget),
            kinds: layer_kinds(kind, config).collect(),
            keeps: budget > 0,
        }
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> u64 {
        self.tree.bytes()
    }

    /// What is known of these tokens, except for the last one: its scores are not in a cache, so it has to run.
    pub fn find(&mut self, ids: &[u32]) -> Result<Beginning> {
        let found = self.tree.find(&ids[..ids.len().saturating_sub(1)]);
        let cache = if self.forgets() {
            let last = found.values.iter().rposition(Option::is_some);
            let last = last.and_then(|at| Some((at + 1, found.values.get(at)?.as_ref()?)));
            let restored = last.map(|(blocks, arrays)| self.restored(blocks, arrays));
            restored.transpose()?
        } else {
            let blocks: Vec<&Vec<Array>> = found.values.iter().flatten().collect();
            (!blocks.is_empty())
                .then(|| self.joined(&blocks))
                .transpose()?
        };
        let known = found.values.len() * BLOCK;
        let begun = cache.as_ref().map_or(0, |cache| cache.offset() as usize);
        Ok(Beginning {
            fork: (self.forgets() && known > begun).then_some(known),
            cache,
            pin: found.pin,
            missed: found.missed,
        })
    }

    /// The positions of these tokens are in a row of `arrays`, those of one layer after those of the other.
    pub fn keep(&mut self, ids: &[u32], by: u64, arrays: &[&Array], row: usize) -> Result<()> {
        if self.forgets() || !self.keeps {
            return Ok(()); // a window may have forgotten some of them
        }
        let (row, each) = (row as i32, arrays.len() / self.kinds.len().max(1));
        self.tree.insert(ids, by, |range| {
            let tokens = range.start as i32..range.end as i32;
            let of_row = |array: &&Array| array.try_index((row..row + 1, .., tokens.clone(), ..));
            let stacked = |at: usize| {
                let layers = arrays[at..].iter().step_by(each).map(of_row);
                let layers = layers.collect::<Result<Vec<_>, _>>()?;
                ops::concatenate(&layers.iter().collect::<Vec<_>>(), 0)
            };
            let stacked: Vec<Array> = (0..each).map(stacked).collect::<Result<_, _>>()?;
            let blocks = (0..range.len() / BLOCK).map(|block| {
                let from = (block * BLOCK) as i32;
                let cut = |array: &Array| {
                    // A copy: a view would keep all of the array in memory.
                    array
                        .try_index((.., .., from..from + BLOCK as i32, ..))?
                        .contiguous()
                };
                stacked.iter().map(cut).collect::<Result<Vec<_>, _>>()
            });
            measured(blocks.collect::<Result<_, _>>()?)
        })
    }

    /// Where in a piece of a prompt that ends with it a checkpoint is to be made, if there is need of any: as late as a
    /// longer prompt could go on from it.
    pub fn checkpoint(&self, start: usize, end: usize) -> Option<usize> {
        let border = end.saturating_sub(1) / BLOCK * BLOCK;
        let needed = self.forgets() && self.keeps;
        (needed && border > 0 && border >= start).then_some(border)
    }

    /// Runs a piece of a prompt before its last token, if there is any: up to where it leaves the way of an earlier
    /// prompt, which gets a checkpoint, and then the rest.
    ///
    /// # Cost
    /// One more run of the model for such a prompt, and a copy of its window.
    pub fn prefill(
        &mut self,
        sequence: &mut Sequence,
        model: &Model,
        cache: &mut Cache,
        piece: Range<usize>,
    ) -> Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        let within = |fork: &usize| piece.start < *fork && *fork <= piece.end;
        let Some(fork) = sequence.fork.filter(within) else {
            return sequence.prefill(model, cache, piece);
        };
        sequence.prefill(model, cache, piece.start..fork)?;
        self.keep_checkpoint(&sequence.ids[..fork], sequence.by, cache)?;
        if fork < piece.end {
            sequence.prefill(model, cache, fork..piece.end)?;
        }
        Ok(())
    }

    /// The cache of exactly these tokens, which are whole blocks.
    pub fn keep_checkpoint(&mut self, ids: &[u32], by: u64, cache: &Cache) -> Result<()> {
        self.tree.insert(ids, by, |range| {
            let state = cache.state()?;
            let arrays = state.iter().flat_map(KeysValues::arrays);
            let arrays = arrays.map(Array::contiguous).collect::<Result<_, _>>()?;
            let [(last, bytes)] = &mut measured(vec![arrays])?[..] else {
                return Ok(Vec::new());
            };
            let blocks = range.len() / BLOCK;
            // Those before it only lead there.
            let mut values = vec![(None, 0); blocks - 1];
            values.push((last.take(), *bytes));
            Ok(values)
        })
    }

    fn forgets(&self) -> bool {
        let ring = |kind: &CacheKind| matches!(kind, CacheKind::Rotating { .. });
        self.kinds.iter().any(ring)
    }

    pub(crate) fn joined(&self, blocks: &[&Vec<Array>]) -> Result<Cache> {
        let each = blocks.first().map_or(0, |block| block.len());
        let whole = |at: usize| {
            let parts = blocks.iter().filter_map(|block| block.get(at));
            let whole = ops::concatenate(&parts.collect::<Vec<_>>(), 2)?; // [layers, Hkv, S, …]
            whole.split_equal(self.kinds.len() as i32, 0)
        };
        let whole: Vec<Vec<Array>> = (0..each).map(whole).collect::<Result<_, _>>()?;
        let layer = |(at, kind): (usize, &CacheKind)| {
            let arrays = whole.iter().filter_map(|layers| layers.get(at).cloned());
            restored(*kind, arrays.collect(), blocks.len() * BLOCK)
        };
        let layers = self.kinds.iter().enumerate().map(layer);
        Ok(Cache::new(layers.collect::<Result<_>>()?))
    }

    fn restored(&self, blocks: usize, arrays: &[Array]) -> Result<Cache> {
        let layers = self.kinds.iter().zip(arrays.chunks(2));
        let layers = layers.map(|(kind, pair)| restored(*kind, pair.to_vec(), blocks * BLOCK));
        Ok(Cache::new(layers.collect::<Result<_>>()?))
    }
}

impl Generator<'_> {
    /// Keeps keys and values for later prompts that begin in the same way, never more than so many bytes.
    pub fn remember(&mut self, bytes: u64) {
        self.known = Known::new(self.kind, self.config, bytes);
    }

    /// Those who get a row at the next step go on from what is known of their prompts.
    pub fn reuse(&mut self) -> Result<()> {
        for id in self.scheduler.next_in_line().collect::<Vec<_>>() {
            let sequence = self.sequences.get_mut(&id).context("nobody is next")?;
            // Since an earlier step, in which there was no room; or all of it has to run.
            if sequence.cache.is_some() || sequence.likely.of_prompt() {
                continue;
            }
            let beginning = self.known.find(&sequence.ids)?;
            (sequence.pin, sequence.missed) = (Some(beginning.pin), beginning.missed);
            sequence.fork = beginning.fork;
            if let Some(cache) = beginning.cache {
                self.resume(id, cache)?;
            }
        }
        Ok(())
    }

    /// An answer has ended, and a later prompt may begin with it.
    pub fn finish(&mut self, id: SequenceId) -> Result<()> {
        if let (Some(sequence), Some(row)) = (self.sequences.get(&id), self.batch.row(id)) {
            let arrays: Vec<&Array> = self.batch.cache().arrays().collect();
            // The last tokens may not have run, or one more for nothing.
            let run = self.batch.seen(row).min(sequence.ids.len() - 1);
            self.known
                .keep(&sequence.ids[..run], sequence.by, &arrays, row)?;
        }
        self.cancel(id)
    }

    /// What is kept for later prompts.
    pub fn known(&self) -> &Known {
        &self.known
    }
}

/// The cache of one layer that stores these arrays after so many positions.
fn restored(kind: CacheKind, arrays: Vec<Array>, offset: usize) -> Result<Box<dyn KvCache>> {
    let mut layer: Box<dyn KvCache> = match kind {
        CacheKind::Prealloc => Box::new(Prealloc::default()),
        CacheKind::Rotating { size, sinks } => Box::new(Rotating::new(size, sinks)),
        CacheKind::Quantized(bits) => {
            return Ok(Box::new(QuantizedCache::packed(
                bits,
                arrays,
                offset as i32,
            )));
        }
    };
    let [keys, values] = &arrays[..] else {
        anyhow::bail!("{} arrays are no keys and values", arrays.len());
    };
    layer.restore(KeysValues::of(keys, values), offset as i32)?;
    Ok(layer)
}

/// Computed now, so that nothing else of what they are made of stays in memory; each with its bytes.
fn measured(values: Vec<Vec<Array>>) -> Result<Vec<(Option<Vec<Array>>, u64)>> {
    transforms::eval(values.iter().flatten()).context("keeping the beginning of a prompt")?;
    let bytes = |arrays: &Vec<Array>| arrays.iter().map(|array| array.nbytes() as u64).sum();
    Ok(values
        .into_iter()
        .map(|value| (Some(value.clone()), bytes(&value)))
        .collect())
}
