//! The JSON line that every part ends with.

use serde::Serialize;

use crate::machine::{Machine, Versions};

/// The JSON line, with the same keys in every part.
#[derive(Debug, Serialize)]
pub struct JsonReport<'a, R> {
    /// The part: `part2-first-inference`.
    pub part: &'a str,
    /// The model as it was asked for.
    pub model: &'a str,
    /// What ran it.
    pub machine: &'a Machine,
    /// Versions of what it is built on.
    pub versions: &'a Versions,
    /// What was measured.
    pub runs: &'a [R],
}
