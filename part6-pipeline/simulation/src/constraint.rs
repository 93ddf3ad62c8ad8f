//! What an answer must match, as part 6 has it: of each token only some are allowed, and after some of them the next ones
//! are forced.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use real_shared::tokenizer::Tokenizer;

use crate::ask::Grammar;
use crate::model::mix;

/// Nothing is needed of it.
#[derive(Debug)]
pub struct Vocabulary;

impl Vocabulary {
    pub(crate) fn new(_: &Tokenizer, _: usize) -> Result<Arc<Self>> {
        Ok(Arc::new(Self))
    }
}

/// Ids with this rest, divided by 4.
#[derive(Debug, Clone, Copy)]
pub struct Allowed(u32);

impl Allowed {
    pub(crate) fn nearest(self, id: u32) -> u32 {
        id / 4 * 4 + 4 + self.0
    }
}

/// What an answer must match.
#[derive(Debug, Clone)]
pub struct Constraint {
    /// Tokens of the whole answer.
    length: u32,
    /// Masks until it cannot go on.
    good: u32,
    seen: u32,
}

impl Constraint {
    /// `Lark("9")` is an answer of 9 tokens, `Lark("9 3")` one that goes wrong after 3.
    pub(crate) fn new(_: &Arc<Vocabulary>, grammar: &Grammar) -> Result<Self> {
        let Grammar::Lark(text) = grammar else {
            bail!("no such grammar")
        };
        let mut numbers = text.split(' ').map(str::parse);
        let (Some(Ok(length)), good) = (numbers.next(), numbers.next()) else {
            bail!("{text:?} is no grammar")
        };
        Ok(Self {
            length,
            good: good.and_then(Result::ok).unwrap_or(u32::MAX),
            seen: 0,
        })
    }

    pub(crate) fn one_by_one(self) -> Self {
        self
    }

    pub(crate) fn mask(&mut self) -> Result<Allowed> {
        ensure!(self.seen < self.good, "the grammar went wrong");
        Ok(Allowed(self.seen % 4))
    }

    pub(crate) fn along(&self, guess: &[u32], left: usize) -> (usize, Vec<Allowed>) {
        let (mut ahead, mut masks) = (self.clone(), Vec::new());
        for (place, id) in guess.iter().map(Some).chain([None]).enumerate() {
            let Ok(mask) = ahead.mask() else { break };
            masks.push(mask);
            let forced = id.map(|id| ahead.follow(*id, left.saturating_sub(place + 1)));
            if !forced.is_some_and(|forced| forced.is_ok_and(|all| all.is_empty()))
                || ahead.must_stop()
            {
                break;
            }
        }
        (masks.len().saturating_sub(1), masks)
    }

    pub(crate) fn follow(&mut self, id: u32, most: usize) -> Result<Vec<u32>> {
        ensure!(id % 4 == self.seen % 4, "{id} is not allowed");
        self.seen += 1;
        let random = mix(id, self.seen);
        let wanted = if random.is_multiple_of(3) {
            1 + random / 3 % 4
        } else {
            0
        };
        let forced = wanted
            .min(most as u32)
            .min(self.length.saturating_sub(self.seen));
        self.seen += forced;
        Ok((0..forced).map(|at| 40 + (random + at) % 500).collect())
    }

    pub(crate) fn is_end(&self, _: u32) -> bool {
        false
    }

    pub(crate) fn must_stop(&self) -> bool {
        self.seen >= self.length
    }
}
