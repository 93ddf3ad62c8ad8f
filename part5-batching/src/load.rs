//! The load: which requests come, and when. Drawn from a seed, or replayed from a trace.

mod feed;
mod lengths;
mod trace;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use console::serving::Offered;
use rand::distr::Distribution;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::Gamma;

pub use feed::Feed;
pub use lengths::Lengths;

/// Most requests of a load: more would be a mistake, and each is kept in memory.
const MOST: usize = 1_000_000;

/// The flags of a load.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Requests per second; `inf` sends all at once
    #[arg(long, default_value = "inf", value_name = "PER_SECOND")]
    pub rate: f64,

    /// 1 is a Poisson process, less comes in bursts, more is more even, `inf` is a metronome
    #[arg(long, default_value = "1", value_name = "SHAPE")]
    pub burstiness: f64,

    /// At most so many requests at the same time: the next is sent when one has ended
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,

    /// How many requests are sent
    #[arg(long, default_value = "32", value_name = "N")]
    pub requests: usize,

    /// Tokens of a prompt: `64`, `16..256` (evenly), `lognormal:MEDIAN:SIGMA` or `lognormal:MEDIAN:SIGMA:MOST`
    #[arg(long, default_value = "64", value_name = "LENGTHS")]
    pub prompt_tokens: Lengths,

    /// Tokens of an answer, in the same way
    #[arg(long, default_value = "32", value_name = "LENGTHS")]
    pub output_tokens: Lengths,

    /// Replay this instead: JSON lines with `timestamp` in ms, `input_length` and `output_length`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "burstiness", "requests", "prompt_tokens", "output_tokens"])]
    pub trace: Option<PathBuf>,
}

/// One request that will be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// When, from the beginning of the run.
    pub due: Duration,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Tokens of its answer: it goes on past stop tokens, as in any benchmark of this kind.
    pub output_tokens: usize,
}

/// All requests of a run, in the order in which they come.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// What was asked for.
    pub offered: Offered,
    /// What comes.
    pub requests: Vec<Planned>,
    seed: u64,
}

/// What is drawn apart, so that other lengths leave the arrivals as they are.
#[derive(Debug, Clone, Copy)]
enum Draws {
    Arrivals,
    Prompts,
    Outputs,
    Text,
}

impl Load {
    /// What the flags describe.
    ///
    /// # Errors
    /// If a number makes no sense, or if the trace cannot be read.
    pub fn new(args: &LoadArgs, seed: u64) -> Result<Self> {
        if let Some(most) = args.concurrency {
            ensure!(most > 0, "--concurrency 0 would never send a request");
        }
        if let Some(path) = &args.trace {
            let requests = trace::read(path)?;
            let offered = trace::offered(&requests, args.concurrency);
            return Ok(Self {
                offered,
                requests,
                seed,
            });
        }
        ensure!(
            args.rate > 0.0,
            "--rate {} would never send a request",
            args.rate
        );
        ensure!(
            args.burstiness > 0.0,
            "--burstiness {} is no shape: it must be above 0",
            args.burstiness
        );
        ensure!(args.requests > 0, "--requests 0 is no load");
        ensure!(
            args.requests <= MOST,
            "--requests {} are too many: at most {MOST}",
            args.requests
        );
        let offered = Offered {
            request_rate: args.rate,
            burstiness: args.burstiness,
            max_concurrency: args.concurrency,
        };
        let dues = arrivals(&offered, args.requests, seed)?;
        let mut prompts = generator(seed, Draws::Prompts);
        let mut outputs = generator(seed, Draws::Outputs);
        let planned = |due| Planned {
            due,
            prompt_tokens: args.prompt_tokens.draw(&mut prompts),
            output_tokens: args.output_tokens.draw(&mut outputs),
        };
        Ok(Self {
            offered,
            requests: dues.into_iter().map(planned).collect(),
            seed,
        })
    }

    /// Requests that somebody else has thought of, in the order in which they come.
    pub fn of(offered: Offered, requests: Vec<Planned>, seed: u64) -> Self {
        Self {
            offered,
            requests,
            seed,
        }
    }

    /// The same requests at another rate: the same arrivals, closer together or further apart.
    ///
    /// # Errors
    /// If they all come at once, which no rate can stretch, or if the rate makes no sense.
    pub fn at_rate(&self, rate: f64) -> Result<Self> {
        let now = self.offered.request_rate;
        ensure!(
            now.is_finite(),
            "a load that comes at once has no rate to change: give --rate"
        );
        ensure!(
            rate > 0.0 && rate.is_finite(),
            "{rate} requests per second are no rate"
        );
        let stretch = now / rate;
        let requests = self.requests.iter().map(|request| {
            let due = seconds(request.due.as_secs_f64() * stretch)?;
            Ok(Planned { due, ..*request })
        });
        let offered = Offered {
            request_rate: rate,
            ..self.offered
        };
        Ok(Self {
            offered,
            requests: requests.collect::<Result<_>>()?,
            seed: self.seed,
        })
    }

    /// The ids of a request's prompt, drawn from `ids`. As long as there are ids, no two requests begin with
    /// the same one: nothing of a prompt is found in a cache of another.
    pub fn prompt(&self, request: usize, ids: &[u32]) -> Vec<u32> {
        let Some(Planned { prompt_tokens, .. }) = self.requests.get(request) else {
            return Vec::new();
        };
        let mut random = generator(self.seed.wrapping_add(request as u64 + 1), Draws::Text);
        let first = ids.get((self.seed as usize).wrapping_add(request) % ids.len().max(1));
        let rest = (1..*prompt_tokens).filter_map(|_| ids.get(random.random_range(0..ids.len())));
        first.into_iter().chain(rest).copied().collect()
    }

    /// As JSON lines, to be replayed.
    pub fn to_trace(&self) -> String {
        trace::write(&self.requests)
    }
}

/// When the requests come: gaps of a gamma distribution, stretched a little so that the last comes when it
/// should. Or else each seed has a rate of its own, a percent or two away, and runs cannot be compared.
fn arrivals(offered: &Offered, count: usize, seed: u64) -> Result<Vec<Duration>> {
    let Offered {
        request_rate: rate,
        burstiness: shape,
        ..
    } = *offered;
    if rate.is_infinite() {
        return Ok(vec![Duration::ZERO; count]);
    }
    let gaps: Vec<f64> = if shape.is_infinite() {
        vec![1.0; count]
    } else {
        let gamma = Gamma::new(shape, 1.0 / shape)
            .map_err(|error| anyhow::anyhow!("--burstiness {shape}: {error}"))?;
        gamma
            .sample_iter(generator(seed, Draws::Arrivals))
            .take(count)
            .collect()
    };
    let sums = gaps.iter().scan(0.0, |sum, gap| {
        *sum += gap;
        Some(*sum)
    });
    let sums: Vec<f64> = sums.collect();
    let last = sums.last().copied().unwrap_or(0.0);
    if !(last > 0.0 && last.is_finite()) {
        bail!("--burstiness {shape} is too small: all {count} requests come at once");
    }
    let stretch = count as f64 / rate / last;
    sums.iter().map(|sum| seconds(sum * stretch)).collect()
}

fn seconds(seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds)
        .context("the last request would come after the end of time: take a higher --rate")
}

/// Named, not the crate's standard one: that may change with its versions, and the load with it.
fn generator(seed: u64, draws: Draws) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed.wrapping_mul(4).wrapping_add(draws as u64))
}
