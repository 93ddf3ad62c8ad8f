//! Guesses at what comes next that are right, half right and wrong.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::GUESSES;
use crate::alone::Alone;
use crate::model::mix;
use crate::scheduler::SequenceId;
use crate::sequence::{Rows, Sequence};
use crate::stepped::Stepped;

/// Nothing has to be known of them.
#[derive(Debug, Default)]
pub struct Guesses;

/// Knows what comes next, and does not always say it.
#[derive(Debug, Default)]
pub struct Speculator;

impl Speculator {
    pub(crate) fn waits_for(&self, sequence: &Sequence) -> bool {
        sequence.trial.is_some() || GUESSES.get()
    }

    pub(crate) fn guess(
        &mut self,
        rows: &mut Rows<'_>,
        most: usize,
    ) -> Result<Option<Vec<Vec<u32>>>> {
        if !GUESSES.get() {
            return Ok(None);
        }
        let guesses: Vec<Vec<u32>> = rows.0.iter().map(|row| guess(row, most)).collect();
        Ok(guesses
            .iter()
            .any(|guess| !guess.is_empty())
            .then_some(guesses))
    }

    pub(crate) fn learn(
        &mut self,
        _: &mut Stepped,
        _: &mut BTreeMap<SequenceId, Sequence>,
    ) -> Result<()> {
        Ok(())
    }

    pub(crate) fn leave(&mut self, _: SequenceId) -> Result<()> {
        Ok(())
    }
}

/// None in half of the steps, else some tokens, one of which may be wrong.
fn guess(row: &Sequence, most: usize) -> Vec<u32> {
    let number = mix(row.ids.len() as u32, row.ids.last().copied().unwrap_or(0));
    let count = most
        .min(row.left().saturating_sub(1))
        .min(number as usize % 8);
    if number & 256 == 0 {
        return Vec::new();
    }
    let mut alone = Alone::new(None);
    let mut scores = 0;
    for id in &row.ids {
        scores = alone.push(*id).0;
    }
    let (mut sampler, mut constraint) = (row.sampler.clone(), row.constraint.clone());
    let mut guess = Vec::new();
    for at in 0..count {
        if let Some(mask) = constraint.as_mut().and_then(|all| all.mask().ok()) {
            sampler.allow(&mask);
        }
        let mut id = sampler.draw(scores);
        if number >> 9 & 7 == at as u32 {
            id = id % 500 + 5;
        }
        if let Some(constraint) = &mut constraint {
            let _ = constraint.follow(id, 0); // what it does not allow may be guessed, too
        }
        scores = alone.push(id).0;
        guess.push(id);
    }
    guess
}
