//! The files around the weights of a new checkpoint: what describes the model, and its tokenizer.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use console::cli::FloatType;
use serde_json::{Map, Value};

use super::{Checkpoint, writer::pretty};
use crate::config::Quantization;
use crate::hub::ModelFiles;
use crate::lenient_json;
use crate::tokenizer::GgufVocabulary;

/// Copied byte for byte where they are there.
const COPIED: [&str; 11] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
];

const CONFIG: &str = "config.json";
const EMBEDDING: &str = "model.embed_tokens.weight";

impl Checkpoint {
    /// The type that a conversion gives all floats, as in mlx-lm: the one that was asked for, else the one that
    /// the configuration claims. A GGUF file claims none: there the embedding decides, since llama.cpp keeps
    /// norms in f32 whatever the model, but not over scales that blocks have. `None`: each tensor keeps its
    /// own.
    pub fn float_of_conversion(&self) -> Option<FloatType> {
        let embedding = self.tensors.iter().find(|tensor| tensor.name == EMBEDDING);
        let claimed = match self.gguf {
            Some(_) if self.packed_tensor().is_some() => None,
            Some(_) => embedding.map(|tensor| tensor.dtype.as_str()),
            None => self.config.torch_dtype.as_deref(),
        };
        let claimed = match claimed {
            Some("float32" | "F32") => Some(FloatType::F32),
            Some("float16" | "F16") => Some(FloatType::F16),
            Some("bfloat16" | "BF16") => Some(FloatType::Bf16),
            _ => None,
        };
        self.dtype.or(claimed)
    }

    /// Writes `config.json` with `quantization`, and copies the files of the tokenizer and of generation, as
    /// mlx-lm's conversion leaves them; of a GGUF file they are made.
    ///
    /// # Errors
    /// If one cannot be read or written.
    pub fn write_companions(&self, directory: &Path, quantization: &Quantization) -> Result<()> {
        let config = pretty(&self.converted_config(quantization)?)?;
        write(directory, CONFIG, &config)?;
        if let Some(header) = &self.gguf {
            let files = GgufVocabulary::from_header(header).files();
            let files =
                files.with_context(|| format!("building the tokenizer of {}", self.name))?;
            let mut files = files.into_iter();
            return files.try_for_each(|(name, text)| write(directory, name, text.as_bytes()));
        }
        for name in COPIED {
            if let Some(bytes) = self.companion(name)? {
                write(directory, name, &bytes)?;
            }
        }
        Ok(())
    }

    fn companion(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let ModelFiles::Directory(from) = &self.files else {
            return Ok(self.files.read_text(name)?.map(String::into_bytes));
        };
        // Not all are text: tokenizer.model is not.
        let path = from.join(name);
        if !path.exists() {
            return Ok(None);
        }
        console::files::read(&path, crate::hub::longest(name)).map(Some)
    }

    fn original_config(&self) -> Result<Map<String, Value>> {
        if self.gguf.is_some() {
            let config = self.config.to_json();
            return config.with_context(|| format!("describing {}", self.name));
        }
        let text = self.files.read_text(CONFIG)?;
        let text = text.with_context(|| format!("{} has no {CONFIG}", self.name))?;
        match lenient_json::parse(CONFIG, &text)? {
            (Value::Object(config), _) => Ok(config),
            _ => bail!("{CONFIG} of {} is not a JSON object", self.name),
        }
    }

    fn converted_config(&self, quantization: &Quantization) -> Result<Map<String, Value>> {
        let mut config = self.original_config()?;
        config.remove("_name_or_path");
        config.remove("vision_config");
        if let Some(ends) = self.ends_of_generation()? {
            config.insert("eos_token_id".to_owned(), ends);
        }
        let of_gguf = self.gguf.as_ref().and(self.float_of_conversion());
        if let Some(dtype) = self.dtype.or(of_gguf) {
            let name = match dtype {
                FloatType::F32 => "float32",
                FloatType::F16 => "float16",
                FloatType::Bf16 => "bfloat16",
            };
            config.insert("torch_dtype".to_owned(), name.into());
        }
        // Twice: the tree of models on the hub reads the second one.
        for key in ["quantization", "quantization_config"] {
            let old = config.insert(key.to_owned(), quantization.to_json());
            ensure!(old.is_none(), "{} is quantized already", self.name);
        }
        config.sort_keys();
        Ok(config)
    }

    /// The ends of generation decide over those of the configuration, as in mlx-lm.
    fn ends_of_generation(&self) -> Result<Option<Value>> {
        let Some(text) = self.files.read_text("generation_config.json")? else {
            return Ok(None);
        };
        let parsed = lenient_json::parse("generation_config.json", &text);
        let ends = parsed.ok().map(|(value, _)| value["eos_token_id"].clone());
        let says_nothing = |value: &Value| {
            value.is_null() || *value == 0 || value.as_array().is_some_and(Vec::is_empty)
        };
        Ok(ends.filter(|value| !says_nothing(value)))
    }
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = directory.join(name);
    fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
}
