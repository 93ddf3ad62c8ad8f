//! Whether all tensors of an architecture are there, by the headers alone.
//!
//! Half a model is told before anything of it is loaded or described: a file may be missing that no
//! index names, and the other half looks like a smaller model.

use std::collections::BTreeSet;

use anyhow::{Context, Error, Result, ensure};

use super::{Checkpoint, TensorInfo};
use crate::config::{Family, ModelConfig};
use crate::weights::missing;

impl Checkpoint {
    /// The error about the first tensors that the configuration asks for and no file has.
    pub(super) fn missing_tensor(&self) -> Option<Error> {
        let names: BTreeSet<String> = self.tensors.iter().map(|t| t.name.clone()).collect();
        let wanted = match self.config.family {
            Family::Llama => llama(&self.config, self.tied()),
            Family::Gpt2 => gpt2(&self.config, &names),
        };
        let absent = wanted.iter().find(|name| !names.contains(*name))?;
        let error = missing(absent, &names, self.config.num_hidden_layers);
        Some(error.context(format!("{} is not whole", self.name)))
    }

    /// Refuses a Llama of floats with a tensor too many, or with one of another shape than the configuration
    /// asks for: what loading finds, without loading.
    ///
    /// # Errors
    /// With the name of the tensor.
    pub fn check_shapes(&self) -> Result<()> {
        let names: BTreeSet<String> = llama(&self.config, self.tied()).into_iter().collect();
        for (TensorInfo { name, shape, .. }, _) in self.elements() {
            let expected = self.config.shape(name).filter(|_| names.contains(name));
            let expected = expected.with_context(|| {
                format!("the checkpoint has an extra tensor that this architecture has no place for: {name}")
            })?;
            ensure!(
                *shape == expected,
                "tensor {name} has shape {shape:?}, but config.json asks for {expected:?}: they are not of \
                 the same model"
            );
        }
        Ok(())
    }
}

fn llama(config: &ModelConfig, tied: bool) -> Vec<String> {
    const PROJECTIONS: [(&str, &[&str]); 3] = [
        ("self_attn", &["q_proj", "k_proj", "v_proj"]),
        ("self_attn", &["o_proj"]),
        ("mlp", &["gate_proj", "up_proj", "down_proj"]),
    ];
    let biased = [
        config.attention_bias,
        config.attention_out_bias,
        config.mlp_bias,
    ];
    let norms = ["input_layernorm", "post_attention_layernorm"];
    let head_norms = ["self_attn.q_norm", "self_attn.k_norm"];
    let head_norms = head_norms.iter().filter(|_| config.qk_norm);
    let mut parts: Vec<String> = norms
        .iter()
        .chain(head_norms)
        .map(|norm| format!("{norm}.weight"))
        .collect();
    for ((block, projections), biased) in PROJECTIONS.into_iter().zip(biased) {
        for projection in projections {
            parts.push(format!("{block}.{projection}.weight"));
            parts.extend(biased.then(|| format!("{block}.{projection}.bias")));
        }
    }
    let mut names = vec!["model.embed_tokens.weight".to_owned()];
    for layer in 0..config.num_hidden_layers {
        names.extend(
            parts
                .iter()
                .map(|part| format!("model.layers.{layer}.{part}")),
        );
    }
    names.push("model.norm.weight".to_owned());
    names.extend((!tied).then(|| "lm_head.weight".to_owned()));
    names
}

/// Under the prefix that the checkpoint has, if it has one.
fn gpt2(config: &ModelConfig, there: &BTreeSet<String>) -> Vec<String> {
    const PARTS: [&str; 6] = [
        "ln_1",
        "attn.c_attn",
        "attn.c_proj",
        "ln_2",
        "mlp.c_fc",
        "mlp.c_proj",
    ];
    let has = |prefix: &&str| there.contains(&format!("{prefix}wte.weight"));
    let prefix = ["transformer.", "model."].into_iter().find(has);
    let prefix = prefix.unwrap_or_default();
    let tables = ["wte", "wpe"].map(|table| format!("{prefix}{table}.weight"));
    let blocks = (0..config.num_hidden_layers)
        .flat_map(|layer| PARTS.map(|part| format!("{prefix}h.{layer}.{part}")));
    let modules = blocks.chain([format!("{prefix}ln_f")]);
    let both = modules.flat_map(|module| ["weight", "bias"].map(|of| format!("{module}.{of}")));
    tables.into_iter().chain(both).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::fixtures;

    #[test]
    fn every_fixture_of_floats_has_the_shapes_of_its_configuration() {
        let mut checked = 0;
        for name in fixtures::checkpoints().unwrap() {
            let checkpoint = fixtures::checkpoint(&name).unwrap();
            let packed = |dtype: &str| dtype == "U32" || dtype.starts_with('Q');
            let packed = checkpoint
                .tensors
                .iter()
                .any(|tensor| packed(&tensor.dtype));
            if packed || name == "gpt2" {
                continue;
            }
            checkpoint.check_shapes().unwrap();
            checked += 1;
        }
        assert!(checked > 10);
    }
}
