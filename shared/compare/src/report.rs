//! The JSON line that every part prints last.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use xtask::compare::results::Machine;
use xtask::{exec, versus};

use crate::parts::Contestant;
use crate::process::Output;

/// One part's report; keys that nothing here needs are left alone.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Report {
    /// What ran it.
    pub machine: Machine,
    /// Versions of what it is built on.
    pub versions: BTreeMap<String, String>,
    /// What was measured; one run, as a contestant runs one variant.
    pub runs: Vec<Run>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Run {
    /// What the part calls the variant.
    pub variant: String,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// The ids of the answer.
    pub tokens: Vec<u32>,
    /// The same as text.
    pub text: String,
    /// Ids handed over → first token evaluated.
    pub ttft_ms: Option<f64>,
    /// Per token after the first.
    pub tpot_ms: Option<f64>,
    /// Tokens per second after the first, one request.
    pub decode_tps: Option<f64>,
    /// All tokens of all requests per second of wall time; only parts with several requests say it.
    #[serde(default)]
    pub throughput_tps: Option<f64>,
    /// Most memory that MLX held at once.
    pub peak_bytes: Option<u64>,
    /// Weights in memory.
    pub weight_bytes: Option<u64>,
    /// Keys and values at the end.
    pub kv_bytes: Option<u64>,
}

impl Report {
    /// Reads the last line of what a contestant printed.
    ///
    /// # Errors
    /// If it failed: then the error is its own error line. If its last line is no report.
    pub fn of(contestant: &Contestant, output: &Output) -> Result<Self> {
        let name = contestant.name();
        ensure!(output.status.success(), "{name}: {}", complaint(output));
        let text = String::from_utf8_lossy(&output.stdout);
        let line = versus::last_line(&text, &name)?;
        let report = Self::deserialize(line)
            .with_context(|| format!("{name}: its JSON line lacks something"))?;
        ensure!(!report.runs.is_empty(), "{name}: no run in its JSON line");
        Ok(report)
    }

    /// The answer.
    pub fn run(&self) -> &Run {
        &self.runs[0]
    }
}

/// What a program that failed says of it: its own error line, else how it ended and its last words.
fn complaint(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = anstream::adapter::strip_str(&stderr).to_string();
    let line = exec::complaint(&Output {
        status: output.status,
        stdout: Vec::new(), // the text of a model is no reason
        stderr: stderr.clone().into_bytes(),
    });
    match line.strip_prefix("error: ") {
        Some(told) => told.to_owned(),
        None if stderr.trim().is_empty() => line,
        None => format!("it ended with {}: {line}", output.status),
    }
}

impl Run {
    /// All output tokens per second of wall time: for one request, its tokens from the ids handed
    /// over to the last token.
    pub fn throughput(&self) -> Option<f64> {
        let n = self.tokens.len() as f64;
        let seconds = (self.ttft_ms? + self.tpot_ms? * (n - 1.0)) / 1e3;
        self.throughput_tps.or(Some(n / seconds))
    }

    /// Where `other` gives the first token that differs, counted from 0; an answer that ends early
    /// differs there.
    pub fn first_difference(&self, other: &Self) -> Option<u64> {
        let mut pairs = self.tokens.iter().zip(&other.tokens);
        let shorter = self.tokens.len().min(other.tokens.len());
        let unequal = self.tokens.len() != other.tokens.len();
        let at = pairs.position(|(ours, theirs)| ours != theirs);
        at.or(unequal.then_some(shorter)).map(|at| at as u64)
    }
}

#[cfg(test)]
mod tests;
