//! Log-probabilities, in the two shapes that they have.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::ask::TokenInfo;

/// What OpenAI sends for a token that is next to impossible: JSON has no number for minus infinity.
const IMPOSSIBLE: f32 = -9999.0;

/// A token of a chat's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Logprob {
    /// Its text; where it is only a part of a character, `�`.
    pub token: String,
    /// How likely it was.
    pub logprob: f32,
    /// Its bytes. Those of all tokens in a row are the text.
    pub bytes: Vec<u8>,
    /// The likeliest tokens at its place, best first.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that could have stood there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopLogprob {
    /// As above.
    pub token: String,
    /// As above.
    pub logprob: f32,
    /// As above.
    pub bytes: Vec<u8>,
}

impl From<TokenInfo> for Logprob {
    fn from(info: TokenInfo) -> Self {
        let top = info.top.into_iter().map(|(_, bytes, logprob)| TopLogprob {
            token: text(&bytes),
            logprob: finite(logprob),
            bytes,
        });
        Self {
            token: text(&info.bytes),
            logprob: finite(info.logprob.unwrap_or(IMPOSSIBLE)),
            top_logprobs: top.collect(),
            bytes: info.bytes,
        }
    }
}

/// The tokens of a completion: four lists of the same length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CompletionLogprobs {
    /// Their texts.
    pub tokens: Vec<String>,
    /// How likely they were. Nothing is known of the first one of a prompt.
    pub token_logprobs: Vec<Option<f32>>,
    /// The likeliest tokens at their places, and the token itself.
    #[schema(value_type = Vec<Option<BTreeMap<String, f32>>>)]
    pub top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Where they begin in the text, in characters.
    pub text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// The tokens, of which the first one begins at `offset`; returns where the next one would. Tokens before the text
    /// begin with it: see [`echo_offset`](Self::echo_offset).
    pub fn of(tokens: &[TokenInfo], mut offset: isize) -> (Self, isize) {
        let mut lists = Self::default();
        for info in tokens {
            lists.tokens.push(text(&info.bytes));
            lists.token_logprobs.push(info.logprob.map(finite));
            lists.top_logprobs.push(top_map(info));
            lists.text_offset.push(offset.max(0) as usize);
            offset += characters(&info.bytes) as isize;
        }
        (lists, offset)
    }

    /// Where the first token of a prompt begins in its text: before it, if the tokenizer has put something there that
    /// the text does not have, a mark for the beginning or a space.
    pub fn echo_offset(text: &str, tokens: &[TokenInfo]) -> isize {
        let of_tokens: usize = tokens.iter().map(|info| characters(&info.bytes)).sum();
        text.chars().count() as isize - of_tokens as isize
    }
}

/// By text. Where two tokens have the same one, as two halves of characters do, the likelier one stands; the token that
/// was taken stands in any case.
fn top_map(info: &TokenInfo) -> Option<Map<String, Value>> {
    let own = info.logprob?;
    let mut map = Map::new();
    for (_, bytes, logprob) in &info.top {
        (map.entry(text(bytes))).or_insert_with(|| number(*logprob));
    }
    map.entry(text(&info.bytes)).or_insert_with(|| number(own));
    Some(map)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Characters that begin in these bytes.
pub(crate) fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

/// With the digits that an f32 has: as an f64 it would have others than beside it, in `token_logprobs`.
fn number(logprob: f32) -> Value {
    let written = serde_json::to_string(&finite(logprob)).unwrap_or_default();
    written.parse().map_or(Value::Null, f64::into)
}

fn finite(logprob: f32) -> f32 {
    logprob.max(IMPOSSIBLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn info(bytes: &[u8], logprob: Option<f32>, top: &[(&[u8], f32)]) -> TokenInfo {
        let top = top
            .iter()
            .map(|(bytes, logprob)| (0, bytes.to_vec(), *logprob));
        TokenInfo {
            id: 0,
            bytes: bytes.to_vec(),
            logprob,
            top: top.collect(),
        }
    }

    #[test]
    fn a_character_of_two_tokens_has_its_bytes_and_one_place() {
        let tokens = [
            info(b"a", None, &[]),
            info(b"\xc3", Some(-0.5), &[(b"\xc3", -0.5), (b"\xc2", -1.5)]),
            info(b"\xa9", Some(-2.1), &[(b"b", -1.0)]),
            info(b"c", Some(f32::NEG_INFINITY), &[]),
        ];
        let (lists, end) = CompletionLogprobs::of(&tokens, 10);
        let expected = json!({
            "tokens": ["a", "\u{fffd}", "\u{fffd}", "c"],
            "token_logprobs": [null, -0.5, -2.1_f32, -9999.0],
            "top_logprobs": [null, {"\u{fffd}": -0.5}, {"b": -1.0, "\u{fffd}": -2.1}, {"c": -9999.0}],
            "text_offset": [10, 11, 12, 12],
        });
        assert_eq!(serde_json::to_value(&lists).unwrap(), expected);
        assert_eq!(end, 13);
        let begun = [
            info(b"<s>", None, &[]),
            info(b" a", Some(-1.0), &[]),
            info(b"b", Some(-1.0), &[]),
        ];
        let start = CompletionLogprobs::echo_offset("ab", &begun);
        let (lists, end) = CompletionLogprobs::of(&begun, start);
        assert_eq!((lists.text_offset, end), (vec![0, 0, 1], 2));
        let of_chat = Logprob::from(tokens[1].clone());
        let expected = json!({
            "token": "\u{fffd}", "logprob": -0.5, "bytes": [0xc3],
            "top_logprobs": [
                {"token": "\u{fffd}", "logprob": -0.5, "bytes": [0xc3]},
                {"token": "\u{fffd}", "logprob": -1.5, "bytes": [0xc2]},
            ],
        });
        assert_eq!(serde_json::to_value(of_chat).unwrap(), expected);
    }
}
