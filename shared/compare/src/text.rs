//! Text of programs and models, made fit for a terminal.

use std::io::Write as _;

use anyhow::{Context, Result};
use unicode_truncate::UnicodeTruncateStr as _;

/// Prints to stdout, with colour only where that is shown.
///
/// # Errors
/// If it cannot be written: a reader may have gone, and `print!` would panic.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("printing")
}

/// Text that cannot move the cursor, change the terminal or turn the direction of writing: such
/// characters become U+FFFD, tabs become blanks. Line breaks stay.
pub(crate) fn harmless(text: &str) -> String {
    let replace = |c: char| match c {
        '\n' => '\n',
        '\t' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(replace).collect()
}

/// [`harmless`] text on one line.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    harmless(&words.join(" "))
}

/// At most `width` columns, with an ellipsis where something was cut off.
pub(crate) fn clip(text: &str, width: usize) -> String {
    let (kept, _) = text.unicode_truncate(width);
    if kept.len() == text.len() {
        return text.to_owned();
    }
    let (kept, _) = text.unicode_truncate(width.saturating_sub(1));
    let ellipsis = if width > 0 { "…" } else { "" };
    format!("{}{ellipsis}", kept.trim_end())
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
