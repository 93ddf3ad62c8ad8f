//! A function that is known at some places, and straight in between.

use serde::{Deserialize, Serialize};

/// Most places of a table that is made from measured steps.
const MOST: usize = 12;

/// Seconds over a count, at least at one place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Count and seconds, in order of the counts.
    points: Vec<(usize, f64)>,
}

impl Table {
    /// Known at these places.
    pub fn new(mut points: Vec<(usize, f64)>) -> Self {
        points.sort_by_key(|(count, _)| *count);
        points.dedup_by_key(|(count, _)| *count);
        Self { points }
    }

    /// With places where something was measured, all seconds 0. Where there are many, the ends stay, and between
    /// them as many measurements lie from each place to the next.
    pub(super) fn over(counts: impl Iterator<Item = usize>) -> Self {
        let mut counts: Vec<usize> = counts.filter(|count| *count > 0).collect();
        counts.sort_unstable();
        let mut places = counts.clone();
        places.dedup();
        if places.len() > MOST {
            let last = counts.len() - 1;
            places = (0..MOST).map(|at| counts[at * last / (MOST - 1)]).collect();
        }
        Self::new(places.into_iter().map(|count| (count, 0.0)).collect())
    }

    /// How many places it has.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The highest count that is known; 0 if nothing is.
    pub fn last(&self) -> usize {
        self.points.last().map_or(0, |(count, _)| *count)
    }

    /// Count and seconds, in order of the counts.
    pub fn points(&self) -> &[(usize, f64)] {
        &self.points
    }

    /// Seconds at a count. Below the first place as there; above the last place on the line of the last two,
    /// but never less than at the last: more work is not done sooner.
    pub fn at(&self, count: usize) -> f64 {
        let value = |at: usize, share: f64| self.points[at].1 * share;
        let found = match self.between(count) {
            None => return 0.0,
            Some((below, above, share)) => value(below, 1.0 - share) + value(above, share),
        };
        if count > self.last() {
            found.max(value(self.points.len() - 1, 1.0))
        } else {
            found
        }
    }

    /// The places around a count, and how far it is from the lower to the upper one.
    fn between(&self, count: usize) -> Option<(usize, usize, f64)> {
        let last = self.points.len().checked_sub(1)?;
        let above = self
            .points
            .partition_point(|(place, _)| *place < count)
            .clamp(last.min(1), last);
        let below = above.saturating_sub(1);
        let (from, to) = (self.points[below].0, self.points[above].0);
        if below == above || count <= from {
            return Some((below, below, 0.0));
        }
        Some((below, above, (count - from) as f64 / (to - from) as f64))
    }

    /// Adds how much each place has of the seconds at a count.
    pub(super) fn shares(&self, count: usize, shares: &mut [f64]) {
        if let Some((below, above, share)) = self.between(count) {
            shares[below] += 1.0 - share;
            shares[above] += share;
        }
    }

    /// Sets the seconds, in order.
    pub(super) fn set(&mut self, seconds: &[f64]) {
        for (point, seconds) in self.points.iter_mut().zip(seconds) {
            point.1 = *seconds;
        }
    }
}
