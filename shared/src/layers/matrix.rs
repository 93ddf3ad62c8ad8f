//! Products with a matrix of weights, dense or packed: what a decoder spends its time on.

use anyhow::Result;
use mlx_rs::{Array, Dtype, ops};

use crate::kernels;
use crate::machine::on_gpu;
use crate::weights::{Matrix, QuantizedTriple, Rows};

impl Matrix {
    /// `x Wᵀ`: x `[…, in]` → `[…, out]`.
    ///
    /// # Cost
    /// Reads the whole matrix, whatever the number of rows of x: with one row, no number is used
    /// twice, and the time is that of reading.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        if let Some(product) = kernels::product(x, self)? {
            return Ok(product);
        }
        Ok(match self {
            Self::Dense(transposed) => ops::matmul(x, transposed)?,
            Self::Quantized(q) => ops::quantized_matmul(
                x,
                &q.weight,
                &q.scales,
                &q.biases,
                true,
                q.group_size,
                q.bits,
            )?,
        })
    }

    /// The rows of `ids` as floats: `[B, L]` → `[B, L, in]`. Of a packed matrix only these rows are
    /// unpacked.
    pub(super) fn rows(&self, ids: &Array) -> Result<Array> {
        Ok(match self {
            Self::Dense(transposed) => transposed.t().take_axis(ids, 0)?,
            Self::Quantized(q) => ops::dequantize(
                q.weight.take_axis(ids, 0)?,
                q.scales.take_axis(ids, 0)?,
                &q.biases.take_axis(ids, 0)?,
                q.group_size,
                q.bits,
            )?,
        })
    }

    /// All of it as floats `[out, in]`.
    pub(super) fn dense(&self) -> Result<Array> {
        Ok(match self {
            Self::Dense(transposed) => transposed.t(),
            Self::Quantized(q) => {
                ops::dequantize(&q.weight, &q.scales, &q.biases, q.group_size, q.bits)?
            }
        })
    }

    /// The rows of all parts, one below the other; None if they are stored in different ways.
    ///
    /// Evaluated: while a model is loaded, each layer's parts are freed before the next layer is
    /// joined, so the peak is one layer and not twice the model.
    pub(super) fn join(parts: &[&Self]) -> Result<Option<Self>> {
        match parts {
            [Self::Dense(first), ..] => {
                let joined = join_rows(parts, |part| match part {
                    Self::Dense(t) if t.dtype() == first.dtype() => Some(t.t()),
                    _ => None,
                })?;
                Ok(joined.map(|weight| Self::Dense(weight.t())))
            }
            [Self::Quantized(first), ..] => {
                let join = |array: fn(&QuantizedTriple) -> &Array| {
                    join_rows(parts, |part| match part {
                        Self::Quantized(q) if q.is_packed_like(first) => Some(array(q).clone()),
                        _ => None,
                    })
                };
                let (weight, scales) = (join(|q| &q.weight)?, join(|q| &q.scales)?);
                let arrays = weight.zip(scales).zip(join(|q| &q.biases)?);
                Ok(arrays.map(|((weight, scales), biases)| {
                    Self::Quantized(QuantizedTriple {
                        weight,
                        scales,
                        biases,
                        ..*first
                    })
                }))
            }
            [] => Ok(None),
        }
    }

    /// Laid out for products with as many rows as `rows` says, where that differs: on the CPU, in f32,
    /// if the matrix is wide.
    ///
    /// For one row BLAS either takes a dot product with each row of `[out, in]` or adds up the rows
    /// of `[in, out]`. If the matrix is wide, the dot products are short and the sums are long, and
    /// the sums read memory faster. GPUs have kernels for both layouts.
    ///
    /// # Cost
    /// A copy of the matrix while it is loaded. For several rows at once it is the slower layout.
    pub(super) fn arranged(self, rows: Rows) -> Result<Self> {
        Ok(match self {
            Self::Dense(view) if rows == Rows::One && is_wide(&view) && is_for_blas(&view) => {
                let copy = view.contiguous()?;
                copy.eval()?; // else the first layout would stay in memory until the first token
                Self::Dense(copy)
            }
            matrix => matrix,
        })
    }
}

/// Whether `[in, out]` has at least twice as many columns as rows.
fn is_wide(view: &Array) -> bool {
    view.dim(1) >= 2 * view.dim(0)
}

/// Whether MLX gives products with `array` to BLAS: only on the CPU, and there only f32 is for BLAS.
fn is_for_blas(array: &Array) -> bool {
    !on_gpu() && array.dtype() == Dtype::Float32
}

/// One array of each part, one below the other; None if a part has none that fits.
fn join_rows(parts: &[&Matrix], array: impl Fn(&Matrix) -> Option<Array>) -> Result<Option<Array>> {
    let arrays: Option<Vec<Array>> = parts.iter().map(|part| array(part)).collect();
    let Some(arrays) = arrays else {
        return Ok(None);
    };
    let joined = ops::concatenate(&arrays.iter().collect::<Vec<_>>(), 0)?;
    joined.eval()?; // else the parts would stay in memory until the first token
    Ok(Some(joined))
}
