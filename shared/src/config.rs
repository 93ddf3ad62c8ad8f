//! What a checkpoint says about its architecture: `config.json` or GGUF metadata → [`ModelConfig`].
//!
//! One struct describes the whole Llama family, because its members differ only in a few switches:
//! biases, q/k norm, head width, RoPE, sliding window, tied head. Every value is checked here, once,
//! so that code that builds tensors from it can multiply and divide without looking again. GPT-2, which
//! only part 1 walks through, is described in the same terms.

mod gpt2;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value};

use crate::gguf::GgufHeader;

/// The values of `model_type` that this decoder computes correctly.
pub const MODEL_TYPES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// Upper bounds far above any published model: what lies beyond is a broken file, and products of
/// values below them fit 64 bits (and each axis fits MLX's 32-bit shapes).
const MAX_WIDTH: usize = 1 << 20;
const MAX_LAYERS: usize = 4096;
const MAX_HEADS: usize = 4096;
const MAX_HEAD_DIM: usize = 4096;
const MAX_VOCABULARY: usize = 1 << 24;
const MAX_POSITIONS: usize = 1 << 30;

/// Architecture of one checkpoint; sizes in elements, letters as in the parts' documentation.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
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
    /// Whether positions are rows of a table that are added to the embedding (GPT-2). Nothing is
    /// rotated then, and `rope` has no meaning.
    pub learned_positions: bool,
    /// Added to the mean square in RMSNorm, or to the variance in GPT-2's LayerNorm.
    pub rms_norm_eps: f32,
    /// Rotary position embedding.
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
    /// The id that starts a text.
    pub bos_token_id: Option<u32>,
    /// Ids that end generation: the union of `config.json` and `generation_config.json`.
    pub eos_token_ids: Vec<u32>,
    /// The dtype the checkpoint claims (`bfloat16`, …). Only shown; the tensors decide.
    pub torch_dtype: Option<String>,
}

/// Rotary position embedding: how fast each pair of a head's elements turns with the position.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric row of wavelengths, above 1.
    pub theta: f32,
    /// Interleaved pairs `(0,1), (2,3), …` instead of halves `(0, D/2), (1, D/2+1), …`.
    pub traditional: bool,
    /// How the base wavelengths are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// Ways to stretch RoPE's wavelengths beyond the context length of pre-training.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Positions divided by `factor`.
    Linear {
        /// Stretch of every wavelength.
        factor: f32,
    },
    /// Llama 3.1: long wavelengths stretched, short ones kept, a ramp between.
    Llama3 {
        /// Stretch of the long wavelengths.
        factor: f32,
        /// Wavelengths above `original / low_freq_factor` are stretched in full.
        low_freq_factor: f32,
        /// Wavelengths below `original / high_freq_factor` stay.
        high_freq_factor: f32,
        /// Context length of pre-training.
        original_max_position_embeddings: usize,
    },
    /// YaRN (arXiv 2309.00071): a ramp over the dimensions, and a scale on q and k.
    Yarn {
        /// Stretch of the slow dimensions.
        factor: f32,
        /// Context length of pre-training.
        original_max_position_embeddings: usize,
        /// Dimensions with more turns than this in the original context stay.
        beta_fast: f32,
        /// Dimensions with fewer turns than this are stretched in full.
        beta_slow: f32,
        /// Numerator of the scale: `0.1 · mscale · ln(factor) + 1`.
        mscale: f32,
        /// Denominator of the scale, same formula.
        mscale_all_dim: f32,
    },
    /// One divisor for each of the D/2 frequencies, as GGUF stores Llama 3 scaling
    /// (`rope_freqs.weight`): wavelength `i` is `theta^(2i/D) · factors[i]`.
    Factors(Vec<f32>),
}

/// Parameters of MLX's affine quantization of one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupQuantization {
    /// G, how many neighbours in a row share a scale and a bias.
    pub group_size: usize,
    /// Bits of one weight.
    pub bits: usize,
}

/// How a checkpoint is quantized, module by module.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantization {
    /// For modules without an entry in `overrides`.
    pub default: GroupQuantization,
    /// By module path (`model.layers.0.mlp.down_proj`); `None`: this module is not quantized.
    pub overrides: BTreeMap<String, Option<GroupQuantization>>,
}

impl Quantization {
    /// What the config says of `module`; `None`: it is not quantized.
    pub fn of(&self, module: &str) -> Option<GroupQuantization> {
        self.overrides
            .get(module)
            .copied()
            .unwrap_or(Some(self.default))
    }
}

impl ModelConfig {
    /// Reads the texts of `config.json` and, if there is one, `generation_config.json`.
    ///
    /// # Errors
    /// One line naming the key and the value: a key is missing or has an impossible value, the
    /// model type or RoPE type is not supported, the weights are quantized by something other
    /// than MLX, the text is not JSON.
    pub fn from_json(config: &str, generation_config: Option<&str>) -> Result<Self> {
        parse(config, generation_config, false)
    }

    /// [`ModelConfig::from_json`] that reads GPT-2, too. `learned_positions` tells the two families
    /// apart: the layers of this crate compute only the first.
    ///
    /// # Errors
    /// As [`ModelConfig::from_json`].
    pub fn from_json_with_gpt2(config: &str, generation_config: Option<&str>) -> Result<Self> {
        parse(config, generation_config, true)
    }

    /// Reads the metadata of a GGUF file, whose keys start with the name of its architecture.
    ///
    /// # Errors
    /// As [`ModelConfig::from_json`], and for tensors stored in a type that cannot be loaded.
    pub fn from_gguf(header: &GgufHeader) -> Result<Self> {
        crate::gguf::read_config(header)
    }

    /// What the KV cache grows by with each position, in bytes: `2 · layers · Hkv · D · bytes`.
    pub fn kv_bytes_per_token(&self, bytes_per_element: usize) -> u64 {
        let elements = 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim;
        (elements * bytes_per_element) as u64
    }

    /// Checks what no single key shows, whatever kind of file the values came from.
    pub(crate) fn validate(self) -> Result<Self> {
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
            self.head_dim.is_multiple_of(2) || self.learned_positions,
            "head_dim is {}, but RoPE turns pairs: it must be even",
            self.head_dim
        );
        let eps = self.rms_norm_eps;
        ensure!(
            (0.0..1.0).contains(&eps),
            "rms_norm_eps is {eps}, expected 0 to 1"
        );
        validate_rope(&self.rope, self.head_dim)?;
        Ok(self)
    }
}

fn parse(config: &str, generation_config: Option<&str>, with_gpt2: bool) -> Result<ModelConfig> {
    let config = parse_object("config.json", config)?;
    let keys = Keys {
        file: "config.json",
        object: &config,
    };
    let parsed = match keys.text("model_type")? {
        Some(gpt2::MODEL_TYPE) if with_gpt2 => gpt2::read(&keys)?,
        _ => read_config(&keys)?,
    };
    let mut parsed = parsed.validate().context("config.json")?;
    if let Some(text) = generation_config {
        let object = parse_object("generation_config.json", text)?;
        let keys = Keys {
            file: "generation_config.json",
            object: &object,
        };
        parsed.eos_token_ids = union(&parsed.eos_token_ids, &keys.ids("eos_token_id")?);
    }
    Ok(parsed)
}

fn read_config(keys: &Keys) -> Result<ModelConfig> {
    let model_type = model_type(keys)?;
    check_activation(keys)?;
    let layers = keys.require_size("num_hidden_layers", MAX_LAYERS)?;
    let attention_bias = keys.flag("attention_bias")?.unwrap_or(false);
    let qwen2 = model_type == "qwen2";
    let heads = keys.require_size("num_attention_heads", MAX_HEADS)?;
    let hidden_size = keys.require_size("hidden_size", MAX_WIDTH)?;
    Ok(ModelConfig {
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
        learned_positions: false,
        rms_norm_eps: keys
            .number("rms_norm_eps")?
            .ok_or_else(|| keys.missing("rms_norm_eps"))?,
        rope: read_rope(keys, &model_type)?,
        attention_bias: attention_bias || qwen2,
        attention_out_bias: attention_bias && !qwen2,
        mlp_bias: keys.flag("mlp_bias")?.unwrap_or(false),
        qk_norm: model_type == "qwen3",
        tie_word_embeddings: keys.flag("tie_word_embeddings")?,
        sliding_window: sliding_windows(keys, &model_type, layers)?,
        quantization: read_quantization(keys)?,
        bos_token_id: keys.ids("bos_token_id")?.first().copied(),
        eos_token_ids: keys.ids("eos_token_id")?,
        torch_dtype: keys
            .text("torch_dtype")?
            .or(keys.text("dtype")?)
            .map(str::to_owned),
        model_type,
    })
}

fn model_type(keys: &Keys) -> Result<String> {
    let found = keys
        .text("model_type")?
        .ok_or_else(|| keys.missing("model_type"))?;
    let hint = match found {
        gpt2::MODEL_TYPE => " here (part 1 walks through it)",
        _ => "",
    };
    ensure!(
        MODEL_TYPES.contains(&found),
        "model_type {found:?} in config.json is not supported{hint}: choose a model of type {}",
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

/// Transformers 5 nests everything under `rope_parameters`; before, `rope_theta` stood beside
/// `rope_scaling`. Where both are there the older spelling wins, as in mlx-lm.
fn read_rope(keys: &Keys, model_type: &str) -> Result<RopeConfig> {
    let nested = keys.object("rope_parameters")?;
    let scaling = keys.object("rope_scaling")?.or(nested);
    let inside = |object| Keys {
        file: "rope parameters of config.json",
        object,
    };
    let mut theta = keys.number("rope_theta")?;
    if let (None, Some(object)) = (theta, nested) {
        theta = inside(object).number("rope_theta")?;
    }
    let theta = match (theta, model_type) {
        (Some(theta), _) => theta,
        (None, "qwen3") => return Err(keys.missing("rope_theta")),
        (None, "qwen2") => 1_000_000.0,
        (None, _) => 10_000.0,
    };
    check_full_rotary(keys)?;
    let scaling = match scaling {
        Some(object) => read_scaling(&inside(object))?,
        None => RopeScaling::None,
    };
    let traditional = keys.flag("rope_traditional")?.unwrap_or(false);
    Ok(RopeConfig {
        theta,
        traditional,
        scaling,
    })
}

fn check_full_rotary(keys: &Keys) -> Result<()> {
    match keys.number("partial_rotary_factor")? {
        None => Ok(()),
        Some(1.0) => Ok(()),
        Some(part) => bail!(
            "partial_rotary_factor {part} in {} is not supported",
            keys.file
        ),
    }
}

fn read_scaling(keys: &Keys) -> Result<RopeScaling> {
    check_full_rotary(keys)?;
    if let Some((layers, _)) = keys.object.iter().find(|(_, value)| value.is_object()) {
        bail!(
            "{} differ by layer type ({layers:?}): that is not supported",
            keys.file
        );
    }
    let kind = keys
        .text("rope_type")?
        .or(keys.text("type")?)
        .unwrap_or("default");
    let factor = || keys.number("factor")?.ok_or_else(|| keys.missing("factor"));
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: factor()?,
            low_freq_factor: keys.number("low_freq_factor")?.unwrap_or(1.0),
            high_freq_factor: keys.number("high_freq_factor")?.unwrap_or(4.0),
            original_max_position_embeddings: original_context(keys, 8192)?,
        }),
        "yarn" => read_yarn(keys, factor()?),
        other => bail!(
            "RoPE type {other:?} in {} is not supported: only default, linear, llama3 and yarn",
            keys.file
        ),
    }
}

fn read_yarn(keys: &Keys, factor: f32) -> Result<RopeScaling> {
    for key in ["attention_factor", "truncate"] {
        let value = keys.get(key);
        let silent = value.is_none_or(|value| value == &Value::Bool(true));
        ensure!(silent, "{key} of YaRN in {} is not supported", keys.file);
    }
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position_embeddings: original_context(keys, 4096)?,
        beta_fast: keys.number("beta_fast")?.unwrap_or(32.0),
        beta_slow: keys.number("beta_slow")?.unwrap_or(1.0),
        mscale: keys.number("mscale")?.unwrap_or(1.0),
        mscale_all_dim: keys.number("mscale_all_dim")?.unwrap_or(0.0),
    })
}

fn original_context(keys: &Keys, default: usize) -> Result<usize> {
    let found = keys.size("original_max_position_embeddings", MAX_POSITIONS)?;
    Ok(found.unwrap_or(default))
}

/// No wavelength may come out as zero, infinite or NaN: MLX would compute with it.
fn validate_rope(rope: &RopeConfig, head_dim: usize) -> Result<()> {
    let theta = rope.theta;
    ensure!(
        theta > 1.0 && theta <= 1e12,
        "rope_theta is {theta}, expected above 1, at most 1e12"
    );
    let stretch = |factor: f32| {
        let known = (1e-3..=1e6).contains(&factor);
        ensure!(
            known,
            "RoPE scaling factor is {factor}, expected 0.001 to 1000000"
        );
        Ok(())
    };
    match &rope.scaling {
        RopeScaling::None => Ok(()),
        RopeScaling::Linear { factor } => stretch(*factor),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            ..
        } => {
            ensure!(
                *low > 0.0 && high > low && high.is_finite(),
                "RoPE low_freq_factor {low} and high_freq_factor {high} must be above 0 and rise"
            );
            stretch(*factor)
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            mscale,
            mscale_all_dim,
            ..
        } => {
            let (fast, slow) = (beta_fast, beta_slow);
            ensure!(
                *slow > 0.0 && fast > slow,
                "YaRN beta_slow {slow} and beta_fast {fast} must be above 0 and rise"
            );
            for scale in [mscale, mscale_all_dim] {
                ensure!(
                    (0.0..=1e3).contains(scale),
                    "YaRN mscale is {scale}, expected 0 to 1000"
                );
            }
            stretch(*factor)
        }
        RopeScaling::Factors(factors) => {
            let (found, wanted) = (factors.len(), head_dim / 2);
            ensure!(
                found == wanted,
                "{found} RoPE frequency factors, expected D/2 = {wanted}"
            );
            factors.iter().try_for_each(|&factor| stretch(factor))
        }
    }
}

/// `quantization` is MLX's own key. `quantization_config` repeats it in MLX checkpoints, and
/// belongs to another method (AWQ, GPTQ, FP8, …) in all others.
fn read_quantization(keys: &Keys) -> Result<Option<Quantization>> {
    if let Some(object) = keys.object("quantization")? {
        let keys = Keys {
            file: "quantization of config.json",
            object,
        };
        return Ok(Some(Quantization {
            default: group(&keys)?,
            overrides: overrides(&keys)?,
        }));
    }
    let Some(foreign) = keys.object("quantization_config")? else {
        return Ok(None);
    };
    let method = foreign
        .get("quant_method")
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    bail!(
        "the weights are quantized with {method} (quantization_config in config.json), which is \
         not supported: use the original model or an MLX conversion of it, such as those of the \
         mlx-community"
    )
}

fn overrides(keys: &Keys) -> Result<BTreeMap<String, Option<GroupQuantization>>> {
    let default = group(keys)?;
    let mut found = BTreeMap::new();
    for (module, value) in keys.object {
        let quantization = match value {
            Value::Bool(false) => None,
            Value::Bool(true) => Some(default),
            Value::Object(object) => {
                let file = "quantization of config.json";
                let keys = Keys { file, object };
                Some(group(&keys).with_context(|| format!("module {module:?}"))?)
            }
            _ => continue,
        };
        found.insert(module.clone(), quantization);
    }
    Ok(found)
}

fn group(keys: &Keys) -> Result<GroupQuantization> {
    match keys.text("mode")? {
        None | Some("affine") => {}
        Some(mode) => bail!(
            "mode {mode:?} in {} is not supported: only affine is",
            keys.file
        ),
    }
    let group_size = keys.require_size("group_size", 1 << 16)?;
    let bits = keys.require_size("bits", 32)?;
    ensure!(
        [32, 64, 128].contains(&group_size) && [2, 3, 4, 5, 6, 8].contains(&bits),
        "group_size {group_size} with bits {bits} in {} is not supported: MLX has groups of 32, \
         64 or 128 and 2, 3, 4, 5, 6 or 8 bits",
        keys.file
    );
    Ok(GroupQuantization { group_size, bits })
}

fn union(left: &[u32], right: &[u32]) -> Vec<u32> {
    let all: BTreeSet<u32> = left.iter().chain(right).copied().collect();
    all.into_iter().collect()
}

fn parse_object(file: &str, text: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => bail!("{file} is not a JSON object"),
        Err(error) => bail!("{file} is not valid JSON: {error}"),
    }
}

/// One JSON object whose values are read with a check; `null` counts as absent, as in Python.
struct Keys<'a> {
    file: &'static str,
    object: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn missing(&self, key: &str) -> anyhow::Error {
        anyhow!("{key} is missing in {}", self.file)
    }

    fn wrong<T>(&self, key: &str, value: &Value, expected: &str) -> Result<T> {
        bail!(
            "{key} is {} in {}, expected {expected}",
            shown(value),
            self.file
        )
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => self.wrong(key, value, expected),
        }
    }

    /// A whole number from 1 to `most`.
    fn size(&self, key: &str, most: usize) -> Result<Option<usize>> {
        self.read(key, &format!("a whole number from 1 to {most}"), |value| {
            let number = usize::try_from(value.as_u64()?).ok()?;
            (1..=most).contains(&number).then_some(number)
        })
    }

    fn require_size(&self, key: &str, most: usize) -> Result<usize> {
        self.size(key, most)?.ok_or_else(|| self.missing(key))
    }

    /// A whole number, zero included.
    fn count(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number", |value| {
            usize::try_from(value.as_u64()?).ok()
        })
    }

    fn number(&self, key: &str) -> Result<Option<f32>> {
        self.read(key, "a finite number", |value| {
            Some(value.as_f64()? as f32).filter(|number| number.is_finite())
        })
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.read(key, "a string", Value::as_str)
    }

    fn array(&self, key: &str) -> Result<Option<&'a Vec<Value>>> {
        self.read(key, "a list", Value::as_array)
    }

    fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>> {
        self.read(key, "an object", Value::as_object)
    }

    /// Token ids: one, or a list of them.
    fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let found = self.read(key, "a token id or a list of them", |value| match value {
            Value::Array(values) => values.iter().map(id).collect(),
            _ => Some(vec![id(value)?]),
        })?;
        Ok(union(&found.unwrap_or_default(), &[]))
    }
}

/// A value as it stands in the file, cut to a length that fits a line.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
