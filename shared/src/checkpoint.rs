//! What a checkpoint says of itself before any weight is loaded: configuration and tensor list.
//!
//! The headers are read through a memory map and with every offset checked, because MLX trusts the
//! files that it is given.

mod companions;
mod complete;
mod fit;
mod foreign;
mod gguf;
mod inspect;
mod load;
mod nvfp4;
mod packing;
mod rows;
mod safetensors;
mod stored;
mod writer;

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use console::cli::FloatType;
use mlx_rs::Dtype;
use repacking::blocks::{Form, GROUP, Kind};

pub use rows::RowReader;
use stored::Stored;
pub use writer::{CheckpointWriter, Element, NewTensor};

use crate::config::{GroupQuantization, Mode, ModelConfig};
use crate::gguf::GgufHeader;
use crate::hub::ModelFiles;
use crate::remarks::tell_all;
use crate::weights::{is_read_whole, superfluous};

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
    /// What was read past, and who decided where two files differ: a line each.
    pub remarks: Vec<String>,
}

/// What llama.cpp's blocks are to MLX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Affine codes in another order; None: MLX has no matrices of them.
    pub group: Option<GroupQuantization>,
    /// Bits of a code.
    pub bits: usize,
    /// Whether f16 holds all scales and biases, or numbers.
    pub exact_in_f16: bool,
}

/// MLX's name for a float type of the flags.
pub fn mlx_dtype(float: FloatType) -> Dtype {
    match float {
        FloatType::F32 => Dtype::Float32,
        FloatType::F16 => Dtype::Float16,
        FloatType::Bf16 => Dtype::Bfloat16,
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
    /// Reads configuration and headers. Its remarks go to stderr.
    ///
    /// # Errors
    /// If a file is missing, damaged or of a kind that is not supported: one line that names it.
    pub fn open(name: &str, files: ModelFiles) -> Result<Self> {
        let (config, stored, gguf) = match &files {
            ModelFiles::Gguf(path) => {
                let header = GgufHeader::open(path)?;
                let config = ModelConfig::from_gguf(&header)
                    .with_context(|| format!("reading {}", path.display()))?;
                (config, Stored::of_gguf(&header), Some(header))
            }
            files => (read_config(name, files)?, Stored::read(files)?, None),
        };
        let mut checkpoint = Self {
            name: name.to_owned(),
            files,
            remarks: config.remarks.clone(),
            config,
            tensors: stored.tensors,
            gguf,
            dtype: None,
        };
        checkpoint
            .describe_foreign()
            .and_then(|()| checkpoint.describe_nvfp4())
            .with_context(|| format!("reading the headers of {name}"))?;
        checkpoint.check_tensors()?;
        checkpoint.check_complete(stored.contradiction)?;
        checkpoint.read_packing();
        tell_all(&checkpoint.remarks);
        Ok(checkpoint)
    }

    /// Refuses half a model. An index is a hint: if it contradicts files that hold all of the model,
    /// it is of another build and only worth a line.
    fn check_complete(&mut self, contradiction: Option<String>) -> Result<()> {
        match (self.missing_tensor(), contradiction) {
            (Some(_), Some(contradiction)) => bail!("{contradiction}: download the model again"),
            (Some(missing), None) => Err(missing),
            (None, contradiction) => {
                let told = |text| format!("{text}; all tensors of the model are there and decide");
                self.remarks.extend(contradiction.map(told));
                Ok(())
            }
        }
    }

    /// Size of the weights in memory, in bytes.
    pub fn weight_bytes(&self) -> u64 {
        self.used_tensors()
            .map(|tensor| self.bytes_in_memory(tensor))
            .sum()
    }

    /// Bytes of the weights that a decode step reads whole.
    pub fn read_bytes(&self) -> u64 {
        let tied = self.tied();
        self.used_tensors()
            .filter(|tensor| is_read_whole(&tensor.name, tied))
            .map(|tensor| self.bytes_in_memory(tensor))
            .sum()
    }

    /// Size of one tensor in memory.
    ///
    /// Only GGUF's packed types are larger here than in the file: MLX has a scale and a bias for each 32
    /// weights, where Q4_0 and Q8_0 do without the bias and K-quants share a part of both, and there are
    /// types that MLX has no matrices of.
    pub fn bytes_in_memory(&self, tensor: &TensorInfo) -> u64 {
        let asked = self.dtype.map(|dtype| dtype.bytes() as u64);
        if let Some(kind) = Kind::from_name(&tensor.dtype) {
            let numbers = tensor.bytes / kind.bytes() as u64 * kind.numbers() as u64;
            return match kind.form() {
                Form::Affine {
                    bits,
                    exact_in_16_bits,
                } => {
                    let float = asked.unwrap_or(if exact_in_16_bits { 2 } else { 4 });
                    numbers / GROUP as u64 * (GROUP as u64 / 8 * bits as u64 + 2 * float)
                }
                Form::Numbers => numbers * asked.unwrap_or(2),
            };
        }
        match (tensor.dtype.as_str(), asked) {
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

    /// The first tensor of codes instead of numbers.
    pub fn packed_tensor(&self) -> Option<&TensorInfo> {
        let packed = |dtype: &str| dtype == "U32" || Kind::from_name(dtype).is_some();
        self.tensors.iter().find(|tensor| packed(&tensor.dtype))
    }

    /// The blocks of a tensor of a GGUF file; None for numbers, and for codes of other formats.
    pub fn blocks(tensor: &TensorInfo) -> Option<Blocks> {
        let kind = Kind::from_name(&tensor.dtype)?;
        Some(match kind.form() {
            Form::Affine {
                bits,
                exact_in_16_bits,
            } => Blocks {
                group: Some(GroupQuantization::affine(GROUP, bits)),
                bits,
                exact_in_f16: exact_in_16_bits,
            },
            Form::Numbers => Blocks {
                group: None,
                bits: kind
                    .name()
                    .chars()
                    .find_map(|c| c.to_digit(10))
                    .unwrap_or(8) as usize,
                exact_in_f16: false,
            },
        })
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
            ("scales" | "biases" | "global_scale", _) => 0,
            _ => stored,
        }
    }

    /// Bytes of one element of the activations, and so of the KV cache: MLX computes in the widest
    /// float type that takes part, and F32 takes part only where a checkpoint has it.
    pub fn activation_bytes(&self) -> usize {
        let types = self.activation_types();
        let wide = types.contains(&::safetensors::Dtype::F32);
        if wide { 4 } else { 2 }
    }

    /// The types that activations, and so the KV cache, can have: that of the weights, or F32 where
    /// several meet.
    pub(crate) fn activation_types(&self) -> Vec<::safetensors::Dtype> {
        use ::safetensors::Dtype::{BF16, F16, F32};
        match self.dtype {
            Some(FloatType::F32) => return vec![F32],
            Some(FloatType::F16) => return vec![F16],
            Some(FloatType::Bf16) => return vec![BF16],
            None => {}
        }
        let kinds: HashSet<_> = self.used_tensors().map(|tensor| &*tensor.dtype).collect();
        // What GGUF packs has numbers or scales of f16, but for those that have no room there.
        let packed: Vec<Form> = kinds
            .iter()
            .filter_map(|kind| Some(Kind::from_name(kind)?.form()))
            .collect();
        let is_wide = |form: &Form| matches!(form, Form::Affine { exact_in_16_bits, .. } if !exact_in_16_bits);
        let (wide, half) = (
            packed.iter().any(is_wide),
            packed.iter().any(|form| !is_wide(form)),
        );
        let mut types = Vec::new();
        types.extend((half || kinds.contains("F16")).then_some(F16));
        types.extend((kinds.contains("BF16") || self.has_float_rows()).then_some(BF16));
        if wide || kinds.contains("F32") || types.len() != 1 {
            types.push(F32);
        }
        types
    }

    /// Whether the embedding is packed in a float mode, whose rows MLX unpacks to BF16.
    fn has_float_rows(&self) -> bool {
        const EMBEDDING: &str = "model.embed_tokens";
        let packed = self.scaled_modules().any(|module| module == EMBEDDING);
        let quantization = self.config.quantization.as_ref();
        let group = quantization.and_then(|all| all.of(EMBEDDING));
        packed && group.is_some_and(|group| group.mode != Mode::Affine)
    }

    /// What no format forbids, but MLX or the layers could not use.
    fn check_tensors(&self) -> Result<()> {
        const KNOWN: [&str; 4] = ["F32", "F16", "BF16", "U32"];
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
                KNOWN.contains(&dtype.as_str())
                    || Kind::from_name(dtype).is_some()
                    || (dtype == "U8" && name.ends_with(".scales"))
                    || superfluous(name, self.tied()),
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
}

fn read_config(name: &str, files: &ModelFiles) -> Result<ModelConfig> {
    let config = files.read_text("config.json")?.with_context(|| {
        format!("there is no config.json in {name}: is it a model in Hugging Face layout?")
    })?;
    let generation = files.read_text("generation_config.json")?;
    ModelConfig::from_json(&config, generation.as_deref())
        .with_context(|| format!("reading the configuration of {name}"))
}
