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
//! - [`decoder`]: what a family of models has to provide, and the pass that all of them share
//! - [`llama`]: the Llama family, in plain operations
//! - [`gpt2`]: GPT-2, and what differs
//! - [`facts`]: what a checkpoint says of itself
//! - [`pictures`], [`candidates`]: what of a block and of a prediction is shown
//! - [`trace`], [`floats`]: what was found, as plain data
//! - [`walk`]: a model and a text → a trace
//! - [`compare`]: one word in two sentences
//! - [`what_if`]: a piece is left out
//! - [`faceoff`]: several tokenizers, one text
//! - [`show`]: the trace on a terminal
//! - [`html`]: the trace as one page for a browser
//! - [`experiment`]: the flags

pub mod attend;
pub mod candidates;
pub mod compare;
pub mod decode;
pub mod decoder;
pub mod embed;
pub mod experiment;
pub mod faceoff;
pub mod facts;
pub mod floats;
pub mod gpt2;
pub mod html;
pub mod llama;
pub mod pictures;
pub mod predict;
pub mod recompute;
pub mod show;
pub mod tokenize;
pub mod trace;
pub mod walk;
pub mod what_if;
