//! Part 2: a real model generates text, the naive way.
//!
//! The one idea: a language model maps ids to scores for the next id, and text is made by asking
//! again with the answer appended. Nothing is remembered between two steps; the report shows what
//! that costs, and part 3 is about not paying it.
//!
//! In reading order:
//!
//! - [`model`]: `Attention → Mlp → Block → Model`, one decoder for the whole Llama family
//! - [`generate`]: the loop that asks for one token after the other
//!
//! Beside it:
//!
//! - [`experiment`]: what the video shows, as numbers
//! - [`cost_meter`]: what naive decode computes again, drawn
//! - [`memory`]: when arrays are computed, where they lie, and how fast a token can be

pub mod cost_meter;
pub mod experiment;
pub mod generate;
pub mod memory;
pub mod model;
