//! The header of a GGUF file (llama.cpp's format): metadata and the list of tensors.
//!
//! MLX has a reader for the tensors, but it trusts the file: a wrong length sends it past the end
//! of its memory map. So the whole header is read here first, with every length checked, and MLX
//! sees only files that passed. The metadata comes from here too, because MLX cannot list it.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little
//! endian.

mod names;
mod reader;
mod types;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use console::files;

pub use names::hugging_face_name;
use reader::Reader;
pub use types::{GgufTensor, GgufType, GgufValue};

/// The tensor that is configuration rather than weights.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";

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

impl GgufHeader {
    /// Reads the header of a file through a memory map, so that no weight is read.
    ///
    /// # Errors
    /// The file cannot be opened, or as [`GgufHeader::parse`].
    pub fn open(path: &Path) -> Result<Self> {
        let reading = || format!("reading the GGUF header of {}", path.display());
        let file = files::open(path).with_context(reading)?;
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
        let mut reader = Reader::new(bytes);
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
        header.data_offset = (reader.position() as u64).next_multiple_of(alignment);
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

    /// An id of the tokenizer: the value of `tokenizer.ggml.{key}`.
    pub(crate) fn token(&self, key: &str) -> Option<u32> {
        u32::try_from(self.u64(&format!("tokenizer.ggml.{key}"))?).ok()
    }

    /// The ids that end generation, sorted. End of text, end of turn and end of message are keys of
    /// their own.
    pub fn stop_tokens(&self) -> Vec<u32> {
        let keys = ["eos_token_id", "eot_token_id", "eom_token_id"];
        let ids: BTreeSet<u32> = keys.iter().filter_map(|key| self.token(key)).collect();
        ids.into_iter().collect()
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
