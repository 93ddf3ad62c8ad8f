//! Answers in events.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Case;
use super::client::{Client, list, text};

#[rustfmt::skip] // a table
pub(super) const CASES: &[Case] = &[
    Case { id: "stream.events", what: "events are text/event-stream and end with [DONE]", check: events },
    Case { id: "stream.text", what: "their text is that of the whole answer", check: same_text },
    Case { id: "stream.role", what: "the first one has the role, and no later one", check: role },
    Case { id: "stream.finish_reason", what: "finish_reason is null until the last one", check: finish_reason },
    Case { id: "stream.id", what: "all have one id, object, model and time", check: one_id },
    Case { id: "stream.usage", what: "include_usage adds one without choices; usage is null before", check: usage },
    Case { id: "stream.no_usage", what: "nobody gets usage who did not ask", check: no_usage },
    Case { id: "stream.n", what: "n: 2 has events of two answers", check: two },
    Case { id: "stream.logprobs", what: "log-probabilities come along", check: logprobs },
    Case { id: "stream.completion", what: "a completion comes in events too", check: completion },
];

fn chunks(client: &Client, extra: &Value) -> Result<Vec<Value>> {
    let mut fields = json!({"max_tokens": 8, "temperature": 0, "stream": true});
    if let (Some(fields), Some(extra)) = (fields.as_object_mut(), extra.as_object()) {
        fields.extend(extra.clone());
    }
    client.chat(fields)?.chunks()
}

fn choice(chunk: &Value) -> Option<&Value> {
    chunk["choices"].get(0)
}

fn events(client: &Client) -> Result<()> {
    let reply = client.chat(json!({"max_tokens": 4, "stream": true}))?;
    let kind = reply.kind.clone();
    ensure!(
        kind.starts_with("text/event-stream"),
        "content-type {kind:?}"
    );
    ensure!(!reply.chunks()?.is_empty(), "no events");
    Ok(())
}

fn same_text(client: &Client) -> Result<()> {
    let whole = client
        .chat(json!({"max_tokens": 8, "temperature": 0}))?
        .answer()?;
    let chunks = chunks(client, &json!({}))?;
    let texts = chunks
        .iter()
        .filter_map(|chunk| choice(chunk)?["delta"]["content"].as_str());
    let joined: String = texts.collect();
    ensure!(
        joined == text(&whole, "/choices/0/message/content")?,
        "{joined:?}"
    );
    Ok(())
}

fn role(client: &Client) -> Result<()> {
    let chunks = chunks(client, &json!({}))?;
    let choices = chunks.iter().filter_map(choice);
    let mut roles = choices.map(|choice| &choice["delta"]["role"]);
    ensure!(
        roles.next().is_some_and(|role| role == "assistant"),
        "no role in the first one"
    );
    let later = roles.filter(|role| !role.is_null()).count();
    ensure!(later == 0, "the role again in {later} others");
    Ok(())
}

fn finish_reason(client: &Client) -> Result<()> {
    let chunks = chunks(client, &json!({}))?;
    let choices: Vec<&Value> = chunks.iter().filter_map(choice).collect();
    let (last, others) = choices.split_last().context("no choices")?;
    ensure!(
        last["finish_reason"] == "length",
        "{} in the last one",
        last["finish_reason"]
    );
    let null = |choice: &&Value| choice.get("finish_reason") == Some(&Value::Null);
    ensure!(others.iter().all(null), "not null in others");
    Ok(())
}

fn one_id(client: &Client) -> Result<()> {
    let chunks = chunks(client, &json!({}))?;
    let first = chunks.first().context("no events")?;
    text(first, "/id")?;
    ensure!(
        text(first, "/object")? == "chat.completion.chunk",
        "another object"
    );
    for key in ["id", "object", "model", "created"] {
        ensure!(
            chunks.iter().all(|chunk| chunk[key] == first[key]),
            "another {key}"
        );
    }
    Ok(())
}

fn usage(client: &Client) -> Result<()> {
    let chunks = chunks(client, &json!({"stream_options": {"include_usage": true}}))?;
    let (last, others) = chunks.split_last().context("no events")?;
    ensure!(
        list(last, "/choices")?.is_empty(),
        "the last one has choices"
    );
    ensure!(
        last["usage"]["completion_tokens"] == 8,
        "usage {}",
        last["usage"]
    );
    let null = |chunk: &Value| chunk.get("usage") == Some(&Value::Null);
    ensure!(others.iter().all(null), "usage is not null in others");
    Ok(())
}

fn no_usage(client: &Client) -> Result<()> {
    let chunks = chunks(client, &json!({}))?;
    ensure!(chunks.iter().all(|chunk| chunk["usage"].is_null()), "usage");
    ensure!(
        chunks.iter().all(|chunk| choice(chunk).is_some()),
        "an event without choices"
    );
    Ok(())
}

fn two(client: &Client) -> Result<()> {
    let chunks = chunks(client, &json!({"n": 2, "temperature": 1}))?;
    for index in 0..2 {
        let ends =
            |choice: &&Value| choice["index"] == index && choice["finish_reason"].is_string();
        let count = chunks.iter().filter_map(choice).filter(ends).count();
        ensure!(count == 1, "{count} ends of answer {index}");
    }
    Ok(())
}

fn logprobs(client: &Client) -> Result<()> {
    let chunks = chunks(client, &json!({"logprobs": true, "top_logprobs": 1}))?;
    let lists = chunks
        .iter()
        .filter_map(|chunk| choice(chunk)?["logprobs"]["content"].as_array());
    let tokens: Vec<&Value> = lists.flatten().collect();
    ensure!(tokens.len() == 8, "{} entries for 8 tokens", tokens.len());
    tokens
        .iter()
        .try_for_each(|token| text(token, "/token").map(drop))
}

fn completion(client: &Client) -> Result<()> {
    let fields = |stream: bool| json!({"max_tokens": 8, "temperature": 0, "stream": stream});
    let whole = client.complete(fields(false))?.answer()?;
    let chunks = client.complete(fields(true))?.chunks()?;
    let texts = chunks
        .iter()
        .filter_map(|chunk| choice(chunk)?["text"].as_str());
    let joined: String = texts.collect();
    ensure!(joined == text(&whole, "/choices/0/text")?, "{joined:?}");
    Ok(())
}
