//! Counters, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::App;
use crate::ask::Event;
use crate::handle::{GuessCounts, Status};

/// Paths that are counted under their names. All others are one, or a client could make up any number of them.
const PATHS: [&str; 12] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/tokenize",
    "/detokenize",
    "/tokenizer_info",
    "/apply-template",
    "/health",
    "/metrics",
    "/",
    "/live",
    "/what-if",
];

/// Upper ends of what is counted together, in seconds.
const ENDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

#[derive(Debug, Default)]
pub(super) struct Metrics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<(&'static str, u16), u64>,
    first: Histogram,
    gaps: Histogram,
    whole: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    counts: [u64; ENDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn add(&mut self, seconds: f64) {
        let places = ENDS.iter().zip(&mut self.counts);
        places
            .filter(|(end, _)| seconds <= **end)
            .for_each(|(_, count)| *count += 1);
        self.count += 1;
        self.sum += seconds;
    }
}

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request was answered.
    pub(super) fn count(&self, path: &str, status: u16) {
        let known = PATHS.into_iter().find(|known| *known == path);
        let key = (known.unwrap_or("other"), status);
        *self.counts().requests.entry(key).or_default() += 1;
    }

    /// All counters, and those of the engine.
    pub(super) fn text(&self, status: &Status) -> String {
        let mut text = String::new();
        engine(&mut text, status);
        let counts = self.counts();
        let help = "Requests by path and status";
        head(&mut text, "requests_total", help, "counter");
        for ((path, status), count) in &counts.requests {
            let _ = writeln!(
                text,
                "pipeline_requests_total{{path=\"{path}\",status=\"{status}\"}} {count}"
            );
        }
        let mut time = |name: &str, help: &str, of: &Histogram| of.write(&mut text, name, help);
        let first = "From a request to its first token";
        time("time_to_first_token_seconds", first, &counts.first);
        let gaps = "From one token of an answer to the next one";
        time("inter_token_seconds", gaps, &counts.gaps);
        let whole = "From a request to the end of an answer";
        time("request_seconds", whole, &counts.whole);
        text
    }
}

/// What the engine says of itself.
fn engine(text: &mut String, status: &Status) {
    let mut gauge = |name, help, value| sample(text, name, help, "gauge", value);
    gauge("running", "Rows in use", status.running as u64);
    gauge("waiting", "Answers without a row", status.waiting as u64);
    gauge("kv_tokens", "Positions in memory", status.kv_tokens as u64);
    let limit = "Positions that there is memory for";
    gauge("kv_tokens_limit", limit, status.kv_limit as u64);
    let kept = "Bytes that are kept for later prompts";
    gauge("prefix_bytes", kept, status.prefix_bytes);
    let mut counter = |name, help, value| sample(text, name, help, "counter", value);
    counter("steps_total", "Steps of the engine", status.steps);
    let computed = "Tokens of prompts that were computed";
    counter("prompt_tokens_total", computed, status.prompt_tokens);
    let cached = "Tokens of prompts that were not computed again";
    counter("cached_tokens_total", cached, status.cached_tokens);
    let answered = "Tokens of answers";
    counter(
        "completion_tokens_total",
        answered,
        status.completion_tokens,
    );
    let lost = "Rows that lost their memory";
    counter("preemptions_total", lost, status.preemptions);
    guesses(text, &status.guesses);
}

/// Under vLLM's names, after the prefix.
fn guesses(text: &mut String, counts: &GuessCounts) {
    let mut counter = |name: &str, help, value| {
        let name = format!("spec_decode_{name}_total");
        sample(text, &name, help, "counter", value);
    };
    let guesses = "Guesses at the next tokens of an answer";
    counter("num_drafts", guesses, counts.guesses);
    let guessed = "Tokens that were guessed";
    counter("num_draft_tokens", guessed, counts.guessed);
    let right = "Tokens that were guessed and are right";
    counter("num_accepted_tokens", right, counts.right);
    let stopped = "Pauses of answers whose guesses lost time";
    counter("stopped", stopped, counts.stopped);
    let name = "spec_decode_num_accepted_tokens_per_pos_total";
    head(text, name, "The same by position in the guess", "counter");
    for (position, right) in counts.right_at.iter().enumerate() {
        let _ = writeln!(text, "pipeline_{name}{{position=\"{position}\"}} {right}");
    }
}

impl Histogram {
    fn write(&self, text: &mut String, name: &str, help: &str) {
        head(text, name, help, "histogram");
        for (end, count) in ENDS.iter().zip(&self.counts) {
            let _ = writeln!(text, "pipeline_{name}_bucket{{le=\"{end}\"}} {count}");
        }
        let Self { count, sum, .. } = self;
        let _ = writeln!(text, "pipeline_{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(
            text,
            "pipeline_{name}_sum {sum}\npipeline_{name}_count {count}"
        );
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(
        text,
        "# HELP pipeline_{name} {help}\n# TYPE pipeline_{name} {kind}"
    );
}

fn sample(text: &mut String, name: &str, help: &str, kind: &str, value: u64) {
    head(text, name, help, kind);
    let _ = writeln!(text, "pipeline_{name} {value}");
}

/// The times of one request.
#[derive(Debug)]
pub(super) struct Clock {
    app: App,
    asked: Instant,
    /// When each answer, by prompt and number, had its last token.
    last: BTreeMap<(usize, usize), Instant>,
}

impl Clock {
    /// It was asked now.
    pub(super) fn start(app: &App) -> Self {
        Self {
            app: app.clone(),
            asked: Instant::now(),
            last: BTreeMap::new(),
        }
    }

    /// Takes the time of an event.
    pub(super) fn see(&mut self, prompt: usize, event: &Event) {
        let now = Instant::now();
        let mut counts = self.app.0.metrics.counts();
        match event {
            Event::Delta { choice, .. } => match self.last.insert((prompt, *choice), now) {
                None => counts.first.add((now - self.asked).as_secs_f64()),
                Some(before) => counts.gaps.add((now - before).as_secs_f64()),
            },
            Event::End { .. } => counts.whole.add((now - self.asked).as_secs_f64()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_below_each_end_and_unknown_paths_are_one() {
        let metrics = Metrics::default();
        metrics.count("/v1/completions", 200);
        metrics.count("/v1/completions", 200);
        metrics.count("/a", 404);
        metrics.count("/b", 404);
        metrics.counts().gaps.add(0.02);
        metrics.counts().gaps.add(100.0);
        let status = Status {
            running: 3,
            steps: 7,
            guesses: GuessCounts {
                guesses: 3,
                guessed: 6,
                right: 3,
                right_at: vec![2, 1],
                stopped: 0,
            },
            ..Status::default()
        };
        insta::assert_snapshot!(metrics.text(&status));
    }
}
