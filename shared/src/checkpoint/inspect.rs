//! What `--inspect` prints: a checkpoint in words.

use std::collections::BTreeMap;

use super::Checkpoint;
use console::cli::FloatType;
use console::numbers::{count, decimal};
use repacking::blocks::{Form, Kind};

use crate::config::{Family, RopeScaling};

impl Checkpoint {
    /// What `--inspect` prints: label and text per row, among them every way in which the
    /// checkpoint differs from plain Llama. `ram_bytes`: memory of this machine, if known.
    pub fn inspect(&self, ram_bytes: Option<u64>) -> Vec<(String, String)> {
        let config = &self.config;
        let mut rows = vec![
            ("model", self.name.clone()),
            (
                "type",
                format!("{}, {} layers", config.model_type, config.num_hidden_layers),
            ),
            ("widths", self.widths()),
            ("heads", self.heads()),
            (
                "positions",
                format!(
                    "{}, {}",
                    count(config.max_position_embeddings as u64),
                    self.rope()
                ),
            ),
            ("differs", self.differences().join("; ")),
            ("weights", self.weights()),
            ("KV cache", self.kv_cache()),
        ];
        if let Some(text) = self.unpacked() {
            rows.insert(7, ("unpacked", text));
        }
        if let Some(ram) = ram_bytes {
            let positions = config.max_position_embeddings;
            let fits = match self.check_fit(positions, ram) {
                Ok(()) => format!("in {}, with the full context", decimal(ram)),
                Err(refusal) => format!("not with the full context: {refusal}"),
            };
            rows.push(("fits", fits));
        }
        rows.into_iter()
            .map(|(label, text)| (label.to_owned(), text))
            .collect()
    }

    fn widths(&self) -> String {
        let config = &self.config;
        format!(
            "model {}, MLP {}, vocabulary {}",
            count(config.hidden_size as u64),
            count(config.intermediate_size as u64),
            count(config.vocab_size as u64)
        )
    }

    fn heads(&self) -> String {
        let config = &self.config;
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let sharing = match heads / kv_heads {
            1 => "each its own keys and values".to_owned(),
            ratio => format!("{ratio} share one (GQA)"),
        };
        format!(
            "{heads} query, {kv_heads} key/value: {sharing}; width {}",
            config.head_dim
        )
    }

    fn rope(&self) -> String {
        if self.config.family == Family::Gpt2 {
            return "learned, one vector each".to_owned();
        }
        let rope = &self.config.rope;
        let scaling = match &rope.scaling {
            RopeScaling::None => String::new(),
            RopeScaling::Linear { factor } => format!(", linear scaling {factor}"),
            RopeScaling::Llama3 {
                factor,
                original_max_position_embeddings: from,
                ..
            } => {
                format!(", llama3 scaling {factor} from {}", count(*from as u64))
            }
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: from,
                ..
            } => {
                format!(", YaRN scaling {factor} from {}", count(*from as u64))
            }
            RopeScaling::Factors(_) => ", a factor per frequency".to_owned(),
        };
        format!("rotary, base {}{scaling}", count(rope.theta as u64))
    }

    /// Against Llama 2: no biases, no q/k norm, heads of width E/H, an untied head, full attention.
    fn differences(&self) -> Vec<String> {
        let config = &self.config;
        let windows: Vec<usize> = config.sliding_window.iter().flatten().copied().collect();
        let wide = config.head_dim * config.num_attention_heads != config.hidden_size;
        let mut found = Vec::new();
        let mut note = |holds: bool, text: String| {
            if holds {
                found.push(text);
            }
        };
        note(
            config.family == Family::Gpt2,
            "positions added; LayerNorm with bias; GELU; q, k, v in one matrix".to_owned(),
        );
        note(config.attention_bias, "bias on q, k, v".to_owned());
        note(config.attention_out_bias, "bias on o".to_owned());
        note(config.mlp_bias, "bias in the MLP".to_owned());
        note(config.qk_norm, "norm on q and k".to_owned());
        note(wide, format!("head width {} is not E/H", config.head_dim));
        note(self.tied(), "head tied to the embedding".to_owned());
        note(
            config.rope.traditional,
            "rotates neighbouring dimensions".to_owned(),
        );
        if let Some(window) = windows.first() {
            let (some, all) = (windows.len(), config.num_hidden_layers);
            note(
                true,
                format!(
                    "sliding window of {} in {some} of {all} layers",
                    count(*window as u64)
                ),
            );
        }
        if found.is_empty() {
            found.push("in nothing from plain Llama".to_owned());
        }
        found
    }

    fn weights(&self) -> String {
        let (parameters, bytes) = (self.parameters(), self.weight_bytes());
        let types = self.types().join(", ");
        let bits = 8.0 * bytes as f64 / parameters.max(1) as f64;
        format!(
            "{} parameters, {}, {types}: {bits:.2} bits per weight",
            count(parameters),
            decimal(bytes)
        )
    }

    /// `4 bits in groups of 64`, or the types of the tensors.
    fn types(&self) -> Vec<String> {
        match &self.config.quantization {
            Some(all) if self.gguf.is_none() => {
                let others = match all.overrides.len() {
                    0 => String::new(),
                    n => format!(" ({n} modules otherwise)"),
                };
                let from = match self.config.foreign {
                    Some(foreign) => format!(", stored by {}", foreign.name()),
                    None => String::new(),
                };
                vec![format!("{}{others}{from}", all.default)]
            }
            _ => {
                let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
                for tensor in &self.tensors {
                    *bytes.entry(&tensor.dtype).or_default() += tensor.bytes;
                }
                let mut types: Vec<_> = bytes.into_iter().collect();
                types.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
                types
                    .into_iter()
                    .map(|(name, _)| self.stored_as(name))
                    .collect()
            }
        }
    }

    /// The name of a type, and what becomes of scales that 16 bits do not hold.
    fn stored_as(&self, name: &str) -> String {
        let form = Kind::from_name(name).map(Kind::form);
        let Some(Form::Affine {
            exact_in_16_bits: false,
            ..
        }) = form
        else {
            return name.to_owned();
        };
        match self.dtype {
            None | Some(FloatType::F32) => format!("{name} with scales of 32 bits"),
            Some(_) => format!("{name} with scales rounded to 16 bits"),
        }
    }

    fn kv_cache(&self) -> String {
        let bytes = self.activation_bytes();
        let per_token = self.config.kv_bytes_per_token(bytes);
        let full = per_token.saturating_mul(self.config.max_position_embeddings as u64);
        format!(
            "{} per token in {} bits, {} at full context",
            decimal(per_token),
            8 * bytes,
            decimal(full)
        )
    }
}
