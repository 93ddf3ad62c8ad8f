//! The one door for products that are not MLX's own.
//!
//! A layer asks here first and takes MLX's operation if there is no answer. What is behind the door
//! (which device, which types, which sizes) is nobody else's business.

pub(crate) mod cpu;
mod one_row;
mod rows_together;

use anyhow::Result;
use mlx_rs::Array;

use crate::weights::Matrix;

/// `x Wᵀ + b` by a kernel of this project: x `[…, in]` → `[…, out]`, with b `[out]` if there is one. None
/// where MLX's own operation is to be taken.
///
/// # Errors
/// If MLX refuses the launch, or if x cannot be computed.
pub fn product(x: &Array, matrix: &Matrix, bias: Option<&Array>) -> Result<Option<Array>> {
    if cpu::is_on() {
        return cpu::product(x, matrix, bias);
    }
    let Matrix::Quantized(packed) = matrix else {
        return Ok(None);
    };
    let product = match one_row::product(x, packed)? {
        None => rows_together::product(x, packed)?,
        product => product,
    };
    Ok(match (product, bias) {
        (Some(product), Some(bias)) => Some(product.add(bias)?),
        (product, _) => product,
    })
}

/// The rows of `ids` `[B, L]` as numbers, `[B, L, in]`. None where MLX's own operation is to be taken.
///
/// # Errors
/// If an id is beyond the last row.
pub fn rows(matrix: &Matrix, ids: &Array) -> Result<Option<Array>> {
    if cpu::is_on() {
        return cpu::rows(matrix, ids);
    }
    Ok(None)
}

/// Whose loops multiply on this device, for the card.
pub fn describe(backend: &str) -> String {
    if cpu::is_on() {
        return cpu::describe();
    }
    let own = match backend {
        "cuda" => ", own kernel for one row of 4 bits",
        _ => "",
    };
    format!("MLX ({backend}){own}")
}

/// How many steps may be on their way before the first one is read: two where a device works beside the
/// host, one where the host is what works.
pub fn steps_in_flight() -> usize {
    if cpu::is_on() { 1 } else { 2 }
}

/// Whether each row of a product has the same bits alone and among any others. Elsewhere the kernels change with
/// the number of rows.
///
/// Matrices of mxfp8, and of nvfp4 with a scale for the whole matrix, are an exception: a few rows are multiplied by
/// MLX's loops and many by this project's, which add up in another order.
pub fn rows_have_equal_bits() -> bool {
    cpu::is_on()
}

/// Runs `work` with MLX's own operations, as `SHARED_KERNELS=mlx` does for a whole process.
#[cfg(feature = "testing")]
pub fn with_mlx<T>(work: impl FnOnce() -> T) -> T {
    cpu::without(work)
}
