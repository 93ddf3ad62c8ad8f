//! Whether a value meets a schema: for the keywords of `schemas.jsonl`, and without llguidance.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use regex::Regex;
use serde_json::{Map, Value};

/// Why not, as the keyword that it does not meet.
pub(crate) fn check(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    let keywords = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Bool(false) => return Err("false".to_owned()),
        Value::Object(keywords) => keywords,
        _ => panic!("{schema} is no schema"),
    };
    for (keyword, wanted) in keywords {
        if !meets(value, keyword, wanted, keywords, root) {
            return Err(format!("{keyword} {wanted}: {value}"));
        }
    }
    Ok(())
}

fn meets(
    value: &Value,
    keyword: &str,
    wanted: &Value,
    all: &Map<String, Value>,
    root: &Value,
) -> bool {
    let ok = |schema: &Value, value: &Value| check(value, schema, root).is_ok();
    match (keyword, value) {
        ("type", _) => match wanted {
            Value::Array(types) => types.iter().any(|one| is(value, one.as_str().unwrap())),
            one => is(value, one.as_str().unwrap()),
        },
        ("const", _) => same(value, wanted),
        ("enum", _) => wanted
            .as_array()
            .unwrap()
            .iter()
            .any(|one| same(value, one)),
        ("anyOf", _) => wanted
            .as_array()
            .unwrap()
            .iter()
            .any(|schema| ok(schema, value)),
        ("allOf", _) => wanted
            .as_array()
            .unwrap()
            .iter()
            .all(|schema| ok(schema, value)),
        ("oneOf", _) => {
            let met = wanted.as_array().unwrap().iter();
            met.filter(|schema| ok(schema, value)).count() == 1
        }
        ("$ref", _) => {
            let pointer = wanted.as_str().unwrap().strip_prefix('#').unwrap();
            let pointer = pointer.replace("%20", " ");
            ok(root.pointer(&pointer).unwrap(), value)
        }
        ("properties" | "patternProperties" | "additionalProperties", Value::Object(object)) => {
            object
                .iter()
                .all(|(name, value)| property(name, value, all, &ok))
        }
        ("required", Value::Object(object)) => {
            let mut names = wanted.as_array().unwrap().iter();
            names.all(|name| object.contains_key(name.as_str().unwrap()))
        }
        ("items" | "prefixItems" | "additionalItems", Value::Array(items)) => {
            (items.iter().enumerate()).all(|(at, value)| item(at, value, all, &ok))
        }
        _ => has_size(value, keyword, wanted),
    }
}

/// What is counted, measured or looked at as a text.
fn has_size(value: &Value, keyword: &str, wanted: &Value) -> bool {
    let count = |wanted: &Value| wanted.as_u64().unwrap() as usize;
    match (keyword, value) {
        ("minProperties", Value::Object(object)) => object.len() >= count(wanted),
        ("maxProperties", Value::Object(object)) => object.len() <= count(wanted),
        ("minItems", Value::Array(items)) => items.len() >= count(wanted),
        ("maxItems", Value::Array(items)) => items.len() <= count(wanted),
        ("minLength", Value::String(text)) => text.chars().count() >= count(wanted),
        ("maxLength", Value::String(text)) => text.chars().count() <= count(wanted),
        ("pattern", Value::String(text)) => {
            // The classes of JavaScript are those of ASCII.
            let pattern = wanted
                .as_str()
                .unwrap()
                .replace("\\d", "[0-9]")
                .replace("\\w", "[0-9A-Za-z_]");
            Regex::new(&pattern).unwrap().is_match(text)
        }
        ("format", Value::String(text)) => has_format(text, wanted.as_str().unwrap()),
        ("minimum", Value::Number(_)) => number(value) >= number(wanted),
        ("maximum", Value::Number(_)) => number(value) <= number(wanted),
        ("exclusiveMinimum", Value::Number(_)) => number(value) > number(wanted),
        ("exclusiveMaximum", Value::Number(_)) => number(value) < number(wanted),
        ("multipleOf", Value::Number(_)) => (number(value) / number(wanted)).fract() == 0.0,
        _ => true,
    }
}

fn property(
    name: &str,
    value: &Value,
    all: &Map<String, Value>,
    ok: &impl Fn(&Value, &Value) -> bool,
) -> bool {
    let mut known = false;
    if let Some(schema) = all
        .get("properties")
        .and_then(|properties| properties.get(name))
    {
        known = true;
        if !ok(schema, value) {
            return false;
        }
    }
    let patterns = all.get("patternProperties").and_then(Value::as_object);
    for (pattern, schema) in patterns.into_iter().flatten() {
        if Regex::new(pattern).unwrap().is_match(name) {
            known = true;
            if !ok(schema, value) {
                return false;
            }
        }
    }
    known
        || all
            .get("additionalProperties")
            .is_none_or(|schema| ok(schema, value))
}

fn item(
    at: usize,
    value: &Value,
    all: &Map<String, Value>,
    ok: &impl Fn(&Value, &Value) -> bool,
) -> bool {
    let of_old = all.get("items").is_some_and(Value::is_array);
    let (first, rest) = if of_old {
        ("items", "additionalItems")
    } else {
        ("prefixItems", "items")
    };
    let first = all.get(first).and_then(|schemas| schemas.get(at));
    first
        .or(all.get(rest))
        .is_none_or(|schema| ok(schema, value))
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_number() && number(value).fract() == 0.0,
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("{name} is no type"),
    }
}

/// Equal, where 1 and 1.0 are.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => number(a) == number(b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn has_format(text: &str, format: &str) -> bool {
    let whole = |pattern: &str| {
        Regex::new(&format!("^(?:{pattern})$"))
            .unwrap()
            .is_match(text)
    };
    match format {
        "date" => is_date(text),
        "time" => is_time(text),
        "date-time" => text
            .split_once('T')
            .is_some_and(|(date, time)| is_date(date) && is_time(time)),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "uuid" => whole("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"),
        "email" => text
            .rsplit_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty()),
        "hostname" => text.split('.').all(|label| {
            (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
        }),
        "duration" => whole("P([0-9]+W|([0-9]+[YMD])*(T([0-9]+[HMS])+)?)") && text.len() > 2,
        "uri" => text
            .split_once(':')
            .is_some_and(|(scheme, _)| scheme.starts_with(|c: char| c.is_ascii_alphabetic())),
        _ => true,
    }
}

fn is_date(text: &str) -> bool {
    let parts: Vec<u32> = text
        .split('-')
        .filter_map(|part| part.parse().ok())
        .collect();
    let [year, month, day] = parts[..] else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    text.len() == 10 && (1..=days).contains(&day)
}

fn is_time(text: &str) -> bool {
    let parts = Regex::new(r"^(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:Z|[+-](\d\d):(\d\d))$").unwrap();
    let Some(parts) = parts.captures(text) else {
        return false;
    };
    let limits = [24, 60, 60, 24, 60];
    (parts.iter().skip(1).zip(limits))
        .all(|(part, limit)| part.is_none_or(|part| part.as_str().parse::<u32>().unwrap() < limit))
}
