//! The tensors of a checkpoint, each of which is taken exactly once.
//!
//! Strict on purpose: a tensor that is missing, left over or of another shape is an error with its
//! name. A loader that skips what it does not know builds a model that runs and talks noise.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::fs::OpenOptions;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use mlx_rs::{Array, Dtype, io::GgufFile, ops, transforms};
use safetensors::SafeTensors;

use crate::checkpoint::{Checkpoint, superfluous};
use crate::config::{GroupQuantization, ModelConfig, Quantization};
use crate::gguf;
use crate::hub::{ModelFiles, embedded};

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
}

/// A quantized matrix: packed codes with a scale and a bias per group, `w = scale · code + bias`.
#[derive(Debug, Clone)]
pub struct QuantizedTriple {
    /// Codes `[out, in·bits/32]`, u32.
    pub weight: Array,
    /// `[out, in/G]`
    pub scales: Array,
    /// `[out, in/G]`
    pub biases: Array,
    /// G, how many neighbours in a row share a scale and a bias.
    pub group_size: i32,
    /// Bits of one code.
    pub bits: i32,
}

impl QuantizedTriple {
    /// Whether the rows of both can stand in one matrix.
    pub fn is_packed_like(&self, other: &Self) -> bool {
        let packing = |q: &Self| (q.group_size, q.bits, q.scales.dtype(), q.biases.dtype());
        packing(self) == packing(other)
    }
}

impl Checkpoint {
    /// Reads all tensors into memory.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn load_weights(&self) -> Result<Weights> {
        let mut tensors = match &self.files {
            ModelFiles::Embedded => load_embedded()?,
            ModelFiles::Directory(_) => load_shards(&self.files.shards()?)?,
            ModelFiles::Gguf(path) => self.load_gguf(path)?,
        };
        if let Some(dtype) = self.dtype {
            convert_floats(&mut tensors, dtype.dtype())?;
        }
        // Loading is lazy. Without this the first token would pay for reading the file, and the
        // time to first token would not be what it says.
        transforms::eval(tensors.values())
            .map_err(|error| reading(Path::new(&self.name), &error))?;
        let mut weights = Weights::new(tensors, &self.config);
        weights.tied = self.tied();
        Ok(weights)
    }

    /// Reads all tensors into memory as dense floats of `dtype`; packed ones are unpacked in f32
    /// first. Returns the configuration of such a checkpoint, too.
    ///
    /// # Errors
    /// If a file cannot be read, or a packed matrix does not fit the configuration.
    pub fn load_dense_weights(&self, dtype: Dtype) -> Result<(ModelConfig, Weights)> {
        let mut config = self.config.clone();
        let mut stored = self.load_weights()?.into_tensors();
        let modules: BTreeSet<String> = stored
            .keys()
            .filter_map(|name| Some(name.strip_suffix(".scales")?.to_owned()))
            .collect();
        for module in modules {
            let matrix = self.unpack(&mut stored, &module)?;
            stored.insert(format!("{module}.weight"), matrix);
        }
        convert_floats(&mut stored, dtype)?;
        // Else the packed weights would stay in memory beside the dense ones until their first use.
        transforms::eval(stored.values())?;
        config.quantization = None;
        config.tie_word_embeddings = Some(self.tied());
        Ok((config.clone(), Weights::new(stored, &config)))
    }

    fn unpack(&self, stored: &mut HashMap<String, Array>, module: &str) -> Result<Array> {
        let quantization = self.config.quantization.as_ref();
        let group = quantization
            .and_then(|all| all.of(module))
            .with_context(|| {
                format!("{module} has scales, but the config says nothing of quantization")
            })?;
        let mut part = |name: &str| {
            stored
                .remove(&format!("{module}.{name}"))
                .with_context(|| format!("the checkpoint has no {module}.{name}"))
        };
        let scales = part("scales")?.as_dtype(Dtype::Float32)?;
        let biases = part("biases")?.as_dtype(Dtype::Float32)?;
        let (size, bits) = (group.group_size as i32, group.bits as i32);
        Ok(ops::dequantize(
            part("weight")?,
            scales,
            &biases,
            size,
            bits,
        )?)
    }

    /// MLX unpacks Q4_0, Q4_1 and Q8_0 into triples in groups of 32 with f16 scales, and keeps F32,
    /// so the first f32 norm makes all activations f32, as in mlx-lm on the same arrays.
    fn load_gguf(&self, path: &Path) -> Result<HashMap<String, Array>> {
        // Opening changes nothing. It asks for what MLX will ask for without saying so.
        let writable = OpenOptions::new().read(true).write(true).open(path);
        writable.with_context(|| {
            let path = path.display();
            format!("opening {path}: MLX needs write access to GGUF files, use a copy you own")
        })?;
        let file = GgufFile::load(path).map_err(|error| reading(path, &error))?;
        let arrays = file.arrays().map_err(|error| reading(path, &error))?;
        let mut tensors = HashMap::new();
        for (name, array) in arrays {
            if name == gguf::ROPE_FACTORS {
                continue; // part of the configuration
            }
            let array = self.undo_permutation(&name, array)?;
            tensors.insert(gguf::hugging_face_name(&name), array);
        }
        Ok(tensors)
    }

    /// llama.cpp stores the rows of q and k of the `llama` architecture as interleaved pairs; the
    /// layout of Hugging Face has the two halves of a head one after the other. Rows move as a
    /// whole, so codes, scales and biases are treated alike.
    fn undo_permutation(&self, name: &str, array: Array) -> Result<Array> {
        let config = &self.config;
        let heads = match name {
            _ if config.model_type != "llama" => return Ok(array),
            name if name.contains(".attn_q.") => config.num_attention_heads,
            name if name.contains(".attn_k.") => config.num_key_value_heads,
            _ => return Ok(array),
        };
        let (heads, half) = (heads as i32, (config.head_dim / 2) as i32);
        ensure!(
            array.shape().first() == Some(&(heads * 2 * half)),
            "tensor {name} has shape {:?}, expected {heads} heads of {} rows",
            array.shape(),
            2 * half
        );
        let shape = array.shape().to_vec();
        let pairs = array.reshape(&[heads, half, 2, -1])?;
        Ok(pairs.swap_axes(1, 2)?.reshape(&shape)?)
    }
}

/// The float types that a checkpoint may have.
fn is_weight_type(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16)
}

/// Codes of quantized matrices stay as they are.
fn convert_floats(tensors: &mut HashMap<String, Array>, dtype: Dtype) -> Result<()> {
    for tensor in tensors.values_mut() {
        if is_weight_type(tensor.dtype()) {
            *tensor = tensor.as_dtype(dtype)?;
        }
    }
    Ok(())
}

/// An error of MLX without the place in MLX's own sources that it ends in.
fn reading(path: &Path, error: &dyn Display) -> anyhow::Error {
    let text = error.to_string().replace('\n', " ");
    let text = text.split(" at /").next().unwrap_or_default();
    anyhow!(
        "reading the weights of {}: {}",
        path.display(),
        text.trim_matches('"')
    )
}

fn load_embedded() -> Result<HashMap<String, Array>> {
    let file =
        SafeTensors::deserialize(embedded::WEIGHTS).context("the embedded model is damaged")?;
    let mut tensors = HashMap::new();
    for (name, view) in file.iter() {
        let array = Array::try_from(view)
            .map_err(|error| anyhow!("reading {name} of the embedded model: {error}"))?;
        tensors.insert(name.to_owned(), array);
    }
    Ok(tensors)
}

fn load_shards(shards: &[std::path::PathBuf]) -> Result<HashMap<String, Array>> {
    let mut tensors = HashMap::new();
    for path in shards {
        // MLX tells the format by the ending; a snapshot's links keep it, their targets do not.
        let shard = Array::load_safetensors(path).map_err(|error| reading(path, &error))?;
        tensors.extend(shard);
    }
    Ok(tensors)
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
        let GroupQuantization { group_size, bits } = self.quantization_of(prefix)?;
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
        Ok(Some(QuantizedTriple {
            weight,
            scales: self.take(&format!("{prefix}.scales"), &groups)?,
            biases: self.take(&format!("{prefix}.biases"), &groups)?,
            group_size: group_size as i32,
            bits: bits as i32,
        }))
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
        self.tensors.remove(name).ok_or_else(|| self.missing(name))
    }

    /// Names the same tensor of other layers, too, if it is missing there (a shard is not there),
    /// and a tensor whose name has another beginning (the file is of another program).
    fn missing(&self, name: &str) -> anyhow::Error {
        let missing = self.missing_in_layers(name);
        let names = list(missing.iter());
        let mut others: Vec<&String> = self.names.iter().collect();
        others.retain(|other| other.ends_with(name) || name.ends_with(other.as_str()));
        match others.first() {
            Some(other) => anyhow!("{names}: missing in the checkpoint, which has {other}"),
            None => anyhow!(
                "{names}: missing among the {} tensors of the checkpoint; is the download complete?",
                self.names.len()
            ),
        }
    }

    fn missing_in_layers(&self, name: &str) -> Vec<String> {
        let parts = name
            .strip_prefix(LAYERS)
            .and_then(|rest| rest.split_once('.'));
        let Some((_, part)) = parts else {
            return vec![name.to_owned()];
        };
        let all = (0..self.layers).map(|layer| format!("{LAYERS}{layer}.{part}"));
        all.filter(|name| !self.names.contains(name)).collect()
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
