//! How MLX quantized a checkpoint, module by module.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::keys::Keys;

/// Parameters of MLX's affine quantization of one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupQuantization {
    /// G, how many neighbours in a row share a scale and a bias.
    pub group_size: usize,
    /// Bits of one weight.
    pub bits: usize,
}

impl GroupQuantization {
    /// Whether MLX has kernels for it.
    fn is_supported(self) -> bool {
        [32, 64, 128].contains(&self.group_size) && [2, 3, 4, 5, 6, 8].contains(&self.bits)
    }

    /// How a row of `inputs` weights was packed into `words` of 32 bits with `groups` scales; `None` if
    /// MLX cannot have done that.
    pub(crate) fn of_row(inputs: usize, words: usize, groups: usize) -> Option<Self> {
        let found = Self {
            group_size: inputs.checked_div(groups)?,
            bits: words.checked_mul(32)?.checked_div(inputs)?,
        };
        let fits = found.is_supported()
            && found.group_size * groups == inputs
            && found.bits * inputs == 32 * words;
        fits.then_some(found)
    }
}

/// How a checkpoint is quantized, module by module.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantization {
    /// For modules without an entry in `overrides`.
    pub default: GroupQuantization,
    /// By module path (`model.layers.0.mlp.down_proj`); `None`: this module is not quantized.
    pub overrides: BTreeMap<String, Option<GroupQuantization>>,
}

impl Quantization {
    /// What the config says of `module`; `None`: it is not quantized.
    pub fn of(&self, module: &str) -> Option<GroupQuantization> {
        self.overrides
            .get(module)
            .copied()
            .unwrap_or(Some(self.default))
    }
}

/// `quantization` is MLX's own key. `quantization_config` repeats it in MLX checkpoints, and
/// belongs to another method (AWQ, GPTQ, FP8, …) in all others.
pub(super) fn read(keys: &Keys) -> Result<Option<Quantization>> {
    if let Some(object) = keys.object("quantization")? {
        let keys = Keys {
            file: "quantization of config.json",
            object,
        };
        return Ok(Some(Quantization {
            default: group(&keys)?,
            overrides: overrides(&keys)?,
        }));
    }
    let Some(foreign) = keys.object("quantization_config")? else {
        return Ok(None);
    };
    let method = foreign
        .get("quant_method")
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    bail!(
        "the weights are quantized with {method} (quantization_config in config.json), which is \
         not supported: use the original model or an MLX conversion of it, such as those of the \
         mlx-community"
    )
}

fn overrides(keys: &Keys) -> Result<BTreeMap<String, Option<GroupQuantization>>> {
    let default = group(keys)?;
    let mut found = BTreeMap::new();
    for (module, value) in keys.object {
        let quantization = match value {
            Value::Bool(false) => None,
            Value::Bool(true) => Some(default),
            Value::Object(object) => {
                let file = "quantization of config.json";
                let keys = Keys { file, object };
                Some(group(&keys).with_context(|| format!("module {module:?}"))?)
            }
            _ => continue,
        };
        found.insert(module.clone(), quantization);
    }
    Ok(found)
}

fn group(keys: &Keys) -> Result<GroupQuantization> {
    match keys.text("mode")? {
        None | Some("affine") => {}
        Some(mode) => bail!(
            "mode {mode:?} in {} is not supported: only affine is",
            keys.file
        ),
    }
    let group_size = keys.require_size("group_size", 1 << 16)?;
    let bits = keys.require_size("bits", 32)?;
    let group = GroupQuantization { group_size, bits };
    ensure!(
        group.is_supported(),
        "group_size {group_size} with bits {bits} in {} is not supported: MLX has groups of 32, \
         64 or 128 and 2, 3, 4, 5, 6 or 8 bits",
        keys.file
    );
    Ok(group)
}
