//! What a checkpoint says about its architecture: `config.json` or GGUF metadata → [`ModelConfig`].
//!
//! One struct describes the whole Llama family, because its members differ only in a few switches:
//! biases, q/k norm, head width, RoPE, sliding window, tied head. Every value is checked here,
//! once, so that code that builds tensors from it can multiply and divide without looking again.
//! GPT-2 is described in the same terms, as a [`Family`] of its own.

mod foreign;
mod gguf;
mod gpt2;
mod json;
mod keys;
mod quantization;
mod rope;
mod write;

use anyhow::{Result, bail, ensure};

pub use foreign::Foreign;
use keys::{MAX_HEAD_DIM, MAX_HEADS, MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH};
pub use quantization::{GroupQuantization, Mode, Quantization};
pub use rope::{RopeConfig, RopeScaling};

/// The values of `model_type` that belong to [`Family::Llama`].
pub const MODEL_TYPES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// Which decoder computes a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// RMSNorm, rotated q and k, SwiGLU: the series from part 2 on.
    Llama,
    /// LayerNorm, a table of positions that are added to the embedding, GELU: part 1 only.
    Gpt2,
}

/// Architecture of one checkpoint; sizes in elements, letters as in the parts' documentation.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which decoder computes it.
    pub family: Family,
    /// One of [`MODEL_TYPES`], or `gpt2`.
    pub model_type: String,
    /// E, the width of the residual stream.
    pub hidden_size: usize,
    /// F, the width inside the MLP.
    pub intermediate_size: usize,
    /// Number of transformer blocks.
    pub num_hidden_layers: usize,
    /// H, query heads.
    pub num_attention_heads: usize,
    /// Hkv, key/value heads; divides H.
    pub num_key_value_heads: usize,
    /// D, width of one head; even. Not always E / H (Qwen3).
    pub head_dim: usize,
    /// V, rows of the embedding.
    pub vocab_size: usize,
    /// The context length the model was trained (or scaled) for, in positions.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm, or to the variance in GPT-2's LayerNorm.
    pub rms_norm_eps: f32,
    /// Rotary position embedding; without meaning in GPT-2, which rotates nothing.
    pub rope: RopeConfig,
    /// Biases on the q, k and v projections.
    pub attention_bias: bool,
    /// A bias on the output projection of attention.
    pub attention_out_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// RMSNorm over each head's q and k before RoPE (Qwen3).
    pub qk_norm: bool,
    /// Whether the head reuses the embedding. `None`: the config is silent and the checkpoint
    /// decides, tied when it has no `lm_head`.
    pub tie_word_embeddings: Option<bool>,
    /// Per layer: `Some(window)` where attention sees only the last `window` positions.
    pub sliding_window: Vec<Option<usize>>,
    /// How MLX quantized the checkpoint; `None` for full-precision weights.
    pub quantization: Option<Quantization>,
    /// Which other program quantized it, if its weights are repacked while they are loaded.
    pub foreign: Option<Foreign>,
    /// The id that starts a text.
    pub bos_token_id: Option<u32>,
    /// Ids that end generation: the union of `config.json` and `generation_config.json`, or of the keys
    /// of a GGUF file. The tokenizer's files may add to it.
    pub eos_token_ids: Vec<u32>,
    /// The dtype the checkpoint claims (`bfloat16`, …). Only shown; the tensors decide.
    pub torch_dtype: Option<String>,
    /// What was read past, and who decided where two values differ: a line each, for stderr.
    pub remarks: Vec<String>,
}

impl ModelConfig {
    /// What the KV cache grows by with each position, in bytes: `2 · layers · Hkv · D · bytes`.
    pub fn kv_bytes_per_token(&self, bytes_per_element: usize) -> u64 {
        let elements = 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim;
        (elements * bytes_per_element) as u64
    }

    /// Keys and values that a token reads which sees `positions`, in bytes; a layer with a window reads no
    /// more than that.
    pub fn kv_bytes_read(&self, positions: usize, bytes_per_element: usize) -> u64 {
        let seen =
            |window: &Option<usize>| window.map_or(positions, |window| window.min(positions));
        let seen: usize = self.sliding_window.iter().map(seen).sum();
        (seen * 2 * self.num_key_value_heads * self.head_dim * bytes_per_element) as u64
    }

    /// How many inputs the matrix of a module has, by the last part of its name.
    pub(crate) fn in_features(&self, module: &str) -> Option<usize> {
        let (_, name) = module.rsplit_once('.').unwrap_or(("", module));
        match name {
            "embed_tokens" | "lm_head" | "q_proj" | "k_proj" | "v_proj" | "gate_proj"
            | "up_proj" => Some(self.hidden_size),
            "o_proj" => Some(self.num_attention_heads * self.head_dim),
            "down_proj" => Some(self.intermediate_size),
            _ => None,
        }
    }

    /// How many outputs the matrix of a module has, by the last part of its name.
    fn out_features(&self, module: &str) -> Option<usize> {
        let (_, name) = module.rsplit_once('.').unwrap_or(("", module));
        match name {
            "embed_tokens" | "lm_head" => Some(self.vocab_size),
            "q_proj" => Some(self.num_attention_heads * self.head_dim),
            "k_proj" | "v_proj" => Some(self.num_key_value_heads * self.head_dim),
            "gate_proj" | "up_proj" => Some(self.intermediate_size),
            "o_proj" | "down_proj" => Some(self.hidden_size),
            _ => None,
        }
    }

    /// The shape of a tensor of a Llama that is not packed, by its name; `None` if there is no such.
    pub(crate) fn shape(&self, tensor: &str) -> Option<Vec<usize>> {
        let (module, part) = tensor.rsplit_once('.')?;
        let norm = || match module.rsplit('.').next()? {
            "q_norm" | "k_norm" => Some(vec![self.head_dim]),
            "norm" | "input_layernorm" | "post_attention_layernorm" => Some(vec![self.hidden_size]),
            _ => None,
        };
        match (part, self.out_features(module)) {
            ("weight", Some(rows)) => Some(vec![rows, self.in_features(module)?]),
            ("weight", None) => norm(),
            ("bias", Some(rows)) => Some(vec![rows]),
            _ => None,
        }
    }

    /// Refuses a GPT-2, for parts whose only decoder is that of the Llama family.
    ///
    /// # Errors
    /// With the part that takes it, and the types that are taken here.
    pub fn require_llama(&self) -> Result<()> {
        match self.family {
            Family::Llama => Ok(()),
            Family::Gpt2 => bail!(
                "model_type {:?} is not supported here (part 1 walks through it): choose a model \
                 of type {}",
                self.model_type,
                MODEL_TYPES.join(", ")
            ),
        }
    }

    /// Checks what no single key shows, whatever kind of file the values came from.
    fn validate(self) -> Result<Self> {
        let limits = [
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MAX_HEADS),
            ("num_key_value_heads", self.num_key_value_heads, MAX_HEADS),
            ("head_dim", self.head_dim, MAX_HEAD_DIM),
            ("vocab_size", self.vocab_size, MAX_VOCABULARY),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                MAX_POSITIONS,
            ),
        ];
        for (key, value, most) in limits {
            ensure!(
                (1..=most).contains(&value),
                "{key} is {value}, expected 1 to {most}"
            );
        }
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        ensure!(
            heads % kv_heads == 0,
            "num_attention_heads is {heads}, not a multiple of num_key_value_heads, {kv_heads}"
        );
        ensure!(
            self.head_dim.is_multiple_of(2) || self.family == Family::Gpt2,
            "head_dim is {}, but RoPE turns pairs: it must be even",
            self.head_dim
        );
        let eps = self.rms_norm_eps;
        ensure!(
            (0.0..1.0).contains(&eps),
            "rms_norm_eps is {eps}, expected 0 to 1"
        );
        rope::validate(&self.rope, self.head_dim)?;
        Ok(self)
    }
}
