//! nvfp4 as compressed-tensors and ModelOpt store it, described and loaded under MLX's names.
//!
//! The numbers are the same: codes of E2M1, two in a byte, scales of E4M3 for each 16, and one float for the
//! matrix. Only that float is meant in three ways: MLX has the number that the largest code stands for under
//! the largest scale, ModelOpt a factor, and compressed-tensors a divisor.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, Dtype};

use super::{Checkpoint, TensorInfo};
use crate::config::Foreign;
use crate::ffi::quantized::GLOBAL_SCALE;
use crate::layers::to_f32;

/// Ends of the names of one program.
struct Names {
    codes: &'static str,
    scales: &'static str,
    global: &'static str,
    /// Scales of activations and of caches in FP8: both stay floats here.
    unused: &'static [&'static str],
}

const COMPRESSED_TENSORS: Names = Names {
    codes: ".weight_packed",
    scales: ".weight_scale",
    global: ".weight_global_scale",
    unused: &[".input_global_scale", ".k_scale", ".v_scale"],
};

const MODEL_OPT: Names = Names {
    codes: ".weight",
    scales: ".weight_scale",
    global: ".weight_scale_2",
    unused: &[".input_scale", ".k_scale", ".v_scale"],
};

fn names(foreign: Option<Foreign>) -> Option<&'static Names> {
    match foreign? {
        Foreign::CompressedTensors => Some(&COMPRESSED_TENSORS),
        Foreign::ModelOpt => Some(&MODEL_OPT),
        _ => None,
    }
}

impl Checkpoint {
    /// Gives the tensors the names and shapes that they will have in memory.
    pub(super) fn describe_nvfp4(&mut self) -> Result<()> {
        let Some(names) = names(self.config.foreign) else {
            return Ok(());
        };
        let unused = |name: &str| names.unused.iter().any(|end| name.ends_with(end));
        self.tensors.retain(|tensor| !unused(&tensor.name));
        for tensor in &mut self.tensors {
            if let Some((name, is_codes)) = names.renamed(&tensor.name, tensor.dtype == "U8") {
                if is_codes {
                    as_words(tensor)?;
                } else if name.ends_with(".scales") {
                    ensure!(
                        matches!(tensor.dtype.as_str(), "F8_E4M3" | "U8"),
                        "tensor {} is stored as {}, expected F8_E4M3",
                        tensor.name,
                        tensor.dtype
                    );
                    tensor.dtype = "U8".to_owned(); // MLX has no such floats: their bytes
                }
                tensor.name = name;
            }
        }
        Ok(())
    }

    /// Gives the arrays the names and types that MLX has for them.
    pub(super) fn rename_nvfp4(&self, tensors: &mut HashMap<String, Array>) -> Result<()> {
        let Some(names) = names(self.config.foreign) else {
            return Ok(());
        };
        for (name, array) in std::mem::take(tensors) {
            if names.unused.iter().any(|end| name.ends_with(end)) {
                continue;
            }
            let renamed = names.renamed(&name, array.dtype() == Dtype::Uint8);
            let (new, array) = match renamed {
                Some((new, true)) => (new, array.view::<u32>()?),
                Some((new, false)) if new.ends_with(".global_scale") => {
                    let scale = self.global_scale(&array);
                    (new, scale.with_context(|| format!("reading {name}"))?)
                }
                Some((new, false)) => (new, array),
                None => (name, array),
            };
            tensors.insert(new, array);
        }
        Ok(())
    }

    /// In MLX's meaning.
    fn global_scale(&self, stored: &Array) -> Result<Array> {
        let numbers = to_f32(stored)?;
        let &[number] = &numbers[..] else {
            anyhow::bail!("{} numbers, expected one", numbers.len());
        };
        let factor = match self.config.foreign {
            Some(Foreign::CompressedTensors) => 1.0 / number,
            _ => number,
        };
        ensure!(
            factor.is_finite() && factor > 0.0,
            "{number} is no scale: download the model again"
        );
        Ok(Array::from_f32(factor * GLOBAL_SCALE))
    }
}

impl Names {
    /// MLX's name of a tensor of a packed matrix, and whether it holds codes; None for all others.
    fn renamed(&self, name: &str, is_bytes: bool) -> Option<(String, bool)> {
        let module = |end| name.strip_suffix(end);
        if let Some(module) = module(self.codes).filter(|_| is_bytes) {
            return Some((format!("{module}.weight"), true));
        }
        if let Some(module) = module(self.scales) {
            return Some((format!("{module}.scales"), false));
        }
        Some((format!("{}.global_scale", module(self.global)?), false))
    }
}

/// Four bytes of codes are a word.
fn as_words(tensor: &mut TensorInfo) -> Result<()> {
    let name = &tensor.name;
    let last = tensor.shape.last_mut();
    let last = last.filter(|last| last.is_multiple_of(4));
    let last = last.with_context(|| format!("tensor {name} has rows that are no whole words"))?;
    *last /= 4;
    tensor.dtype = "U32".to_owned();
    Ok(())
}
