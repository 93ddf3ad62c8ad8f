//! One step ahead of the host.
//!
//! Reading the ids would leave the device idle until the host has described the next step. So the next
//! step is described and started first, from ids that are still being computed, and only then does
//! the host read them: what the host does for a token (the graph, the text, the terminal) happens while
//! the device works. The cost: when an answer ends early, one step was started for nothing.

use std::collections::VecDeque;

use anyhow::{Context, Result};
use mlx_rs::transforms;
use shared::sampling::Choice;

use crate::generate::Stepped;
use crate::scheduler::SequenceId;

/// Steps that are being computed, in the order in which they were started.
#[derive(Debug, Default)]
pub struct Ahead {
    in_flight: VecDeque<Started>,
}

/// A step that was started.
#[derive(Debug)]
pub struct Started {
    /// What it runs; nobody has got anything yet.
    pub step: Stepped,
    /// The ids that it gives.
    pub rows: Vec<Row>,
}

/// The next id of one sequence.
#[derive(Debug)]
pub struct Row {
    /// Whose.
    pub id: SequenceId,
    /// The id, on the device.
    pub next: Choice,
    /// Positions that the step ran for it.
    pub positions: usize,
}

impl Ahead {
    /// Steps that were started and not read yet.
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The rows of the step that was started last.
    pub fn last(&self) -> Option<&[Row]> {
        Some(&self.in_flight.back()?.rows)
    }

    /// Starts to compute the ids of a step, without waiting for those before it.
    pub fn start(&mut self, step: Stepped, rows: Vec<Row>) -> Result<()> {
        // Not `eval`: the host has more to do.
        let started = transforms::async_eval(rows.iter().flat_map(|row| row.next.arrays()));
        self.in_flight.push_back(Started { step, rows });
        Ok(started?)
    }

    /// The oldest step in flight. Reading one of its ids waits for it.
    pub fn read(&mut self) -> Result<Started> {
        self.in_flight.pop_front().context("no step was started")
    }
}

/// A process that ends while MLX still works crashes now and then: whoever starts work waits for it.
impl Drop for Ahead {
    fn drop(&mut self) {
        for started in self.in_flight.drain(..) {
            // An error here belongs to a step that nobody will read.
            let _ = transforms::eval(started.rows.iter().flat_map(|row| row.next.arrays()));
        }
    }
}
