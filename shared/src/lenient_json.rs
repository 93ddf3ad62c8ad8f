//! JSON as Python's `json` module writes and reads it.
//!
//! Python writes `Infinity`, `-Infinity` and `NaN`, which are not JSON, and reads numbers too large for
//! a float as infinite. Such values stand in keys that nobody here uses (`time_step_limit`), so the
//! file around them is read all the same. They become what Transformers 5 writes instead of them,
//! `{"__float__": "Infinity"}`: no reader takes that for a number.

use anyhow::{Result, anyhow};
use serde_json::Value;

/// More of them than any file has that somebody wrote. Each becomes an object, and a text can be made of
/// nothing else.
const MOST: usize = 1000;

/// The key of a float that JSON has no number for.
pub(crate) const TAG: &str = "__float__";

/// A text as a value, with a remark if `file` is not strictly JSON.
///
/// # Errors
/// If Python could not read it either.
pub(crate) fn parse(file: &str, text: &str) -> Result<(Value, Option<String>)> {
    let strict = match serde_json::from_str(text) {
        Ok(value) => return Ok((value, None)),
        Err(error) => error,
    };
    let tagged = tagged(text).ok_or_else(|| anyhow!("{strict}"))?;
    let value = serde_json::from_str(&tagged).map_err(|_| anyhow!(strict))?;
    let remark = format!("{file} has Infinity or NaN, which Python writes and JSON does not know");
    Ok((value, Some(remark)))
}

/// `text` with each infinite or undefined number outside of strings as a tagged object; none if there are
/// too many.
fn tagged(text: &str) -> Option<String> {
    let mut left = MOST;
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c == '"' || is_of_number(c)) {
        let (before, from) = rest.split_at(start);
        let length = if from.starts_with('"') {
            string_length(from)
        } else {
            from.find(|c| !is_of_number(c)).unwrap_or(from.len())
        };
        let (piece, after) = from.split_at(length);
        result.push_str(before);
        match name_of(piece) {
            Some(name) => {
                left = left.checked_sub(1)?;
                result.push_str(&format!("{{\"{TAG}\": \"{name}\"}}"));
            }
            None => result.push_str(piece),
        }
        rest = after;
    }
    Some(result + rest)
}

fn is_of_number(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-.".contains(c)
}

/// How long the string at the start of `text` is, with its quotes.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|&(_, c)| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// What Python calls a number that is not finite; `None` for all else.
fn name_of(piece: &str) -> Option<&'static str> {
    match piece {
        "NaN" => Some("NaN"),
        "Infinity" => Some("Infinity"),
        "-Infinity" => Some("-Infinity"),
        _ if !piece.ends_with(|c: char| c.is_ascii_digit()) => None,
        _ => match piece.parse() {
            Ok(f64::INFINITY) => Some("Infinity"),
            Ok(f64::NEG_INFINITY) => Some("-Infinity"),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_that_are_not_finite_are_tagged_and_told_and_strings_are_left_alone() {
        let text = r#"{"a": [0.0, Infinity, -Infinity], "NaN": NaN, "s": "\"NaN, \\", "e": 1e999}"#;
        let (value, remark) = parse("x.json", text).unwrap();
        let tag = |name| json!({TAG: name});
        let expected = json!({
            "a": [0.0, tag("Infinity"), tag("-Infinity")],
            "NaN": tag("NaN"),
            "s": "\"NaN, \\",
            "e": tag("Infinity"),
        });
        assert_eq!(value, expected);
        assert!(remark.unwrap().contains("x.json"));
    }

    #[test]
    fn a_text_made_of_such_numbers_is_refused() {
        let text = |count: usize| format!("[{}1]", "NaN,".repeat(count));
        assert!(parse("x", &text(MOST)).is_ok());
        let error = parse("x", &text(MOST + 1)).unwrap_err().to_string();
        assert!(error.contains("line 1 column 2"), "{error}");
    }

    #[test]
    fn json_is_read_without_a_remark_and_nonsense_with_the_place_of_its_fault() {
        assert_eq!(parse("x", r#"{"a": 1}"#).unwrap(), (json!({"a": 1}), None));
        for text in [
            "",
            "{\"a\": Infinit}",
            "{\"a\": nan}",
            "{\"a\": 1,}",
            "{\"a\": \"NaN",
        ] {
            let error = parse("x", text).unwrap_err().to_string();
            assert!(error.contains("line 1 column"), "{error}");
        }
    }
}
