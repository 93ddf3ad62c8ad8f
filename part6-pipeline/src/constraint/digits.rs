//! Numbers that end: JSON allows as many digits as a model likes to write, and a small one writes them until its
//! tokens are used up.

use toktrie::{SimpleVob, TokTrie};

/// Digits in a row: such an integer fits into 64 bits.
const MOST: usize = 18;

/// Digits of an exponent: 10⁹⁹ with the digits above is far below the largest f64.
const MOST_OF_EXPONENT: usize = 2;

/// Which tokens begin with more than so many digits, for 0 and up.
#[derive(Debug)]
pub(super) struct BeginWithDigits(Vec<SimpleVob>);

impl BeginWithDigits {
    pub(super) fn of(trie: &TokTrie) -> Self {
        let mut more_than: Vec<SimpleVob> = Vec::new();
        for id in 0..trie.vocab_size() as u32 {
            let digits = trie.token(id).iter().take_while(|b| b.is_ascii_digit());
            let digits = digits.count().min(MOST);
            while more_than.len() < digits {
                more_than.push(trie.alloc_token_set());
            }
            for set in &mut more_than[..digits] {
                set.allow_token(id);
            }
        }
        Self(more_than)
    }
}

/// Where in a JSON text the answer is, as far as its numbers go.
#[derive(Debug, Clone, Default)]
pub(super) struct Digits {
    in_text: bool,
    escaped: bool,
    exponent: bool,
    /// Digits at the end of what there is, outside of texts.
    run: usize,
    last: Option<u8>,
}

impl Digits {
    /// More of the answer.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.push_byte(byte);
            self.last = Some(byte);
        }
    }

    fn push_byte(&mut self, byte: u8) {
        if self.in_text {
            let escaped = std::mem::take(&mut self.escaped);
            self.escaped = byte == b'\\' && !escaped;
            self.in_text = byte != b'"' || escaped;
            return;
        }
        self.run = if byte.is_ascii_digit() {
            self.run + 1
        } else {
            0
        };
        self.exponent = match byte {
            b'e' | b'E' => self.last.is_some_and(|last| last.is_ascii_digit()),
            b'+' | b'-' | b'0'..=b'9' => self.exponent,
            _ => false,
        };
        self.in_text = byte == b'"';
    }

    /// Whether the answer, complete as it is, could go on with more than white space: in a longer number, or behind
    /// a mark, as a call ends in, with another value.
    pub(super) fn may_go_on(&self) -> bool {
        !self.in_text && (self.run > 0 || self.last == Some(b'>'))
    }

    /// Takes away tokens that would make a number too long, unless nothing else is left: a schema may want such a one.
    pub(super) fn narrow(&self, mask: &mut SimpleVob, tokens: &BeginWithDigits) {
        let most = if self.exponent {
            MOST_OF_EXPONENT
        } else {
            MOST
        };
        let after_mantissa = self.exponent && self.run == 0;
        if self.in_text || !(self.run > 0 || after_mantissa) {
            return;
        }
        if let Some(too_long) = tokens.0.get(most.saturating_sub(self.run)) {
            let mut narrower = mask.clone();
            narrower.sub(too_long);
            if !narrower.is_zero() {
                *mask = narrower;
            }
        }
    }
}
