//! Several rows times a packed matrix on an NVIDIA GPU.
//!
//! MLX's CUDA build takes x `[B, 1, K]`, which is a decode step of B rows, as B products of one row, each of which
//! reads the whole matrix. The same numbers as `[1, B, K]` are one product that reads it once for all
//! (results/NOTES.md). On a Mac, MLX lays rows together itself.

use anyhow::{Context, Result};
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, ops};

use super::one_row;
use crate::weights::QuantizedTriple;

/// From so many rows on MLX reads the matrix once for all of them.
const TOGETHER: i32 = 8;

/// So few rows go one by one: filling them up would cost as much as it saves.
const ONE_BY_ONE: i32 = 2;

/// x `[…, K]` of several rows times packed `[N, K]` → `[…, N]`. None where MLX's own operation is to be taken.
///
/// # Errors
/// If the parts of the matrix do not fit each other or x.
pub(super) fn product(x: &Array, matrix: &QuantizedTriple) -> Result<Option<Array>> {
    if !one_row::is_available() || x.size() == x.dim(-1) as usize {
        return Ok(None);
    }
    product_of(x, matrix).map(Some)
}

fn product_of(x: &Array, matrix: &QuantizedTriple) -> Result<Array> {
    let (columns, leading) = x.shape().split_last().context("a row without numbers")?;
    let rows: i32 = leading.iter().product();
    let mut together = x.reshape(&[1, rows, *columns])?;
    let filled = ONE_BY_ONE < rows && rows < TOGETHER;
    if filled {
        let zeros = ops::zeros_dtype(&[1, TOGETHER - rows, *columns], x.dtype())?;
        together = ops::concatenate(&[together, zeros], 1)?;
    }
    let mut product = matrix.product(&together)?; // [1, rows, N]
    if filled {
        product = product.try_index((.., 0..rows, ..))?;
    }
    let shape = [leading, &[product.dim(-1)]].concat();
    Ok(product.reshape(&shape)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::to_f32;
    use mlx_rs::{Dtype, random};

    fn normal(shape: &[i32], dtype: Dtype) -> Array {
        let key = random::key(3).unwrap();
        let numbers = random::normal::<f32>(shape, None, None, &key).unwrap();
        numbers.as_dtype(dtype).unwrap()
    }

    fn packed(bits: i32, dtype: Dtype) -> QuantizedTriple {
        let dense = normal(&[96, 128], dtype);
        let (weight, scales, biases) = ops::quantize(&dense, 64, bits).unwrap();
        QuantizedTriple::affine(weight, scales, biases, 64, bits)
    }

    /// On CUDA this compares two kernels of MLX, elsewhere it looks at the shapes.
    #[test]
    fn rows_that_are_laid_together_have_the_products_that_each_has_alone() {
        for (bits, dtype) in [
            (4, Dtype::Float32),
            (4, Dtype::Bfloat16),
            (8, Dtype::Float16),
        ] {
            let matrix = packed(bits, dtype);
            for shape in [
                vec![2, 1, 128],
                vec![5, 1, 128],
                vec![1, 7, 128],
                vec![64, 1, 128],
                vec![3, 9, 128],
            ] {
                let x = normal(&shape, dtype);
                let y = product_of(&x, &matrix).unwrap();
                assert_eq!(y.shape()[..shape.len() - 1], shape[..shape.len() - 1]);
                let one_by_one = x.reshape(&[-1, 1, 128]).unwrap();
                let expected = to_f32(&matrix.product(&one_by_one).unwrap()).unwrap();
                let rounding = match dtype {
                    Dtype::Bfloat16 => 1.0 / 128.0,
                    Dtype::Float16 => 1.0 / 1024.0,
                    _ => 1e-5,
                };
                for (y, expected) in to_f32(&y).unwrap().iter().zip(&expected) {
                    // One of the kernels rounds each number of the matrix to its type.
                    let allowed = rounding * (expected.abs() + 128_f32.sqrt());
                    assert!(
                        (y - expected).abs() <= allowed,
                        "{shape:?} {dtype:?}: {y}, not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn one_row_and_other_devices_are_left_to_mlx() {
        let matrix = packed(4, Dtype::Float32);
        let y = |rows| product(&normal(&[rows, 1, 128], Dtype::Float32), &matrix).unwrap();
        assert!(y(1).is_none());
        assert_eq!(y(2).is_some(), one_row::is_available());
    }
}
