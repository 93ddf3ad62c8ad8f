//! One ask on its way: what its rows bring becomes the events that its client gets.

use std::mem;
use std::ops::Range;

use anyhow::{Context, Result};
use console::metrics::FinishReason;
use shared::request::{Request, Step};
use shared::sampling::Likelihood;
use shared::tokenizer::Tokenizer;

use crate::ask::{Ask, Event, Missed, TokenInfo, Usage};
use crate::likely;
use crate::prefix;
use crate::stepped::Tried;
use crate::text::{Piece, Text};

/// One ask on its way.
#[derive(Debug)]
pub struct Answering<'a> {
    tokenizer: &'a Tokenizer,
    ask: Ask,
    /// The text of each answer; none if it has ended.
    texts: Vec<Option<Text<'a>>>,
    /// Answers that wait until the prompt has run for the first one.
    more: Range<usize>,
    /// Tokens of the prompt that ran, as far as the client knows; no number is higher once all have.
    seen: Option<usize>,
    usage: Usage,
    /// Of the steps with guesses whose cost is known: tokens, and the steps without guesses that take as long.
    guessed: (f64, f64),
}

/// What a row has brought.
#[derive(Debug, Default)]
pub struct Told {
    /// For the client.
    pub events: Vec<Event>,
    /// Whether this was all of an answer.
    pub ended: bool,
    /// Answers that can begin now.
    pub more: Range<usize>,
}

impl<'a> Answering<'a> {
    /// An ask of which nothing has run.
    pub fn new(ask: Ask, tokenizer: &'a Tokenizer) -> Self {
        let text = |_| Some(Text::new(tokenizer, &ask.stop));
        Self {
            tokenizer,
            texts: (0..ask.n).map(text).collect(),
            more: 1..ask.n,
            seen: None,
            usage: Usage {
                prompt_tokens: ask.ids.len(),
                ..Usage::default()
            },
            guessed: (0.0, 0.0),
            ask,
        }
    }

    /// What was asked.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// What one of the answers asks of the model.
    pub fn request(&self, choice: usize) -> Request {
        let mut sampling = self.ask.sampling;
        sampling.seed = sampling.seed.wrapping_add(choice as u64);
        let stop_ids = self.tokenizer.stop_ids().iter().copied();
        Request {
            ids: self.ask.ids.clone(),
            max_tokens: self.ask.max_tokens.max(1),
            stop_ids: stop_ids.filter(|_| !self.ask.ignore_eos).collect(),
            sampling,
        }
    }

    /// Whether it has got a row.
    pub fn has_begun(&self) -> bool {
        self.seen.is_some()
    }

    /// It has a row, and so many tokens of its prompt were cached: all that were, or why not.
    pub fn begin(&mut self, cached: usize, missed: Option<prefix::Missed>) -> Event {
        self.seen = Some(cached);
        self.usage.cached_tokens = cached;
        let text = |id| self.tokenizer.decode(&[id], false).unwrap_or_default();
        let missed = missed.map(|missed| Missed {
            at: missed.at,
            token: text(missed.token),
            other: text(missed.other),
            by: missed.by,
        });
        Event::Started { cached, missed }
    }

    /// A row has tried out a guess.
    pub fn tried(&mut self, tried: &Tried) {
        let guesses = &mut self.usage.guesses;
        guesses.guessed += tried.guessed;
        guesses.right += tried.right;
        guesses.stopped += usize::from(tried.stopped);
        if tried.cost > 0.0 {
            let (tokens, steps) = &mut self.guessed;
            *tokens += 1.0 + tried.right as f64;
            *steps += tried.cost;
            guesses.gain = (*tokens / *steps * 100.0).round() as u32;
        }
    }

    /// What a row has brought for one of the answers.
    ///
    /// # Errors
    /// If it is a token of another vocabulary.
    pub fn take(&mut self, choice: usize, step: Step, likely: likely::Told) -> Result<Told> {
        let mut told = match step {
            Step::Prefill { seen } => return Ok(self.progress(seen)),
            _ => self.told(),
        };
        if let Some(prompt) = likely.prompt {
            told.events.push(Event::Prompt(self.prompt(prompt)?));
        }
        match step {
            Step::Token { id, positions } => {
                // A grammar left no choice, and no step was run for it.
                self.usage.forced_tokens += usize::from(positions == 0);
                self.token(choice, id, likely.token, &mut told)?;
            }
            Step::End(reason) => self.end(choice, reason, likely.token, &mut told)?,
            Step::Prefill { .. } => {}
        }
        Ok(told)
    }

    /// The tokens of the prompt. Nothing comes before the first one, so it has no likelihood.
    fn prompt(&self, likely: Vec<Likelihood>) -> Result<Vec<TokenInfo>> {
        let first = self.ask.ids.first().map(|id| self.info(*id, None));
        let others = likely.into_iter().map(|one| self.info(one.id, Some(one)));
        first.into_iter().chain(others).collect()
    }

    fn info(&self, id: u32, likely: Option<Likelihood>) -> Result<TokenInfo> {
        let bytes = |id| -> Result<Vec<u8>> {
            let piece = self.tokenizer.piece(id)?.map(|piece| piece.bytes);
            Ok(piece.unwrap_or_default())
        };
        let logprob = likely.as_ref().map(|likely| likely.logprob);
        let top = likely.into_iter().flat_map(|likely| likely.top);
        let top = top.map(|(id, logprob)| Ok((id, bytes(id)?, logprob)));
        Ok(TokenInfo {
            id,
            bytes: bytes(id)?,
            logprob,
            top: top.collect::<Result<_>>()?,
        })
    }

    /// Nothing is told of what runs again, be it of the prompt or of an answer that lost its memory.
    fn progress(&mut self, seen: usize) -> Told {
        let mut told = Told::default();
        if self.seen.is_some_and(|before| before < seen) {
            self.seen = Some(seen);
            told.events.push(Event::Progress { seen });
        }
        told
    }

    fn token(
        &mut self,
        choice: usize,
        id: u32,
        likely: Option<Likelihood>,
        told: &mut Told,
    ) -> Result<()> {
        if self.ask.max_tokens == 0 {
            return Ok(());
        }
        self.usage.completion_tokens += 1;
        let info = self.info(id, likely)?;
        let piece = self.text(choice)?.push(info)?;
        let stopped = piece.stop.is_some().then_some(FinishReason::Stop);
        self.tell(choice, piece, stopped, told);
        Ok(())
    }

    fn end(
        &mut self,
        choice: usize,
        reason: FinishReason,
        likely: Option<Likelihood>,
        told: &mut Told,
    ) -> Result<()> {
        // The one token that was sampled is nobody's.
        let unasked = self.ask.max_tokens == 0;
        let reason = if unasked {
            FinishReason::Length
        } else {
            reason
        };
        let mut piece = self.text(choice)?.finish()?;
        // Whoever scores a text takes the tokens of the prompt as all but the last `max_tokens`.
        if let Some(end) = likely.filter(|_| self.ask.prompt_logprobs.is_some() && !unasked) {
            piece.tokens.push(self.info(end.id, Some(end))?);
        }
        let stopped = piece.stop.is_some().then_some(FinishReason::Stop);
        self.tell(choice, piece, stopped.or(Some(reason)), told);
        Ok(())
    }

    /// Nothing but what follows from the first sign of an answer: the prompt has run, and the other answers to it
    /// can begin.
    fn told(&mut self) -> Told {
        self.seen = Some(usize::MAX);
        Told {
            more: mem::replace(&mut self.more, 0..0),
            ..Told::default()
        }
    }

    fn tell(&mut self, choice: usize, piece: Piece, end: Option<FinishReason>, told: &mut Told) {
        let Piece { text, tokens, stop } = piece;
        if !text.is_empty() || !tokens.is_empty() {
            told.events.push(Event::Delta {
                choice,
                text,
                tokens,
            });
        }
        let Some(reason) = end else { return };
        self.texts[choice] = None;
        told.ended = true;
        told.events.push(Event::End {
            choice,
            reason,
            stop,
        });
        told.events
            .extend(self.is_done().then_some(Event::Done(self.usage)));
    }

    /// Whether all answers have ended.
    pub fn is_done(&self) -> bool {
        self.texts.iter().all(Option::is_none)
    }

    fn text(&mut self, choice: usize) -> Result<&mut Text<'a>> {
        let text = self.texts.get_mut(choice).and_then(Option::as_mut);
        text.with_context(|| format!("a token of answer {choice}, which has ended"))
    }
}
