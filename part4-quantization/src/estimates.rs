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
        let surprise = Windows::of(scores, |s| &s.surprise);
        let before = Windows::of(base, |s| &s.surprise);
        let divergence = Windows::of(scores, |s| &s.divergence);
        let flipped = Windows::of(scores, |s| &s.flipped);
        let shift = Windows::of(scores, |s| &s.shift).all;
        let perplexity = |values: &Windows, draw: &[usize]| values.drawn(draw).exp();
        // exp(x ± e) is about exp(x) ± exp(x)·e.
        let naive =
            |values: &Windows| Some(perplexity(values, &all) * naive_standard_error(&values.all)?);
        let unpaired = naive(&surprise)
            .zip(naive(&before))
            .map(|(a, b)| a.hypot(b));
        let difference = |draw: &[usize]| perplexity(&surprise, draw) - perplexity(&before, draw);
        let percent = |p| percentile(&divergence.all, p);
        Some(Self {
            perplexity: estimate(&|draw| perplexity(&surprise, draw), naive(&surprise)),
            delta: estimate(&difference, unpaired),
            divergence: estimate(
                &|draw| divergence.drawn(draw),
                naive_standard_error(&divergence.all),
            ),
            divergence_percentiles: [
                percent(50.0)?,
                percent(90.0)?,
                percent(99.0)?,
                percent(99.9)?,
            ],
            flips: estimate(
                &|draw| flipped.drawn(draw),
                naive_standard_error(&flipped.all),
            ),
            rms_shift: mean(&shift.iter().map(|x| x * x).collect::<Vec<_>>()).sqrt(),
        })
    }
}

/// One score of all positions. Draws need only the means of the windows, which are taken once.
struct Windows {
    all: Vec<f64>,
    means: Vec<f64>,
}

impl Windows {
    fn of(scores: &[Scores], of: impl Fn(&Scores) -> &Vec<f64>) -> Self {
        let windows = || scores.iter().map(&of);
        Self {
            all: windows().flatten().copied().collect(),
            means: windows().map(|window| mean(window)).collect(),
        }
    }

    /// The mean over the windows of a draw, all of which have the same number of positions.
    fn drawn(&self, draw: &[usize]) -> f64 {
        let means: Vec<f64> = draw.iter().map(|index| self.means[*index]).collect();
        mean(&means)
    }
}
