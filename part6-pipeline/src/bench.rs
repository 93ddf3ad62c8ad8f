//! One load, twice: given to the engine directly, and sent to a server over the network. What is between the two is what
//! the server costs.
//!
//! The engine, its model and the load are the same, and so is who sends: part 5's generator. The rounds go in turns, the
//! order changes from one to the next, and the answers must be the same. Nothing of a prompt is found in a cache.

mod client;
mod drive;
mod offline;
mod report;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use console::cli::{ModelArgs, OutputArgs};
use console::files;
use console::interrupt::check_interrupted;
use console::machine::{Machine, Versions};
use console::report::{Report, Stdout, status};
use console::serving::Serving;
use part5_batching::load::{Load, LoadArgs};
use shared::machine::{detect, versions};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::chat::open;
use crate::flags::LimitArgs;
use crate::handle::Opened;
use crate::server::{self, App, Listening, Settings};
use crate::thread::Running;
use drive::Done;

/// What a benchmark takes.
#[derive(Debug, Args)]
#[command(mut_arg("rows", |arg| arg.default_value("32")))]
#[command(mut_arg("prefix_mb", |arg| arg.default_value("0")))]
#[command(mut_arg("requests", |arg| arg.default_value("96")))]
#[command(mut_arg("concurrency", |arg| arg.default_value("32")))]
#[command(mut_arg("output_tokens", |arg| arg.default_value("64")))]
pub struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten, next_help_heading = "Load")]
    load: LoadArgs,
    /// Same seed, same arrivals, lengths and prompts
    #[arg(long, default_value = "0", help_heading = "Load")]
    seed: u64,
    /// Rounds of each way that are measured
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "Load")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Also write all numbers of all rounds to this file, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    out: Option<PathBuf>,
}

/// A round of one way.
#[derive(Debug)]
struct Round {
    serving: Serving,
    texts: Vec<String>,
}

/// What came out.
#[derive(Debug)]
struct Found {
    model: String,
    machine: Machine,
    versions: Versions,
    engine: Vec<Round>,
    server: Vec<Round>,
}

/// Measures both ways, and prints them beside each other.
///
/// # Errors
/// If the model, the load or the output fails, or if an answer is missing.
pub fn run(args: &BenchArgs) -> Result<()> {
    if let Some(path) = &args.out {
        files::directory(path).context("out")?;
    }
    let load = Load::new(&args.load, args.seed)?;
    let machine = detect()?;
    let engine = open(&args.limits, &args.model)?;
    let opened = engine.handle.opened().context("no model is open")?;
    check(&load, opened)?;
    let (ours, theirs) = measured(args, &load, &engine, opened)?;
    let found = Found {
        model: args.model.model.clone(),
        machine,
        versions: versions()?,
        engine: ours,
        server: theirs,
    };
    let mut report: Report<Stdout> = Report::stdout();
    report::print(&mut report, &found)?;
    let json = report::json(&found, &load);
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(&json)? + "\n";
        files::replace(path, text.as_bytes())?;
        report.note(&format!("All rounds are in {}.", path.display()))?;
    }
    if args.output.json {
        report.json_line(&json)?;
    }
    engine.end()
}

/// Refuses requests that are longer than the context.
fn check(load: &Load, opened: &Opened) -> Result<()> {
    let context = opened.config.max_position_embeddings;
    let longest = load
        .requests
        .iter()
        .map(|planned| planned.prompt_tokens + planned.output_tokens)
        .max()
        .unwrap_or(0);
    ensure!(
        longest <= context,
        "a request has {longest} tokens of prompt and answer, and the model sees {context}: take shorter \
         --prompt-tokens or --output-tokens"
    );
    Ok(())
}

/// Ids that prompts are made of: those that end an answer are no text.
fn ids(opened: &Opened) -> Vec<u32> {
    let stops = opened.tokenizer.stop_ids();
    let all = 0..opened.config.vocab_size as u32;
    all.filter(|id| !stops.contains(id)).collect()
}

/// The rounds of the engine and of the server, after one of each that does not count.
fn measured(
    args: &BenchArgs,
    load: &Load,
    engine: &Running,
    opened: &Opened,
) -> Result<(Vec<Round>, Vec<Round>)> {
    let ids = ids(opened);
    let prompts: Vec<Vec<u32>> = (0..load.requests.len())
        .map(|at| load.prompt(at, &ids))
        .collect();
    let served = Served::start(engine)?;
    let url = format!("http://{}", served.address);
    let client = client::Client::new(&url, &opened.name)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=args.rounds {
        let doing = match round {
            0 => "warm-up".to_owned(),
            _ => format!("round {round} of {}", args.rounds),
        };
        let offline = || -> Result<Round> {
            status(&format!("{doing}: the engine"));
            round_of(load, offline::run(&engine.handle, load, &prompts)?)
        };
        let served = || -> Result<Round> {
            status(&format!("{doing}: the server"));
            round_of(load, client.run(load, &prompts)?)
        };
        let (our, their) = if round % 2 == 0 {
            let our = offline()?;
            (our, served()?)
        } else {
            let their = served()?;
            (offline()?, their)
        };
        check_interrupted()?;
        if round > 0 {
            ours.push(our);
            theirs.push(their);
        }
    }
    served.end()?;
    Ok((ours, theirs))
}

fn round_of(load: &Load, done: Done) -> Result<Round> {
    let Done {
        served,
        texts,
        duration,
    } = done;
    let serving = Serving::of(load.offered, None, duration, &served);
    ensure!(
        serving.failed == 0,
        "{} of {} requests were not answered",
        serving.failed,
        served.len()
    );
    Ok(Round { serving, texts })
}

/// The server, on two threads as `serve` has them.
struct Served {
    address: SocketAddr,
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<Result<()>>,
}

impl Served {
    fn start(engine: &Running) -> Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build();
        let runtime = runtime.context("starting the server's threads")?;
        let app = App::new(
            engine.handle.clone(),
            engine.live.clone(),
            Settings::default(),
        );
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listening = runtime.block_on(Listening::bind(any, app))?;
        let address = listening.address()?;
        let (stop, stopped) = oneshot::channel();
        let ended = runtime.spawn(server::serve(listening, async move {
            let _ = stopped.await;
        }));
        Ok(Self {
            address,
            runtime,
            stop,
            ended,
        })
    }

    fn end(self) -> Result<()> {
        let _ = self.stop.send(());
        let ended = self.runtime.block_on(self.ended);
        ended.context("the server's thread has panicked")?
    }
}
