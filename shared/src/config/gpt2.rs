//! The configuration of GPT-2, in the terms of [`ModelConfig`].

use anyhow::{Result, bail, ensure};

use super::keys::{Keys, MAX_HEADS, MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH};
use super::{Family, ModelConfig, RopeConfig, RopeScaling};

/// The value of `model_type`.
pub(super) const MODEL_TYPE: &str = "gpt2";

/// GPT-2 has other names for the same sizes, and says nothing of what is the same in every
/// checkpoint: biases everywhere, a tied head, a key/value head for each query head.
pub(super) fn read(keys: &Keys) -> Result<ModelConfig> {
    check_variants(keys)?;
    let heads = keys.require_size("n_head", MAX_HEADS)?;
    let width = keys.require_size("n_embd", MAX_WIDTH)?;
    ensure!(
        width.is_multiple_of(heads),
        "n_embd {width} in {} is not a multiple of n_head {heads}",
        keys.file
    );
    let layers = keys.require_size("n_layer", MAX_LAYERS)?;
    let inner = keys.size("n_inner", MAX_WIDTH)?;
    Ok(ModelConfig {
        family: Family::Gpt2,
        model_type: MODEL_TYPE.to_owned(),
        hidden_size: width,
        intermediate_size: inner.unwrap_or(4 * width),
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: width / heads,
        vocab_size: keys.require_size("vocab_size", MAX_VOCABULARY)?,
        max_position_embeddings: keys.require_size("n_positions", MAX_POSITIONS)?,
        rms_norm_eps: keys
            .number("layer_norm_epsilon")?
            .ok_or_else(|| keys.missing("layer_norm_epsilon"))?,
        rope: RopeConfig {
            theta: 10_000.0,
            traditional: false,
            scaling: RopeScaling::None,
        },
        attention_bias: true,
        attention_out_bias: true,
        mlp_bias: true,
        qk_norm: false,
        tie_word_embeddings: Some(true),
        sliding_window: vec![None; layers],
        quantization: None,
        foreign: None,
        bos_token_id: keys.ids("bos_token_id")?.first().copied(),
        eos_token_ids: keys.ids("eos_token_id")?,
        torch_dtype: keys.text("torch_dtype")?.map(str::to_owned),
        remarks: vec![],
    })
}

/// What Transformers can vary and this decoder cannot. Each would load, and then talk nonsense.
fn check_variants(keys: &Keys) -> Result<()> {
    if let Some(other) = keys.text("activation_function")?
        && !["gelu_new", "gelu_pytorch_tanh"].contains(&other)
    {
        bail!(
            "activation_function {other:?} in {} is not supported: only gelu_new is",
            keys.file
        );
    }
    let variants = [
        ("scale_attn_weights", true),
        ("scale_attn_by_inverse_layer_idx", false),
        ("add_cross_attention", false),
        ("tie_word_embeddings", true),
    ];
    for (key, supported) in variants {
        let found = keys.flag(key)?.unwrap_or(supported);
        ensure!(
            found == supported,
            "{key} is {found} in {}, only {supported} is supported for GPT-2",
            keys.file
        );
    }
    for key in ["quantization", "quantization_config"] {
        ensure!(
            keys.object(key)?.is_none(),
            "{key} in {}: a quantized GPT-2 is not supported, take the original model",
            keys.file
        );
    }
    Ok(())
}
