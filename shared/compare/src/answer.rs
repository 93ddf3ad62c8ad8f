//! The JSON line that every part prints last.

use anyhow::{Context, Result, ensure};
use console::exec;
use console::machine::{Machine, Versions};
use console::metrics::{Run, first_difference};
use console::results;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::parts::Contestant;
use crate::process::Output;

/// What one part said; keys that nothing here needs are left alone.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Answers {
    /// What ran it.
    pub machine: Machine,
    /// Versions of what it is built on.
    pub versions: Versions,
    /// What was measured; one run, as a contestant runs one variant.
    pub runs: Vec<Answer>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Answer {
    /// What every part says of it.
    #[serde(flatten)]
    pub run: Run,
    /// All tokens of all requests per second of wall time; only parts with several requests say it.
    #[serde(default)]
    pub throughput_tps: Option<f64>,
    /// The ids of each request, where there are several; `run` has those of the first one.
    #[serde(default)]
    row_tokens: Vec<Vec<u32>>,
}

impl Answers {
    /// Reads the last line of what a contestant printed.
    ///
    /// # Errors
    /// If it failed: then the error is its own error line. If its last line is no report.
    pub fn of(contestant: &Contestant, output: &Output) -> Result<Self> {
        let name = contestant.name();
        let answers: Self = last_line(&name, output)?;
        ensure!(!answers.runs.is_empty(), "{name}: no run in its JSON line");
        Ok(answers)
    }

    /// The answer.
    pub fn answer(&self) -> &Answer {
        &self.runs[0]
    }

    /// What every part says of the answer.
    pub fn run(&self) -> &Run {
        &self.runs[0].run
    }
}

/// Reads the last line of what a program printed.
///
/// # Errors
/// If it failed: then the error is its own error line. If its last line is not such JSON.
pub(crate) fn last_line<T: DeserializeOwned>(name: &str, output: &Output) -> Result<T> {
    ensure!(output.status.success(), "{name}: {}", complaint(output));
    let text = String::from_utf8_lossy(&output.stdout);
    results::last_line(&text).with_context(|| name.to_owned())
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

impl Answer {
    /// Where it first leaves the reference's tokens, and its own tokens: those of the row that does so first. None if no
    /// row does.
    pub fn difference(&self, reference: &Run) -> Option<(usize, &[u32])> {
        let first = [&self.run.tokens];
        let rows = first.into_iter().chain(&self.row_tokens);
        let differs = |tokens: &'_ Vec<u32>| first_difference(&reference.tokens, tokens);
        let differences = rows.filter_map(|tokens| Some((differs(tokens)?, tokens.as_slice())));
        differences.min_by_key(|(at, _)| *at)
    }

    /// All output tokens per second of wall time: for one request, its tokens from the ids handed
    /// over to the last token.
    pub fn throughput(&self) -> Option<f64> {
        let n = self.run.tokens.len() as f64;
        let seconds = (self.run.ttft_ms? + self.run.tpot_ms? * (n - 1.0)) / 1e3;
        self.throughput_tps.or(Some(n / seconds))
    }
}

#[cfg(test)]
mod tests;
