//! The text of one answer: whole characters, as soon as it is clear that they are no part of a stop text.
//!
//! A stop text may begin within one token and end within another one. So the longest end of the text that could
//! still become one is held back, and with it the tokens that it is made of.

use std::collections::VecDeque;

use anyhow::Result;
use shared::tokenizer::{Detokenizer, Tokenizer};

use crate::ask::TokenInfo;

/// Makes the text of one answer out of its tokens.
#[derive(Debug)]
pub struct Text<'a> {
    detokenizer: Detokenizer<'a>,
    stops: Vec<String>,
    /// Text that may be the beginning of a stop text.
    held: String,
    /// Bytes of text that were let go.
    gone: usize,
    /// Tokens that were not let go.
    tokens: VecDeque<Token>,
    /// How many of those have given all of their bytes.
    whole: usize,
}

/// A token, and which bytes of the text are its own.
#[derive(Debug)]
struct Token {
    info: TokenInfo,
    start: usize,
    end: usize,
}

/// What became certain.
#[derive(Debug, Default, PartialEq)]
pub struct Piece {
    /// More of the text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<TokenInfo>,
    /// The stop text that followed; the text ends here.
    pub stop: Option<String>,
}

impl<'a> Text<'a> {
    /// No text yet. None of `stops` is empty.
    pub fn new(tokenizer: &'a Tokenizer, stops: &[String]) -> Self {
        Self {
            detokenizer: tokenizer.stream(),
            stops: stops.to_vec(),
            held: String::new(),
            gone: 0,
            tokens: VecDeque::new(),
            whole: 0,
        }
    }

    /// The next token of the answer.
    ///
    /// # Errors
    /// If it is not of this vocabulary.
    pub fn push(&mut self, info: TokenInfo) -> Result<Piece> {
        let piece = self.detokenizer.push(info.id)?;
        let start = self.end();
        self.held.extend(piece);
        let end = self.end();
        self.tokens.push_back(Token { info, start, end });
        if self.detokenizer.is_whole() {
            self.close_tokens();
        }
        Ok(self.settle())
    }

    /// The answer has ended: nothing that is held back will become a stop text any more.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(&mut self) -> Result<Piece> {
        self.held.extend(self.detokenizer.finish()?);
        self.close_tokens();
        let mut piece = self.settle();
        if piece.stop.is_none() {
            piece.text += &self.release(self.held.len());
            piece.tokens.extend(self.released());
        }
        Ok(piece)
    }

    /// Where the text ends so far.
    fn end(&self) -> usize {
        self.gone + self.held.len()
    }

    /// A character has been completed, and so have all tokens that it is made of.
    fn close_tokens(&mut self) {
        let end = self.end();
        for token in self.tokens.range_mut(self.whole..) {
            token.end = end;
        }
        self.whole = self.tokens.len();
    }

    /// Lets go of what is certain.
    fn settle(&mut self) -> Piece {
        let found = self.stops.iter().filter_map(|stop| {
            let at = self.held.find(stop)?;
            Some((at, stop.clone()))
        });
        if let Some((at, stop)) = found.min_by_key(|(at, _)| *at) {
            let text = self.release(at);
            let kept = self.tokens.iter();
            let kept = kept.take_while(|token| token.start < self.gone || token.end <= self.gone);
            let kept = kept.count();
            let tokens = self.tokens.drain(..kept).map(|token| token.info).collect();
            return Piece {
                text,
                tokens,
                stop: Some(stop),
            };
        }
        let text = self.release(self.held.len() - self.suspicious());
        Piece {
            text,
            tokens: self.released(),
            stop: None,
        }
    }

    /// Bytes at the end that a stop text may begin with.
    fn suspicious(&self) -> usize {
        let longest = self.stops.iter().map(|stop| stop.len() - 1).max();
        let from = self.held.len() - longest.unwrap_or(0).min(self.held.len());
        let starts = self.held.char_indices().map(|(at, _)| at);
        let may_begin = |at: usize| {
            let rest = &self.held[at..];
            self.stops.iter().any(|stop| stop.starts_with(rest))
        };
        let first = starts.skip_while(|at| *at < from).find(|at| may_begin(*at));
        first.map_or(0, |at| self.held.len() - at)
    }

    fn release(&mut self, bytes: usize) -> String {
        self.gone += bytes;
        self.held.drain(..bytes).collect()
    }

    /// Tokens whose text was let go to its end.
    fn released(&mut self) -> Vec<TokenInfo> {
        let whole = self.tokens.range(..self.whole);
        let n = whole.take_while(|token| token.end <= self.gone).count();
        self.whole -= n;
        self.tokens.drain(..n).map(|token| token.info).collect()
    }
}
