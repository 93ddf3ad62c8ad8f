//! What a client sends as a grammar, within bounds: then llguidance may read it.

use anyhow::{Result, bail, ensure};
use llguidance::api::TopLevelGrammar;
use serde_json::Value;

use super::schema::{any_object, prepared, says_nothing};
use crate::ask::Grammar;

/// The longest regular expression or Lark grammar, in bytes.
const LONGEST: usize = 64 << 10;

/// Brackets within each other: whoever reads them does it by recursion.
const DEEPEST: usize = 100;

impl Grammar {
    /// For a message.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Json => "the JSON mode",
            Self::Schema(_) => "the schema",
            Self::Regex(_) => "the regular expression",
            Self::Lark(_) | Self::Values(_) => "the grammar",
        }
    }

    /// Whether an answer is a JSON value, or several with texts between them.
    pub(super) fn is_json(&self) -> bool {
        matches!(self, Self::Json | Self::Schema(_) | Self::Values(_))
    }
}

/// The grammar as llguidance wants it.
pub(super) fn read(grammar: &Grammar) -> Result<TopLevelGrammar> {
    Ok(match grammar {
        Grammar::Json => TopLevelGrammar::from_json_schema(any_object()),
        Grammar::Schema(schema) if says_nothing(schema) => {
            TopLevelGrammar::from_json_schema(any_object())
        }
        Grammar::Schema(Value::Bool(_)) => bail!("the schema is false: no value can meet it"),
        Grammar::Schema(schema) => TopLevelGrammar::from_json_schema(prepared(schema)?),
        Grammar::Regex(text) => {
            check(text, grammar.what())?;
            ensure!(
                !ends_in_escape(text),
                "the regular expression ends in a backslash"
            );
            TopLevelGrammar::from_regex(without_anchors(text))
        }
        Grammar::Lark(text) => {
            check(text, grammar.what())?;
            TopLevelGrammar::from_lark(text.clone())
        }
        // Our own, of schemas that were prepared.
        Grammar::Values(text) => TopLevelGrammar::from_lark(text.clone()),
    })
}

fn check(text: &str, what: &str) -> Result<()> {
    let length = text.len();
    ensure!(
        length <= LONGEST,
        "{what} has {length} bytes, more than the {LONGEST} that are read"
    );
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    ensure!(
        deepest <= DEEPEST,
        "{what} is nested deeper than {DEEPEST} brackets"
    );
    Ok(())
}

/// The whole text has to match anyway, and llguidance does not know these signs.
fn without_anchors(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        Some(rest) if !ends_in_escape(rest) => rest,
        _ => regex,
    }
}

/// Whether it ends in a backslash that escapes what is not there.
pub(super) fn ends_in_escape(text: &str) -> bool {
    let backslashes = text.bytes().rev().take_while(|byte| *byte == b'\\');
    backslashes.count() % 2 == 1
}

/// What llguidance says of a grammar, without its state and its advice for programmers.
pub(super) fn one_line(error: &anyhow::Error) -> String {
    let text = error.to_string();
    let text = text.split("<non-verbose/>").next().unwrap_or_default();
    let text = text.split("<backtrace>").next().unwrap_or_default();
    if text.contains("coerce_one_of") {
        return "has a \"oneOf\" of which a value may match two: it is supported where they differ by type, or by a \
                constant of a property that is required; \"anyOf\" always is"
            .to_owned();
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut line = words.join(" ");
    if let Some((end, _)) = line.char_indices().nth(300) {
        line.truncate(end);
        line.push('…');
    }
    match line.split_once("Unsatisfiable schema: ") {
        Some((_, why)) => format!("cannot be met: {why}"),
        None if line == "NoExtensionBias" => "cannot be met: no text matches it".to_owned(),
        None => format!("is not supported: {line}"),
    }
}
