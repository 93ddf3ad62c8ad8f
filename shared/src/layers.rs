//! The layers that every decoder is made of, thin over MLX's own operations.
//!
//! Part 1 takes each of them apart; from part 2 on they are only used. Plain structs without a
//! module framework: a field is named like its key in the checkpoint, and [`Weights`] is strict, so
//! a layer that was forgotten or misnamed is an error and not noise in the output.

mod one_row;
mod rope;

use std::cell::RefCell;

use anyhow::{Context, Result, anyhow};
use mlx_rs::error::Exception;
use mlx_rs::transforms::compile::compile;
use mlx_rs::{Array, Device, DeviceType, Dtype, fast, ops};

pub use self::rope::{Rope, rope_frequencies, rope_magnitude};

use self::one_row::OneRow;
use crate::weights::{QuantizedTriple, Weights};

/// `y = x Wᵀ + b`, with `W` dense or packed.
#[derive(Debug)]
pub struct Linear {
    weight: Matrix,
    bias: Option<Array>,
}

/// An `[out, in]` matrix.
#[derive(Debug)]
enum Matrix {
    /// Kept as its transposed view `[in, out]`, so that no step has to build the view again. In
    /// memory the rows are the checkpoint's, or after [`Matrix::for_one_row`] those of the view.
    Dense(Array),
    /// With how one row is multiplied, where MLX's own kernel is not the fastest.
    Quantized(QuantizedTriple, Option<OneRow>),
}

impl Matrix {
    fn load(weights: &mut Weights, prefix: &str, rows: usize, columns: usize) -> Result<Self> {
        if let Some(triple) = weights.take_quantized(prefix, rows, columns)? {
            return Self::quantized(triple);
        }
        let weight = weights.take(&format!("{prefix}.weight"), &[rows, columns])?;
        Ok(Self::Dense(weight.t()))
    }

    fn quantized(triple: QuantizedTriple) -> Result<Self> {
        let one_row = OneRow::of(&triple)?;
        Ok(Self::Quantized(triple, one_row))
    }

    /// The rows of all parts, evaluated: while a model is loaded, each layer's parts are freed
    /// before the next layer is joined, so the peak is one layer and not twice the model.
    fn join(parts: &[&Self]) -> Result<Option<Self>> {
        match parts {
            [Self::Dense(first), ..] => {
                let joined = join_rows(parts, |part| match part {
                    Self::Dense(t) if t.dtype() == first.dtype() => Some(t.t()),
                    _ => None,
                })?;
                Ok(joined.map(|weight| Self::Dense(weight.t())))
            }
            [Self::Quantized(first, _), ..] => {
                let join = |array: fn(&QuantizedTriple) -> &Array| {
                    join_rows(parts, |part| match part {
                        Self::Quantized(q, _) if q.is_packed_like(first) => Some(array(q).clone()),
                        _ => None,
                    })
                };
                let (weight, scales) = (join(|q| &q.weight)?, join(|q| &q.scales)?);
                let triple = weight.zip(scales).zip(join(|q| &q.biases)?);
                triple
                    .map(|((weight, scales), biases)| {
                        Self::quantized(QuantizedTriple {
                            weight,
                            scales,
                            biases,
                            ..*first
                        })
                    })
                    .transpose()
            }
            [] => Ok(None),
        }
    }

    /// Arranged for products with one row at a time, where that differs: on the CPU, in f32.
    ///
    /// For one row BLAS either takes a dot product with each row of `[out, in]` or adds up the rows
    /// of `[in, out]`. If the matrix is wide, the dot products are short and the sums are long, and
    /// the sums read memory faster. GPUs have kernels for both layouts.
    fn for_one_row(self) -> Result<Self> {
        Ok(match self {
            Self::Dense(view) if is_wide(&view) && multiplies_in_blas(&view) => {
                let copy = view.contiguous()?;
                copy.eval()?; // else the first arrangement would stay in memory until the first token
                Self::Dense(copy)
            }
            matrix => matrix,
        })
    }

    /// `x Wᵀ`: x `[…, in]` → `[…, out]`.
    fn forward(&self, x: &Array) -> Result<Array> {
        Ok(match self {
            Self::Dense(transposed) => ops::matmul(x, transposed)?,
            Self::Quantized(q, Some(one_row)) if one_row.takes(x) => one_row.forward(x, q)?,
            Self::Quantized(q, _) => ops::quantized_matmul(
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
}

/// Whether `[in, out]` has at least twice as many columns as rows.
fn is_wide(view: &Array) -> bool {
    view.dim(1) >= 2 * view.dim(0)
}

/// Whether MLX gives products with `array` to BLAS: only on the CPU, and there only f32 is for BLAS.
fn multiplies_in_blas(array: &Array) -> bool {
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

impl Linear {
    /// Takes `{prefix}.weight` `[out_features, in_features]` (or its quantized triple) and, if
    /// `bias`, `{prefix}.bias` `[out_features]`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn load(
        weights: &mut Weights,
        prefix: &str,
        out_features: usize,
        in_features: usize,
        bias: bool,
    ) -> Result<Self> {
        let weight = Matrix::load(weights, prefix, out_features, in_features)?;
        let bias = bias
            .then(|| weights.take(&format!("{prefix}.bias"), &[out_features]))
            .transpose()?;
        Ok(Self { weight, bias })
    }

    /// The rows of all `parts` as one matrix; None if they are packed in different ways.
    fn join(parts: &[Self]) -> Result<Option<Self>> {
        let weights: Vec<&Matrix> = parts.iter().map(|part| &part.weight).collect();
        let Some(weight) = Matrix::join(&weights)? else {
            return Ok(None);
        };
        let biases: Vec<&Array> = parts.iter().filter_map(|part| part.bias.as_ref()).collect();
        let bias = match biases.as_slice() {
            [] => None,
            biases => {
                let bias = ops::concatenate(biases, 0)?;
                bias.eval()?; // as the matrix
                Some(bias)
            }
        };
        Ok(Some(Self { weight, bias }))
    }

    /// x `[…, in_features]` → `[…, out_features]`.
    ///
    /// # Errors
    /// If the last axis of `x` is not `in_features`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        match (&self.weight, &self.bias) {
            // One operation instead of two, and the sum is rounded once.
            (Matrix::Dense(transposed), Some(bias)) => {
                Ok(ops::addmm(bias, x, transposed, None, None)?)
            }
            (weight, Some(bias)) => Ok(weight.forward(x)?.add(bias)?),
            (weight, None) => weight.forward(x),
        }
    }
}

/// Several [`Linear`]s that see the same input, multiplied as one: fewer operations for the host to
/// describe and for a GPU to start.
#[derive(Debug)]
pub struct JoinedLinear {
    /// One if the rows of all could be put into one matrix.
    parts: Vec<Linear>,
}

impl JoinedLinear {
    /// Takes `{prefix}.{name}` for each of `parts`, with its number of output features, as
    /// [`Linear::load`] does, and puts their rows one below the other. Parts that are packed in
    /// different ways stay apart.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn load(
        weights: &mut Weights,
        prefix: &str,
        parts: &[(&str, usize)],
        in_features: usize,
        bias: bool,
    ) -> Result<Self> {
        let load = |(name, out_features): &(&str, usize)| {
            let name = format!("{prefix}.{name}");
            Linear::load(weights, &name, *out_features, in_features, bias)
        };
        let parts: Vec<Linear> = parts.iter().map(load).collect::<Result<_>>()?;
        let joined = Linear::join(&parts)?;
        Ok(Self {
            parts: joined.map_or(parts, |joined| vec![joined]),
        })
    }

    /// Arranged for steps that have one row, where that differs: wide matrices in f32, on the CPU.
    ///
    /// # Cost
    /// A copy of the matrix while it is loaded. With BLIS on two cores, `[3072, 576]`: one row takes
    /// 0.66 of the time, 33 rows 1.5, 512 rows 1.0.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn for_one_row(self) -> Result<Self> {
        let parts = self.parts.into_iter().map(|part| {
            Ok(Linear {
                weight: part.weight.for_one_row()?,
                ..part
            })
        });
        Ok(Self {
            parts: parts.collect::<Result<_>>()?,
        })
    }

    /// x `[…, in_features]` → `[…, out_features of all parts]`, in the order of the parts.
    ///
    /// # Errors
    /// If the last axis of `x` is not `in_features`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        if let [joined] = self.parts.as_slice() {
            return joined.forward(x);
        }
        let outputs = self.parts.iter().map(|part| part.forward(x));
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        Ok(ops::concatenate(&outputs.iter().collect::<Vec<_>>(), -1)?)
    }
}

/// `x` cut along `axis` before each of `at`.
///
/// # Errors
/// If that does not give N pieces.
pub fn split<const N: usize>(x: &Array, at: &[i32], axis: i32) -> Result<[Array; N]> {
    let pieces = ops::split_at_indices(x, at, axis)?;
    <[Array; N]>::try_from(pieces)
        .map_err(|pieces| anyhow!("{} pieces, {N} expected", pieces.len()))
}

/// A table of `[vocab_size, hidden_size]`: ids in, rows out; or, for a tied head, rows in, logits
/// out.
#[derive(Debug)]
pub struct Embedding {
    weight: Matrix,
}

impl Embedding {
    /// Takes `{prefix}.weight` `[vocab_size, hidden_size]` or its quantized triple.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn load(
        weights: &mut Weights,
        prefix: &str,
        vocab_size: usize,
        hidden_size: usize,
    ) -> Result<Self> {
        let weight = Matrix::load(weights, prefix, vocab_size, hidden_size)?;
        Ok(Self {
            weight: match weights.tied() {
                true => weight.for_one_row()?,
                false => weight,
            },
        })
    }

    /// ids `[B, L]` → `[B, L, E]`. MLX checks no bounds: ids must be below `vocab_size`.
    ///
    /// # Errors
    /// If MLX refuses the types.
    pub fn forward(&self, ids: &Array) -> Result<Array> {
        Ok(match &self.weight {
            Matrix::Dense(transposed) => transposed.t().take_axis(ids, 0)?,
            // Only the rows that are needed are unpacked, never the table.
            Matrix::Quantized(q, _) => ops::dequantize(
                q.weight.take_axis(ids, 0)?,
                q.scales.take_axis(ids, 0)?,
                &q.biases.take_axis(ids, 0)?,
                q.group_size,
                q.bits,
            )?,
        })
    }

    /// The whole table `[V, E]`, unpacked if it is packed: for what is shown, never in a step.
    ///
    /// # Errors
    /// If MLX refuses the types.
    pub fn table(&self) -> Result<Array> {
        Ok(match &self.weight {
            Matrix::Dense(transposed) => transposed.t(),
            Matrix::Quantized(q, _) => {
                ops::dequantize(&q.weight, &q.scales, &q.biases, q.group_size, q.bits)?
            }
        })
    }

    /// The tied head: x `[…, E]` → logits `[…, V]`, with the table itself as the matrix.
    ///
    /// # Errors
    /// If the last axis of `x` is not `hidden_size`.
    pub fn as_linear(&self, x: &Array) -> Result<Array> {
        self.weight.forward(x)
    }
}

/// `x / √(mean(x²) + ε) · w` over the last axis. Zhang and Sennrich 2019 (arXiv 1910.07467).
#[derive(Debug)]
pub struct RmsNorm {
    weight: Array,
    eps: f32,
}

impl RmsNorm {
    /// Takes `{prefix}.weight` `[width]`.
    ///
    /// # Errors
    /// If the tensor is missing or has another shape.
    pub fn load(weights: &mut Weights, prefix: &str, width: usize, eps: f32) -> Result<Self> {
        Ok(Self {
            weight: weights.take(&format!("{prefix}.weight"), &[width])?,
            eps,
        })
    }

    /// x `[…, width]` → the same shape. MLX adds up in f32 whatever the type of `x`.
    ///
    /// # Errors
    /// If the last axis of `x` is not `width`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        Ok(fast::rms_norm(x, Some(&self.weight), self.eps)?)
    }
}

/// `silu(gate) · up`, `silu(x) = x · sigmoid(x)`. Shazeer 2020 (arXiv 2002.05202).
///
/// # Cost
/// Three operations, which MLX compiles into one kernel where there is a GPU: a short step of a
/// small model is mostly the starting of kernels. On the CPU nothing is started, and compiling would
/// call a C++ compiler at run time. Not `nn::silu`, which compiles anew at each call and throws it
/// away: 16 µs of host time instead of 0.8 µs, per layer and token.
///
/// # Errors
/// If the shapes differ.
pub fn swiglu(gate: &Array, up: &Array) -> Result<Array> {
    let fused = FUSED_SWIGLU.with(|fused| Some(fused.as_ref()?.borrow_mut()((gate, up))));
    Ok(fused.unwrap_or_else(|| plain_swiglu((gate, up)))?)
}

type Binary = Box<dyn for<'a> FnMut((&'a Array, &'a Array)) -> Result<Array, Exception>>;

thread_local! {
    // Kept, because a compiled function is only cheap when it is called again; one for each thread,
    // because MLX keeps what it compiled by thread.
    static FUSED_SWIGLU: Option<RefCell<Binary>> =
        on_gpu().then(|| RefCell::new(compiled_swiglu()));
}

/// Whatever the shapes are: one compilation serves prompts of every length.
fn compiled_swiglu() -> Binary {
    Box::new(compile(plain_swiglu, true))
}

fn plain_swiglu((gate, up): (&Array, &Array)) -> Result<Array, Exception> {
    gate.multiply(ops::sigmoid(gate)?)?.multiply(up)
}

/// If MLX does not say, then not.
fn on_gpu() -> bool {
    let kind = Device::try_default().and_then(|device| device.get_type());
    matches!(kind, Ok(DeviceType::Gpu))
}

/// Token ids as `[1, L]`, the shape that a model takes.
pub fn ids_array(ids: &[u32]) -> Array {
    Array::from_slice(ids, &[1, ids.len() as i32])
}

/// The sizes of the three axes of `x` `[B, L, E]`.
///
/// # Errors
/// If `x` has another number of axes; MLX itself would answer with zeros.
pub fn dims3(x: &Array) -> Result<[i32; 3]> {
    <[i32; 3]>::try_from(x.shape())
        .ok()
        .with_context(|| format!("expected [B, L, E], found {:?}", x.shape()))
}

/// The values of `x` as f32, copied to the host: for tests and for what is shown, never in a step.
///
/// # Errors
/// If an operation that `x` depends on fails.
pub fn to_f32(x: &Array) -> Result<Vec<f32>> {
    let x = x.as_dtype(Dtype::Float32)?;
    // A strided view cannot be read in order: flattening makes it contiguous.
    let flat = x.reshape(&[-1])?.contiguous()?;
    flat.eval()?; // the caller asked for values
    Ok(flat.to_vec_exact::<f32>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swiglu_is_the_same_compiled_and_plain_for_every_length() {
        let mut compiled = compiled_swiglu();
        for length in [1, 3, 1] {
            let gate = Array::from_iter((0..length * 8).map(|i| i as f32 - 9.0), &[1, length, 8]);
            let up = gate.multiply(Array::from_f32(0.3)).unwrap();
            let plain = to_f32(&plain_swiglu((&gate, &up)).unwrap()).unwrap();
            let fused = to_f32(&compiled((&gate, &up)).unwrap()).unwrap();
            for (a, b) in plain.iter().zip(&fused) {
                assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{a} and {b}");
            }
        }
    }
}
