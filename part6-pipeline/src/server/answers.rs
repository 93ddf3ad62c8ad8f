//! The answers to all prompts of a request, as one stream of events.

use std::future::poll_fn;
use std::task::Poll;

use super::metrics::Clock;
use super::{App, refused, unavailable};
use crate::api::{ApiError, UsageObject};
use crate::ask::{Ask, Event, TokenInfo};
use crate::handle::Answer;
use console::metrics::FinishReason;

/// The asks of a request that the engine has taken. Whoever drops this wants none of the rest.
#[derive(Debug)]
pub(super) struct Answers {
    open: Vec<(usize, Answer)>,
    /// Who is looked at first next time: all have their turn.
    turn: usize,
    clock: Clock,
    usage: UsageObject,
    app: App,
}

/// One answer, complete.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Whole {
    pub(super) text: String,
    pub(super) tokens: Vec<TokenInfo>,
    pub(super) reason: Option<FinishReason>,
    pub(super) stop: Option<String>,
}

/// What one prompt got.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Got {
    pub(super) prompt: Vec<TokenInfo>,
    pub(super) answers: Vec<Whole>,
}

impl Answers {
    /// Hands all asks to the engine, or none of them.
    pub(super) fn submit(app: &App, asks: Vec<Ask>) -> Result<Self, ApiError> {
        let submit = |(index, ask)| Ok((index, app.handle().submit(ask)?));
        let open: Result<Vec<_>, _> = asks.into_iter().enumerate().map(submit).collect();
        Ok(Self {
            open: open.map_err(|refusal| refused(&refusal))?,
            turn: 0,
            clock: Clock::start(app),
            usage: UsageObject::default(),
            app: app.clone(),
        })
    }

    /// The next event of any of them, and of which prompt. None when all have ended.
    ///
    /// # Errors
    /// If one of them fails.
    pub(super) async fn next(&mut self) -> Result<Option<(usize, Event)>, ApiError> {
        while !self.open.is_empty() {
            let (at, event) = self.any().await;
            let prompt = self.open[at].0;
            match event {
                Some(Event::Failed(fault)) => return Err(self.app.failed(&fault)),
                None => return Err(unavailable(&self.app.handle().status().state)),
                Some(Event::Done(usage)) => {
                    self.usage.add(&usage);
                    self.open.remove(at);
                }
                Some(event) => {
                    self.clock.see(prompt, &event);
                    return Ok(Some((prompt, event)));
                }
            }
        }
        Ok(None)
    }

    async fn any(&mut self) -> (usize, Option<Event>) {
        let (open, turn) = (&mut self.open, &mut self.turn);
        poll_fn(|context| {
            for step in 0..open.len() {
                let at = (*turn + step) % open.len();
                if let Poll::Ready(event) = open[at].1.poll_next(context) {
                    *turn = at + 1;
                    return Poll::Ready((at, event));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// What all that have ended have cost.
    pub(super) fn usage(&self) -> &UsageObject {
        &self.usage
    }

    /// Waits for all of them: `n` answers to each of `prompts`.
    pub(super) async fn whole(&mut self, prompts: usize, n: usize) -> Result<Vec<Got>, ApiError> {
        let empty = Got {
            prompt: Vec::new(),
            answers: vec![Whole::default(); n],
        };
        let mut all = vec![empty; prompts];
        while let Some((prompt, event)) = self.next().await? {
            all[prompt].take(event);
        }
        Ok(all)
    }
}

impl Got {
    fn take(&mut self, event: Event) {
        match event {
            Event::Prompt(tokens) => self.prompt = tokens,
            Event::Delta {
                choice,
                text,
                tokens,
            } => {
                let answer = &mut self.answers[choice];
                answer.text.push_str(&text);
                answer.tokens.extend(tokens);
            }
            Event::End {
                choice,
                reason,
                stop,
            } => {
                let answer = &mut self.answers[choice];
                (answer.reason, answer.stop) = (Some(reason), stop);
            }
            Event::Started { .. } | Event::Progress { .. } | Event::Done(_) | Event::Failed(_) => {}
        }
    }
}
