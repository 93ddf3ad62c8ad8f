//! llama.cpp's names of tensors → those of Hugging Face.

/// The Hugging Face name of a tensor that llama.cpp calls `name`; unknown names stay as they are.
pub fn hugging_face_name(name: &str) -> String {
    let (module, parameter) = name.rsplit_once('.').unwrap_or((name, ""));
    let renamed = match module {
        "token_embd" => "model.embed_tokens".to_owned(),
        "output_norm" => "model.norm".to_owned(),
        "output" => "lm_head".to_owned(),
        _ => match block_module(module) {
            Some(module) => module,
            None => return name.to_owned(),
        },
    };
    format!("{renamed}.{parameter}")
}

/// Whether the rows of a head are stored as interleaved pairs: llama.cpp has those of q and k so, in files of
/// the `llama` architecture. Hugging Face has the two halves of a head one after the other.
pub(crate) fn is_paired(model_type: &str, name: &str) -> bool {
    model_type == "llama" && (name.contains(".attn_q.") || name.contains(".attn_k."))
}

/// `blk.3.attn_q` → `model.layers.3.self_attn.q_proj`.
fn block_module(module: &str) -> Option<String> {
    let (layer, part) = module.strip_prefix("blk.")?.split_once('.')?;
    let part = match part {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}"))
}
