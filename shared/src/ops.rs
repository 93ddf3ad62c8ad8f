//! MLX's operations that a model calls between its layers.
//!
//! Under the names that MLX has for them, and on a GPU nothing else. On a CPU a step is hundreds of
//! operations on a few hundred numbers each, which are done on the host, where they are.

use anyhow::Result;
pub use mlx_rs::ops::split_at_indices;
use mlx_rs::{Array, fast};

pub use crate::ffi::slices::{Places, slice_update, slice_update_at};
use crate::kernels::cpu;
use crate::layers::Mask;

/// `a + b`, number by number.
pub fn add(a: &Array, b: &Array) -> Result<Array> {
    match cpu::add(a, b)? {
        Some(sum) => Ok(sum),
        None => Ok(a.add(b)?),
    }
}

/// The same numbers in another shape; one size may be −1, which is what is left.
pub fn reshape(x: &Array, shape: &[i32]) -> Result<Array> {
    match cpu::reshape(x, shape)? {
        Some(reshaped) => Ok(reshaped),
        None => Ok(x.reshape(shape)?),
    }
}

/// The axes in another order: axis i of the result is axis `axes[i]` of x.
pub fn transpose_axes(x: &Array, axes: &[i32]) -> Result<Array> {
    match cpu::transpose(x, axes)? {
        Some(transposed) => Ok(transposed),
        None => Ok(x.transpose_axes(axes)?),
    }
}

/// `softmax(scale · q kᵀ + mask) v`: q `[B, H, L, D]`; k, v `[B, Hkv, S, D]` → `[B, H, L, D]`.
pub fn scaled_dot_product_attention(
    q: &Array,
    k: &Array,
    v: &Array,
    scale: f32,
    mask: &Mask,
) -> Result<Array> {
    match cpu::attention(q, k, v, scale, mask)? {
        Some(output) => Ok(output),
        None => Ok(fast::scaled_dot_product_attention(
            q,
            k,
            v,
            scale,
            mask.as_sdpa(),
            None,
        )?),
    }
}
