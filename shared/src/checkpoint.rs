//! What a checkpoint says of itself before any weight is loaded: configuration and tensor list.
//!
//! The headers are read here, through a memory map and with every offset checked, because MLX trusts
//! the files that it is given.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use mlx_rs::Dtype;
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, SafeTensorError};
use serde::Deserialize;

use crate::config::{ModelConfig, RopeScaling};
use crate::gguf::{self, GgufHeader};
use crate::hub::{INDEX, ModelFiles, embedded};
use crate::report::{binary, count, decimal};

/// A model's files, their headers read.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The model as it was asked for.
    pub name: String,
    /// Where the files are.
    pub files: ModelFiles,
    /// The architecture.
    pub config: ModelConfig,
    /// Every tensor, in the order of the files.
    pub tensors: Vec<TensorInfo>,
    /// The header, if the checkpoint is a GGUF file.
    pub gguf: Option<GgufHeader>,
    /// What all floats are converted to when they are loaded; `None`: they stay as they are.
    pub dtype: Option<FloatType>,
}

/// A float type that a model can compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FloatType {
    /// 32 bits: twice the memory, and on the CPU the only one that MLX gives to BLAS.
    F32,
    /// 16 bits, 5 of them for the exponent.
    F16,
    /// 16 bits, 8 of them for the exponent.
    Bf16,
}

impl FloatType {
    /// MLX's name for it.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::Float32,
            Self::F16 => Dtype::Float16,
            Self::Bf16 => Dtype::Bfloat16,
        }
    }

    /// Of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// One entry of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in Hugging Face's spelling, also for GGUF.
    pub name: String,
    /// `BF16`, `U32`, `Q4_0`, …
    pub dtype: String,
    /// Sizes of the axes, as stored.
    pub shape: Vec<usize>,
    /// Size in the file.
    pub bytes: u64,
}

impl Checkpoint {
    /// Reads configuration and headers.
    ///
    /// # Errors
    /// If a file is missing, damaged or of a kind that is not supported: one line that names it.
    pub fn open(name: &str, files: ModelFiles) -> Result<Self> {
        let (config, tensors, gguf) = match &files {
            ModelFiles::Gguf(path) => {
                let header = GgufHeader::open(path)?;
                let config = ModelConfig::from_gguf(&header)
                    .with_context(|| format!("reading {}", path.display()))?;
                (config, gguf_tensors(&header), Some(header))
            }
            files => (read_config(name, files)?, safetensors_tensors(files)?, None),
        };
        let checkpoint = Self {
            name: name.to_owned(),
            files,
            config,
            tensors,
            gguf,
            dtype: None,
        };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    /// Size of the weights in memory, in bytes: what a decode step has to read.
    pub fn weight_bytes(&self) -> u64 {
        self.used_tensors()
            .map(|tensor| self.bytes_in_memory(tensor))
            .sum()
    }

    /// Size of one tensor in memory.
    ///
    /// Only GGUF's packed types are larger here than in the file: MLX stores a scale and a bias of 16
    /// bits for each 32 weights, where Q4_0 and Q8_0 do without the bias.
    pub fn bytes_in_memory(&self, tensor: &TensorInfo) -> u64 {
        let float = self.dtype.map(|dtype| dtype.bytes() as u64);
        let scales = 2 * float.unwrap_or(2); // with the biases, of a group
        match (tensor.dtype.as_str(), float) {
            ("Q4_0", _) => tensor.bytes / 18 * (16 + scales),
            ("Q4_1", _) => tensor.bytes / 20 * (16 + scales),
            ("Q8_0", _) => tensor.bytes / 34 * (32 + scales),
            ("F32", Some(float)) => tensor.bytes / 4 * float,
            ("F16" | "BF16", Some(float)) => tensor.bytes / 2 * float,
            _ => tensor.bytes,
        }
    }

    /// All but what a configuration makes superfluous.
    fn used_tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        let tied = self.tied();
        self.tensors
            .iter()
            .filter(move |tensor| !superfluous(&tensor.name, tied))
    }

    /// Number of weights; a packed one counts as what it stands for, its scales and biases do not
    /// count.
    pub fn parameters(&self) -> u64 {
        self.elements().map(|(_, elements)| elements).sum()
    }

    /// The tensors that the model uses, each with the number of its weights as
    /// [`parameters`](Self::parameters) counts them.
    pub fn elements(&self) -> impl Iterator<Item = (&TensorInfo, u64)> {
        let scaled: HashSet<&str> = self.scaled_modules().collect();
        self.used_tensors()
            .map(move |tensor| (tensor, self.elements_of(tensor, &scaled)))
    }

    /// Whether the embedding serves as the head, too.
    pub fn tied(&self) -> bool {
        let has_head = self
            .tensors
            .iter()
            .any(|tensor| tensor.name.starts_with("lm_head."));
        self.config.tie_word_embeddings.unwrap_or(!has_head)
    }

    /// The modules that MLX quantized: those with scales.
    fn scaled_modules(&self) -> impl Iterator<Item = &str> {
        self.tensors
            .iter()
            .filter_map(|tensor| tensor.name.strip_suffix(".scales"))
    }

    fn elements_of(&self, tensor: &TensorInfo, scaled: &HashSet<&str>) -> u64 {
        let stored = tensor.shape.iter().map(|&size| size as u64).product();
        let (module, part) = tensor.name.rsplit_once('.').unwrap_or_default();
        if !scaled.contains(module) {
            return stored;
        }
        let quantization = self.config.quantization.as_ref();
        match (part, quantization.and_then(|all| all.of(module))) {
            ("weight", Some(group)) => stored * 32 / group.bits as u64,
            ("scales" | "biases", _) => 0,
            _ => stored,
        }
    }

    /// Bytes of one element of the activations, and so of the KV cache: MLX computes in the widest
    /// float type that takes part, and F32 takes part only where a checkpoint has it.
    pub fn activation_bytes(&self) -> usize {
        if let Some(dtype) = self.dtype {
            return dtype.bytes();
        }
        let wide = self.used_tensors().any(|tensor| tensor.dtype == "F32");
        if wide { 4 } else { 2 }
    }

    /// What no format forbids, but MLX or the layers could not use.
    fn check_tensors(&self) -> Result<()> {
        const KNOWN: [&str; 7] = ["F32", "F16", "BF16", "U32", "Q4_0", "Q4_1", "Q8_0"];
        let mut names = HashSet::new();
        for TensorInfo {
            name, dtype, shape, ..
        } in &self.tensors
        {
            ensure!(
                !name.contains(char::is_control) && names.insert(name),
                "tensor {name:?} of {} is there twice or has an impossible name",
                self.name
            );
            ensure!(
                KNOWN.contains(&dtype.as_str()),
                "tensor {name} of {} is stored as {dtype}, which is not supported: convert the \
                 model to BF16, F16 or F32",
                self.name
            );
            ensure!(
                shape.iter().all(|&size| i32::try_from(size).is_ok()),
                "tensor {name} of {} has the impossible shape {shape:?}",
                self.name
            );
        }
        Ok(())
    }

    /// What `--inspect` prints: label and text per row, among them every way in which the checkpoint
    /// differs from plain Llama. `ram_bytes`: memory of this machine, if known.
    pub fn inspect(&self, ram_bytes: Option<u64>) -> Vec<(String, String)> {
        let config = &self.config;
        let mut rows = vec![
            ("model", self.name.clone()),
            (
                "type",
                format!("{}, {} layers", config.model_type, config.num_hidden_layers),
            ),
            ("widths", self.widths()),
            ("heads", self.heads()),
            (
                "positions",
                format!(
                    "{}, {}",
                    count(config.max_position_embeddings as u64),
                    self.rope()
                ),
            ),
            ("differs", self.differences().join("; ")),
            ("weights", self.weights()),
            ("KV cache", self.kv_cache()),
        ];
        if let Some(ram) = ram_bytes {
            let positions = config.max_position_embeddings;
            let fits = match check_fit(self, positions, ram) {
                Ok(()) => format!("in {}, with the full context", binary(ram)),
                Err(refusal) => format!("not with the full context: {refusal}"),
            };
            rows.push(("fits", fits));
        }
        rows.into_iter()
            .map(|(label, text)| (label.to_owned(), text))
            .collect()
    }

    fn widths(&self) -> String {
        let config = &self.config;
        format!(
            "model {}, MLP {}, vocabulary {}",
            count(config.hidden_size as u64),
            count(config.intermediate_size as u64),
            count(config.vocab_size as u64)
        )
    }

    fn heads(&self) -> String {
        let config = &self.config;
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let sharing = match heads / kv_heads {
            1 => "each its own keys and values".to_owned(),
            ratio => format!("{ratio} share one (GQA)"),
        };
        format!(
            "{heads} query, {kv_heads} key/value: {sharing}; width {}",
            config.head_dim
        )
    }

    fn rope(&self) -> String {
        let rope = &self.config.rope;
        let scaling = match &rope.scaling {
            RopeScaling::None => String::new(),
            RopeScaling::Linear { factor } => format!(", linear scaling {factor}"),
            RopeScaling::Llama3 {
                factor,
                original_max_position_embeddings: from,
                ..
            } => {
                format!(", llama3 scaling {factor} from {}", count(*from as u64))
            }
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: from,
                ..
            } => {
                format!(", YaRN scaling {factor} from {}", count(*from as u64))
            }
            RopeScaling::Factors(_) => ", a factor per frequency".to_owned(),
        };
        format!("rotary, base {}{scaling}", count(rope.theta as u64))
    }

    /// Against Llama 2: no biases, no q/k norm, heads of width E/H, an untied head, full attention.
    fn differences(&self) -> Vec<String> {
        let config = &self.config;
        let windows: Vec<usize> = config.sliding_window.iter().flatten().copied().collect();
        let wide = config.head_dim * config.num_attention_heads != config.hidden_size;
        let mut found = Vec::new();
        let mut note = |holds: bool, text: String| {
            if holds {
                found.push(text);
            }
        };
        note(config.attention_bias, "bias on q, k, v".to_owned());
        note(config.attention_out_bias, "bias on o".to_owned());
        note(config.mlp_bias, "bias in the MLP".to_owned());
        note(config.qk_norm, "norm on q and k".to_owned());
        note(wide, format!("head width {} is not E/H", config.head_dim));
        note(self.tied(), "head tied to the embedding".to_owned());
        note(
            config.rope.traditional,
            "rotates neighbouring dimensions".to_owned(),
        );
        if let Some(window) = windows.first() {
            let (some, all) = (windows.len(), config.num_hidden_layers);
            note(
                true,
                format!(
                    "sliding window of {} in {some} of {all} layers",
                    count(*window as u64)
                ),
            );
        }
        if found.is_empty() {
            found.push("in nothing from plain Llama".to_owned());
        }
        found
    }

    fn weights(&self) -> String {
        let (parameters, bytes) = (self.parameters(), self.weight_bytes());
        let types = self.types().join(", ");
        let bits = 8.0 * bytes as f64 / parameters.max(1) as f64;
        format!(
            "{} parameters, {}, {types}: {bits:.2} bits per weight",
            count(parameters),
            decimal(bytes)
        )
    }

    /// `4 bits in groups of 64`, or the types of the tensors.
    fn types(&self) -> Vec<String> {
        match &self.config.quantization {
            Some(all) if self.gguf.is_none() => {
                let others = match all.overrides.len() {
                    0 => String::new(),
                    n => format!(" ({n} modules otherwise)"),
                };
                vec![format!(
                    "{} bits in groups of {}{others}",
                    all.default.bits, all.default.group_size
                )]
            }
            _ => {
                let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
                for tensor in &self.tensors {
                    *bytes.entry(&tensor.dtype).or_default() += tensor.bytes;
                }
                let mut types: Vec<_> = bytes.into_iter().collect();
                types.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
                types.into_iter().map(|(name, _)| name.to_owned()).collect()
            }
        }
    }

    fn kv_cache(&self) -> String {
        let bytes = self.activation_bytes();
        let per_token = self.config.kv_bytes_per_token(bytes);
        let full = per_token.saturating_mul(self.config.max_position_embeddings as u64);
        format!(
            "{} per token in {} bits, {} at full context",
            binary(per_token),
            8 * bytes,
            binary(full)
        )
    }
}

/// Refuses a model that cannot fit, before it drives the machine into swap.
///
/// Counted: the weights, keys and values for `positions`, and 256 MiB for the program and for what a
/// step computes on the way.
///
/// # Errors
/// If more memory is needed than there is: with the numbers and a way to go on.
pub fn check_fit(checkpoint: &Checkpoint, positions: usize, ram_bytes: u64) -> Result<()> {
    const MARGIN: u64 = 256 << 20;
    let weights = checkpoint.weight_bytes();
    let kv = checkpoint
        .config
        .kv_bytes_per_token(checkpoint.activation_bytes())
        .saturating_mul(positions as u64);
    let needed = weights.saturating_add(kv).saturating_add(MARGIN);
    ensure!(
        needed <= ram_bytes,
        "{} needs {}, {} for the weights and {} for {} positions, but this machine has {}; take a \
         smaller or quantized model, or a shorter prompt with a smaller --max-tokens",
        checkpoint.name,
        binary(needed),
        binary(weights),
        binary(kv),
        count(positions as u64),
        binary(ram_bytes)
    );
    Ok(())
}

/// Tensors that some checkpoints carry although they follow from the configuration.
pub(crate) fn superfluous(name: &str, tied: bool) -> bool {
    name.contains("rotary_emb.inv_freq") || (tied && name.starts_with("lm_head."))
}

fn read_config(name: &str, files: &ModelFiles) -> Result<ModelConfig> {
    let config = files.read_text("config.json")?.with_context(|| {
        format!("there is no config.json in {name}: is it a model in Hugging Face layout?")
    })?;
    let generation = files.read_text("generation_config.json")?;
    ModelConfig::from_json(&config, generation.as_deref())
        .with_context(|| format!("reading the configuration of {name}"))
}

fn gguf_tensors(header: &GgufHeader) -> Vec<TensorInfo> {
    let weights = header
        .tensors
        .iter()
        .filter(|tensor| tensor.name != gguf::ROPE_FACTORS);
    weights
        .map(|tensor| TensorInfo {
            name: gguf::hugging_face_name(&tensor.name),
            dtype: tensor.kind.name(),
            shape: tensor.shape.clone(),
            bytes: tensor.bytes,
        })
        .collect()
}

fn safetensors_tensors(files: &ModelFiles) -> Result<Vec<TensorInfo>> {
    if matches!(files, ModelFiles::Embedded) {
        let (_, header) = SafeTensors::read_metadata(embedded::WEIGHTS)
            .context("the embedded model is damaged")?;
        return Ok(infos(&header));
    }
    let mut tensors = Vec::new();
    let mut shard_of: HashMap<String, String> = HashMap::new();
    for path in files.shards()? {
        let shard = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for tensor in read_shard(&path)? {
            if let Some(other) = shard_of.insert(tensor.name.clone(), shard.clone()) {
                bail!(
                    "tensor {} is in {other} and in {shard}: one of them is stale",
                    tensor.name
                );
            }
            tensors.push(tensor);
        }
    }
    check_index(files, &shard_of)?;
    Ok(tensors)
}

/// The header of one shard; the tensors of `path` lie inside the file and do not overlap.
fn read_shard(path: &Path) -> Result<Vec<TensorInfo>> {
    let reading = || format!("reading the header of {}", path.display());
    ensure!(
        path.extension()
            .is_some_and(|ending| ending == "safetensors")
            && path.to_str().is_some(),
        "{} cannot be loaded: MLX takes only UTF-8 paths that end in .safetensors",
        path.display()
    );
    let file = File::open(path).with_context(reading)?;
    // SAFETY: the map is read-only and dropped below. A file that another process cuts short
    // meanwhile would end this one, as with every program that maps model files.
    let map = unsafe { memmap2::Mmap::map(&file) }.with_context(reading)?;
    let (start, header) = SafeTensors::read_metadata(&map)
        .map_err(explain)
        .with_context(reading)?;
    let expected = 8 + start + header.data_len();
    ensure!(
        map.len() == expected,
        "{} has {} bytes where its header promises {}: it is truncated or damaged, download it \
         again",
        path.display(),
        count(map.len() as u64),
        count(expected as u64)
    );
    Ok(infos(&header))
}

/// The errors of the safetensors crate, in words that say what to do.
fn explain(error: SafeTensorError) -> anyhow::Error {
    let what = match &error {
        SafeTensorError::HeaderTooSmall => "the file is too short to have a header".to_owned(),
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength => {
            "the header is longer than the file".to_owned()
        }
        SafeTensorError::InvalidOffset(name) => {
            format!("the offsets of tensor {name} overlap others or lie outside the file")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            "the file ends before its tensors do, or has more than they fill".to_owned()
        }
        other => format!("the header is damaged ({other})"),
    };
    anyhow!("{what}: download it again")
}

fn infos(header: &Metadata) -> Vec<TensorInfo> {
    let info = |name: String| {
        let tensor = header.info(&name)?;
        Some(TensorInfo {
            dtype: format!("{:?}", tensor.dtype),
            shape: tensor.shape.clone(),
            bytes: (tensor.data_offsets.1 - tensor.data_offsets.0) as u64,
            name,
        })
    };
    header.offset_keys().into_iter().filter_map(info).collect()
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Every tensor of the index is in the shard that the index names.
fn check_index(files: &ModelFiles, shard_of: &HashMap<String, String>) -> Result<()> {
    let Some(text) = files.read_text(INDEX)? else {
        return Ok(());
    };
    let index: Index = serde_json::from_str(&text).with_context(|| format!("parsing {INDEX}"))?;
    for (tensor, shard) in &index.weight_map {
        ensure!(
            shard_of.get(tensor) == Some(shard),
            "{INDEX} says that {tensor} is in {shard}, but it is not: download the model again"
        );
    }
    Ok(())
}
