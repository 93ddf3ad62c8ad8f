//! Why an answer has this token and no other: part 1's walk, with the tokens that were served.
//!
//! The walk runs the prompt and the answer up to the token, all of it and in single steps, as part 1 does. The engine
//! has run it in pieces, from a cache, beside others: that the same comes out is what the tests of the series are for.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use console::files;
use console::numbers::{count, decimal, plural};
use console::report::{Report, Stdout, clear_status, tell};
use part1_walkthrough::page;
use part1_walkthrough::show::{Pace, Stop, journey};
use part1_walkthrough::subject::{Plan, Subject};
use part1_walkthrough::tokenize::{PICTURE_LIMIT, name};
use part1_walkthrough::trace::Trace;
use part1_walkthrough::walk::walk_from;
use shared::request::Request;

use crate::replay::{self, Record};

/// Explains a token of an answer that was served, with part 1's walk through the model
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A record of `serve --record FILE`, whose last answer is meant; or with --record the `id` of a response, or the
    /// number of an ask
    #[arg(value_name = "FILE|ID")]
    which: String,

    /// The record to look into for an id
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// Which token of the answer, from 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    token: u32,

    /// Which of several answers, from 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    choice: u32,

    /// All six steps of the walk, not only the tokens and the prediction
    #[arg(long)]
    whole: bool,

    /// Write the walk to this file, not - for stdout, as one page for a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Most tokens of prompt and answer: the walk keeps who looks at whom, in each head of each layer.
const MOST: usize = 256;

/// Rounds of the loop that the walk shows after the token.
const ROUNDS: usize = 8;

/// Finds the answer, walks, and shows it.
///
/// # Errors
/// If there is no such answer or token, if it is too long, or if part 1 cannot run its model.
pub fn run(args: &ExplainArgs) -> Result<()> {
    if let Some(path) = &args.html {
        files::directory(path).with_context(|| format!("--html {}", path.display()))?;
    }
    let record = find(args)?;
    let place = Place::of(&record, args)?;
    if args.html.is_some() || args.whole {
        ensure!(
            place.ids.len() <= PICTURE_LIMIT,
            "prompt and answer have {} tokens up to there, and the pictures of all steps have room for {PICTURE_LIMIT}: \
             take an earlier --token, or leave --whole and --html away",
            place.ids.len()
        );
    }
    let model = record.engine.model_args()?;
    let unfit = || format!("part 1 cannot walk through {}", model.model);
    let subject = Subject::open(&model).with_context(unfit)?;
    check(&subject, &place)?;
    let trace = walk(&subject, &record, &place).with_context(unfit)?;
    clear_status();
    show(&subject, &record, &place, &trace, args)
}

/// The record that is meant.
fn find(args: &ExplainArgs) -> Result<Record> {
    let Some(file) = &args.record else {
        let mut records = replay::read(Path::new(&args.which)).with_context(|| {
            format!(
                "{:?} is taken as a record; for an id, name the record with --record",
                args.which
            )
        })?;
        let last = records.pop();
        return last.context("the record is empty");
    };
    let wanted = |record: &Record| record.name == args.which || record.id.to_string() == args.which;
    // A server that was started again counts from 0 again: the latest one is meant.
    let records = replay::read(file)?.into_iter();
    records.rev().find(wanted).with_context(|| {
        format!(
            "{} has no answer {:?}: only those that have ended are in it",
            file.display(),
            args.which
        )
    })
}

/// What the model saw, and what it said then.
#[derive(Debug)]
struct Place {
    /// The prompt, and the answer before the token.
    ids: Vec<u32>,
    /// Of them, the prompt.
    prompt: usize,
    /// The token.
    token: u32,
    /// Which one of the answer, from 1.
    number: usize,
}

impl Place {
    fn of(record: &Record, args: &ExplainArgs) -> Result<Self> {
        let answers = record.answers.len();
        let answer = record.answers.get(args.choice as usize - 1);
        let answer = answer.with_context(|| {
            format!(
                "the ask has {answers} {}, and no number {}",
                plural(answers, "answer"),
                args.choice
            )
        })?;
        let tokens: Vec<u32> = answer.tokens.iter().map(replay::Token::id).collect();
        let number = args.token as usize;
        let token = *tokens.get(number - 1).with_context(|| {
            format!(
                "the answer has {} {}, and no number {number}",
                tokens.len(),
                plural(tokens.len(), "token")
            )
        })?;
        let prompt = record.ask.ids();
        let ids = [prompt, &tokens[..number - 1]].concat();
        ensure!(
            ids.len() <= MOST,
            "prompt and answer have {} tokens up to there, and the walk has room for {MOST}: take an earlier --token, \
             or a shorter conversation",
            count(ids.len() as u64)
        );
        Ok(Self {
            prompt: prompt.len(),
            ids,
            token,
            number,
        })
    }
}

/// Ids of a file are read as rows of a table, and MLX checks no bounds.
fn check(subject: &Subject, place: &Place) -> Result<()> {
    let facts = subject.decoder.facts();
    let known = |id: &u32| (*id as usize) < facts.vocabulary;
    ensure!(
        place.ids.iter().chain([&place.token]).all(known),
        "the record has an id beyond the vocabulary of {}: was it another model?",
        facts.name
    );
    ensure!(
        !place.ids.is_empty() && place.ids.len() < facts.context,
        "the record has {} tokens, and the context of {} has room for {}",
        place.ids.len(),
        facts.name,
        facts.context
    );
    Ok(())
}

fn walk(subject: &Subject, record: &Record, place: &Place) -> Result<Trace> {
    let room = subject.decoder.facts().context - place.ids.len();
    let plan = Plan {
        text: subject.tokenizer.decode(&place.ids, false)?,
        raw: true,
        max_tokens: ROUNDS.min(room),
        stops: true,
        sampling: record.ask.sampling,
        layer: None,
        head: None,
        what_if: None,
    };
    let request = Request {
        ids: place.ids.clone(),
        max_tokens: plan.max_tokens,
        stop_ids: subject.tokenizer.stop_ids().iter().copied().collect(),
        sampling: plan.sampling,
    };
    walk_from(subject, &plan, &request)
}

fn show(
    subject: &Subject,
    record: &Record,
    place: &Place,
    trace: &Trace,
    args: &ExplainArgs,
) -> Result<()> {
    let mut report = Report::stdout();
    let token = name(&subject.tokenizer, place.token)?;
    let who = match record.name.as_str() {
        "" => format!("ask {}", record.id),
        name => name.to_owned(),
    };
    report.note(&format!(
        "Token {} of the answer to {who} is “{token}”.",
        place.number
    ))?;
    report.blank()?;
    let stops: Vec<Stop> = match (args.whole, place.ids.len() <= PICTURE_LIMIT) {
        (true, _) => Stop::all().collect(),
        (false, true) => vec![Stop::Tokenize, Stop::Predict],
        (false, false) => vec![Stop::Predict],
    };
    journey(&mut report, Pace::new(None), trace, &stops)?;
    taken(&mut report, record, place, trace, &token)?;
    report.note(&saved(record, place))?;
    if let Some(path) = &args.html {
        let size = page::save(path, trace)?;
        tell(&format!(
            "the page is {}, {}",
            path.display(),
            decimal(size)
        ));
    }
    Ok(())
}

/// What the answer took, beside what the walk would take.
fn taken(
    report: &mut Report<Stdout>,
    record: &Record,
    place: &Place,
    trace: &Trace,
    token: &str,
) -> Result<()> {
    let prediction = &trace.prediction;
    let bar = prediction.bars.iter().find(|bar| bar.id == place.token);
    let mut text = format!("The answer took “{token}”");
    if let Some(bar) = bar {
        let _ = write!(text, ", p {:.3} before any filter", bar.before);
    }
    text.push_str(match (record.ask.sampling.temperature, prediction.greedy.id) {
        (0.0, greedy) if greedy == place.token => ", the likeliest one.",
        (0.0, _) => {
            ", which is not the likeliest one here: it was served in another float type, or more was asked of it."
        }
        _ => ", by a draw of its own seed; the walk draws again.",
    });
    report.note(&text)?;
    if !record.ask.is_plain() {
        report.note(
            "It was asked for with penalties, biases or a grammar besides, which the walk does not show.",
        )?;
    }
    Ok(())
}

/// What did not run because it was stored.
fn saved(record: &Record, place: &Place) -> String {
    let (prompt, cached) = (place.prompt, record.cached.min(place.prompt));
    let there = match cached {
        0 => "Nothing of the prompt was cached by an earlier one".to_owned(),
        _ => format!("{cached} of the {prompt} tokens of the prompt were cached by an earlier one"),
    };
    let before = place.ids.len();
    match place.number {
        1 => format!(
            "{there}: for this token the model ran {} of {prompt} positions.",
            prompt - cached
        ),
        _ => format!(
            "{there}. For this token the model ran 1 position; without a KV cache it would have run all {before} again."
        ),
    }
}
