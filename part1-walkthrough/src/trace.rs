//! Everything that one walk through the model found, as plain data: the terminal and the page show
//! this and nothing else, so they cannot tell different stories.
//!
//! No array of MLX is in here: a trace can be written as JSON, read back and drawn without the
//! model. Letters as everywhere: L tokens of the prompt, H query heads, Hkv key/value heads, D head
//! width, E model width, F MLP width, V vocabulary. Layers, heads and positions count from 0, like the
//! names in a checkpoint.

use serde::{Deserialize, Serialize};
pub use shared::sampling::Filter;

use crate::floats::Floats;

/// How many of the likeliest tokens a trace names, see [`Prediction::named`].
pub const NAMED: usize = 256;

/// One prompt's whole journey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The model that was watched.
    pub model: ModelFacts,
    /// The prompt as it was typed.
    pub text: String,
    /// Whether the chat template was put around it; `tokens` then has more than `text`.
    pub templated: bool,
    /// Step 1: the L tokens that the model sees.
    pub tokens: Vec<Token>,
    /// Step 2: their vectors.
    pub embedding: Embedding,
    /// How the model knows the order of the tokens.
    pub positions: Positions,
    /// Step 3: per layer, who looked at whom and what was added.
    pub layers: Vec<Layer>,
    /// One head in slow motion.
    pub focus: Focus,
    /// What each layer would have said, had it been the last one.
    pub lens: Vec<LensRow>,
    /// Step 4: from the last vector to the next token.
    pub prediction: Prediction,
    /// Step 5: the loop.
    pub decode: Decode,
    /// Step 6: what the loop computes again.
    pub recompute: Recompute,
    /// What one pass over the prompt costs, part by part.
    pub budget: Vec<Cost>,
    /// The single steps against MLX's fused operations.
    pub checks: Vec<Check>,
    /// What happened with something switched off, if that was asked for. The rest of the trace is of
    /// the model as it is.
    pub what_if: Option<WhatIfOutcome>,
}

/// What the checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// The model as it was asked for: `tiny`, a path, a hub id.
    pub name: String,
    /// `llama`, `mistral`, `qwen2`, `qwen3`, `gpt2`.
    pub architecture: String,
    /// Number of blocks.
    pub layers: usize,
    /// H
    pub heads: usize,
    /// Hkv; query head h reads key/value head `h / (H / Hkv)`.
    pub kv_heads: usize,
    /// D
    pub head_dim: usize,
    /// E
    pub width: usize,
    /// F
    pub inner: usize,
    /// V
    pub vocabulary: usize,
    /// Most positions.
    pub context: usize,
    /// How positions enter, for people: `rotated, theta 10,000` or `learned, 1,024 vectors added`.
    pub position_encoding: String,
    /// `RMSNorm` or `LayerNorm`.
    pub norm: String,
    /// `SwiGLU` or `GELU (tanh)`.
    pub activation: String,
    /// Whether the embedding's table is the head, too.
    pub tied: bool,
    /// Number of weights.
    pub parameters: u64,
    /// Their size in memory, as computed with.
    pub weight_bytes: u64,
    /// The type of most weights in the file: `BF16`, `Q4_1`, …
    pub stored_as: String,
    /// The type of the activations: `float32`, …
    pub computed_in: String,
    /// Bytes of one number of the activations, and so of a KV cache.
    pub activation_bytes: usize,
}

/// One token of the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its row of the embedding's table.
    pub id: u32,
    /// How the vocabulary spells it: `Ġblack` in a byte-level vocabulary.
    pub spelling: String,
    /// The bytes of the text that it stands for; not always whole characters.
    pub bytes: Vec<u8>,
    /// For people: blanks as `␣`, line breaks as `↵`, what cannot be printed as `\x1B` or `\u{202E}`,
    /// half characters as the bytes they are (`\xF0`). Never empty, and safe on a terminal. A page
    /// still has to escape it.
    pub piece: String,
    /// Whether it is a mark like `<|im_start|>` and no text.
    pub special: bool,
}

/// A token and how likely it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its id.
    pub id: u32,
    /// As [`Token::piece`].
    pub piece: String,
    /// Softmax of the logits over the whole vocabulary, at temperature 1.
    pub probability: f32,
}

/// Step 2: a row of the table for each token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// One per token.
    pub tokens: Vec<Embedded>,
    /// The tokens and their neighbours on a plane.
    pub map: Map,
    /// Where this model adds a vector per position (GPT-2): per token the length of that vector and
    /// of the sum. Empty where positions enter by rotation.
    pub added_positions: Vec<AddedPosition>,
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
    /// As [`Token::piece`].
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
    /// As [`Token::piece`].
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
        /// q·k of one query and one key, both put at other positions: as long as the distance stays,
        /// so does the product.
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

/// Step 3 in one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// After softmax, `[H, L, L]`: row = who looks, column = at whom; a row sums to 1.
    pub weights: Floats,
    /// Length of what each head adds to each token's stream, `[H, L]`.
    pub head_norms: Floats,
    /// Length of what attention adds, per token.
    pub attention_norms: Vec<f32>,
    /// Length of what the MLP adds, per token.
    pub mlp_norms: Vec<f32>,
    /// Length of the residual stream after this layer, per token.
    pub stream_norms: Vec<f32>,
}

impl Layer {
    /// The head that adds most to the stream of one token; the first of equal ones.
    pub fn loudest(&self, position: usize) -> usize {
        let tokens = self.stream_norms.len();
        let heads = self.head_norms.0.len() / tokens;
        let added = |head: usize| self.head_norms.row(head, tokens)[position];
        (1..heads).fold(0, |best, head| {
            if added(head) > added(best) {
                head
            } else {
                best
            }
        })
    }
}

/// One head of one layer, every step of `softmax(q kᵀ / √D + mask) v`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Focus {
    /// The layer.
    pub layer: usize,
    /// The query head.
    pub head: usize,
    /// The key/value head that it reads.
    pub kv_head: usize,
    /// `q kᵀ`, `[L, L]`
    pub raw: Floats,
    /// Divided by √D.
    pub scaled: Floats,
    /// With −∞ where a token may not look.
    pub masked: Floats,
    /// After softmax.
    pub weights: Floats,
    /// Lengths of the values `v`, per token.
    pub value_norms: Vec<f32>,
    /// Lengths of `weights · v`, per token.
    pub mixed_norms: Vec<f32>,
    /// The arrays on the way, each with its letters and sizes.
    pub shapes: Vec<Shape>,
}

/// An array on the way through the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// What it is: `q`, `scores = q kᵀ`.
    pub name: String,
    /// `[B, H, L, D]`
    pub letters: String,
    /// `[1, 4, 12, 64]`
    pub sizes: Vec<usize>,
}

/// What the head makes of the stream after a layer (nostalgebraist's logit lens).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LensRow {
    /// Blocks behind it: 0 for the embedding, `layers` for what the model says.
    pub after: usize,
    /// The likeliest next tokens at the last position, likeliest first.
    pub last: Vec<Candidate>,
    /// The likeliest next token at every position.
    pub each: Vec<Candidate>,
    /// Probability that the last position gives to the token that the model will say.
    pub answer: f32,
}

/// Step 4: from logits to one token.
///
/// The picture is drawn with `settings`. The flags' defaults are greedy, and nothing would be to be
/// seen; then `example` is set, `settings` are chosen to show each filter at work, and `chosen` is
/// still what the flags ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Of the last position, `[V]`, as the model gives them.
    pub logits: Floats,
    /// Spelling of the [`NAMED`] likeliest tokens, likeliest first. Temperature, top-k, top-p and
    /// min-p never change the order of two tokens, so under any of their settings the tokens to be
    /// named are the first of these; the others can be counted and summed up from `logits`.
    pub named: Vec<Named>,
    /// What is drawn.
    pub settings: Settings,
    /// Whether `settings` are an example and not the flags.
    pub example: bool,
    /// The likeliest tokens, likeliest first.
    pub bars: Vec<Bar>,
    /// What is kept and removed, of the whole vocabulary.
    pub filters: Vec<FilterOutcome>,
    /// Probabilities of the first tokens of `bars` at other temperatures, nothing removed.
    pub temperatures: Vec<Temperature>,
    /// The token with the largest logit.
    pub greedy: Candidate,
    /// The token that the flags choose; probability at temperature 1, nothing removed.
    pub chosen: Candidate,
}

/// A token's id and spelling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its id.
    pub id: u32,
    /// As [`Token::piece`].
    pub piece: String,
}

/// The sampling flags.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// 0: greedy.
    pub temperature: f32,
    /// 0: off.
    pub top_k: usize,
    /// 1: off.
    pub top_p: f32,
    /// 0: off.
    pub min_p: f32,
    /// 1: off.
    pub repetition_penalty: f32,
    /// Of the random draw.
    pub seed: u64,
}

/// One token before and after the sampler's steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Its id.
    pub id: u32,
    /// As [`Token::piece`].
    pub piece: String,
    /// Its logit, after the repetition penalty.
    pub logit: f32,
    /// Probability at temperature 1, after the repetition penalty.
    pub before: f32,
    /// Probability of being drawn: filters and temperature applied. 0 if it was removed.
    pub after: f32,
    /// Probability of this and all likelier tokens, at temperature 1.
    pub cumulative: f32,
    /// The filter that removed it.
    pub removed_by: Option<Filter>,
    /// Why, in words with numbers: `top-p: 0.961 ahead ≥ 0.95`.
    pub reason: Option<String>,
}

/// What one filter did to the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FilterOutcome {
    /// Which one.
    pub filter: Filter,
    /// Tokens that it removed.
    pub removed: usize,
    /// Tokens that are left after it.
    pub kept: usize,
    /// Probability at temperature 1 of those left.
    pub mass: f32,
}

/// The distribution at one temperature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    /// T
    pub temperature: f32,
    /// For the first tokens of [`Prediction::bars`].
    pub probabilities: Vec<f32>,
}

/// Step 5: the loop, as the flags ask for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decode {
    /// One per generated token.
    pub rounds: Vec<Round>,
    /// What came out.
    pub text: String,
    /// `stop`, `length`.
    pub ended_by: String,
}

/// One turn of the loop: the whole sequence in, one token out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Tokens that went in.
    pub input: usize,
    /// The token that came out.
    pub chosen: Candidate,
    /// The likeliest ones, likeliest first.
    pub top: Vec<Candidate>,
    /// Measured; not the same in two runs.
    pub micros: f64,
}

/// Step 6: what naive decode computes again, and what a cache would keep instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recompute {
    /// Per round of [`Decode`]: positions that went through every layer.
    pub computed: Vec<u64>,
    /// Per round: those of them that an earlier round had computed.
    pub repeated: Vec<u64>,
    /// Largest difference between the keys and values of the prompt's positions in the first round and
    /// in the last one, over all layers: what is computed again comes out the same.
    pub largest_change: f32,
    /// Operations of all rounds.
    pub flops_naive: u64,
    /// Operations that a cache would have left.
    pub flops_cached: u64,
    /// `2 · layers · Hkv · D · bytes`
    pub kv_bytes_per_token: u64,
    /// The same with H instead of Hkv: what it would be if every query head had its own keys.
    pub kv_bytes_per_token_all_heads: u64,
    /// A cache of prompt and answer.
    pub kv_bytes: u64,
    /// Positions repeated for answers of other lengths after the same prompt.
    pub answers: Vec<Answer>,
}

/// What an answer of some length would cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// n
    pub tokens: u64,
    /// Positions computed again, in each layer: `(n−1)(p−1) + n(n−1)/2` after a prompt of p.
    pub repeated: u64,
    /// `n(n−1)/2` of them are of the answer itself.
    pub of_answer: u64,
    /// A cache of prompt and answer.
    pub kv_bytes: u64,
}

/// What one part of the model costs in one pass over the prompt, summed over the layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// `q k v`, `softmax(q kᵀ) v`, …
    pub part: String,
    /// Number of weights.
    pub parameters: u64,
    /// Additions and multiplications of matrix products.
    pub flops: u64,
    /// Weights that have to be read at least.
    pub bytes: u64,
    /// Measured, with a wait after each part; not the same in two runs.
    pub micros: f64,
}

/// A result in single steps beside the same from one operation of MLX.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What was computed in single steps: `RMSNorm`.
    pub name: String,
    /// The operation that it is compared with: `fast::rms_norm`.
    pub fused: String,
    /// Largest difference of two numbers.
    pub difference: f32,
    /// Largest number of the fused result.
    pub largest: f32,
    /// Most that `difference / largest` may be: a few units in the last place of the type.
    pub tolerance: f32,
}

impl Check {
    /// Whether the two agree.
    pub fn holds(&self) -> bool {
        self.difference <= self.tolerance * self.largest
    }
}

/// Something that is left out, to see what it was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum WhatIf {
    /// Every token sees the ones after it, too.
    NoMask,
    /// q and k are not rotated; where positions are added, none is.
    NoPositions,
    /// Scores are not divided by √D.
    NoScaling,
    /// One head adds nothing.
    ZeroHead {
        /// Its layer.
        layer: usize,
        /// Its number.
        head: usize,
    },
}

/// The symptom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhatIfOutcome {
    /// What was left out.
    pub switch: WhatIf,
    /// The likeliest next tokens of the model as it is, likeliest first.
    pub before: Vec<Candidate>,
    /// The probabilities of the same tokens with the switch.
    pub before_then: Vec<f32>,
    /// The likeliest next tokens with the switch.
    pub after: Vec<Candidate>,
    /// Cosine between the last token's stream with and without the switch, after the embedding and
    /// after each layer.
    pub cosines: Vec<f32>,
    /// Mean entropy of the attention rows in each layer, in bits, of the model as it is.
    pub entropy_before: Vec<f32>,
    /// The same with the switch.
    pub entropy_after: Vec<f32>,
    /// The greedy answer of the model as it is.
    pub text_before: String,
    /// The greedy answer with the switch.
    pub text_after: String,
}

/// `--compare`: one word in two sentences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The model that was watched.
    pub model: ModelFacts,
    /// The shared word, without blanks around it.
    pub word: String,
    /// The word where it first stands in each sentence.
    pub first: Drift,
    /// Whether the same tokens stand before it in both sentences. A causal model then cannot tell the
    /// two apart at that place: what comes later does not count.
    pub same_before: bool,
    /// If so, the word once more, in a repetition of each sentence (Springer et al. 2024, arXiv
    /// 2402.15449): there it has seen the whole sentence.
    pub repeated: Option<Drift>,
    /// What was left out, if anything.
    pub what_if: Option<WhatIf>,
}

/// One place in each of two texts, followed through the layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// The texts.
    pub sides: [Side; 2],
    /// After the embedding and after each layer: cosine between the two vectors.
    pub cosines: Vec<f32>,
    /// Length of the difference of the two vectors, likewise.
    pub distances: Vec<f32>,
    /// The heads whose contributions differ most between the texts, most first.
    pub heads: Vec<HeadShift>,
}

/// One of two texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Position of the word's last token: the one that has seen the whole word.
    pub position: usize,
}

/// What one head did to the shared word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadShift {
    /// Its layer.
    pub layer: usize,
    /// Its number.
    pub head: usize,
    /// Length of the difference of what it added in the two texts.
    pub shift: f32,
    /// The word's attention in each text, `[L]` of that text.
    pub attention: [Vec<f32>; 2],
}
