//! Calls or, instead of them, a value that a format wants: `tools` together with `response_format`.
//!
//! The model chooses with its first tokens. So these have to tell which of both it is, to a reader as well: Hermes
//! begins a call with a mark that no JSON begins with. Llama 3 and Mistral write JSON in both cases, and what begins with
//! the name of a tool is a call: a format in which a value may begin in the same way is refused.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Family, OPEN, Tools, calls_schema, rebase};
use crate::ask::Grammar;
use crate::constraint::{Vocabulary, values};

impl Tools {
    /// What the answer must match if it may call, and otherwise has to be a value of a format, JSON or a schema, that
    /// [can be told](Self::check_format) from a call. Calls are as in [`grammar`](Self::grammar), but as many as the
    /// model likes, where that is allowed and a mark or a list says where they end: Llama 3 writes one.
    ///
    /// # Errors
    /// If a schema has what is not supported.
    pub fn grammar_or(
        &self,
        family: Family,
        format: &Grammar,
        vocabulary: &Vocabulary,
    ) -> Result<Grammar> {
        let offered: Vec<&Value> = self.offered.iter().collect();
        let most = (!self.parallel).then_some(1);
        let calls = calls_schema(&offered, family, "#", most);
        let value = schema_of(format, "#");
        if family == Family::Hermes {
            let more = if self.parallel {
                r#" ("\n" call)*"#
            } else {
                ""
            };
            let rules = format!(
                "start: call{more} | value\ncall: \"<tool_call>\\n\" arguments \"\\n</tool_call>\""
            );
            return values(&rules, &[("arguments", &calls), ("value", &value)]);
        }
        // One schema for both: they begin alike.
        let both = [
            calls_schema(&offered, family, "#/anyOf/0", most),
            schema_of(format, "#/anyOf/1"),
        ];
        let both = json!({"anyOf": both});
        let Some(mark) = family.mark().and_then(|mark| vocabulary.mark(mark)) else {
            return Ok(Grammar::Schema(both));
        };
        let rules = format!("start: <[{mark}]> calls | either");
        values(&rules, &[("calls", &calls), ("either", &both)])
    }

    /// Refuses a format of which a value could be taken for a call.
    ///
    /// # Errors
    /// Then, with what to do instead; and if the format is not supported.
    pub fn check_format(
        &self,
        family: Family,
        format: &Grammar,
        vocabulary: &Vocabulary,
    ) -> Result<()> {
        if family == Family::Hermes {
            return Ok(());
        }
        for name in self.names() {
            let begin = beginning(family, name).concat();
            ensure!(
                !vocabulary.may_begin(format, &begin)?,
                "this model begins a call with {begin}, and so may an answer in this format: which of both it is, nobody \
                 could tell. A schema whose objects begin in another way can be met beside tools, and so can any \
                 without them or with \"tool_choice\": \"none\""
            );
        }
        Ok(())
    }
}

impl Family {
    /// A token that is no text, with which a model of this family may begin its calls.
    fn mark(self) -> Option<&'static str> {
        match self {
            Self::Hermes => None,
            Self::Llama3 => Some("<|python_tag|>"),
            Self::Mistral => Some("[TOOL_CALLS]"),
        }
    }
}

/// A format as a schema that stands at a place of another one.
fn schema_of(format: &Grammar, at: &str) -> Value {
    let mut schema = match format {
        Grammar::Schema(schema @ Value::Object(keywords)) if !keywords.is_empty() => schema.clone(),
        _ => json!({"type": "object"}),
    };
    rebase(&mut schema, at);
    if let Value::Object(keywords) = &mut schema {
        // Names of the whole, which it is no more.
        keywords.retain(|name, _| !matches!(name.as_str(), "$id" | "$schema"));
    }
    schema
}

/// How a call of a tool begins: its parts, between which there may be white space.
fn beginning(family: Family, name: &str) -> Vec<String> {
    let list = (family == Family::Mistral).then(|| "[".to_owned());
    let call = ["{".to_owned(), "\"name\"".to_owned(), ":".to_owned()];
    let parts = list.into_iter().chain(call);
    parts.chain([format!("\"{name}\"")]).collect()
}

/// Whether an answer that begins so is calls. None if more of it is needed to tell.
pub(super) fn is_call(text: &str, family: Family, names: &[String]) -> Option<bool> {
    if family == Family::Hermes {
        return begins(text, &[OPEN.to_owned()]);
    }
    let mut open = false;
    for name in names {
        match begins(text, &beginning(family, name)) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => open = true,
        }
    }
    (!open).then_some(false)
}

fn begins(text: &str, parts: &[String]) -> Option<bool> {
    let mut rest = text;
    for part in parts {
        rest = rest.trim_start();
        match rest.strip_prefix(part.as_str()) {
            Some(after) => rest = after,
            None if part.starts_with(rest) => return None,
            None => return Some(false),
        }
    }
    Some(true)
}
