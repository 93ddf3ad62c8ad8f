//! What a program of the series needs around its work: flags in, text and numbers out.
//!
//! Nothing here knows MLX, so the tools (`cargo setup`, `cargo compare`) stand on it, too. In the
//! order in which a run meets them:
//!
//! - [`cli`]: the flags that every part has, and the exit code
//! - [`interrupt`]: Ctrl-C, a flag that is asked between two steps
//! - [`text`]: any text → 80 columns that cannot harm a terminal
//! - [`numbers`]: counts, bytes and decimals as text
//! - [`report`]: streamed text, status, cards, tables, bars, curves: what prints
//! - [`progress`]: long work in steps, each with its time
//! - [`exec`]: other programs, run to their end
//! - [`metrics`]: instants → the numbers of the report
//! - [`answered`]: the table below an answer, or below several
//! - [`serving`]: many requests at once, in the words of vLLM's benchmark
//! - [`statistics`]: how sure a mean is
//! - [`machine`]: what ran it, as data
//! - [`results`]: the JSON line, and the files of `cargo compare`
//! - [`files`]: files that are written whole or not at all
//! - [`workspace`]: the checkout that a tool works on
pub mod answered;
pub mod cli;
pub mod exec;
pub mod files;
pub mod interrupt;
pub mod machine;
pub mod metrics;
pub mod numbers;
pub mod progress;
pub mod report;
pub mod results;
pub mod serving;
pub mod statistics;
pub mod text;
pub mod workspace;
