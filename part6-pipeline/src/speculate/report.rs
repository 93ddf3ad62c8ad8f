//! What guesses have brought, as rows of a table and as JSON.

use console::machine::{Machine, Versions};
use console::metrics::{Summary, median};
use console::numbers::{fixed, or_dash};
use serde::Serialize;

use super::break_even;
use super::tour::Sample;
use crate::stepped::Tried;

/// The names of the columns.
pub(super) const HEAD: [&str; 9] = [
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

/// What they mean.
pub(super) const NOTE: &str = "The same tokens in all lanes of a text. gain: to the same answer without guesses, \
                               median and spread of all rounds. cost: steps without guesses that take as long as one \
                               with all of them, draft model included. even: how often each token must be right to \
                               lose nothing (–: always is not enough). right: how often the first, second, … token \
                               was. *: the engine's usual way, which does not guess while that loses.";

/// All that was measured on one machine, with one model.
#[derive(Debug, Serialize)]
pub(super) struct Measured<'a> {
    pub(super) part: &'static str,
    pub(super) model: &'a str,
    /// The smaller model, if one has guessed.
    pub(super) draft: Option<&'a str>,
    pub(super) machine: &'a Machine,
    pub(super) versions: &'a Versions,
    /// Answers at a time.
    pub(super) rows: usize,
    /// Tokens of each.
    pub(super) max_tokens: usize,
    /// Tokens that are guessed at once, at most.
    pub(super) guess: usize,
    pub(super) temperature: f32,
    /// Rounds of each lane, in turns, after one that does not count.
    pub(super) n: usize,
    pub(super) lanes: Vec<Lane>,
}

/// What one way to guess has brought in one text.
#[derive(Debug, Serialize)]
pub(super) struct Lane {
    text: &'static str,
    prompt_tokens: usize,
    /// `none`, `lookup`, `draft`; with a star as the engine does it, not while it loses.
    guesses: &'static str,
    /// Whether the tokens are those of the first lane, in every round.
    same_tokens: bool,
    /// Of all rows together, after the first token of each.
    decode_tps: Summary,
    /// To the same round without guesses: what slowed it down has slowed the other lane down, too.
    gain: Summary,
    /// Times that a row had a guess, tokens of all of them, and how many of these were right.
    trials: usize,
    guessed: usize,
    right: usize,
    tokens_per_trial: Option<f64>,
    /// Steps without guesses that take as long as one with as many as may be.
    cost: Option<f64>,
    /// The chance of each token at which that neither gains nor loses; None if not even right guesses would gain.
    break_even: Option<f64>,
    /// How often the first, second, … token of a guess that had one was right, from 0 to 1.
    right_by_place: Vec<f64>,
}

impl Lane {
    /// Of all rounds of a lane, and those without guesses. None if there are none.
    pub(super) fn of(
        (text, prompt_tokens): (&'static str, usize),
        guesses: &'static str,
        samples: &[Sample],
        plain: &[Sample],
        guess: usize,
    ) -> Option<Self> {
        let rates: Vec<f64> = samples.iter().map(|sample| sample.rate).collect();
        let pairs = rates.iter().zip(plain);
        let gains: Vec<f64> = pairs.map(|(rate, plain)| rate / plain.rate).collect();
        let tried = samples.iter().flat_map(|sample| &sample.tried);
        let tried: Vec<&Tried> = tried.filter(|tried| tried.guessed > 0).collect();
        let right = tried.iter().map(|tried| tried.right).sum();
        let trials = tried.len();
        let any = trials > 0;
        let cost = step(samples, 1 + guess).zip(step(plain, 1));
        let cost = cost.map(|(took, plain)| took / plain).filter(|_| any);
        Some(Self {
            text,
            prompt_tokens,
            guesses,
            same_tokens: (samples.iter()).all(|sample| sample.tokens == plain[0].tokens),
            decode_tps: Summary::of(&rates)?,
            gain: Summary::of(&gains)?,
            trials,
            guessed: tried.iter().map(|tried| tried.guessed).sum(),
            right,
            tokens_per_trial: any.then(|| (trials + right) as f64 / trials as f64),
            cost,
            break_even: cost.and_then(|cost| break_even(guess, cost)),
            right_by_place: (0..guess).map_while(|place| share(&tried, place)).collect(),
        })
    }

    /// As a row of the table.
    pub(super) fn row(&self) -> Vec<String> {
        let right = self.right_by_place.iter();
        let right: Vec<String> = right.map(|share| fixed(100.0 * share, 0)).collect();
        vec![
            self.text.to_owned(),
            self.guesses.to_owned(),
            fixed(self.decode_tps.median, 0),
            fixed(self.gain.median, 2),
            format!("{:.2}–{:.2}", self.gain.min, self.gain.max),
            or_dash(self.tokens_per_trial, 2),
            or_dash(self.cost, 2),
            or_dash(self.break_even, 2),
            right.join(" "),
        ]
    }
}

/// Seconds of a step that runs so many tokens of each row.
fn step(samples: &[Sample], width: usize) -> Option<f64> {
    let steps = samples.iter().filter_map(|sample| sample.steps.get(&width));
    median(&steps.flatten().copied().collect::<Vec<f64>>())
}

/// Of the guesses that had a token at this place, how many were right up to it.
fn share(tried: &[&Tried], place: usize) -> Option<f64> {
    let guessed = tried.iter().filter(|tried| tried.guessed > place).count();
    let right = tried.iter().filter(|tried| tried.right > place).count();
    (guessed > 0).then(|| right as f64 / guessed as f64)
}
