//! Bytes → fields, with the name of the field that is wrong.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::ApiError;

/// The JSON object of a body. Nested more than some hundred deep it is refused: it could not be read without a stack
/// that is as deep.
///
/// # Errors
/// If the bytes are anything else.
pub fn object(bytes: &[u8]) -> Result<Value, ApiError> {
    let refused = |error: serde_json::Error| {
        ApiError::request(format!("The body is not valid JSON: {error}."))
    };
    match serde_json::from_slice(bytes).map_err(refused)? {
        Value::Object(map) => Ok(Value::Object(map)),
        other => Err(ApiError::request(format!(
            "The body is {}, and must be a JSON object.",
            kind(&other)
        ))),
    }
}

/// The fields of an object that a type has; all others are read past.
///
/// # Errors
/// With the name of the first field that is of another type.
pub fn typed<T: DeserializeOwned>(object: &Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(object).map_err(|error| {
        let path = error.path().to_string();
        let why = in_english(&error.into_inner().to_string());
        if path == "." {
            return ApiError::request(format!("The request is not complete: {why}."));
        }
        ApiError::invalid(path.clone(), format!("'{path}': {why}."))
    })
}

/// What serde says, without the names that Rust has for numbers.
fn in_english(why: &str) -> String {
    let names = [
        ("expected u64", "expected a whole number of at least 0"),
        ("expected i64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected an object"),
    ];
    let known = names.into_iter().find(|(name, _)| why.ends_with(name));
    known.map_or_else(|| why.to_owned(), |(name, word)| why.replace(name, word))
}

/// A field, or nothing if it is null.
pub(super) fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

/// An object inside of a request, as it was sent.
pub(super) fn map<'a>(value: &'a Value, param: &str) -> Result<&'a Map<String, Value>, ApiError> {
    (value.as_object()).ok_or_else(|| wrong(param, "an object", value))
}

/// A text inside of a request.
pub(super) fn text<'a>(value: &'a Value, param: &str) -> Result<&'a str, ApiError> {
    value
        .as_str()
        .ok_or_else(|| wrong(param, "a string", value))
}

/// A field of another type than it must have.
pub(super) fn wrong(param: &str, expected: &str, got: &Value) -> ApiError {
    ApiError::invalid(
        param,
        format!("'{param}' must be {expected}, and is {}.", kind(got)),
    )
}

/// What a value is, with its article.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
