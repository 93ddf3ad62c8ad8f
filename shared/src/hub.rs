//! Model sources → local files. (Minimal stand-in until the real module is merged.)

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// Where a model's files are.
#[derive(Debug, Clone)]
pub enum ModelFiles {
    /// The model inside the binary.
    Embedded,
    /// A directory in Hugging Face layout.
    Directory(PathBuf),
    /// One GGUF file.
    Gguf(PathBuf),
}

impl ModelFiles {
    /// A small text file of the checkpoint; `None` if it has none.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn read_text(&self, name: &str) -> Result<Option<String>> {
        match self {
            Self::Embedded => Ok(match name {
                "config.json" => Some(embedded::CONFIG.to_owned()),
                "generation_config.json" => Some(embedded::GENERATION_CONFIG.to_owned()),
                "tokenizer.json" => Some(embedded::TOKENIZER.to_owned()),
                "tokenizer_config.json" => Some(embedded::TOKENIZER_CONFIG.to_owned()),
                _ => None,
            }),
            Self::Directory(directory) => match std::fs::read_to_string(directory.join(name)) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).with_context(|| format!("reading {name}")),
            },
            Self::Gguf(_) => Ok(None),
        }
    }

    /// Paths of the safetensors shards.
    ///
    /// # Errors
    /// There are none.
    pub fn shards(&self) -> Result<Vec<PathBuf>> {
        let Self::Directory(directory) = self else {
            bail!("no safetensors files here")
        };
        if let Some(index) = self.read_text("model.safetensors.index.json")? {
            let index: serde_json::Value = serde_json::from_str(&index)?;
            let map = index["weight_map"].as_object().context("no weight_map")?;
            let names: std::collections::BTreeSet<_> =
                map.values().filter_map(|file| file.as_str()).collect();
            return Ok(names.into_iter().map(|name| directory.join(name)).collect());
        }
        Ok(vec![directory.join("model.safetensors")])
    }
}

/// The embedded model.
pub mod embedded {
    /// `config.json`
    pub const CONFIG: &str = include_str!("../../assets/models/tiny/config.json");
    /// `generation_config.json`
    pub const GENERATION_CONFIG: &str =
        include_str!("../../assets/models/tiny/generation_config.json");
    /// `tokenizer.json`
    pub const TOKENIZER: &str = include_str!("../../assets/models/tiny/tokenizer.json");
    /// `tokenizer_config.json`
    pub const TOKENIZER_CONFIG: &str =
        include_str!("../../assets/models/tiny/tokenizer_config.json");
    /// `model.safetensors`
    pub static WEIGHTS: &[u8] = include_bytes!("../../assets/models/tiny/model.safetensors");
}
