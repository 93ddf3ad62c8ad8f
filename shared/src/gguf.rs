//! The header of a GGUF file (llama.cpp's format): metadata and the list of tensors.
//!
//! MLX has a reader for the tensors, but it trusts the file: a wrong length sends it past the end of
//! its memory map. So the whole header is read here first, with every length checked, and MLX sees
//! only files that passed. The metadata comes from here too, because MLX cannot list it.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little
//! endian.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::config::{
    GroupQuantization, MODEL_TYPES, ModelConfig, Quantization, RopeConfig, RopeScaling,
};

/// Everything in a GGUF file that is not weights.
#[derive(Debug, Clone)]
pub struct GgufHeader {
    /// Metadata by key, e.g. `llama.block_count`.
    pub metadata: HashMap<String, GgufValue>,
    /// Tensors in file order.
    pub tensors: Vec<GgufTensor>,
    /// Where the data of the tensors begins, in bytes from the start of the file.
    pub data_offset: u64,
    /// Contents of the tensor `rope_freqs.weight`: one divisor for each RoPE frequency (D/2), which
    /// is how llama.cpp stores Llama 3 scaling. It belongs to the configuration.
    pub rope_factors: Option<Vec<f32>>,
}

/// One metadata value. Integers are widened to 64 bits.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// uint8 to uint64.
    Unsigned(u64),
    /// int8 to int64.
    Signed(i64),
    /// float32.
    Float(f32),
    /// bool.
    Bool(bool),
    /// A UTF-8 string.
    String(String),
    /// A list of unsigned integers.
    Unsigneds(Vec<u64>),
    /// A list of signed integers.
    Signeds(Vec<i64>),
    /// A list of float32.
    Floats(Vec<f32>),
    /// A list of bools.
    Bools(Vec<bool>),
    /// A list of UTF-8 strings.
    Strings(Vec<String>),
}

/// One entry of the tensor list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// llama.cpp's name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// Outermost axis first, as in safetensors (the file has it the other way round).
    pub shape: Vec<usize>,
    /// How the elements are stored.
    pub kind: GgufType,
    /// Bytes from [`GgufHeader::data_offset`].
    pub offset: u64,
    /// Size in the file; 0 for [`GgufType::Other`].
    pub bytes: u64,
}

/// How a tensor's elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum GgufType {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// bfloat16.
    BF16,
    /// 4 bits with a 16-bit scale for each 32 elements.
    Q4_0,
    /// 4 bits with a 16-bit scale and a 16-bit minimum for each 32 elements.
    Q4_1,
    /// 8 bits with a 16-bit scale for each 32 elements.
    Q8_0,
    /// A type that cannot be loaded, by its number.
    Other(u32),
}

/// Names of the types that exist but cannot be loaded, for the error message.
const OTHER_TYPES: [(u32, &str); 25] = [
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (39, "MXFP4"),
];

impl GgufType {
    /// From the number in the file.
    pub fn from_id(id: u32) -> Self {
        match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            30 => Self::BF16,
            other => Self::Other(other),
        }
    }

    /// llama.cpp's name of the type.
    pub fn name(self) -> String {
        let known = |id| OTHER_TYPES.iter().find(|(other, _)| *other == id);
        match self {
            Self::Other(id) => known(id).map_or(format!("type {id}"), |(_, name)| (*name).into()),
            loadable => format!("{loadable:?}"),
        }
    }

    /// Elements and bytes of one block; `None` for types that cannot be loaded.
    fn block(self) -> Option<(u64, u64)> {
        match self {
            Self::F32 => Some((1, 4)),
            Self::F16 | Self::BF16 => Some((1, 2)),
            Self::Q4_0 => Some((32, 18)),
            Self::Q4_1 => Some((32, 20)),
            Self::Q8_0 => Some((32, 34)),
            Self::Other(_) => None,
        }
    }

    /// The affine parameters MLX unpacks this type into; `None` if it isn't quantized.
    pub fn quantization(self) -> Option<GroupQuantization> {
        match self {
            Self::Q4_0 | Self::Q4_1 => Some(GroupQuantization {
                group_size: 32,
                bits: 4,
            }),
            Self::Q8_0 => Some(GroupQuantization {
                group_size: 32,
                bits: 8,
            }),
            _ => None,
        }
    }
}

impl GgufHeader {
    /// Reads the header of a file through a memory map, so that no weight is read.
    ///
    /// # Errors
    /// The file cannot be opened, or as [`GgufHeader::parse`].
    pub fn open(path: &Path) -> Result<Self> {
        let reading = || format!("reading the GGUF header of {}", path.display());
        let file = File::open(path).with_context(reading)?;
        // SAFETY: the map is read-only and dropped below. A file that another process cuts short
        // meanwhile would end this one, as with every program that maps model files.
        let map = unsafe { memmap2::Mmap::map(&file) }.with_context(reading)?;
        Self::parse(&map).with_context(reading)
    }

    /// Parses the start of `bytes`, the contents of a whole file.
    ///
    /// # Errors
    /// The bytes are not GGUF version 2 or 3, end too early, have a tensor outside the file, or
    /// use something that MLX's reader gets wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader { bytes, at: 0 };
        ensure!(
            reader.take(4).ok() == Some(b"GGUF"),
            "not a GGUF file: it does not start so"
        );
        let version = reader.u32()?;
        ensure!(
            version == 2 || version == 3,
            "GGUF version {version} is not supported (2 and 3 are): convert the model again"
        );
        let (tensor_count, metadata_count) = (reader.u64()?, reader.u64()?);
        let mut metadata = HashMap::new();
        for _ in 0..metadata_count {
            let key = reader.string().context("in a metadata key")?;
            let value = reader
                .value()
                .with_context(|| format!("in the metadata key {key:?}"))?;
            metadata.insert(key, value);
        }
        let mut header = Self {
            metadata,
            tensors: vec![],
            data_offset: 0,
            rope_factors: None,
        };
        for index in 0..tensor_count {
            let context = || format!("in entry {index} of the tensor list");
            header.tensors.push(reader.tensor().with_context(context)?);
        }
        let alignment = header.alignment()?;
        header.data_offset = (reader.at as u64).next_multiple_of(alignment);
        header.check_tensors(bytes.len() as u64, alignment)?;
        header.rope_factors = header.read_rope_factors(bytes)?;
        Ok(header)
    }

    /// A string value.
    pub fn string(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            GgufValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// An integer value of any width that is not negative.
    pub fn u64(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key)? {
            GgufValue::Unsigned(number) => Some(*number),
            GgufValue::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A float value.
    pub fn f32(&self, key: &str) -> Option<f32> {
        match self.metadata.get(key)? {
            GgufValue::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// A bool value.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key)? {
            GgufValue::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A list of strings.
    pub fn strings(&self, key: &str) -> Option<Vec<&str>> {
        match self.metadata.get(key)? {
            GgufValue::Strings(texts) => Some(texts.iter().map(String::as_str).collect()),
            _ => None,
        }
    }

    /// A list of floats.
    pub fn f32s(&self, key: &str) -> Option<Vec<f32>> {
        match self.metadata.get(key)? {
            GgufValue::Floats(numbers) => Some(numbers.clone()),
            _ => None,
        }
    }

    /// A list of integers, none of them negative.
    pub fn u64s(&self, key: &str) -> Option<Vec<u64>> {
        match self.metadata.get(key)? {
            GgufValue::Unsigneds(numbers) => Some(numbers.clone()),
            GgufValue::Signeds(numbers) => numbers
                .iter()
                .map(|&number| u64::try_from(number).ok())
                .collect(),
            _ => None,
        }
    }

    /// The entry of one tensor, by llama.cpp's name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    fn alignment(&self) -> Result<u64> {
        let alignment = self.u64("general.alignment").unwrap_or(32);
        ensure!(
            alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment),
            "general.alignment is {alignment}, expected a small power of two from 8"
        );
        Ok(alignment)
    }

    fn check_tensors(&self, file_bytes: u64, alignment: u64) -> Result<()> {
        let mut names = HashSet::new();
        for tensor in &self.tensors {
            ensure!(
                names.insert(&tensor.name),
                "tensor {} is listed twice",
                tensor.name
            );
            ensure!(
                tensor.offset.is_multiple_of(alignment),
                "tensor {} does not begin at a multiple of {alignment} bytes",
                tensor.name
            );
            let end = self.data_offset.checked_add(tensor.offset);
            let end = end.and_then(|start| start.checked_add(tensor.bytes));
            ensure!(
                end.is_some_and(|end| end <= file_bytes),
                "tensor {} lies beyond the end of the file: {file_bytes} bytes are there, \
                 download it again",
                tensor.name
            );
        }
        Ok(())
    }

    fn read_rope_factors(&self, bytes: &[u8]) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.tensor(ROPE_FACTORS) else {
            return Ok(None);
        };
        ensure!(
            tensor.kind == GgufType::F32,
            "tensor {ROPE_FACTORS} is stored as {}, expected F32",
            tensor.kind.name()
        );
        let start = (self.data_offset + tensor.offset) as usize;
        let stored = bytes.get(start..start + tensor.bytes as usize);
        let stored = stored.context("the RoPE factors lie beyond the end of the file")?;
        let (fours, _) = stored.as_chunks();
        Ok(Some(
            fours.iter().map(|&four| f32::from_le_bytes(four)).collect(),
        ))
    }
}

/// The tensor that is configuration rather than weights.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Far above any vocabulary. Short integers grow to 64 bits here, and no file may fill the memory.
const MAX_LIST: u64 = 1 << 24;

/// Walks over the file; every method fails instead of reading past the end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let found = usize::try_from(count)
            .ok()
            .and_then(|count| rest.get(..count));
        let found = found.ok_or_else(|| {
            let (at, left) = (self.at, rest.len());
            anyhow!(
                "{count} bytes wanted at byte {at}, but only {left} are left: download it again"
            )
        })?;
        self.at += found.len();
        Ok(found)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<String> {
        let length = self.u64()?;
        let text = std::str::from_utf8(self.take(length)?).context("a string is not UTF-8")?;
        Ok(text.to_owned())
    }

    fn value(&mut self) -> Result<GgufValue> {
        let kind = self.u32()?;
        Ok(match kind {
            8 => GgufValue::String(self.string()?),
            9 => self.list()?,
            kind => match self.numbers(kind, 1)? {
                GgufValue::Unsigneds(values) => GgufValue::Unsigned(values[0]),
                GgufValue::Signeds(values) => GgufValue::Signed(values[0]),
                GgufValue::Floats(values) => GgufValue::Float(values[0]),
                GgufValue::Bools(values) => GgufValue::Bool(values[0]),
                other => other,
            },
        })
    }

    fn list(&mut self) -> Result<GgufValue> {
        let (kind, count) = (self.u32()?, self.u64()?);
        ensure!(count <= MAX_LIST, "a list of {count} values is too long");
        match kind {
            8 => Ok(GgufValue::Strings(
                (0..count).map(|_| self.string()).collect::<Result<_>>()?,
            )),
            9 => bail!("lists of lists are not supported"),
            kind => self.numbers(kind, count),
        }
    }

    /// `count` values of a type of fixed width.
    fn numbers(&mut self, kind: u32, count: u64) -> Result<GgufValue> {
        let width: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10 | 11 => 8,
            // MLX's reader takes them for 32 bits wide and loses its place in the file.
            12 => bail!("64-bit floats in metadata are not supported"),
            kind => bail!("unknown value type {kind}"),
        };
        let bytes = self.take(count.saturating_mul(width))?;
        let values = bytes.chunks_exact(width as usize);
        Ok(match kind {
            0 | 2 | 4 | 10 => GgufValue::Unsigneds(values.map(unsigned).collect()),
            1 | 3 | 5 | 11 => GgufValue::Signeds(values.map(signed).collect()),
            6 => GgufValue::Floats(values.map(|v| f32::from_bits(unsigned(v) as u32)).collect()),
            _ => GgufValue::Bools(values.map(|value| value[0] != 0).collect()),
        })
    }

    fn tensor(&mut self) -> Result<GgufTensor> {
        let name = self.string()?;
        let printable = !name.contains(char::is_control) && name.len() <= 256;
        ensure!(
            printable,
            "{:?} is not a name",
            name.chars().take(40).collect::<String>()
        );
        let rank = self.u32()?;
        ensure!(
            (1..=4).contains(&rank),
            "tensor {name} has {rank} axes, expected 1 to 4"
        );
        let mut shape = Vec::new();
        for _ in 0..rank {
            let size = self.u64()?;
            let fits = (1..=i32::MAX as u64).contains(&size);
            ensure!(fits, "tensor {name} has an axis of size {size}");
            shape.insert(0, size as usize);
        }
        let (kind, offset) = (GgufType::from_id(self.u32()?), self.u64()?);
        let bytes = stored_bytes(&name, kind, &shape)?;
        Ok(GgufTensor {
            name,
            shape,
            kind,
            offset,
            bytes,
        })
    }
}

/// Little-endian bytes, at most eight of them.
fn unsigned(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn signed(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len() as u32;
    (unsigned(bytes) << unused) as i64 >> unused
}

fn stored_bytes(name: &str, kind: GgufType, shape: &[usize]) -> Result<u64> {
    let Some((block, block_bytes)) = kind.block() else {
        return Ok(0);
    };
    let row = *shape.last().unwrap_or(&1) as u64;
    ensure!(
        row.is_multiple_of(block),
        "tensor {name} has rows of {row}, not in blocks of {block}"
    );
    ensure!(
        block == 1 || name.ends_with(".weight"),
        "tensor {name} must not be quantized"
    );
    let elements = shape
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size as u64));
    let bytes = elements.and_then(|elements| (elements / block).checked_mul(block_bytes));
    bytes.with_context(|| format!("tensor {name} is impossibly large: {shape:?}"))
}

/// The Hugging Face name of a tensor that llama.cpp calls `name`; unknown names stay as they are.
pub fn hugging_face_name(name: &str) -> String {
    let (module, parameter) = name.rsplit_once('.').unwrap_or((name, ""));
    let renamed = match module {
        "token_embd" => "model.embed_tokens".to_owned(),
        "output_norm" => "model.norm".to_owned(),
        "output" => "lm_head".to_owned(),
        _ => match block_module(module) {
            Some(module) => module,
            None => return name.to_owned(),
        },
    };
    format!("{renamed}.{parameter}")
}

/// `blk.3.attn_q` → `model.layers.3.self_attn.q_proj`.
fn block_module(module: &str) -> Option<String> {
    let (layer, part) = module.strip_prefix("blk.")?.split_once('.')?;
    let part = match part {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}"))
}

/// [`ModelConfig::from_gguf`].
pub(crate) fn read_config(header: &GgufHeader) -> Result<ModelConfig> {
    let architecture = header.string("general.architecture");
    let architecture = architecture.context("general.architecture is missing")?;
    // llama.cpp stores Mistral as llama.
    ensure!(
        MODEL_TYPES.contains(&architecture) && architecture != "mistral",
        "architecture {architecture:?} is not supported: only llama (with Mistral), qwen2 and qwen3"
    );
    check_types(header)?;
    read_metadata(&Keys {
        header,
        architecture,
    })
    .context("in the GGUF metadata")
}

fn read_metadata(keys: &Keys) -> Result<ModelConfig> {
    let header = keys.header;
    keys.refuse_variants()?;
    let heads = keys.size("attention.head_count")?;
    let hidden_size = keys.size("embedding_length")?;
    let layers = keys.size("block_count")?;
    let head_dim = keys.head_dim(hidden_size, heads)?;
    ModelConfig {
        model_type: keys.architecture.to_owned(),
        hidden_size,
        intermediate_size: keys.size("feed_forward_length")?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: keys
            .optional_size("attention.head_count_kv")?
            .unwrap_or(heads),
        head_dim,
        vocab_size: keys.vocabulary()?,
        max_position_embeddings: keys.size("context_length")?,
        learned_positions: false,
        rms_norm_eps: keys.float("attention.layer_norm_rms_epsilon")?,
        rope: keys.rope()?,
        attention_bias: header.tensor("blk.0.attn_q.bias").is_some(),
        attention_out_bias: header.tensor("blk.0.attn_output.bias").is_some(),
        mlp_bias: header.tensor("blk.0.ffn_up.bias").is_some(),
        qk_norm: header.tensor("blk.0.attn_q_norm.weight").is_some(),
        tie_word_embeddings: Some(header.tensor("output.weight").is_none()),
        sliding_window: vec![None; layers.min(1 << 16)],
        quantization: read_quantization(header),
        bos_token_id: keys.token("bos_token_id"),
        eos_token_ids: keys.stop_tokens(),
        torch_dtype: None,
    }
    .validate()
}

/// Names every type that cannot be loaded, with one tensor each: the reader then knows whether to
/// look for another file of the same model.
fn check_types(header: &GgufHeader) -> Result<()> {
    let mut refused = BTreeMap::new();
    for tensor in &header.tensors {
        if tensor.kind.block().is_none() {
            refused.entry(tensor.kind.name()).or_insert(&tensor.name);
        }
    }
    let list: Vec<_> = refused
        .iter()
        .map(|(kind, name)| format!("{kind} ({name})"))
        .collect();
    ensure!(
        list.is_empty(),
        "tensors are stored as {}: only F32, F16, BF16, Q4_0, Q4_1 and Q8_0 can be loaded, choose \
         such a file of the model",
        list.join(", ")
    );
    Ok(())
}

/// The most frequent parameters become the default, the others overrides.
fn read_quantization(header: &GgufHeader) -> Option<Quantization> {
    let mut modules = BTreeMap::new();
    let mut counts: BTreeMap<GroupQuantization, usize> = BTreeMap::new();
    for tensor in &header.tensors {
        let Some(group) = tensor.kind.quantization() else {
            continue;
        };
        *counts.entry(group).or_default() += 1;
        let name = hugging_face_name(&tensor.name);
        modules.insert(name.trim_end_matches(".weight").to_owned(), Some(group));
    }
    let (default, _) = counts.into_iter().max_by_key(|&(_, count)| count)?;
    modules.retain(|_, group| *group != Some(default));
    Some(Quantization {
        default,
        overrides: modules,
    })
}

/// Metadata keys of one architecture: `block_count` stands for `llama.block_count`.
struct Keys<'a> {
    header: &'a GgufHeader,
    architecture: &'a str,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let key = self.full(key);
        let Some(value) = self.header.metadata.get(&key) else {
            return Ok(None);
        };
        let size = self
            .header
            .u64(&key)
            .and_then(|number| usize::try_from(number).ok());
        let size = size.filter(|&size| size > 0);
        Ok(Some(size.with_context(|| {
            format!("{key} is {value:?}, expected one whole number")
        })?))
    }

    fn size(&self, key: &str) -> Result<usize> {
        let missing = || format!("{} is missing", self.full(key));
        self.optional_size(key)?.with_context(missing)
    }

    fn optional_float(&self, key: &str) -> Result<Option<f32>> {
        let key = self.full(key);
        let Some(value) = self.header.metadata.get(&key) else {
            return Ok(None);
        };
        let number = self.header.f32(&key).filter(|number| number.is_finite());
        Ok(Some(number.with_context(|| {
            format!("{key} is {value:?}, expected a finite number")
        })?))
    }

    fn float(&self, key: &str) -> Result<f32> {
        let missing = || format!("{} is missing", self.full(key));
        self.optional_float(key)?.with_context(missing)
    }

    /// Relatives of the family that would load and then compute something else.
    fn refuse_variants(&self) -> Result<()> {
        let experts = self.header.u64(&self.full("expert_count")).unwrap_or(0);
        ensure!(
            experts == 0,
            "a mixture of {experts} experts is not supported"
        );
        Ok(())
    }

    fn head_dim(&self, hidden_size: usize, heads: usize) -> Result<usize> {
        let head_dim = match self.optional_size("attention.key_length")? {
            Some(explicit) => explicit,
            None => {
                let even = hidden_size.is_multiple_of(heads);
                ensure!(
                    even,
                    "width {hidden_size} is not a multiple of {heads} heads"
                );
                hidden_size / heads
            }
        };
        for key in ["attention.value_length", "rope.dimension_count"] {
            let other = self.optional_size(key)?.unwrap_or(head_dim);
            ensure!(
                other == head_dim,
                "{} is {other}, different from the head width {head_dim}: not supported",
                self.full(key)
            );
        }
        Ok(head_dim)
    }

    fn vocabulary(&self) -> Result<usize> {
        let tokens = match self.header.metadata.get("tokenizer.ggml.tokens") {
            Some(GgufValue::Strings(tokens)) => Some(tokens.len()),
            _ => self.optional_size("vocab_size")?,
        };
        tokens.context("tokenizer.ggml.tokens is missing")
    }

    fn rope(&self) -> Result<RopeConfig> {
        let theta = self.optional_float("rope.freq_base")?.unwrap_or(10_000.0);
        let scaling = match &self.header.rope_factors {
            Some(factors) => RopeScaling::Factors(factors.clone()),
            None => self.rope_scaling()?,
        };
        // Rows of q and k are put back into Hugging Face order on loading.
        Ok(RopeConfig {
            theta,
            traditional: false,
            scaling,
        })
    }

    fn rope_scaling(&self) -> Result<RopeScaling> {
        let kind = self.header.string(&self.full("rope.scaling.type"));
        let factor = match self.optional_float("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.optional_float("rope.scale_linear")?,
        };
        let sharper = self
            .optional_float("rope.scaling.attn_factor")?
            .unwrap_or(1.0);
        ensure!(
            sharper == 1.0,
            "{} is not supported",
            self.full("rope.scaling.attn_factor")
        );
        match (kind, factor) {
            (Some("none"), _) | (None, None) => Ok(RopeScaling::None),
            (Some("linear") | None, Some(factor)) => Ok(RopeScaling::Linear { factor }),
            (Some("yarn"), Some(factor)) => Ok(RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: self
                    .size("rope.scaling.original_context_length")?,
                beta_fast: self
                    .optional_float("rope.scaling.yarn_beta_fast")?
                    .unwrap_or(32.0),
                beta_slow: self
                    .optional_float("rope.scaling.yarn_beta_slow")?
                    .unwrap_or(1.0),
                mscale: 1.0,
                mscale_all_dim: 0.0,
            }),
            (Some(kind), factor) => bail!(
                "{} is {kind:?} with factor {factor:?}: only linear and yarn with a factor are \
                 supported",
                self.full("rope.scaling.type")
            ),
        }
    }

    fn token(&self, key: &str) -> Option<u32> {
        u32::try_from(self.header.u64(&format!("tokenizer.ggml.{key}"))?).ok()
    }

    /// End of text, end of turn and end of message are keys of their own.
    fn stop_tokens(&self) -> Vec<u32> {
        let keys = ["eos_token_id", "eot_token_id", "eom_token_id"];
        let mut ids: Vec<_> = keys.iter().filter_map(|key| self.token(key)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}
