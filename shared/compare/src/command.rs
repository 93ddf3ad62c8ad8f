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

use crate::ask::Ask;
use crate::measure::{self, Bench};
use crate::parts::{self, Contestant};
use crate::{chart, ladder, live};

/// Run the parts of the series side by side on the same prompt: measured one at a time, or live
#[derive(Debug, Parser)]
#[command(name = "cargo compare", bin_name = "cargo compare")]
pub struct Args {
    /// All at once, streaming, for the eye: nothing is measured
    #[arg(long, conflicts_with_all = ["rounds", "out"])]
    live: bool,

    /// Only these parts, as 2,3 [default: all there are]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    parts: Vec<u32>,

    /// Every variant of a part, not only the one that stands for it
    #[arg(long)]
    all: bool,

    /// Measurements of each part
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// Folder for the numbers (JSON) and the chart (SVG) [default: results; none with --parts]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    #[command(flatten)]
    ask: Ask,
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
    let chosen = parts::select(parts::find(root)?, &args.parts)?;
    check_prompt(&args)?;
    let contestants = parts::build(root, &chosen, "release", args.all).or_else(|error| {
        interrupt.check()?;
        Err(error)
    })?;
    if args.live {
        let max_tokens = args.ask.max_tokens.unwrap_or(128);
        return live::run(&args.ask, &contestants, max_tokens, &interrupt);
    }
    let results = measured(&args, root, &contestants, &interrupt)?;
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
    interrupt: &Interrupt,
) -> Result<Results> {
    let bench = Bench {
        ask: &args.ask,
        contestants,
        max_tokens: args.ask.max_tokens.unwrap_or(64),
        rounds: args.rounds,
        interrupt,
    };
    let day = OffsetDateTime::now_utc().format(format_description!("[year]-[month]-[day]"))?;
    bench.run(&day, measure::commit(root))
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
