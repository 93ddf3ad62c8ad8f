//! Several clients who ask the engine the same at the same time: what `cargo compare` runs of this part.

use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use console::answered;
use console::cli::{ModelArgs, OutputArgs, PromptArgs, SamplingArgs};
use console::interrupt::interrupted;
use console::machine::Machine;
use console::metrics::{FinishReason, Run, Timeline, Together};
use console::numbers::plural;
use console::report::{Report, TextStream};
use console::results::JsonReport;
use shared::machine::{self, peak_bytes, reset_peak, versions};
use shared::sampling::Sampling;

use crate::ask::{Ask, Event};
use crate::chat::open;
use crate::flags::LimitArgs;
use crate::handle::{Answer, Handle, Opened};
use crate::thread::Running;

/// What an answer takes.
#[derive(Debug, Args)]
#[command(mut_arg("max_tokens", |arg| arg.default_value("64")))]
#[command(mut_arg("rows", |arg| arg.default_value("8").help(ROWS)))]
pub struct AnswerArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

const ROWS: &str =
    "Clients who ask the same at the same time, each with a row; client k draws with seed + k";

/// What one client got.
#[derive(Debug)]
struct Got {
    tokens: Vec<u32>,
    text: String,
    timeline: Timeline,
    reason: FinishReason,
    /// Most positions in memory, of all rows, that it saw.
    positions: usize,
}

/// Starts an engine, asks it, and prints the numbers of one client and of all.
///
/// # Errors
/// If the model or the prompt fails, or if the engine does.
pub fn run(args: &AnswerArgs) -> Result<()> {
    let machine = machine::with_roof(machine::detect()?);
    let begun = Instant::now();
    let engine = open(&args.limits, &args.model)?;
    let load_time = begun.elapsed();
    let opened = engine.handle.opened().context("no model is open")?;
    let begun = Instant::now();
    let ask = ask(opened, args)?;
    let tokenize_time = begun.elapsed();
    reset_peak()?;
    let begun = Instant::now();
    let got = crowd(&engine, &ask, args.limits.rows)?;
    let time = begun.elapsed();
    let peak = peak_bytes()?;
    let run = |got: &Got| {
        let run = run_of(got, ask.ids.len(), args, opened);
        let run = run.load(load_time).tokenize(tokenize_time);
        run.peak_bytes(peak)
    };
    let runs: Vec<Run> = got.iter().map(run).collect();
    let all = Together::of(&runs, time).context("there are no clients")?;
    print(&machine, &all, args)?;
    engine.end()
}

fn ask(opened: &Opened, args: &AnswerArgs) -> Result<Ask> {
    let text = args.prompt.text()?;
    let ids = opened.tokenizer.encode_prompt(&text, args.prompt.raw)?;
    let context = opened.config.max_position_embeddings;
    ensure!(
        ids.len() < context,
        "the prompt has {} tokens, and the model sees {context}: shorten the prompt",
        ids.len()
    );
    Ok(Ask {
        max_tokens: args.prompt.max_tokens.min(context - ids.len()),
        ids,
        sampling: Sampling::from(&args.sampling),
        ignore_eos: args.prompt.ignore_eos,
        ..Ask::default()
    })
}

/// All clients ask before the first of them is answered; each listens on a thread of its own, as over a network.
fn crowd(engine: &Running, ask: &Ask, clients: usize) -> Result<Vec<Got>> {
    let handle = &engine.handle;
    let started = Instant::now();
    let submit = |client: usize| {
        let mut ask = ask.clone();
        ask.sampling.seed = ask.sampling.seed.wrapping_add(client as u64);
        let refused = |why| anyhow!("the engine takes no questions: {why:?}");
        handle.submit(ask).map_err(refused)
    };
    let answers: Vec<Answer> = (0..clients).map(submit).collect::<Result<_>>()?;
    thread::scope(|scope| {
        let listen = |(client, answer)| scope.spawn(move || hear(answer, handle, started, client));
        let clients: Vec<_> = answers.into_iter().enumerate().map(listen).collect();
        let join = |client: thread::ScopedJoinHandle<'_, Result<Got>>| {
            let got = client.join();
            got.map_err(|_| anyhow!("a client's thread has panicked"))?
        };
        clients.into_iter().map(join).collect()
    })
}

/// One client: the first one's text is shown.
fn hear(mut answer: Answer, handle: &Handle, started: Instant, client: usize) -> Result<Got> {
    let mut out = (client == 0).then(TextStream::stdout);
    let (mut tokens, mut text, mut instants) = (Vec::new(), String::new(), Vec::new());
    let (mut reason, mut positions) = (FinishReason::Interrupted, 0);
    while let Some(event) = answer.blocking_next() {
        match event {
            Event::Delta {
                text: more,
                tokens: new,
                ..
            } => {
                instants.extend(new.iter().map(|_| Instant::now()));
                tokens.extend(new.iter().map(|token| token.id));
                if let Some(out) = &mut out {
                    out.push(&more)?;
                    positions = positions.max(handle.status().kv_tokens);
                }
                text.push_str(&more);
            }
            Event::End { reason: why, .. } => reason = why,
            Event::Failed(fault) => bail!("{fault}"),
            Event::Started { .. } | Event::Progress { .. } | Event::Prompt(_) | Event::Done(_) => {}
        }
        if interrupted() {
            break; // dropping the answer ends it within a step
        }
    }
    if let Some(mut out) = out {
        out.finish()?;
    }
    Ok(Got {
        tokens,
        text,
        timeline: Timeline::from_instants(started, instants),
        reason,
        positions,
    })
}

fn run_of(got: &Got, prompt_tokens: usize, args: &AnswerArgs, opened: &Opened) -> Run {
    let LimitArgs { rows, guesses, .. } = &args.limits;
    let guesses = match &guesses.draft {
        Some(draft) => format!(", {draft}"),
        None if guesses.lookup => ", lookup".to_owned(),
        None => String::new(),
    };
    let variant = format!("{rows} {}{guesses}", plural(*rows, "row"));
    let run = Run::from_timeline(&variant, prompt_tokens, &got.timeline).output(
        got.tokens.clone(),
        got.text.clone(),
        got.reason,
    );
    match opened.sizes {
        Some(sizes) => run
            .weight_bytes(sizes.weight_bytes)
            .kv_bytes(sizes.kv_bytes_per_token * got.positions as u64),
        None => run,
    }
}

fn print(machine: &Machine, all: &Together, args: &AnswerArgs) -> Result<()> {
    let versions = versions()?;
    let mut report = Report::stdout();
    report.blank()?;
    let mut card = vec![
        ("model".to_owned(), args.model.model.clone()),
        ("machine".to_owned(), machine.describe(&versions)),
    ];
    card.extend(machine.products_row());
    report.card(&card)?;
    report.blank()?;
    answered::rows(&mut report, all)?;
    if args.output.json {
        report.json_line(&JsonReport {
            part: env!("CARGO_PKG_NAME"),
            model: &args.model.model,
            machine,
            versions: &versions,
            runs: std::slice::from_ref(all),
        })?;
    }
    Ok(())
}
