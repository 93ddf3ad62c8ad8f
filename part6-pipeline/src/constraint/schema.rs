//! A JSON Schema before llguidance makes a grammar of it.
//!
//! What it has no grammar for is refused by its name and place, what says nothing about a value is left out, and
//! every `$ref` becomes one that it finds. An unknown keyword says nothing: so JSON Schema has it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::grammar::ends_in_escape;

/// The longest schema, in bytes: those of public collections end at about that size.
const LONGEST: usize = 512 << 10;

/// Schemas within each other.
const DEEPEST: usize = 64;

/// What a schema may say about a value, taken over as it is.
const ASSERTIONS: [&str; 12] = [
    "type",
    "const",
    "enum",
    "required",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "multipleOf",
    "$schema",
];

/// What it may say and no grammar can be made of.
const UNSUPPORTED: [&str; 19] = [
    "not",
    "if",
    "then",
    "else",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "contains",
    "minContains",
    "maxContains",
    "propertyNames",
    "uniqueItems",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
    "$dynamicAnchor",
    "$recursiveAnchor",
    "x-guidance",
];

/// Formats that llguidance has a regular expression for.
const FORMATS: [&str; 10] = [
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
];

/// The largest number in a bound. What is written has at most 18 digits.
const LARGEST: f64 = 1e17;

/// White space between the parts of a value: one space, or one line break and an indent. Without a bound a small model
/// goes on with it until its tokens are used up; without any it ends a list where it would have begun a line.
const WHITESPACE: &str = r"\x20|\r?\n(\x20{0,32}|\t{0,8})";

/// Dates without February 29: whether there is one depends on the year.
const DATE: &str = r"(?:[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8])))";

/// Times without the leap second: whether there is one depends on the day.
const TIME: &str = r"(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))";

/// Any JSON object.
pub(super) fn any_object() -> Value {
    with_options(json!({"type": "object"}))
}

/// Whether a schema says nothing. Its value would be any: a number without an end, for a model that begins one. So it
/// is read as what its author wants, an object.
pub(super) fn says_nothing(schema: &Value) -> bool {
    match schema {
        Value::Bool(any) => *any,
        Value::Object(keywords) => keywords.is_empty(),
        _ => false,
    }
}

/// The schema that llguidance gets.
///
/// # Errors
/// If it is too large or too deep, if it has a keyword or a format that is not supported, and if it is none.
pub(super) fn prepared(schema: &Value) -> Result<Value> {
    let length = schema.to_string().len();
    ensure!(
        length <= LONGEST,
        "the schema has {length} bytes, more than the {LONGEST} that are read"
    );
    let mut reader = Reader {
        root: schema,
        numbers: BTreeMap::new(),
        open: Vec::new(),
    };
    let mut prepared = reader.schema(schema, "#", 0)?;
    let mut definitions = Map::new();
    while let Some((pointer, found)) = reader.open.pop() {
        let name = reader.name(&pointer);
        definitions.insert(name, reader.schema(found, &pointer, 1)?);
    }
    if let (Value::Object(keywords), false) = (&mut prepared, definitions.is_empty()) {
        keywords.insert("$defs".to_owned(), Value::Object(definitions));
    }
    Ok(with_options(prepared))
}

fn with_options(mut schema: Value) -> Value {
    if let Value::Object(keywords) = &mut schema {
        let options = json!({"whitespace_pattern": WHITESPACE});
        keywords.insert("x-guidance".to_owned(), options);
    }
    schema
}

/// Reads a schema and those that it refers to.
struct Reader<'a> {
    root: &'a Value,
    /// What was referred to so far, numbered.
    numbers: BTreeMap<String, usize>,
    /// What was not read yet, with its place.
    open: Vec<(String, &'a Value)>,
}

impl<'a> Reader<'a> {
    fn schema(&mut self, schema: &'a Value, at: &str, depth: usize) -> Result<Value> {
        ensure!(
            depth <= DEEPEST,
            "the schema is nested deeper than {DEEPEST} levels"
        );
        let keywords = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(keywords) => keywords,
            _ => bail!("what stands at {at} of the schema is neither an object nor true or false"),
        };
        let mut read = Map::new();
        for (keyword, value) in keywords {
            if let Some(value) = self.keyword(keyword, value, at, depth)? {
                read.insert(keyword.clone(), value);
            }
        }
        if let Some(format) = keywords.get("format") {
            add_format(&mut read, format, at)?;
        }
        Ok(Value::Object(read))
    }

    /// None for what says nothing.
    fn keyword(
        &mut self,
        keyword: &str,
        value: &'a Value,
        at: &str,
        depth: usize,
    ) -> Result<Option<Value>> {
        let place = format!("{at}/{keyword}");
        Ok(match keyword {
            "$ref" => Some(self.reference(value, &place)?),
            "properties" | "patternProperties" => Some(self.named(value, &place, depth)?),
            "anyOf" | "oneOf" | "allOf" | "prefixItems" => Some(self.list(value, &place, depth)?),
            "items" if value.is_array() => Some(self.list(value, &place, depth)?),
            "items" | "additionalItems" | "additionalProperties" => {
                Some(self.schema(value, &place, depth + 1)?)
            }
            "uniqueItems" if value == &Value::Bool(false) => None,
            "$id" if depth > 0 => bail!(
                "the schema has an \"$id\" of its own at {at}, which is supported only for the whole"
            ),
            "minimum" | "exclusiveMinimum" => Some(bound(value, f64::next_up, &place)?),
            "maximum" | "exclusiveMaximum" => Some(bound(value, f64::next_down, &place)?),
            "pattern" => {
                let ends = value.as_str().is_some_and(ends_in_escape);
                ensure!(
                    !ends,
                    "the pattern {value}, at {at} of the schema, ends in a backslash"
                );
                Some(value.clone())
            }
            _ if ASSERTIONS.contains(&keyword) => Some(value.clone()),
            _ if UNSUPPORTED.contains(&keyword) => bail!(
                "the keyword {keyword:?} of the schema, at {at}, is not supported: leave it out, and check the answer \
                 for it"
            ),
            _ => None,
        })
    }

    fn named(&mut self, schemas: &'a Value, at: &str, depth: usize) -> Result<Value> {
        let schemas = schemas.as_object();
        let schemas = schemas.with_context(|| format!("{at} of the schema is no object"))?;
        let read = schemas.iter().map(|(name, schema)| {
            let place = format!("{at}/{name}");
            Ok((name.clone(), self.schema(schema, &place, depth + 1)?))
        });
        Ok(Value::Object(read.collect::<Result<_>>()?))
    }

    fn list(&mut self, schemas: &'a Value, at: &str, depth: usize) -> Result<Value> {
        let schemas = schemas.as_array();
        let schemas = schemas.with_context(|| format!("{at} of the schema is no list"))?;
        let read = (schemas.iter().enumerate())
            .map(|(place, schema)| self.schema(schema, &format!("{at}/{place}"), depth + 1));
        Ok(Value::Array(read.collect::<Result<_>>()?))
    }

    /// The reference to what another one points to, which is read later.
    fn reference(&mut self, reference: &Value, at: &str) -> Result<Value> {
        let text = reference.as_str();
        let text = text.with_context(|| format!("{at} of the schema is no text"))?;
        if matches!(text, "#" | "#/") {
            return Ok(json!("#"));
        }
        let pointer = text.strip_prefix('#').filter(|rest| rest.starts_with('/'));
        let pointer = pointer.with_context(|| {
            format!("{text:?}, at {at} of the schema, is not supported: only \"#\" and \"#/…\" are")
        })?;
        let pointer = without_percents(pointer);
        let found = pointer.as_deref().and_then(|at| self.root.pointer(at));
        let found =
            found.with_context(|| format!("{text:?}, at {at} of the schema, is not there"))?;
        if !self.numbers.contains_key(text) {
            self.numbers.insert(text.to_owned(), self.numbers.len());
            self.open.push((text.to_owned(), found));
        }
        Ok(json!(format!("#/$defs/{}", self.name(text))))
    }

    fn name(&self, pointer: &str) -> String {
        self.numbers
            .get(pointer)
            .copied()
            .unwrap_or_default()
            .to_string()
    }
}

/// `%25` → `%`; None for what is no text then.
fn without_percents(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = (*first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).ok()
}

/// llguidance computes with bounds as f64 and i64, without a word where they do not fit. One between two f64 becomes
/// the narrower one; one that is too large, and that no number of [so many digits](super::digits) reaches, the largest.
///
/// # Errors
/// If numbers would have to be larger than that.
fn bound(value: &Value, narrower: fn(f64) -> f64, at: &str) -> Result<Value> {
    let Some(near) = value.as_f64() else {
        return Ok(value.clone()); // true or false in draft 4; the rest llguidance refuses
    };
    let above = narrower(0.0) > 0.0;
    ensure!(
        if above {
            near <= LARGEST
        } else {
            near >= -LARGEST
        },
        "the bound {value}, at {at} of the schema, leaves only numbers beyond {LARGEST:e}, which are not supported"
    );
    let exact = value
        .as_i64()
        .map(i128::from)
        .or(value.as_u64().map(i128::from));
    let wider = exact.is_some_and(|exact| {
        let near = near as i128;
        if above { near < exact } else { near > exact }
    });
    let near = if wider { narrower(near) } else { near };
    Ok(json!(near.clamp(-LARGEST, LARGEST)))
}

/// A format says something about texts only.
fn add_format(schema: &mut Map<String, Value>, format: &Value, at: &str) -> Result<()> {
    let texts = match schema.get("type") {
        Some(Value::String(only)) => only == "string",
        Some(Value::Array(types)) => types.iter().any(|one| one == "string"),
        _ => true,
    };
    if !texts {
        return Ok(());
    }
    let name = format.as_str().unwrap_or_default();
    ensure!(
        FORMATS.contains(&name),
        "the format {format} of the schema, at {at}, is not supported: there are {}",
        FORMATS.join(", ")
    );
    let pattern = match name {
        "date" => format!("^{DATE}$"),
        "time" => format!("^{TIME}$"),
        "date-time" => format!("^{DATE}T{TIME}$"),
        _ => String::new(),
    };
    if pattern.is_empty() || schema.contains_key("pattern") {
        schema.insert("format".to_owned(), format.clone());
    } else {
        schema.insert("pattern".to_owned(), Value::String(pattern));
    }
    Ok(())
}
