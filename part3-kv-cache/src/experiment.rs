//! What the video shows: naive and cached decode side by side, and what the cache costs beside what
//! the formula says.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use shared::cli::{
    ModelArgs, OutputArgs, PromptArgs, SamplingArgs, check_interrupted, interrupted,
};
use shared::machine::{Versions, active_bytes, peak_bytes, reset_peak};
use shared::metrics::{FinishReason, Line, Rounds, Run};
use shared::report::{JsonReport, Report, Stdout, TextStream, count, fixed, or_dash, status};
use shared::session::Session;

use crate::cache::{Cache, CacheKind};
use crate::generate::{Generation, Limits, generate};
use crate::model::Model;
use crate::needle;
use crate::plot::{self, Curve};
use crate::saved;

/// Part 3: the KV cache: what is computed once is kept. Without --cache: all kinds side by side.
#[derive(Debug, Parser)]
#[command(version)]
#[command(mut_arg("max_tokens", |arg| arg.default_value("64")))]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,

    /// Answer once, with this cache
    #[arg(long, value_enum)]
    cache: Option<Kind>,

    /// Positions that a rotating cache keeps
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(i32).range(2..))]
    window: i32,

    /// First positions that a rotating cache never drops, fewer than the window
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(i32).range(0..))]
    keep: i32,

    /// Prompt tokens that go through the model at once
    #[arg(long, value_name = "N", default_value = "512", value_parser = clap::value_parser!(u32).range(1..))]
    prefill_step: u32,

    /// Rounds that are measured [default: 3 of each cache and 1 of off, or the answer of --cache]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,

    /// Write the ms per token of the comparison to this file as a chart (SVG)
    #[arg(long, value_name = "FILE", conflicts_with = "cache")]
    plot: Option<PathBuf>,

    /// Write what the prompt left in the cache to this file, then answer
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plot", "needle", "rounds"])]
    save_cache: Option<PathBuf>,

    /// Begin with what --save-cache wrote, for a prompt that begins with the same tokens
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plot", "needle", "rounds"])]
    load_cache: Option<PathBuf>,

    /// Show which sentence of a prompt is forgotten as the window shrinks
    #[arg(long, conflicts_with_all = ["cache", "plot"])]
    needle: bool,
}

/// Rounds of a comparison.
const ROUNDS: u32 = 3;

/// A kind of cache, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
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
    fn name(self) -> &'static str {
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
                size: self.window,
                keep: self.keep,
            },
        }
    }
}

/// Runs what the flags ask for and prints the report.
///
/// # Errors
/// If the model, the prompt or the output fails: one line that says what to try next.
pub fn run(args: Args) -> Result<()> {
    ensure!(
        args.keep < args.window,
        "--keep {} leaves no room in --window {}: keep fewer",
        args.keep,
        args.window
    );
    let session = Session::open(&args.model, &args.prompt)?;
    status(&format!("loading {}", session.checkpoint.name));
    let started = Instant::now();
    let model = Model::load(&session.checkpoint)?;
    let bench = Bench {
        load_time: session.open_time + started.elapsed(),
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
struct Bench<'a> {
    session: &'a Session,
    model: &'a Model,
    args: &'a Args,
    load_time: Duration,
    /// Bytes of arrays before there is a cache.
    weights_active: u64,
}

/// One kind of cache, with all its rounds.
struct Variant {
    kind: Kind,
    measured: Vec<Measured>,
}

/// One generation and what its cache held at the end.
struct Measured {
    run: Run,
    /// Milliseconds per token after the first.
    decode_ms: Vec<f64>,
    offset: i32,
    capacity: i32,
    /// Bytes that MLX has for arrays beyond the weights.
    active: u64,
    /// What the cache's files did.
    notes: Vec<String>,
}

impl Measured {
    /// Without the last gap, in which no further step is started: it says how far ahead the device
    /// was, not what a token costs.
    fn steady_ms(&self) -> &[f64] {
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
        let Generation {
            tokens,
            finish_reason,
            timeline,
            positions_recomputed,
        } = generation;
        let decode_ms = timeline.token_ms().split_off(1.min(timeline.len()));
        let run = Run::from_timeline(kind.name(), self.session.prompt.len(), &timeline)
            .output(tokens, text, finish_reason)
            .load(self.load_time)
            .tokenize(self.session.tokenize_time)
            .peak_bytes(peak_bytes()?)
            .weight_bytes(self.session.checkpoint.weight_bytes())
            .kv_bytes(cache.bytes())
            .positions_recomputed(positions_recomputed.iter().sum());
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
        let step = self.args.prefill_step as usize;
        let prompt = count(self.session.prompt.len() as u64);
        let mut cache = Cache::new(kind, &self.session.checkpoint.config);
        let mut notes = Vec::new();
        if let Some(path) = &self.args.load_cache {
            let started = Instant::now();
            cache = saved::load(path, self.session, kind)?;
            notes.push(format!(
                "Loaded {} of {prompt} prompt tokens in {} ms, before TTFT begins.",
                count(cache.offset() as u64),
                fixed(started.elapsed().as_secs_f64() * 1e3, 1)
            ));
        }
        if let Some(path) = &self.args.save_cache {
            let started = Instant::now();
            saved::save(path, self.session, self.model, kind, &mut cache, step)?;
            notes.push(format!(
                "Ran and saved {} of {prompt} prompt tokens in {} ms, before TTFT begins.",
                count(cache.offset() as u64),
                fixed(started.elapsed().as_secs_f64() * 1e3, 1)
            ));
        }
        Ok((cache, notes))
    }

    fn stream(
        &self,
        cache: &mut Cache,
        mut out: Option<&mut TextStream<Stdout>>,
    ) -> Result<(Generation, String)> {
        let limits = Limits {
            max_tokens: self.session.max_tokens,
            stop_ids: self.session.stop_ids(),
            prefill_step: self.args.prefill_step as usize,
        };
        let (prompt, sampling) = (&self.session.prompt, &self.args.sampling);
        let mut detokenizer = self.session.tokenizer.stream();
        let mut text = String::new();
        let mut push = |piece: Option<String>| -> Result<()> {
            let Some(piece) = piece else { return Ok(()) };
            text.push_str(&piece);
            Ok(out.as_mut().map_or(Ok(()), |out| out.push(&piece))?)
        };
        let generation = generate(self.model, cache, prompt, &limits, sampling, |token| {
            push(detokenizer.push(token)?)?;
            Ok(match interrupted() {
                true => ControlFlow::Break(FinishReason::Interrupted),
                false => ControlFlow::Continue(()),
            })
        })?;
        push(detokenizer.finish()?)?;
        if let Some(out) = out {
            out.finish()?;
        }
        Ok((generation, text))
    }

    fn report(&self, variants: &[Variant]) -> Result<()> {
        let versions = Versions::detect()?;
        let rounds: Vec<Rounds> = variants
            .iter()
            .filter_map(|variant| {
                let runs: Vec<Run> = variant.measured.iter().map(|m| m.run.clone()).collect();
                Rounds::of(&runs)
            })
            .collect();
        let mut report = Report::stdout();
        report.blank()?;
        report.card(&self.card(&rounds, &versions))?;
        report.blank()?;
        report.table(
            &HEAD,
            &rounds
                .iter()
                .map(|r| row(r, &rounds[0]))
                .collect::<Vec<_>>(),
        )?;
        report.blank()?;
        report.note(&same_tokens(&rounds))?;
        for note in variants
            .iter()
            .flat_map(|v| &v.measured)
            .flat_map(|m| &m.notes)
        {
            report.note(note)?;
        }
        report.blank()?;
        let series: Vec<(&str, &[f64])> = variants
            .iter()
            .filter_map(|v| Some((v.kind.name(), v.measured.first()?.steady_ms())))
            .collect();
        report.sparklines("ms/token", 2, &series)?;
        report.blank()?;
        report.table(&MEMORY_HEAD, &self.memory(variants))?;
        report.blank()?;
        report.note(&self.formula())?;
        report.note(
            "`again`: positions computed before, in each layer. `held` is the formula for \
             `capacity` positions; what MLX says has the last step's arrays on top.",
        )?;
        report.blank()?;
        for sentence in lines(variants) {
            report.note(&sentence)?;
        }
        self.plot(&series)?;
        if self.args.output.json {
            report.json_line(&JsonReport {
                part: env!("CARGO_PKG_NAME"),
                model: &self.args.model.model,
                machine: &self.session.machine,
                versions: &versions,
                runs: &rounds,
            })?;
        }
        Ok(())
    }

    fn card(&self, rounds: &[Rounds], versions: &Versions) -> Vec<(String, String)> {
        let Some(last) = rounds.last() else {
            return Vec::new();
        };
        let mut rows = self.session.card(&last.run, versions);
        let n: Vec<String> = rounds
            .iter()
            .map(|r| format!("{} {}", r.run.variant, r.n))
            .collect();
        rows.push((
            "rounds".to_owned(),
            format!("{}; medians, ± half the IQR", n.join(", ")),
        ));
        rows
    }

    /// Predicted beside measured, per kind of cache.
    fn memory(&self, variants: &[Variant]) -> Vec<Vec<String>> {
        let per_token = self.kv_bytes_per_token();
        let row = |variant: &Variant| {
            let last = variant.measured.last()?;
            let kib = |bytes: u64| fixed(bytes as f64 / 1024.0, 1);
            Some(vec![
                variant.kind.name().to_owned(),
                count(last.run.positions_recomputed.unwrap_or(0)),
                or_dash(
                    last.run
                        .peak_bytes
                        .map(|bytes| bytes as f64 / f64::from(1 << 20)),
                    1,
                ),
                count(last.offset as u64),
                kib(per_token * last.offset as u64),
                count(last.capacity as u64),
                kib(last.run.kv_bytes.unwrap_or(0)),
                kib(last.active),
            ])
        };
        variants.iter().filter_map(row).collect()
    }

    fn kv_bytes_per_token(&self) -> u64 {
        let checkpoint = &self.session.checkpoint;
        checkpoint
            .config
            .kv_bytes_per_token(checkpoint.activation_bytes())
    }

    fn formula(&self) -> String {
        let config = &self.session.checkpoint.config;
        format!(
            "Formula: 2 × {} layers × {} key/value heads × {} × {} bytes = {} bytes per position; \
             with all {} heads it would be {}.",
            config.num_hidden_layers,
            config.num_key_value_heads,
            config.head_dim,
            self.session.checkpoint.activation_bytes(),
            count(self.kv_bytes_per_token()),
            config.num_attention_heads,
            count(
                self.kv_bytes_per_token() * config.num_attention_heads as u64
                    / config.num_key_value_heads as u64
            ),
        )
    }

    fn plot(&self, series: &[(&str, &[f64])]) -> Result<()> {
        let Some(path) = &self.args.plot else {
            return Ok(());
        };
        let title = format!(
            "{}, {}",
            self.session.checkpoint.name, self.session.machine.name
        );
        let curves: Vec<Curve<'_>> = series
            .iter()
            .map(|&(label, token_ms)| Curve { label, token_ms })
            .collect();
        plot::save(path, &title, &curves)
    }
}

const HEAD: [&str; 6] = [
    "cache",
    "TTFT ms",
    "TPOT ms",
    "ITL p95 ms",
    "decode tok/s",
    "× off",
];

const MEMORY_HEAD: [&str; 8] = [
    "KV KiB", "again", "peak MiB", "offset", "formula", "capacity", "held", "MLX says",
];

fn row(rounds: &Rounds, first: &Rounds) -> Vec<String> {
    let Rounds { run, .. } = rounds;
    let ratio = run.decode_tps.zip(first.run.decode_tps).map(|(a, b)| a / b);
    vec![
        run.variant.clone(),
        or_dash(run.ttft_ms, 1),
        or_dash(run.tpot_ms, 2),
        or_dash(run.itl_p95_ms, 2),
        match rounds.decode_tps_half_iqr {
            Some(spread) if rounds.n > 1 => {
                format!("{} ± {}", or_dash(run.decode_tps, 1), fixed(spread, 1))
            }
            _ => or_dash(run.decode_tps, 1),
        },
        or_dash(ratio.filter(|_| first.run.variant == "off"), 2),
    ]
}

/// No time is told whose tokens were not compared.
fn same_tokens(rounds: &[Rounds]) -> String {
    let first = &rounds[0].run;
    let difference = |other: &Run| {
        let mut pairs = first.tokens.iter().zip(&other.tokens);
        let at = pairs.position(|(a, b)| a != b);
        at.or((first.tokens.len() != other.tokens.len())
            .then_some(first.tokens.len().min(other.tokens.len())))
    };
    let others = rounds.iter().skip(1).map(|other| {
        let name = &other.run.variant;
        match difference(&other.run) {
            None => format!("{name} gives the same tokens"),
            Some(index) => format!("{name} differs from token {} on", index + 1),
        }
    });
    let others: Vec<String> = others.collect();
    if others.is_empty() {
        return format!("{} tokens.", first.tokens.len());
    }
    format!("Beside {}: {}.", first.variant, others.join(", "))
}

/// What a line through the times says: with a cache it should be flat. The first gap is left out, too:
/// there the host is not yet a step ahead.
fn lines(variants: &[Variant]) -> Vec<String> {
    let sentence = |variant: &Variant| {
        let times = variant.measured.first()?.steady_ms();
        let line = Line::fit(times.get(1..)?)?;
        let sign = if line.slope < 0.0 { '−' } else { '+' };
        Some(format!(
            "{}: {} ms {sign} {} µs for each token before it, residual {} ms",
            variant.kind.name(),
            fixed(line.intercept, 2),
            fixed(line.slope.abs() * 1e3, 1),
            fixed(line.residual, 2),
        ))
    };
    variants.iter().filter_map(sentence).collect()
}
