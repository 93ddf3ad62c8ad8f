//! The tensors of a GGUF file → arrays in memory.
//!
//! Each is read straight from the mapped file, one after the other, so that beside the result only one
//! tensor is in memory twice. What MLX's own reader takes comes out as it reads it; it takes fewer types,
//! needs write access, and refuses the whole file for one tensor that it cannot read.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use console::numbers::{count, decimal};
use half::{bf16, f16};
use memmap2::Mmap;
use mlx_rs::{Array, Dtype};
use repacking::Repacked;
use repacking::blocks::{Form, GROUP, Kind, repack, unpack};
use safetensors::tensor::TensorView;

use super::{Checkpoint, mlx_dtype};
use crate::gguf::{GgufHeader, GgufTensor, GgufType, ROPE_FACTORS, hugging_face_name, is_paired};
use crate::weights::superfluous;

/// Numbers that are unpacked to 32 bits at a time, on the way to 16.
const TILE: usize = 1 << 20;

impl Checkpoint {
    /// All tensors by their names in Hugging Face's spelling.
    pub(super) fn load_gguf(&self, path: &Path) -> Result<HashMap<String, Array>> {
        let reading = || format!("reading the weights of {}", path.display());
        let header = self.gguf.as_ref().with_context(reading)?;
        let file = console::files::open(path).with_context(reading)?;
        // SAFETY: the map is read-only and dropped below. A file that another process cuts short
        // meanwhile would end this one, as with every program that maps model files.
        let map = unsafe { Mmap::map(&file) }.with_context(reading)?;
        let mut tensors = HashMap::new();
        for tensor in &header.tensors {
            let name = hugging_face_name(&tensor.name);
            if tensor.name == ROPE_FACTORS || superfluous(&name, self.tied()) {
                continue; // configuration, or not used
            }
            let parts = self.read_tensor(header, tensor, &map);
            let parts = parts.with_context(|| format!("{}: tensor {}", reading(), tensor.name))?;
            for (part, array) in parts {
                let array = self.undo_permutation(&tensor.name, array)?;
                array.eval()?; // else the file's order and ours would both stay in memory
                let name = match name.strip_suffix(".weight") {
                    Some(module) => format!("{module}.{part}"),
                    None => name.clone(),
                };
                tensors.insert(name, array);
            }
        }
        Ok(tensors)
    }

    /// What the file says and what is in memory, where those are not the same numbers in the same bits:
    /// types that MLX has no matrices of.
    pub(super) fn unpacked(&self) -> Option<String> {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut stored, mut unpacked) = (0, 0);
        for tensor in self.used_tensors() {
            let kind = Kind::from_name(&tensor.dtype);
            if kind.is_some_and(|kind| kind.form() == Form::Numbers) {
                *kinds.entry(&tensor.dtype).or_default() += 1;
                stored += tensor.bytes;
                unpacked += self.bytes_in_memory(tensor);
            }
        }
        if kinds.is_empty() {
            return None;
        }
        let tensors: usize = kinds.values().sum();
        let bits = 8 * self.dtype.map_or(2, |dtype| dtype.bytes());
        Some(format!(
            "{} tensors stored as {} are unpacked to {bits} bits, for MLX has no such matrices: {} in the \
             file, {} in memory",
            count(tensors as u64),
            kinds.into_keys().collect::<Vec<_>>().join(", "),
            decimal(stored),
            decimal(unpacked)
        ))
    }

    /// The array of a tensor as `weight`, or the parts of a packed one.
    fn read_tensor(
        &self,
        header: &GgufHeader,
        tensor: &GgufTensor,
        file: &[u8],
    ) -> Result<Vec<(&'static str, Array)>> {
        let start = header.data_offset + tensor.offset;
        let bytes = usize::try_from(start)
            .ok()
            .zip(usize::try_from(start + tensor.bytes).ok())
            .and_then(|(start, end)| file.get(start..end));
        let bytes = bytes.context("the file has become shorter: download it again")?;
        let asked = self.dtype.map(mlx_dtype);
        let kind = match tensor.kind {
            GgufType::Packed(kind) => kind,
            floats => return Ok(vec![("weight", read_floats(floats, &tensor.shape, bytes)?)]),
        };
        match kind.form() {
            Form::Affine {
                bits,
                exact_in_16_bits,
            } => {
                let exact = if exact_in_16_bits {
                    Dtype::Float16
                } else {
                    Dtype::Float32
                };
                let repacked = repack(kind, bytes).context("no affine type")?;
                parts(repacked, bits, &tensor.shape, asked.unwrap_or(exact))
            }
            Form::Numbers => {
                let dtype = asked.unwrap_or(Dtype::Float16);
                Ok(vec![(
                    "weight",
                    numbers(kind, bytes, &tensor.shape, dtype)?,
                )])
            }
        }
    }

    /// Pairs of rows become the two halves of a head. Rows move as a whole, so codes, scales and biases
    /// are treated alike.
    fn undo_permutation(&self, name: &str, array: Array) -> Result<Array> {
        let config = &self.config;
        if !is_paired(&config.model_type, name) {
            return Ok(array);
        }
        let heads = if name.contains(".attn_q.") {
            config.num_attention_heads
        } else {
            config.num_key_value_heads
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

/// As they are, but BF16, which becomes F16 as in MLX's reader.
fn read_floats(kind: GgufType, shape: &[usize], bytes: &[u8]) -> Result<Array> {
    let dtype = match kind {
        GgufType::F32 => safetensors::Dtype::F32,
        GgufType::BF16 => safetensors::Dtype::BF16,
        _ => safetensors::Dtype::F16,
    };
    let array = Array::try_from(TensorView::new(dtype, shape.to_vec(), bytes)?)?;
    Ok(match kind {
        GgufType::BF16 => array.as_dtype(Dtype::Float16)?,
        _ => array,
    })
}

/// Codes, scales and biases of a tensor of this `shape`, the latter two in `dtype`.
fn parts(
    repacked: Repacked,
    bits: usize,
    shape: &[usize],
    dtype: Dtype,
) -> Result<Vec<(&'static str, Array)>> {
    let codes = Array::from_slice(&repacked.codes, &with_last(shape, |n| n / 32 * bits)?);
    let groups = with_last(shape, |n| n / GROUP)?;
    let of = |numbers| floats(numbers, &groups, dtype);
    Ok(vec![
        ("weight", codes),
        ("scales", of(repacked.scales)?),
        ("biases", of(repacked.biases)?),
    ])
}

fn floats(numbers: Vec<f32>, shape: &[i32], dtype: Dtype) -> Result<Array> {
    Ok(match dtype {
        Dtype::Float32 => Array::from_slice(&numbers, shape),
        Dtype::Bfloat16 => Array::from_slice(&repacking::to_bf16(&numbers), shape),
        _ => Array::from_slice(&repacking::to_f16(&numbers).with_context(beyond)?, shape),
    })
}

/// All numbers of a tensor, rounded to `dtype`.
fn numbers(kind: Kind, bytes: &[u8], shape: &[usize], dtype: Dtype) -> Result<Array> {
    let sizes = with_last(shape, |n| n)?;
    let tiles = bytes.chunks(TILE / kind.numbers() * kind.bytes());
    let tiles = tiles.map(|tile| unpack(kind, tile));
    let n = shape.iter().product();
    Ok(match dtype {
        Dtype::Float32 => Array::from_slice(&unpack(kind, bytes), &sizes),
        Dtype::Bfloat16 => {
            let mut numbers: Vec<bf16> = Vec::with_capacity(n);
            tiles.for_each(|tile| numbers.extend(repacking::to_bf16(&tile)));
            Array::from_slice(&numbers, &sizes)
        }
        _ => {
            let mut numbers: Vec<f16> = Vec::with_capacity(n);
            for tile in tiles {
                numbers.extend(repacking::to_f16(&tile).with_context(beyond)?);
            }
            Array::from_slice(&numbers, &sizes)
        }
    })
}

fn beyond() -> String {
    "it has numbers beyond the range of 16-bit floats: load the model with --dtype f32".to_owned()
}

/// A shape for MLX, its last axis changed.
fn with_last(shape: &[usize], change: impl Fn(usize) -> usize) -> Result<Vec<i32>> {
    let mut shape = shape.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = change(*last);
    }
    let sizes = shape.into_iter().map(i32::try_from);
    sizes
        .collect::<Result<_, _>>()
        .context("an axis is too long")
}
