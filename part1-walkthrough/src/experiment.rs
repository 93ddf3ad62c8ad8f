//! The flags (which steps to show, of which sentence, where to look closely), and what the video
//! shows.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use console::cli::{ModelArgs, OutputArgs, PromptArgs, SamplingArgs};
use console::files;
use console::metrics::Run;
use console::numbers::decimal;
use console::report::{Report, Stdout, clear_status};
use console::results::JsonReport;
use serde::Serialize;
use shared::machine;

use crate::extras::compare::{self, Comparison, compare};
use crate::extras::faceoff::{self, Contender, FaceOff, face_off};
use crate::extras::what_if;
use crate::page;
use crate::show::{Pace, Stop, journey};
use crate::subject::{Plan, Subject};
use crate::trace::{Trace, WhatIf};
use crate::walk::walk;

/// The sentence that is shown where none is given: its word of three pieces, its growing answer and
/// its candidates leave no picture empty.
const SENTENCE: &str = "Penguins are birds that";

/// Part 1: the complete journey of a prompt, with real numbers at every stop.
#[derive(Debug, Parser)]
#[command(version)]
#[command(mut_arg("max_tokens", |arg| arg.default_value("8")))]
#[command(mut_arg("prompt", |arg| arg.default_value(SENTENCE)))]
#[command(after_help = "The built-in sentence is continued as with --raw.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    output: OutputArgs,

    /// Show this step only
    #[arg(long, value_enum, help_heading = "Walk", conflicts_with_all = ["from", "to"])]
    step: Option<Stop>,

    /// Begin with this step
    #[arg(
        long,
        value_enum,
        value_name = "STEP",
        help_heading = "Walk",
        hide_possible_values = true
    )]
    from: Option<Stop>,

    /// End with this step
    #[arg(
        long,
        value_enum,
        value_name = "STEP",
        help_heading = "Walk",
        hide_possible_values = true
    )]
    to: Option<Stop>,

    /// Wait after each picture: for `enter`, the key, or this many seconds, for filming
    #[arg(long, value_name = "enter|SECONDS", help_heading = "Walk", value_parser = pace)]
    pace: Option<Pace>,

    /// The layer to look at closely, from 0 [default: the one in the middle]
    #[arg(
        long,
        value_name = "LAYER",
        help_heading = "Walk",
        allow_negative_numbers = true
    )]
    layer: Option<usize>,

    /// The head of it to look at closely, from 0 [default: the one that adds most]
    #[arg(
        long,
        value_name = "HEAD",
        help_heading = "Walk",
        allow_negative_numbers = true
    )]
    head: Option<usize>,

    /// Leave something out and show what breaks: no-mask, no-positions, no-scaling or
    /// zero-head=LAYER.HEAD
    #[arg(long, value_name = "PIECE", help_heading = "Walk")]
    #[arg(conflicts_with_all = ["step", "from", "to"])]
    what_if: Option<WhatIf>,

    /// Write the walk to a file, not - for stdout, as one page for a browser: no network, no other file
    #[arg(long, value_name = "FILE", help_heading = "Walk")]
    html: Option<PathBuf>,

    /// Follow a word that two sentences share through the layers
    #[arg(long, num_args = 2, value_names = ["SENTENCE", "SENTENCE"], help_heading = "Walk")]
    #[arg(conflicts_with_all = ["step", "from", "to", "layer", "head", "prompt", "prompt_file"])]
    compare: Option<Vec<String>>,

    /// The word to follow [default: the longest one that both sentences have]
    #[arg(long, value_name = "WORD", help_heading = "Walk", requires = "compare")]
    word: Option<String>,

    /// Let this tokenizer cut the prompt, or three examples; give it again for another beside it.
    /// `tiny`, a directory, a tokenizer.json, a .gguf file, or a Hugging Face id
    #[arg(long, value_name = "TOKENIZER", help_heading = "Walk")]
    #[arg(conflicts_with_all = ["model", "step", "from", "to", "layer", "head", "pace"])]
    #[arg(conflicts_with_all = ["what_if", "html", "compare"])]
    tokenizer: Vec<String>,
}

/// Runs what the flags ask for and prints it.
///
/// # Errors
/// If the model, the prompt or the output fails: one line that says what to try next.
pub fn run(args: Args) -> Result<()> {
    if !args.tokenizer.is_empty() {
        return args.face_off();
    }
    let stops = args.stops()?;
    if let Some(path) = &args.html {
        files::directory(path).with_context(|| format!("--html {}", path.display()))?;
    }
    let subject = Subject::open(&args.model)?;
    let mut report = Report::stdout();
    let pace = args.pace.unwrap_or(Pace::None);
    if let Some([a, b]) = args.compare.as_deref() {
        let found = compare(&subject, [a, b], args.word.as_deref(), args.what_if)?;
        clear_status();
        compare::show::comparison(&mut report, pace, &found)?;
        args.page_of_two(&mut report, &subject, &found)?;
        return args.json(&mut report, Found::Comparison(&found));
    }
    let trace = walk(&subject, &args.plan()?)?;
    clear_status();
    match &trace.what_if {
        Some(outcome) => what_if::show::outcome(&mut report, pace, &trace, outcome)?,
        None => journey(&mut report, pace, &trace, &stops)?,
    }
    args.page(&mut report, &trace)?;
    args.json(&mut report, Found::Trace(&trace))
}

/// What a run found, as an additional key of the JSON line.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Found<'a> {
    Trace(&'a Trace),
    Comparison(&'a Comparison),
    FaceOffs(&'a [FaceOff]),
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    report: JsonReport<'a, Run>,
    #[serde(flatten)]
    found: Found<'a>,
}

impl Args {
    fn face_off(&self) -> Result<()> {
        let open = |name: &String| Contender::open(name);
        let contenders: Vec<Contender> = self.tokenizer.iter().map(open).collect::<Result<_>>()?;
        let (mut rounds, words) = if self.built_in_sentence() {
            (
                face_off(&contenders, &faceoff::EXAMPLES)?,
                face_off(&contenders, &faceoff::WORDS)?,
            )
        } else {
            (face_off(&contenders, &[self.prompt.text()?])?, Vec::new())
        };
        let mut report = Report::stdout();
        faceoff::show::face_off(&mut report, &rounds)?;
        faceoff::show::words(&mut report, &words)?;
        rounds.extend(words);
        self.json(&mut report, Found::FaceOffs(&rounds))
    }

    fn page(&self, report: &mut Report<Stdout>, trace: &Trace) -> Result<()> {
        let Some(path) = &self.html else {
            return Ok(());
        };
        let size = page::save(path, trace)?;
        Ok(report.card(&[("page", format!("{}, {}", path.display(), decimal(size)))])?)
    }

    /// The walk of the first of two sentences, with what the comparison found.
    fn page_of_two(
        &self,
        report: &mut Report<Stdout>,
        subject: &Subject,
        found: &Comparison,
    ) -> Result<()> {
        if self.html.is_none() {
            return Ok(());
        }
        let plan = Plan {
            text: found.first.sides[0].text.clone(),
            raw: true,
            ..self.plan()?
        };
        let comparison = Some(found.clone());
        let trace = Trace {
            comparison,
            ..walk(subject, &plan)?
        };
        clear_status();
        self.page(report, &trace)
    }

    fn stops(&self) -> Result<Vec<Stop>> {
        let from = self.step.or(self.from).unwrap_or(Stop::FIRST);
        let to = self.step.or(self.to).unwrap_or(Stop::LAST);
        ensure!(from <= to, "--from {from} comes after --to {to}: swap them");
        Ok(Stop::all()
            .filter(|stop| (from..=to).contains(stop))
            .collect())
    }

    fn built_in_sentence(&self) -> bool {
        self.prompt.prompt_file.is_none() && self.prompt.prompt == SENTENCE
    }

    fn plan(&self) -> Result<Plan> {
        Ok(Plan {
            text: self.prompt.text()?.into_owned(),
            raw: self.prompt.raw || self.built_in_sentence(),
            max_tokens: self.prompt.max_tokens,
            stops: !self.prompt.ignore_eos,
            sampling: (&self.sampling).into(),
            layer: self.layer,
            head: self.head,
            what_if: self.what_if,
        })
    }

    fn json(&self, report: &mut Report<Stdout>, found: Found<'_>) -> Result<()> {
        if !self.output.json {
            return Ok(());
        }
        let report_line = JsonReport {
            part: env!("CARGO_PKG_NAME"),
            model: &self.model.model,
            machine: &machine::detect()?,
            versions: &machine::versions()?,
            runs: &[],
        };
        Ok(report.json_line(&Line {
            report: report_line,
            found,
        })?)
    }
}

fn pace(text: &str) -> Result<Pace, String> {
    if text == "enter" {
        return Ok(Pace::Enter);
    }
    let value = text
        .parse()
        .ok()
        .filter(|value: &f32| (0.0..=60.0).contains(value));
    let value =
        value.ok_or_else(|| "must be enter, or a number of seconds from 0 to 60".to_owned())?;
    Ok(Pace::new(Some(value)))
}
