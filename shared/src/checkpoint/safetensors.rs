//! The headers of safetensors files, in one shard or many.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use console::numbers::count;
use console::text::one_line;
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, SafeTensorError};
use serde::Deserialize;

use super::TensorInfo;
use super::stored::Stored;
use crate::hub::{INDEX, ModelFiles};
use crate::remarks::clipped;

impl Stored {
    /// All tensors of a checkpoint in safetensors.
    pub(super) fn read(files: &ModelFiles) -> Result<Self> {
        if let ModelFiles::Embedded(model) = files {
            let (_, header) = SafeTensors::read_metadata(model.weights())
                .context("the embedded model is damaged")?;
            return Ok(Self {
                tensors: infos(&header),
                contradiction: None,
            });
        }
        let mut tensors = Vec::new();
        let mut shard_of: HashMap<String, String> = HashMap::new();
        for path in files.shards()? {
            let shard = path.file_name().unwrap_or_default();
            let shard = shard.to_string_lossy().into_owned();
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
        Ok(Self {
            tensors,
            contradiction: contradiction(files, &shard_of)?,
        })
    }
}

fn read_shard(path: &Path) -> Result<Vec<TensorInfo>> {
    Ok(infos(&header(path)?.1))
}

/// The header of one shard, and the byte at which the data of its tensors begins; the tensors of `path` lie
/// inside the file and do not overlap.
pub(super) fn header(path: &Path) -> Result<(u64, Metadata)> {
    let reading = || format!("reading the header of {}", path.display());
    ensure!(
        path.extension()
            .is_some_and(|ending| ending == "safetensors")
            && path.to_str().is_some(),
        "{} cannot be loaded: MLX takes only UTF-8 paths that end in .safetensors",
        path.display()
    );
    let file = console::files::open(path).with_context(reading)?;
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
    Ok((8 + start as u64, header))
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
    // The crate quotes the header as it is.
    anyhow!("{}: download it again", one_line(&what))
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

/// The first tensor that is not in the shard that the index names for it.
fn contradiction(files: &ModelFiles, shard_of: &HashMap<String, String>) -> Result<Option<String>> {
    let Some(text) = files.read_text(INDEX)? else {
        return Ok(None);
    };
    let index: Index = match serde_json::from_str(&text) {
        Ok(index) => index,
        Err(error) => return Ok(Some(format!("{INDEX} cannot be read ({error})"))),
    };
    let wrong = index
        .weight_map
        .into_iter()
        .find(|(tensor, shard)| shard_of.get(tensor) != Some(shard));
    Ok(wrong.map(|(tensor, shard)| {
        let shown = |name: &str| one_line(&clipped(name, 80));
        let (tensor, shard) = (shown(&tensor), shown(&shard));
        format!("{INDEX} says that {tensor} is in {shard}, but it is not")
    }))
}
