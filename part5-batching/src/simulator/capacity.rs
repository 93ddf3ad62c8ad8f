//! The rate that a machine can hold, by search.

use anyhow::{Result, bail, ensure};
use console::serving::Slo;

use super::simulate;
use crate::limits::Limits;
use crate::load::Load;
use crate::step_times::StepTimes;

/// Rates differ by less than this share when the search ends.
const CLOSE: f64 = 0.01;
/// Doublings or halvings until a rate is given up on.
const MOST: usize = 40;

/// The highest rate at which enough answers are as fast as was promised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// Requests per second.
    pub rate: f64,
    /// Share of the requests that were good at that rate.
    pub good: f64,
    /// The lowest rate that was found too high.
    pub too_high: f64,
    /// Runs that were simulated.
    pub runs: usize,
}

/// Searches for the highest rate at which a share of all requests keeps the limits: doubles or halves the load's
/// own rate until one is held and twice that is not, then halves the distance.
///
/// # Errors
/// If no rate is low enough, since the limits cannot be kept, or none too high, since the load is too short to fill
/// the machine.
pub fn find_capacity(
    load: &Load,
    limits: &Limits,
    times: &StepTimes,
    slo: &Slo,
    share: f64,
) -> Result<Capacity> {
    ensure!(
        share > 0.0 && share <= 1.0,
        "a share of {share} of the requests makes no sense: take one above 0, up to 1"
    );
    let mut runs = 0;
    let mut good = |rate: f64| -> Result<f64> {
        runs += 1;
        let run = simulate(&load.at_rate(rate)?, limits, times, |_, _, _| {})?;
        Ok(slo.share(&run.served))
    };
    let (mut held, mut too_high) = bracket(&mut good, load.offered.request_rate, share)?;
    while too_high / held > 1.0 + CLOSE {
        let middle = (held * too_high).sqrt();
        if good(middle)? >= share {
            held = middle;
        } else {
            too_high = middle;
        }
    }
    let good = good(held)?;
    Ok(Capacity {
        rate: held,
        good,
        too_high,
        runs,
    })
}

/// A rate that is held, and twice that, which is not.
fn bracket(
    good: &mut impl FnMut(f64) -> Result<f64>,
    start: f64,
    share: f64,
) -> Result<(f64, f64)> {
    let first = good(start)? >= share;
    let mut rate = start;
    for _ in 0..MOST {
        let next = if first { rate * 2.0 } else { rate / 2.0 };
        if (good(next)? >= share) != first {
            return Ok(if first { (rate, next) } else { (next, rate) });
        }
        rate = next;
    }
    if first {
        bail!("no rate is too high for this load: it has too few --requests to fill the machine");
    }
    bail!(
        "at no rate are {:.0} % of the answers that fast: take other limits",
        share * 100.0
    )
}
