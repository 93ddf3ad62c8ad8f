//! What the video shows: naive and cached decode side by side, and what the cache costs beside what
//! the formula says.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use console::cli::{ModelArgs, OutputArgs, PromptArgs, SamplingArgs};
use console::files;
use console::report::status;
use shared::machine::active_bytes;
use shared::session::Session;

use crate::bench::{Begun, Bench, Variant, timed};
use crate::generate::PREFILL_STEP;
use crate::kinds::{CacheKind, empty_cache};
use crate::model::Model;
use crate::saved::CacheFile;
use crate::says::FROM_FILE;
use crate::{needle, report};

/// Part 3: the KV cache: what is computed once is stored. Without --cache: all kinds side by side.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    bench: BenchArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare all kinds, and draw the ms per token as a chart
    Plot {
        /// The file to write, an SVG; not - for stdout
        file: PathBuf,
        #[command(flatten)]
        bench: Box<BenchArgs>,
    },
    /// Write what a prompt left in the cache to a file, then answer
    Save {
        /// The file to write; not - for stdout
        file: PathBuf,
        #[command(flatten)]
        run: Box<RunArgs>,
    },
    /// Begin with what `save` wrote, for a prompt that begins with the same tokens
    Load {
        /// The regular file to read; not - for stdin
        file: PathBuf,
        #[command(flatten)]
        run: Box<RunArgs>,
    },
    /// Which sentence of a text is forgotten as the window shrinks
    Needle {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        prefill: PrefillArgs,
    },
}

/// What one answer takes.
#[derive(Debug, clap::Args)]
#[command(mut_arg("max_tokens", |arg| arg.default_value("64")))]
struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,

    /// Answer once: off, concat, prealloc or rotating, which is rotating:64:4, a window of
    /// 64 positions whose first 4 stay
    #[arg(long, value_name = "KIND", value_parser = cache_kind, help_heading = "Cache")]
    cache: Option<CacheKind>,
    #[command(flatten)]
    prefill: PrefillArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cache")]
struct PrefillArgs {
    /// Prompt tokens that go through the model at once
    #[arg(long, value_name = "N", default_value_t = PREFILL_STEP as u32)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    prefill_step: u32,
}

/// What a comparison takes.
#[derive(Debug, clap::Args)]
struct BenchArgs {
    #[command(flatten)]
    run: RunArgs,

    /// Rounds that are measured [default: 3 of each cache and 1 of off, or the answer of --cache]
    #[arg(long, value_name = "N", help_heading = "Cache")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
}

/// Rounds of a comparison.
const ROUNDS: u32 = 3;

/// The kinds that are compared.
const ALL: [CacheKind; 4] = [
    CacheKind::Off,
    CacheKind::Concat,
    CacheKind::Prealloc,
    ROTATING,
];

/// Small enough to forget something within the default answer; mlx-lm's number of sinks.
const ROTATING: CacheKind = CacheKind::Rotating { size: 64, sinks: 4 };

/// A kind of cache from its flag.
fn cache_kind(text: &str) -> Result<CacheKind, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let number = |text: &str| {
        let number = text.parse().ok().filter(|number: &i32| *number >= 0);
        number.ok_or_else(|| format!("{text:?} is no number of positions"))
    };
    let (size, sinks) = match parts[..] {
        ["off"] => return Ok(CacheKind::Off),
        ["concat"] => return Ok(CacheKind::Concat),
        ["prealloc"] => return Ok(CacheKind::Prealloc),
        ["rotating"] => return Ok(ROTATING),
        ["rotating", size] => (number(size)?, 4),
        ["rotating", size, sinks] => (number(size)?, number(sinks)?),
        _ => {
            return Err(
                "must be off, concat, prealloc, rotating or rotating:SIZE:SINKS".to_owned(),
            );
        }
    };
    if size < 2 || sinks >= size {
        return Err(format!(
            "a window of {size} positions has no room for {sinks} sinks and the tokens after them"
        ));
    }
    Ok(CacheKind::Rotating { size, sinks })
}

/// Runs what the flags ask for and prints the report.
///
/// # Errors
/// If the model, the prompt or the output fails: one line that says what to try next.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        None => compare(&args.bench, None),
        Some(Command::Plot { file, bench }) => compare(&bench, Some(&file)),
        Some(Command::Save { file, run }) => save(&file, &run),
        Some(Command::Load { file, run }) => load(&file, &run),
        Some(Command::Needle { model, prefill }) => {
            let session = Session::open(&model)?;
            status(&format!("loading {}", session.checkpoint.name));
            let model = Model::load(&session.checkpoint)?;
            needle::run(&session, &model, prefill.prefill_step as usize)
        }
    }
}

/// All kinds of caches, or the one that is asked for.
fn compare(args: &BenchArgs, plot: Option<&Path>) -> Result<()> {
    writable("plot", plot)?;
    let BenchArgs { run, rounds } = args;
    with_bench(run, |bench| {
        let variants = match run.cache {
            Some(kind) => vec![bench.one(kind, *rounds)?],
            None => bench.compare(&ALL, rounds.unwrap_or(ROUNDS))?,
        };
        print(bench, run, &variants, plot)
    })
}

/// The prompt computed and written, then read back: both answers, and both times to the first token.
fn save(path: &Path, run: &RunArgs) -> Result<()> {
    writable("save", Some(path))?;
    let kind = run.cache.unwrap_or(CacheKind::Prealloc);
    with_bench(run, |bench| {
        let file = CacheFile::new(path, bench.session, bench.request, kind)?;
        let mut cache = empty_cache(kind, &bench.session.checkpoint.config);
        let ((), time) = timed(|| file.fill(bench.model, &mut cache, bench.prefill_step))?;
        file.write(&cache)?;
        let label = "computed";
        let computed = bench.one_from(kind, Begun { label, cache, time }, true)?;
        status("the same from the file");
        let loaded = bench.one_from(kind, from_file(&file)?, false)?;
        print(bench, run, &[computed, loaded], None)
    })
}

fn load(path: &Path, run: &RunArgs) -> Result<()> {
    let kind = run.cache.unwrap_or(CacheKind::Prealloc);
    with_bench(run, |bench| {
        let file = CacheFile::new(path, bench.session, bench.request, kind)?;
        let loaded = bench.one_from(kind, from_file(&file)?, true)?;
        print(bench, run, &[loaded], None)
    })
}

fn from_file(file: &CacheFile<'_>) -> Result<Begun> {
    let (cache, time) = timed(|| file.load())?;
    let label = FROM_FILE;
    Ok(Begun { label, cache, time })
}

/// Before long work: can `path` be written?
fn writable(what: &'static str, path: Option<&Path>) -> Result<()> {
    path.map(files::directory).transpose().context(what)?;
    Ok(())
}

fn with_bench(run: &RunArgs, work: impl FnOnce(&Bench<'_>) -> Result<()>) -> Result<()> {
    let session = Session::open(&run.model)?.with_roof();
    let (request, tokenize_time) = session.request(&run.prompt, &run.sampling)?;
    let continued = session.continued(&run.prompt)?;
    status(&format!("loading {}", session.checkpoint.name));
    let started = Instant::now();
    let model = Model::load(&session.checkpoint)?;
    let bench = Bench {
        session: &session,
        request: &request,
        continued: continued.as_deref(),
        model: &model,
        prefill_step: run.prefill.prefill_step as usize,
        load_time: session.open_time + started.elapsed(),
        tokenize_time,
        weights_active: active_bytes()?,
    };
    work(&bench)
}

fn print(
    bench: &Bench<'_>,
    run: &RunArgs,
    variants: &[Variant],
    plot: Option<&Path>,
) -> Result<()> {
    report::print(bench, variants)?;
    if let Some(path) = plot {
        report::plot(bench, variants, path)?;
    }
    if run.output.json {
        report::json(bench, variants, &run.model.model)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_cache_is_a_name_and_for_a_ring_its_numbers() {
        assert_eq!(cache_kind("prealloc"), Ok(CacheKind::Prealloc));
        assert_eq!(cache_kind("rotating"), Ok(ROTATING));
        let ring = |size, sinks| Ok(CacheKind::Rotating { size, sinks });
        assert_eq!(cache_kind("rotating:16"), ring(16, 4));
        assert_eq!(cache_kind("rotating:16:0"), ring(16, 0));
        for wrong in [
            "rotating:4",
            "rotating:8:8",
            "rotating:1:0",
            "rotating:8:-1",
            "rotating:99999999999",
            "rotating:8:2:1",
            "concat:8",
            "",
        ] {
            assert!(cache_kind(wrong).is_err(), "{wrong}");
        }
    }
}
