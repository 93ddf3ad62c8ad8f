//! How long a step takes, learnt from measured steps.
//!
//! A step's time is a sum: what every step costs the host; what its rows cost, from a *table* over their number;
//! what each piece of a prompt costs, from a table over its length; and attention, by the positions it looks at.
//! Tables, because a line through the number of rows is wrong: a Mac reads 4-bit weights again for each row up
//! to the eighth, and 16-bit weights twice as soon as there are two.

mod least_squares;
mod tables;

use anyhow::{Result, ensure};
use console::metrics::percentile;
use serde::{Deserialize, Serialize};

use crate::plan::{Plan, Why};
use least_squares::Equations;
pub use tables::Table;

/// Fewer measured steps than this for each unknown would be learnt by heart.
const SAMPLES_PER_UNKNOWN: usize = 2;
/// One in so many measured steps is kept back to measure the error with.
const HELD_OUT: usize = 4;

/// What one step runs, as far as its time depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Rows that get the next token of their answer.
    pub rows: usize,
    /// Positions that these look at, all together.
    pub context: usize,
    /// Of each piece of a prompt: its tokens, and the positions before it.
    pub pieces: Vec<(usize, usize)>,
}

/// A step that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What it ran.
    #[serde(flatten)]
    pub work: Work,
    /// How long it took.
    pub seconds: f64,
}

/// A model of step times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTimes {
    /// Seconds of any step.
    pub host: f64,
    /// Seconds over the number of rows, attention apart.
    pub rows: Table,
    /// Seconds for a position that a row looks at.
    pub context: f64,
    /// Seconds of a piece over its length, attention apart.
    pub pieces: Table,
    /// Seconds for a position that a token of a piece looks at.
    pub piece_context: f64,
}

/// How far a model was from steps that it had not seen: shares of their time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepErrors {
    /// How many steps these were.
    pub n: usize,
    /// The mean size of the error.
    pub mean: f64,
    /// The middle one.
    pub median: f64,
    /// Nine in ten are smaller.
    pub p90: f64,
    /// Of all steps together: above 0 if the model is too slow.
    pub bias: f64,
}

/// What a model said of steps that had no part in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Unseen {
    /// Their errors, summed up.
    pub errors: StepErrors,
    /// How many times as long as it said each of them took.
    pub ratios: Vec<f64>,
}

impl Work {
    /// Of a planned step. Rows that decode are one run, each piece is a run of its own.
    pub fn of(plan: &Plan) -> Self {
        let mut work = Self::default();
        work.replace(plan);
        work
    }

    /// As [`of`](Self::of), in place: a simulator asks a million times.
    pub fn replace(&mut self, plan: &Plan) {
        (self.rows, self.context) = (0, 0);
        self.pieces.clear();
        for piece in &plan.pieces {
            if piece.why == Why::Decode {
                self.rows += 1;
                self.context += piece.range.end;
            } else {
                self.pieces.push((piece.range.len(), piece.range.start));
            }
        }
    }

    /// Tokens of prompts.
    pub fn prompt_tokens(&self) -> usize {
        self.pieces.iter().map(|(tokens, _)| tokens).sum()
    }

    /// Positions that the tokens of the pieces look at: each at all before it, and at itself.
    fn piece_context(&self) -> f64 {
        let seen = |&(tokens, before): &(usize, usize)| {
            tokens as f64 * (before as f64 + (tokens as f64 + 1.0) / 2.0)
        };
        self.pieces.iter().map(seen).sum()
    }
}

impl Sample {
    /// Those that a model is fitted to, and those that are kept back to measure its error with.
    pub fn split(samples: &[Self]) -> (Vec<Self>, Vec<Self>) {
        let (mut seen, mut unseen) = (Vec::new(), Vec::new());
        for (at, sample) in samples.iter().enumerate() {
            let part = if at % HELD_OUT == HELD_OUT - 1 {
                &mut unseen
            } else {
                &mut seen
            };
            part.push(sample.clone());
        }
        (seen, unseen)
    }
}

impl StepTimes {
    /// Learns from measured steps by least squares of the relative error.
    ///
    /// # Errors
    /// If there are too few, or if one has no time.
    pub fn fit(samples: &[Sample]) -> Result<Self> {
        let timed = |sample: &Sample| sample.seconds > 0.0 && sample.seconds.is_finite();
        ensure!(
            samples.iter().all(timed),
            "a measured step took no time: its clock is too coarse"
        );
        let rows = Table::over(samples.iter().map(|sample| sample.work.rows));
        let pieces = samples.iter().flat_map(|sample| &sample.work.pieces);
        let pieces = Table::over(pieces.map(|(tokens, _)| *tokens));
        let mut shape = Self {
            host: 0.0,
            rows,
            context: 0.0,
            pieces,
            piece_context: 0.0,
        };
        let unknowns = 3 + shape.rows.len() + shape.pieces.len();
        ensure!(
            samples.len() >= SAMPLES_PER_UNKNOWN * unknowns,
            "{} measured steps are too few for {unknowns} unknowns: measure at least {}",
            samples.len(),
            SAMPLES_PER_UNKNOWN * unknowns
        );
        let mut equations = Equations::new(unknowns);
        for Sample { work, seconds } in samples {
            equations.add(&shape.terms(work), *seconds);
        }
        shape.set(&equations.solve());
        Ok(shape)
    }

    /// Learns from all steps, and says how far a model of three in four of them is from the others: those errors
    /// are of steps that had no part in it.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn calibrate(samples: &[Sample]) -> Result<(Self, Unseen)> {
        let (seen, unseen) = Sample::split(samples);
        let part = Self::fit(&seen)?;
        let ratio = |sample: &Sample| sample.seconds / part.seconds(&sample.work);
        let unseen = Unseen {
            errors: part.errors(&unseen),
            ratios: unseen.iter().map(ratio).collect(),
        };
        Ok((Self::fit(samples)?, unseen))
    }

    /// Seconds of a step.
    pub fn seconds(&self, work: &Work) -> f64 {
        let Self {
            host,
            rows,
            context,
            pieces,
            piece_context,
        } = self;
        let of_rows = if work.rows > 0 {
            rows.at(work.rows)
        } else {
            0.0
        };
        let of_pieces: f64 = work
            .pieces
            .iter()
            .map(|(tokens, _)| pieces.at(*tokens))
            .sum();
        host + of_rows
            + of_pieces
            + context * work.context as f64
            + piece_context * work.piece_context()
    }

    /// How far it is from steps that were measured.
    pub fn errors(&self, samples: &[Sample]) -> StepErrors {
        let relative = |sample: &Sample| self.seconds(&sample.work) / sample.seconds - 1.0;
        let sizes: Vec<f64> = samples
            .iter()
            .map(|sample| relative(sample).abs())
            .collect();
        let all = |seconds: fn(&Self, &Sample) -> f64| -> f64 {
            samples.iter().map(|sample| seconds(self, sample)).sum()
        };
        let at = |p| percentile(&sizes, p).unwrap_or(f64::NAN);
        StepErrors {
            n: samples.len(),
            mean: sizes.iter().sum::<f64>() / sizes.len() as f64,
            median: at(50.0),
            p90: at(90.0),
            bias: all(|times, sample| times.seconds(&sample.work))
                / all(|_, sample| sample.seconds)
                - 1.0,
        }
    }

    /// What of a step lies outside of what was measured, and so is a guess. None if nothing does.
    pub fn beyond(&self, work: &Work) -> Option<String> {
        let longest = work
            .pieces
            .iter()
            .map(|(tokens, _)| *tokens)
            .max()
            .unwrap_or(0);
        if work.rows > self.rows.last() {
            Some(format!(
                "{} rows, measured up to {}",
                work.rows,
                self.rows.last()
            ))
        } else if longest > self.pieces.last() {
            Some(format!(
                "a piece of {longest} tokens, measured up to {}",
                self.pieces.last()
            ))
        } else {
            None
        }
    }

    /// How often each unknown stands in the time of a step, in the order of [`set`](Self::set).
    fn terms(&self, work: &Work) -> Vec<f64> {
        let mut terms = vec![1.0, work.context as f64, work.piece_context()];
        let rows = terms.len();
        let pieces = rows + self.rows.len();
        terms.resize(pieces + self.pieces.len(), 0.0);
        if work.rows > 0 {
            self.rows.shares(work.rows, &mut terms[rows..pieces]);
        }
        for (tokens, _) in &work.pieces {
            self.pieces.shares(*tokens, &mut terms[pieces..]);
        }
        terms
    }

    fn set(&mut self, values: &[f64]) {
        let (fixed, tables) = values.split_at(3);
        (self.host, self.context, self.piece_context) = (fixed[0], fixed[1], fixed[2]);
        let (rows, pieces) = tables.split_at(self.rows.len());
        self.rows.set(rows);
        self.pieces.set(pieces);
    }
}
