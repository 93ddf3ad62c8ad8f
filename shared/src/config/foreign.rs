//! Checkpoints that another program quantized: what `quantization_config` of `config.json` says.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::keys::Keys;
use super::{GroupQuantization, Mode, Quantization};
use crate::remarks::clipped;

/// Weights of another program that are repacked, or only renamed, while they are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// AutoAWQ.
    Awq,
    /// GPTQ, in either layout.
    Gptq {
        /// What is added to the zeros: the first version of the format stores them less one.
        add: u32,
    },
    /// compressed-tensors, in nvfp4.
    CompressedTensors,
    /// NVIDIA's ModelOpt, in nvfp4.
    ModelOpt,
}

impl Foreign {
    /// As `quant_method` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Awq => "awq",
            Self::Gptq { .. } => "gptq",
            Self::CompressedTensors => "compressed-tensors",
            Self::ModelOpt => "modelopt",
        }
    }

    /// Whether matrices are stored as 4-bit codes of `[in, out]`.
    pub(crate) fn is_columns(self) -> bool {
        matches!(self, Self::Awq | Self::Gptq { .. })
    }
}

/// What is said of another program's weights: which packing of MLX's they have, or are repacked to.
pub(super) fn read(keys: &Keys) -> Result<(Quantization, Option<Foreign>)> {
    let method = keys.text("quant_method")?.unwrap_or("unknown");
    let foreign = match method {
        "mxfp4" | "mxfp8" => None,
        "awq" => Some(awq(keys)?),
        "gptq" => Some(gptq(keys)?),
        "compressed-tensors" if keys.text("format")? == Some("nvfp4-pack-quantized") => {
            Some(Foreign::CompressedTensors)
        }
        "modelopt" if keys.text("quant_algo")? == Some("NVFP4") => Some(Foreign::ModelOpt),
        _ => return refuse(keys, method),
    };
    let mode = match foreign {
        Some(Foreign::CompressedTensors | Foreign::ModelOpt) => Some(Mode::Nvfp4),
        _ => Mode::from_name(method),
    };
    let default = match mode.and_then(Mode::only_packing) {
        Some(only) => only,
        // A hint; the shapes decide.
        None => {
            let size = keys.get("group_size").and_then(Value::as_u64);
            GroupQuantization::affine(size.unwrap_or(128) as usize, 4)
        }
    };
    let overrides = BTreeMap::new();
    Ok((Quantization { default, overrides }, foreign))
}

fn awq(keys: &Keys) -> Result<Foreign> {
    let version = keys.text("version")?.unwrap_or("gemm");
    ensure!(
        version.eq_ignore_ascii_case("gemm"),
        "the weights are quantized with AWQ in version {:?}, which is not supported: take one in \
         version \"gemm\", or an MLX conversion",
        clipped(version, 60)
    );
    check_bits(keys, "AWQ")?;
    Ok(Foreign::Awq)
}

fn gptq(keys: &Keys) -> Result<Foreign> {
    check_bits(keys, "GPTQ")?;
    match keys.text("checkpoint_format")? {
        None | Some("gptq") => Ok(Foreign::Gptq { add: 1 }),
        Some("gptq_v2") => Ok(Foreign::Gptq { add: 0 }),
        Some(other) => bail!(
            "the weights are quantized with GPTQ in the format {:?}, which is not supported: take an MLX \
             conversion of the model",
            clipped(other, 60)
        ),
    }
}

fn check_bits(keys: &Keys, method: &str) -> Result<()> {
    let bits = keys
        .size("bits", 32)?
        .or(keys.size("w_bit", 32)?)
        .unwrap_or(4);
    ensure!(
        bits == 4,
        "the weights are quantized with {method} in {bits} bits: only 4 are supported, take an MLX \
         conversion of the model"
    );
    Ok(())
}

fn refuse<T>(keys: &Keys, method: &str) -> Result<T> {
    let format = keys.text("format")?.or(keys.text("quant_algo")?);
    let format = format.map_or(String::new(), |format| {
        format!(" ({})", clipped(format, 60))
    });
    bail!(
        "the weights are quantized with {}{format} (quantization_config in config.json), which is not \
         supported: use the original model or an MLX conversion of it, such as those of the \
         mlx-community",
        clipped(method, 60)
    )
}
