//! Keys and values of a prompt in a file, so that a second run over the same prompt starts at once.
//!
//! A safetensors file: `ids` (u32 `[N]`), `layers.{i}.keys` and `layers.{i}.values` (`[B, Hkv, N, D]`)
//! and, as metadata, what they belong to and a checksum over every byte of the file. What has no
//! matching checksum never becomes an array: damaged keys would not fail, they would talk noise.

use std::collections::HashMap;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use console::files::{open, replace_private};
use console::numbers::count;
use mlx_rs::Array;
use safetensors::tensor::{Metadata, TensorView};
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use crate::checkpoint::Checkpoint;
use crate::hub::ModelFiles;
use crate::tokenizer::Tokenizer;

const FORMAT: &str = "prompt-cache";
const VERSION: &str = "2";

/// Where the checksum stands in the header, and what stands there while it is computed.
const SEAL: &[u8] = b"\"sha256\":\"";
const BLANK: [u8; 64] = [b'0'; 64];

/// What keys and values belong to: none of these may differ when they are used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Fingerprint of the checkpoint, see [`fingerprint`].
    pub model: String,
    /// Digest of the chat template; empty if the model has none.
    pub template: String,
    /// What the cache stores: `all`, or the window that it has.
    pub stored: String,
}

impl Identity {
    /// That of a model and its chat template, with what the cache stores.
    ///
    /// # Errors
    /// If the model's files cannot be read.
    pub fn of(checkpoint: &Checkpoint, tokenizer: &Tokenizer, stored: String) -> Result<Self> {
        Ok(Self {
            model: fingerprint(checkpoint)?,
            template: tokenizer.chat_template().map_or_else(String::new, digest),
            stored,
        })
    }
}

/// What a file holds.
#[derive(Debug)]
pub struct PromptCache {
    /// The tokens `[N]`.
    pub ids: Vec<u32>,
    /// Keys and values of each layer, `[B, Hkv, S, D]`; S is N, or less if the cache forgets.
    pub layers: Vec<[Array; 2]>,
}

/// Writes the whole file beside `path` and renames it: whatever happens on the way, `path` is the old
/// file or the new one, and never a part of it. Its tokens are what somebody has said, so only its owner can read it.
///
/// # Errors
/// If the arrays cannot be evaluated, or the file cannot be written.
pub fn save(path: &Path, identity: &Identity, cache: &PromptCache) -> Result<()> {
    let doing = || format!("saving the prompt cache to {}", path.display());
    let bytes = to_bytes(identity, cache).with_context(doing)?;
    replace_private(path, &bytes).with_context(doing)
}

/// Reads a file that [`save`] wrote for the same identity.
///
/// # Errors
/// If it cannot be read, is damaged or no prompt cache, belongs to something else, or holds other
/// arrays than `layout` says.
pub fn load(path: &Path, identity: &Identity, layout: &Layout) -> Result<PromptCache> {
    let doing = || format!("loading the prompt cache {}", path.display());
    let file = open(path).with_context(doing)?;
    // SAFETY: the map is read-only and dropped below. A file that another process cuts short
    // meanwhile would end this one, as with every program that maps model files.
    let map = unsafe { memmap2::Mmap::map(&file) }.with_context(doing)?;
    // A file of gigabytes is read only if its header is right.
    check_header(&map, identity, layout).with_context(doing)?;
    let mut bytes = map.to_vec();
    drop(map);
    from_bytes(&mut bytes, identity, layout).with_context(doing)
}

/// The arrays that a model's cache has. A checksum says that a file is as it was written, not that
/// whoever wrote it meant this model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Number of layers.
    pub layers: usize,
    /// Hkv
    pub kv_heads: usize,
    /// D
    pub head_dim: usize,
    /// Positions that the model can have.
    pub positions: usize,
    /// What activations can have been computed in.
    pub types: Vec<Dtype>,
}

impl Layout {
    /// That of a checkpoint's model.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        Self {
            layers: checkpoint.config.num_hidden_layers,
            kv_heads: checkpoint.config.num_key_value_heads,
            head_dim: checkpoint.config.head_dim,
            positions: checkpoint.config.max_position_embeddings,
            types: checkpoint.activation_types(),
        }
    }

    fn check(&self, header: &Metadata) -> Result<()> {
        let tensor = |name: &str| {
            let tensor = header.info(name);
            tensor.with_context(|| format!("it has no {name}: save it again"))
        };
        let ids = tensor("ids")?;
        let [positions] = ids.shape[..] else {
            bail!("its ids are no list: save it again");
        };
        ensure!(ids.dtype == Dtype::U32, "its ids are of another type");
        // A file with holes can hold a million positions and take no room on the disk.
        ensure!(
            positions <= self.positions,
            "it holds {} positions, this model has {}: save it again",
            count(positions as u64),
            count(self.positions as u64)
        );
        let tensors = 2 * self.layers + 1;
        ensure!(
            header.tensors().len() == tensors,
            "it holds {} arrays, the cache of this model has {tensors}: save it again",
            header.tensors().len()
        );
        for index in 0..self.layers {
            let [keys, values] = [keys_name(index), values_name(index)];
            let [keys, values] = [tensor(&keys)?, tensor(&values)?];
            let stored = keys.shape.get(2).copied().unwrap_or(0);
            let shape = [1, self.kv_heads, stored, self.head_dim];
            ensure!(
                (1..=positions).contains(&stored)
                    && [keys, values]
                        .iter()
                        .all(|kv| kv.shape == shape && self.types.contains(&kv.dtype)),
                "keys and values of layer {index} do not fit this model: they are {:?} {:?} and {:?} \
                 {:?}; save it again",
                keys.dtype,
                keys.shape,
                values.dtype,
                values.shape
            );
        }
        Ok(())
    }
}

impl PromptCache {
    /// Whether `prompt` begins with these tokens and goes on: the last token of a prompt has to run,
    /// because its logits are not in the file.
    ///
    /// # Errors
    /// If it does not: with the first difference.
    pub fn check_prefix(&self, prompt: &[u32]) -> Result<()> {
        let cached = count(self.ids.len() as u64);
        let mut pairs = self.ids.iter().zip(prompt);
        if let Some(index) = pairs.position(|(cached, id)| cached != id) {
            bail!(
                "the prompt differs from the {cached} cached tokens from token {} on: a cache serves \
                 only prompts that begin with its own",
                index + 1
            );
        }
        ensure!(
            prompt.len() > self.ids.len(),
            "the prompt has {} tokens, no more than the {cached} cached ones: a cache serves only \
             prompts that go on",
            count(prompt.len() as u64)
        );
        Ok(())
    }
}

/// What tells a checkpoint from every other one: its configuration, its list of tensors, the type that
/// they are converted to, and samples of the weights' bytes.
///
/// # Cost
/// 64 blocks of 4,096 bytes per file, not all of it: a fine-tuned model differs nearly everywhere, and a
/// cache that takes as long to check as the weights take to read would be of no use.
///
/// # Errors
/// If a file cannot be read.
pub fn fingerprint(checkpoint: &Checkpoint) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}\n{:?}\n", checkpoint.config, checkpoint.dtype));
    for tensor in &checkpoint.tensors {
        hash.update(format!("{tensor:?}\n"));
    }
    let sample_file = |hash: &mut Sha256, path: &Path| {
        let file = open(path)?;
        sample(hash, file).with_context(|| format!("taking the fingerprint of {}", path.display()))
    };
    match &checkpoint.files {
        ModelFiles::Embedded(model) => sample(&mut hash, Cursor::new(model.weights()))?,
        ModelFiles::Gguf(path) => sample_file(&mut hash, path)?,
        ModelFiles::Directory(_) => {
            for path in checkpoint.files.shards()? {
                sample_file(&mut hash, &path)?;
            }
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Digest of a text, as it stands in [`Identity`].
pub fn digest(text: &str) -> String {
    hex(&Sha256::digest(text))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sample(hash: &mut Sha256, mut file: impl Read + Seek) -> io::Result<()> {
    const BLOCKS: u64 = 64;
    const BLOCK: u64 = 4096;
    let length = file.seek(SeekFrom::End(0))?;
    hash.update(length.to_le_bytes());
    let mut block = Vec::with_capacity(BLOCK as usize);
    for index in 1..=BLOCKS {
        // The last block ends with the file.
        let end = (u128::from(length) * u128::from(index) / u128::from(BLOCKS)) as u64;
        file.seek(SeekFrom::Start(end.saturating_sub(BLOCK)))?;
        block.clear();
        file.by_ref().take(BLOCK).read_to_end(&mut block)?;
        hash.update(&block);
    }
    Ok(())
}

fn to_bytes(identity: &Identity, cache: &PromptCache) -> Result<Vec<u8>> {
    let ids: Vec<u8> = cache.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let mut names = Vec::new();
    let mut arrays = Vec::new();
    for (index, [keys, values]) in cache.layers.iter().enumerate() {
        names.extend([keys_name(index), values_name(index)]);
        arrays.extend([keys.contiguous()?, values.contiguous()?]);
    }
    // The bytes are read below.
    mlx_rs::transforms::eval(&arrays)?;
    let views = arrays.iter().map(TensorView::try_from);
    let views = views.collect::<Result<Vec<_>, _>>();
    let views = views.map_err(|error| anyhow!("reading keys and values: {error}"))?;
    let ids = TensorView::new(Dtype::U32, vec![cache.ids.len()], &ids)?;
    let tensors = std::iter::once(("ids".to_owned(), ids)).chain(names.into_iter().zip(views));
    let mut bytes = safetensors::serialize(tensors, Some(metadata(identity)))?;
    seal(&mut bytes)?;
    Ok(bytes)
}

fn metadata(identity: &Identity) -> HashMap<String, String> {
    let Identity {
        model,
        template,
        stored,
    } = identity;
    let blank = String::from_utf8_lossy(&BLANK);
    let entries: [(&str, &str); 6] = [
        ("format", FORMAT),
        ("version", VERSION),
        ("model", model),
        ("template", template),
        ("stored", stored),
        ("sha256", &blank),
    ];
    let owned = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
    HashMap::from(owned)
}

fn keys_name(layer: usize) -> String {
    format!("layers.{layer}.keys")
}

fn values_name(layer: usize) -> String {
    format!("layers.{layer}.values")
}

/// Puts the checksum of the file into the file, over the zeros that stand there.
fn seal(bytes: &mut [u8]) -> Result<()> {
    let place = seal_range(bytes).context("the header has no room for a checksum")?;
    bytes[place.clone()].copy_from_slice(&BLANK);
    let checksum = hex(&Sha256::digest(&*bytes));
    bytes[place].copy_from_slice(checksum.as_bytes());
    Ok(())
}

/// Whether the checksum in the file is that of the file.
fn check_seal(bytes: &mut [u8]) -> Result<()> {
    const DAMAGED: &str = "it is damaged, its checksum is another one: delete it and save it again";
    let place = seal_range(bytes).context(DAMAGED)?;
    let stored = bytes[place.clone()].to_vec();
    seal(bytes)?;
    ensure!(bytes[place] == stored, DAMAGED);
    Ok(())
}

fn seal_range(bytes: &[u8]) -> Option<Range<usize>> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let end = usize::try_from(length).ok()?.checked_add(8)?;
    let header = bytes.get(..end)?;
    let at = header.windows(SEAL.len()).position(|text| text == SEAL)? + SEAL.len();
    (at + BLANK.len() <= end).then_some(at..at + BLANK.len())
}

fn check_header(bytes: &[u8], identity: &Identity, layout: &Layout) -> Result<()> {
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|error| anyhow!("it is cut short, damaged or no prompt cache ({error})"))?;
    let empty = HashMap::new();
    let metadata = header.metadata().as_ref().unwrap_or(&empty);
    let entry = |key: &str| metadata.get(key).map_or("", String::as_str);
    ensure!(
        entry("format") == FORMAT,
        "it is a safetensors file, but no prompt cache"
    );
    ensure!(
        entry("version") == VERSION,
        "its format has version {:?}, this program reads {VERSION}: save it again",
        entry("version")
    );
    ensure!(
        entry("model") == identity.model,
        "it was made with another model, or with its weights in another type: save it again with \
         this one"
    );
    ensure!(
        entry("template") == identity.template,
        "it was made with another chat template: save it again with this one"
    );
    ensure!(
        entry("stored") == identity.stored,
        "it is of a cache that stores {}, this one stores {}: use the same --cache",
        entry("stored"),
        identity.stored
    );
    layout.check(&header)
}

fn from_bytes(bytes: &mut [u8], identity: &Identity, layout: &Layout) -> Result<PromptCache> {
    check_header(bytes, identity, layout)?;
    check_seal(bytes)?;
    tensors(&SafeTensors::deserialize(bytes)?)
}

fn tensors(file: &SafeTensors<'_>) -> Result<PromptCache> {
    let ids = file.tensor("ids")?;
    let (ids, _) = ids.data().as_chunks::<4>();
    let array = |name: String| -> Result<Array> {
        let view = file.tensor(&name)?;
        Array::try_from(view).map_err(|error| anyhow!("reading {name}: {error}"))
    };
    let layers = (0..file.len() / 2).map(|index| -> Result<[Array; 2]> {
        Ok([array(keys_name(index))?, array(values_name(index))?])
    });
    Ok(PromptCache {
        ids: ids.iter().map(|id| u32::from_le_bytes(*id)).collect(),
        layers: layers.collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests;
