//! A tokenizer without its model, to be compared with others.

use std::path::Path;

use anyhow::{Context, Result, anyhow};

use super::{GgufVocabulary, Tokenizer, TokenizerFiles};
use crate::gguf::GgufHeader;
use crate::hub::{self, ModelFiles};

/// There is no model that could lack a row for an id.
const ANY_ROW: usize = u32::MAX as usize;

impl Tokenizer {
    /// Finds and reads a tokenizer: `tiny`, a directory with a `tokenizer.json`, such a file, a
    /// `.gguf` file, or a hub id, of which only the files of the tokenizer are downloaded.
    ///
    /// # Errors
    /// If there is none, or if it cannot be read.
    pub fn open_alone(name: &str) -> Result<Self> {
        let path = Path::new(name);
        if path.extension().is_some_and(|ending| ending == "json") && path.is_file() {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
            return Self::from_text(name, text);
        }
        match hub::locate_tokenizer(name)? {
            ModelFiles::Gguf(path) => {
                let header = GgufHeader::open(&path)?;
                Self::from_gguf(name, &GgufVocabulary::from_header(&header), ANY_ROW)
            }
            files => {
                let text = files.read_text("tokenizer.json")?;
                Self::from_text(name, text.with_context(|| super::no_tokenizer(name))?)
            }
        }
    }

    fn from_text(name: &str, tokenizer: String) -> Result<Self> {
        Self::from_files(&TokenizerFiles {
            name: name.to_owned(),
            tokenizer: Some(tokenizer),
            vocab_size: ANY_ROW,
            ..TokenizerFiles::default()
        })
    }

    /// The ids of the text and nothing else: no template, and no special token before or after it.
    pub fn encode_bare(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|error| anyhow!("encoding with {}: {error}", self.name))?;
        Ok(encoding.get_ids().to_vec())
    }
}
