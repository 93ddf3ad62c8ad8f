//! The tensors of a checkpoint, each of which is taken exactly once.
//!
//! Strict on purpose: a tensor that is missing, left over or of another shape is an error with its
//! name. A loader that skips what it does not know builds a model that runs and talks noise.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, anyhow, bail, ensure};
use mlx_rs::{Array, Dtype};

use crate::config::{GroupQuantization, Mode, ModelConfig, Quantization};

/// How many names an error lists before it only counts.
const LISTED: usize = 5;

/// All tensors by name; taking one removes it.
#[derive(Debug)]
pub struct Weights {
    tensors: HashMap<String, Array>,
    /// All names, those of taken tensors included.
    names: BTreeSet<String>,
    layers: usize,
    quantization: Option<Quantization>,
    tied: bool,
    /// What float modes are unpacked to.
    unpacked: Dtype,
}

/// An `[out, in]` matrix, as it is stored.
#[derive(Debug)]
pub enum Matrix {
    /// Numbers.
    Dense(Dense),
    /// Packed codes, with a scale and a bias for each group.
    Quantized(QuantizedTriple),
}

/// A tensor `[out, in]`, and the views of it that products are made with, so that no step has to build
/// them again.
#[derive(Debug)]
pub struct Dense {
    /// `[out, in]`
    pub weight: Array,
    /// `[in, out]`
    pub transposed: Array,
    /// `[1, in, out]`: the same as a batch of one; None where that is not used.
    pub batch_of_one: Option<Array>,
}

/// A quantized matrix: packed codes with a scale per group. In affine mode there is a bias for each scale,
/// and `w = scale · code + bias`; in the float modes `w = scale · float`.
#[derive(Debug, Clone)]
pub struct QuantizedTriple {
    /// Codes `[out, in·bits/32]`, u32.
    pub weight: Array,
    /// `[out, in/G]`: floats in affine mode, else floats of 8 bits, which MLX has as bytes.
    pub scales: Array,
    /// `[out, in/G]`, in affine mode only.
    pub biases: Option<Array>,
    /// One f32 for the whole matrix, in nvfp4 mode at will: the absolute value that MLX gives the largest
    /// code under the largest scale, 6 · 448.
    pub global_scale: Option<Array>,
    /// G, how many neighbours in a row share a scale and a bias.
    pub group_size: i32,
    /// Bits of one code.
    pub bits: i32,
    /// What the codes stand for.
    pub mode: Mode,
    /// The type of its rows when they are unpacked. The scales of the float modes do not say it.
    pub dtype: Dtype,
}

impl QuantizedTriple {
    /// An affine one, from what MLX's `quantize` gives.
    pub fn affine(weight: Array, scales: Array, biases: Array, group_size: i32, bits: i32) -> Self {
        Self {
            dtype: scales.dtype(),
            weight,
            scales,
            biases: Some(biases),
            global_scale: None,
            group_size,
            bits,
            mode: Mode::Affine,
        }
    }

    /// Whether the rows of both can stand in one matrix.
    pub fn is_packed_like(&self, other: &Self) -> bool {
        let packing = |q: &Self| {
            let biases = q.biases.as_ref().map(Array::dtype);
            let sizes = (q.group_size, q.bits, q.mode);
            (sizes, q.scales.dtype(), biases, q.dtype)
        };
        let alone = |q: &Self| q.global_scale.is_some();
        packing(self) == packing(other) && !alone(self) && !alone(other)
    }
}

/// The float types that a checkpoint may have.
pub(crate) fn is_weight_type(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16)
}

impl Weights {
    /// Tensors by Hugging Face name, with what the configuration says of their quantization.
    pub fn new(tensors: HashMap<String, Array>, config: &ModelConfig) -> Self {
        let has_head = tensors.keys().any(|name| name.starts_with("lm_head."));
        let tied = config.tie_word_embeddings.unwrap_or(!has_head);
        Self {
            names: tensors.keys().cloned().collect(),
            layers: config.num_hidden_layers,
            tensors,
            quantization: config.quantization.clone(),
            tied,
            unpacked: Dtype::Bfloat16,
        }
    }

    /// Float modes are unpacked to `dtype`, and not to MLX's BF16, which has room for all of their numbers.
    #[must_use]
    pub fn unpacked_to(self, dtype: Dtype) -> Self {
        Self {
            unpacked: dtype,
            ..self
        }
    }

    /// Whether the embedding serves as the head, too.
    pub fn tied(&self) -> bool {
        self.tied
    }

    /// Whether a tensor is there and has not been taken.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// All tensors that have not been taken, for conversions.
    pub fn into_tensors(self) -> HashMap<String, Array> {
        self.tensors
    }

    /// All tensors, by their whole names.
    pub fn root(&mut self) -> Scope<'_> {
        Scope {
            weights: self,
            prefix: String::new(),
        }
    }

    /// The tensors whose names begin with `prefix` and a dot.
    pub fn scope(&mut self, prefix: &str) -> Scope<'_> {
        Scope {
            weights: self,
            prefix: format!("{prefix}."),
        }
    }

    /// Takes one tensor, which must have this shape.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Array> {
        let array = self.remove(name)?;
        let found: Vec<usize> = array.shape().iter().map(|&size| size as usize).collect();
        ensure!(
            found == shape,
            "tensor {name} has shape {found:?}, but config.json asks for {shape:?}: they are not of \
             the same model"
        );
        ensure!(
            is_weight_type(array.dtype()),
            "tensor {name} is stored as {:?} without scales, expected a float type",
            array.dtype()
        );
        Ok(array)
    }

    /// Takes the triple of a quantized matrix; `None` if `{prefix}.scales` is not there, which means
    /// that the matrix is dense.
    ///
    /// # Errors
    /// If a part is missing, or if the parts do not fit each other and the configuration.
    pub fn take_quantized(
        &mut self,
        prefix: &str,
        out_features: usize,
        in_features: usize,
    ) -> Result<Option<QuantizedTriple>> {
        if !self.contains(&format!("{prefix}.scales")) {
            return Ok(None);
        }
        let group = self.quantization_of(prefix)?;
        let GroupQuantization {
            group_size,
            bits,
            mode,
        } = group;
        ensure!(
            in_features.is_multiple_of(group_size),
            "{prefix} has rows of {in_features}, which groups of {group_size} do not divide"
        );
        let weight = self.remove(&format!("{prefix}.weight"))?;
        ensure!(
            weight.shape() == [out_features as i32, (in_features * bits / 32) as i32]
                && weight.dtype() == Dtype::Uint32,
            "tensor {prefix}.weight is {:?} {:?}, but {bits} bits for [{out_features}, \
             {in_features}] take u32 [{out_features}, {}]",
            weight.dtype(),
            weight.shape(),
            in_features * bits / 32
        );
        let groups = [out_features, in_features / group_size];
        let (scales, biases) = (format!("{prefix}.scales"), format!("{prefix}.biases"));
        if mode == Mode::Affine {
            let (scales, biases) = (self.take(&scales, &groups)?, self.take(&biases, &groups)?);
            let (group_size, bits) = (group_size as i32, bits as i32);
            return Ok(Some(QuantizedTriple::affine(
                weight, scales, biases, group_size, bits,
            )));
        }
        Ok(Some(QuantizedTriple {
            weight,
            scales: self.take_bytes(&scales, &groups, mode)?,
            biases: None,
            global_scale: self.take_global_scale(prefix, mode)?,
            group_size: group_size as i32,
            bits: bits as i32,
            mode,
            dtype: self.unpacked,
        }))
    }

    /// Scales of a float mode.
    fn take_bytes(&mut self, name: &str, shape: &[usize; 2], mode: Mode) -> Result<Array> {
        let array = self.remove(name)?;
        let fits = array.shape() == shape.map(|size| size as i32);
        ensure!(
            fits && array.dtype() == Dtype::Uint8,
            "tensor {name} is {:?} {:?}, but {} has scales of one byte, {shape:?}",
            array.dtype(),
            array.shape(),
            mode.name()
        );
        Ok(array)
    }

    /// `{prefix}.global_scale`, which is one number, if it is there.
    fn take_global_scale(&mut self, prefix: &str, mode: Mode) -> Result<Option<Array>> {
        let name = format!("{prefix}.global_scale");
        if mode != Mode::Nvfp4 || !self.contains(&name) {
            return Ok(None); // without a use in another mode it is left over, and told
        }
        let scale = self.remove(&name)?;
        ensure!(
            scale.size() == 1 && is_weight_type(scale.dtype()),
            "tensor {name} is {:?} {:?}, expected one float",
            scale.dtype(),
            scale.shape()
        );
        let scale = scale.reshape(&[])?.as_dtype(Dtype::Float32)?;
        Ok(Some(scale))
    }

    /// Ends the loading: nothing may be left, but for what a configuration makes superfluous.
    ///
    /// # Errors
    /// If tensors are left over: the first of them by name.
    pub fn finish(self) -> Result<()> {
        let left: BTreeSet<&String> = self
            .tensors
            .keys()
            .filter(|name| !superfluous(name, self.tied))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        bail!(
            "the checkpoint has {} extra tensors that this architecture has no place for: {}",
            left.len(),
            list(left.into_iter())
        )
    }

    fn quantization_of(&self, module: &str) -> Result<GroupQuantization> {
        let all = self.quantization.as_ref().with_context(|| {
            format!("{module} has scales, but config.json says nothing of quantization")
        })?;
        all.of(module).with_context(|| {
            format!("{module} has scales, but config.json says it is not quantized")
        })
    }

    fn remove(&mut self, name: &str) -> Result<Array> {
        let missing = || missing(name, &self.names, self.layers);
        self.tensors.remove(name).ok_or_else(missing)
    }
}

/// The error about a tensor that is not among `names`.
///
/// Names the same tensor of other layers, too, if it is missing there (a shard is not there), and a
/// tensor whose name has another beginning (the file is of another program).
pub(crate) fn missing(name: &str, names: &BTreeSet<String>, layers: usize) -> anyhow::Error {
    let absent = missing_in_layers(name, names, layers);
    let absent = list(absent.iter());
    let mut others: Vec<&String> = names.iter().collect();
    others.retain(|other| other.ends_with(name) || name.ends_with(other.as_str()));
    match others.first() {
        Some(other) => anyhow!("{absent}: missing in the checkpoint, which has {other}"),
        None => anyhow!(
            "{absent}: missing among the {} tensors of the checkpoint; is the download complete?",
            names.len()
        ),
    }
}

fn missing_in_layers(name: &str, names: &BTreeSet<String>, layers: usize) -> Vec<String> {
    let parts = name
        .strip_prefix(LAYERS)
        .and_then(|rest| rest.split_once('.'));
    let Some((_, part)) = parts else {
        return vec![name.to_owned()];
    };
    let all = (0..layers).map(|layer| format!("{LAYERS}{layer}.{part}"));
    all.filter(|name| !names.contains(name)).collect()
}

/// Tensors that some checkpoints carry although they follow from the configuration: RoPE's frequencies,
/// a copy of the embedding as the head, and GPT-2's causal masks.
pub(crate) fn superfluous(name: &str, tied: bool) -> bool {
    name.contains("rotary_emb.inv_freq")
        || name.ends_with(".attn.bias")
        || name.ends_with(".attn.masked_bias")
        || (tied && name.starts_with("lm_head."))
}

/// Whether a decode step reads all of a tensor. Of an embedding that is no head, too, it reads one row.
pub fn is_read_whole(name: &str, tied: bool) -> bool {
    tied || !name.starts_with("model.embed_tokens.")
}

/// A part of the tensors: the beginning of their names is said once.
#[derive(Debug)]
pub struct Scope<'w> {
    weights: &'w mut Weights,
    /// Ends in a dot, or is empty.
    prefix: String,
}

impl Scope<'_> {
    /// The part of this part whose names go on with `prefix` and a dot.
    pub fn scope(&mut self, prefix: &str) -> Scope<'_> {
        Scope {
            prefix: format!("{}{prefix}.", self.prefix),
            weights: self.weights,
        }
    }

    /// The whole name of what is called `name` in this part.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether the embedding serves as the head, too.
    pub fn tied(&self) -> bool {
        self.weights.tied()
    }

    /// [`Weights::take`]
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Array> {
        self.weights.take(&self.path(name), shape)
    }

    /// Takes `{name}.weight` `[out_features, in_features]`, or its quantized triple.
    ///
    /// # Errors
    /// If a part is missing or has another shape.
    pub fn take_matrix(
        &mut self,
        name: &str,
        out_features: usize,
        in_features: usize,
    ) -> Result<Matrix> {
        let name = self.path(name);
        let (weights, shape) = (&mut *self.weights, [out_features, in_features]);
        Ok(
            match weights.take_quantized(&name, out_features, in_features)? {
                Some(triple) => Matrix::Quantized(triple),
                None => {
                    let weight = weights.take(&format!("{name}.weight"), &shape)?;
                    Matrix::Dense(Dense::new(weight)?)
                }
            },
        )
    }
}

/// What the names of the tensors of all layers begin with.
const LAYERS: &str = "model.layers.";

fn list<'n>(names: impl ExactSizeIterator<Item = &'n String>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let mut text = names.take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
