//! One decoder for the Llama family: Llama 2 and 3, SmolLM2, Mistral, Qwen2, Qwen3.
//!
//! `Attention → Mlp → Block → Model`. What differs between these models is data from `config.json`
//! and never a branch on a model's name. A field is named like its key in the checkpoint; matrices
//! that see the same input are loaded as one, which is named after all of them.
//!
//! Letters: B rows, L tokens in this call, S positions visible, H query heads, Hkv key/value heads,
//! D head width, E model width, F MLP width, V vocabulary.

use anyhow::{Context, Result};
use mlx_rs::Array;
use shared::checkpoint::Checkpoint;
use shared::config::ModelConfig;
use shared::layers::{Embedding, JoinedLinear, Linear, Mask, RmsNorm, Rope, dims3, swiglu};
use shared::ops;
use shared::weights::{Scope, Weights};

use crate::cache::{Cache, KvCache};

/// Attention with grouped key/value heads and rotated queries and keys.
#[derive(Debug)]
pub struct Attention {
    /// `q_proj`, `k_proj` and `v_proj`.
    qkv_proj: JoinedLinear<3>,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    rope: Rope,
    /// D
    head_dim: i32,
    /// A token sees this many positions, its own included; `None`: all of them.
    sliding_window: Option<i32>,
}

impl Attention {
    fn load(config: &ModelConfig, layer: usize, mut weights: Scope<'_>) -> Result<Self> {
        let (e, d, eps) = (config.hidden_size, config.head_dim, config.rms_norm_eps);
        let (q, kv) = (
            config.num_attention_heads * d,
            config.num_key_value_heads * d,
        );
        let projections = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
        let mut head_norm = |name| {
            config
                .qk_norm
                .then(|| weights.norm(name, d, eps))
                .transpose()
        };
        Ok(Self {
            q_norm: head_norm("q_norm")?,
            k_norm: head_norm("k_norm")?,
            qkv_proj: weights.joined(projections, e, config.attention_bias)?,
            o_proj: weights.linear("o_proj", e, q, config.attention_out_bias)?,
            rope: Rope::new(config),
            head_dim: d as i32,
            sliding_window: config.sliding_window[layer].map(|window| window as i32),
        })
    }

    /// Every token looks at itself and the tokens before it, those of earlier calls included.
    ///
    /// # Shapes
    /// x `[B, L, E]` → q `[B, H, L, D]`; k, v `[B, Hkv, S, D]` with `S = offset + L` → `[B, L, E]`
    ///
    /// # Cost
    /// `2·E·(H + 2·Hkv)·D + 2·H·D·E` operations per token for the four projections, and
    /// `4·H·D·S` per token for the two products: the second part grows with the context.
    pub fn forward(&self, x: &Array, cache: &mut dyn KvCache) -> Result<Array> {
        let [b, l, _] = dims3(x)?;
        let [q, k, v] = self.qkv_proj.forward(x)?; // [B, L, H·D], and [B, L, Hkv·D] twice
        let q = self.heads(&q, self.q_norm.as_ref())?; // [B, H, L, D]
        let k = self.heads(&k, self.k_norm.as_ref())?; // [B, Hkv, L, D]
        let v = self.heads(&v, None)?; // [B, Hkv, L, D]

        let offsets = cache.offsets();
        let mask = cache.mask(l, self.sliding_window)?;
        // A rotation, not a sum: q·k then depends only on how far apart two tokens are.
        let [q, k] = self.rope.forward([&q, &k], &offsets)?;
        let (k, v) = cache.update_and_fetch(k, v)?; // [B, Hkv, S, D]

        let output = attention(&q, &k, &v, &mask)?; // [B, H, L, D]
        let output = ops::transpose_axes(&output, &[0, 2, 1, 3])?; // [B, L, H, D]
        self.o_proj.forward(&ops::reshape(&output, &[b, l, -1])?)
    }

    /// `[B, L, heads·D]` → `[B, heads, L, D]`. Qwen3 normalises each head of q and k, which keeps the
    /// products q·k in range.
    fn heads(&self, x: &Array, norm: Option<&RmsNorm>) -> Result<Array> {
        let [b, l, _] = dims3(x)?;
        let mut x = ops::reshape(x, &[b, l, -1, self.head_dim])?;
        if let Some(norm) = norm {
            x = norm.forward(&x)?;
        }
        ops::transpose_axes(&x, &[0, 2, 1, 3])
    }
}

/// `softmax(q kᵀ / √D + mask) v`, Vaswani et al. 2017 §3.2.1 (arXiv 1706.03762).
///
/// H / Hkv query heads share one key/value head (GQA, arXiv 2305.13245). One operation of MLX, which
/// on a GPU never writes the `[B, H, L, S]` scores to memory; part 1 has the same in single steps.
///
/// # Shapes
/// q `[B, H, L, D]`; k, v `[B, Hkv, S, D]`; returns `[B, H, L, D]`
///
/// # Cost
/// Reads `2·B·Hkv·S·D` keys and values: this is what grows with the context.
pub fn attention(q: &Array, k: &Array, v: &Array, mask: &Mask) -> Result<Array> {
    let scale = 1.0 / (q.dim(3) as f32).sqrt();
    ops::scaled_dot_product_attention(q, k, v, scale, mask)
}

/// SwiGLU: `W_down(silu(W_gate x) · W_up x)`. Shazeer 2020 (arXiv 2002.05202).
#[derive(Debug)]
pub struct Mlp {
    /// `gate_proj` and `up_proj`.
    gate_up_proj: JoinedLinear<2>,
    down_proj: Linear,
}

impl Mlp {
    fn load(config: &ModelConfig, mut weights: Scope<'_>) -> Result<Self> {
        let (e, f, bias) = (
            config.hidden_size,
            config.intermediate_size,
            config.mlp_bias,
        );
        Ok(Self {
            gate_up_proj: weights.joined([("gate_proj", f), ("up_proj", f)], e, bias)?,
            down_proj: weights.linear("down_proj", e, f, bias)?,
        })
    }

    /// Every token for itself: no token sees another one here.
    ///
    /// # Shapes
    /// x `[B, L, E]` → gate, up `[B, L, F]` → `[B, L, E]`
    ///
    /// # Cost
    /// `6·E·F` operations per token: most of a short step, and independent of the context.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let [gate, up] = self.gate_up_proj.forward(x)?; // [B, L, F] each
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
    fn load(config: &ModelConfig, layer: usize, weights: &mut Weights) -> Result<Self> {
        let (e, eps) = (config.hidden_size, config.rms_norm_eps);
        let mut weights = weights.scope(&format!("model.layers.{layer}"));
        Ok(Self {
            input_layernorm: weights.norm("input_layernorm", e, eps)?,
            post_attention_layernorm: weights.norm("post_attention_layernorm", e, eps)?,
            self_attn: Attention::load(config, layer, weights.scope("self_attn"))?,
            mlp: Mlp::load(config, weights.scope("mlp"))?,
        })
    }

    /// # Shapes
    /// x `[B, L, E]` → `[B, L, E]`
    pub fn forward(&self, x: &Array, cache: &mut dyn KvCache) -> Result<Array> {
        let normed = self.input_layernorm.forward(x)?;
        let h = ops::add(x, &self.self_attn.forward(&normed, cache)?)?;
        let normed = self.post_attention_layernorm.forward(&h)?;
        ops::add(&h, &self.mlp.forward(&normed)?)
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
        let (v, e) = (config.vocab_size, config.hidden_size);
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Block::load(config, layer, &mut weights))
            .collect::<Result<_>>()?;
        let lm_head = (!weights.tied())
            .then(|| weights.root().linear("lm_head", v, e, false))
            .transpose()?;
        let mut top = weights.scope("model");
        let model = Self {
            embed_tokens: top.embedding("embed_tokens", v, e)?,
            layers,
            norm: top.norm("norm", e, config.rms_norm_eps)?,
            lm_head,
        };
        weights.finish()?;
        Ok(model)
    }

    /// What the layers make of the tokens, before the head; their keys and values go to the cache.
    ///
    /// # Shapes
    /// ids `[B, L]` below `vocab_size` → `[B, L, E]`
    pub fn hidden(&self, ids: &Array, cache: &mut Cache) -> Result<Array> {
        let mut x = self.embed_tokens.forward(ids)?; // [B, L, E]
        for (index, (layer, cache)) in self.layers.iter().zip(cache.layers_mut()).enumerate() {
            x = layer
                .forward(&x, cache)
                .with_context(|| format!("in layer {index}"))?;
        }
        self.norm.forward(&x)
    }

    /// A score for every token of the vocabulary.
    ///
    /// # Shapes
    /// hidden `[B, L, E]` → `[B, L, V]`
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
    pub fn next_logits(&self, ids: &Array, cache: &mut Cache) -> Result<Array> {
        let hidden = self.hidden(ids, cache)?; // [B, L, E]
        let last = ops::split_at_indices(&hidden, &[hidden.dim(1) - 1], 1)?
            .pop()
            .context("no tokens to continue")?; // [B, 1, E]
        Ok(self.logits(&last)?.squeeze_axes(&[1])?) // [B, V]
    }
}
