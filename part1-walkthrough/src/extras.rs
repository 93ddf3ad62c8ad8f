//! Three annexes to the walk. None of the six steps needs them, so read them last.
//!
//! - [`compare`]: one word in two sentences
//! - [`what_if`]: a piece is left out, and something breaks
//! - [`faceoff`]: several tokenizers, one text
//!
//! Each finds something out as plain data, and a module `show` puts it on a terminal.

pub mod compare;
pub mod faceoff;
pub mod what_if;
