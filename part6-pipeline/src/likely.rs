//! How likely a request's tokens are: what it asked for, what is on its way, and what is known.
//!
//! For an answer the logits are there anyway. For a prompt they are not: a run that only wants keys and values skips
//! the head. So a prompt that asks for its likelihoods pays for the head at every position, and a beginning that is in
//! the cache helps it nothing: keys and values are stored there, and what the last layer made of them is not.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use anyhow::{Context, Result};
use mlx_rs::Array;
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::transforms;
use shared::layers::ids_array;
use shared::sampling::{Choice, Likelihood, Likelihoods, joined};

use crate::model::Model;
use crate::sequence::Sequence;

/// Positions whose logits are in memory at a time: 64 · V numbers, 40 MB for a vocabulary of 150,000.
const AT_A_TIME: usize = 64;

/// What a request wants to know of its tokens, and what is known.
#[derive(Debug, Default)]
pub struct Likely {
    /// With each token of the answer so many of the likeliest.
    top: Option<usize>,
    /// Of the answer, started and not read yet.
    in_flight: VecDeque<(Rc<Likelihoods>, usize)>,
    /// None if nobody asked, and after they were told.
    prompt: Option<Prompt>,
}

/// The tokens of a prompt, from the second one on.
#[derive(Debug)]
struct Prompt {
    top: usize,
    known: Vec<Likelihood>,
    /// How many there will be.
    all: usize,
}

/// What a step has brought of it.
#[derive(Debug, Default)]
pub struct Told {
    /// Of all tokens of the prompt but the first, which comes after nothing.
    pub prompt: Option<Vec<Likelihood>>,
    /// Of the token that came, or of the id that ended the answer instead of it.
    pub token: Option<Likelihood>,
}

impl Likely {
    /// So many of the likeliest with each token of the answer and with each of a prompt of so many tokens, where
    /// there are any asked for.
    pub fn new(answer: Option<usize>, prompt: Option<usize>, tokens: usize) -> Self {
        let prompt = prompt.map(|top| Prompt {
            top,
            known: Vec::new(),
            all: tokens.saturating_sub(1),
        });
        Self {
            top: answer,
            in_flight: VecDeque::new(),
            prompt,
        }
    }

    /// Whether the tokens of the answer have any: then each of them needs a run of its own, forced ones too.
    pub fn of_answer(&self) -> bool {
        self.top.is_some()
    }

    /// Whether the prompt has to run from its first token on.
    pub fn of_prompt(&self) -> bool {
        self.prompt.is_some()
    }

    /// Starts to compute how likely the id is that was chosen from logits `[1, V]`.
    pub fn start(&mut self, logits: &Array, next: &Choice) -> Result<()> {
        if let Some(top) = self.top {
            let all = Likelihoods::new(logits, &next.id, top)?;
            transforms::async_eval(all.arrays())?;
            self.in_flight.push_back((Rc::new(all), 0));
        }
        Ok(())
    }

    /// Of the oldest id in flight, if it was asked for.
    pub fn read(&mut self) -> Result<Option<Likelihood>> {
        let Some(top) = self.top else { return Ok(None) };
        let (all, row) = self.in_flight.pop_front().context("no step was started")?;
        all.read(row, top).map(Some)
    }

    /// Nobody will read those that are in flight.
    pub(crate) fn forget(&mut self) {
        self.in_flight.clear();
    }

    /// The prompt's, once all are known.
    pub fn take_prompt(&mut self) -> Option<Vec<Likelihood>> {
        let prompt = self
            .prompt
            .take_if(|prompt| prompt.known.len() == prompt.all)?;
        Some(prompt.known)
    }

    /// A piece of the prompt has become `hidden` `[1, L, E]`: what it says of the tokens that follow each of its own.
    /// What is known already is not computed again.
    pub fn see(
        &mut self,
        model: &Model,
        hidden: &Array,
        piece: Range<usize>,
        ids: &[u32],
    ) -> Result<()> {
        let Some(prompt) = &mut self.prompt else {
            return Ok(());
        };
        let end = piece.end.min(prompt.all);
        let mut from = piece.start.max(prompt.known.len());
        while from < end {
            let to = end.min(from + AT_A_TIME);
            let rows = (from - piece.start) as i32..(to - piece.start) as i32;
            let count = rows.len();
            let logits = model.logits(&hidden.try_index((.., rows, ..))?)?; // [1, n, V]
            let next = ids_array(&ids[from + 1..=to]);
            let all = Likelihoods::new(&logits.squeeze_axes(&[0])?, &next, prompt.top)?;
            for row in 0..count {
                let known = all.read(row, prompt.top);
                let place = || format!("from token {} of the prompt on", prompt.known.len() + 2);
                prompt.known.push(known.with_context(place)?);
            }
            from = to;
        }
        Ok(())
    }
}

/// The same as [`Likely::start`] for all rows of a batch, `logits` `[B, V]`, in one go for those that asked. Returns
/// what has to be evaluated.
pub(crate) fn start(
    rows: &mut [&mut Sequence],
    logits: &Array,
    next: &[Choice],
) -> Result<Option<Rc<Likelihoods>>> {
    let asked = |(row, sequence): (usize, &&mut Sequence)| Some((row, sequence.likely.top?));
    let asked: Vec<(usize, usize)> = rows.iter().enumerate().filter_map(asked).collect();
    let Some(top) = asked.iter().map(|(_, top)| *top).max() else {
        return Ok(None);
    };
    let ids = joined(next)?;
    let all = if asked.len() == rows.len() {
        Likelihoods::new(logits, &ids, top)?
    } else {
        let at: Vec<u32> = asked.iter().map(|(row, _)| *row as u32).collect();
        let at = Array::from_slice(&at, &[at.len() as i32]);
        Likelihoods::new(&logits.take_axis(&at, 0)?, &ids.take_axis(&at, 0)?, top)?
    };
    let all = Rc::new(all);
    for (place, (row, _)) in asked.iter().enumerate() {
        let in_flight = &mut rows[*row].likely.in_flight;
        in_flight.push_back((Rc::clone(&all), place));
    }
    Ok(Some(all))
}

/// The same as [`Likely::start`] where each row has several positions, `logits` `[N, V]`: as many as `counts` says, the
/// first row's first.
pub(crate) fn start_several(
    rows: &mut [&mut Sequence],
    counts: &[usize],
    logits: &Array,
    next: &[Choice],
) -> Result<()> {
    let mut first = 0;
    for (row, count) in rows.iter_mut().zip(counts) {
        let of_row = first..first + count;
        first = of_row.end;
        if row.likely.of_answer() {
            for place in of_row {
                let at = place as i32;
                let logits = logits.try_index((at..at + 1, ..))?;
                row.likely.start(&logits, &next[place])?;
            }
        }
    }
    Ok(())
}
