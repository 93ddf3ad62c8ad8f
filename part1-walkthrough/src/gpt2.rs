//! GPT-2 in plain operations: the decoder that the series explains first.
//!
//! The pass is the same as Llama's; four stages differ, and this file is those four.
//!
//! | stage | GPT-2 | Llama |
//! |---|---|---|
//! | positions | a learned vector per position is added, once, before the first layer | q and k are turned in every layer |
//! | norm | LayerNorm: the mean is taken off, and there is a bias | RMSNorm |
//! | q, k, v | one matrix for all three, stored `[in, out]` (Conv1D), with a bias | three, stored `[out, in]` |
//! | MLP | GELU between two matrices | SwiGLU among three |
//!
//! The head is always tied, and every query head has its own key/value head. Radford et al. 2019,
//! "Language Models are Unsupervised Multitask Learners". A field is named like its key in the
//! checkpoint.

use anyhow::{Context, Result, ensure};
use console::numbers::count;
use mlx_rs::{Array, Dtype, fast, ops};
use shared::checkpoint::Checkpoint;
use shared::layers::{dims3, split};
use shared::weights::Weights;

use crate::attend::{compare, like, split_heads};
use crate::block::{BlockPass, Projected};
use crate::decoder::{Decoder, Embedded, Part, PartWeights};
use crate::embed::cosine;
use crate::facts;
use crate::trace::{Check, ModelFacts, Positions};

/// Positions whose vectors are compared with each other, at least.
const POSITIONS_SHOWN: usize = 32;

/// `x W + b`. The weight is stored `[in, out]`, the other way round from Llama's: GPT-2's own
/// code wrote its linear layers as convolutions of width 1.
#[derive(Debug)]
struct Conv1d {
    /// `[in, out]`
    weight: Array,
    /// `[out]`
    bias: Array,
}

/// `(x − mean) / √(variance + ε) · w + b` over the last axis. Ba et al. 2016 (arXiv 1607.06450).
#[derive(Debug)]
struct LayerNorm {
    /// `[E]`
    weight: Array,
    /// `[E]`
    bias: Array,
    eps: f32,
}

/// One layer's weights.
#[derive(Debug)]
struct Block {
    ln_1: LayerNorm,
    /// q, k and v side by side: `[E, 3·E]`.
    c_attn: Conv1d,
    attn_c_proj: Conv1d,
    ln_2: LayerNorm,
    c_fc: Conv1d,
    mlp_c_proj: Conv1d,
}

/// The whole decoder.
#[derive(Debug)]
pub struct Gpt2 {
    facts: ModelFacts,
    /// A row per token, `[V, E]`; the head, too.
    wte: Array,
    /// A row per position, `[N, E]`.
    wpe: Array,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

impl Gpt2 {
    /// Reads the weights of a checkpoint.
    ///
    /// # Errors
    /// If a tensor is missing, left over or of another shape, or if a file cannot be read.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        Self::new(checkpoint, checkpoint.load_weights()?)
            .with_context(|| format!("building the model of {}", checkpoint.name))
    }

    fn new(checkpoint: &Checkpoint, weights: Weights) -> Result<Self> {
        let config = &checkpoint.config;
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let mut named = Named::new(weights, config.rms_norm_eps);
        let block = |layer| {
            let at = format!("h.{layer}");
            Ok(Block {
                ln_1: named.norm(&format!("{at}.ln_1"), width)?,
                c_attn: named.conv1d(&format!("{at}.attn.c_attn"), width, 3 * width)?,
                attn_c_proj: named.conv1d(&format!("{at}.attn.c_proj"), width, width)?,
                ln_2: named.norm(&format!("{at}.ln_2"), width)?,
                c_fc: named.conv1d(&format!("{at}.mlp.c_fc"), width, inner)?,
                mlp_c_proj: named.conv1d(&format!("{at}.mlp.c_proj"), inner, width)?,
            })
        };
        let h = (0..config.num_hidden_layers)
            .map(block)
            .collect::<Result<_>>()?;
        let rows = config.max_position_embeddings;
        let model = Self {
            facts: facts(checkpoint),
            wte: named.take("wte.weight", &[config.vocab_size, width])?,
            wpe: named.take("wpe.weight", &[rows, width])?,
            h,
            ln_f: named.norm("ln_f", width)?,
        };
        named.weights.finish()?;
        Ok(model)
    }

    fn norms(&self) -> impl Iterator<Item = &LayerNorm> {
        let of_blocks = self.h.iter().flat_map(|block| [&block.ln_1, &block.ln_2]);
        of_blocks.chain([&self.ln_f])
    }

    /// What `part` is made of; the tables apart.
    fn arrays(&self, part: Part) -> Vec<&Array> {
        let of = |pick: fn(&Block) -> Vec<&Conv1d>| {
            let convs = self.h.iter().flat_map(pick);
            convs.flat_map(|conv| [&conv.weight, &conv.bias]).collect()
        };
        match part {
            Part::Qkv => of(|block| vec![&block.c_attn]),
            Part::Output => of(|block| vec![&block.attn_c_proj]),
            Part::Mlp => of(|block| vec![&block.c_fc, &block.mlp_c_proj]),
            Part::Norms => {
                let norms = self.norms();
                norms.flat_map(|norm| [&norm.weight, &norm.bias]).collect()
            }
            Part::Head => vec![&self.wte],
            Part::Embedding | Part::Rotation | Part::Attention => Vec::new(),
        }
    }
}

/// The tensors under the prefix that this checkpoint has: none on the hub, `transformer.` where the
/// head was saved too, `model.` after mlx-lm's conversion, which also transposes the matrices.
struct Named {
    weights: Weights,
    prefix: &'static str,
    eps: f32,
}

impl Named {
    fn new(weights: Weights, eps: f32) -> Self {
        let has = |prefix: &&str| weights.contains(&format!("{prefix}wte.weight"));
        let prefix = ["transformer.", "model."].into_iter().find(has);
        Self {
            weights,
            prefix: prefix.unwrap_or(""),
            eps,
        }
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Array> {
        let name = format!("{}{name}", self.prefix);
        self.weights.take(&name, shape)
    }

    fn conv1d(&mut self, name: &str, inner: usize, outer: usize) -> Result<Conv1d> {
        let weight = format!("{name}.weight");
        Ok(Conv1d {
            weight: match self.prefix {
                "model." => self.take(&weight, &[outer, inner])?.t(),
                _ => self.take(&weight, &[inner, outer])?,
            },
            bias: self.take(&format!("{name}.bias"), &[outer])?,
        })
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: self.take(&format!("{name}.weight"), &[width])?,
            bias: self.take(&format!("{name}.bias"), &[width])?,
            eps: self.eps,
        })
    }
}

impl Conv1d {
    /// x `[…, in]` → `[…, out]`
    fn forward(&self, x: &Array) -> Result<Array> {
        Ok(ops::matmul(x, &self.weight)?.add(&self.bias)?)
    }
}

impl LayerNorm {
    /// x `[…, E]` → as x; added up in f32.
    fn forward(&self, x: &Array) -> Result<Array> {
        let wide = x.as_dtype(Dtype::Float32)?;
        let centred = wide.subtract(wide.mean_axis(-1, true)?)?;
        let variance = centred.square()?.mean_axis(-1, true)?;
        let inverse = variance.add(Array::from_f32(self.eps))?.rsqrt()?;
        let normed = centred.multiply(inverse)?.as_dtype(x.dtype())?;
        Ok(normed.multiply(&self.weight)?.add(&self.bias)?)
    }
}

/// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`: the approximation by tanh that GPT-2 was trained
/// with. Hendrycks and Gimpel 2016 (arXiv 1606.08415).
fn gelu(x: &Array) -> Result<Array> {
    let cube = x.square()?.multiply(x)?;
    let inner = x.add(cube.multiply(like(x, 0.044715)?)?)?;
    let scale = like(x, std::f32::consts::FRAC_2_PI.sqrt())?;
    let bent = ops::tanh(inner.multiply(scale)?)?.add(like(x, 1.0)?)?;
    Ok(x.multiply(like(x, 0.5)?)?.multiply(bent)?)
}

impl Decoder for Gpt2 {
    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn embed(&self, ids: &Array) -> Result<Embedded> {
        let (length, rows) = (ids.dim(1), self.wpe.dim(0));
        // There is no row for a position that training never saw, and MLX checks no bounds.
        ensure!(
            length <= rows,
            "{} tokens, but {} has learned only {} positions",
            count(length as u64),
            self.facts.name,
            count(rows as u64)
        );
        let positions = Array::from_iter(0..length, &[1, length]);
        Ok(Embedded {
            tokens: self.wte.take_axis(ids, 0)?, // [1, L, E]
            positions: Some(self.wpe.take_axis(positions, 0)?),
        })
    }

    fn table(&self) -> Result<Array> {
        Ok(self.wte.clone())
    }

    fn attention_norm(&self, layer: usize, x: &Array) -> Result<Array> {
        self.h[layer].ln_1.forward(x)
    }

    fn project(&self, layer: usize, normed: &Array) -> Result<Projected> {
        let [_, _, width] = dims3(normed)?;
        let qkv = self.h[layer].c_attn.forward(normed)?; // [1, L, 3·E]
        let [q, k, v] = split(&qkv, &[width, 2 * width], -1)?;
        let heads = |x: Array| split_heads(&x, self.facts.heads, self.facts.head_dim);
        Ok(Projected {
            q: heads(q)?,
            k: heads(k)?,
            v: heads(v)?,
        })
    }

    fn project_out(&self, layer: usize, joined: &Array) -> Result<Array> {
        self.h[layer].attn_c_proj.forward(joined)
    }

    fn mlp_norm(&self, layer: usize, x: &Array) -> Result<Array> {
        self.h[layer].ln_2.forward(x)
    }

    fn mlp(&self, layer: usize, normed: &Array) -> Result<Array> {
        let block = &self.h[layer];
        let wide = gelu(&block.c_fc.forward(normed)?)?; // [1, L, F]
        block.mlp_c_proj.forward(&wide)
    }

    fn final_norm(&self, x: &Array) -> Result<Array> {
        self.ln_f.forward(x)
    }

    fn head(&self, normed: &Array) -> Result<Array> {
        Ok(ops::matmul(normed, self.wte.t())?)
    }

    fn positions(&self, length: usize, _: &Array, _: &Array) -> Result<Positions> {
        let rows = self.wpe.dim(0) as usize;
        let shown = length.max(POSITIONS_SHOWN).min(rows);
        let first = Array::from_iter(0..shown as i32, &[shown as i32]);
        let vectors = self.wpe.take_axis(first, 0)?; // [n, E]
        let pairs = cosine(&vectors.expand_dims(1)?, &vectors.expand_dims(0)?)?; // [n, n]
        Ok(Positions::Learned {
            rows,
            cosines: shared::layers::to_f32(&pairs)?.into(),
            shown,
        })
    }

    fn weights(&self, part: Part, tokens: usize) -> PartWeights {
        let sum = |count: fn(&Array) -> usize| -> u64 {
            let arrays = self.arrays(part);
            arrays.into_iter().map(|array| count(array) as u64).sum()
        };
        let (parameters, bytes) = (sum(Array::size), sum(Array::nbytes));
        let tables = (self.wte.size() + self.wpe.size()) as u64;
        let row = self.wpe.nbytes() / self.wpe.dim(0) as usize;
        match part {
            // One row of each table per token.
            Part::Embedding => PartWeights {
                parameters: tables,
                multiplied: 0,
                bytes: (2 * row * tokens) as u64,
            },
            part => PartWeights {
                parameters: if part == Part::Head { 0 } else { parameters },
                multiplied: if part == Part::Norms { 0 } else { parameters },
                bytes,
            },
        }
    }

    fn checks(&self, blocks: &[BlockPass]) -> Result<Vec<Check>> {
        let (mut norms, mut linear) = (Vec::new(), Vec::new());
        for (block, weights) in blocks.iter().zip(&self.h) {
            for (x, ours, norm) in [
                (&block.input, &block.normed, &weights.ln_1),
                (&block.middle, &block.mlp_normed, &weights.ln_2),
            ] {
                let (w, b) = (&norm.weight, &norm.bias);
                norms.push((ours.clone(), fast::layer_norm(x, w, b, norm.eps)?));
            }
            let proj = &weights.attn_c_proj;
            let fused = ops::addmm(&proj.bias, &block.joined, &proj.weight, None, None)?;
            linear.push((block.attention.clone(), fused));
        }
        Ok(vec![
            compare("LayerNorm", "fast::layer_norm", &norms)?,
            compare("Conv1D", "ops::addmm", &linear)?,
        ])
    }
}

fn facts(checkpoint: &Checkpoint) -> ModelFacts {
    let rows = checkpoint.config.max_position_embeddings as u64;
    ModelFacts {
        position_encoding: format!("learned, {} vectors added", count(rows)),
        norm: "LayerNorm".to_owned(),
        activation: "GELU (tanh)".to_owned(),
        ..facts::facts(checkpoint, false)
    }
}
