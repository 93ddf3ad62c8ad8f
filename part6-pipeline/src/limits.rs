//! What the steps of a scheduler may use, checked before the first one.

use std::time::Duration;

use anyhow::{Result, ensure};

/// What the steps may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Requests that run at the same time.
    pub rows: usize,
    /// Tokens of one step, of all its rows. Many keep the arithmetic busy, few keep the gaps between the
    /// tokens of an answer short.
    pub tokens_per_step: usize,
    /// Tokens of one prompt in one step.
    pub piece: usize,
    /// Where a prompt may be cut: at multiples of this. What is kept for another prompt that begins in the same
    /// way is kept in such blocks, and so always ends where a piece may begin.
    pub block: usize,
    /// Positions whose keys and values may be in memory, of all rows.
    pub kv_tokens: usize,
    /// Who may join, and when.
    pub policy: Policy,
    /// What a row is promised of `kv_tokens`.
    pub memory: Memory,
    /// While answers are being decoded, one step in so many takes pieces of prompts along. 1: each step.
    pub decodes_per_piece: usize,
}

/// Who may join the rows that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nobody: all rows begin together, when the batch is full, and the next batch begins when the last one
    /// has ended. (Here a row that ended costs nothing. Where a batch is one rectangle, it runs to the end.)
    Static,
    /// Nobody either, but a batch also begins when its first request has waited this long.
    Dynamic {
        /// How long the first request of a batch waits for others.
        wait: Duration,
    },
    /// Anybody, at any step that has a row and memory.
    Continuous,
}

/// How memory is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// A row gets what it may ever need. Most answers end early, so that much stays unused.
    Reserve,
    /// A row gets what it needs now. When that is too much for all, the last arrival gives its memory back,
    /// waits, and is computed again.
    Preempt,
}

impl Limits {
    /// The most steps until a prompt is computed, from the one in which it is the oldest that has a row.
    ///
    /// All other rows may decode, and what they leave of a step is cut to whole blocks.
    pub fn prompt_steps(&self, tokens: usize) -> usize {
        let room = self.piece.min(self.tokens_per_step - (self.rows - 1));
        self.decodes_per_piece * tokens.div_ceil(room - room % self.block)
    }

    /// Refuses a request that could never run, not even alone.
    pub(crate) fn check_request(&self, prompt: usize, max_tokens: usize) -> Result<()> {
        ensure!(
            prompt > 0 && max_tokens > 0,
            "a request needs at least 1 token of prompt and 1 of answer"
        );
        let kv_tokens = self.kv_tokens;
        ensure!(
            prompt.saturating_add(max_tokens) <= kv_tokens,
            "{prompt} tokens of prompt and up to {max_tokens} of answer do not fit into memory for {kv_tokens} \
             positions: take a shorter prompt, fewer --max-tokens or more memory"
        );
        Ok(())
    }

    /// Refuses what no request could run with.
    pub(crate) fn check(&self) -> Result<()> {
        let Self {
            rows,
            tokens_per_step,
            piece,
            block,
            kv_tokens,
            ..
        } = *self;
        ensure!(rows > 0, "a step needs at least 1 row");
        ensure!(block > 0, "a block needs at least 1 token");
        ensure!(
            self.decodes_per_piece > 0,
            "a piece of a prompt is due every 0 steps: take 1 or more"
        );
        ensure!(
            piece >= block,
            "a piece of {piece} tokens is less than a block of {block}"
        );
        let least = block.saturating_add(rows - 1);
        ensure!(
            tokens_per_step >= least,
            "{tokens_per_step} tokens a step are too few: {rows} rows with blocks of {block} need {least}"
        );
        ensure!(
            kv_tokens > 1,
            "memory for {kv_tokens} positions is too little for any request"
        );
        Ok(())
    }
}
