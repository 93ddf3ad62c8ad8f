//! One answer on its way to the terminal.

use anyhow::{Result, bail};
use console::interrupt::Interrupt;
use console::metrics::{FinishReason, Timeline};
use console::report::TextStream;

use crate::ask::{Ask, Event, GuessUsage, Missed, Usage};
use crate::handle::Answer;
use crate::replay::{Facts, Record};

/// What an answer has cost, and how it ended.
#[derive(Debug)]
pub(super) struct Turn {
    text: String,
    tokens: Vec<u32>,
    timeline: Timeline,
    usage: Option<Usage>,
    cached: usize,
    missed: Option<Missed>,
    /// None: it was stopped.
    reason: Option<FinishReason>,
}

/// Shows an answer as it comes, until it ends or Ctrl-C is pressed. `keep` is given all of it so far.
///
/// # Errors
/// If the engine fails at it, or if it cannot be shown or kept.
pub(super) fn listen(
    mut answer: Answer,
    interrupt: &Interrupt,
    mut keep: impl FnMut(&str) -> Result<()>,
) -> Result<Turn> {
    let mut out = TextStream::stdout();
    let mut turn = Turn {
        text: String::new(),
        tokens: Vec::new(),
        timeline: Timeline::start(),
        usage: None,
        cached: 0,
        missed: None,
        reason: None,
    };
    // An old Ctrl-C was for something else.
    interrupt.take();
    while let Some(event) = answer.blocking_next() {
        if let Event::Failed(fault) = event {
            out.finish()?;
            bail!("{fault}");
        }
        if let Some(more) = turn.hear(event) {
            out.push(&more)?;
            keep(&turn.text)?;
        }
        if interrupt.take() {
            break; // dropping the answer ends it within a step
        }
    }
    out.finish()?;
    Ok(turn)
}

impl Turn {
    /// Takes note of an event. Returns text, if it brings some.
    fn hear(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Started { cached, missed } => {
                (self.cached, self.missed) = (cached, missed);
                None
            }
            Event::Delta { text, tokens, .. } => {
                tokens.iter().for_each(|_| self.timeline.mark());
                self.text.push_str(&text);
                self.tokens.extend(tokens.iter().map(|token| token.id));
                Some(text)
            }
            Event::End { reason, .. } => {
                self.reason = Some(reason);
                None
            }
            Event::Done(usage) => {
                self.usage = Some(usage);
                None
            }
            Event::Progress { .. } | Event::Prompt(_) | Event::Failed(_) => None,
        }
    }

    /// As `serve --record` would write it.
    pub(super) fn record(&self, ask: &Ask, engine: Facts) -> Record {
        Record::of(ask, engine, self.cached, &self.text, &self.tokens)
    }

    /// Why there is no more of it, if the model did not end it.
    pub(super) fn ended_early(&self) -> Option<&'static str> {
        match self.reason {
            None => Some("[stopped]"),
            Some(FinishReason::Length) => Some("[--max-tokens, or the end of the context]"),
            Some(_) => None,
        }
    }

    /// For people.
    pub(super) fn stats(&self) -> String {
        let ms = |time: Option<std::time::Duration>| {
            time.map_or("-".to_owned(), |time| {
                format!("{:.1} ms", time.as_secs_f64() * 1e3)
            })
        };
        let prompt = self.usage.map(|usage| usage.prompt_tokens.to_string());
        let mut lines = format!(
            " prompt            {} tokens, {} of them not run again\n \
             answer            {} tokens\n \
             first token after {} (TTFT)\n \
             each later one    {} (TPOT)",
            prompt.as_deref().unwrap_or("some"),
            self.cached,
            self.timeline.len(),
            ms(self.timeline.ttft()),
            ms(self.timeline.tpot()),
        );
        if let Some(guesses) = self.usage.map(|usage| usage.guesses) {
            lines.push_str(&told(guesses));
        }
        if let Some(missed) = &self.missed {
            lines.push_str(&format!(
                "\n not the same      from token {} on: {:?} now, {:?} before",
                missed.at, missed.token, missed.other
            ));
        }
        lines
    }
}

/// What guesses have brought, if there were any.
fn told(guesses: GuessUsage) -> String {
    let GuessUsage {
        guessed,
        right,
        gain,
        stopped,
    } = guesses;
    if guessed == 0 && stopped == 0 {
        return String::new();
    }
    let mut line = format!("\n guessed           {guessed} tokens, {right} of them right");
    if gain > 0 {
        let gain = f64::from(gain) / 100.0;
        line.push_str(&format!(": these steps were {gain:.2} times as fast"));
    }
    if stopped > 0 {
        line.push_str(&format!(
            "\n                   {stopped} pauses, where guesses lost time"
        ));
    }
    line
}
