//! The scores of all windows as a few numbers, each with how sure it is.
//!
//! Two things are usually forgotten. Tokens of one window depend on each other: so what is drawn again for the
//! error is whole windows. And both models read the same text: so the error of a difference is that of the
//! differences, not of two perplexities that know nothing of each other.

use console::metrics::percentile;
use console::statistics::{Bootstrap, mean, naive_standard_error};
use serde::Serialize;

use crate::quality::Scores;

/// A number and its standard error, with what the customary way would say beside it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// By drawing windows again; None for a single window.
    pub error: Option<f64>,
    /// As if every token were independent of the others, and of what the base says of it.
    pub naive: Option<f64>,
}

/// A model on a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quality {
    /// `exp` of the mean surprise.
    pub perplexity: Estimate,
    /// Perplexity minus the base's, on the same windows.
    pub delta: Estimate,
    /// The mean divergence, in nats.
    pub divergence: Estimate,
    /// Divergence below which 50, 90, 99 and 99.9 % of the positions are.
    pub divergence_percentiles: [f64; 4],
    /// Share of the positions whose most likely token is another one.
    pub flips: Estimate,
    /// Root of the mean square of [`Scores::shift`].
    pub rms_shift: f64,
}

/// Fixed, so that every row of a table draws the same windows.
const SEED: u64 = 4;

impl Quality {
    /// Sums up the windows of a model, and those of the base in the same order; None without windows.
    pub fn of(scores: &[Scores], base: &[Scores]) -> Option<Self> {
        let bootstrap = Bootstrap::new(scores.len(), SEED);
        let all: Vec<usize> = (0..scores.len()).collect();
        let estimate = |statistic: &dyn Fn(&[usize]) -> f64, naive| Estimate {
            value: statistic(&all),
            error: bootstrap.standard_error(statistic),
            naive,
        };
        let surprise = each(scores, |s| &s.surprise);
        let before = each(base, |s| &s.surprise);
        let divergence = each(scores, |s| &s.divergence);
        let flipped = each(scores, |s| &s.flipped);
        let shift = each(scores, |s| &s.shift).concat();
        let perplexity = |values: &[Vec<f64>], draw: &[usize]| drawn(values, draw).exp();
        // exp(x ± e) is about exp(x) ± exp(x)·e.
        let naive = |values: &[Vec<f64>]| {
            Some(perplexity(values, &all) * naive_standard_error(&values.concat())?)
        };
        let unpaired = naive(&surprise)
            .zip(naive(&before))
            .map(|(a, b)| a.hypot(b));
        let difference = |draw: &[usize]| perplexity(&surprise, draw) - perplexity(&before, draw);
        let sorted = divergence.concat();
        let percent = |p| percentile(&sorted, p);
        Some(Self {
            perplexity: estimate(&|draw| perplexity(&surprise, draw), naive(&surprise)),
            delta: estimate(&difference, unpaired),
            divergence: estimate(
                &|draw| drawn(&divergence, draw),
                naive_standard_error(&sorted),
            ),
            divergence_percentiles: [
                percent(50.0)?,
                percent(90.0)?,
                percent(99.0)?,
                percent(99.9)?,
            ],
            flips: estimate(
                &|draw| drawn(&flipped, draw),
                naive_standard_error(&flipped.concat()),
            ),
            rms_shift: mean(&shift.iter().map(|x| x * x).collect::<Vec<_>>()).sqrt(),
        })
    }
}

fn each(scores: &[Scores], of: impl Fn(&Scores) -> &Vec<f64>) -> Vec<Vec<f64>> {
    scores.iter().map(|scores| of(scores).clone()).collect()
}

/// The mean over the windows of a draw, all of which have the same number of positions.
fn drawn(by_window: &[Vec<f64>], draw: &[usize]) -> f64 {
    let means: Vec<f64> = draw.iter().map(|index| mean(&by_window[*index])).collect();
    mean(&means)
}
