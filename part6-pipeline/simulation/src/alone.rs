//! What an ask gets alone: the model's rule once more, without a cache, a batch or a scheduler.

use std::collections::VecDeque;

use anyhow::Result;
use console::metrics::FinishReason;

use crate::ask::Ask;
use crate::constraint::{Constraint, Vocabulary};
use crate::model::{LAYERS, embed, key, mix, seen, value};
use crate::sampling::{END, Sampler};

/// The sum of what each layer sees, which a token adds to and a window takes from.
#[derive(Debug)]
pub(crate) struct Alone {
    window: Option<usize>,
    position: i32,
    sums: [u32; LAYERS],
    within: [VecDeque<u32>; LAYERS],
}

/// Keys and values of a position, layer by layer.
pub(crate) type Pairs = [(u32, u32); LAYERS];

impl Alone {
    pub(crate) fn new(window: Option<usize>) -> Self {
        Self {
            window,
            position: 0,
            sums: [0; LAYERS],
            within: Default::default(),
        }
    }

    /// The next token: what the one after it is drawn from, and what is stored of this one.
    pub(crate) fn push(&mut self, id: u32) -> (u32, Pairs) {
        let mut hidden = embed(id);
        let mut pairs = [(0, 0); LAYERS];
        for (layer, pair) in pairs.iter_mut().enumerate() {
            *pair = (key(hidden, self.position, layer), value(hidden, layer));
            let new = seen(pair.0, pair.1);
            self.sums[layer] = self.sums[layer].wrapping_add(new);
            if let Some(window) = self.window {
                self.within[layer].push_back(new);
                if self.within[layer].len() > window {
                    let old = self.within[layer].pop_front().unwrap_or(0);
                    self.sums[layer] = self.sums[layer].wrapping_sub(old);
                }
            }
            hidden = mix(hidden, self.sums[layer]);
        }
        self.position += 1;
        (hidden, pairs)
    }
}

/// The tokens of one of the answers, and why it ends.
pub(crate) fn answer(
    ask: &Ask,
    choice: usize,
    window: Option<usize>,
) -> Result<(Vec<u32>, FinishReason)> {
    let mut tokens = Vec::new();
    if ask.max_tokens == 0 {
        return Ok((tokens, FinishReason::Length));
    }
    let mut alone = Alone::new(window);
    let mut scores = 0;
    for id in &ask.ids {
        scores = alone.push(*id).0;
    }
    let mut sampling = ask.sampling;
    sampling.seed = sampling.seed.wrapping_add(choice as u64);
    let mut sampler = Sampler::new(&sampling, &ask.ids)?;
    let grammar = ask.grammar.as_ref();
    let mut constraint = grammar
        .map(|grammar| Constraint::new(&Vocabulary.into(), grammar))
        .transpose()?;
    loop {
        if let Some(constraint) = &mut constraint {
            sampler.allow(&constraint.mask()?);
        }
        let id = sampler.draw(scores);
        if id == END && !ask.ignore_eos {
            return Ok((tokens, FinishReason::Stop));
        }
        let mut new = vec![id];
        if let Some(constraint) = &mut constraint {
            let forced = constraint.follow(id, ask.max_tokens - tokens.len() - 1)?;
            sampler.skip(&forced)?;
            new.extend(forced);
        }
        for id in &new {
            scores = alone.push(*id).0;
        }
        tokens.extend(new);
        if constraint.as_ref().is_some_and(Constraint::must_stop) {
            return Ok((tokens, FinishReason::Stop));
        }
        if tokens.len() == ask.max_tokens {
            return Ok((tokens, FinishReason::Length));
        }
    }
}
