//! Products with a matrix of weights, dense or packed: what a decoder spends its time on.

use anyhow::Result;
use mlx_rs::{Array, ops};

use crate::kernels;
use crate::weights::{Matrix, QuantizedTriple};

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
