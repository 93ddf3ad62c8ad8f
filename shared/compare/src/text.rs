//! Text of programs and models that stands beside other text.

use console::text;

/// [`text::harmless`] text that cannot turn the direction of writing either, which would carry over
/// into its neighbours; tabs become blanks.
pub(crate) fn harmless(text: &str) -> String {
    let replace = |c: char| match c {
        '\t' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    };
    text::harmless(text).chars().map(replace).collect()
}

/// [`harmless`] text on one line.
pub(crate) fn one_line(text: &str) -> String {
    harmless(&text::one_line(text))
}

/// Bytes as they come → whole characters: the first bytes of one wait for the rest.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// What can be read by now; bytes that are no UTF-8 become U+FFFD.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let whole = match self.pending.utf8_chunks().last() {
            Some(last) if begins_character(last.invalid()) => {
                self.pending.len() - last.invalid().len()
            }
            _ => self.pending.len(),
        };
        let rest = self.pending.split_off(whole);
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending = rest;
        text
    }
}

/// Whether more bytes could make a character of these.
fn begins_character(bytes: &[u8]) -> bool {
    let error = std::str::from_utf8(bytes).err();
    error.is_some_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests;
