//! The flags of a scheduler, and what they mean as limits.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::kinds::CacheKind;
use crate::limits::{Limits, Memory, Policy};
use crate::quantized_cache::KvBits;

/// Who runs in a step, and with how much.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Scheduler")]
pub struct LimitArgs {
    /// Who may join: `continuous` at any step, `static` when the batch has ended, `dynamic` the same, but a batch
    /// that is not full begins after --wait
    #[arg(long, value_name = "POLICY", default_value = "continuous", value_enum)]
    #[arg(hide_possible_values = true)]
    pub policy: PolicyName,

    /// Milliseconds that the first request of a dynamic batch waits for others
    #[arg(long, value_name = "MS", default_value_t = 50)]
    pub wait: u64,

    /// Requests that run at the same time
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub rows: usize,

    /// Tokens of one step, answers and pieces of prompts together
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub tokens_per_step: usize,

    /// Tokens of one prompt in one step
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub piece: usize,

    /// Steps of which one takes pieces of prompts along while answers are decoded
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub decodes_per_piece: usize,

    /// Positions whose keys and values may be in memory, of all rows
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    pub kv_tokens: usize,

    /// What a row is promised of them: `preempt`: what it needs now, `reserve`: what it may ever need
    #[arg(long, value_name = "MEMORY", default_value = "preempt", value_enum)]
    #[arg(hide_possible_values = true)]
    pub memory: MemoryName,

    /// Keys and values in 8 bits
    #[arg(long)]
    pub kv_8bit: bool,

    /// Refuse what would let the schedule change a bit of an answer
    #[arg(long)]
    pub invariant: bool,
}

/// As in [`Policy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyName {
    /// [`Policy::Static`]
    Static,
    /// [`Policy::Dynamic`]
    Dynamic,
    /// [`Policy::Continuous`]
    Continuous,
}

/// As in [`Memory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MemoryName {
    /// [`Memory::Reserve`]
    Reserve,
    /// [`Memory::Preempt`]
    Preempt,
}

/// Where a prompt may be cut. A prefix that is found in a cache ends at such a border.
const BLOCK: usize = 16;

impl LimitArgs {
    /// As the scheduler takes them.
    ///
    /// # Errors
    /// If --invariant cannot be kept.
    pub fn limits(&self) -> Result<Limits> {
        if self.invariant {
            crate::invariant::check(self.kind())?;
        }
        Ok(Limits {
            rows: self.rows,
            tokens_per_step: self.tokens_per_step,
            piece: self.piece,
            block: BLOCK.min(self.piece),
            kv_tokens: self.kv_tokens,
            policy: match self.policy {
                PolicyName::Static => Policy::Static,
                PolicyName::Dynamic => Policy::Dynamic {
                    wait: Duration::from_millis(self.wait),
                },
                PolicyName::Continuous => Policy::Continuous,
            },
            memory: match self.memory {
                MemoryName::Reserve => Memory::Reserve,
                MemoryName::Preempt => Memory::Preempt,
            },
            decodes_per_piece: self.decodes_per_piece,
        })
    }

    /// How keys and values are stored.
    pub fn kind(&self) -> CacheKind {
        if self.kv_8bit {
            CacheKind::Quantized(KvBits { keys: 8, values: 8 })
        } else {
            CacheKind::Prealloc
        }
    }
}
