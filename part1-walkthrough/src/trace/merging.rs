//! How the words of the prompt were put together from bytes.

use serde::{Deserialize, Serialize};

/// Byte pair encoding of the prompt, merge by merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merging {
    /// Merges of the vocabulary.
    pub merges: usize,
    /// The words of the prompt in their order; no merge crosses from one to the next.
    pub words: Vec<Word>,
    /// All that a page needs to cut any other text; None if that is too much for a page.
    pub table: Option<MergeTable>,
}

/// A stretch of text within which neighbours are joined: a word with the space before it, a number, a
/// punctuation mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// Position of its first token.
    pub first: usize,
    /// The text, as [`Token::piece`](super::Token::piece).
    pub text: String,
    /// What it begins as, a piece for each byte.
    pub bytes: Vec<String>,
    /// The merges, in the order in which they are done.
    pub steps: Vec<Joined>,
}

impl Word {
    /// The pieces that are left when no merge is possible any more.
    pub fn pieces(&self) -> &[String] {
        self.steps.last().map_or(&self.bytes, |step| &step.pieces)
    }
}

/// One merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its place in the list of merges, from 0: the lowest that is possible is done next.
    pub rank: usize,
    /// Which of `pieces` is the joined one.
    pub at: usize,
    /// All pieces of the word after it.
    pub pieces: Vec<String>,
}

/// A vocabulary's merges for a program that cuts text itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeTable {
    /// A line for each merge, two pieces in the byte alphabet with a blank between them.
    pub merges: String,
    /// The ids of the joined pieces; empty if that of merge i is `first + i`.
    pub ids: Vec<u32>,
    /// The id of the first joined piece.
    pub first: u32,
    /// Characters that stand for single bytes, with their ids.
    pub alphabet: Vec<(char, u32)>,
    /// Marks that are found before anything is cut, with their ids.
    pub marks: Vec<(String, u32)>,
    /// Whether digits are cut off first, and if so, whether each stands alone.
    pub digits: Option<bool>,
}
