//! What a checkpoint says of itself: its sizes, and which part of the decoder owns how many
//! weights.

use console::numbers::count;
use shared::checkpoint::{Checkpoint, mlx_dtype};

use crate::decoder::{Part, PartWeights};
use crate::trace::ModelFacts;

/// The part that a tensor of the checkpoint belongs to.
fn part_of(name: &str) -> Part {
    const PARTS: [(&str, Part); 6] = [
        ("embed_tokens", Part::Embedding),
        ("lm_head", Part::Head),
        ("norm", Part::Norms), // also q_norm and k_norm
        (".mlp.", Part::Mlp),
        (".o_proj.", Part::Output),
        (".self_attn.", Part::Qkv),
    ];
    let found = PARTS.iter().find(|(mark, _)| name.contains(mark));
    found.map_or(Part::Norms, |(_, part)| *part)
}

/// Parameters, multiplied weights and bytes of each part; `unpacked`: of a packed checkpoint as
/// floats.
pub fn parts(checkpoint: &Checkpoint, unpacked: bool) -> Vec<(Part, PartWeights)> {
    let mut parts: Vec<(Part, PartWeights)> = Part::ALL
        .iter()
        .map(|part| (*part, PartWeights::default()))
        .collect();
    for (tensor, elements) in checkpoint.elements() {
        let part = part_of(&tensor.name);
        let weights = &mut parts[part as usize].1;
        weights.parameters += elements;
        weights.multiplied += if part == Part::Norms { 0 } else { elements };
        weights.bytes += if unpacked {
            elements * checkpoint.activation_bytes() as u64
        } else {
            checkpoint.bytes_in_memory(tensor)
        };
    }
    parts
}

/// What a checkpoint of the Llama family says of itself.
pub fn facts(checkpoint: &Checkpoint, unpacked: bool) -> ModelFacts {
    let config = &checkpoint.config;
    let activation_bytes = checkpoint.activation_bytes();
    let weights = parts(checkpoint, unpacked);
    let used = checkpoint.elements().map(|(tensor, _)| tensor);
    let largest = used.max_by_key(|tensor| tensor.bytes);
    ModelFacts {
        name: checkpoint.name.clone(),
        architecture: config.model_type.clone(),
        layers: config.num_hidden_layers,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        width: config.hidden_size,
        inner: config.intermediate_size,
        vocabulary: config.vocab_size,
        context: config.max_position_embeddings,
        position_encoding: format!("rotated, theta {}", count(config.rope.theta as u64)),
        norm: "RMSNorm".to_owned(),
        activation: "SwiGLU".to_owned(),
        tied: checkpoint.tied(),
        parameters: checkpoint.parameters(),
        weight_bytes: weights.iter().map(|(_, weights)| weights.bytes).sum(),
        stored_as: stored_as(checkpoint, largest.map_or("", |tensor| &tensor.dtype)),
        computed_in: computed_in(checkpoint, activation_bytes),
        activation_bytes,
    }
}

fn stored_as(checkpoint: &Checkpoint, dtype: &str) -> String {
    match (&checkpoint.gguf, &checkpoint.config.quantization) {
        (None, Some(quantization)) => format!("{}-bit", quantization.default.bits),
        _ => dtype.to_owned(),
    }
}

fn computed_in(checkpoint: &Checkpoint, activation_bytes: usize) -> String {
    match checkpoint.dtype {
        Some(dtype) => format!("{:?}", mlx_dtype(dtype)).to_lowercase(),
        None if activation_bytes == 4 => "float32".to_owned(),
        None => "16-bit floats".to_owned(),
    }
}
