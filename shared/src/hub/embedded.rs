//! The models that are part of the program: `assets/models/tiny`, 7.3 M parameters, 15 MB in bf16, and the one that
//! guesses for it, `assets/models/tiny-draft`, 0.9 M parameters, 2 MB.
//!
//! It makes the first run of every part work without a network. The bytes are mapped with the
//! executable, so a program that loads another model pays disk space for them, but no memory.

macro_rules! text {
    ($name:literal) => {
        include_str!(concat!("../../../assets/models/tiny/", $name))
    };
}

/// `config.json`: the architecture.
pub const CONFIG: &str = text!("config.json");
/// `generation_config.json`: stop tokens.
pub const GENERATION_CONFIG: &str = text!("generation_config.json");
/// `tokenizer.json`: vocabulary and merges.
pub const TOKENIZER: &str = text!("tokenizer.json");
/// `tokenizer_config.json`: chat template and the names of the special tokens.
pub const TOKENIZER_CONFIG: &str = text!("tokenizer_config.json");
/// `special_tokens_map.json`.
pub const SPECIAL_TOKENS_MAP: &str = text!("special_tokens_map.json");
/// `model.safetensors`: the whole file, header included.
pub static WEIGHTS: &[u8] = include_bytes!("../../../assets/models/tiny/model.safetensors");

/// `config.json` of the draft model. Its other texts are the same.
pub const DRAFT_CONFIG: &str = include_str!("../../../assets/models/tiny-draft/config.json");
/// `model.safetensors` of the draft model.
pub static DRAFT_WEIGHTS: &[u8] =
    include_bytes!("../../../assets/models/tiny-draft/model.safetensors");

/// One of the models that are part of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Embedded {
    /// `tiny`
    Tiny,
    /// `tiny-draft`
    Draft,
}

impl Embedded {
    /// By what `--model` calls it.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "tiny" => Some(Self::Tiny),
            "tiny-draft" => Some(Self::Draft),
            _ => None,
        }
    }

    /// `model.safetensors`.
    pub fn weights(self) -> &'static [u8] {
        match self {
            Self::Tiny => WEIGHTS,
            Self::Draft => DRAFT_WEIGHTS,
        }
    }

    /// A text file by its name; `None` if it has none of that name.
    pub fn text(self, name: &str) -> Option<&'static str> {
        match (self, name) {
            (Self::Draft, "config.json") => Some(DRAFT_CONFIG),
            _ => text(name),
        }
    }
}

fn text(name: &str) -> Option<&'static str> {
    match name {
        "config.json" => Some(CONFIG),
        "generation_config.json" => Some(GENERATION_CONFIG),
        "tokenizer.json" => Some(TOKENIZER),
        "tokenizer_config.json" => Some(TOKENIZER_CONFIG),
        "special_tokens_map.json" => Some(SPECIAL_TOKENS_MAP),
        _ => None,
    }
}
