//! What guesses bring: the same answers with and without them, in turns.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use console::cli::{ModelArgs, SamplingArgs};
use console::interrupt::check_interrupted;
use console::metrics::median;
use console::numbers::{fixed, or_dash};
use console::report::{Report, clear_status, status, warn};
use shared::checkpoint::Checkpoint;
use shared::kernels::rows_have_equal_bits;
use shared::machine::{on_one_stream, versions};
use shared::request::{Request, Step};
use shared::sampling::Sampling;
use shared::session::Session;

use super::{MOST, Speculation, Speculator, Way, break_even};
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
struct Sample {
    tokens: Vec<Vec<u32>>,
    /// Tokens a second, of all rows, after the first one of each.
    rate: f64,
    /// How long steps took, by the tokens of each row that they ran.
    steps: BTreeMap<usize, Vec<f64>>,
    tried: Vec<Tried>,
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
    let session = Session::open(&args.model)?;
    let model = Model::load(&session.checkpoint)?;
    let mut lanes = lanes(args, &session, &model)?;
    let mut report = Report::stdout();
    let mut card = session.about(&versions()?);
    card.push((
        "answers".to_owned(),
        format!(
            "{} tokens, {} at a time, up to {} guessed at once",
            args.max_tokens, args.rows, args.guess
        ),
    ));
    report.card(&card)?;
    report.blank()?;
    let mut rows = Vec::new();
    for (text, prompt) in TEXTS {
        let ids = session.tokenizer.encode_prompt(prompt, true)?;
        let samples = on_one_stream(|| measure(&mut lanes, args, &ids, text))?;
        rows.extend(told(text, &lanes, &samples, args.guess));
    }
    clear_status();
    let head = [
        "",
        "guesses",
        "tok/s",
        "gain",
        "from–to",
        "per step",
        "cost",
        "even",
        "right %",
    ];
    report.table(&head, &rows)?;
    report.blank()?;
    report.note(
        "The same tokens in all lanes of a text. gain: to the same answer without guesses, median and spread of all \
         rounds. cost: steps without guesses that take as long as one with all of them, draft model included. even: how \
         often each token must be right to lose nothing (–: always is not enough). right: how often the first, \
         second, … token was. *: the engine's usual way, which does not guess while that loses.",
    )?;
    Ok(())
}

fn lanes<'a>(
    args: &SpeculateArgs,
    session: &'a Session,
    model: &'a Model,
) -> Result<Vec<Lane<'a>>> {
    let usual = (args.model.model == "tiny").then(|| "tiny-draft".to_owned());
    let mut ways = vec![("none", Way::Off, true)];
    ways.push(("lookup", Way::Lookup, true));
    ways.push(("lookup*", Way::Lookup, false));
    if let Some(draft) = args.draft.clone().or(usual) {
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

/// The rows of the table for one text.
fn told(text: &str, lanes: &[Lane<'_>], samples: &[Vec<Sample>], guess: usize) -> Vec<Vec<String>> {
    let step = |samples: &[Sample], width: usize| {
        let steps = samples.iter().filter_map(|sample| sample.steps.get(&width));
        median(&steps.flatten().copied().collect::<Vec<f64>>())
    };
    let plain = step(&samples[0], 1);
    let row = |(lane, of_lane): (&Lane<'_>, &Vec<Sample>)| {
        let rates: Vec<f64> = of_lane.iter().map(|sample| sample.rate).collect();
        // Of each round: what slowed it down has slowed the other lane down, too.
        let pairs = rates.iter().zip(&samples[0]);
        let mut gains: Vec<f64> = pairs.map(|(rate, plain)| rate / plain.rate).collect();
        gains.sort_by(f64::total_cmp);
        let spread = format!("{:.2}–{:.2}", gains[0], gains[gains.len() - 1]);
        let tried: Vec<&Tried> = of_lane.iter().flat_map(|sample| &sample.tried).collect();
        let guessed: Vec<&&Tried> = tried.iter().filter(|tried| tried.guessed > 0).collect();
        let brought: usize = guessed.iter().map(|tried| 1 + tried.right).sum();
        let per_step = brought as f64 / guessed.len() as f64;
        let cost = step(of_lane, 1 + guess).zip(plain);
        let cost = cost.map(|(took, plain)| took / plain);
        vec![
            text.to_owned(),
            lane.name.to_owned(),
            or_dash(median(&rates), 0),
            or_dash(median(&gains), 2),
            spread,
            or_dash(Some(per_step).filter(|_| !guessed.is_empty()), 2),
            or_dash(cost.filter(|_| !guessed.is_empty()), 2),
            or_dash(
                cost.filter(|_| !guessed.is_empty())
                    .and_then(|cost| break_even(guess, cost)),
                2,
            ),
            right(&guessed, 0..guess),
        ]
    };
    lanes.iter().zip(samples).map(row).collect()
}

/// How often the tokens of a guess were right, in percent.
fn right(tried: &[&&Tried], places: Range<usize>) -> String {
    let share = |place: usize| {
        let guessed = tried.iter().filter(|tried| tried.guessed > place).count();
        let right = tried.iter().filter(|tried| tried.right > place).count();
        (guessed > 0).then(|| fixed(100.0 * right as f64 / guessed as f64, 0))
    };
    let all: Vec<String> = places.map_while(share).collect();
    all.join(" ")
}
