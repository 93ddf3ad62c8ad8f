//! What the video shows.

use std::io::{self, IsTerminal};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use console::report::{tell, warn};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::{self, BenchArgs};
use crate::chat::{self, ChatArgs};
use crate::conformance::{self, ConformanceArgs};
use crate::crowd::{self, AnswerArgs};
use crate::engine::Engine;
use crate::explain::{self, ExplainArgs};
use crate::flags::ServeArgs;
use crate::handle::{Handle, State};
use crate::replay::{self, ReplayArgs};
use crate::server::{self, App, Listening};
use crate::speculate::{self, SpeculateArgs};
use crate::thread::Running;

/// Part 6: a full inference pipeline.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    chat: ChatArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Talk with a model in the terminal: also what happens without a subcommand
    Chat(Box<ChatArgs>),
    /// Answer one prompt, for several clients at the same time
    Answer(Box<AnswerArgs>),
    /// Measure the engine, and a server of it: throughput, and how long clients wait
    Bench(Box<BenchArgs>),
    /// Serve a model as OpenAI's API
    Serve(Box<ServeArgs>),
    /// Ask servers of OpenAI's API what clients will ask, and print what they do as they should
    Conformance(ConformanceArgs),
    /// Explain a token of an answer that was served, with part 1's walk through the model
    Explain(ExplainArgs),
    /// Guess what comes next in three kinds of text, and say what that gains and loses
    Speculate(SpeculateArgs),
    /// Run again what `serve --record FILE` has written, and say whether the answers are the same, bit for bit
    Replay(ReplayArgs),
}

/// Runs what the flags ask for.
///
/// # Errors
/// If it fails: one line that says what to try next.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        None => chat::run(&args.chat),
        Some(Command::Chat(args)) => chat::run(&args),
        Some(Command::Answer(args)) => crowd::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Serve(args)) => serve(&args),
        Some(Command::Conformance(args)) => conformance::run(&args),
        Some(Command::Explain(args)) => explain::run(&args),
        Some(Command::Speculate(args)) => speculate::run(&args),
        Some(Command::Replay(args)) => replay::run(&args),
    }
}

fn serve(args: &ServeArgs) -> Result<()> {
    serve_with(args, || Engine::spawn_with(args.engine(), args.recorder()?))
}

/// Serves an engine until Ctrl-C or SIGTERM.
///
/// # Errors
/// If it cannot listen or if the engine fails.
pub fn serve_with(args: &ServeArgs, spawn: impl FnOnce() -> Result<Running>) -> Result<()> {
    let begun = Instant::now();
    let settings = args.settings()?;
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(args.log())
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .init();
    if args.is_open() {
        warn(
            "every machine that reaches this one can ask: --api-key lets in only those that know it",
        );
    }
    let runtime = runtime()?;
    let engine = spawn()?;
    let app = App::new(engine.handle.clone(), engine.live.clone(), settings);
    let listening = runtime.block_on(Listening::bind(args.address(), app))?;
    tell(&format!("listening on http://{}", listening.address()?));
    runtime.spawn(announce(engine.handle.clone(), begun));
    let served = runtime.block_on(async { server::serve(listening, told()?).await });
    // Whoever still waits is let go, and with it its row.
    drop(runtime);
    served.and(engine.end())
}

/// The network needs little: most of the cores are the model's.
fn runtime() -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.context("starting the server's threads")
}

/// Says when the model is there.
async fn announce(mut handle: Handle, begun: Instant) {
    if handle.loaded().await == State::Ready {
        let name = handle.opened().map_or("the model", |opened| &opened.name);
        let seconds = begun.elapsed().as_secs_f64();
        tell(&format!("{name} is ready after {seconds:.2} s"));
    }
}

/// Comes back at Ctrl-C or SIGTERM.
fn told() -> Result<impl Future<Output = ()>> {
    const WATCH: &str = "watching for signals";
    let mut interrupt = signal(SignalKind::interrupt()).context(WATCH)?;
    let mut terminate = signal(SignalKind::terminate()).context(WATCH)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tell("no new requests; what runs is completed");
    })
}
