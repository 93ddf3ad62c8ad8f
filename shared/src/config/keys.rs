//! Values of a JSON object, each of them checked when it is read.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value};

use crate::lenient_json::TAG;
use crate::remarks::clipped;

/// Upper bounds far above any published model: what lies beyond is a broken file, and products of
/// values below them fit 64 bits (and each axis fits MLX's 32-bit shapes).
pub(super) const MAX_WIDTH: usize = 1 << 20;
pub(super) const MAX_LAYERS: usize = 4096;
pub(super) const MAX_HEADS: usize = 4096;
pub(super) const MAX_HEAD_DIM: usize = 4096;
pub(super) const MAX_VOCABULARY: usize = 1 << 24;
pub(super) const MAX_POSITIONS: usize = 1 << 30;

/// One JSON object whose values are read with a check; `null` counts as absent, as in Python.
pub(super) struct Keys<'a> {
    pub(super) file: &'static str,
    pub(super) object: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn missing(&self, key: &str) -> anyhow::Error {
        anyhow!("{key} is missing in {}", self.file)
    }

    fn wrong<T>(&self, key: &str, value: &Value, expected: &str) -> Result<T> {
        bail!(
            "{key} is {} in {}, expected {expected}",
            shown(value),
            self.file
        )
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => self.wrong(key, value, expected),
        }
    }

    /// A whole number from 1 to `most`.
    pub(super) fn size(&self, key: &str, most: usize) -> Result<Option<usize>> {
        self.read(key, &format!("a whole number from 1 to {most}"), |value| {
            let number = usize::try_from(value.as_u64()?).ok()?;
            (1..=most).contains(&number).then_some(number)
        })
    }

    pub(super) fn require_size(&self, key: &str, most: usize) -> Result<usize> {
        self.size(key, most)?.ok_or_else(|| self.missing(key))
    }

    /// A whole number, zero included.
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number", |value| {
            usize::try_from(value.as_u64()?).ok()
        })
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f32>> {
        self.read(key, "a finite number", |value| {
            Some(value.as_f64()? as f32).filter(|number| number.is_finite())
        })
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.read(key, "a string", Value::as_str)
    }

    pub(super) fn array(&self, key: &str) -> Result<Option<&'a Vec<Value>>> {
        self.read(key, "a list", Value::as_array)
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>> {
        self.read(key, "an object", |value| {
            value.as_object().filter(|o| !o.contains_key(TAG))
        })
    }

    /// Token ids: one, or a list of them.
    pub(super) fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let found = self.read(key, "a token id or a list of them", |value| match value {
            Value::Array(values) => values.iter().map(id).collect(),
            _ => Some(vec![id(value)?]),
        })?;
        Ok(union(&found.unwrap_or_default(), &[]))
    }
}

pub(super) fn union(left: &[u32], right: &[u32]) -> Vec<u32> {
    let all: BTreeSet<u32> = left.iter().chain(right).copied().collect();
    all.into_iter().collect()
}

/// A value as it stands in the file, cut to a length that fits a line.
fn shown(value: &Value) -> String {
    clipped(&value.to_string(), 60)
}
