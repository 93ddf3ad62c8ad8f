//! What the video shows: naive and cached decode side by side, and what the cache costs beside what
//! the formula says.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use console::cli::{ModelArgs, OutputArgs, PromptArgs, SamplingArgs};
use console::files;
use console::interrupt::check_interrupted;
use console::metrics::{Generation, Run};
use console::numbers::{count, fixed};
use console::report::{Stdout, TextStream, status};
use shared::machine::{active_bytes, peak_bytes, reset_peak};
use shared::request::Request;
use shared::session::Session;

use crate::cache::{Cache, CacheKind};
use crate::generate::{Generator, PREFILL_STEP, generate};
use crate::model::Model;
use crate::needle;
use crate::saved::CacheFile;

/// Part 3: the KV cache: what is computed once is kept. Without --cache: all kinds side by side.
#[derive(Debug, Parser)]
#[command(version)]
#[command(mut_arg("max_tokens", |arg| arg.default_value("64")))]
pub struct Args {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,

    /// Answer once, with this cache
    #[arg(long, value_enum)]
    cache: Option<Kind>,

    /// Positions that a rotating cache stores [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(2..))]
    window: Option<i32>,

    /// First positions that a rotating cache never drops, fewer than the window [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    sinks: Option<i32>,

    /// Prompt tokens that go through the model at once
    #[arg(long, value_name = "N", default_value_t = PREFILL_STEP as u32, value_parser = clap::value_parser!(u32).range(1..))]
    prefill_step: u32,

    /// Rounds that are measured [default: 3 of each cache and 1 of off, or the answer of --cache]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,

    /// Write the ms per token of the comparison to this file as a chart (SVG)
    #[arg(long, value_name = "FILE", conflicts_with = "cache")]
    pub(crate) plot: Option<PathBuf>,

    /// Write what the prompt left in the cache to this file, then answer
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plot", "needle", "rounds"])]
    save_cache: Option<PathBuf>,

    /// Begin with what --save-cache wrote, for a prompt that begins with the same tokens
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plot", "needle", "rounds"])]
    load_cache: Option<PathBuf>,

    /// Show which sentence of a prompt is forgotten as the window shrinks
    #[arg(long, conflicts_with_all = ["cache", "plot", "rounds", "window", "sinks", "json"])]
    #[arg(conflicts_with_all = ["prompt", "prompt_file", "max_tokens", "raw", "ignore_eos"])]
    needle: bool,
}

/// Rounds of a comparison.
const ROUNDS: u32 = 3;
const WINDOW: i32 = 64;

/// A kind of cache, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Nothing is kept: part 2
    Off,
    /// A new array for every token
    Concat,
    /// Room for 256 more, written in place
    Prealloc,
    /// The latest positions only
    Rotating,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Concat => "concat",
            Self::Prealloc => "prealloc",
            Self::Rotating => "rotating",
        }
    }
}

impl Args {
    fn kind(&self, kind: Kind) -> CacheKind {
        match kind {
            Kind::Off => CacheKind::Off,
            Kind::Concat => CacheKind::Concat,
            Kind::Prealloc => CacheKind::Prealloc,
            Kind::Rotating => CacheKind::Rotating {
                size: self.window(),
                sinks: self.sinks(),
            },
        }
    }

    fn window(&self) -> i32 {
        self.window.unwrap_or(WINDOW)
    }

    fn sinks(&self) -> i32 {
        self.sinks.unwrap_or(needle::SINKS)
    }

    /// What no flag says alone, and what would be lost after long work.
    fn check(&self) -> Result<()> {
        let (window, sinks) = (self.window(), self.sinks());
        ensure!(
            sinks < window,
            "--sinks {sinks} leaves no room in --window {window}: take fewer"
        );
        let rotates = self.cache.is_none_or(|kind| kind == Kind::Rotating);
        ensure!(
            rotates || (self.window.is_none() && self.sinks.is_none()),
            "--window and --sinks are for --cache rotating"
        );
        for (flag, path) in [("--plot", &self.plot), ("--save-cache", &self.save_cache)] {
            path.as_deref()
                .map(files::directory)
                .transpose()
                .context(flag)?;
        }
        Ok(())
    }
}

/// Runs what the flags ask for and prints the report.
///
/// # Errors
/// If the model, the prompt or the output fails: one line that says what to try next.
pub fn run(args: Args) -> Result<()> {
    args.check()?;
    let session = Session::open(&args.model)?;
    let (request, tokenize_time) = session.request(&args.prompt, &args.sampling)?;
    status(&format!("loading {}", session.checkpoint.name));
    let started = Instant::now();
    let model = Model::load(&session.checkpoint)?;
    let bench = Bench {
        load_time: session.open_time + started.elapsed(),
        tokenize_time,
        request: &request,
        weights_active: active_bytes()?,
        session: &session,
        model: &model,
        args: &args,
    };
    if args.needle {
        return needle::run(&session, &model, args.prefill_step as usize);
    }
    let filed = args.save_cache.is_some() || args.load_cache.is_some();
    let variants = match args.cache.or(filed.then_some(Kind::Prealloc)) {
        Some(kind) => vec![bench.one(kind)?],
        None => bench.compare()?,
    };
    bench.report(&variants)
}

/// What all runs share.
pub(crate) struct Bench<'a> {
    pub(crate) session: &'a Session,
    pub(crate) model: &'a Model,
    pub(crate) args: &'a Args,
    pub(crate) request: &'a Request,
    pub(crate) load_time: Duration,
    pub(crate) tokenize_time: Duration,
    /// Bytes of arrays before there is a cache.
    pub(crate) weights_active: u64,
}

/// One kind of cache, with all its rounds.
pub(crate) struct Variant {
    pub(crate) kind: Kind,
    pub(crate) measured: Vec<Measured>,
}

/// One generation and what its cache held at the end.
pub(crate) struct Measured {
    pub(crate) run: Run,
    /// Milliseconds per token after the first.
    pub(crate) decode_ms: Vec<f64>,
    pub(crate) offset: i32,
    pub(crate) capacity: i32,
    /// Bytes that MLX has for arrays beyond the weights.
    pub(crate) active: u64,
    /// What the cache's files did.
    pub(crate) notes: Vec<String>,
}

impl Measured {
    /// Without the last gap, in which no further step is started: it says how far ahead the device
    /// was, not what a token costs.
    pub(crate) fn steady_ms(&self) -> &[f64] {
        self.decode_ms
            .split_last()
            .map_or(&[], |(_, steady)| steady)
    }
}

impl Bench<'_> {
    /// One answer that is read; if rounds were asked for, it was the warm-up for them.
    fn one(&self, kind: Kind) -> Result<Variant> {
        let first = self.answer(kind, Some(&mut TextStream::stdout()))?;
        let round = |_| {
            check_interrupted()?;
            self.answer(kind, None)
        };
        let measured = match self.args.rounds {
            Some(rounds) => (0..rounds).map(round).collect::<Result<_>>()?,
            None => vec![first],
        };
        Ok(Variant { kind, measured })
    }

    /// One answer that is read, then rounds in alternating order that are measured. The first one is
    /// the warm-up, too.
    fn compare(&self) -> Result<Vec<Variant>> {
        self.answer(Kind::Prealloc, Some(&mut TextStream::stdout()))?;
        let variant = |kind| Variant {
            kind,
            measured: Vec::new(),
        };
        let mut variants: Vec<Variant> = Kind::value_variants()
            .iter()
            .copied()
            .map(variant)
            .collect();
        let rounds = self.args.rounds.unwrap_or(ROUNDS);
        for round in 0..rounds {
            let mut order: Vec<&mut Variant> = variants.iter_mut().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for variant in order {
                if variant.kind == Kind::Off && round > 0 {
                    continue; // it is slow, and the difference is far beyond the noise
                }
                let name = variant.kind.name();
                status(&format!("round {} of {rounds}: {name}", round + 1));
                variant.measured.push(self.answer(variant.kind, None)?);
                check_interrupted()?;
            }
        }
        Ok(variants)
    }

    /// One generation; its text streams to `out`.
    fn answer(&self, kind: Kind, out: Option<&mut TextStream<Stdout>>) -> Result<Measured> {
        reset_peak()?;
        let (mut cache, notes) = self.cache(kind)?;
        let (generation, text) = self.stream(&mut cache, out)?;
        let timeline = &generation.timeline;
        let decode_ms = timeline.token_ms().split_off(1.min(timeline.len()));
        let run = Run::from_generation(kind.name(), self.request.ids.len(), &generation, text)
            .load(self.load_time)
            .tokenize(self.tokenize_time)
            .peak_bytes(peak_bytes()?)
            .weight_bytes(self.session.checkpoint.weight_bytes())
            .kv_bytes(cache.bytes());
        Ok(Measured {
            run,
            decode_ms,
            offset: cache.offset(),
            capacity: cache.capacity(),
            active: active_bytes()?.saturating_sub(self.weights_active),
            notes,
        })
    }

    /// An empty cache, or the one of the files that the flags name.
    fn cache(&self, kind: Kind) -> Result<(Cache, Vec<String>)> {
        let kind = self.args.kind(kind);
        let prompt = count(self.request.ids.len() as u64);
        let mut cache = Cache::new(kind, &self.session.checkpoint.config);
        let mut notes = Vec::new();
        if let Some(path) = &self.args.load_cache {
            let started = Instant::now();
            cache = self.file(path, kind).load()?;
            notes.push(format!(
                "Loaded {} of {prompt} prompt tokens in {} ms, before TTFT begins.",
                count(cache.offset() as u64),
                fixed(started.elapsed().as_secs_f64() * 1e3, 1)
            ));
        }
        if let Some(path) = &self.args.save_cache {
            let started = Instant::now();
            let step = self.args.prefill_step as usize;
            self.file(path, kind).save(self.model, &mut cache, step)?;
            notes.push(format!(
                "Ran and saved {} of {prompt} prompt tokens in {} ms, before TTFT begins.",
                count(cache.offset() as u64),
                fixed(started.elapsed().as_secs_f64() * 1e3, 1)
            ));
        }
        Ok((cache, notes))
    }

    fn file<'a>(&'a self, path: &'a Path, kind: CacheKind) -> CacheFile<'a> {
        CacheFile {
            path,
            session: self.session,
            request: self.request,
            kind,
        }
    }

    fn stream(
        &self,
        cache: &mut Cache,
        mut out: Option<&mut TextStream<Stdout>>,
    ) -> Result<(Generation, String)> {
        let step = self.args.prefill_step as usize;
        let mut answer = self
            .session
            .answer(|piece| out.as_mut().map_or(Ok(()), |out| Ok(out.push(piece)?)));
        let mut generator = Generator::new(self.model, cache, self.request, step)?;
        let generation = generate(&mut generator, |step| {
            answer.watch(step, self.request.ids.len())
        })?;
        let text = answer.finish()?;
        if let Some(out) = out {
            out.finish()?;
        }
        Ok((generation, text))
    }
}
