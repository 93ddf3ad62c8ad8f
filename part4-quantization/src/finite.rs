//! What no code can stand for is refused before anything is packed.

use anyhow::{Result, bail};

/// Refuses rows, from `first_row` on, with a number that is not finite, or so large that the distance of two
/// would not be.
///
/// # Errors
/// With its place.
pub fn check_finite(values: &[f32], first_row: usize, columns: usize) -> Result<()> {
    let usable = |value: &f32| value.abs() <= f32::MAX / 2.0; // not so for NaN
    let Some(at) = values.iter().position(|value| !usable(value)) else {
        return Ok(());
    };
    bail!(
        "row {}, column {} is {}, which no grid can hold: the checkpoint is damaged, or its type was too \
         narrow for it",
        first_row + at / columns,
        at % columns,
        values[at]
    )
}
