//! The same checkpoint in other types, as mlx-lm's conversions make them.

use std::collections::HashMap;

use anyhow::Result;
use mlx_rs::Dtype;

use crate::checkpoint::Checkpoint;
use crate::config::{GroupQuantization, ModelConfig, Quantization};
use crate::ffi::quantized::quantize;
use crate::weights::Weights;

/// Every tensor as dense floats of `dtype`; packed ones are unpacked in f32 first.
///
/// # Errors
/// If the weights cannot be read or converted.
pub fn dense(checkpoint: &Checkpoint, dtype: Dtype) -> Result<(ModelConfig, Weights)> {
    checkpoint.load_dense_weights(dtype)
}

/// Every matrix packed by MLX, from f32, as `mlx_lm.convert -q` does.
///
/// # Errors
/// If the weights cannot be read or converted.
pub fn quantized(
    checkpoint: &Checkpoint,
    group: GroupQuantization,
) -> Result<(ModelConfig, Weights)> {
    let (mut config, weights) = dense(checkpoint, Dtype::Float32)?;
    let mut tensors = HashMap::new();
    for (name, array) in weights.into_tensors() {
        let matrix = name.strip_suffix(".weight").filter(|_| array.ndim() == 2);
        let Some(module) = matrix else {
            tensors.insert(name, array);
            continue;
        };
        let (weight, scales, biases) = quantize(&array, group)?;
        tensors.insert(format!("{module}.scales"), scales);
        tensors.extend(biases.map(|biases| (format!("{module}.biases"), biases)));
        tensors.insert(name, weight);
    }
    config.quantization = Some(Quantization {
        default: group,
        overrides: Default::default(),
    });
    Ok((config.clone(), Weights::new(tensors, &config)))
}
