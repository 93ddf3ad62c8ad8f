//! From a model's weights to packed ones.

use std::collections::HashMap;

use anyhow::Result;
use mlx_rs::{Array, ops};
use shared::config::{GroupQuantization, ModelConfig, Quantization};
use shared::weights::Weights;

/// Packs the matrices of a model between loading and building, as `plan` says for each module. What is not
/// a matrix stays as it is.
pub fn quantize_weights(
    config: &ModelConfig,
    weights: Weights,
    plan: &Quantization,
) -> Result<(ModelConfig, Weights)> {
    let mut tensors = HashMap::new();
    for (name, weight) in weights.into_tensors() {
        let module = name.strip_suffix(".weight").filter(|_| weight.ndim() == 2);
        match module.and_then(|module| Some((module, plan.of(module)?))) {
            Some((module, group)) => {
                let (codes, scales, biases) = quantize(&weight, group)?;
                tensors.insert(format!("{module}.scales"), scales);
                tensors.insert(format!("{module}.biases"), biases);
                tensors.insert(name, codes);
            }
            None => {
                tensors.insert(name, weight);
            }
        }
    }
    let config = ModelConfig {
        quantization: Some(plan.clone()),
        ..config.clone()
    };
    let weights = Weights::new(tensors, &config);
    Ok((config, weights))
}

/// `[out, in]` → codes `[out, in·bits/32]`, scales and biases `[out, in/G]`.
pub fn quantize(weight: &Array, group: GroupQuantization) -> Result<(Array, Array, Array)> {
    Ok(ops::quantize(
        weight,
        group.group_size as i32,
        group.bits as i32,
    )?)
}
