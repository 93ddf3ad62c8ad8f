//! The Llama family in plain operations: Llama 2 and 3, SmolLM2, Mistral, Qwen2, Qwen3.
//!
//! The same decoder as part 2's `model.rs`, opened up: every step is a method of [`Decoder`], and
//! norms, rotation and MLP are written out. A field is named like its key in the checkpoint.

use anyhow::{Context, Result};
use mlx_rs::{Array, fast};
use shared::checkpoint::{Checkpoint, mlx_dtype};
use shared::config::{ModelConfig, RopeScaling};
use shared::layers::{self, Embedding, Linear, Offsets, Rope};
use shared::weights::Weights;

use crate::attend::{self, compare, rms_norm, split_heads, swiglu};
use crate::block::{BlockPass, Projected};
use crate::decoder::{Decoder, Embedded, Part, PartWeights};
use crate::embed;
use crate::facts::{facts, parts};
use crate::trace::{Check, ModelFacts, Positions};

/// Packed models up to this size as float32 are unpacked: on a CPU, MLX multiplies packed matrices
/// in plain loops. Larger ones stay as they are, or they would not fit.
pub const UNPACK_UP_TO: u64 = 1 << 30;

/// One layer's weights.
#[derive(Debug)]
struct Block {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// `[D]`, Qwen3 only.
    q_norm: Option<Array>,
    /// `[D]`, Qwen3 only.
    k_norm: Option<Array>,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    /// `[E]`
    input_layernorm: Array,
    /// `[E]`
    post_attention_layernorm: Array,
}

/// The whole decoder.
#[derive(Debug)]
pub struct Llama {
    facts: ModelFacts,
    config: ModelConfig,
    /// Parameters, multiplied weights and bytes, per part; the table's own as [`Part::Embedding`].
    parts: Vec<(Part, PartWeights)>,
    /// Radians per position, `[D/2]`.
    frequencies: Vec<f32>,
    embed_tokens: Embedding,
    layers: Vec<Block>,
    /// `[E]`
    norm: Array,
    /// `None`: the head is tied.
    lm_head: Option<Linear>,
}

impl Llama {
    /// Reads the weights of a checkpoint, and unpacks a small packed one.
    ///
    /// # Errors
    /// If a tensor is missing, left over or of another shape, or if a file cannot be read.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        let dtype = checkpoint.dtype.filter(|_| {
            checkpoint.config.quantization.is_some() && 4 * checkpoint.parameters() <= UNPACK_UP_TO
        });
        let (config, weights) = match dtype {
            Some(dtype) => checkpoint.load_dense_weights(mlx_dtype(dtype))?,
            None => (checkpoint.config.clone(), checkpoint.load_weights()?),
        };
        Self::new(checkpoint, config, weights)
            .with_context(|| format!("building the model of {}", checkpoint.name))
    }

    fn new(checkpoint: &Checkpoint, config: ModelConfig, mut weights: Weights) -> Result<Self> {
        let (vocab, width) = (config.vocab_size, config.hidden_size);
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Block::load(&config, &mut weights, layer))
            .collect::<Result<_>>()?;
        let lm_head = (!weights.tied())
            .then(|| weights.root().linear("lm_head", vocab, width, false))
            .transpose()?;
        let unpacked = config.quantization != checkpoint.config.quantization;
        let model = Self {
            parts: parts(checkpoint, unpacked),
            facts: facts(checkpoint, unpacked),
            frequencies: layers::rope_frequencies(&config),
            embed_tokens: weights
                .scope("model")
                .embedding("embed_tokens", vocab, width)?,
            layers,
            norm: weights.take("model.norm.weight", &[width])?,
            lm_head,
            config,
        };
        weights.finish()?;
        Ok(model)
    }
}

impl Block {
    fn load(config: &ModelConfig, weights: &mut Weights, layer: usize) -> Result<Self> {
        let (e, f, d) = (
            config.hidden_size,
            config.intermediate_size,
            config.head_dim,
        );
        let (q, kv) = (
            config.num_attention_heads * d,
            config.num_key_value_heads * d,
        );
        let (bias, out_bias, mlp_bias) = (
            config.attention_bias,
            config.attention_out_bias,
            config.mlp_bias,
        );
        let mut weights = weights.scope(&format!("model.layers.{layer}"));
        let input_layernorm = weights.take("input_layernorm.weight", &[e])?;
        let post_attention_layernorm = weights.take("post_attention_layernorm.weight", &[e])?;
        let mut attention = weights.scope("self_attn");
        let mut head_norm = |name| {
            config
                .qk_norm
                .then(|| attention.take(name, &[d]))
                .transpose()
        };
        let (q_norm, k_norm) = (head_norm("q_norm.weight")?, head_norm("k_norm.weight")?);
        let q_proj = attention.linear("q_proj", q, e, bias)?;
        let k_proj = attention.linear("k_proj", kv, e, bias)?;
        let v_proj = attention.linear("v_proj", kv, e, bias)?;
        let o_proj = attention.linear("o_proj", e, q, out_bias)?;
        let mut mlp = weights.scope("mlp");
        Ok(Self {
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            q_norm,
            k_norm,
            gate_proj: mlp.linear("gate_proj", f, e, mlp_bias)?,
            up_proj: mlp.linear("up_proj", f, e, mlp_bias)?,
            down_proj: mlp.linear("down_proj", e, f, mlp_bias)?,
            input_layernorm,
            post_attention_layernorm,
        })
    }
}

impl Decoder for Llama {
    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn embed(&self, ids: &Array) -> Result<Embedded> {
        Ok(Embedded {
            tokens: self.embed_tokens.forward(ids)?,
            positions: None,
        })
    }

    fn table(&self) -> Result<Array> {
        self.embed_tokens.table()
    }

    fn attention_norm(&self, layer: usize, x: &Array) -> Result<Array> {
        rms_norm(
            x,
            &self.layers[layer].input_layernorm,
            self.config.rms_norm_eps,
        )
    }

    fn project(&self, layer: usize, normed: &Array) -> Result<Projected> {
        let block = &self.layers[layer];
        let (heads, kv_heads) = (self.facts.heads, self.facts.kv_heads);
        let split = |x: Array, heads| split_heads(&x, heads, self.facts.head_dim);
        let norm = |x: Array, weight: &Option<Array>| match weight {
            Some(weight) => rms_norm(&x, weight, self.config.rms_norm_eps),
            None => Ok(x),
        };
        Ok(Projected {
            q: norm(split(block.q_proj.forward(normed)?, heads)?, &block.q_norm)?,
            k: norm(
                split(block.k_proj.forward(normed)?, kv_heads)?,
                &block.k_norm,
            )?,
            v: split(block.v_proj.forward(normed)?, kv_heads)?,
        })
    }

    fn rotate(&self, x: &Array, offset: usize) -> Result<Array> {
        let magnitude = layers::rope_magnitude(&self.config);
        let turned = embed::rotate(x, offset, &self.frequencies, self.config.rope.traditional)?;
        match magnitude {
            1.0 => Ok(turned),
            _ => Ok(turned.multiply(attend::like(x, magnitude)?)?),
        }
    }

    fn sliding_window(&self, layer: usize) -> Option<i32> {
        self.config.sliding_window[layer].map(|window| window as i32)
    }

    fn project_out(&self, layer: usize, joined: &Array) -> Result<Array> {
        self.layers[layer].o_proj.forward(joined)
    }

    fn mlp_norm(&self, layer: usize, x: &Array) -> Result<Array> {
        let weight = &self.layers[layer].post_attention_layernorm;
        rms_norm(x, weight, self.config.rms_norm_eps)
    }

    fn mlp(&self, layer: usize, normed: &Array) -> Result<Array> {
        let block = &self.layers[layer];
        let gate = block.gate_proj.forward(normed)?; // [1, L, F]
        let up = block.up_proj.forward(normed)?; // [1, L, F]
        block.down_proj.forward(&swiglu(&gate, &up)?)
    }

    fn final_norm(&self, x: &Array) -> Result<Array> {
        rms_norm(x, &self.norm, self.config.rms_norm_eps)
    }

    fn head(&self, normed: &Array) -> Result<Array> {
        match &self.lm_head {
            Some(head) => head.forward(normed),
            None => self.embed_tokens.as_linear(normed),
        }
    }

    fn positions(&self, length: usize, q: &Array, k: &Array) -> Result<Positions> {
        Ok(Positions::Rotated {
            theta: self.config.rope.theta,
            scaling: scaling(&self.config.rope.scaling).to_owned(),
            frequencies: self.frequencies.clone(),
            interleaved: self.config.rope.traditional,
            same_distance: embed::same_distance(self, length, q, k)?,
        })
    }

    fn weights(&self, part: Part, tokens: usize) -> PartWeights {
        let all = |wanted: Part| {
            let found = self.parts.iter().find(|(part, _)| *part == wanted);
            found.map_or(PartWeights::default(), |(_, weights)| *weights)
        };
        let table = all(Part::Embedding);
        match part {
            Part::Embedding => PartWeights {
                multiplied: 0,
                bytes: table.bytes / self.facts.vocabulary as u64 * tokens as u64,
                ..table
            },
            Part::Head if self.lm_head.is_none() => PartWeights {
                parameters: 0,
                ..table
            },
            part => all(part),
        }
    }

    fn checks(&self, blocks: &[BlockPass]) -> Result<Vec<Check>> {
        let eps = self.config.rms_norm_eps;
        let rope = Rope::new(&self.config);
        let (mut norms, mut turned, mut gated) = (Vec::new(), Vec::new(), Vec::new());
        for (block, weights) in blocks.iter().zip(&self.layers) {
            for (x, ours, weight) in [
                (&block.input, &block.normed, &weights.input_layernorm),
                (
                    &block.middle,
                    &block.mlp_normed,
                    &weights.post_attention_layernorm,
                ),
            ] {
                norms.push((ours.clone(), fast::rms_norm(x, Some(weight), eps)?));
            }
            let [q, k] = rope.forward([&block.plain.q, &block.plain.k], &Offsets::All(0))?;
            turned.extend([(block.q.clone(), q), (block.k.clone(), k)]);
            let gate = weights.gate_proj.forward(&block.mlp_normed)?;
            let up = weights.up_proj.forward(&block.mlp_normed)?;
            gated.push((swiglu(&gate, &up)?, layers::swiglu(&gate, &up)?));
        }
        Ok(vec![
            compare("RMSNorm", "fast::rms_norm", &norms)?,
            compare("rotation", "fast::rope", &turned)?,
            compare("SwiGLU", "layers::swiglu", &gated)?,
        ])
    }
}

fn scaling(scaling: &RopeScaling) -> &'static str {
    match scaling {
        RopeScaling::None => "none",
        RopeScaling::Linear { .. } => "linear",
        RopeScaling::Llama3 { .. } => "llama3",
        RopeScaling::Yarn { .. } => "yarn",
        RopeScaling::Factors(_) => "factors",
    }
}
