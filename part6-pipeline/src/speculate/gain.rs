//! What guesses cost and what they bring.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::stepped::Tried;

/// Tokens that can be guessed at once.
pub const MOST: usize = 16;

/// Steps of a kind whose median is what such a step takes: now and then one is held up by something else.
const LATEST: usize = 9;

/// Steps without guesses from which on it is known what one takes.
const KNOWN: usize = 3;

/// The weight of a trial after the next one.
const FADES: f64 = 0.9;

/// Trials before the first of which a request is taken to guess well, and what well means: the chance of each next token.
const BELIEVED: (f64, f64) = (2.0, 0.7);

/// Trials after which it can be said that they lose.
const JUDGED: usize = 4;

/// Tokens for which a request whose guesses lose does not guess, the first time and at most: twice as many each time.
const PAUSES: (usize, usize) = (16, 256);

/// How long steps take: those of so many rows and so many tokens of each.
#[derive(Debug, Default)]
pub struct Times(BTreeMap<(usize, usize), VecDeque<Duration>>);

impl Times {
    /// A step has taken so long.
    pub fn add(&mut self, rows: usize, width: usize, took: Duration) {
        let latest = self.0.entry((rows, width)).or_default();
        if latest.len() == LATEST {
            latest.pop_front();
        }
        latest.push_back(took);
    }

    /// The median of the latest ones.
    pub fn median(&self, rows: usize, width: usize) -> Option<Duration> {
        let mut all: Vec<Duration> = self.0.get(&(rows, width))?.iter().copied().collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    }

    /// Whether it is known what a step without guesses takes.
    pub fn is_known(&self, rows: usize) -> bool {
        (self.0.get(&(rows, 1))).is_some_and(|latest| latest.len() >= KNOWN)
    }

    /// How many steps of one token take as long as one of `width`. Of a width that was not tried yet it is taken that it
    /// costs no more than the next smaller one: so it is tried.
    pub fn ratio(&self, rows: usize, width: usize) -> f64 {
        let Some(plain) = self.median(rows, 1) else {
            return 1.0;
        };
        let took = (1..=width).rev().find_map(|width| self.median(rows, width));
        let took = took.unwrap_or(plain).as_secs_f64();
        took / plain.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Each number of rows and tokens that was run, and its median.
    pub fn all(&self) -> impl Iterator<Item = (usize, usize, Duration)> {
        let medians = self.0.keys();
        medians.filter_map(|(rows, width)| Some((*rows, *width, self.median(*rows, *width)?)))
    }
}

/// How good a request's guesses were, and until when it makes none. The older a trial is, the less it counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// Trials in which a guess had this many tokens or more, and how often so many were right.
    tried: [f64; MOST],
    right: [f64; MOST],
    /// Since the last pause: tokens that came, and the steps without guesses that would have taken as long.
    tokens: f64,
    steps: f64,
    trials: usize,
    pause: usize,
    /// Tokens of prompt and answer.
    rests_until: usize,
}

impl Record {
    /// Whether it makes none for now, with so many tokens.
    pub fn rests(&self, tokens: usize) -> bool {
        tokens < self.rests_until
    }

    /// It makes none for so many tokens.
    pub fn rest(&mut self, tokens: usize, pause: usize) {
        self.rests_until = tokens + pause;
    }

    /// It makes none for longer than the last time: what was seen so far loses weight meanwhile, so that it is tried again.
    pub fn give_up(&mut self, tokens: usize) {
        let (first, last) = PAUSES;
        self.pause = (self.pause * 2).clamp(first, last);
        self.rest(tokens, self.pause);
        (self.tokens, self.steps, self.trials) = (0.0, 0.0, 0);
        let counts = self.tried.iter_mut().chain(&mut self.right);
        counts.for_each(|count| *count *= 0.25);
    }

    /// How many of the first so many tokens of a guess will be right.
    pub fn expected(&self, guessed: usize) -> f64 {
        (0..guessed.min(MOST)).map(|at| self.chance(at)).sum()
    }

    /// That the tokens up to this one are right.
    fn chance(&self, at: usize) -> f64 {
        let (trials, chance) = BELIEVED;
        let believed = trials * chance.powi(at as i32 + 1);
        (self.right[at] + believed) / (self.tried[at] + trials)
    }

    /// Takes note of a trial. Whether it is clear that guessing loses time.
    pub fn learn(&mut self, tried: &Tried) -> bool {
        let known = if tried.ended {
            tried.right
        } else {
            tried.guessed
        };
        for at in 0..known.min(MOST) {
            self.tried[at] = self.tried[at] * FADES + 1.0;
            self.right[at] = self.right[at] * FADES + f64::from(u8::from(at < tried.right));
        }
        self.tokens = self.tokens * FADES + 1.0 + tried.right as f64;
        self.steps = self.steps * FADES + tried.cost;
        self.trials += 1;
        if self.trials < JUDGED {
            return false;
        }
        let loses = self.tokens < self.steps;
        if !loses {
            self.pause = 0;
        }
        loses
    }
}

/// The chance of each token at which guesses of so many neither gain nor lose, where their step takes as long as `ratio`
/// steps without: `1 + c + c² + … + cᵏ = ratio`. None if not even right guesses would gain.
pub fn break_even(guessed: usize, ratio: f64) -> Option<f64> {
    let brings = |chance: f64| (0..=guessed as i32).map(|at| chance.powi(at)).sum::<f64>();
    if brings(1.0) < ratio {
        return None;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if brings(middle) < ratio {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::SequenceId;

    fn tried(guessed: usize, right: usize, cost: f64) -> Tried {
        Tried {
            id: SequenceId(0),
            guessed,
            right,
            ended: false,
            cost,
            stopped: false,
        }
    }

    #[test]
    fn one_step_that_was_held_up_changes_nothing_and_what_was_not_tried_may_cost_nothing() {
        let mut times = Times::default();
        let ms = Duration::from_millis;
        assert_eq!(times.ratio(1, 4), 1.0);
        for took in [10, 10, 10_000, 10, 11] {
            times.add(1, 1, ms(took));
        }
        assert!(times.is_known(1) && !times.is_known(2));
        times.add(1, 3, ms(15));
        assert_eq!(times.ratio(1, 1), 1.0);
        assert_eq!(times.ratio(1, 2), 1.0);
        assert_eq!(times.ratio(1, 3), 1.5);
        assert_eq!(times.ratio(1, 9), 1.5);
        for _ in 0..LATEST {
            times.add(1, 1, ms(5)); // what was is forgotten
        }
        assert_eq!(times.ratio(1, 3), 3.0);
    }

    #[test]
    fn guesses_that_are_wrong_stop_and_those_that_are_right_go_on() {
        let mut good = Record::default();
        for _ in 0..50 {
            assert!(!good.learn(&tried(4, 3, 1.5)));
        }
        assert!((good.expected(4) - 3.0).abs() < 0.25);
        let mut bad = Record::default();
        let trials = (1..50).find(|_| bad.learn(&tried(4, 0, 1.5)));
        assert_eq!(trials, Some(JUDGED));
        assert!(bad.expected(4) < 0.9);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            bad.give_up(100);
            pauses.push((100..).find(|tokens| !bad.rests(*tokens)).unwrap() - 100);
        }
        assert_eq!(pauses, [16, 32, 64, 128, 256, 256, 256]);
        // A part that repeats itself comes.
        for _ in 0..JUDGED {
            bad.learn(&tried(4, 4, 1.5));
        }
        bad.give_up(0);
        assert!(bad.rests(15) && !bad.rests(16));
    }

    #[test]
    fn guesses_that_are_right_and_cost_more_than_they_bring_stop_too() {
        let mut guesses = Record::default();
        let loses = (0..JUDGED).map(|_| guesses.learn(&tried(2, 2, 3.5)));
        assert_eq!(loses.last(), Some(true));
    }

    #[test]
    fn an_answer_that_ends_says_nothing_of_the_rest_of_its_guess() {
        let mut guesses = Record::default();
        let before = guesses.chance(1);
        guesses.learn(&Tried {
            ended: true,
            ..tried(4, 1, 1.0)
        });
        assert_eq!(guesses.chance(1), before);
        assert!(guesses.chance(0) > BELIEVED.1);
    }

    #[test]
    fn at_the_break_even_point_tokens_come_as_fast_as_without() {
        assert_eq!(break_even(1, 1.5), Some(0.5));
        let even = break_even(4, 2.0).unwrap();
        let brings: f64 = (0..=4).map(|at| even.powi(at)).sum();
        assert!((brings - 2.0).abs() < 1e-9);
        assert_eq!(break_even(3, 4.5), None);
        assert!(break_even(3, 0.9).unwrap() < 1e-9);
    }
}
