//! The texts that models are measured on.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use console::files;
use shared::session::Session;

/// A novel in the public domain. Its source is told in `assets/texts/README.md`.
const ALICE: &str = include_str!("../../assets/texts/alice.txt");
/// What the built-in model answers itself: it knows nothing else, and would be lost in a novel.
const ANSWERS: &str = include_str!("../../assets/texts/answers.txt");
/// Bytes of the longest text that a file may hold.
const LONGEST: u64 = 64 << 20;

/// What `--text` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextChoice {
    /// A novel in the public domain: `assets/texts/alice.txt`.
    Alice,
    /// Answers of the built-in model: `assets/texts/answers.txt`.
    Answers,
    /// Any text in UTF-8.
    File(PathBuf),
}

impl From<&str> for TextChoice {
    fn from(text: &str) -> Self {
        match text {
            "alice" => Self::Alice,
            "answers" => Self::Answers,
            file => Self::File(file.into()),
        }
    }
}

impl TextChoice {
    /// What is taken where nothing is said: a text of the kind that the model was made for.
    pub fn for_model(name: &str) -> Self {
        if name == "tiny" {
            Self::Answers
        } else {
            Self::Alice
        }
    }

    /// Its name on the screen.
    pub fn name(&self) -> String {
        match self {
            Self::Alice => "Alice's Adventures in Wonderland".to_owned(),
            Self::Answers => "answers of the built-in model".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// The ids of the whole text; a tokenizer that begins texts with an id of its own does so here, too.
    ///
    /// # Errors
    /// If the file cannot be read or is empty, or if the tokenizer belongs to another model.
    pub fn ids(&self, session: &Session) -> Result<Vec<u32>> {
        let text = self.content()?;
        let context = || format!("the text {}", self.name());
        ensure!(!text.is_empty(), "{} is empty", context());
        session.tokenizer.encode_raw(&text).with_context(context)
    }

    fn content(&self) -> Result<Cow<'static, str>> {
        Ok(match self {
            Self::Alice => ALICE.into(),
            Self::Answers => ANSWERS.into(),
            Self::File(path) => read(path)?.into(),
        })
    }
}

fn read(path: &Path) -> Result<String> {
    files::read_text(path, LONGEST).with_context(|| format!("reading the text {}", path.display()))
}
