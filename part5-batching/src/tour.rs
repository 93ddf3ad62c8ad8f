//! The experiment of the video: what a batch buys, and what it costs.
//!
//! Four questions, each with one table: how throughput grows with the rows, who may join, in which pieces prompts
//! are read, and how many requests a second are too many.

use std::time::Duration;

use anyhow::Result;
use console::interrupt::check_interrupted;
use console::metrics::median;
use console::report::status;
use console::serving::{Offered, Serving};

use crate::limits::{Limits, Memory, Policy};
use crate::load::{Lengths, Load, LoadArgs, Planned};
use crate::serve::{Run, Server};

/// Rows that are tried.
pub const ROWS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// Of the batch sweep: tokens of each prompt and of each answer.
pub const SWEEP: (usize, usize) = (32, 32);

/// Sizes of pieces that are tried.
pub const PIECES: [usize; 4] = [16, 64, 256, 512];

/// How often each of them is read alone.
const PROMPT_TRIES: usize = 3;

/// Rates that are tried, as shares of what the machine could do if it only decoded.
pub const SHARES: [f64; 6] = [0.2, 0.4, 0.6, 0.8, 1.0, 1.4];

/// What a number of rows gives.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// B
    pub rows: usize,
    /// Median seconds of a step in which all rows decode.
    pub step: f64,
    /// Seconds until all prompts were read.
    pub prompts: f64,
    /// Seconds from then on.
    pub answers: f64,
}

impl Point {
    /// Tokens per second of all rows.
    pub fn throughput(&self) -> f64 {
        self.rows as f64 / self.step
    }
}

/// What a piece of a prompt takes.
#[derive(Debug, Clone, Copy)]
pub struct Prompt {
    /// Its tokens, from the first one of the prompt on.
    pub tokens: usize,
    /// Median seconds until the first id of the answer is there.
    pub seconds: f64,
}

/// A load under limits, and what came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What tells it from the others of its table.
    pub name: String,
    /// Its numbers.
    pub serving: Serving,
    /// All of it.
    pub run: Run,
}

/// Everybody may join, memory is no question.
pub fn wide(rows: usize) -> Limits {
    Limits {
        rows,
        tokens_per_step: 512 + rows,
        piece: 512,
        block: 16,
        kv_tokens: 1 << 20,
        policy: Policy::Continuous,
        memory: Memory::Preempt,
        decodes_per_piece: 1,
    }
}

/// Batches of each size, all rows alike.
pub fn sweep(server: &Server<'_>) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for rows in ROWS {
        status(&format!("a batch of {rows}"));
        points.push(batch(server, rows)?);
        check_interrupted()?;
    }
    Ok(points)
}

/// The first steps after loading are slower than all others.
///
/// # Errors
/// If a step fails.
pub fn warm_up(server: &Server<'_>, rows: usize) -> Result<()> {
    server.serve(&alike(rows, (8, 4)), &wide(rows)).map(drop)
}

/// Requests that come at once, with so many tokens of prompt and answer each.
fn alike(rows: usize, (prompt_tokens, output_tokens): (usize, usize)) -> Load {
    let planned = Planned {
        due: Duration::ZERO,
        prompt_tokens,
        output_tokens,
    };
    let at_once = Offered {
        request_rate: f64::INFINITY,
        burstiness: 1.0,
        max_concurrency: None,
    };
    Load::of(at_once, vec![planned; rows], 7)
}

fn batch(server: &Server<'_>, rows: usize) -> Result<Point> {
    let run = server.serve(&alike(rows, SWEEP), &wide(rows))?;
    let full = run.steps.iter().filter(|step| step.rows == rows);
    let steps: Vec<f64> = full.map(|step| step.seconds).collect();
    let [prompts, answers] = run.seconds();
    Ok(Point {
        rows,
        step: median(&steps).unwrap_or(f64::NAN),
        prompts,
        answers,
    })
}

/// Prompts of each size, alone.
pub fn prompts(server: &Server<'_>) -> Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    for tokens in PIECES {
        status(&format!("a prompt of {tokens}"));
        let mut seconds = Vec::new();
        for _ in 0..PROMPT_TRIES {
            let run = server.serve(&alike(1, (tokens, 1)), &wide(1))?;
            seconds.extend(run.steps.iter().map(|step| step.seconds));
            check_interrupted()?;
        }
        let seconds = median(&seconds).unwrap_or(f64::NAN);
        prompts.push(Prompt { tokens, seconds });
    }
    Ok(prompts)
}

/// Rows of the experiments with arrivals.
pub const SERVED_ROWS: usize = 8;

/// Requests per second that `points` could answer if nobody's prompt took time.
pub fn ceiling(points: &[Point], answer: f64) -> f64 {
    let point = points.iter().find(|point| point.rows == SERVED_ROWS);
    point.map_or(1.0, |point| point.throughput() / answer)
}

/// Arrivals at this rate, with short and long answers.
pub fn load(rate: f64, requests: usize) -> Result<Load> {
    Load::new(
        &LoadArgs {
            rate,
            burstiness: 1.0,
            concurrency: None,
            requests,
            prompt_tokens: Lengths::Uniform(8, 64),
            output_tokens: Lengths::Uniform(4, 60),
            trace: None,
        },
        11,
    )
}

/// Mean tokens of an answer of [`load`].
pub const ANSWER: f64 = 32.0;

/// Who may join: the same arrivals under three policies.
pub fn policies(server: &Server<'_>, rate: f64) -> Result<Vec<Outcome>> {
    let load = load(rate, 48)?;
    let wait = Duration::from_millis(100);
    let policies = [
        ("static", Policy::Static),
        ("dynamic", Policy::Dynamic { wait }),
        ("continuous", Policy::Continuous),
    ];
    let outcome = |(name, policy): (&str, Policy)| {
        let limits = Limits {
            policy,
            ..wide(SERVED_ROWS)
        };
        served(server, &load, &limits, name.to_owned())
    };
    policies.into_iter().map(outcome).collect()
}

/// Long prompts among answers, read in pieces of each size.
pub fn pieces(server: &Server<'_>, rate: f64) -> Result<Vec<Outcome>> {
    let mut load = load(rate, 24)?;
    for request in load.requests.iter_mut().step_by(3) {
        request.prompt_tokens = 480;
        request.output_tokens = 8;
    }
    let outcome = |piece: usize| {
        let limits = Limits {
            piece,
            tokens_per_step: piece + SERVED_ROWS,
            ..wide(SERVED_ROWS)
        };
        served(server, &load, &limits, piece.to_string())
    };
    PIECES.into_iter().map(outcome).collect()
}

/// The same requests, faster and faster.
pub fn rates(server: &Server<'_>, ceiling: f64) -> Result<Vec<Outcome>> {
    let outcome = |share: f64| {
        let rate = share * ceiling;
        served(
            server,
            &load(rate, 40)?,
            &wide(SERVED_ROWS),
            format!("{rate:.1}"),
        )
    };
    SHARES.into_iter().map(outcome).collect()
}

/// The last rate at which an answer takes at most twice as long as at the lowest one.
pub fn knee(outcomes: &[Outcome]) -> Option<&Outcome> {
    let time = |outcome: &Outcome| outcome.serving.e2el.median;
    let lowest = time(outcomes.first()?)?;
    let fast = |outcome: &&Outcome| time(outcome).is_some_and(|time| time <= 2.0 * lowest);
    outcomes.iter().take_while(fast).last()
}

fn served(server: &Server<'_>, load: &Load, limits: &Limits, name: String) -> Result<Outcome> {
    status(&format!("serving: {name}"));
    let run = server.serve(load, limits)?;
    check_interrupted()?;
    Ok(Outcome {
        name,
        serving: run.serving(load, limits, None),
        run,
    })
}
