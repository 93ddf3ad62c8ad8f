//! llama.cpp's table of batches, as `llama-batched-bench` prints it.

use std::io::{self, Write};

use crate::report::Report;

/// B prompts of PP tokens, then TG tokens of each answer, all in step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batched {
    /// Tokens of each prompt: PP.
    pub prompt: usize,
    /// Tokens of each answer: TG.
    pub answer: usize,
    /// Rows: B.
    pub rows: usize,
    /// Seconds for all prompts: T_PP.
    pub prompt_seconds: f64,
    /// Seconds for all answers: T_TG.
    pub answer_seconds: f64,
}

/// Writes the table. It is wider than 80 columns: it is there to be laid beside llama.cpp's.
///
/// # Errors
/// If it cannot be written.
pub fn batched_table<W: Write>(report: &mut Report<W>, rows: &[Batched]) -> io::Result<()> {
    report.line(
        "|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |",
    )?;
    report.line(
        "|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|",
    )?;
    rows.iter().try_for_each(|row| report.line(&row.line()))
}

impl Batched {
    fn line(&self) -> String {
        let Self {
            prompt,
            answer,
            rows,
            prompt_seconds,
            answer_seconds,
        } = *self;
        let (read, written) = (rows * prompt, rows * answer);
        let time = prompt_seconds + answer_seconds;
        let speed = |tokens: usize, seconds: f64| tokens as f64 / seconds;
        format!(
            "|{prompt:6} | {answer:6} | {rows:4} | {:6} | {prompt_seconds:8.3} | {:8.2} | \
             {answer_seconds:8.3} | {:8.2} | {time:8.3} | {:8.2} |",
            read + written,
            speed(read, prompt_seconds),
            speed(written, answer_seconds),
            speed(read + written, time),
        )
    }
}
