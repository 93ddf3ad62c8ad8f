//! When an answer has the same bits whatever the schedule: alone, in any batch, after preemption, however its
//! prompt was cut.
//!
//! What could differ is the order in which the terms of a sum are added. A BLAS, and a GPU, choose it by the
//! number of rows. The loops that this project has for a CPU do not. Each request draws from a random stream of
//! its own, so that sampling cannot differ either.

use anyhow::{Result, ensure};
use shared::kernels::rows_have_equal_bits;

use crate::kinds::CacheKind;

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
