//! Clients: what they ask, how they listen, when they leave, and what they were told.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use console::metrics::FinishReason;
use real_shared::tokenizer::Tokenizer;

use crate::alone;
use crate::ask::{Ask, Event, Fault, Grammar, TokenInfo, Usage};
use crate::random::Random;
use crate::sampling::Sampling;

/// How somebody listens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    /// Takes everything as it comes.
    Well,
    /// Takes one event, once in so many steps.
    Slowly(u64),
    /// Leaves after so many events.
    UntilEvent(usize),
    /// Leaves after so many steps, whatever has come.
    UntilStep(u64),
}

/// An ask that is about to come.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) comes: u64,
    pub(crate) ask: Ask,
    pub(crate) manner: Manner,
    /// How often it goes on with the answer, as a chat does.
    pub(crate) turns: usize,
}

/// A few beginnings, which many prompts share.
pub(crate) fn script(random: &mut Random) -> Script {
    let length = random.of(&[1, 2, 15, 16, 17, 20, 24, 31, 32, 33, 40, 48, 49]);
    let (kind, fork) = (random.below(3) as u32, random.below(2 * length));
    let id = |at: usize| {
        let other = if at >= fork { 7 } else { 0 };
        3 + (at as u32 * 5 + kind * 100 + other) % 600
    };
    let mut ask = Ask {
        ids: (0..length).map(id).collect(),
        max_tokens: random.of(&[0, 1, 2, 5, 9, 20, 30]),
        n: random.of(&[1, 1, 1, 1, 2, 3]),
        ignore_eos: random.once_in(2),
        sampling: Sampling {
            temperature: random.of(&[0.0, 1.0]),
            seed: random.below(3) as u64,
            ..Sampling::default()
        },
        ..Ask::default()
    };
    match random.below(12) {
        0 | 1 => ask.grammar = Some(Grammar::Lark(random.of(&["4", "9", "14"]).to_owned()).into()),
        2 => ask.stop = vec![random.of(&["e", "th", " a", "in"]).to_owned()],
        3 => spoil(&mut ask, random),
        _ => {}
    }
    let manner = match random.below(8) {
        0 => Manner::Slowly(1 + random.below(9) as u64),
        1 => Manner::UntilEvent(random.below(12)),
        2 | 3 => Manner::UntilStep(random.below(30) as u64),
        _ => Manner::Well,
    };
    Script {
        comes: random.below(15) as u64,
        turns: random.of(&[0, 0, 0, 1, 2]),
        ask,
        manner,
    }
}

/// What cannot be answered, from the beginning or from a certain moment on.
fn spoil(ask: &mut Ask, random: &mut Random) {
    match random.below(8) {
        0 => ask.ids.clear(),
        1 => ask.ids.push(u32::MAX),
        2 => ask.n = 0,
        3 => ask.stop = vec![String::new()],
        4 => ask.max_tokens = usize::MAX,
        5 => ask.max_tokens = 500,
        6 => ask.grammar = Some(Grammar::Lark("never".to_owned()).into()),
        _ => ask.grammar = Some(Grammar::Lark("20 3".to_owned()).into()),
    }
}

/// What somebody was told so far.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) events: usize,
    pub(crate) cached: Option<usize>,
    seen: usize,
    texts: BTreeMap<usize, String>,
    tokens: BTreeMap<usize, Vec<TokenInfo>>,
    ends: BTreeMap<usize, (FinishReason, Option<String>)>,
    usage: Option<Usage>,
    pub(crate) fault: Option<Fault>,
}

impl Heard {
    pub(crate) fn is_over(&self) -> bool {
        self.usage.is_some() || self.fault.is_some()
    }

    /// One more event, which has to be in order.
    pub(crate) fn hear(&mut self, event: Event, ask: &Ask) -> Result<()> {
        ensure!(!self.is_over(), "after the end: {event:?}");
        self.events += 1;
        let begun =
            self.cached.is_some() || matches!(event, Event::Started { .. } | Event::Failed(_));
        ensure!(begun, "before the beginning: {event:?}");
        match event {
            Event::Started { cached, .. } => {
                ensure!(self.cached.is_none(), "it begins twice");
                let all = ask.ids.len();
                ensure!(
                    cached < all && cached % 16 == 0,
                    "{cached} of {all} are cached"
                );
                (self.cached, self.seen) = (Some(cached), cached);
            }
            Event::Progress { seen } => {
                let rises = self.seen < seen && seen <= ask.ids.len();
                ensure!(
                    rises && self.tokens.is_empty(),
                    "{seen} were seen, {} before",
                    self.seen
                );
                self.seen = seen;
            }
            Event::Prompt(_) => bail!("nobody has asked for it"),
            Event::Delta {
                choice,
                text,
                tokens,
            } => self.hear_more(choice, &text, tokens, ask)?,
            Event::End {
                choice,
                reason,
                stop,
            } => {
                let before = self.ends.insert(choice, (reason, stop));
                ensure!(
                    choice < ask.n && before.is_none(),
                    "answer {choice} ends twice"
                );
            }
            Event::Done(usage) => {
                ensure!(
                    self.ends.len() == ask.n,
                    "{} of {} answers have ended",
                    self.ends.len(),
                    ask.n
                );
                self.usage = Some(usage);
            }
            Event::Failed(fault) => self.fault = Some(fault),
        }
        Ok(())
    }

    fn hear_more(
        &mut self,
        choice: usize,
        text: &str,
        tokens: Vec<TokenInfo>,
        ask: &Ask,
    ) -> Result<()> {
        let open = choice < ask.n && !self.ends.contains_key(&choice);
        ensure!(open, "of answer {choice}, which has ended");
        ensure!(!text.is_empty() || !tokens.is_empty(), "an empty piece");
        self.texts.entry(choice).or_default().push_str(text);
        self.tokens.entry(choice).or_default().extend(tokens);
        Ok(())
    }

    pub(crate) fn ids(&self, choice: usize) -> Vec<u32> {
        let tokens = self.tokens.get(&choice).into_iter().flatten();
        tokens.map(|token| token.id).collect()
    }

    /// All has come: is it what the model gives alone?
    pub(crate) fn check(
        &self,
        ask: &Ask,
        window: Option<usize>,
        tokenizer: &Tokenizer,
    ) -> Result<()> {
        let Some(usage) = self.usage else {
            return Ok(());
        };
        let mut all = 0;
        for (choice, (reason, stop)) in &self.ends {
            let (tokens, text) = (
                self.ids(*choice),
                self.texts.get(choice).cloned().unwrap_or_default(),
            );
            let (expected, why) = alone::answer(ask, *choice, window)?;
            all += tokens.len();
            if ask.stop.is_empty() {
                ensure!(
                    tokens == expected,
                    "answer {choice} is {tokens:?}, alone {expected:?}"
                );
                ensure!(
                    *reason == why && stop.is_none(),
                    "answer {choice} ends by {reason:?}, alone by {why:?}"
                );
                let whole = tokenizer.decode(&tokens, true)?;
                ensure!(text == whole, "{text:?} for {whole:?}");
                continue;
            }
            ensure!(
                expected.starts_with(&tokens),
                "answer {choice} is {tokens:?}, alone {expected:?}"
            );
            let whole = tokenizer.decode(&expected, true)?;
            let at = ask
                .stop
                .iter()
                .filter_map(|stop| Some((whole.find(stop)?, stop)))
                .min();
            let before = at.map_or(whole.as_str(), |(at, _)| &whole[..at]);
            ensure!(text == before, "{text:?} for {before:?}");
            ensure!(
                stop.as_ref() == at.map(|(_, stop)| stop),
                "stopped by {stop:?}, not {at:?}"
            );
        }
        ensure!(usage.prompt_tokens == ask.ids.len(), "{usage:?}");
        ensure!(Some(usage.cached_tokens) == self.cached, "{usage:?}");
        let counted = usage.completion_tokens;
        ensure!(
            counted == all || !ask.stop.is_empty() && counted >= all,
            "{all} tokens are {counted}"
        );
        Ok(())
    }

    /// The conversation so far, and something more of the client.
    pub(crate) fn next_turn(&self, ask: &Ask) -> Vec<u32> {
        let mut ids = ask.ids.clone();
        ids.extend(self.ids(0));
        ids.extend([11, 12, 13]);
        ids
    }
}
