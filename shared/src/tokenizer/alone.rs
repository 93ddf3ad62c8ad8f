//! A tokenizer without its model, to be compared with others.

use std::path::Path;

use anyhow::{Context, Result};
use console::files;

use super::{GgufVocabulary, Tokenizer, TokenizerFiles, guarded};
use crate::gguf::GgufHeader;
use crate::hub::{self, ModelFiles};
use crate::remarks::tell_all;

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
            return Self::from_files(&TokenizerFiles {
                tokenizer: Some(files::read_text(path, hub::longest("tokenizer.json"))?),
                ..alone(name)
            });
        }
        match hub::locate_tokenizer(name)? {
            ModelFiles::Gguf(path) => {
                let header = GgufHeader::open(&path)?;
                Self::from_gguf(name, &GgufVocabulary::from_header(&header), ANY_ROW)
            }
            files => {
                let files = TokenizerFiles {
                    tokenizer: files.read_text("tokenizer.json")?,
                    tokenizer_config: files.read_text("tokenizer_config.json")?,
                    special_tokens_map: files.read_text("special_tokens_map.json")?,
                    ..alone(name)
                };
                let tokenizer = Self::read(&files, |_, _| Ok(None))?; // templates are for models
                tell_all(tokenizer.remarks());
                Ok(tokenizer)
            }
        }
    }

    /// The ids of the text and nothing else: no template, and no special token before or after it.
    pub fn encode_bare(&self, text: &str) -> Result<Vec<u32>> {
        guarded::encode(&self.inner, text, false)
            .with_context(|| format!("encoding with {}", self.name))
    }
}

fn alone(name: &str) -> TokenizerFiles {
    TokenizerFiles {
        name: name.to_owned(),
        vocab_size: ANY_ROW,
        ..TokenizerFiles::default()
    }
}
