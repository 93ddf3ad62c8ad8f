//! Many requests at once → the numbers of a serving run.
//!
//! Names, definitions and order are those of vLLM's `vllm bench serve`, so that two engines can be laid side by
//! side; what vLLM does not print comes after it. Instants count from the beginning of the run. As elsewhere,
//! what cannot be computed is `None` and a dash, where vLLM has a zero.

mod batched;
mod latency;
mod slo;
mod steps;

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::metrics::{FinishReason, ms};
use crate::numbers::or_dash;
use crate::report::Report;

pub use batched::{Batched, batched_table};
pub use latency::Latency;
pub use slo::Slo;
pub use steps::{ServedStep, Steps};

/// One request, as its client saw it.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// When the load wanted it to be sent. Earlier than `arrival` if the number of requests at the same time
    /// is limited.
    pub due: Duration,
    /// When it was sent.
    pub arrival: Duration,
    /// When a step ran its first token. None if it never came to that.
    pub scheduled: Option<Duration>,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// When each token of its answer reached the host.
    pub tokens: Vec<Duration>,
    /// Times that it gave its memory back and was computed again.
    pub preemptions: usize,
    /// Why it ended. None if it was refused.
    pub finish_reason: Option<FinishReason>,
}

/// What the load was asked to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offered {
    /// Requests per second; infinite for all at once.
    pub request_rate: f64,
    /// 1: a Poisson process. Below: in bursts; above: more even; infinite: constant gaps.
    pub burstiness: f64,
    /// The most requests at the same time.
    pub max_concurrency: Option<usize>,
}

/// A run, summed up. Only answers that ended by themselves count, except where it says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Serving {
    /// The load.
    pub offered: Offered,
    /// From the beginning to the last token, in seconds.
    pub duration: f64,
    /// Answers that ended by themselves.
    pub completed: usize,
    /// Requests that were refused or cut off.
    pub failed: usize,
    /// Tokens of all prompts.
    pub total_input_tokens: usize,
    /// Tokens of all answers.
    pub total_output_tokens: usize,
    /// Answers per second.
    pub request_throughput: Option<f64>,
    /// Answers per second that were within the [`Slo`]. None without one.
    pub request_goodput: Option<f64>,
    /// Tokens of answers per second.
    pub output_throughput: Option<f64>,
    /// Tokens of prompts and of answers per second.
    pub total_token_throughput: Option<f64>,
    /// Most tokens of answers in one second, counted in whole seconds from the first arrival.
    pub max_output_tokens_per_s: usize,
    /// Most requests that were being served at one instant.
    pub max_concurrent_requests: usize,
    /// Sent → first token.
    pub ttft: Latency,
    /// (Sent → last token − TTFT)/(n − 1), one value for each answer of two tokens or more.
    pub tpot: Latency,
    /// Gaps between two tokens of an answer, all answers together.
    pub itl: Latency,
    /// Sent → last token.
    pub e2el: Latency,
    /// Due → sent, if the number of requests at the same time is limited.
    pub client_queue_time: Option<Latency>,
    /// Sent → first step, of all requests that had one.
    pub queue_time: Latency,
    /// Times that a request was computed again, of all requests.
    pub preemptions: usize,
    /// What the steps were, where they are known.
    pub steps: Option<Steps>,
}

impl Served {
    /// Whether its answer ended by itself.
    pub fn completed(&self) -> bool {
        matches!(
            self.finish_reason,
            Some(FinishReason::Stop | FinishReason::Length)
        )
    }

    /// Sent → first token, in milliseconds.
    pub fn ttft(&self) -> Option<f64> {
        self.since_arrival(self.tokens.first())
    }

    /// Sent → last token, in milliseconds.
    pub fn e2el(&self) -> Option<f64> {
        self.since_arrival(self.tokens.last())
    }

    /// The mean gap between its tokens, in milliseconds. None for fewer than two.
    pub fn tpot(&self) -> Option<f64> {
        let gaps = self.tokens.len().checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some((self.e2el()? - self.ttft()?) / gaps as f64)
    }

    /// The gaps between its tokens, in milliseconds.
    pub fn itl(&self) -> impl Iterator<Item = f64> {
        let gap = |pair: &[Duration]| ms(pair[1].saturating_sub(pair[0]));
        self.tokens.windows(2).map(gap)
    }

    fn since_arrival(&self, instant: Option<&Duration>) -> Option<f64> {
        instant.map(|instant| ms(instant.saturating_sub(self.arrival)))
    }
}

impl Serving {
    /// Sums up a run that took so long.
    pub fn of(offered: Offered, slo: Option<&Slo>, duration: Duration, served: &[Served]) -> Self {
        let completed: Vec<&Served> = served.iter().filter(|served| served.completed()).collect();
        let of = |value: fn(&Served) -> Option<f64>| {
            Latency::of(
                completed
                    .iter()
                    .filter_map(|served| value(served))
                    .collect(),
            )
        };
        let per_second =
            |count: usize| (!duration.is_zero()).then(|| count as f64 / duration.as_secs_f64());
        let input = completed.iter().map(|served| served.prompt_tokens).sum();
        let output = completed.iter().map(|served| served.tokens.len()).sum();
        let good = slo.map(|slo| completed.iter().filter(|served| slo.is_met(served)).count());
        Self {
            offered,
            duration: duration.as_secs_f64(),
            completed: completed.len(),
            failed: served.len() - completed.len(),
            total_input_tokens: input,
            total_output_tokens: output,
            request_throughput: per_second(completed.len()),
            request_goodput: good.and_then(per_second),
            output_throughput: per_second(output),
            total_token_throughput: per_second(input + output),
            max_output_tokens_per_s: busiest_second(&completed),
            max_concurrent_requests: most_at_once(&completed),
            ttft: of(Served::ttft),
            tpot: of(Served::tpot),
            itl: Latency::of(completed.iter().flat_map(|served| served.itl()).collect()),
            e2el: of(Served::e2el),
            client_queue_time: offered
                .max_concurrency
                .map(|_| of(|served| Some(ms(served.arrival.saturating_sub(served.due))))),
            queue_time: queue_time(served),
            preemptions: served.iter().map(|served| served.preemptions).sum(),
            steps: None,
        }
    }

    /// What the steps were. `kv_budget` is how many positions may be in memory.
    pub fn steps(mut self, steps: &[ServedStep], kv_budget: usize) -> Self {
        self.steps = Some(Steps::of(steps, kv_budget));
        self
    }

    /// The latencies in the order in which they are printed: key, name, heading.
    fn latencies(&self) -> Vec<(&'static str, &'static str, &'static str, &Latency)> {
        let mut all = vec![
            ("ttft", "TTFT", "Time to First Token", &self.ttft),
            (
                "tpot",
                "TPOT",
                "Time per Output Token (excl. 1st token)",
                &self.tpot,
            ),
            ("itl", "ITL", "Inter-token Latency", &self.itl),
            ("e2el", "E2EL", "End-to-end Latency", &self.e2el),
        ];
        if let Some(latency) = &self.client_queue_time {
            all.push((
                "client_queue_time",
                "Client Queue Time",
                "Client-side Queueing",
                latency,
            ));
        }
        all.push(("queue_time", "Queue Time", "Queueing", &self.queue_time));
        all
    }

    /// One object, with the keys of vLLM's result files; milliseconds where a key ends in `_ms`, else seconds.
    pub fn json(&self) -> Value {
        let number = |value: f64| {
            if value.is_finite() {
                json!(value)
            } else {
                json!("inf")
            }
        };
        let mut all = Map::new();
        for (key, value) in [
            ("request_rate", number(self.offered.request_rate)),
            ("burstiness", number(self.offered.burstiness)),
            ("max_concurrency", json!(self.offered.max_concurrency)),
            ("duration", json!(self.duration)),
            ("completed", json!(self.completed)),
            ("failed", json!(self.failed)),
            ("total_input_tokens", json!(self.total_input_tokens)),
            ("total_output_tokens", json!(self.total_output_tokens)),
            ("request_throughput", json!(self.request_throughput)),
            ("request_goodput", json!(self.request_goodput)),
            ("output_throughput", json!(self.output_throughput)),
            ("total_token_throughput", json!(self.total_token_throughput)),
            (
                "max_output_tokens_per_s",
                json!(self.max_output_tokens_per_s),
            ),
            (
                "max_concurrent_requests",
                json!(self.max_concurrent_requests),
            ),
        ] {
            all.insert(key.to_owned(), value);
        }
        for (key, _, _, latency) in self.latencies() {
            latency.json(key, &mut all);
        }
        all.insert("preemptions".to_owned(), json!(self.preemptions));
        if let Some(steps) = &self.steps {
            all.insert("steps".to_owned(), json!(steps));
        }
        Value::Object(all)
    }

    /// The block that vLLM prints, and what it does not print.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn print<W: Write>(&self, report: &mut Report<W>) -> io::Result<()> {
        heading(report, " Serving Benchmark Result ", '=')?;
        row(report, "Successful requests:", &self.completed.to_string())?;
        row(report, "Failed requests:", &self.failed.to_string())?;
        if let Some(most) = self.offered.max_concurrency {
            row(report, "Maximum request concurrency:", &most.to_string())?;
        }
        if self.offered.request_rate.is_finite() {
            decimal(
                report,
                "Request rate configured (RPS):",
                Some(self.offered.request_rate),
            )?;
        }
        decimal(report, "Benchmark duration (s):", Some(self.duration))?;
        row(
            report,
            "Total input tokens:",
            &self.total_input_tokens.to_string(),
        )?;
        row(
            report,
            "Total generated tokens:",
            &self.total_output_tokens.to_string(),
        )?;
        decimal(
            report,
            "Request throughput (req/s):",
            self.request_throughput,
        )?;
        if self.request_goodput.is_some() {
            decimal(report, "Request goodput (req/s):", self.request_goodput)?;
        }
        decimal(
            report,
            "Output token throughput (tok/s):",
            self.output_throughput,
        )?;
        let peak = self.max_output_tokens_per_s as f64;
        decimal(report, "Peak output token throughput (tok/s):", Some(peak))?;
        let peak = self.max_concurrent_requests as f64;
        decimal(report, "Peak concurrent requests:", Some(peak))?;
        decimal(
            report,
            "Total token throughput (tok/s):",
            self.total_token_throughput,
        )?;
        for (_, name, title, latency) in self.latencies() {
            heading(report, title, '-')?;
            for (statistic, value) in latency.statistics() {
                decimal(report, &format!("{statistic} {name} (ms):"), value)?;
            }
        }
        if let Some(steps) = &self.steps {
            steps.print(report)?;
        }
        row(report, "Preemptions:", &self.preemptions.to_string())?;
        heading(report, "", '=')
    }
}

fn queue_time(served: &[Served]) -> Latency {
    let waited = |served: &Served| Some(ms(served.scheduled?.saturating_sub(served.arrival)));
    Latency::of(served.iter().filter_map(waited).collect())
}

fn busiest_second(completed: &[&Served]) -> usize {
    let Some(start) = completed.iter().map(|served| served.arrival).min() else {
        return 0;
    };
    let tokens = completed.iter().flat_map(|served| &served.tokens);
    let mut seconds: Vec<u64> = tokens
        .map(|at| at.saturating_sub(start).as_secs())
        .collect();
    seconds.sort_unstable();
    seconds
        .chunk_by(|a, b| a == b)
        .map(<[u64]>::len)
        .max()
        .unwrap_or(0)
}

/// Who leaves makes room before somebody who comes at that very instant.
fn most_at_once(completed: &[&Served]) -> usize {
    let ends = |served: &&Served| served.tokens.last().map(|end| (*end, -1));
    let mut events: Vec<(Duration, i64)> = completed
        .iter()
        .filter(|served| !served.tokens.is_empty())
        .map(|served| (served.arrival, 1))
        .chain(completed.iter().filter_map(ends))
        .collect();
    events.sort_unstable();
    let counts = events.iter().scan(0, |now, (_, change)| {
        *now += change;
        Some(*now)
    });
    counts.max().unwrap_or(0) as usize
}

fn heading<W: Write>(report: &mut Report<W>, title: &str, rule: char) -> io::Result<()> {
    let blank = 50 - title.chars().count();
    let side = |length: usize| rule.to_string().repeat(length);
    report.line(&format!(
        "{}{title}{}",
        side(blank / 2),
        side(blank - blank / 2)
    ))
}

fn row<W: Write>(report: &mut Report<W>, name: &str, value: &str) -> io::Result<()> {
    report.line(&format!("{name:<40} {value}"))
}

/// Without separators of thousands, as vLLM has it: such blocks are read by scripts.
fn decimal<W: Write>(report: &mut Report<W>, name: &str, value: Option<f64>) -> io::Result<()> {
    let text = value.map_or_else(|| or_dash(None, 2), |value| format!("{value:.2}"));
    row(report, name, &text)
}

#[cfg(test)]
mod tests;
