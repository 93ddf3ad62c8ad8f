//! What a template may keep in a namespace: plain data that ends somewhere.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// The most lists and maps within each other. Descriptions of tools have some ten.
const DEEPEST: usize = 100;

/// A copy of a value, for a namespace: what is computed only when somebody looks is computed now.
///
/// # Errors
/// If it contains a namespace or a loop, which change later and could then contain themselves, or if
/// it is nested too deep.
pub(crate) fn stored(value: &Value) -> Result<Value, Error> {
    copy(value, 0)
}

fn copy(value: &Value, depth: usize) -> Result<Value, Error> {
    let Some(object) = value.as_object() else {
        return Ok(value.clone());
    };
    let refused = |why: &str| Err(Error::new(ErrorKind::InvalidOperation, why.to_owned()));
    if depth > DEEPEST {
        return refused("what is set in a namespace is nested too deep");
    }
    let kind = object.type_name().rsplit("::").next();
    if matches!(kind, Some("Namespace" | "Loop")) {
        return refused("a namespace cannot hold a namespace or a loop");
    }
    if value.kind() == ValueKind::Map {
        let pairs = object.try_iter_pairs().into_iter().flatten();
        let pairs = pairs.map(|(key, item)| Ok((copy(&key, depth + 1)?, copy(&item, depth + 1)?)));
        return Ok(Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?));
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(value.clone());
    }
    let items = value.try_iter()?.map(|item| copy(&item, depth + 1));
    let items = items.collect::<Result<Vec<_>, _>>()?;
    if value.is_tuple() {
        return Ok(Value::from(Tuple::from(items)));
    }
    Ok(Value::from(items))
}
