//! A prediction, and how sure it is.
//!
//! One simulation gives one number. How wrong it may be is known from the steps that the model had not seen: each
//! repetition draws its steps' errors from those, and one more error that all its steps have in common.

use anyhow::Result;
use console::metrics::percentile;
use console::serving::Serving;
use console::statistics::mean;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::Simulation;
use crate::limits::Limits;
use crate::load::Load;
use crate::step_times::{StepTimes, Work};

/// One number of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Predicted {
    /// The middle of all repetitions.
    pub median: f64,
    /// One in twenty is below.
    pub low: f64,
    /// One in twenty is above.
    pub high: f64,
}

impl Predicted {
    fn of(values: &[f64]) -> Option<Self> {
        let at = |p| percentile(values, p);
        Some(Self {
            median: at(50.0)?,
            low: at(5.0)?,
            high: at(95.0)?,
        })
    }
}

/// Simulates a load several times with errors such as unseen steps had, whose times were these `ratios` of what was
/// said of them, and gives what `number` says of each
/// run. None if it says nothing of any.
///
/// # Errors
/// As [`simulate`](super::simulate).
pub fn predict<const N: usize>(
    (load, limits): (&Load, &Limits),
    times: &StepTimes,
    ratios: &[f64],
    repetitions: u64,
    numbers: impl Fn(&Serving) -> [Option<f64>; N],
) -> Result<[Option<Predicted>; N]> {
    let mut found: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for seed in 0..repetitions {
        let mut errors = Errors::new(ratios, seed);
        let seconds = |work: &Work| times.seconds(work) * errors.draw();
        let run = Simulation::new(load, limits)?.run(seconds, |_, _, _| {})?;
        let values = numbers(&run.serving(load, limits, None));
        for (all, value) in found.iter_mut().zip(values) {
            all.extend(value);
        }
    }
    Ok(found.map(|values| Predicted::of(&values)))
}

/// Factors by which steps differ from the model.
struct Errors<'r> {
    ratios: &'r [f64],
    common: f64,
    random: Xoshiro256PlusPlus,
}

impl<'r> Errors<'r> {
    /// What all steps have in common is the mean of as many draws as there are ratios, over their mean: how far
    /// the mean of another set of steps might be.
    fn new(ratios: &'r [f64], seed: u64) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let draws: Vec<f64> = ratios
            .iter()
            .map(|_| ratios[random.random_range(0..ratios.len())])
            .collect();
        let common = if draws.is_empty() {
            1.0
        } else {
            mean(&draws) / mean(ratios)
        };
        Self {
            ratios,
            common,
            random,
        }
    }

    fn draw(&mut self) -> f64 {
        if self.ratios.is_empty() {
            return 1.0;
        }
        self.common * self.ratios[self.random.random_range(0..self.ratios.len())]
    }
}
