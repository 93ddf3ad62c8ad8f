//! Jinja's `tojson` as `transformers` has it: Python's `json.dumps` with `ensure_ascii=False`.
//!
//! The model has seen its tools and calls in exactly this white space. Jinja's own filter writes
//! for web pages and escapes `<`, `>`, `&` and `'`.

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind, State};
use serde_json::Value as Json;

/// The filter: `{{ x | tojson(indent=…, separators=…, sort_keys=…, ensure_ascii=…) }}`.
pub(crate) fn to_json(state: &State, value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let style = Style::from_arguments(state, &kwargs)?;
    let sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let mut json = serde_json::to_value(value)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}")))?;
    if sort_keys {
        json.sort_all_objects();
    }
    style.dumps(&json, 0).map(Value::from_safe_string)
}

/// The arguments of `json.dumps`, and the state of the template, which pays for the text.
struct Style<'a> {
    state: &'a State<'a, 'a>,
    indent: Option<usize>,
    between_items: String,
    after_key: String,
    ascii: bool,
}

impl<'a> Style<'a> {
    fn from_arguments(state: &'a State<'a, 'a>, kwargs: &Kwargs) -> Result<Self, Error> {
        let indent = kwargs.get::<Option<usize>>("indent")?;
        let separators = kwargs
            .get::<Option<Vec<String>>>("separators")?
            .unwrap_or_default();
        let [between_items, after_key] = <[String; 2]>::try_from(separators).unwrap_or_else(|_| {
            [
                if indent.is_some() { "," } else { ", " }.to_owned(),
                ": ".to_owned(),
            ]
        });
        let ascii = kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
        Ok(Self {
            state,
            indent,
            between_items,
            after_key,
            ascii,
        })
    }

    fn dumps(&self, value: &Json, depth: usize) -> Result<String, Error> {
        match value {
            Json::Array(items) => {
                let items = items.iter().map(|item| self.dumps(item, depth + 1));
                self.wrap("[", items.collect::<Result<_, _>>()?, "]", depth)
            }
            Json::Object(members) => {
                let members = members.iter().map(|(key, value)| {
                    let value = self.dumps(value, depth + 1)?;
                    Ok(format!("{}{}{value}", self.string(key), self.after_key))
                });
                self.wrap("{", members.collect::<Result<_, Error>>()?, "}", depth)
            }
            Json::String(text) => Ok(self.string(text)),
            scalar => Ok(scalar.to_string()),
        }
    }

    fn wrap(
        &self,
        open: &str,
        items: Vec<String>,
        close: &str,
        depth: usize,
    ) -> Result<String, Error> {
        let indent = self.indent.filter(|_| !items.is_empty());
        self.pay(&items, indent.unwrap_or(0).saturating_mul(depth + 1))?;
        let line = |depth| indent.map_or(String::new(), |n| format!("\n{}", " ".repeat(n * depth)));
        let items = items.join(&format!("{}{}", self.between_items, line(depth + 1)));
        Ok(format!(
            "{open}{}{items}{}{close}",
            line(depth + 1),
            line(depth)
        ))
    }

    /// Takes the fuel for the text of `items` *before* it is made: `indent=10000000000` is short.
    fn pay(&self, items: &[String], margin: usize) -> Result<(), Error> {
        let each = margin
            .saturating_add(self.between_items.len())
            .saturating_add(1);
        let bytes = items.iter().map(String::len).fold(each, |bytes, length| {
            bytes.saturating_add(length).saturating_add(each)
        });
        self.state.consume_fuel((bytes / 64) as u64)
    }

    fn string(&self, text: &str) -> String {
        let quoted = Json::from(text).to_string();
        if !self.ascii {
            return quoted;
        }
        quoted
            .encode_utf16()
            .fold(String::new(), |text, unit| match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => text + char::from(byte).encode_utf8(&mut [0; 4]),
                _ => text + &format!("\\u{unit:04x}"),
            })
    }
}
