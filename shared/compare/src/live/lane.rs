//! One part of the race: what it said until now, and what that tells.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::answer::Answers;
use crate::parts::Contestant;
use crate::process::Output;
use crate::text::{Decoder, harmless, one_line};

/// Where a part's report begins after the text: an empty line, then the card. A model may write
/// that, too; the text is then cut until the report has come, which has all of it.
const CARD: &str = "\n\n model  ";

/// One part of the race.
#[derive(Debug)]
pub struct Lane {
    contestant: Contestant,
    max_tokens: u32,
    started: Instant,
    /// When text came for the first time, and for the last.
    first: Option<Instant>,
    last: Option<Instant>,
    /// Times that text came: about a token each.
    pieces: u64,
    /// Milliseconds between them.
    gaps: Vec<u64>,
    /// How many of the last pieces were line ends: those before the report are no tokens.
    line_ends: usize,
    decoder: Decoder,
    /// All of stdout as text, and where the report begins in it.
    said: String,
    card: Option<usize>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    end: Option<End>,
}

/// How a part ended.
#[derive(Debug)]
enum End {
    /// With an answer, as the `place`th; its numbers, and its text as the part itself has it.
    Finished {
        place: usize,
        answers: Box<Answers>,
        text: String,
    },
    /// By itself, without one.
    Failed(String),
    /// By us.
    Stopped,
}

impl Lane {
    /// A part that starts now.
    pub fn new(contestant: Contestant, max_tokens: u32, now: Instant) -> Self {
        Self {
            contestant,
            max_tokens,
            started: now,
            first: None,
            last: None,
            pieces: 0,
            gaps: Vec::new(),
            line_ends: 0,
            decoder: Decoder::default(),
            said: String::new(),
            card: None,
            stdout: Vec::new(),
            stderr: Vec::new(),
            end: None,
        }
    }

    /// Something came on stdout.
    pub fn out(&mut self, bytes: &[u8], now: Instant) {
        self.stdout.extend_from_slice(bytes);
        if self.card.is_some() {
            return;
        }
        // The mark may have begun in the piece before.
        let from = self
            .said
            .floor_char_boundary(self.said.len().saturating_sub(CARD.len()));
        self.said.push_str(&harmless(&self.decoder.push(bytes)));
        self.card = self.said[from..].find(CARD).map(|at| from + at);
        if self.card.is_none_or(|card| card > from + CARD.len()) {
            self.pieces += 1;
            self.first.get_or_insert(now);
            let before = self.last.replace(now);
            let gap = before.map(|before| now.duration_since(before).as_millis() as u64);
            self.gaps.extend(gap);
            self.line_ends = match bytes {
                b"\n" => self.line_ends + 1,
                _ => 0,
            };
        } else {
            self.pieces -= self.line_ends as u64;
            let text = self.gaps.len().saturating_sub(self.line_ends);
            self.gaps.truncate(text);
        }
    }

    /// Something came on stderr.
    pub fn err(&mut self, bytes: &[u8]) {
        self.stderr.extend_from_slice(bytes);
    }

    /// The program has ended; with an answer it is the `place`th that did.
    pub fn ended(&mut self, status: ExitStatus, place: usize) {
        let output = Output {
            status,
            stdout: std::mem::take(&mut self.stdout),
            stderr: self.stderr.clone(),
        };
        self.end = Some(match Answers::of(&self.contestant, &output) {
            Ok(answers) => End::Finished {
                place,
                text: harmless(&answers.run().text),
                answers: Box::new(answers),
            },
            Err(error) => End::Failed(one_line(&format!("{error:#}"))),
        });
    }

    /// Nobody waits for the end any more.
    pub fn stop(&mut self) {
        self.end.get_or_insert(End::Stopped);
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// Whether it was ended before its answer was.
    pub fn is_stopped(&self) -> bool {
        matches!(self.end, Some(End::Stopped))
    }

    /// 1 for the first that finished, and so on.
    pub fn place(&self) -> Option<usize> {
        match &self.end {
            Some(End::Finished { place, .. }) => Some(*place),
            _ => None,
        }
    }

    /// Its numbers, when it has finished.
    pub fn answers(&self) -> Option<&Answers> {
        match &self.end {
            Some(End::Finished { answers, .. }) => Some(answers),
            _ => None,
        }
    }

    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<&str> {
        match &self.end {
            Some(End::Failed(reason)) => Some(reason),
            _ => None,
        }
    }

    /// Who runs in it.
    pub fn contestant(&self) -> &Contestant {
        &self.contestant
    }

    /// `the KV cache`, or the flags of a variant that does not stand for its part.
    pub fn adds(&self) -> String {
        let Contestant {
            part, flags, first, ..
        } = &self.contestant;
        one_line(&if *first {
            part.adds.clone()
        } else {
            flags.join(" ")
        })
    }

    /// `Part 3`, `Part 5, 8 rows`
    pub fn name(&self) -> String {
        let number = self.contestant.part.number;
        match self.rows() {
            1 => format!("Part {number}"),
            rows => format!("Part {number}, {rows} rows"),
        }
    }

    /// `Part 3: the KV cache`
    pub fn title(&self) -> String {
        format!("{}: {}", self.name(), self.adds())
    }

    /// The answer until now.
    pub fn text(&self) -> &str {
        match &self.end {
            Some(End::Finished { text, .. }) => text,
            _ => self.said[..self.card.unwrap_or(self.said.len())].trim_end(),
        }
    }

    /// What it does before there is text: the last line of stderr.
    pub fn status(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.map_or_else(|| "starting".to_owned(), one_line)
    }

    /// Tokens until now; only about so many before the report has come.
    pub fn tokens(&self) -> u64 {
        self.answers()
            .map_or(self.pieces, |answers| answers.run().tokens.len() as u64)
    }

    /// Tokens to expect at most.
    pub fn max_tokens(&self) -> u32 {
        self.max_tokens
    }

    /// Tokens per second after the first one. Before the report has come it is about that: what was
    /// seen here, in pieces of text.
    pub fn rate(&self) -> Option<f64> {
        if let Some(answers) = self.answers() {
            return answers.run().decode_tps;
        }
        let time = self.last?.duration_since(self.first?).as_secs_f64();
        (self.pieces > 1 && time > 0.0).then(|| (self.pieces - 1) as f64 / time)
    }

    /// Answers at the same time; the text and the tokens are those of the first one.
    pub fn rows(&self) -> u32 {
        self.contestant.rows()
    }

    /// [`rate`](Self::rate) of all rows together.
    pub fn rate_of_all(&self) -> Option<f64> {
        Some(f64::from(self.rows()) * self.rate()?)
    }

    /// Milliseconds between one piece of text and the next, about what a token costs.
    pub fn gaps(&self) -> &[u64] {
        &self.gaps
    }

    /// From the start of the process to its last text, or until `now` while it goes on.
    pub fn elapsed(&self, now: Instant) -> Duration {
        let end = if self.is_over() {
            self.last.unwrap_or(now)
        } else {
            now
        };
        end.duration_since(self.started)
    }

    /// From the start of the process to its first text.
    pub fn first_text(&self) -> Option<Duration> {
        Some(self.first?.duration_since(self.started))
    }
}

#[cfg(test)]
mod tests;
