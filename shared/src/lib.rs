//! What the parts of the series have in common as far as it computes with MLX: files in, ids out.
//!
//! A part writes out what its video teaches and imports everything else from here or, where no MLX
//! is needed, from `console`. In the order in which a run meets them:
//!
//! - [`hub`]: a model's name → its files
//! - [`gguf`]: the header of a GGUF file
//! - [`config`]: what the checkpoint says about its architecture
//! - [`checkpoint`]: what can be known before any weight is loaded
//! - [`weights`]: the tensors, each taken exactly once
//! - [`tokenizer`]: text → ids, ids → text
//! - [`layers`]: Linear, Embedding, RmsNorm, Rope, swiglu
//! - [`ops`]: what a model calls between its layers
//! - [`kernels`]: products that are not MLX's own
//! - [`sampling`]: logits → the next id
//! - [`request`]: what is asked of a model, and what a step of the answer brings
//! - [`session`]: a model that is open, and makes requests from texts
//! - [`prompt_cache`]: keys and values of a prompt in a file
//! - [`machine`]: what ran it
//! - [`watch`]: programs of others on a leash
//! - [`ffi`]: the few calls into MLX that mlx-rs does not wrap
pub mod checkpoint;
pub mod config;
pub mod ffi;
pub mod gguf;
#[cfg(test)]
mod hostile;
pub mod hub;
pub mod kernels;
pub mod layers;
mod lenient_json;
pub mod machine;
pub mod ops;
pub mod prompt_cache;
mod remarks;
pub mod request;
pub mod sampling;
pub mod session;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tokenizer;
pub mod watch;
pub mod weights;
