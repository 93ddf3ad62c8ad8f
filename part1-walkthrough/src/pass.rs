//! One pass over the tokens: the order in which every family's pieces are put together.
//!
//! Text in, one score for each token of the vocabulary out, and nothing on the way is thrown away.
//! This is what a later part does in one call of `Model::forward`.

use anyhow::{Context, Result};
use mlx_rs::{Array, ops};
use shared::layers::ids_array;

use crate::attend;
use crate::block::BlockPass;
use crate::clock::Clock;
use crate::decoder::{Decoder, Embedded, Part};
use crate::trace::WhatIf;

/// Everything that one pass over the tokens computed, by name.
#[derive(Debug)]
pub struct Pass {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Their vectors.
    pub embedded: Embedded,
    /// What enters the first layer, `[1, L, E]`.
    pub stream: Array,
    /// One per layer.
    pub blocks: Vec<BlockPass>,
}

impl Pass {
    /// Runs the model over `ids`, with something left out if `switch` says so.
    pub fn run(decoder: &dyn Decoder, ids: &[u32], switch: Option<WhatIf>) -> Result<Self> {
        Self::timed(decoder, ids, switch, &mut Clock::stopped())
    }

    /// [`Pass::run`] with a stopwatch: `clock` is told after each part, and waits for it to be
    /// computed.
    pub fn timed(
        decoder: &dyn Decoder,
        ids: &[u32],
        switch: Option<WhatIf>,
        clock: &mut Clock,
    ) -> Result<Self> {
        let embedded = decoder.embed(&ids_array(ids))?;
        let stream = match (&embedded.positions, switch) {
            (None, _) | (_, Some(WhatIf::NoPositions)) => embedded.tokens.clone(),
            (Some(positions), _) => embedded.tokens.add(positions)?,
        };
        clock.lap(Part::Embedding, &[&stream])?;
        let mut blocks: Vec<BlockPass> = Vec::new();
        for layer in 0..decoder.facts().layers {
            let x = blocks.last().map_or(&stream, |block| &block.output);
            let block = attend::block(decoder, layer, x, switch, clock)
                .with_context(|| format!("in layer {layer}"))?;
            blocks.push(block);
        }
        Ok(Self {
            ids: ids.to_vec(),
            embedded,
            stream,
            blocks,
        })
    }

    /// L, the number of tokens.
    pub fn length(&self) -> usize {
        self.ids.len()
    }

    /// The residual stream `[1, L, E]` behind `blocks` blocks; behind 0 of them it is the
    /// embedding.
    pub fn stream_after(&self, blocks: usize) -> &Array {
        match blocks {
            0 => &self.stream,
            n => &self.blocks[n - 1].output,
        }
    }

    /// The scores for the token after the last one, `[1, V]`.
    pub fn next_logits(&self, decoder: &dyn Decoder) -> Result<Array> {
        let last = last_position(self.stream_after(self.blocks.len()))?; // [1, 1, E]
        let logits = decoder.head(&decoder.final_norm(&last)?)?; // [1, 1, V]
        Ok(logits.squeeze_axes(&[1])?)
    }
}

/// x `[1, L, E]` → `[1, 1, E]`.
fn last_position(x: &Array) -> Result<Array> {
    ops::split_at_indices(x, &[x.dim(1) - 1], 1)?
        .pop()
        .context("no tokens to continue")
}
