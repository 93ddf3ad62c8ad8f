//! Checkpoints with one defect each, made from the embedded model: what a broken download, another
//! program's file or a wrong guess looks like to a part.

pub mod chain;
pub mod gguf;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::hub::embedded;
use gguf::GgufFile;

/// What is wrong with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The last kilobyte of the weights is not there.
    TruncatedShard,
    /// The header claims to be longer than the whole file.
    HeaderLongerThanFile,
    /// Two tensors share bytes.
    OverlappingOffsets,
    /// A tensor ends after the end of the file.
    OffsetsOutOfRange,
    /// A tensor of layer 3 is not there.
    MissingTensor,
    /// A tensor that Llama does not have.
    ExtraTensor,
    /// A matrix is stored transposed.
    WrongShape,
    /// One weight is not a number, and so are all logits.
    NotANumber,
    /// `model_type` is one that does not exist.
    UnknownModelType,
    /// The config says that AWQ quantized the weights.
    Awq,
    /// A GGUF file with a tensor in IQ2_XXS.
    IQuantGguf,
    /// `config.json` ends in the middle.
    BrokenJson,
    /// No `tokenizer.json`.
    NoTokenizer,
    /// The chat template calls `raise_exception`.
    RaisingTemplate,
    /// No `config.json`.
    NoConfig,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::TruncatedShard,
        Self::HeaderLongerThanFile,
        Self::OverlappingOffsets,
        Self::OffsetsOutOfRange,
        Self::MissingTensor,
        Self::ExtraTensor,
        Self::WrongShape,
        Self::NotANumber,
        Self::UnknownModelType,
        Self::Awq,
        Self::IQuantGguf,
        Self::BrokenJson,
        Self::NoTokenizer,
        Self::RaisingTemplate,
        Self::NoConfig,
    ];
}

/// Writes the embedded model into `dir`, with `defect`; returns what to pass to `--model`.
///
/// # Errors
/// If `dir` cannot be written to.
pub fn broken(defect: Defect, dir: &Path) -> Result<PathBuf> {
    if defect == Defect::IQuantGguf {
        return i_quant(dir);
    }
    intact(dir)?;
    match defect {
        Defect::BrokenJson => write(dir, CONFIG, &embedded::CONFIG[..embedded::CONFIG.len() / 2])?,
        Defect::NoConfig => fs::remove_file(dir.join(CONFIG))?,
        Defect::NoTokenizer => fs::remove_file(dir.join("tokenizer.json"))?,
        Defect::UnknownModelType => edit(dir, CONFIG, "model_type", json!("llamma"))?,
        Defect::Awq => {
            let awq = json!({"quant_method": "awq", "bits": 4, "group_size": 128});
            edit(dir, CONFIG, "quantization_config", awq)?;
        }
        Defect::RaisingTemplate => {
            let template = json!("{{ raise_exception('no such role') }}");
            edit(dir, "tokenizer_config.json", "chat_template", template)?;
        }
        _ => write(dir, WEIGHTS, damaged(defect)?)?,
    }
    Ok(dir.to_owned())
}

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// Writes the embedded model into `dir` in Hugging Face layout.
///
/// # Errors
/// If `dir` cannot be written to.
pub fn intact(dir: &Path) -> Result<()> {
    write(dir, CONFIG, embedded::CONFIG)?;
    write(dir, "generation_config.json", embedded::GENERATION_CONFIG)?;
    write(dir, "tokenizer.json", embedded::TOKENIZER)?;
    write(dir, "tokenizer_config.json", embedded::TOKENIZER_CONFIG)?;
    write(dir, WEIGHTS, embedded::WEIGHTS)
}

fn write(dir: &Path, name: &str, contents: impl AsRef<[u8]>) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))
}

/// Sets one key of a JSON file.
///
/// # Errors
/// If the file cannot be read or written.
pub fn edit(dir: &Path, name: &str, key: &str, value: Value) -> Result<()> {
    let mut object: Value = serde_json::from_str(&fs::read_to_string(dir.join(name))?)?;
    object[key] = value;
    write(dir, name, object.to_string())
}

/// The embedded weights with a defect in header, data or tensor list.
fn damaged(defect: Defect) -> Result<Vec<u8>> {
    let whole = embedded::WEIGHTS;
    match defect {
        Defect::TruncatedShard => Ok(whole[..whole.len() - 1024].to_vec()),
        Defect::HeaderLongerThanFile => {
            let mut bytes = whole.to_vec();
            bytes[..8].copy_from_slice(&(whole.len() as u64 + 1).to_le_bytes());
            Ok(bytes)
        }
        Defect::OverlappingOffsets => {
            with_offsets(|offsets| offsets.iter().map(|o| o / 2).collect())
        }
        Defect::OffsetsOutOfRange => {
            let beyond = whole.len() as u64;
            with_offsets(|offsets| offsets.iter().map(|offset| offset + beyond).collect())
        }
        _ => with_tensors(|tensors| change_list(defect, tensors)),
    }
}

/// The embedded weights, the offsets of one tensor in the middle replaced.
fn with_offsets(change: impl Fn(&[u64]) -> Vec<u64>) -> Result<Vec<u8>> {
    let whole = embedded::WEIGHTS;
    let (length, _) = SafeTensors::read_metadata(whole)?;
    let mut header: Value = serde_json::from_slice(&whole[8..8 + length])?;
    let offsets = &mut header[NAME]["data_offsets"];
    *offsets = json!(change(&serde_json::from_value::<Vec<u64>>(
        offsets.clone()
    )?));
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(&whole[8 + length..]);
    Ok(bytes)
}

/// The tensor that the defects are about.
const NAME: &str = "model.layers.3.mlp.down_proj.weight";

type Tensors = BTreeMap<String, TensorView<'static>>;

fn with_tensors(change: impl Fn(&mut Tensors) -> Result<()>) -> Result<Vec<u8>> {
    let file = SafeTensors::deserialize(embedded::WEIGHTS)?;
    let mut tensors: Tensors = file.tensors().into_iter().collect();
    change(&mut tensors)?;
    Ok(safetensors::serialize(tensors, None)?)
}

fn change_list(defect: Defect, tensors: &mut Tensors) -> Result<()> {
    let name = NAME.to_owned();
    let tensor = tensors
        .remove(&name)
        .context("the embedded model has changed")?;
    match defect {
        Defect::MissingTensor => {}
        Defect::WrongShape => {
            let transposed = tensor.shape().iter().rev().copied().collect();
            tensors.insert(
                name,
                TensorView::new(tensor.dtype(), transposed, tensor.data())?,
            );
        }
        Defect::NotANumber => {
            let mut data = tensor.data().to_vec();
            data[..4].fill(0xFF); // in every float type
            let changed = TensorView::new(tensor.dtype(), tensor.shape().to_vec(), data.leak())?;
            tensors.insert(name, changed);
        }
        _ => {
            tensors.insert(name, tensor);
            let extra = TensorView::new(Dtype::F32, vec![2], &[0; 8])?;
            tensors.insert("model.layers.3.mlp.router.weight".to_owned(), extra);
        }
    }
    Ok(())
}

fn i_quant(dir: &Path) -> Result<PathBuf> {
    const IQ2_XXS: u32 = 16;
    let mut file = GgufFile::llama();
    file.tensor("blk.0.ffn_down.weight", &[256, 1], IQ2_XXS, &[0; 66]);
    let path = dir.join("model-IQ2_XXS.gguf");
    fs::write(&path, file.bytes()).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
