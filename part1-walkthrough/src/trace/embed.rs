//! Step 2: vectors and positions.

use serde::{Deserialize, Serialize};

use super::floats::Floats;

/// Step 2: a row of the table for each token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// One per token.
    pub tokens: Vec<Embedded>,
    /// The tokens and their neighbours on a plane.
    pub map: Map,
    /// A dozen words along two directions that have names; None where the vocabulary lacks too many.
    pub meanings: Option<Meanings>,
    /// What a wider vector costs: this model, and some that are known.
    pub widths: Vec<Width>,
    /// The same words in another order; None where a tokenizer cuts the sentences into different pieces.
    pub order: Option<Order>,
    /// Where this model adds a vector per position (GPT-2): per token the length of that vector and
    /// of the sum. Empty where positions enter by rotation.
    pub added_positions: Vec<AddedPosition>,
}

/// Words along two directions that are made of other words: what two axes of a table could mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meanings {
    /// To the right, and upwards.
    pub axes: [Direction; 2],
    /// The words, none of which is in a direction.
    pub points: Vec<Meaning>,
}

/// From the mean of some words to the mean of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Where it begins.
    pub from: Vec<String>,
    /// Where it goes.
    pub to: Vec<String>,
}

/// One word: how far its vector, of length 1, goes along each direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meaning {
    /// The word.
    pub piece: String,
    /// Along the first direction, from −1 to 1.
    pub x: f32,
    /// Along the second.
    pub y: f32,
}

/// A model's width, and what that takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Width {
    /// Its name.
    pub model: String,
    /// Where its sizes are published; None for the model that is watched.
    pub source: Option<String>,
    /// E
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of weights.
    pub parameters: u64,
    /// Weights that one token is multiplied with.
    pub multiplications: u64,
}

/// Two sentences of the same tokens in another order, and what their last token collects from each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The sentences.
    pub texts: [String; 2],
    /// The pieces of the first, as [`Token::piece`](super::Token::piece).
    pub pieces: Vec<String>,
    /// Where each of them stands in the second.
    pub places: Vec<usize>,
    /// Length of the difference between the sums of all rows of the table: nothing but rounding.
    pub sums: f32,
    /// The head of the first layer that is drawn.
    pub head: usize,
    /// Nothing says where a token stands.
    pub without: Reading,
    /// The model as it is.
    pub with: Reading,
}

/// What the last token makes of both sentences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// For each piece of the first sentence: how much that head looks at it in each sentence.
    pub attention: [Vec<f32>; 2],
    /// Length of what attention adds in the first layer, in the first sentence.
    pub length: f32,
    /// Length of the difference to what it adds in the second.
    pub difference: f32,
    /// After the embedding and after each layer: cosine between its two vectors.
    pub cosines: Vec<f32>,
}

/// The vector of one token, as the table has it: the same in every sentence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedded {
    /// `√Σx²`
    pub norm: f32,
    /// The first numbers of E.
    pub first: Vec<f32>,
    /// The tokens whose vectors point most nearly the same way, itself left out.
    pub neighbours: Vec<Neighbour>,
}

/// A token near another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its id.
    pub id: u32,
    /// As [`Token::piece`](super::Token::piece).
    pub piece: String,
    /// `a·b / (|a||b|)`: 1 is the same direction, 0 a right angle.
    pub cosine: f32,
}

/// Two of the E axes, chosen so that the points lie as far apart as they can (PCA).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Map {
    /// Share of the points' variance that each axis shows; the rest is not visible.
    pub explained: [f32; 2],
    /// Each different token once: first those of the prompt, then their neighbours.
    pub points: Vec<Point>,
}

/// One vector on the map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its id.
    pub id: u32,
    /// As [`Token::piece`](super::Token::piece).
    pub piece: String,
    /// First axis.
    pub x: f32,
    /// Second axis.
    pub y: f32,
    /// Positions in the prompt where it stands; empty for a neighbour.
    pub at: Vec<usize>,
}

/// What a learned position does to a token's vector.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AddedPosition {
    /// Length of the position's vector.
    pub norm: f32,
    /// Length of token plus position.
    pub sum_norm: f32,
    /// Cosine between the token's vector before and after.
    pub cosine: f32,
}

/// How the model knows the order of the tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Positions {
    /// q and k are turned, pair by pair, in every layer (Llama, Mistral, Qwen).
    Rotated {
        /// The base of the wavelengths.
        theta: f32,
        /// How the wavelengths are stretched: `none`, `linear`, `llama3`, `yarn`, `factors`.
        scaling: String,
        /// Radians per position, one for each of the D/2 pairs; position p turns pair i by
        /// `p · frequencies[i]`.
        frequencies: Vec<f32>,
        /// Whether a pair is `(0, 1)` instead of `(0, D/2)`.
        interleaved: bool,
        /// q·k of one query and one key, both put at other positions: as long as the distance
        /// stays, so does the product.
        same_distance: Vec<Shifted>,
    },
    /// A vector per position is added to the token's, once, before the first layer (GPT-2).
    Learned {
        /// Rows of the table of positions.
        rows: usize,
        /// Cosine between the vectors of the first positions, `[n, n]`: neighbours look alike.
        cosines: Floats,
        /// n
        shown: usize,
    },
}

/// The product of one query with one key at chosen positions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shifted {
    /// Position given to the query.
    pub query: usize,
    /// Position given to the key.
    pub key: usize,
    /// q·k after the rotation.
    pub product: f32,
}
