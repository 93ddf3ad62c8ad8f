//! One decoder for the Llama family: Llama 2 and 3, SmolLM2, Mistral, Qwen2, Qwen3.
//!
//! `Attention → Mlp → Block → Model`. What differs between these models is data from `config.json`
//! and never a branch on a model's name. A field is named like its key in the checkpoint.
//!
//! Letters: B rows, L tokens in this call, S positions visible, H query heads, Hkv key/value heads,
//! D head width, E model width, F MLP width, V vocabulary.

use anyhow::{Context, Result};
use mlx_rs::fast::{ScaledDotProductAttentionMask as SdpaMask, scaled_dot_product_attention};
use mlx_rs::{Array, ops};
use shared::checkpoint::Checkpoint;
use shared::config::ModelConfig;
use shared::layers::{Embedding, JoinedLinear, Linear, RmsNorm, Rope, dims3, split, swiglu};
use shared::weights::Weights;

/// Attention with grouped key/value heads and rotated queries and keys.
#[derive(Debug)]
pub struct Attention {
    /// `q_proj`, `k_proj` and `v_proj`: the same input, so one matrix.
    qkv_proj: JoinedLinear,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    rope: Rope,
    /// H
    num_heads: i32,
    /// Hkv; H / Hkv query heads share one key/value head (GQA, arXiv 2305.13245).
    num_kv_heads: i32,
    /// D
    head_dim: i32,
    /// A token sees this many positions, its own included; `None`: all of them.
    sliding_window: Option<i32>,
}

impl Attention {
    fn load(config: &ModelConfig, weights: &mut Weights, layer: usize) -> Result<Self> {
        let prefix = format!("model.layers.{layer}.self_attn");
        let width = config.hidden_size;
        let q_width = config.num_attention_heads * config.head_dim;
        let kv_width = config.num_key_value_heads * config.head_dim;
        let bias = config.attention_bias;
        let out_bias = config.attention_out_bias;
        let mut head_norm = |name: &str| -> Result<Option<RmsNorm>> {
            let name = format!("{prefix}.{name}");
            let eps = config.rms_norm_eps;
            config
                .qk_norm
                .then(|| RmsNorm::load(weights, &name, config.head_dim, eps))
                .transpose()
        };
        Ok(Self {
            q_norm: head_norm("q_norm")?,
            k_norm: head_norm("k_norm")?,
            qkv_proj: JoinedLinear::load(
                weights,
                &prefix,
                &[
                    ("q_proj", q_width),
                    ("k_proj", kv_width),
                    ("v_proj", kv_width),
                ],
                width,
                bias,
            )?,
            o_proj: Linear::load(
                weights,
                &format!("{prefix}.o_proj"),
                width,
                q_width,
                out_bias,
            )?,
            rope: Rope::new(config),
            num_heads: config.num_attention_heads as i32,
            num_kv_heads: config.num_key_value_heads as i32,
            head_dim: config.head_dim as i32,
            sliding_window: config.sliding_window[layer].map(|window| window as i32),
        })
    }

    /// Every token looks at itself and the tokens before it.
    ///
    /// `softmax(q kᵀ / √D + mask) v`, Vaswani et al. 2017 §3.2.1 (arXiv 1706.03762)
    ///
    /// # Shapes
    /// x `[B, L, E]` → q `[B, H, L, D]`; k, v `[B, Hkv, S, D]` with `S = L` → `[B, L, E]`
    ///
    /// # Cost
    /// `2·E·(H + 2·Hkv)·D + 2·H·D·E` operations per token for the four projections, and
    /// `4·H·D·S` per token for the two products: the second part grows with the context.
    ///
    /// # Errors
    /// If `x` has another shape.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let [b, l, _] = dims3(x)?;
        let (h, hkv) = (self.num_heads, self.num_kv_heads);
        let heads = self.split_heads(&self.qkv_proj.forward(x)?)?; // [B, H + 2·Hkv, L, D]
        let heads = self.normalise(heads)?;

        // A rotation, not a sum: q·k then depends only on how far apart two tokens are. Values are
        // not rotated, but to rotate all heads is one operation less than to take them out first.
        let rotated = self.rope.forward(&heads, 0)?; // [B, H + 2·Hkv, L, D]
        let [q, k, _] = split(&rotated, &[h, h + hkv], 1)?;
        let [_, v] = split(&heads, &[h + hkv], 1)?;

        let output = attention(&q, &k, &v, self.sliding_window)?; // [B, H, L, D]
        let joined = output.transpose_axes(&[0, 2, 1, 3])?.reshape(&[b, l, -1])?; // [B, L, H·D]
        self.o_proj.forward(&joined)
    }

    /// `[B, L, heads·D]` → `[B, heads, L, D]`
    fn split_heads(&self, x: &Array) -> Result<Array> {
        let [b, l, _] = dims3(x)?;
        let x = x.reshape(&[b, l, -1, self.head_dim])?;
        Ok(x.transpose_axes(&[0, 2, 1, 3])?)
    }

    /// Normalises each head's query and key (Qwen3), which keeps the products q·k in range; nothing
    /// to do for models without. `[B, H + 2·Hkv, L, D]` → the same
    fn normalise(&self, heads: Array) -> Result<Array> {
        let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) else {
            return Ok(heads);
        };
        let (h, hkv) = (self.num_heads, self.num_kv_heads);
        let [q, k, v] = split(&heads, &[h, h + hkv], 1)?;
        let (q, k) = (q_norm.forward(&q)?, k_norm.forward(&k)?);
        Ok(ops::concatenate(&[&q, &k, &v], 1)?)
    }
}

/// `softmax(q kᵀ / √D + mask) v` as one operation of MLX, which on a GPU never writes the
/// `[B, H, L, S]` scores to memory; part 1 has the same in single steps.
///
/// # Shapes
/// q `[B, H, L, D]`; k, v `[B, Hkv, S, D]`; returns `[B, H, L, D]`
///
/// # Cost
/// Reads `2·B·Hkv·S·D` keys and values: this is what grows with the context.
///
/// # Errors
/// If H is not a multiple of Hkv, or if k and v differ in S.
pub fn attention(q: &Array, k: &Array, v: &Array, sliding_window: Option<i32>) -> Result<Array> {
    let [l, s] = [q.dim(2), k.dim(2)];
    let scale = 1.0 / (q.dim(3) as f32).sqrt();
    let mask = match sliding_window {
        Some(window) if s > window => Some(sliding_mask(l, s, window)?), // [L, S]
        _ => None,
    };
    let mask = match &mask {
        Some(mask) => Some(SdpaMask::Array(mask)),
        // One query at the end may see everything: no mask, no work.
        None => (l > 1).then_some(SdpaMask::Causal),
    };
    Ok(scaled_dot_product_attention(q, k, v, scale, mask, None)?)
}

/// `true` where query `i` may look at position `j`: `i − window < j ≤ i`. The L queries are the last
/// L of the S positions. Mistral 7B (arXiv 2310.06825) §2.
fn sliding_mask(l: i32, s: i32, window: i32) -> Result<Array> {
    let query = Array::from_iter(s - l..s, &[l, 1]);
    let position = Array::from_iter(0..s, &[1, s]);
    let causal = position.le(&query)?;
    let near = position.gt(query.subtract(Array::from_int(window))?)?;
    Ok(causal.logical_and(near)?)
}

/// SwiGLU: `W_down(silu(W_gate x) · W_up x)`. Shazeer 2020 (arXiv 2002.05202).
#[derive(Debug)]
pub struct Mlp {
    /// `gate_proj` and `up_proj`: the same input, so one matrix.
    gate_up_proj: JoinedLinear,
    down_proj: Linear,
}

impl Mlp {
    fn load(config: &ModelConfig, weights: &mut Weights, layer: usize) -> Result<Self> {
        let prefix = format!("model.layers.{layer}.mlp");
        let (width, inner, bias) = (
            config.hidden_size,
            config.intermediate_size,
            config.mlp_bias,
        );
        Ok(Self {
            gate_up_proj: JoinedLinear::load(
                weights,
                &prefix,
                &[("gate_proj", inner), ("up_proj", inner)],
                width,
                bias,
            )?,
            down_proj: Linear::load(weights, &format!("{prefix}.down_proj"), width, inner, bias)?,
        })
    }

    /// Every token for itself: no token sees another one here.
    ///
    /// # Shapes
    /// x `[B, L, E]` → gate, up `[B, L, F]` → `[B, L, E]`
    ///
    /// # Cost
    /// `6·E·F` operations per token: most of a short step, and independent of the context.
    ///
    /// # Errors
    /// If `x` has another shape.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let gate_up = self.gate_up_proj.forward(x)?; // [B, L, 2·F]
        let [gate, up] = split(&gate_up, &[gate_up.dim(2) / 2], 2)?;
        self.down_proj.forward(&swiglu(&gate, &up)?)
    }
}

/// One layer: attention, then the MLP, each on a normalised copy and added to the stream.
#[derive(Debug)]
pub struct Block {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
}

impl Block {
    fn load(config: &ModelConfig, weights: &mut Weights, layer: usize) -> Result<Self> {
        let mut norm = |name: &str| {
            let name = format!("model.layers.{layer}.{name}");
            RmsNorm::load(weights, &name, config.hidden_size, config.rms_norm_eps)
        };
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            self_attn: Attention::load(config, weights, layer)?,
            mlp: Mlp::load(config, weights, layer)?,
        })
    }

    /// # Shapes
    /// x `[B, L, E]` → `[B, L, E]`
    ///
    /// # Errors
    /// If `x` has another shape.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let normed = self.input_layernorm.forward(x)?;
        let h = x.add(self.self_attn.forward(&normed)?)?;
        let normed = self.post_attention_layernorm.forward(&h)?;
        Ok(h.add(self.mlp.forward(&normed)?)?)
    }
}

/// The whole decoder: ids in, logits out.
#[derive(Debug)]
pub struct Model {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: RmsNorm,
    /// `None`: the head is tied, the embedding's own table serves a second time.
    lm_head: Option<Linear>,
}

impl Model {
    /// Reads the weights of a checkpoint into memory.
    ///
    /// # Errors
    /// If a tensor is missing, left over or of another shape, or if a file cannot be read.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        Self::new(&checkpoint.config, checkpoint.load_weights()?)
            .with_context(|| format!("building the model of {}", checkpoint.name))
    }

    /// Builds the decoder from named tensors, each of which must be used.
    ///
    /// # Errors
    /// If a tensor is missing, left over or of another shape.
    pub fn new(config: &ModelConfig, mut weights: Weights) -> Result<Self> {
        let (vocab, width) = (config.vocab_size, config.hidden_size);
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Block::load(config, &mut weights, layer))
            .collect::<Result<_>>()?;
        let lm_head = (!weights.tied())
            .then(|| Linear::load(&mut weights, "lm_head", vocab, width, false))
            .transpose()?;
        let model = Self {
            embed_tokens: Embedding::load(&mut weights, "model.embed_tokens", vocab, width)?,
            layers,
            norm: RmsNorm::load(&mut weights, "model.norm", width, config.rms_norm_eps)?,
            lm_head,
        };
        weights.finish()?;
        Ok(model)
    }

    /// What the layers make of the tokens, before the head.
    ///
    /// # Shapes
    /// ids `[B, L]` below `vocab_size` → `[B, L, E]`
    ///
    /// # Errors
    /// If `ids` has another shape.
    pub fn hidden(&self, ids: &Array) -> Result<Array> {
        let mut x = self.embed_tokens.forward(ids)?; // [B, L, E]
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer
                .forward(&x)
                .with_context(|| format!("in layer {index}"))?;
        }
        self.norm.forward(&x)
    }

    /// A score for every token of the vocabulary.
    ///
    /// # Shapes
    /// hidden `[B, L, E]` → `[B, L, V]`
    ///
    /// # Errors
    /// If `hidden` has another shape.
    pub fn logits(&self, hidden: &Array) -> Result<Array> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => self.embed_tokens.as_linear(hidden),
        }
    }

    /// The scores for the token after the last one.
    ///
    /// The head sees one position of L: for a large vocabulary it is the widest matrix of all, and
    /// the other rows would be thrown away.
    ///
    /// # Shapes
    /// ids `[B, L]` → `[B, V]`
    ///
    /// # Errors
    /// If `ids` has another shape.
    pub fn next_logits(&self, ids: &Array) -> Result<Array> {
        let hidden = self.hidden(ids)?; // [B, L, E]
        let last = ops::split_at_indices(&hidden, &[hidden.dim(1) - 1], 1)?
            .pop()
            .context("no tokens to continue")?; // [B, 1, E]
        Ok(self.logits(&last)?.squeeze_axes(&[1])?) // [B, V]
    }
}
