//! Which part of a pass takes how long.

use std::time::Instant;

use anyhow::Result;
use mlx_rs::Array;

use crate::decoder::Part;

/// Microseconds per part.
#[derive(Debug)]
pub struct Clock {
    since: Option<Instant>,
    micros: [f64; Part::ALL.len()],
}

impl Clock {
    /// A clock that measures nothing, and so never waits.
    pub fn stopped() -> Self {
        Self {
            since: None,
            micros: [0.0; Part::ALL.len()],
        }
    }

    /// A clock that runs from now on.
    pub fn running() -> Self {
        Self {
            since: Some(Instant::now()),
            ..Self::stopped()
        }
    }

    /// Gives the time since the last call to `part`.
    pub fn lap(&mut self, part: Part, arrays: &[&Array]) -> Result<()> {
        let Some(since) = self.since else {
            return Ok(());
        };
        // MLX computes nothing until it is asked: without this all the time would be the last
        // part's.
        mlx_rs::transforms::eval(arrays.iter().copied())?;
        self.micros[part as usize] += since.elapsed().as_secs_f64() * 1e6;
        self.since = Some(Instant::now());
        Ok(())
    }

    /// What was measured for `part`.
    pub fn micros(&self, part: Part) -> f64 {
        self.micros[part as usize]
    }
}
