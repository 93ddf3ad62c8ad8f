//! Metadata of a GGUF file → [`ModelConfig`].

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use repacking::blocks::{Form, GROUP, Kind};

use super::{
    Family, GroupQuantization, MODEL_TYPES, ModelConfig, Quantization, RopeConfig, RopeScaling,
};
use crate::gguf::{GgufHeader, GgufType, GgufValue, hugging_face_name};

impl ModelConfig {
    /// Reads the metadata of a GGUF file, whose keys start with the name of its architecture.
    ///
    /// # Errors
    /// As [`ModelConfig::from_json`], and for tensors stored in a type that cannot be loaded.
    pub fn from_gguf(header: &GgufHeader) -> Result<Self> {
        check_split(header)?;
        let architecture = header.string("general.architecture");
        let architecture = architecture.context("general.architecture is missing")?;
        // llama.cpp stores Mistral as llama.
        ensure!(
            MODEL_TYPES.contains(&architecture) && architecture != "mistral",
            "architecture {architecture:?} is not supported: only llama (with Mistral), qwen2 and \
             qwen3"
        );
        check_types(header)?;
        read_metadata(&Keys {
            header,
            architecture,
        })
        .context("in the GGUF metadata")
    }
}

fn read_metadata(keys: &Keys) -> Result<ModelConfig> {
    let header = keys.header;
    keys.refuse_variants()?;
    let heads = keys.size("attention.head_count")?;
    let hidden_size = keys.size("embedding_length")?;
    let layers = keys.size("block_count")?;
    let head_dim = keys.head_dim(hidden_size, heads)?;
    ModelConfig {
        family: Family::Llama,
        model_type: keys.architecture.to_owned(),
        hidden_size,
        intermediate_size: keys.size("feed_forward_length")?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: keys
            .optional_size("attention.head_count_kv")?
            .unwrap_or(heads),
        head_dim,
        vocab_size: keys.vocabulary()?,
        max_position_embeddings: keys.size("context_length")?,
        rms_norm_eps: keys.float("attention.layer_norm_rms_epsilon")?,
        rope: keys.rope()?,
        attention_bias: header.tensor("blk.0.attn_q.bias").is_some(),
        attention_out_bias: header.tensor("blk.0.attn_output.bias").is_some(),
        mlp_bias: header.tensor("blk.0.ffn_up.bias").is_some(),
        qk_norm: header.tensor("blk.0.attn_q_norm.weight").is_some(),
        tie_word_embeddings: Some(header.tensor("output.weight").is_none()),
        sliding_window: vec![None; layers.min(1 << 16)],
        quantization: read_quantization(header),
        foreign: None,
        bos_token_id: header.token("bos_token_id"),
        eos_token_ids: header.stop_tokens(),
        torch_dtype: None,
        remarks: header.remarks.clone(),
    }
    .validate()
}

/// One part of a split model looks like a smaller model.
fn check_split(header: &GgufHeader) -> Result<()> {
    let count = header.u64("split.count").unwrap_or(1);
    let number = header.u64("split.no").unwrap_or(0).saturating_add(1);
    ensure!(
        count <= 1,
        "it is part {number} of {count} of a split model: join the parts with `llama-gguf-split \
         --merge FIRST-PART WHOLE.gguf` of llama.cpp, or take a file that is not split"
    );
    Ok(())
}

/// Names every type that cannot be loaded, with one tensor each: the reader then knows whether to
/// look for another file of the same model.
fn check_types(header: &GgufHeader) -> Result<()> {
    let mut refused = BTreeMap::new();
    for tensor in &header.tensors {
        if !tensor.kind.is_loadable() {
            refused.entry(tensor.kind.name()).or_insert(&tensor.name);
        }
    }
    let list: Vec<_> = refused
        .iter()
        .map(|(kind, name)| format!("{kind} ({name})"))
        .collect();
    ensure!(
        list.is_empty(),
        "tensors are stored as {}: only F32, F16, BF16, {} can be loaded, choose such a file of the model",
        list.join(", "),
        Kind::ALL.map(Kind::name).join(", ")
    );
    Ok(())
}

/// What this type is repacked into; `None` if it becomes numbers.
fn group_of(kind: GgufType) -> Option<GroupQuantization> {
    let GgufType::Packed(kind) = kind else {
        return None;
    };
    match kind.form() {
        Form::Affine { bits, .. } => Some(GroupQuantization::affine(GROUP, bits)),
        Form::Numbers => None,
    }
}

/// The most frequent parameters become the default, the others overrides.
fn read_quantization(header: &GgufHeader) -> Option<Quantization> {
    let mut modules = BTreeMap::new();
    let mut counts: BTreeMap<GroupQuantization, usize> = BTreeMap::new();
    for tensor in &header.tensors {
        let Some(group) = group_of(tensor.kind) else {
            continue;
        };
        *counts.entry(group).or_default() += 1;
        let name = hugging_face_name(&tensor.name);
        modules.insert(name.trim_end_matches(".weight").to_owned(), Some(group));
    }
    let (default, _) = counts.into_iter().max_by_key(|&(_, count)| count)?;
    modules.retain(|_, group| *group != Some(default));
    Some(Quantization {
        default,
        overrides: modules,
    })
}

/// Metadata keys of one architecture: `block_count` stands for `llama.block_count`.
struct Keys<'a> {
    header: &'a GgufHeader,
    architecture: &'a str,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let key = self.full(key);
        let Some(value) = self.header.metadata.get(&key) else {
            return Ok(None);
        };
        let size = self
            .header
            .u64(&key)
            .and_then(|number| usize::try_from(number).ok());
        let size = size.filter(|&size| size > 0);
        Ok(Some(size.with_context(|| {
            format!("{key} is {value:?}, expected one whole number")
        })?))
    }

    fn size(&self, key: &str) -> Result<usize> {
        let missing = || format!("{} is missing", self.full(key));
        self.optional_size(key)?.with_context(missing)
    }

    fn optional_float(&self, key: &str) -> Result<Option<f32>> {
        let key = self.full(key);
        let Some(value) = self.header.metadata.get(&key) else {
            return Ok(None);
        };
        let number = self.header.f32(&key).filter(|number| number.is_finite());
        Ok(Some(number.with_context(|| {
            format!("{key} is {value:?}, expected a finite number")
        })?))
    }

    fn float(&self, key: &str) -> Result<f32> {
        let missing = || format!("{} is missing", self.full(key));
        self.optional_float(key)?.with_context(missing)
    }

    /// Relatives of the family that would load and then compute something else.
    fn refuse_variants(&self) -> Result<()> {
        let experts = self.header.u64(&self.full("expert_count")).unwrap_or(0);
        ensure!(
            experts == 0,
            "a mixture of {experts} experts is not supported"
        );
        Ok(())
    }

    fn head_dim(&self, hidden_size: usize, heads: usize) -> Result<usize> {
        let head_dim = match self.optional_size("attention.key_length")? {
            Some(explicit) => explicit,
            None => {
                let even = hidden_size.is_multiple_of(heads);
                ensure!(
                    even,
                    "width {hidden_size} is not a multiple of {heads} heads"
                );
                hidden_size / heads
            }
        };
        for key in ["attention.value_length", "rope.dimension_count"] {
            let other = self.optional_size(key)?.unwrap_or(head_dim);
            ensure!(
                other == head_dim,
                "{} is {other}, different from the head width {head_dim}: not supported",
                self.full(key)
            );
        }
        Ok(head_dim)
    }

    fn vocabulary(&self) -> Result<usize> {
        let tokens = match self.header.metadata.get("tokenizer.ggml.tokens") {
            Some(GgufValue::Strings(tokens)) => Some(tokens.len()),
            _ => self.optional_size("vocab_size")?,
        };
        tokens.context("tokenizer.ggml.tokens is missing")
    }

    fn rope(&self) -> Result<RopeConfig> {
        let theta = self.optional_float("rope.freq_base")?.unwrap_or(10_000.0);
        let scaling = match &self.header.rope_factors {
            Some(factors) => RopeScaling::Factors(factors.clone()),
            None => self.rope_scaling()?,
        };
        // Rows of q and k are put back into Hugging Face order on loading.
        Ok(RopeConfig {
            theta,
            traditional: false,
            scaling,
        })
    }

    fn rope_scaling(&self) -> Result<RopeScaling> {
        let kind = self.header.string(&self.full("rope.scaling.type"));
        let factor = match self.optional_float("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.optional_float("rope.scale_linear")?,
        };
        let sharper = self
            .optional_float("rope.scaling.attn_factor")?
            .unwrap_or(1.0);
        ensure!(
            sharper == 1.0,
            "{} is not supported",
            self.full("rope.scaling.attn_factor")
        );
        match (kind, factor) {
            (Some("none"), _) | (None, None) => Ok(RopeScaling::None),
            (Some("linear") | None, Some(factor)) => Ok(RopeScaling::Linear { factor }),
            (Some("yarn"), Some(factor)) => Ok(RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: self
                    .size("rope.scaling.original_context_length")?,
                beta_fast: self
                    .optional_float("rope.scaling.yarn_beta_fast")?
                    .unwrap_or(32.0),
                beta_slow: self
                    .optional_float("rope.scaling.yarn_beta_slow")?
                    .unwrap_or(1.0),
                mscale: 1.0,
                mscale_all_dim: 0.0,
            }),
            (Some(kind), factor) => bail!(
                "{} is {kind:?} with factor {factor:?}: only linear and yarn with a factor are \
                 supported",
                self.full("rope.scaling.type")
            ),
        }
    }
}
