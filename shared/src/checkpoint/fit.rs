//! Whether a model has room in the memory of a machine.

use anyhow::{Result, ensure};

use super::Checkpoint;
use console::numbers::{binary, count};

impl Checkpoint {
    /// Refuses a model that cannot fit, before it drives the machine into swap.
    ///
    /// Counted: the weights, keys and values for `positions`, and 256 MiB for the program and for
    /// what a step computes on the way.
    ///
    /// # Errors
    /// If more memory is needed than there is: with the numbers and a way to go on.
    pub fn check_fit(&self, positions: usize, ram_bytes: u64) -> Result<()> {
        const MARGIN: u64 = 256 << 20;
        let weights = self.weight_bytes();
        let kv = self
            .config
            .kv_bytes_per_token(self.activation_bytes())
            .saturating_mul(positions as u64);
        let needed = weights.saturating_add(kv).saturating_add(MARGIN);
        ensure!(
            needed <= ram_bytes,
            "{} needs {}, {} for the weights and {} for {} positions, but this machine has {}; take a \
             smaller or quantized model, or a shorter prompt with a smaller --max-tokens",
            self.name,
            binary(needed),
            binary(weights),
            binary(kv),
            count(positions as u64),
            binary(ram_bytes)
        );
        Ok(())
    }
}
