//! Part 3: the KV cache.
//!
//! The one idea: the keys and values of a token never change once they are computed, so store them,
//! and run only what is new. The report shows naive and cached decode side by side, and the memory
//! that the cache takes beside the memory that the formula says.
//!
//! In reading order:
//!
//! - [`cache`]: one interface to keys and values that are stored
//! - [`concat`]: a longer array for every token
//! - [`prealloc`]: an array with room, written in place
//! - [`keys_values`]: the pair of arrays that all of them hold
//! - [`model`]: the decoder of part 2, whose attention asks the cache
//! - [`generate`]: the prompt once, then one token a step
//! - [`ahead`]: one step ahead of the host
//!
//! Beside it:
//!
//! - [`kinds`]: the kinds of caches, by name
//! - [`rotating`]: a window that forgets, with the same interface
//! - [`experiment`]: what the video shows, as numbers
//! - [`bench`]: answers measured in turns
//! - [`report`]: those numbers as tables and curves, predicted beside measured
//! - [`says`]: what they say, in sentences
//! - [`needle`]: which sentence a small window forgets
//! - [`plot`]: the curve as a chart
//! - [`saved`]: the cache in a file
//!
//! [`concat`]: mod@concat
//! [`bench`]: mod@bench

pub mod ahead;
pub mod bench;
pub mod cache;
pub mod concat;
pub mod experiment;
pub mod generate;
pub mod keys_values;
pub mod kinds;
pub mod model;
pub mod needle;
pub mod plot;
pub mod prealloc;
pub mod report;
pub mod rotating;
pub mod saved;
pub mod says;
