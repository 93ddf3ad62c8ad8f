//! A tokenizer without its model, to be compared with others.

use std::path::Path;

use anyhow::{Context, Result};
use console::files;

use super::{GgufVocabulary, Tokenizer, TokenizerFiles, guarded};
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
            let text = files::read_text(path, hub::LONGEST_TEXT)?;
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
        guarded::encode(&self.inner, text, false)
            .with_context(|| format!("encoding with {}", self.name))
    }
}
