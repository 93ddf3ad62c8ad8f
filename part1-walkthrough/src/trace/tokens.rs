//! Step 1: what the model sees of a text.

use serde::{Deserialize, Serialize};

/// One token of the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its row of the embedding's table.
    pub id: u32,
    /// How the vocabulary spells it: `Ġblack` in a byte-level vocabulary.
    pub spelling: String,
    /// The bytes of the text that it stands for; not always whole characters.
    pub bytes: Vec<u8>,
    /// For people: blanks as `␣`, line breaks as `↵`, what cannot be printed as `\x1B` or
    /// `\u{202E}`, half characters as the bytes they are (`\xF0`). Never empty, and safe on a
    /// terminal. A page still has to escape it.
    pub piece: String,
    /// Whether it is a mark like `<|im_start|>` and no text.
    pub special: bool,
}

/// A token's id and spelling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its id.
    pub id: u32,
    /// As [`Token::piece`].
    pub piece: String,
}
