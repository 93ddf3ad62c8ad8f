//! The flags that every part has, and what a part does around its work: parse, run, exit code.
//!
//! A part flattens the groups into its own arguments and adds few flags of its own:
//!
//! ```text
//! #[derive(clap::Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     model: console::cli::ModelArgs,
//!     #[command(flatten)]
//!     output: console::cli::OutputArgs,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     console::cli::run(|args: Args| {
//!         anyhow::ensure!(!args.model.model.is_empty(), "no model named");
//!         Ok(())
//!     })
//! }
//! ```

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, ValueEnum};

use crate::files;
use crate::interrupt::{self, Interrupted, interrupted};
use crate::report;
use crate::text::WIDTH;

/// Which model, and which version of it.
#[derive(Args, Debug, Clone, PartialEq)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// `tiny` (built in), a directory, a .gguf file, or a Hugging Face id owner/name
    #[arg(long, value_name = "MODEL", default_value = "tiny")]
    pub model: String,

    /// Branch, tag or commit of a Hugging Face model
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,

    /// Compute in this type instead of the checkpoint's own
    #[arg(
        long,
        value_name = "f32|f16|bf16",
        value_enum,
        hide_possible_values = true
    )]
    pub dtype: Option<FloatType>,
}

/// A float type that a model can compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FloatType {
    /// 32 bits: twice the memory, and on the CPU the only one that MLX gives to BLAS.
    F32,
    /// 16 bits, 5 of them for the exponent.
    F16,
    /// 16 bits, 8 of them for the exponent.
    Bf16,
}

impl FloatType {
    /// Of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// What to say to the model, and how much of an answer to wait for.
#[derive(Args, Debug, Clone, PartialEq)]
#[command(next_help_heading = "Prompt")]
pub struct PromptArgs {
    /// Text to answer, or to continue with --raw
    #[arg(long, value_name = "TEXT", default_value = "Explain black holes")]
    pub prompt: String,

    /// Take the prompt from this regular file: not from a pipe, not from -
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompt_file: Option<PathBuf>,

    /// Most tokens to generate, at least 1
    #[arg(long, value_name = "N", default_value = "128")]
    #[arg(value_parser = max_tokens, allow_negative_numbers = true)]
    pub max_tokens: usize,

    /// Hand over the prompt as it is, without the model's chat template
    #[arg(long)]
    pub raw: bool,

    /// Go on where the model would end its answer, for measurements
    #[arg(long)]
    pub ignore_eos: bool,
}

/// Bytes of the longest prompt that a file may hold: four million tokens.
const LONGEST_PROMPT: u64 = 16 << 20;

impl PromptArgs {
    /// The text of the prompt, without the line break that editors put at the end of a file.
    ///
    /// # Errors
    /// If the file is no regular one, cannot be read, is longer than any context, or is not UTF-8.
    pub fn text(&self) -> Result<Cow<'_, str>> {
        let Some(path) = &self.prompt_file else {
            return Ok(Cow::Borrowed(&self.prompt));
        };
        let text = files::read_text(path, LONGEST_PROMPT)
            .with_context(|| format!("reading the prompt from {}", path.display()))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(Cow::Owned(
            text.strip_suffix('\r').unwrap_or(text).to_owned(),
        ))
    }
}

/// How the next token is chosen. The defaults are greedy: always the most likely one.
#[derive(Args, Debug, Clone, Copy, PartialEq)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Randomness, 0 or more; 0 always takes the most likely token
    #[arg(long, value_name = "T", default_value = "0")]
    #[arg(value_parser = temperature, allow_negative_numbers = true)]
    pub temperature: f32,

    /// Choose among the K most likely tokens; 0 for all
    #[arg(long, value_name = "K", default_value = "0")]
    #[arg(value_parser = top_k, allow_negative_numbers = true)]
    pub top_k: usize,

    /// Choose among the likeliest tokens that make up this probability, in (0, 1]
    #[arg(long, value_name = "P", default_value = "1")]
    #[arg(value_parser = top_p, allow_negative_numbers = true)]
    pub top_p: f32,

    /// Drop tokens below this share of the likeliest one's probability, 0 to 1
    #[arg(long, value_name = "P", default_value = "0")]
    #[arg(value_parser = min_p, allow_negative_numbers = true)]
    pub min_p: f32,

    /// Above 1 makes tokens that were there already less likely; more than 0
    #[arg(long, value_name = "R", default_value = "1")]
    #[arg(value_parser = repetition_penalty, allow_negative_numbers = true)]
    pub repetition_penalty: f32,

    /// Same seed, same text
    #[arg(long, value_name = "SEED", default_value = "0")]
    #[arg(value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,
}

/// What is reported besides the text, the card and the table.
#[derive(Args, Debug, Clone, Copy, PartialEq)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// End with all numbers as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Most positions that MLX can address: its shapes and offsets are 32-bit signed integers.
const MAX_POSITIONS: usize = i32::MAX as usize;

fn max_tokens(text: &str) -> Result<usize, String> {
    let value = text
        .parse()
        .ok()
        .filter(|n| (1..=MAX_POSITIONS).contains(n));
    value.ok_or_else(|| format!("must be a whole number from 1 to {MAX_POSITIONS}"))
}

fn top_k(text: &str) -> Result<usize, String> {
    let value = text.parse().ok().filter(|n| *n <= MAX_POSITIONS);
    value.ok_or_else(|| format!("must be a whole number from 0 (off) to {MAX_POSITIONS}"))
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("must be a whole number from 0 to {}", u64::MAX))
}

fn temperature(text: &str) -> Result<f32, String> {
    number(text, "a number of at least 0", |value| value >= 0.0)
}

fn top_p(text: &str) -> Result<f32, String> {
    number(text, "a number above 0 and at most 1", |value| {
        value > 0.0 && value <= 1.0
    })
}

fn min_p(text: &str) -> Result<f32, String> {
    number(text, "a number from 0 to 1", |value| {
        (0.0..=1.0).contains(&value)
    })
}

fn repetition_penalty(text: &str) -> Result<f32, String> {
    number(text, "a number above 0", |value| value > 0.0)
}

/// A finite number in a range; the error says which.
fn number(text: &str, range: &str, fits: impl Fn(f32) -> bool) -> Result<f32, String> {
    let value = text
        .parse()
        .ok()
        .filter(|value: &f32| value.is_finite() && fits(*value));
    value.ok_or_else(|| format!("must be {range}"))
}

/// The command of a part, with its help wrapped to 80 columns on wider terminals too.
pub fn command<A: Parser>() -> clap::Command {
    A::command().max_term_width(WIDTH)
}

/// The whole of a part's `main`: parses the flags, does the work, turns the outcome into an exit
/// code.
///
/// - 0: done, or the reader of stdout has gone (`| head -1`)
/// - 1: failed, with one line `error: …` on stderr
/// - 2: wrong flags
/// - 130: ended by Ctrl-C
///
/// The first Ctrl-C only sets a flag, see [`interrupted`]: a process that exits with MLX's work in
/// flight can crash, so whoever started work sees the flag, stops and waits for it. The second one
/// ends the process at once, without exit handlers.
pub fn run<A: Parser>(work: impl FnOnce(A) -> Result<()>) -> ExitCode {
    ExitCode::from(run_with(std::env::args_os(), work))
}

/// As [`run`], with arguments that are not the process's own: the exit code.
pub fn run_with<A: Parser>(
    args: impl IntoIterator<Item = OsString>,
    work: impl FnOnce(A) -> Result<()>,
) -> u8 {
    run_on(args, |args| {
        interrupt::watch().context("watching for Ctrl-C")?;
        work(args)
    })
}

/// As [`run`], for a program that Ctrl-C may end at any instant: it leaves nothing half done.
pub fn run_unwatched<A: Parser>(work: impl FnOnce(A) -> Result<()>) -> ExitCode {
    ExitCode::from(run_on(std::env::args_os(), work))
}

fn run_on<A: Parser>(
    args: impl IntoIterator<Item = OsString>,
    work: impl FnOnce(A) -> Result<()>,
) -> u8 {
    let parsed = command::<A>().try_get_matches_from(args);
    let result = match parsed.and_then(|mut matches| A::from_arg_matches_mut(&mut matches)) {
        Ok(args) => work(args),
        Err(err) => {
            // Help that nobody reads any more is no failure either.
            let err = err.format(&mut command::<A>());
            let _ = err.print();
            return u8::try_from(err.exit_code()).unwrap_or(2);
        }
    };
    report::clear_status();
    exit_code(result, interrupted())
}

/// The exit code of an outcome; prints the error if that is one to be told.
fn exit_code(result: Result<()>, interrupted: bool) -> u8 {
    match result {
        Ok(()) if interrupted => 130,
        Ok(()) => 0,
        Err(err) if report::stdout_closed(&err) => 0,
        Err(err) if err.chain().any(|cause| cause.is::<Interrupted>()) => 130,
        Err(err) => {
            report::error(&err);
            1
        }
    }
}

#[cfg(test)]
mod tests;
