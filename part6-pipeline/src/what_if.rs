//! What if there were twice the users, or half the memory? Part 5's simulator on what was seen of a server.
//!
//! The trace has both halves of a prediction: when requests came and how long they were, and how long steps took that ran
//! so much. From the second a model of step times is learnt, with it the first is run again under other limits. It is
//! also run under the limits that were: how far that is from what was measured says what the rest is worth.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use console::serving::{Latency, Offered, Serving};
use part5_batching::limits as part5;
use part5_batching::load::{Load, Planned};
use part5_batching::simulator::simulate;
use part5_batching::step_times::{Sample, StepTimes, Work};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::{Limits, Memory};

/// Most steps and requests of a trace.
pub const MOST_STEPS: usize = 8_192;
/// See [`MOST_STEPS`].
pub const MOST_REQUESTS: usize = 2_048;
/// Most users for each one that was.
pub const MOST_USERS: usize = 16;
/// Most tokens of all prompts and answers that are simulated: about a second of work.
pub const MOST_TOKENS: usize = 1_000_000;

/// What was seen, and what is to be different.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
pub struct WhatIf {
    /// Steps that were measured.
    pub steps: Vec<MeasuredStep>,
    /// Requests that came.
    pub requests: Vec<Request>,
    /// Each request comes so many times; once if it is left out.
    #[schema(minimum = 1, maximum = 16)]
    pub users: Option<usize>,
    /// Positions that there is memory for; as many as the server has if it is left out.
    pub kv_tokens: Option<usize>,
    /// Rows; as many as the server has if it is left out.
    pub rows: Option<usize>,
}

/// A step that was measured.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
pub struct MeasuredStep {
    /// Rows that decoded.
    pub rows: usize,
    /// Positions that these looked at, all together.
    pub context: usize,
    /// Of each piece of a prompt: its tokens, and the positions before it.
    pub pieces: Vec<(usize, usize)>,
    /// How long it took.
    pub ms: f64,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
pub struct Request {
    /// When, in milliseconds from any instant.
    pub at: f64,
    /// Tokens of its prompt that were run: without those that were cached.
    pub prompt_tokens: usize,
    /// Tokens of its answer.
    pub tokens: usize,
    /// Milliseconds to its first token.
    pub ttft: f64,
    /// Milliseconds for each later one; none if there were none.
    pub tpot: Option<f64>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Told {
    /// What was measured.
    pub measured: Numbers,
    /// The same requests under the limits that were, simulated.
    pub simulated: Numbers,
    /// With what is to be different.
    pub what_if: Numbers,
    /// Share by which the model of step times is off from steps that it has not seen: the middle one.
    pub step_error: f64,
    /// The same of all those steps together: below 0 if the model is too fast, as where something else now and then has
    /// taken the machine.
    pub step_bias: f64,
    /// Why some of it is a guess: what was never measured. None if nothing is.
    pub beyond: Option<String>,
}

/// A run in a few numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct Numbers {
    /// Answers.
    pub answers: usize,
    /// Requests that could not run at all.
    pub refused: usize,
    /// Tokens of answers per second.
    pub throughput: Option<f64>,
    /// Milliseconds to the first token.
    pub ttft: Spread,
    /// Milliseconds for each later token.
    pub tpot: Spread,
    /// Rows that lost their memory; not known of what was measured.
    pub preemptions: Option<usize>,
}

/// The middle one of many, and the one that 99 in 100 are below.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct Spread {
    /// The middle one.
    pub median: Option<f64>,
    /// 99 in 100 are below.
    pub p99: Option<f64>,
}

impl WhatIf {
    /// Refuses what would take too long, or makes no sense.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn check(&self) -> Result<()> {
        let (steps, requests) = (self.steps.len(), self.requests.len());
        ensure!(
            steps <= MOST_STEPS,
            "{steps} steps are too many: at most {MOST_STEPS}"
        );
        ensure!(
            requests <= MOST_REQUESTS,
            "{requests} requests are too many: at most {MOST_REQUESTS}"
        );
        ensure!(
            requests > 0,
            "no request has ended yet: there is nothing to simulate"
        );
        let users = self.users();
        ensure!(
            (1..=MOST_USERS).contains(&users),
            "{users} users for each one: take 1 to {MOST_USERS}"
        );
        ensure!(
            self.kv_tokens != Some(0) && self.rows != Some(0),
            "nothing runs without rows and memory"
        );
        let pieces = |step: &MeasuredStep| step.pieces.len() <= 4_096;
        ensure!(self.steps.iter().all(pieces), "a step has too many pieces");
        let sizes = self.steps.iter().flat_map(|step| {
            let pieces = step.pieces.iter().flat_map(|(tokens, at)| [*tokens, *at]);
            pieces.chain([step.rows, step.context])
        });
        let lengths = |request: &Request| [request.prompt_tokens, request.tokens];
        let lengths = self.requests.iter().flat_map(lengths);
        ensure!(
            sizes.chain(lengths.clone()).all(|size| size <= 1 << 30),
            "a number of tokens is no such number"
        );
        ensure!(
            lengths.clone().all(|tokens| tokens > 0),
            "a request has no tokens"
        );
        let tokens = lengths.sum::<usize>().saturating_mul(users);
        ensure!(
            tokens <= MOST_TOKENS,
            "{tokens} tokens are too many to simulate: at most {MOST_TOKENS}"
        );
        let times = |request: &Request| [request.at, request.ttft, request.tpot.unwrap_or(0.0)];
        let mut times = self.requests.iter().flat_map(times);
        ensure!(
            times.all(|ms| (0.0..1e12).contains(&ms)),
            "a time is no number of milliseconds"
        );
        Ok(())
    }

    fn users(&self) -> usize {
        self.users.unwrap_or(1)
    }

    /// Simulates it on a server with these limits.
    ///
    /// # Errors
    /// If it is refused, or if there are too few steps to learn from.
    pub fn simulate(&self, limits: &Limits) -> Result<Told> {
        self.check()?;
        let samples: Vec<Sample> = self.steps.iter().map(MeasuredStep::sample).collect();
        let (times, unseen) = StepTimes::calibrate(&samples)
            .context("too little was seen to learn how long steps take: let more chats run")?;
        let now = of_part5(limits);
        let other = part5::Limits {
            kv_tokens: self.kv_tokens.unwrap_or(now.kv_tokens),
            rows: self.rows.unwrap_or(now.rows),
            ..now.clone()
        };
        let mut beyond = None;
        let (before, after) = (self.load(1)?, self.load(self.users())?);
        let simulated = simulate(&before, &now, &times, |_, _, _| {})?;
        let what_if = simulate(&after, &other, &times, |_, _, plan| {
            if beyond.is_none() && !plan.pieces.is_empty() {
                beyond = times.beyond(&Work::of(plan));
            }
        })?;
        Ok(Told {
            measured: self.measured(),
            simulated: Numbers::of(&simulated.serving(&before, &now, None)),
            what_if: Numbers::of(&what_if.serving(&after, &other, None)),
            step_error: unseen.errors.median,
            step_bias: unseen.errors.bias,
            beyond,
        })
    }

    /// The requests in order, each several times.
    fn load(&self, users: usize) -> Result<Load> {
        let mut requests: Vec<&Request> = self.requests.iter().collect();
        requests.sort_by(|a, b| a.at.total_cmp(&b.at));
        let first = requests.first().map_or(0.0, |request| request.at);
        let planned = requests.into_iter().map(|request| {
            let due = Duration::try_from_secs_f64((request.at - first) / 1e3);
            Ok(Planned {
                due: due.context("a request at no instant")?,
                prompt_tokens: request.prompt_tokens,
                output_tokens: request.tokens,
            })
        });
        let planned: Vec<Planned> = planned.collect::<Result<_>>()?;
        let each = |request| std::iter::repeat_n(request, users);
        let offered = Offered {
            request_rate: f64::INFINITY, // nothing is drawn: each comes when it came
            burstiness: 1.0,
            max_concurrency: None,
        };
        Ok(Load::of(
            offered,
            planned.into_iter().flat_map(each).collect(),
            0,
        ))
    }

    fn measured(&self) -> Numbers {
        let end = |request: &Request| {
            let later = request.tokens.saturating_sub(1) as f64;
            request.at + request.ttft + later * request.tpot.unwrap_or(0.0)
        };
        let first = self.requests.iter().map(|request| request.at);
        let first = first.fold(f64::INFINITY, f64::min);
        let last = self.requests.iter().map(end).fold(0.0, f64::max);
        let tokens: usize = self.requests.iter().map(|request| request.tokens).sum();
        let ttft = self.requests.iter().map(|request| request.ttft).collect();
        let tpot = self.requests.iter().filter_map(|request| request.tpot);
        Numbers {
            answers: self.requests.len(),
            refused: 0,
            throughput: (last > first).then(|| tokens as f64 / (last - first) * 1e3),
            ttft: Spread::of(&Latency::of(ttft)),
            tpot: Spread::of(&Latency::of(tpot.collect())),
            preemptions: None,
        }
    }
}

impl MeasuredStep {
    fn sample(&self) -> Sample {
        Sample {
            work: Work {
                rows: self.rows,
                context: self.context,
                pieces: self.pieces.clone(),
            },
            seconds: self.ms / 1e3,
        }
    }
}

impl Numbers {
    fn of(serving: &Serving) -> Self {
        Self {
            answers: serving.completed,
            refused: serving.failed,
            throughput: serving.output_throughput,
            ttft: Spread::of(&serving.ttft),
            tpot: Spread::of(&serving.tpot),
            preemptions: Some(serving.preemptions),
        }
    }
}

impl Spread {
    fn of(latency: &Latency) -> Self {
        Self {
            median: latency.median,
            p99: latency.p99,
        }
    }
}

/// The same limits, as part 5 has them.
fn of_part5(limits: &Limits) -> part5::Limits {
    part5::Limits {
        rows: limits.rows,
        tokens_per_step: limits.tokens_per_step,
        piece: limits.piece,
        block: limits.block,
        kv_tokens: limits.kv_tokens,
        policy: part5::Policy::Continuous, // an engine has no other
        memory: match limits.memory {
            Memory::Reserve => part5::Memory::Reserve,
            Memory::Preempt => part5::Memory::Preempt,
        },
        decodes_per_piece: limits.decodes_per_piece,
    }
}
