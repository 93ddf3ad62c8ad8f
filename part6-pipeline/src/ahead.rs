//! One step ahead of the host.
//!
//! Reading an id would leave the device idle until the host has described the next step. So the next
//! step is described and started first, from an id that is still being computed, and only then does
//! the host read it: what the host does for a token (the graph, the text, the terminal) happens while
//! the device works. The cost: when an answer ends early, one step was started for nothing.

use std::collections::VecDeque;

use anyhow::{Context, Result};
use mlx_rs::transforms;
use shared::sampling::Choice;

/// Ids that are being computed, in the order in which they were started.
#[derive(Debug, Default)]
pub struct Ahead {
    in_flight: VecDeque<Started>,
}

#[derive(Debug)]
struct Started {
    /// The id, on the device.
    next: Choice,
    /// Positions that its step ran.
    positions: usize,
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

    /// Starts to compute an id, without waiting for those before it.
    pub fn start(&mut self, next: Choice, positions: usize) -> Result<()> {
        // Not `eval`: the host has more to do.
        let started = transforms::async_eval(next.arrays());
        self.in_flight.push_back(Started { next, positions });
        Ok(started?)
    }

    /// Waits for the oldest id in flight; with it comes how many positions its step ran.
    pub fn read(&mut self) -> Result<(u32, usize)> {
        let oldest = self.in_flight.pop_front();
        let Started { next, positions } = oldest.context("no step was started")?;
        Ok((next.read()?, positions))
    }
}

/// A process that ends while MLX still works crashes now and then: whoever starts work waits for it.
impl Drop for Ahead {
    fn drop(&mut self) {
        for started in self.in_flight.drain(..) {
            // An error here belongs to a step that nobody will read.
            let _ = transforms::eval(started.next.arrays());
        }
    }
}
