//! The same checkpoint in other types, as mlx-lm's conversions make them.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};
use mlx_rs::{Array, Dtype, ops};

use crate::checkpoint::Checkpoint;
use crate::config::{GroupQuantization, ModelConfig, Quantization};
use crate::weights::Weights;

/// Every tensor as dense floats of `dtype`; packed ones are unpacked in f32 first.
///
/// # Errors
/// If the weights cannot be read or converted.
pub fn dense(checkpoint: &Checkpoint, dtype: Dtype) -> Result<(ModelConfig, Weights)> {
    let mut config = checkpoint.config.clone();
    let tensors = unpacked(checkpoint, dtype)?;
    config.quantization = None;
    config.tie_word_embeddings = Some(checkpoint.tied());
    Ok((config.clone(), Weights::new(tensors, &config)))
}

/// Every matrix packed into `group.bits` bits by MLX, from f32, as `mlx_lm.convert -q` does.
///
/// # Errors
/// If the weights cannot be read or converted.
pub fn quantized(
    checkpoint: &Checkpoint,
    group: GroupQuantization,
) -> Result<(ModelConfig, Weights)> {
    let (mut config, _) = dense(checkpoint, Dtype::Float32)?;
    let mut tensors = HashMap::new();
    for (name, array) in unpacked(checkpoint, Dtype::Float32)? {
        let matrix = name.strip_suffix(".weight").filter(|_| array.ndim() == 2);
        let Some(module) = matrix else {
            tensors.insert(name, array);
            continue;
        };
        let (weight, scales, biases) =
            ops::quantize(&array, group.group_size as i32, group.bits as i32)?;
        tensors.insert(format!("{module}.scales"), scales);
        tensors.insert(format!("{module}.biases"), biases);
        tensors.insert(name, weight);
    }
    config.quantization = Some(Quantization {
        default: group,
        overrides: Default::default(),
    });
    Ok((config.clone(), Weights::new(tensors, &config)))
}

fn unpacked(checkpoint: &Checkpoint, dtype: Dtype) -> Result<HashMap<String, Array>> {
    let mut stored = checkpoint.load_weights()?.into_tensors();
    let modules: BTreeSet<String> = stored
        .keys()
        .filter_map(|name| Some(name.strip_suffix(".scales")?.to_owned()))
        .collect();
    for module in modules {
        let triple = unpack(checkpoint, &mut stored, &module)?;
        stored.insert(format!("{module}.weight"), triple);
    }
    stored
        .into_iter()
        .map(|(name, array)| Ok((name, array.as_dtype(dtype)?)))
        .collect()
}

fn unpack(
    checkpoint: &Checkpoint,
    stored: &mut HashMap<String, Array>,
    module: &str,
) -> Result<Array> {
    let quantization = checkpoint.config.quantization.as_ref();
    let group = quantization
        .and_then(|all| all.of(module))
        .context("scales without a config")?;
    let mut part = |name: &str| {
        stored
            .remove(&format!("{module}.{name}"))
            .with_context(|| format!("no {module}.{name}"))
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
