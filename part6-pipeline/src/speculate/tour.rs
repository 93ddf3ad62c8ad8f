//! What guesses bring: the same answers with and without them, in turns.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use console::cli::{ModelArgs, OutputArgs, SamplingArgs};
use console::files;
use console::interrupt::check_interrupted;
use console::machine::Versions;
use console::report::{Report, Stdout, clear_status, status, warn};
use shared::checkpoint::Checkpoint;
use shared::kernels::rows_have_equal_bits;
use shared::machine::{on_one_stream, versions};
use shared::request::{Request, Step};
use shared::sampling::Sampling;
use shared::session::Session;

use super::report::{self, Measured};
use super::{MOST, Speculation, Speculator, Way};
use crate::generate::Generator;
use crate::kinds::CacheKind;
use crate::limits::{Limits, Memory, Policy};
use crate::model::Model;
use crate::plan::SequenceId;
use crate::stepped::Tried;

/// Guesses what comes next in three kinds of text, and says what that gains and loses
#[derive(Debug, Args)]
pub struct SpeculateArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,

    /// The model that guesses [default: tiny-draft for tiny, none for others]
    #[arg(long, help_heading = "Guesses", value_name = "MODEL")]
    draft: Option<String>,

    /// Tokens that are guessed at once, at most
    #[arg(long, help_heading = "Guesses", value_name = "N", default_value_t = 4)]
    guess: usize,

    /// Answers at a time, all of them alike
    #[arg(
        long,
        help_heading = "Measurement",
        value_name = "N",
        default_value_t = 1
    )]
    rows: usize,

    /// Tokens of an answer
    #[arg(
        long,
        help_heading = "Measurement",
        value_name = "N",
        default_value_t = 128
    )]
    max_tokens: usize,

    /// Times that each answer is measured, after one that is not
    #[arg(
        long,
        help_heading = "Measurement",
        value_name = "N",
        default_value_t = 5
    )]
    rounds: usize,

    #[command(flatten)]
    output: OutputArgs,

    /// Also write all of it to this file, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    out: Option<PathBuf>,
}

/// Kinds of text, each as far as an answer goes on with it.
const TEXTS: [(&str, &str); 3] = [
    (
        "copy",
        "The sun is a star. It gives the earth light and heat. Plants use its light to grow, and animals eat the \
         plants.\n\nThe same text again: The sun is a star. It gives the earth light and heat. Plants use its light to \
         grow, and animals eat the plants.\n\nThe same text again: The sun is a star. It gives",
    ),
    (
        "code",
        "class Point:\n    def get_x(self):\n        return self.x\n\n    def set_x(self, value):\n        \
         self.x = value\n\n    def get_y(self):\n        return self.y\n\n    def set_y(self, value):\n        \
         self.y = value\n\n    def get_z(self):\n",
    ),
    (
        "prose",
        "Once upon a time, in a village by the sea, there lived an old man who had never left his house. One morning",
    ),
];

/// One way to guess, with an engine of its own.
struct Lane<'a> {
    name: &'static str,
    generator: Generator<'a>,
}

/// What one round of a lane brought.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) tokens: Vec<Vec<u32>>,
    /// Tokens a second, of all rows, after the first one of each.
    pub(super) rate: f64,
    /// How long steps took, by the tokens of each row that they ran.
    pub(super) steps: BTreeMap<usize, Vec<f64>>,
    pub(super) tried: Vec<Tried>,
}

/// Measures and reports.
///
/// # Errors
/// If a model cannot be opened or fails, or if a guess has changed an answer.
pub fn run(args: &SpeculateArgs) -> Result<()> {
    ensure!(args.rows > 0, "--rows must be at least 1");
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    ensure!(
        args.max_tokens > MOST,
        "--max-tokens must be more than {MOST}, or there is nothing to measure"
    );
    if let Some(path) = &args.out {
        files::directory(path).context("out")?;
    }
    let session = Session::open(&args.model)?;
    let model = Model::load(&session.checkpoint)?;
    let mut lanes = lanes(args, &session, &model)?;
    let versions = versions()?;
    let mut report = Report::stdout();
    card(&mut report, args, &session, &versions)?;
    let mut found = Vec::new();
    for (text, prompt) in TEXTS {
        let ids = session.tokenizer.encode_prompt(prompt, true)?;
        let samples = on_one_stream(|| measure(&mut lanes, args, &ids, text))?;
        let of_lane = |(lane, of_lane): (&Lane<'_>, &Vec<Sample>)| {
            report::Lane::of(
                (text, ids.len()),
                lane.name,
                of_lane,
                &samples[0],
                args.guess,
            )
        };
        found.extend(lanes.iter().zip(&samples).filter_map(of_lane));
    }
    clear_status();
    let rows: Vec<Vec<String>> = found.iter().map(report::Lane::row).collect();
    report.table(&report::HEAD, &rows)?;
    report.blank()?;
    report.note(report::NOTE)?;
    let draft = args.draft();
    let measured = Measured {
        part: env!("CARGO_PKG_NAME"),
        model: &args.model.model,
        draft: draft.as_deref(),
        machine: &session.machine,
        versions: &versions,
        rows: args.rows,
        max_tokens: args.max_tokens,
        guess: args.guess,
        temperature: args.sampling.temperature,
        n: args.rounds,
        lanes: found,
    };
    write(&mut report, args, &measured)
}

fn card(
    report: &mut Report<Stdout>,
    args: &SpeculateArgs,
    session: &Session,
    versions: &Versions,
) -> Result<()> {
    let mut card = session.about(versions);
    card.push((
        "answers".to_owned(),
        format!(
            "{} tokens, {} at a time, up to {} guessed at once",
            args.max_tokens, args.rows, args.guess
        ),
    ));
    report.card(&card)?;
    Ok(report.blank()?)
}

/// As JSON, wherever that is asked for.
fn write(report: &mut Report<Stdout>, args: &SpeculateArgs, measured: &Measured<'_>) -> Result<()> {
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(measured)? + "\n";
        files::replace(path, text.as_bytes())?;
        report.note(&format!("All of it is in {}.", path.display()))?;
    }
    if args.output.json {
        report.json_line(&serde_json::to_value(measured)?)?;
    }
    Ok(())
}

impl SpeculateArgs {
    /// The model that guesses, if one does.
    fn draft(&self) -> Option<String> {
        let usual = (self.model.model == "tiny").then(|| "tiny-draft".to_owned());
        self.draft.clone().or(usual)
    }
}

fn lanes<'a>(
    args: &SpeculateArgs,
    session: &'a Session,
    model: &'a Model,
) -> Result<Vec<Lane<'a>>> {
    let mut ways = vec![("none", Way::Off, true)];
    ways.push(("lookup", Way::Lookup, true));
    ways.push(("lookup*", Way::Lookup, false));
    if let Some(draft) = args.draft() {
        let way = Way::Draft(ModelArgs {
            model: draft,
            revision: None,
            dtype: args.model.dtype,
        });
        ways.push(("draft", way.clone(), true));
        ways.push(("draft*", way, false));
    }
    let lane = |(name, way, always)| {
        let how = Speculation {
            way,
            most: args.guess,
            always,
        };
        Ok(Lane {
            name,
            generator: generator(args, session, model, how)?,
        })
    };
    ways.into_iter().map(lane).collect()
}

fn generator<'a>(
    args: &SpeculateArgs,
    session: &'a Session,
    model: &'a Model,
    how: Speculation,
) -> Result<Generator<'a>> {
    let checkpoint: &'a Checkpoint = &session.checkpoint;
    let config = &checkpoint.config;
    let positions = config.max_position_embeddings.saturating_mul(args.rows);
    let limits = Limits {
        rows: args.rows,
        tokens_per_step: 512 + args.rows * (1 + MOST),
        piece: 512,
        block: 16,
        kv_tokens: positions,
        policy: Policy::Continuous,
        memory: Memory::Reserve,
        decodes_per_piece: 1,
    };
    let mut generator = Generator::new(model, config, CacheKind::Prealloc, limits)?;
    let tokenizer = &session.tokenizer;
    generator.speculate(Speculator::new(
        how,
        tokenizer,
        config.vocab_size,
        positions,
    )?)?;
    Ok(generator)
}

/// All lanes in turns, so that whatever slows the machine down meets all of them. By lane, then by round.
fn measure(
    lanes: &mut [Lane<'_>],
    args: &SpeculateArgs,
    ids: &[u32],
    text: &str,
) -> Result<Vec<Vec<Sample>>> {
    let request = Request {
        ids: ids.to_vec(),
        max_tokens: args.max_tokens,
        stop_ids: Vec::new(),
        sampling: Sampling::from(&args.sampling),
    };
    let mut samples: Vec<Vec<Sample>> = lanes.iter().map(|_| Vec::new()).collect();
    for round in 0..=args.rounds {
        for (lane, samples) in lanes.iter_mut().zip(&mut samples) {
            check_interrupted()?;
            status(&format!(
                "{text}, {}: {round} of {}",
                lane.name, args.rounds
            ));
            samples.push(answer(&mut lane.generator, &request, args.rows)?);
        }
    }
    let expected = samples[0][0].tokens.clone();
    for (lane, samples) in lanes.iter().zip(&mut samples) {
        if samples.iter().any(|sample| sample.tokens != expected) {
            differs(text, lane.name)?;
        }
        samples.remove(0); // the first one was to warm up
    }
    Ok(samples)
}

/// Where a kernel adds up in another order for another number of tokens, two tokens that are about as likely can change
/// places.
fn differs(text: &str, lane: &str) -> Result<()> {
    if rows_have_equal_bits() {
        bail!("{text}: the answer of {lane} is another one: that is a fault of this program");
    }
    warn(&format!(
        "{text}: the answer of {lane} is another one: on this device a product's last bits depend on its size"
    ));
    Ok(())
}

/// Runs so many of the same request.
fn answer(generator: &mut Generator<'_>, request: &Request, rows: usize) -> Result<Sample> {
    let begun = Instant::now();
    let mut answers: BTreeMap<SequenceId, Vec<u32>> = BTreeMap::new();
    for _ in 0..rows {
        let id = generator.submit(request.clone(), begun.elapsed())?;
        answers.insert(id, Vec::new());
    }
    let mut sample = Sample::default();
    let (mut first, mut decoding) = (0, Duration::ZERO);
    while !generator.scheduler().is_idle() {
        let all_began = answers.values().all(|tokens| !tokens.is_empty());
        if !all_began {
            first = 0;
        }
        let started = Instant::now();
        let step = generator.step(begun.elapsed())?;
        let took = started.elapsed();
        for event in step.events {
            if let (Step::Token { id, .. }, Some(tokens)) =
                (event.step?, answers.get_mut(&event.id))
            {
                tokens.push(id);
                first += usize::from(all_began);
            }
        }
        if all_began && step.rows == rows {
            let width = step.tried.iter().map(|tried| tried.guessed).max();
            let width = 1 + width.unwrap_or(0);
            let steps = sample.steps.entry(width).or_default();
            steps.push(took.as_secs_f64());
        }
        decoding += if all_began { took } else { Duration::ZERO };
        sample.tried.extend(step.tried);
    }
    sample.rate = first as f64 / decoding.as_secs_f64();
    sample.tokens = answers.into_values().collect();
    Ok(sample)
}
