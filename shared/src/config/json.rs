//! `config.json` and `generation_config.json` → [`ModelConfig`].

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::keys::{
    Keys, MAX_HEAD_DIM, MAX_HEADS, MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH, union,
};
use super::{Family, MODEL_TYPES, ModelConfig, gpt2, quantization, rope};
use crate::lenient_json;

impl ModelConfig {
    /// Reads the texts of `config.json` and, if there is one, `generation_config.json`.
    ///
    /// # Errors
    /// One line naming the key and the value: a key is missing or has an impossible value, the
    /// model type or RoPE type is not supported, the weights are quantized by something other
    /// than MLX, the text is not JSON. A generation config that is not JSON is read past, as mlx-lm
    /// does: it repeats what is known, or says how to sample.
    pub fn from_json(config: &str, generation_config: Option<&str>) -> Result<Self> {
        let mut remarks = Vec::new();
        let config = parse_object("config.json", config, &mut remarks)?;
        let keys = Keys {
            file: "config.json",
            object: &config,
        };
        let parsed = match keys.text("model_type")? {
            Some(gpt2::MODEL_TYPE) => gpt2::read(&keys)?,
            _ => read_llama(&keys)?,
        };
        let mut parsed = parsed.validate().context("config.json")?;
        if let Some(text) = generation_config {
            let ends = ends_of_generation(text, &mut remarks)?;
            parsed.eos_token_ids = union(&parsed.eos_token_ids, &ends);
        }
        parsed.remarks.extend(remarks);
        Ok(parsed)
    }
}

fn ends_of_generation(text: &str, remarks: &mut Vec<String>) -> Result<Vec<u32>> {
    let file = "generation_config.json";
    let (value, remark) = match lenient_json::parse(file, text) {
        Ok(parsed) => parsed,
        Err(error) => {
            remarks.push(format!(
                "{file} is not valid JSON ({error}) and was read past: if it names an end of text of \
                 its own, answers do not stop there"
            ));
            return Ok(vec![]);
        }
    };
    remarks.extend(remark);
    let object = value.as_object();
    let object = object.with_context(|| format!("{file} is not a JSON object"))?;
    Keys { file, object }.ids("eos_token_id")
}

fn read_llama(keys: &Keys) -> Result<ModelConfig> {
    let model_type = model_type(keys)?;
    check_activation(keys)?;
    let layers = keys.require_size("num_hidden_layers", MAX_LAYERS)?;
    let attention_bias = keys.flag("attention_bias")?.unwrap_or(false);
    let qwen2 = model_type == "qwen2";
    let heads = keys.require_size("num_attention_heads", MAX_HEADS)?;
    let hidden_size = keys.require_size("hidden_size", MAX_WIDTH)?;
    let mut remarks = Vec::new();
    if keys.flag("quantize_activations")? == Some(true) {
        remarks.push(
            "quantize_activations of config.json was read past: activations stay floats, which is slower \
             on some machines and more exact"
                .to_owned(),
        );
    }
    let (quantization, foreign) = quantization::read(keys)?;
    Ok(ModelConfig {
        family: Family::Llama,
        hidden_size,
        intermediate_size: keys.require_size("intermediate_size", MAX_WIDTH)?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: keys
            .size("num_key_value_heads", MAX_HEADS)?
            .unwrap_or(heads),
        head_dim: head_dim(keys, &model_type, hidden_size, heads)?,
        vocab_size: keys.require_size("vocab_size", MAX_VOCABULARY)?,
        max_position_embeddings: context_length(keys, &model_type)?,
        rms_norm_eps: keys
            .number("rms_norm_eps")?
            .ok_or_else(|| keys.missing("rms_norm_eps"))?,
        rope: rope::read(keys, &model_type, &mut remarks)?,
        attention_bias: attention_bias || qwen2,
        attention_out_bias: attention_bias && !qwen2,
        mlp_bias: keys.flag("mlp_bias")?.unwrap_or(false),
        qk_norm: model_type == "qwen3",
        tie_word_embeddings: keys.flag("tie_word_embeddings")?,
        sliding_window: sliding_windows(keys, &model_type, layers)?,
        quantization,
        foreign,
        bos_token_id: keys.ids("bos_token_id")?.first().copied(),
        eos_token_ids: keys.ids("eos_token_id")?,
        torch_dtype: keys
            .text("torch_dtype")?
            .or(keys.text("dtype")?)
            .map(str::to_owned),
        model_type,
        remarks,
    })
}

fn model_type(keys: &Keys) -> Result<String> {
    let found = keys
        .text("model_type")?
        .ok_or_else(|| keys.missing("model_type"))?;
    ensure!(
        MODEL_TYPES.contains(&found),
        "model_type {found:?} in config.json is not supported: choose a model of type {}",
        MODEL_TYPES.join(", ")
    );
    Ok(found.to_owned())
}

fn check_activation(keys: &Keys) -> Result<()> {
    match keys.text("hidden_act")? {
        None | Some("silu" | "swish") => Ok(()),
        Some(other) => bail!("hidden_act {other:?} in config.json is not supported: only silu is"),
    }
}

fn head_dim(keys: &Keys, model_type: &str, hidden_size: usize, heads: usize) -> Result<usize> {
    if let Some(explicit) = keys.size("head_dim", MAX_HEAD_DIM)? {
        return Ok(explicit);
    }
    // Qwen3's heads are wider than E / H, so guessing would load and then talk nonsense.
    ensure!(model_type != "qwen3", keys.missing("head_dim"));
    ensure!(
        hidden_size.is_multiple_of(heads),
        "hidden_size {hidden_size} in config.json is not a multiple of num_attention_heads {heads}"
    );
    Ok(hidden_size / heads)
}

/// The defaults are those of the Transformers configuration classes, which may leave the key out.
fn context_length(keys: &Keys, model_type: &str) -> Result<usize> {
    let default = match model_type {
        "llama" => 2048,
        "mistral" => 131_072,
        _ => 32_768,
    };
    Ok(keys
        .size("max_position_embeddings", MAX_POSITIONS)?
        .unwrap_or(default))
}

/// `layer_types` says it layer by layer; older configs leave it to the model type.
fn sliding_windows(keys: &Keys, model_type: &str, layers: usize) -> Result<Vec<Option<usize>>> {
    let window = keys.size("sliding_window", MAX_POSITIONS)?;
    if let Some(types) = keys.array("layer_types")? {
        ensure!(
            types.len() == layers,
            "layer_types in config.json has {} entries for {layers} layers",
            types.len()
        );
        return types
            .iter()
            .map(|kind| window_of(kind, window, keys))
            .collect();
    }
    let first_sliding = match model_type {
        "mistral" => 0,
        "qwen2" | "qwen3" if keys.flag("use_sliding_window")? == Some(true) => {
            keys.count("max_window_layers")?.unwrap_or(0)
        }
        _ => layers,
    };
    Ok((0..layers)
        .map(|layer| window.filter(|_| layer >= first_sliding))
        .collect())
}

fn window_of(kind: &Value, window: Option<usize>, keys: &Keys) -> Result<Option<usize>> {
    match kind.as_str() {
        Some("full_attention") => Ok(None),
        Some("sliding_attention") => {
            Ok(Some(window.ok_or_else(|| keys.missing("sliding_window"))?))
        }
        _ => bail!(
            "layer_types in config.json contains {kind}: only \"full_attention\" and \
             \"sliding_attention\" are supported"
        ),
    }
}

fn parse_object(file: &str, text: &str, remarks: &mut Vec<String>) -> Result<Map<String, Value>> {
    match lenient_json::parse(file, text) {
        Ok((Value::Object(object), remark)) => {
            remarks.extend(remark);
            Ok(object)
        }
        Ok(_) => bail!("{file} is not a JSON object"),
        Err(error) => bail!("{file} is not valid JSON: {error}"),
    }
}
