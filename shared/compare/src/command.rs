//! The flags, and what they lead to.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use console::files::replace;
use console::interrupt::Interrupt;
use console::report::Report;
use console::results::{FOLDER, Results};
use console::workspace::Workspace;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::against::{self, MlxLm, Reference, Setting};
use crate::ask::Ask;
use crate::judge::Judge;
use crate::measure::{self, Bench};
use crate::parts::{self, Contestant, Lineup};
use crate::{chart, ladder, live};

/// How Cargo builds the parts.
const PROFILE: &str = "release";

/// Run the parts of the series side by side on the same prompt: measured one at a time, or live
#[derive(Debug, Parser)]
#[command(name = "cargo compare", bin_name = "cargo compare")]
pub struct Args {
    /// All at once, streaming, for the eye: nothing is measured
    #[arg(long, conflicts_with_all = ["rounds", "out"])]
    live: bool,

    /// Each part beside this program instead of beside the others: same ids, in turns
    #[arg(long, value_name = "mlx-lm", value_enum, hide_possible_values = true)]
    #[arg(conflicts_with_all = ["live", "out", "rows"])]
    against: Option<Reference>,

    /// Only these parts, as 2,3 [default: all there are]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    parts: Vec<u32>,

    /// Every variant of a part, not only the one that stands for it
    #[arg(long)]
    all: bool,

    /// Copies of the prompt for the parts that answer several at the same time; the others answer one
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=1024))]
    rows: u32,

    /// Measurements of each part
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// Folder for the numbers (JSON) and the chart (SVG) [default: results; none with --parts]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    #[command(flatten)]
    beside: BesideArgs,

    #[command(flatten)]
    ask: Ask,
}

/// What only a comparison with another program can be told.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --against")]
struct BesideArgs {
    /// Prompts of so many tokens, as 33,512, in place of --prompt
    #[arg(long, value_name = "N,N", value_delimiter = ',', requires = "against")]
    #[arg(conflicts_with_all = ["prompt", "prompt_file"])]
    prompt_tokens: Vec<u32>,

    /// Threads of the BLAS, for both [default: as many as there are cores]
    #[arg(long, value_name = "N", requires = "against")]
    threads: Option<usize>,

    /// Also write the measurements to this file
    #[arg(long, value_name = "FILE", requires = "against")]
    json: Option<PathBuf>,
}

/// Builds the parts, then runs them as the flags say.
///
/// # Errors
/// If a part does not build or fails, if a file cannot be written; or on Ctrl-C.
pub fn run(args: Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let root = workspace.root();
    let interrupt = Interrupt::of_process();
    interrupt.watch_every_end()?;
    let parts = parts::find(root)?;
    let judge = Judge::find(root, &parts, PROFILE);
    let chosen = parts::select(parts, &args.parts)?;
    check_prompt(&args)?;
    let mlx_lm = args.against.map(|Reference::MlxLm| MlxLm::find(&workspace));
    let mlx_lm = mlx_lm.transpose()?;
    let lineup = Lineup {
        all: args.all,
        against: args.against.is_some(),
        rows: args.rows,
    };
    let contestants = parts::build(root, &chosen, PROFILE, lineup).or_else(|error| {
        interrupt.check()?;
        Err(error)
    })?;
    if args.live {
        let max_tokens = args.ask.max_tokens.unwrap_or(128);
        return live::run(&args.ask, &contestants, max_tokens, &interrupt);
    }
    if let Some(mlx_lm) = mlx_lm {
        return beside(&args, &workspace, &contestants, &mlx_lm, &interrupt);
    }
    let results = measured(&args, root, &contestants, judge, &interrupt)?;
    let mut report = Report::stdout();
    report.blank()?;
    ladder::print(&mut report, &results)?;
    match folder(&args, root) {
        Some(folder) => save(&results, &folder),
        None => Ok(()),
    }
}

/// A file that is not there is told before anything is built.
fn check_prompt(args: &Args) -> Result<()> {
    let Some(file) = &args.ask.prompt_file else {
        return Ok(());
    };
    ensure!(
        file.is_file(),
        "there is no file {} to take the prompt from",
        file.display()
    );
    Ok(())
}

fn measured(
    args: &Args,
    root: &Path,
    contestants: &[Contestant],
    judge: Option<Judge<'_>>,
    interrupt: &Interrupt,
) -> Result<Results> {
    let bench = Bench {
        ask: &args.ask,
        contestants,
        max_tokens: args.ask.max_tokens.unwrap_or(64),
        rounds: args.rounds,
        judge,
        interrupt,
    };
    let day = OffsetDateTime::now_utc().format(format_description!("[year]-[month]-[day]"))?;
    bench.run(&day, measure::commit(root))
}

/// Each contestant beside mlx-lm, on each prompt.
fn beside(
    args: &Args,
    workspace: &Workspace,
    contestants: &[Contestant],
    mlx_lm: &MlxLm,
    interrupt: &Interrupt,
) -> Result<()> {
    let prompts = tempfile::tempdir().context("making a folder for the prompts")?;
    let setting = Setting::new(args.beside.threads, workspace);
    let mut report = Report::stdout();
    let mut found = Vec::new();
    for ask in questions(args, workspace, mlx_lm, prompts.path())? {
        let bench = against::Bench {
            mlx_lm,
            ask: &ask,
            max_tokens: args.ask.max_tokens.unwrap_or(64),
            rounds: args.rounds,
            setting: &setting,
            interrupt,
        };
        for contestant in contestants {
            let beside = bench.run(contestant)?;
            report.blank()?;
            against::print(&mut report, &beside)?;
            found.push(beside);
        }
    }
    match &args.beside.json {
        Some(file) => replace(
            file,
            (serde_json::to_string_pretty(&found)? + "\n").as_bytes(),
        ),
        None => Ok(()),
    }
}

/// The question as it was asked, or one for each length that was asked for, in files in `folder`.
fn questions(
    args: &Args,
    workspace: &Workspace,
    mlx_lm: &MlxLm,
    folder: &Path,
) -> Result<Vec<Ask>> {
    let mut ask = args.ask.clone();
    ask.model = against::model(workspace.root(), &ask.model);
    if args.beside.prompt_tokens.is_empty() {
        return Ok(vec![ask]);
    }
    let of = |&tokens: &u32| {
        let file = folder.join(format!("a story of {tokens} tokens"));
        replace(&file, mlx_lm.prompt_of(tokens, &ask.model)?.as_bytes())?;
        Ok(Ask {
            prompt_file: Some(file),
            raw: true,
            ..ask.clone()
        })
    };
    args.beside.prompt_tokens.iter().map(of).collect()
}

/// Where the files go. Some of the parts are no ladder: they would replace the whole one of the day.
fn folder(args: &Args, root: &Path) -> Option<PathBuf> {
    let default = args.parts.is_empty().then(|| root.join(FOLDER));
    args.out.clone().or(default)
}

/// Writes the numbers and the chart; files of the same day are replaced.
fn save(results: &Results, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let file = |extension: &str| folder.join(format!("{}.{extension}", results.stem()));
    let json = serde_json::to_string_pretty(results)? + "\n";
    replace(&file("json"), json.as_bytes())?;
    replace(&file("svg"), chart::draw(results)?.as_bytes())?;
    anstream::eprintln!("\nwritten: {} and .svg", file("json").display());
    Ok(())
}
