//! The layers that every decoder is made of, thin over MLX's own operations.
//!
//! Part 1 takes each of them apart; from part 2 on they are only used. Plain structs without a
//! module framework: a field is named like its key in the checkpoint, and
//! [`Weights`](crate::weights::Weights) is strict, so a layer that was forgotten or misnamed is an
//! error and not noise in the output.

mod mask;
mod matrix;
pub mod probe;
mod rope;
mod swiglu;

use anyhow::{Context, Result, anyhow};
use mlx_rs::{Array, Dtype, fast, ops};

pub use self::mask::{Mask, Offsets};
pub use self::rope::{Rope, rope_frequencies, rope_magnitude};
pub use self::swiglu::swiglu;

use crate::kernels::cpu;
use crate::weights::{Matrix, Scope};

/// What a model is built of, by the names of the checkpoint.
///
/// # Errors
/// All of them fail if a tensor is missing or has another shape.
impl Scope<'_> {
    /// Takes `{name}.weight` `[out_features, in_features]` (or its quantized triple) and, if `bias`,
    /// `{name}.bias` `[out_features]`.
    pub fn linear(
        &mut self,
        name: &str,
        out_features: usize,
        in_features: usize,
        bias: bool,
    ) -> Result<Linear> {
        Linear::load(self, name, out_features, in_features, bias)
    }

    /// Takes the [`linear`](Self::linear) layers of `parts`, names and output features, and puts
    /// their rows one below the other. Parts that are packed in different ways stay apart.
    pub fn joined<const N: usize>(
        &mut self,
        parts: [(&str, usize); N],
        in_features: usize,
        bias: bool,
    ) -> Result<JoinedLinear<N>> {
        let load = |(name, out_features): &(&str, usize)| {
            Linear::load(self, name, *out_features, in_features, bias)
        };
        let linears: Vec<Linear> = parts.iter().map(load).collect::<Result<_>>()?;
        let widths = parts.map(|(_, out_features)| out_features as i32);
        JoinedLinear::of(linears, widths)
    }

    /// Takes `{name}.weight` `[width]`.
    pub fn norm(&mut self, name: &str, width: usize, eps: f32) -> Result<RmsNorm> {
        Ok(RmsNorm {
            weight: self.take(&format!("{name}.weight"), &[width])?,
            eps,
        })
    }

    /// Takes `{name}.weight` `[vocab_size, hidden_size]` or its quantized triple.
    pub fn embedding(
        &mut self,
        name: &str,
        vocab_size: usize,
        hidden_size: usize,
    ) -> Result<Embedding> {
        Ok(Embedding {
            weight: self.take_matrix(name, vocab_size, hidden_size)?,
        })
    }
}

/// `y = x Wᵀ + b`, with `W` dense or packed.
#[derive(Debug)]
pub struct Linear {
    /// The path of the module in the checkpoint; several if their rows are joined.
    modules: Vec<String>,
    weight: Matrix,
    bias: Option<Array>,
}

impl Linear {
    fn load(
        weights: &mut Scope<'_>,
        name: &str,
        out_features: usize,
        in_features: usize,
        bias: bool,
    ) -> Result<Self> {
        let weight = weights.take_matrix(name, out_features, in_features)?;
        let bias = bias
            .then(|| weights.take(&format!("{name}.bias"), &[out_features]))
            .transpose()?;
        Ok(Self {
            modules: vec![weights.path(name)],
            weight,
            bias,
        })
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
        let modules = parts.iter().flat_map(|part| part.modules.clone());
        Ok(Some(Self {
            modules: modules.collect(),
            weight,
            bias,
        }))
    }

    /// x `[…, in_features]` → `[…, out_features]`.
    ///
    /// # Errors
    /// If the last axis of `x` is not `in_features`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        probe::sees(&self.modules, x);
        self.weight.forward_with(x, self.bias.as_ref())
    }
}

/// N [`Linear`]s that see the same input, multiplied as one: fewer operations for the host to
/// describe and for a GPU to start.
#[derive(Debug)]
pub struct JoinedLinear<const N: usize> {
    /// One if the rows of all could be put into one matrix.
    linears: Vec<Linear>,
    /// Where the outputs of the second and the following ones begin.
    starts: Vec<i32>,
}

impl<const N: usize> JoinedLinear<N> {
    fn of(linears: Vec<Linear>, widths: [i32; N]) -> Result<Self> {
        Ok(Self {
            linears: match Linear::join(&linears)? {
                Some(joined) => vec![joined],
                None => linears,
            },
            starts: starts(widths.into_iter()),
        })
    }

    /// x `[…, in_features]` → the N outputs `[…, out_features]`, in the order of the names.
    ///
    /// # Errors
    /// If the last axis of `x` is not `in_features`.
    pub fn forward(&self, x: &Array) -> Result<[Array; N]> {
        if let [joined] = self.linears.as_slice() {
            let joined = joined.forward(x)?;
            return match cpu::split(&joined, &self.starts)? {
                Some(outputs) => exactly(outputs),
                None => split(&joined, &self.starts, -1),
            };
        }
        let outputs = self.linears.iter().map(|linear| linear.forward(x));
        exactly(outputs.collect::<Result<Vec<_>>>()?)
    }
}

/// `x` cut along `axis` before each of `at`.
///
/// # Errors
/// If that does not give N pieces.
pub fn split<const N: usize>(x: &Array, at: &[i32], axis: i32) -> Result<[Array; N]> {
    exactly(ops::split_at_indices(x, at, axis)?)
}

/// Where the second and the following of pieces of these `widths` begin.
fn starts(widths: impl Iterator<Item = i32>) -> Vec<i32> {
    let mut starts: Vec<i32> = widths
        .scan(0, |end, width| Some(std::mem::replace(end, *end + width)))
        .collect();
    starts.drain(..1.min(starts.len()));
    starts
}

fn exactly<const N: usize>(arrays: Vec<Array>) -> Result<[Array; N]> {
    <[Array; N]>::try_from(arrays)
        .map_err(|arrays| anyhow!("{} arrays, {N} expected", arrays.len()))
}

/// A table of `[vocab_size, hidden_size]`: ids in, rows out; or, for a tied head, rows in, logits
/// out.
#[derive(Debug)]
pub struct Embedding {
    weight: Matrix,
}

impl Embedding {
    /// ids `[B, L]` → `[B, L, E]`. MLX checks no bounds: ids must be below `vocab_size`.
    pub fn forward(&self, ids: &Array) -> Result<Array> {
        self.weight.rows(ids)
    }

    /// The whole table `[V, E]`, unpacked if it is packed: for what is shown, never in a step.
    pub fn table(&self) -> Result<Array> {
        self.weight.dense()
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
    /// x `[…, width]` → the same shape. MLX adds up in f32 whatever the type of `x`.
    ///
    /// # Errors
    /// If the last axis of `x` is not `width`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        match cpu::norm(x, &self.weight, self.eps)? {
            Some(normed) => Ok(normed),
            None => Ok(fast::rms_norm(x, Some(&self.weight), self.eps)?),
        }
    }
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
