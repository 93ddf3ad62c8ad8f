//! The header of a GGUF file (llama.cpp's format): metadata and the list of tensors.
//!
//! The whole header is read with every length checked, because what comes from a network may be of any
//! length; the tensors are read later (`checkpoint`), where this header says that they lie.
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
pub(crate) use names::is_paired;
use reader::{Reader, UINT32};

use crate::remarks::{clipped, few};
pub use types::{GgufTensor, GgufType, GgufValue};

/// The tensor that is configuration rather than weights.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// What every GGUF file begins with.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";

const ALIGNMENT: &str = "general.alignment";

/// Bytes of the factors of heads that are a hundred times as wide as those of any model.
const MAX_FACTORS: u64 = 1 << 16;

/// More tensors or metadata keys than any model has.
const MAX_ENTRIES: u64 = 1 << 16;

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
    /// What was read past: a line each, for stderr.
    pub remarks: Vec<String>,
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
    /// The bytes are not GGUF version 2 or 3, end too early, or have a tensor outside the file.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        ensure!(
            reader.take(4).ok() == Some(MAGIC),
            "not a GGUF file: it does not start so"
        );
        check_version(reader.u32()?)?;
        let (tensor_count, metadata_count) = (reader.u64()?, reader.u64()?);
        ensure!(
            tensor_count <= MAX_ENTRIES && metadata_count <= MAX_ENTRIES,
            "it claims to have {tensor_count} tensors and {metadata_count} metadata keys, more than \
             any model: download it again"
        );
        let (metadata, not_utf8) = read_metadata(&mut reader, metadata_count)?;
        let mut header = Self {
            metadata,
            tensors: vec![],
            data_offset: 0,
            rope_factors: None,
            remarks: vec![],
        };
        header.check_texts(not_utf8)?;
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

    /// Free text, such as the name of the author, need not be readable: nobody reads it.
    fn check_texts(&mut self, not_utf8: Vec<String>) -> Result<()> {
        let architecture = format!(
            "{}.",
            self.string("general.architecture").unwrap_or_default()
        );
        let mut passed: Vec<&str> = Vec::new();
        for key in &not_utf8 {
            let read = key == "general.architecture"
                || key.starts_with("tokenizer.")
                || key.starts_with(&architecture);
            ensure!(!read, "in the metadata key {key:?}: a string is not UTF-8");
            passed.push(key);
        }
        if !passed.is_empty() {
            let keys = few(&passed);
            self.remarks
                .push(format!("metadata that is not UTF-8 was read past: {keys}"));
        }
        Ok(())
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

    /// A uint32, by [`read_metadata`].
    fn alignment(&self) -> Result<u64> {
        let alignment = self.u64(ALIGNMENT).unwrap_or(32);
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
        ensure!(
            tensor.bytes <= MAX_FACTORS,
            "tensor {ROPE_FACTORS} has {} bytes, more than any head has frequencies",
            tensor.bytes
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

fn check_version(version: u32) -> Result<()> {
    ensure!(
        version == 0 || version & 0xffff != 0,
        "it has GGUF version {} in big-endian order, for machines of another kind: take the \
         little-endian file of the model",
        version.swap_bytes()
    );
    ensure!(
        version == 2 || version == 3,
        "GGUF version {version} is not supported (2 and 3 are): convert the model again"
    );
    Ok(())
}

/// All keys with their values, and the keys whose values hold a string that is not UTF-8.
///
/// No key may come twice, and the alignment is a uint32, as the format has it: readers differ in which of two
/// they believe, and with another alignment the weights would be read from the wrong places.
fn read_metadata(
    reader: &mut Reader,
    count: u64,
) -> Result<(HashMap<String, GgufValue>, Vec<String>)> {
    let (mut metadata, mut not_utf8) = (HashMap::new(), Vec::new());
    for _ in 0..count {
        let key = reader.string().context("in a metadata key")?;
        let shown = clipped(&key, 80);
        let kind = reader.u32()?;
        ensure!(
            key != ALIGNMENT || kind == UINT32,
            "{ALIGNMENT} is not a uint32, as the format has it: convert the model again"
        );
        let (value, utf8) = reader
            .value(kind)
            .with_context(|| format!("in the metadata key {shown:?}"))?;
        if !utf8 {
            not_utf8.push(key.clone());
        }
        let twice = metadata.insert(key, value).is_some();
        ensure!(
            !twice,
            "the metadata key {shown:?} is there twice: convert the model again"
        );
    }
    Ok((metadata, not_utf8))
}
