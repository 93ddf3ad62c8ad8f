//! Part 4: quantization.
//!
//! The one idea: a weight needs far fewer bits than it has, if a few neighbours share a scale and a bias.
//! A step reads every weight once, so fewer bits are fewer bytes and more tokens per second. What it costs
//! in quality is measured, not hoped for.
//!
//! In reading order:
//!
//! - [`quantize`]: weights in, packed weights out: scales, biases and codes
//! - [`quality`]: how far the model is from what it was
//! - [`model`]: as in part 3
//! - [`generate`]: as in part 3
//! - [`cache`]: as in part 3
//! - [`concat`]: as in part 3
//! - [`prealloc`]: as in part 3
//! - [`keys_values`]: as in part 3
//! - [`ahead`]: as in part 3
//! - [`quantized_cache`]: keys and values, packed as weights are
//!
//! Beside it:
//!
//! - [`kinds`]: the kinds of caches, by name
//! - [`rotating`]: a window that forgets, as in part 3
//! - [`recipe`]: which module gets how many bits
//! - [`floats`]: codes that are small floats, and the best scale for them
//! - [`finite`]: what no code can stand for
//! - [`convert`]: a checkpoint in, a quantized one out
//! - [`microscope`]: one group of weights, bit by bit, and how far its error comes
//! - [`experiment`]: what the video shows, as numbers
//! - [`answer`]: one answer at one width
//! - [`margin`]: by how much the model prefers one token to another
//! - [`table`]: every width on the same text and prompt
//! - [`variants`]: the rows of the table
//! - [`bench`]: one row after the other, measured
//! - [`estimates`]: the scores as a few numbers, each with its error
//! - [`texts`]: what is scored
//! - [`report`]: the numbers in cells and sentences
//! - [`plot`]: quality over bytes as a chart
//!
//! [`concat`]: mod@concat
//! [`bench`]: mod@bench

pub mod ahead;
pub mod answer;
pub mod bench;
pub mod cache;
pub mod concat;
pub mod convert;
pub mod estimates;
pub mod experiment;
pub mod finite;
pub mod floats;
pub mod generate;
pub mod keys_values;
pub mod kinds;
pub mod margin;
pub mod microscope;
pub mod model;
pub mod plot;
pub mod prealloc;
pub mod quality;
pub mod quantize;
pub mod quantized_cache;
pub mod recipe;
pub mod report;
pub mod rotating;
pub mod table;
pub mod texts;
pub mod variants;
