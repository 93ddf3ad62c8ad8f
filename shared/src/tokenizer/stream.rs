//! Ids → text, one id at a time, in whole characters.
//!
//! A token is a run of *bytes*, not of characters: an emoji may be spread over four of them. So the
//! stream works on bytes and lets go of them when they make a character. What comes out in pieces
//! is what decoding everything at once gives ([`Tokenizer::decode`] is this very stream), and a
//! token costs the same at position 10 and at position 10,000.
//!
//! `tokenizers` has a `DecodeStream`, which decodes a window of ids again at each step. We do not
//! use it: it keeps the last bytes for itself when the text ends within a character, its window
//! grows as long as the text so far ends in an invalid byte, and it fails when a byte that fits
//! nothing follows a character made of byte tokens.

use std::collections::HashMap;
use std::sync::LazyLock;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::Tokenizer;

/// How a tokenizer spells the bytes of a token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Spelling {
    /// GPT-2's alphabet: one printable character stands for one byte (`Ġ` is the space).
    ByteLevel,
    /// SentencePiece: plain text with `▁` for the space, and `<0x0A>` for a single byte.
    Pieces {
        /// Literal replacements, in order.
        replace: Vec<(String, String)>,
        /// Are tokens such as `<0x0A>` bytes?
        byte_fallback: bool,
        /// Spaces to drop at the start of the text: the encoder put one there.
        strip_start: usize,
    },
}

impl Spelling {
    /// What the steps before a tokenizer's model say, and if they are silent, its decoder.
    ///
    /// A vocabulary is spelled in GPT-2's alphabet if a step turns text into it before the model sees
    /// it. The decoder cannot know better: some conversions gave such a vocabulary a decoder for
    /// SentencePiece, and the other way round. (`tokenizers` and mlx-lm believe the decoder and print
    /// `Ġ` there.)
    ///
    /// # Errors
    /// For a decoder that no model of this series has.
    pub(crate) fn of(before: &[Value], decoder: &Value) -> Result<Self> {
        let step = |kind| before.iter().find_map(|steps| find_step(steps, kind));
        if step("ByteLevel").is_some() {
            return Ok(Self::ByteLevel);
        }
        match step("Metaspace") {
            Some(metaspace) if find_step(decoder, "ByteLevel").is_some() => {
                Self::from_decoder(metaspace)
            }
            _ => Self::from_decoder(decoder),
        }
    }

    /// Reads the `decoder` of a `tokenizer.json`.
    ///
    /// # Errors
    /// For a decoder that no model of this series has.
    pub(crate) fn from_decoder(decoder: &Value) -> Result<Self> {
        let steps = match decoder["type"].as_str() {
            Some("ByteLevel") => return Ok(Self::ByteLevel),
            Some("Sequence") => decoder["decoders"].as_array().cloned().unwrap_or_default(),
            _ => vec![decoder.clone()],
        };
        if steps.iter().any(|step| step["type"] == "ByteLevel") {
            return Ok(Self::ByteLevel);
        }
        let mut pieces = Pieces {
            replace: Vec::new(),
            growth: 1,
            byte_fallback: false,
            strip_start: 0,
        };
        for step in &steps {
            pieces.read_step(step)?;
        }
        Ok(Self::Pieces {
            replace: pieces.replace,
            byte_fallback: pieces.byte_fallback,
            strip_start: pieces.strip_start,
        })
    }

    /// The bytes that a token stands for.
    pub(crate) fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            // An added token may hold characters outside the alphabet; it then stands for itself.
            Self::ByteLevel => token
                .chars()
                .map(|c| BYTE_OF_CHAR.get(&c).copied())
                .collect::<Option<Vec<u8>>>()
                .unwrap_or_else(|| token.as_bytes().to_vec()),
            Self::Pieces {
                replace,
                byte_fallback,
                ..
            } => {
                if let Some(byte) = byte_token(token).filter(|_| *byte_fallback) {
                    return vec![byte];
                }
                let mut text = token.to_owned();
                for (from, to) in replace {
                    text = text.replace(from, to);
                }
                text.into_bytes()
            }
        }
    }

    /// The bytes of an added token, which is matched in the text as it is written and so printed as it
    /// is written: `č` is no byte there.
    ///
    /// SentencePiece vocabularies have two exceptions, since their model makes these tokens, too: `▁▁`
    /// stands for spaces, `<0x0A>` for a byte.
    pub(crate) fn added(&self, token: &str) -> Vec<u8> {
        match self {
            Self::Pieces { .. } if token.chars().all(|c| c == '▁') => self.bytes(token),
            Self::Pieces { .. } if byte_token(token).is_some() => self.bytes(token),
            _ => token.as_bytes().to_vec(),
        }
    }

    fn strip_start(&self) -> usize {
        match self {
            Self::ByteLevel => 0,
            Self::Pieces { strip_start, .. } => *strip_start,
        }
    }
}

/// How much longer a decoder may make a token. The models of this series make it shorter.
const MOST_GROWTH: usize = 16;
/// The step of this kind in a normalizer, pre-tokenizer or decoder, which may be a sequence of them.
fn find_step<'a>(steps: &'a Value, kind: &str) -> Option<&'a Value> {
    if steps["type"] == kind {
        return Some(steps);
    }
    let lists = ["normalizers", "pretokenizers", "decoders"];
    let inner = lists.iter().filter_map(|list| steps[list].as_array());
    inner.flatten().find_map(|step| find_step(step, kind))
}

/// [`Spelling::Pieces`] while its steps are read.
struct Pieces {
    replace: Vec<(String, String)>,
    /// How much longer these can make a text.
    growth: usize,
    byte_fallback: bool,
    strip_start: usize,
}

impl Pieces {
    fn read_step(&mut self, step: &Value) -> Result<()> {
        match step["type"].as_str() {
            Some("ByteFallback") => self.byte_fallback = true,
            Some("Fuse") => {}
            Some("Replace") => self.read_replace(step)?,
            Some("Strip") => {
                let stop = step["stop"].as_u64().unwrap_or(0);
                ensure!(
                    step["content"] == " " && stop == 0,
                    "its decoder strips more than leading spaces"
                );
                self.strip_start = step["start"].as_u64().unwrap_or(0) as usize;
            }
            Some("Metaspace") => {
                let mark = step["replacement"].as_str().unwrap_or("▁").to_owned();
                self.replace.push((mark, " ".to_owned()));
                self.strip_start = usize::from(step["prepend_scheme"] != "never");
            }
            Some(kind) => bail!(
                "its decoder {kind} is not supported (supported: ByteLevel, Metaspace, and \
                 sequences of Replace, ByteFallback, Fuse, Strip)"
            ),
            None => bail!("it has no decoder, so ids cannot be turned into text"),
        }
        Ok(())
    }

    fn read_replace(&mut self, step: &Value) -> Result<()> {
        let (Some(from), Some(to)) = (step["pattern"]["String"].as_str(), step["content"].as_str())
        else {
            bail!("its decoder replaces by a regular expression, which is not supported");
        };
        // Forty times "a" by "aa" is 10^12 letters.
        let growth = to.len().div_ceil(from.len().max(1)).max(1);
        self.growth = self.growth.saturating_mul(growth);
        ensure!(
            !from.is_empty() && self.growth <= MOST_GROWTH,
            "its decoder makes texts without end out of tokens"
        );
        self.replace.push((from.to_owned(), to.to_owned()));
        Ok(())
    }
}

/// `<0x0A>` → 10.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let two_digits = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    two_digits
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others are moved up to
/// U+0100.
static BYTE_OF_CHAR: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let mut moved = '\u{100}'..;
    (0..=u8::MAX)
        .filter_map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => Some((char::from(byte), byte)),
            _ => moved.next().map(|c| (c, byte)),
        })
        .collect()
});

/// Turns the ids of one request into text as they come. One per request: it remembers the bytes of
/// a character that is not complete yet.
///
/// "Whole character" means a whole code point: a flag or a family emoji may still arrive in parts
/// that a terminal draws one by one.
#[derive(Debug)]
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Bytes of a character that is not complete: at most 3 between two calls.
    pending: Vec<u8>,
    /// Leading spaces that are still to be dropped.
    strip: usize,
}

impl<'a> Detokenizer<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        let strip = tokenizer.spelling().strip_start();
        Self {
            tokenizer,
            skip_special,
            pending: Vec::new(),
            strip,
        }
    }

    /// The text that `id` completes, if any. Special tokens give none.
    ///
    /// # Errors
    /// For an id that neither the tokenizer nor the model has.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        let Some(token) = self.tokenizer.token(id)? else {
            return Ok(None);
        };
        if self.skip_special && self.tokenizer.is_special(&token) {
            return Ok(None);
        }
        let mut bytes = self.tokenizer.bytes(id, &token);
        self.strip_leading_spaces(&mut bytes);
        self.pending.append(&mut bytes);
        Ok(take_characters(&mut self.pending))
    }

    /// Whether all that was pushed has come out as text.
    pub fn is_whole(&self) -> bool {
        self.pending.is_empty()
    }

    /// The rest: bytes that no further token will complete become U+FFFD, as in any lossy decoding.
    ///
    /// # Errors
    /// None today; it is a `Result` so that it reads like [`push`](Self::push) where both are used.
    pub fn finish(&mut self) -> Result<Option<String>> {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        Ok((!rest.is_empty()).then_some(rest))
    }

    fn strip_leading_spaces(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let spaces = bytes
            .iter()
            .take(self.strip)
            .take_while(|byte| **byte == b' ')
            .count();
        bytes.drain(..spaces);
        self.strip = if bytes.is_empty() {
            self.strip - spaces
        } else {
            0
        };
    }
}

/// Takes the text out of `bytes` and leaves the start of a character that may still be completed.
///
/// Bytes that can never become a character give one U+FFFD for each, by the rule of
/// `String::from_utf8_lossy`, so cutting the stream elsewhere cannot change the text.
fn take_characters(bytes: &mut Vec<u8>) -> Option<String> {
    let mut text = String::new();
    let mut end = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        end += chunk.valid().len();
        let invalid = chunk.invalid();
        let last = end + invalid.len() == bytes.len();
        if invalid.is_empty() || (last && is_unfinished(invalid)) {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        end += invalid.len();
    }
    bytes.drain(..end);
    (!text.is_empty()).then_some(text)
}

/// Could more bytes make this a character?
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_pieces(bytes: &[u8], sizes: &[usize]) -> String {
        let (mut rest, mut pending, mut text) = (bytes, Vec::new(), String::new());
        for size in sizes.iter().cycle() {
            let (now, later) = rest.split_at((*size).clamp(1, rest.len().max(1)).min(rest.len()));
            pending.extend_from_slice(now);
            text.extend(take_characters(&mut pending));
            assert!(
                pending.len() <= 3,
                "more held back than the start of one character"
            );
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        text + &String::from_utf8_lossy(&pending)
    }

    proptest! {
        #[test]
        fn any_bytes_cut_anywhere_decode_as_if_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            sizes in prop::collection::vec(1..5usize, 1..8),
        ) {
            prop_assert_eq!(in_pieces(&bytes, &sizes), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn any_text_cut_anywhere_comes_out_unchanged(
            text in any::<String>(),
            sizes in prop::collection::vec(1..5usize, 1..8),
        ) {
            prop_assert_eq!(in_pieces(text.as_bytes(), &sizes), text);
        }
    }

    #[test]
    fn the_alphabet_has_a_character_for_each_byte_as_the_library_has() {
        use tokenizers::pre_tokenizers::byte_level::ByteLevel;
        let ours: std::collections::HashSet<char> = BYTE_OF_CHAR.keys().copied().collect();
        assert_eq!(ours, ByteLevel::alphabet().into_iter().collect());
        assert_eq!(BYTE_OF_CHAR.len(), 256);
        assert_eq!(BYTE_OF_CHAR[&'Ġ'], b' ');
        assert_eq!(BYTE_OF_CHAR[&'Ċ'], b'\n');
    }

    #[test]
    fn only_a_two_digit_hexadecimal_token_is_a_byte() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xff>"), Some(255));
        for text in [
            "<0x+A>", "<0xA>", "<0x0AB>", "0x0A", "<0x0A", "<0xé>", "<0x>",
        ] {
            assert_eq!(byte_token(text), None, "{text}");
        }
    }

    #[test]
    fn a_decoder_that_cannot_be_streamed_is_refused_by_name() {
        let wordpiece = serde_json::json!({"type": "WordPiece", "prefix": "##"});
        let error = Spelling::from_decoder(&wordpiece).unwrap_err().to_string();
        assert!(error.contains("WordPiece is not supported"), "{error}");
        let double = serde_json::json!({
            "type": "Replace", "pattern": {"String": "a"}, "content": "aa"
        });
        let bomb = serde_json::json!({"type": "Sequence", "decoders": vec![double; 40]});
        let error = Spelling::from_decoder(&bomb).unwrap_err().to_string();
        assert!(error.contains("texts without end"), "{error}");
        let error = Spelling::from_decoder(&Value::Null)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no decoder"), "{error}");
    }
}
