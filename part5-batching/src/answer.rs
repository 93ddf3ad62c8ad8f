//! One prompt, answered in several rows at the same time: what `cargo compare` runs of this part.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use console::answered;
use console::cli::{ModelArgs, OutputArgs, PromptArgs, SamplingArgs};
use console::interrupt::interrupted;
use console::metrics::{FinishReason, Generation, Run, Together};
use console::numbers::plural;
use console::report::{Report, TextStream, status};
use console::results::JsonReport;
use shared::machine::{on_one_stream, peak_bytes, reset_peak, versions};
use shared::request::{Request, Step};
use shared::session::Session;

use crate::generate::Generator;
use crate::kinds::CacheKind;
use crate::model::Model;
use crate::scheduler::SequenceId;
use crate::stepped::{Event, Stepped};
use crate::together::generate;
use crate::tour::wide;

/// What an answer in rows takes.
#[derive(Debug, Args)]
#[command(mut_arg("max_tokens", |arg| arg.default_value("64")))]
pub struct AnswerArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,

    /// Copies of the prompt that are answered at the same time; copy k draws with seed + k
    #[arg(long, value_name = "N", default_value_t = 8, help_heading = "Batch")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    rows: u16,
}

/// Answers, and prints the numbers of one row and of all.
///
/// # Errors
/// If the model or the prompt fails, or if the rows do not fit into memory.
pub fn run(args: &AnswerArgs) -> Result<()> {
    let session = Session::open(&args.model)?.with_roof();
    let (request, tokenize_time) = session.request(&args.prompt, &args.sampling)?;
    let rows = usize::from(args.rows);
    fits(&session, &request, rows)?;
    status(&format!("loading {}", session.checkpoint.name));
    let started = Instant::now();
    let model = Model::load(&session.checkpoint)?;
    let load_time = session.open_time + started.elapsed();
    let (generations, text, time) =
        on_one_stream(|| answer(&session, &model, &copies(&request, rows)))?;
    let run = |generation: &Generation| {
        let variant = format!("{rows} {}", plural(rows, "row"));
        Run::from_generation(&variant, request.ids.len(), generation, text.clone())
            .load(load_time)
            .tokenize(tokenize_time)
            .peak_bytes(peak_bytes().unwrap_or(0))
            .weight_bytes(session.checkpoint.weight_bytes())
            .kv_bytes(kv_bytes(&session, request.ids.len(), &generations))
    };
    let runs: Vec<Run> = generations.iter().map(run).collect();
    let all = Together::of(&runs, time).context("there are no rows")?;
    print(&session, &all, args)
}

/// Whether all rows have room.
fn fits(session: &Session, request: &Request, rows: usize) -> Result<()> {
    let positions = (request.ids.len() + request.max_tokens).saturating_mul(rows);
    let most = wide(rows).kv_tokens;
    ensure!(
        positions <= most,
        "{rows} rows of this prompt and --max-tokens have {positions} positions, more than {most}: take fewer --rows"
    );
    let fit = session
        .checkpoint
        .check_fit(positions, session.machine.ram_bytes);
    fit.with_context(|| format!("{rows} rows: take fewer --rows"))
}

/// The same prompt for each row, with a seed of its own.
fn copies(request: &Request, rows: usize) -> Vec<Request> {
    let copy = |row: usize| {
        let mut copy = request.clone();
        copy.sampling.seed = copy.sampling.seed.wrapping_add(row as u64);
        copy
    };
    (0..rows).map(copy).collect()
}

/// Keys and values of all rows at the end of their answers, the room of their slots not counted.
fn kv_bytes(session: &Session, prompt_tokens: usize, generations: &[Generation]) -> u64 {
    let checkpoint = &session.checkpoint;
    let bytes = checkpoint.activation_bytes();
    let of = |generation: &Generation| (prompt_tokens + generation.tokens.len()) as u64;
    checkpoint.config.kv_bytes_per_token(bytes) * generations.iter().map(of).sum::<u64>()
}

/// The answers, the first one's text, and the time of all.
fn answer(
    session: &Session,
    model: &Model,
    requests: &[Request],
) -> Result<(Vec<Generation>, String, Duration)> {
    let config = &session.checkpoint.config;
    let limits = wide(requests.len());
    let mut generator = Generator::new(model, config, CacheKind::Prealloc, limits)?;
    let mut out = TextStream::stdout();
    let mut first = session.answer(|piece| Ok(out.push(piece)?));
    reset_peak()?;
    let started = Instant::now();
    let generations = generate(&mut generator, requests, |stepped: &Stepped| {
        for Event { id, step } in &stepped.events {
            if let (SequenceId(0), Ok(Step::Token { id, .. })) = (id, step) {
                first.push(*id)?;
            }
        }
        Ok(if interrupted() {
            ControlFlow::Break(FinishReason::Interrupted)
        } else {
            ControlFlow::Continue(())
        })
    })?;
    let time = started.elapsed();
    let text = first.finish()?;
    out.finish()?;
    Ok((generations, text, time))
}

fn print(session: &Session, all: &Together, args: &AnswerArgs) -> Result<()> {
    let versions = versions()?;
    let mut report = Report::stdout();
    report.blank()?;
    report.card(&session.card(&all.run, &versions))?;
    report.blank()?;
    answered::rows(&mut report, all)?;
    if args.output.json {
        report.json_line(&JsonReport {
            part: env!("CARGO_PKG_NAME"),
            model: &args.model.model,
            machine: &session.machine,
            versions: &versions,
            runs: std::slice::from_ref(all),
        })?;
    }
    Ok(())
}
