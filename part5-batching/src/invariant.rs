//! When an answer has the same bits whatever the schedule: alone, in any batch, after preemption, however its
//! prompt was cut.
//!
//! What could differ is the order in which the terms of a sum are added. A BLAS, and a GPU, choose it by the
//! number of rows. The loops that this project has for a CPU do not. Each request draws from a random stream of
//! its own, so that sampling cannot differ either.

use anyhow::{Result, bail, ensure};
use shared::config::{Mode, ModelConfig};
use shared::kernels::rows_have_equal_bits;

use crate::kinds::CacheKind;

/// Refuses weights that are multiplied in another order in a long piece of a prompt than in a short one.
///
/// # Errors
/// If any of them are in a float mode.
pub fn check_weights(config: &ModelConfig) -> Result<()> {
    let quantization = config.quantization.iter();
    let float = quantization
        .flat_map(|q| q.overrides.values().flatten().chain([&q.default]))
        .find(|group| group.mode != Mode::Affine);
    if let Some(group) = float {
        bail!(
            "weights in {} are added up in an order that depends on the pieces of the prompt: take others for \
             --invariant",
            group.mode.name()
        );
    }
    Ok(())
}

/// Refuses what would let the schedule decide about a bit.
///
/// # Errors
/// If the device has no kernels that give the same bits for any number of rows, or if the cache depends on how a
/// prompt is cut.
pub fn check(kind: CacheKind) -> Result<()> {
    ensure!(
        rows_have_equal_bits(),
        "on this device the kernels change with the number of rows, and so do the bits of an answer: take \
         the CPU for --invariant"
    );
    ensure!(
        !matches!(kind, CacheKind::Rotating { .. }),
        "a rotating cache adds up in an order that depends on the pieces of the prompt: take another one for \
         --invariant"
    );
    Ok(())
}
