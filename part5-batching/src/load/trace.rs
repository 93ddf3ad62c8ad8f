//! A load as JSON lines, with the keys of the traces that Mooncake published: `timestamp` in milliseconds,
//! `input_length`, `output_length`. Other keys are left alone.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, ensure};
use console::files;
use console::serving::Offered;
use console::statistics::mean;
use serde::{Deserialize, Serialize};

use super::{MOST, Planned};

/// Bytes of the longest trace: a million lines, and the keys that others write into them.
const LONGEST: u64 = 1 << 30;

const EXAMPLE: &str = r#"{"timestamp": 120, "input_length": 64, "output_length": 32}"#;

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    timestamp: f64,
    input_length: usize,
    output_length: usize,
}

pub(super) fn read(path: &Path) -> Result<Vec<Planned>> {
    let text = files::read_text(path, LONGEST).context("reading the trace")?;
    let name = path.display();
    let mut requests: Vec<Planned> = Vec::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let last = requests
            .last()
            .map_or(Duration::ZERO, |request| request.due);
        let request = planned(line, last)
            .with_context(|| format!("line {} of the trace {name}", number + 1))?;
        ensure!(
            requests.len() < MOST,
            "the trace {name} has more than {MOST} requests: cut it"
        );
        requests.push(request);
    }
    ensure!(!requests.is_empty(), "the trace {name} has no requests");
    Ok(requests)
}

fn planned(line: &str, last: Duration) -> Result<Planned> {
    let Line {
        timestamp,
        input_length,
        output_length,
    } = serde_json::from_str(line).map_err(|error| not_one(&error))?;
    let due = Duration::try_from_secs_f64(timestamp / 1e3)
        .ok()
        .with_context(|| format!("has a timestamp of {timestamp:?} ms: no instant of a run"))?;
    ensure!(
        due >= last,
        "comes at {timestamp} ms, before the line above it: sort the trace by timestamp"
    );
    ensure!(input_length > 0, "has a prompt of 0 tokens");
    ensure!(output_length > 0, "has an answer of 0 tokens");
    Ok(Planned {
        due,
        prompt_tokens: input_length,
        output_tokens: output_length,
    })
}

/// What serde says, without its line: that is the first of the one line it was given.
fn not_one(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    anyhow!(
        "is no request: {what} at column {}; a request is {EXAMPLE}",
        error.column()
    )
}

/// The rate and the burstiness that a trace has; infinite if all its requests come at once.
pub(super) fn offered(requests: &[Planned], max_concurrency: Option<usize>) -> Offered {
    let last = requests
        .last()
        .map_or(0.0, |request| request.due.as_secs_f64());
    let gaps: Vec<f64> = requests
        .windows(2)
        .map(|pair| (pair[1].due - pair[0].due).as_secs_f64())
        .collect();
    let mean = mean(&gaps);
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    let shape = mean * mean / variance;
    Offered {
        request_rate: if last > 0.0 {
            requests.len() as f64 / last
        } else {
            f64::INFINITY
        },
        burstiness: if shape.is_nan() { 1.0 } else { shape },
        max_concurrency,
    }
}

pub(super) fn write(requests: &[Planned]) -> String {
    let line = |request: &Planned| {
        let line = Line {
            timestamp: request.due.as_secs_f64() * 1e3,
            input_length: request.prompt_tokens,
            output_length: request.output_tokens,
        };
        // Numbers alone: nothing that could not be written.
        serde_json::to_string(&line).unwrap_or_default() + "\n"
    };
    requests.iter().map(line).collect()
}
