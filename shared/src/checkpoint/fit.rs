//! Whether a model has room in the memory of a machine.

use anyhow::{Result, ensure};

use super::Checkpoint;
use console::numbers::{count, decimal};

/// For the program, and for what a step computes on the way.
const MARGIN: u64 = 256_000_000;

impl Checkpoint {
    /// Refuses a model that cannot fit, before it drives the machine into swap.
    ///
    /// Counted: the weights, keys and values for `positions`, and 256 MB for the program and for
    /// what a step computes on the way.
    ///
    /// Compared with all memory of the machine, not with what is free: other programs can go, files that
    /// the system keeps in memory do, and what counts as free differs by system. See
    /// [`crowded`](Self::crowded) for that.
    ///
    /// # Errors
    /// If more memory is needed than there is: with the numbers and a way to go on.
    pub fn check_fit(&self, positions: usize, ram_bytes: u64) -> Result<()> {
        let weights = self.weight_bytes();
        let kv = self
            .config
            .kv_bytes_per_token(self.activation_bytes())
            .saturating_mul(positions as u64);
        let needed = weights.saturating_add(kv).saturating_add(MARGIN);
        let (for_positions, or_shorter) = if positions == 0 {
            (String::new(), "")
        } else {
            let positions = count(positions as u64);
            let text = format!(" and {} for {positions} positions", decimal(kv));
            (text, ", or a shorter prompt with a smaller --max-tokens")
        };
        ensure!(
            needed <= ram_bytes,
            "{} needs {}, {} for the weights{for_positions}, but this machine has {}; take a smaller or \
             quantized model{or_shorter}",
            self.name,
            decimal(needed),
            decimal(weights),
            decimal(ram_bytes)
        );
        Ok(())
    }

    /// A line for a machine that has the memory for the weights, but not at the moment: `available` is
    /// what it could give without swapping. No refusal: the system may know better, and swap may do.
    pub fn crowded(&self, available: u64) -> Option<String> {
        let needed = self.weight_bytes().saturating_add(MARGIN);
        (needed > available).then(|| {
            format!(
                "{} needs {}, but other programs leave {} of this machine's memory: close some, or it \
                 may be slow or be ended by the system",
                self.name,
                decimal(needed),
                decimal(available)
            )
        })
    }
}
