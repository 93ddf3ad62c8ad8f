//! What the video shows: one answer as it streams, then its numbers and the cost of naive decode.

use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use console::cli::{ModelArgs, OutputArgs, PromptArgs, SamplingArgs};
use console::metrics::Run;
use console::numbers::{decimal, fixed, or_dash};
use console::report::{Report, Stdout, TextStream, status};
use console::results::JsonReport;
use shared::machine::{self, on_one_stream, peak_bytes};
use shared::request::Request;
use shared::session::{Session, open_checkpoint};

use crate::cost_meter;
use crate::generate::{Generator, generate};
use crate::memory;
use crate::model::Model;

/// Part 2: a real model generates text, the naive way: the whole sequence again for each token.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,

    /// Print what the checkpoint is and how it differs from plain Llama, without loading it
    #[arg(long)]
    inspect: bool,

    /// Show something else than an answer: `memory`, where arrays live and how fast a token can be
    #[arg(long, value_enum, value_name = "WHAT", hide_possible_values = true)]
    #[arg(conflicts_with_all = ["inspect", "json"])]
    show: Option<Show>,
}

/// What can be shown beside an answer.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Show {
    /// When arrays are computed, where they lie, and the ceiling of decode.
    Memory,
}

/// Runs what the flags ask for and prints the report.
///
/// # Errors
/// If the model, the prompt or the output fails: one line that says what to try next.
pub fn run(args: Args) -> Result<()> {
    if args.inspect {
        return inspect(&args.model);
    }
    let session = Session::open(&args.model)?.with_roof();
    if let Some(Show::Memory) = args.show {
        status(&format!("loading {}", session.checkpoint.name));
        return memory::show(&session, &Model::load(&session.checkpoint)?);
    }
    let (request, tokenize_time) = session.request(&args.prompt, &args.sampling)?;
    let mut out = TextStream::stdout();
    let prompt = session.continued(&args.prompt)?;
    let (run, recomputed, token_ms) = answer(&session, &request, &mut out, prompt.as_deref())?;
    let run = run.tokenize(tokenize_time);
    let versions = machine::versions()?;
    let mut report = Report::stdout();
    report.blank()?;
    let mut card = session.card(&run, &versions);
    card.extend(reached(&run));
    report.card(&card)?;
    report.blank()?;
    report.card(&numbers(&run))?;
    report.blank()?;
    cost_meter::draw(&mut report, run.prompt_tokens, &recomputed, &token_ms)?;
    if args.output.json {
        report.json_line(&JsonReport {
            part: env!("CARGO_PKG_NAME"),
            model: &args.model.model,
            machine: &session.machine,
            versions: &versions,
            runs: &[run],
        })?;
    }
    Ok(())
}

fn inspect(model: &ModelArgs) -> Result<()> {
    let checkpoint = open_checkpoint(model)?;
    let machine = machine::detect()?;
    Ok(Report::stdout().card(&checkpoint.inspect(Some(machine.ram_bytes)))?)
}

/// Loads the model and streams its answer; returns the numbers of the run, and per token the
/// positions computed again and the milliseconds.
fn answer(
    session: &Session,
    request: &Request,
    out: &mut TextStream<Stdout>,
    continued: Option<&str>,
) -> Result<(Run, Vec<u64>, Vec<f64>)> {
    status(&format!("loading {}", session.checkpoint.name));
    let started = Instant::now();
    let model = Model::load(&session.checkpoint)?;
    let load_time = session.open_time + started.elapsed();
    let prompt_tokens = request.ids.len();
    continued.map_or(Ok(()), |text| out.continued(text))?;
    let mut answer = session.answer(|piece| Ok(out.push(piece)?));
    let mut generator = Generator::new(&model, request)?;
    let watch = |step| answer.watch(step, prompt_tokens);
    let generation = on_one_stream(|| generate(&mut generator, watch))?;
    let text = answer.finish()?;
    out.finish()?;

    let run = Run::from_generation("naive", prompt_tokens, &generation, text)
        .load(load_time)
        .peak_bytes(peak_bytes()?)
        .weight_bytes(session.checkpoint.weight_bytes())
        .kv_bytes(0)
        .step_bytes(session.checkpoint.read_bytes(), &session.machine);
    let token_ms = generation.timeline.token_ms();
    Ok((run, generation.positions_recomputed, token_ms))
}

/// How far below the ceiling naive decode is: a ceiling of reading, and it mostly computes.
fn reached(run: &Run) -> Option<(String, String)> {
    let share = 100.0 * run.mbu?;
    let text = format!(
        "{} % of the ceiling (MBU): a step computes all positions again",
        fixed(share, 1)
    );
    Some(("reached".to_owned(), text))
}

/// What was measured, in words: two of these times have names that everybody uses and nobody explains.
fn numbers(run: &Run) -> Vec<(&'static str, String)> {
    let ms = |value, decimals| format!("{} ms", or_dash(value, decimals));
    let (ttft, tpot) = (ms(run.ttft_ms, 1), ms(run.tpot_ms, 1));
    let (prefill, decode) = (or_dash(run.prefill_tps, 1), or_dash(run.decode_tps, 1));
    let peak = run.peak_bytes.map_or_else(|| "–".to_owned(), decimal);
    vec![
        (
            "load",
            format!("{}: files → weights in memory", ms(run.load_ms, 1)),
        ),
        (
            "tokenize",
            format!("{}: text → ids", ms(run.tokenize_ms, 1)),
        ),
        (
            "TTFT",
            format!("{ttft}, time to first token: the prompt at once, {prefill} tok/s"),
        ),
        (
            "TPOT",
            format!("{tpot}, time per output token after it: {decode} tok/s"),
        ),
        (
            "peak",
            format!("{peak}, the most memory that MLX held at once"),
        ),
    ]
}
