//! Step 1: text → ids. The model never sees a letter: it sees row numbers of a table.
//!
//! A tokenizer cuts text into pieces that it has a number for. The pieces were found before
//! training by byte pair encoding (Sennrich et al. 2016, arXiv 1508.07909): begin with single
//! bytes, and again and again make one piece of the two that stand side by side most often. So
//! frequent words are one piece, rare ones several, and a piece usually begins with the blank
//! before the word. Bytes, not letters: any text can be cut, and one emoji may be four pieces.

use anyhow::{Result, ensure};
use console::numbers::count;
use shared::tokenizer::Tokenizer;
use unicode_width::UnicodeWidthChar;

use crate::trace::{Named, Token};

/// Most tokens that the pictures have room for: one column of 80 for each, beside the labels.
pub const PICTURE_LIMIT: usize = 64;

/// The ids of a prompt, with the chat template around it unless `raw`.
///
/// # Errors
/// If the prompt is empty, or longer than the pictures are wide.
pub fn encode(tokenizer: &Tokenizer, text: &str, raw: bool) -> Result<Vec<u32>> {
    let ids = tokenizer.encode_prompt(text, raw)?;
    ensure!(
        ids.len() <= PICTURE_LIMIT,
        "the prompt has {} tokens, but the pictures have room for {PICTURE_LIMIT}: give a shorter \
         one (part 2 answers long ones)",
        count(ids.len() as u64)
    );
    Ok(ids)
}

/// The token table.
///
/// # Errors
/// For an id that neither the tokenizer nor the model has.
pub fn tokens(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Vec<Token>> {
    let token = |id: &u32| {
        let piece = tokenizer.piece(*id)?;
        Ok(Token {
            id: *id,
            piece: name(tokenizer, *id)?,
            special: piece.as_ref().is_some_and(|piece| piece.special),
            bytes: piece
                .as_ref()
                .map_or_else(Vec::new, |piece| piece.bytes.clone()),
            spelling: piece.map_or_else(String::new, |piece| piece.spelling),
        })
    };
    ids.iter().map(token).collect()
}

/// A token for people, see [`Token::piece`].
///
/// # Errors
/// For an id that neither the tokenizer nor the model has.
pub fn name(tokenizer: &Tokenizer, id: u32) -> Result<String> {
    let Some(piece) = tokenizer.piece(id)? else {
        return Ok(format!("[row {id}]")); // pads the table, no text gives it
    };
    Ok(if piece.bytes.is_empty() {
        piece.spelling
    } else {
        printable(&piece.bytes)
    })
}

/// [`name`] for several ids.
pub fn named(tokenizer: &Tokenizer, ids: impl IntoIterator<Item = u32>) -> Result<Vec<Named>> {
    let named = |id| {
        Ok(Named {
            id,
            piece: name(tokenizer, id)?,
        })
    };
    ids.into_iter().map(named).collect()
}

/// Bytes as one visible word: no blank, nothing that moves the cursor or turns the direction of
/// writing, and no mark that would sit on the letter before it.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_visible(&mut text, c);
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    text
}

fn push_visible(text: &mut String, c: char) {
    match c {
        ' ' => text.push('␣'),
        '\n' => text.push('↵'),
        '\t' => text.push('⇥'),
        c if c.is_ascii_control() => text.push_str(&format!("\\x{:02X}", u32::from(c))),
        c if c.is_control() || c.is_whitespace() || is_invisible(c) => {
            text.push_str(&format!("\\u{{{:X}}}", u32::from(c)));
        }
        // A vowel sign of Hindi, an accent: alone it would be drawn onto its neighbour.
        c if text.is_empty() && c.width() == Some(0) => text.extend(['◌', c]),
        c => text.push(c),
    }
}

/// Format characters: joiners, marks and overrides of the direction of writing, the byte order
/// mark.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_made_visible() {
        assert_eq!(printable(b" black"), "␣black");
        assert_eq!(printable(b"\n\t\x1b[2J\x7f"), "↵⇥\\x1B[2J\\x7F");
        assert_eq!(
            printable("a\u{202E}b\u{200D}\u{A0}".as_bytes()),
            "a\\u{202E}b\\u{200D}\\u{A0}"
        );
        assert_eq!(printable("é字🦀".as_bytes()), "é字🦀");
    }

    #[test]
    fn half_a_character_is_its_bytes() {
        assert_eq!(printable(&"🦀".as_bytes()[..3]), "\\xF0\\x9F\\xA6");
        assert_eq!(printable(&[b'a', 0xA6]), "a\\xA6");
    }

    #[test]
    fn a_sign_that_needs_a_letter_gets_a_circle() {
        assert_eq!(printable("\u{941}".as_bytes()), "◌\u{941}");
        assert_eq!(printable("म\u{941}".as_bytes()), "म\u{941}");
    }
}
