//! When an answer has the same bits whatever the schedule: alone, in any batch, after preemption, however its
//! prompt was cut.
//!
//! What could differ is the order in which the terms of a sum are added. A BLAS, and a GPU, choose it by the
//! number of rows. The loops that this project has for a CPU do not, up to a number of rows: so rows and pieces
//! stay below it. Each request draws from a random stream of its own, so that sampling cannot differ either.

use anyhow::{Context, Result, ensure};
use shared::kernels::rows_of_equal_bits;

use crate::kinds::CacheKind;
use crate::scheduler::Limits;

/// Refuses what would let the schedule decide about a bit.
///
/// # Errors
/// If the device has no kernels that give the same bits for any number of rows, or if the limits go beyond those
/// that it has.
pub fn check(kind: CacheKind, limits: &Limits) -> Result<()> {
    let most = rows_of_equal_bits().context(
        "on this device the kernels change with the number of rows, and so do the bits of an answer: take \
         the CPU for --invariant",
    )?;
    let Limits { rows, piece, .. } = *limits;
    ensure!(
        rows <= most && piece <= most,
        "up to {most} rows give the same bits, not {rows} rows and pieces of {piece} tokens: take fewer for \
         --invariant"
    );
    ensure!(
        !matches!(kind, CacheKind::Rotating { .. }),
        "a rotating cache adds up in an order that depends on the pieces of the prompt: take another one for \
         --invariant"
    );
    Ok(())
}
