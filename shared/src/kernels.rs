//! The one door for products that are not MLX's own.
//!
//! A layer asks here first and takes MLX's operation if there is no answer. What is behind the door
//! (which device, which types, which sizes) is nobody else's business.

mod one_row;

use anyhow::Result;
use mlx_rs::Array;

use crate::weights::Matrix;

/// `x Wᵀ` by a kernel of this project: x `[…, in]` → `[…, out]`. None where MLX's own operation is to
/// be taken, which is everywhere but on an NVIDIA GPU.
///
/// # Errors
/// If MLX refuses the launch.
pub fn product(x: &Array, matrix: &Matrix) -> Result<Option<Array>> {
    match matrix {
        Matrix::Quantized(packed) => one_row::product(x, packed),
        Matrix::Dense(_) => Ok(None),
    }
}
