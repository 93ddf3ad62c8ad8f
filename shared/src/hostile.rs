//! Inputs that nobody thought of, for what reads the files of a downloaded model.
//!
//! `cargo test -p shared --lib hostile` tries the same few hundred of each kind every time, in a few
//! seconds. `HOSTILE_SECONDS=600 cargo test -p shared --lib hostile` goes on with other ones for so
//! long, and says how many there were.

use std::mem::discriminant;
use std::time::{Duration, Instant};

use console::text::message;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

/// Has `check` look at `cases` inputs from a fixed seed, or at more as the module says.
pub(crate) fn search<S: Strategy>(cases: u32, inputs: &S, check: impl Fn(S::Value)) {
    let seconds = std::env::var("HOSTILE_SECONDS").ok();
    let seconds = seconds.map_or(0, |seconds| seconds.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    for round in 1_u64.. {
        let config = Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        };
        let seed = [round.to_le_bytes(); 4].concat();
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let outcome = TestRunner::new_with_rng(config, random).run(inputs, |input| {
            check(input);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("round {round}: {error}"));
        if Instant::now() >= end {
            println!("{} inputs", round * u64::from(cases));
            return;
        }
    }
}

/// That an error is told in one line of a few hundred characters.
pub(crate) fn assert_told(error: &anyhow::Error) {
    let told = message(&format!("{error:#}"));
    assert!(!told.is_empty() && !told.contains('\n'), "{told:?}");
    assert!(told.chars().count() <= 600, "{told}");
}

/// A change of a JSON document: where, by what, and whether by something of the same type.
pub(crate) type Change = (Index, Index, bool);

/// One to three changes; most of them leave a document that is read a little further.
pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    vec(
        (any::<Index>(), any::<Index>(), prop::bool::weighted(0.8)),
        1..4,
    )
}

/// A document with values put elsewhere, removed, or replaced by odd ones and `others`.
pub(crate) fn changed(mut document: Value, changes: &[Change], others: &[Value]) -> Value {
    for (place, by, same_type) in changes {
        let mut places = Vec::new();
        pointers("", &document, &mut places);
        let elsewhere = places.iter().filter_map(|place| document.pointer(place));
        let values = [odd_values(), others.to_vec(), elsewhere.cloned().collect()].concat();
        let value = by.get(&values);
        let kind = Some(discriminant(value));
        let fits =
            |place: &&String| !same_type || document.pointer(place).map(discriminant) == kind;
        let fitting: Vec<&String> = places.iter().filter(fits).collect();
        if fitting.is_empty() || by.index(20) == 0 {
            remove(&mut document, &places[place.index(places.len())]);
        } else {
            let place = place.get(&fitting).to_string();
            *document.pointer_mut(&place).unwrap() = value.clone();
        }
    }
    document
}

/// The place of every value, as a JSON pointer.
fn pointers(at: &str, value: &Value, places: &mut Vec<String>) {
    places.push(at.to_owned());
    let keys: Vec<String> = match value {
        Value::Object(map) => map.keys().cloned().collect(),
        Value::Array(list) => (0..list.len()).map(|index| index.to_string()).collect(),
        _ => return,
    };
    for key in keys {
        let place = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        pointers(&place, value.pointer(&place[at.len()..]).unwrap(), places);
    }
}

fn remove(document: &mut Value, place: &str) {
    let Some((parent, key)) = place.rsplit_once('/') else {
        return;
    };
    let key = key.replace("~1", "/").replace("~0", "~");
    match document.pointer_mut(parent).unwrap() {
        Value::Object(map) => drop(map.remove(&key)),
        Value::Array(list) => drop(list.remove(key.parse().unwrap())),
        _ => {}
    }
}

fn odd_values() -> Vec<Value> {
    let numbers = [json!(0), json!(1), json!(-1), json!(3), json!(1_u64 << 31)];
    let large = [json!(u64::MAX), json!(i64::MIN), json!(1e308), json!(0.5)];
    let texts = [
        "", "a", "aa", "é\0", "▁", "<0x0A>", "(.*)\\1", "[", "/////w==",
    ];
    let others = [json!(null), json!(true), json!([]), json!({}), json!([[]])];
    let texts = texts.map(Value::from);
    let long = [json!("x".repeat(10_000)), json!(vec!["a"; 300])];
    [&numbers[..], &large, &texts, &others, &long].concat()
}
