//! Requests that nobody thought of: each is read or refused with what is wrong, and never more than it may ask for.
//!
//! `cargo test -p part6-pipeline --test requests` tries the same few thousand every time. With
//! `HOSTILE_SECONDS=600` it goes on with other ones for so long, and says how many there were.

#![allow(clippy::unwrap_used, dead_code)] // a test that cannot go on should stop there

#[path = "../../shared/src/hostile.rs"]
mod hostile;

use hostile::{Change, changed, changes, search};
use part6_pipeline::api::{ApiError, Bounds, ChatRequest, CompletionRequest, MOST_STOPS, MOST_TOP};
use part6_pipeline::ask::Ask;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

const BOUNDS: Bounds = Bounds {
    n: 16,
    prompts: 256,
    temperature: 1.0,
    vocabulary: 4096,
};

fn chat() -> Value {
    json!({
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "a", "content": [{"type": "text", "text": "Tell me a story."}]},
            {"role": "assistant", "content": "Once."},
            {"role": "user", "content": "And then?"},
        ],
        "max_completion_tokens": 5, "max_tokens": 6, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1,
        "n": 2, "seed": 1, "stop": ["a", "b"], "stream": true, "stream_options": {"include_usage": true},
        "logprobs": true, "top_logprobs": 3, "presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1.1,
        "logit_bias": {"5": 0}, "ignore_eos": false, "modalities": ["text"], "parallel_tool_calls": true,
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "n", "strict": true, "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}
        }},
        "tools": [{"type": "function", "function": {
            "name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}
        }}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "user": "u", "metadata": {"a": "b"}, "reasoning_effort": "low", "store": false,
    })
}

fn completion() -> Value {
    json!({
        "model": "tiny", "prompt": ["Once", [1, 2, 3], "upon"], "max_tokens": 5, "temperature": 0.5, "top_p": 0.9,
        "n": 2, "best_of": 2, "echo": true, "logprobs": 3, "seed": 1, "stop": "a", "stream": false,
        "stream_options": null, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}, "user": "u",
    })
}

/// Names that the documents do not have, and values that mean something in some place.
fn others() -> Vec<Value> {
    let texts = [
        "user",
        "developer",
        "json_object",
        "text",
        "auto",
        "required",
        "none",
        "length",
    ];
    let numbers = [json!(2.0), json!(-2), json!(4096), json!(65), json!(1e308)];
    let grammars = [
        json!({"type": "json_object"}),
        json!({"$ref": "#"}),
        json!({"type": "string", "pattern": "(a{1,1000}){1,1000}"}),
        json!({"allOf": [{"$ref": "#/properties/a"}], "not": {}}),
    ];
    let bias = [
        json!({"-1": 5}),
        json!({"4095": 100, "x": 0}),
        json!({"1": 1e308}),
    ];
    [&texts.map(Value::from)[..], &numbers, &grammars, &bias].concat()
}

/// What is told of what is wrong.
fn assert_refused(error: &ApiError) {
    assert!(error.status.is_client_error(), "{error:?}");
    let body = serde_json::to_value(error.body()).unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        !message.is_empty() && !message.contains('\n') && message.len() < 4000,
        "{message}"
    );
}

/// Nothing that may be asked is beyond what the engine could be asked.
fn assert_within(ask: &Ask) {
    assert!((1..=BOUNDS.n).contains(&ask.n));
    let sampling = ask.sampling;
    assert!(
        (0.0..=2.0).contains(&sampling.temperature)
            && sampling.top_p > 0.0
            && sampling.top_p <= 1.0
    );
    assert!((0.0..=1.0).contains(&sampling.min_p) && sampling.top_k <= i32::MAX as usize);
    assert!(sampling.repetition_penalty > 0.0 && sampling.repetition_penalty.is_finite());
    assert!(ask.stop.len() <= MOST_STOPS && ask.stop.iter().all(|stop| !stop.is_empty()));
    let logprobs = [ask.logprobs, ask.prompt_logprobs];
    assert!(logprobs.iter().flatten().all(|top| *top <= MOST_TOP));
}

fn read_chat(bytes: &[u8]) -> Result<(), ApiError> {
    let request = ChatRequest::read(bytes)?;
    request.options.include_usage()?;
    assert_within(&request.ask(&BOUNDS)?);
    assert!(!request.messages()?.is_empty());
    // What was read says the same when it is written and read again.
    let again = ChatRequest::read(&serde_json::to_vec(&request).unwrap())?;
    assert_eq!(again, request);
    Ok(())
}

fn read_completion(bytes: &[u8]) -> Result<(), ApiError> {
    let request = CompletionRequest::read(bytes)?;
    request.options.include_usage()?;
    assert_within(&request.ask(&BOUNDS)?);
    let prompts = request.prompts(&BOUNDS)?;
    assert!((1..=BOUNDS.prompts).contains(&prompts.len()));
    Ok(())
}

/// Bytes put elsewhere, left out or replaced.
fn torn(mut bytes: Vec<u8>, tears: &[(Index, Index, u8)]) -> Vec<u8> {
    for (from, to, kind) in tears {
        let (from, to) = (from.index(bytes.len().max(1)), to.index(bytes.len().max(1)));
        let (from, to) = (from.min(to), from.max(to).min(bytes.len()));
        match kind % 5 {
            0 => bytes.truncate(to),
            1 => drop(bytes.drain(from..to.min(from + 8))),
            2 => {
                let copy = bytes[from..to.min(from + 64)].to_vec();
                bytes.splice(to..to, copy).for_each(drop);
            }
            _ if from < bytes.len() => bytes[from] = *kind,
            _ => bytes.push(*kind),
        }
    }
    bytes
}

type Tears = Vec<(Index, Index, u8)>;

fn inputs() -> impl Strategy<Value = (Vec<Change>, Tears)> {
    let tears = vec((any::<Index>(), any::<Index>(), any::<u8>()), 1..4);
    (changes(), prop_oneof![3 => Just(Tears::new()), 1 => tears])
}

fn try_all(cases: u32, document: &Value, read: impl Fn(&[u8]) -> Result<(), ApiError>) {
    read(document.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error:?}"));
    let others = others();
    search(cases, &inputs(), |(changes, tears)| {
        let document = changed(document.clone(), &changes, &others).to_string();
        if let Err(error) = read(&torn(document.into_bytes(), &tears)) {
            assert_refused(&error);
        }
    });
}

#[test]
fn whatever_stands_in_a_chat_it_is_read_or_refused() {
    try_all(3000, &chat(), read_chat);
}

#[test]
fn whatever_stands_in_a_completion_it_is_read_or_refused() {
    try_all(3000, &completion(), read_completion);
}
