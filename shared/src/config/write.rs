//! [`ModelConfig`] → the text of a `config.json`, for a checkpoint that had none: a GGUF file.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::{Family, ModelConfig, RopeScaling};

impl ModelConfig {
    /// The keys of a `config.json` that reads as this configuration.
    ///
    /// # Errors
    /// If `config.json` has no words for it: with the part that it cannot say.
    pub(crate) fn to_json(&self) -> Result<Map<String, Value>> {
        ensure!(
            self.family == Family::Llama,
            "a {} has another config.json",
            self.model_type
        );
        let Value::Object(mut keys) = json!({
            "architectures": [format!("{}ForCausalLM", capitalized(&self.model_type))],
            "model_type": self.model_type,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": short(self.rms_norm_eps)?,
            "rope_theta": short(self.rope.theta)?,
            "rope_traditional": self.rope.traditional,
            "attention_bias": self.attention_bias && self.model_type != "qwen2",
            "mlp_bias": self.mlp_bias,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_ids,
        }) else {
            bail!("an object is no object");
        };
        if let Some(tied) = self.tie_word_embeddings {
            keys.insert("tie_word_embeddings".to_owned(), tied.into());
        }
        if let Some(scaling) = scaling(&self.rope.scaling)? {
            keys.insert("rope_scaling".to_owned(), scaling);
        }
        self.check_reads_back(&keys)?;
        Ok(keys)
    }

    /// What config.json has no key for must not be lost without a word.
    fn check_reads_back(&self, keys: &Map<String, Value>) -> Result<()> {
        let read = Self::from_json(&json!(keys).to_string(), None)?;
        let read = Self {
            quantization: self.quantization.clone(),
            foreign: self.foreign,
            torch_dtype: self.torch_dtype.clone(),
            remarks: self.remarks.clone(),
            ..read
        };
        ensure!(
            read == *self,
            "config.json has no words for this architecture: {self:?} would become {read:?}"
        );
        Ok(())
    }
}

fn capitalized(model_type: &str) -> String {
    let (first, rest) = model_type.split_at(1);
    first.to_uppercase() + rest
}

/// 1e-5, and not the digits of the f32 next to it.
fn short(value: f32) -> Result<f64> {
    let text = value.to_string();
    text.parse().with_context(|| format!("{text} is no number"))
}

fn scaling(scaling: &RopeScaling) -> Result<Option<Value>> {
    Ok(Some(match scaling {
        RopeScaling::None => return Ok(None),
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": short(*factor)?}),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => json!({
            "rope_type": "llama3",
            "factor": short(*factor)?,
            "low_freq_factor": short(*low_freq_factor)?,
            "high_freq_factor": short(*high_freq_factor)?,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
        RopeScaling::Yarn {
            factor,
            original_max_position_embeddings,
            beta_fast,
            beta_slow,
            mscale,
            mscale_all_dim,
        } => json!({
            "rope_type": "yarn",
            "factor": short(*factor)?,
            "original_max_position_embeddings": original_max_position_embeddings,
            "beta_fast": short(*beta_fast)?,
            "beta_slow": short(*beta_slow)?,
            "mscale": short(*mscale)?,
            "mscale_all_dim": short(*mscale_all_dim)?,
        }),
        RopeScaling::Factors(_) => bail!(
            "its RoPE frequencies are a table (rope_freqs.weight), which config.json has no key for: \
             convert the safetensors of the model"
        ),
    }))
}

#[cfg(test)]
mod tests {
    use crate::testing::fixtures;

    #[test]
    fn every_llama_among_the_fixtures_reads_back() {
        let mut read_back = 0;
        for name in fixtures::checkpoints().unwrap() {
            let config = fixtures::checkpoint(&name).unwrap().config;
            let windows = config.sliding_window.iter().any(Option::is_some);
            assert_eq!(
                config.to_json().is_ok(),
                !windows && name != "gpt2",
                "{name}"
            );
            read_back += usize::from(!windows);
        }
        assert!(read_back > 10);
    }
}
