//! Products with a matrix of weights, dense or packed: what a decoder spends its time on.

use std::ops::Range;

use anyhow::Result;
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype, ops};

use crate::config::GroupQuantization;
use crate::ffi::quantized::{GLOBAL_SCALE, Pieces, dequantize, quantized_matmul};
use crate::machine::on_gpu;
use crate::weights::{Dense, Matrix, QuantizedTriple};
use crate::{ffi, kernels};

impl Dense {
    /// The tensor `[out, in]` with its views.
    pub(crate) fn new(weight: Array) -> Result<Self> {
        let transposed = weight.t();
        let is_tried = !on_gpu() || ffi::cuda_is_available(); // not on a Mac
        Ok(Self {
            batch_of_one: is_tried.then(|| transposed.expand_dims(0)).transpose()?,
            transposed,
            weight,
        })
    }

    /// The view that x `[…, in]` is multiplied with.
    ///
    /// For x `[1, L, in]` MLX multiplies with `[1, in, out]` as it stands. With `[in, out]` it first
    /// makes a view `[L, in]` of x and afterwards one `[1, L, out]` of the product: two operations more
    /// for the host to describe and to run, in each product of a step.
    fn factor(&self, x: &Array) -> &Array {
        match (&self.batch_of_one, x.shape()) {
            (Some(view), [1, _, _]) => view,
            _ => &self.transposed,
        }
    }
}

impl QuantizedTriple {
    fn pieces(&self) -> Pieces<'_> {
        Pieces {
            weight: &self.weight,
            scales: &self.scales,
            biases: self.biases.as_ref(),
            group: GroupQuantization {
                group_size: self.group_size as usize,
                bits: self.bits as usize,
                mode: self.mode,
            },
        }
    }

    /// MLX's operation: x `[…, in]` → `[…, out]`.
    ///
    /// It knows of no global scale, which is multiplied into x: in f32, because without it the numbers of
    /// the matrix go up to 2688, and sums of them beyond the range of f16.
    pub(crate) fn product(&self, x: &Array) -> Result<Array> {
        let Some(scale) = &self.global_scale else {
            return quantized_matmul(x, &self.pieces());
        };
        let factor = scale.divide(Array::from_f32(GLOBAL_SCALE))?;
        let wide = x.as_dtype(Dtype::Float32)?.multiply(factor)?;
        Ok(quantized_matmul(&wide, &self.pieces())?.as_dtype(x.dtype())?)
    }

    /// `in`, the numbers of a row.
    pub(crate) fn columns(&self) -> usize {
        self.weight.dim(1) as usize * 32 / self.bits as usize
    }

    /// Some of its rows as numbers.
    pub(crate) fn unpack_rows(&self, rows: Range<usize>, dtype: Dtype) -> Result<Array> {
        let of = |array: &Array| array.try_index((rows.start as i32..rows.end as i32, ..));
        let biases = self.biases.as_ref().map(of).transpose()?;
        let (weight, scales) = (of(&self.weight)?, of(&self.scales)?);
        self.unpack(&weight, &scales, biases.as_ref(), dtype)
    }

    /// Rows of codes, with their scales and biases, as numbers.
    fn unpack(
        &self,
        weight: &Array,
        scales: &Array,
        biases: Option<&Array>,
        dtype: Dtype,
    ) -> Result<Array> {
        let rows = Pieces {
            weight,
            scales,
            biases,
            ..self.pieces()
        };
        dequantize(&rows, self.global_scale.as_ref(), Some(dtype))
    }
}

impl Matrix {
    /// `x Wᵀ`: x `[…, in]` → `[…, out]`.
    ///
    /// # Cost
    /// Reads the whole matrix, whatever the number of rows of x: with one row, no number is used
    /// twice, and the time is that of reading.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        self.forward_with(x, None)
    }

    /// `x Wᵀ + b`, b `[out]`.
    pub(super) fn forward_with(&self, x: &Array, bias: Option<&Array>) -> Result<Array> {
        if let Some(product) = kernels::product(x, self, bias)? {
            return Ok(product);
        }
        let product = match (self, bias) {
            // One operation instead of two, and the sum is rounded once.
            (Self::Dense(dense), Some(bias)) => {
                return Ok(ops::addmm(bias, x, dense.factor(x), None, None)?);
            }
            (Self::Dense(dense), None) => ops::matmul(x, dense.factor(x))?,
            (Self::Quantized(q), _) => q.product(x)?,
        };
        Ok(match bias {
            Some(bias) => product.add(bias)?,
            None => product,
        })
    }

    /// The rows of `ids` as floats: `[B, L]` → `[B, L, in]`. Of a packed matrix only these rows are
    /// unpacked.
    pub(super) fn rows(&self, ids: &Array) -> Result<Array> {
        if let Some(rows) = kernels::rows(self, ids)? {
            return Ok(rows);
        }
        Ok(match self {
            Self::Dense(dense) => dense.weight.take_axis(ids, 0)?,
            Self::Quantized(q) => {
                let of = |array: &Array| array.take_axis(ids, 0);
                let (weight, scales) = (of(&q.weight)?, of(&q.scales)?);
                let biases = q.biases.as_ref().map(of).transpose()?;
                q.unpack(&weight, &scales, biases.as_ref(), q.dtype)?
            }
        })
    }

    /// All of it as floats `[out, in]`.
    pub(super) fn dense(&self) -> Result<Array> {
        Ok(match self {
            Self::Dense(dense) => dense.weight.clone(),
            Self::Quantized(q) => q.unpack(&q.weight, &q.scales, q.biases.as_ref(), q.dtype)?,
        })
    }

    /// The rows of all parts, one below the other; None if they are stored in different ways.
    ///
    /// Evaluated: while a model is loaded, each layer's parts are freed before the next layer is
    /// joined, so the peak is one layer and not twice the model.
    pub(super) fn join(parts: &[&Self]) -> Result<Option<Self>> {
        match parts {
            [Self::Dense(first), ..] => {
                let dtype = first.weight.dtype();
                let joined = join_rows(parts, |part| match part {
                    Self::Dense(dense) if dense.weight.dtype() == dtype => {
                        Some(dense.weight.clone())
                    }
                    _ => None,
                })?;
                Ok(joined.map(Dense::new).transpose()?.map(Self::Dense))
            }
            [Self::Quantized(first), ..] => {
                let join = |array: fn(&QuantizedTriple) -> Option<&Array>| {
                    join_rows(parts, |part| match part {
                        Self::Quantized(q) if q.is_packed_like(first) => array(q).cloned(),
                        _ => None,
                    })
                };
                let weight = join(|q| Some(&q.weight))?;
                let Some((weight, scales)) = weight.zip(join(|q| Some(&q.scales))?) else {
                    return Ok(None);
                };
                Ok(Some(Self::Quantized(QuantizedTriple {
                    weight,
                    scales,
                    biases: join(|q| q.biases.as_ref())?,
                    global_scale: None,
                    ..*first
                })))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::to_f32;

    #[test]
    fn rows_are_multiplied_alike_alone_together_and_in_a_batch() {
        let weight = Array::from_iter((0..8).map(|i| i as f32 * 0.5 - 1.0), &[2, 4]);
        let matrix = Matrix::Dense(Dense::new(weight).unwrap());
        let x = Array::from_iter((0..24).map(|i| i as f32), &[2, 3, 4]);
        let whole = matrix.forward(&x).unwrap();
        assert_eq!(whole.shape(), [2, 3, 2]);
        let whole = to_f32(&whole).unwrap();
        for shape in [&[6, 4][..], &[1, 6, 4], &[6, 1, 4], &[1, 2, 3, 4]] {
            let product = matrix.forward(&x.reshape(shape).unwrap()).unwrap();
            assert_eq!(product.shape()[..shape.len() - 1], shape[..shape.len() - 1]);
            assert_eq!(to_f32(&product).unwrap(), whole, "{shape:?}");
        }
        let rows = x.reshape(&[6, 1, 1, 4]).unwrap();
        for (row, both) in whole.chunks(2).enumerate() {
            let row = rows.take_axis(Array::from_int(row as i32), 0).unwrap();
            assert_eq!(to_f32(&matrix.forward(&row).unwrap()).unwrap(), both);
        }
    }
}
