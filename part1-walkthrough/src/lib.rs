//! Part 1: the complete journey of a prompt, with real numbers at every stop.
//!
//! The one idea: there is no magic between a sentence and the next word, only a handful of array
//! operations, each of which can be printed and checked. One walk through the model leaves a
//! [`trace`]; the terminal and the page show it.
//!
//! In reading order, the steps of the video:
//!
//! - [`tokenize`]: text → ids
//! - [`embed`]: ids → vectors, and how positions enter
//! - [`attend`]: one block in single steps: norm, q·kᵀ, scale, mask, softmax, ·v, MLP
//! - [`predict`]: the last vector → probabilities → one token
//! - [`decode`]: the loop that makes text
//! - [`recompute`]: what the loop computes again
//!
//! What they stand on:
//!
//! - [`pass`]: one pass over the tokens, in the order that all families share
//! - [`block`]: everything that one block computes on the way
//! - [`decoder`]: what a family of models has to provide
//! - [`llama`]: the Llama family, in plain operations
//! - [`gpt2`]: GPT-2, and what differs
//! - [`facts`]: what a checkpoint says of itself
//! - [`clock`]: which part of a pass takes how long
//!
//! What is made of it:
//!
//! - [`trace`]: what was found, as plain data
//! - [`pictures`], [`candidates`]: what of a block and of a prediction is shown
//! - [`subject`]: what is watched, and what it is asked to do
//! - [`walk`]: a model and a text → a trace
//! - [`show`]: the trace on a terminal
//! - [`page`]: the trace as one page for a browser
//! - [`experiment`]: the flags, and what the video shows
//!
//! And to be read last:
//!
//! - [`meanings`]: words along two directions that have names
//! - [`widths`]: what a wider vector costs
//! - [`order`]: the same words in another order, with positions and without
//! - [`merging`]: how a word was put together from bytes, merge by merge
//! - [`extras`]: one word in two sentences, a piece left out, several tokenizers beside each other

pub mod attend;
pub mod block;
pub mod candidates;
pub mod clock;
pub mod decode;
pub mod decoder;
pub mod embed;
pub mod experiment;
pub mod extras;
pub mod facts;
pub mod gpt2;
pub mod llama;
pub mod meanings;
pub mod merging;
pub mod order;
pub mod page;
pub mod pass;
pub mod pictures;
pub mod predict;
pub mod recompute;
pub mod show;
pub mod subject;
pub mod tokenize;
pub mod trace;
pub mod walk;
pub mod widths;
