//! What the video shows: what batching buys, what it costs, and a prediction that the run confirms.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args as ClapArgs, Parser, Subcommand};
use console::cli::{ModelArgs, OutputArgs};
use console::files;
use console::report::{Report, status};
use console::serving::Slo;
use shared::session::Session;

use crate::answer::{self, AnswerArgs};
use crate::capacity::{self, CapacityArgs};
use crate::charts;
use crate::flags::LimitArgs;
use crate::gantt;
use crate::invariant;
use crate::kinds::CacheKind;
use crate::load::{Load, LoadArgs, Planned};
use crate::model::Model;
use crate::report;
use crate::roofline::Roofline;
use crate::serve::{Run, Server};
use crate::simulate::{self, SimulateArgs};
use crate::tour::{self, SERVED_ROWS};

/// Part 5: batching: many requests in one step. Without a command: what a batch buys and what it costs, in four
/// tables.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    model: ModelArgs,
    /// Write two charts into this directory: the roofline, and latency over throughput
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    charts: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer one prompt in several rows at the same time
    Answer(Box<AnswerArgs>),
    /// Serve a load, and print the numbers as vLLM's benchmark does
    Serve(Box<ServeArgs>),
    /// Predict a load with step times that are measured first, then serve it; or for a machine from its data sheet
    Simulate(Box<SimulateArgs>),
    /// The highest rate that this machine can hold: searched for in the simulator, then tried
    Capacity(Box<CapacityArgs>),
}

/// What a load takes.
#[derive(Debug, Clone, ClapArgs)]
pub struct ServeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten, next_help_heading = "Load")]
    pub(crate) load: LoadArgs,
    /// Same seed, same arrivals, lengths and prompts
    #[arg(long, default_value = "0", help_heading = "Load")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// What an answer must keep to be good, in ms: `ttft=500,tpot=50,e2el=2000` or some of them
    #[arg(long, value_name = "LIMITS", help_heading = "Output")]
    pub(crate) slo: Option<Slo>,
    /// Write the timeline of all requests as a page
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) gantt: Option<PathBuf>,
    /// `vllm`, or `llama-bench`: the table of llama.cpp's batched-bench, for a load that comes at once
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "vllm",
        value_enum,
        help_heading = "Output"
    )]
    #[arg(hide_possible_values = true)]
    pub(crate) format: Format,
    /// With --json: the ids of all prompts and answers, to be compared with another program's
    #[arg(long, requires = "json", help_heading = "Output")]
    pub(crate) tokens: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How the numbers of a load are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// As `vllm bench serve` does.
    Vllm,
    /// As `llama-batched-bench` does.
    LlamaBench,
}

/// A model in memory, and what prompts are made of.
#[derive(Debug)]
pub struct Loaded {
    /// Its files and its machine.
    pub session: Session,
    model: Model,
    ids: Vec<u32>,
}

impl Loaded {
    /// Loads the model that the flags name.
    ///
    /// # Errors
    /// If it cannot be found or read.
    pub fn open(model: &ModelArgs) -> Result<Self> {
        let session = Session::open(model)?.with_roof();
        status(&format!("loading {}", session.checkpoint.name));
        let model = Model::load(&session.checkpoint)?;
        let stops = session.tokenizer.stop_ids();
        let all = 0..session.checkpoint.config.vocab_size as u32;
        let ids = all.filter(|id| !stops.contains(id)).collect();
        Ok(Self {
            session,
            model,
            ids,
        })
    }

    /// What serves, with this kind of cache.
    pub fn server(&self, kind: CacheKind) -> Server<'_> {
        Server {
            model: &self.model,
            config: &self.session.checkpoint.config,
            kind,
            ids: &self.ids,
        }
    }

    /// Refuses requests that are longer than the model's context, which it would answer with noise, and weights that do
    /// not fit to --invariant.
    ///
    /// # Errors
    /// With the first one.
    pub fn check(&self, load: &Load, limits: &LimitArgs) -> Result<()> {
        if limits.invariant {
            invariant::check_weights(&self.session.checkpoint.config)?;
        }
        let context = self.session.checkpoint.config.max_position_embeddings;
        let long = |request: &&Planned| request.prompt_tokens + request.output_tokens > context;
        if let Some(request) = load.requests.iter().find(long) {
            bail!(
                "a request of {} prompt and {} answer tokens is longer than the context of {}, {context}: \
                 take shorter --prompt-tokens or --output-tokens",
                request.prompt_tokens,
                request.output_tokens,
                self.session.checkpoint.name
            );
        }
        Ok(())
    }
}

/// Runs what the flags ask for and prints the report.
///
/// # Errors
/// If the model, the load or the output fails: one line that says what to try next.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        None => tour(&args.model, args.charts.as_deref(), args.output),
        Some(Command::Answer(args)) => answer::run(&args),
        Some(Command::Serve(args)) => serve(&args),
        Some(Command::Simulate(args)) => simulate::run(&args),
        Some(Command::Capacity(args)) => capacity::run(&args),
    }
}

fn tour(model: &ModelArgs, charts: Option<&Path>, output: OutputArgs) -> Result<()> {
    if let Some(directory) = charts {
        for name in charts::FILES {
            files::directory(&directory.join(name)).context("charts")?;
        }
    }
    let loaded = Loaded::open(model)?;
    let server = loaded.server(CacheKind::Prealloc);
    let mut report = Report::stdout();
    report::card(&mut report, &loaded.session)?;
    tour::warm_up(&server, SERVED_ROWS)?;
    let points = tour::sweep(&server)?;
    report::sweep(&mut report, &loaded.session, &points)?;
    let ceiling = tour::ceiling(&points, tour::ANSWER);
    let policies = tour::policies(&server, 0.6 * ceiling)?;
    report::policies(&mut report, &policies)?;
    let pieces = tour::pieces(&server, 0.3 * ceiling)?;
    report::pieces(&mut report, &pieces)?;
    let rates = tour::rates(&server, ceiling)?;
    report::rates(&mut report, &rates)?;
    if let Some(directory) = charts {
        let prompts = tour::prompts(&server)?;
        let Session {
            machine,
            checkpoint,
            ..
        } = &loaded.session;
        let roofline = Roofline::measure(machine, checkpoint, &points, &prompts)?;
        let title = format!("{} on {}", model.model, machine.name);
        charts::save(directory, &title, &roofline, &rates)?;
        let names = charts::FILES.join(" and ");
        report.note(&format!("{names} are in {}.", directory.display()))?;
    }
    if output.json {
        let all = [
            ("policies", &policies[..]),
            ("pieces", &pieces),
            ("rates", &rates),
        ];
        report::json(&mut report, &loaded.session, &model.model, &points, &all)?;
    }
    Ok(())
}

fn serve(args: &ServeArgs) -> Result<()> {
    if let Some(path) = &args.gantt {
        files::directory(path).context("gantt")?;
    }
    let load = Load::new(&args.load, args.seed)?;
    let limits = args.limits.limits()?;
    let loaded = Loaded::open(&args.model)?;
    loaded.check(&load, &args.limits)?;
    let server = loaded.server(args.limits.kind());
    tour::warm_up(&server, limits.rows.min(load.requests.len()))?;
    let run = server.serve(&load, &limits)?;
    let mut report = Report::stdout();
    report::card(&mut report, &loaded.session)?;
    report::told(&run);
    let serving = run.serving(&load, &limits, args.slo.as_ref());
    match args.format {
        Format::Vllm => serving.print(&mut report)?,
        Format::LlamaBench => report::llama_bench(&mut report, &load, &run)?,
    }
    let mut json = serving.json();
    if args.tokens {
        let prompt = |at| load.prompt(at, &loaded.ids);
        json["prompts"] = (0..load.requests.len()).map(prompt).collect();
        json["answers"] = run.answers.iter().cloned().collect();
    }
    timeline(&mut report, args, run)?;
    if args.output.json {
        report::serving_json(
            &mut report,
            &loaded.session,
            &args.model.model,
            "served",
            json,
        )?;
    }
    Ok(())
}

/// The timeline, in the terminal and as a page.
fn timeline<W: Write>(report: &mut Report<W>, args: &ServeArgs, run: Run) -> Result<()> {
    let title = format!("{}, {} requests", args.model.model, run.served.len());
    let gantt = run.recording.finish(&title, &run.served);
    report.blank()?;
    gantt::terminal::draw(report, &gantt)?;
    if let Some(path) = &args.gantt {
        gantt::page::save(path, &gantt)?;
        report.note(&format!("The timeline is in {}.", path.display()))?;
    }
    Ok(())
}
