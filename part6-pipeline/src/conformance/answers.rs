//! Chats that are answered whole.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Case;
use super::client::{Client, list, number, text};

const CONTENT: &str = "/choices/0/message/content";
const REASON: &str = "/choices/0/finish_reason";

#[rustfmt::skip] // a table
pub(super) const CASES: &[Case] = &[
    Case { id: "chat.answer", what: "an answer has its object, id, model, role and text", check: answer },
    Case { id: "chat.usage", what: "it says how many tokens it has cost", check: usage },
    Case { id: "chat.max_tokens", what: "max_tokens ends it with finish_reason length", check: max_tokens },
    Case { id: "chat.max_completion_tokens", what: "so does max_completion_tokens", check: max_completion_tokens },
    Case { id: "chat.greedy", what: "at temperature 0 the same request has the same answer", check: greedy },
    Case { id: "chat.seed", what: "with a seed the same request has the same answer", check: seed },
    Case { id: "chat.n", what: "n: 2 gives two answers", check: two },
    Case { id: "chat.stop", what: "a stop text ends it and is no part of it", check: stop },
    Case { id: "chat.stop_list", what: "so does one of several", check: stop_list },
    Case { id: "chat.parts", what: "content in parts is the same as one text", check: parts },
    Case { id: "chat.developer", what: "a developer may speak", check: developer },
    Case { id: "chat.null", what: "null is the same as nothing", check: nulls },
    Case { id: "chat.unknown", what: "fields of newer clients are read past", check: unknown },
    Case { id: "chat.logprobs", what: "log-probabilities have token, bytes and the likeliest ones", check: logprobs },
    Case { id: "chat.logprobs_text", what: "the tokens in a row are the text", check: logprobs_text },
    Case { id: "chat.logit_bias", what: "logit_bias decides about a token", check: logit_bias },
    Case { id: "chat.penalties", what: "presence and frequency penalties are taken", check: penalties },
    Case { id: "chat.json_object", what: "json_object gives a JSON object", check: json_object },
    Case { id: "chat.json_schema", what: "json_schema gives what the schema allows", check: json_schema },
    Case { id: "chat.cached_tokens", what: "usage says how much of the prompt was cached", check: cached },
];

/// A greedy answer of 8 tokens, unless the fields say otherwise.
fn ask(client: &Client, mut fields: Value) -> Result<Value> {
    if let Some(object) = fields.as_object_mut() {
        object.entry("max_tokens").or_insert(json!(8));
        object.entry("temperature").or_insert(json!(0));
    }
    client.chat(fields)?.answer()
}

fn answer(client: &Client) -> Result<()> {
    let answer = ask(client, json!({}))?;
    ensure!(
        text(&answer, "/object")? == "chat.completion",
        "another object"
    );
    ensure!(
        text(&answer, "/choices/0/message/role")? == "assistant",
        "another role"
    );
    ensure!(!text(&answer, CONTENT)?.is_empty(), "no text");
    for place in ["/id", "/model", REASON] {
        text(&answer, place)?;
    }
    number(&answer, "/created")?;
    number(&answer, "/choices/0/index").map(drop)
}

fn usage(client: &Client) -> Result<()> {
    let answer = ask(client, json!({}))?;
    let prompt = number(&answer, "/usage/prompt_tokens")?;
    let completion = number(&answer, "/usage/completion_tokens")?;
    ensure!(
        prompt > 0 && completion > 0,
        "{prompt} and {completion} tokens"
    );
    ensure!(
        number(&answer, "/usage/total_tokens")? == prompt + completion,
        "another sum"
    );
    Ok(())
}

fn max_tokens(client: &Client) -> Result<()> {
    limited(&ask(client, json!({"max_tokens": 3}))?)
}

fn max_completion_tokens(client: &Client) -> Result<()> {
    let fields = json!({"max_completion_tokens": 3, "temperature": 0});
    limited(&client.chat(fields)?.answer()?)
}

fn limited(answer: &Value) -> Result<()> {
    let tokens = number(answer, "/usage/completion_tokens")?;
    ensure!(tokens == 3, "{tokens} tokens");
    ensure!(text(answer, REASON)? == "length", "another finish_reason");
    Ok(())
}

fn greedy(client: &Client) -> Result<()> {
    same(client, &json!({}))
}

fn seed(client: &Client) -> Result<()> {
    same(
        client,
        &json!({"max_tokens": 16, "temperature": 1, "seed": 7}),
    )
}

fn same(client: &Client, fields: &Value) -> Result<()> {
    let one = ask(client, fields.clone())?;
    let other = ask(client, fields.clone())?;
    ensure!(
        text(&one, CONTENT)? == text(&other, CONTENT)?,
        "two answers"
    );
    Ok(())
}

fn two(client: &Client) -> Result<()> {
    let answer = ask(client, json!({"n": 2, "temperature": 1}))?;
    let count = list(&answer, "/choices")?.len();
    ensure!(count == 2, "{count} answers");
    ensure!(number(&answer, "/choices/1/index")? == 1, "another index");
    Ok(())
}

/// A word from the middle of an answer must end it there.
fn stopped(client: &Client, stop: impl Fn(&str) -> Value) -> Result<()> {
    let whole = ask(client, json!({"max_tokens": 24}))?;
    let whole = text(&whole, CONTENT)?;
    let mut words = whole.split_whitespace().filter(|word| word.len() > 3);
    let word = words.nth(2).unwrap_or("zzzz");
    let end = whole.find(word).unwrap_or(whole.len());
    let answer = ask(client, json!({"max_tokens": 24, "stop": stop(word)}))?;
    let got = text(&answer, CONTENT)?;
    ensure!(
        got == &whole[..end],
        "{got:?} is not what comes before {word:?}"
    );
    ensure!(text(&answer, REASON)? == "stop", "another finish_reason");
    Ok(())
}

fn stop(client: &Client) -> Result<()> {
    stopped(client, |word| json!(word))
}

fn stop_list(client: &Client) -> Result<()> {
    stopped(client, |word| json!(["zzzzzz", word, "yyyyyy"]))
}

fn parts(client: &Client) -> Result<()> {
    let parts = json!([{"type": "text", "text": "Tell me "}, {"type": "text", "text": "a story."}]);
    let one = ask(client, json!({}))?;
    let other = ask(
        client,
        json!({"messages": [{"role": "user", "content": parts}]}),
    )?;
    ensure!(
        text(&one, CONTENT)? == text(&other, CONTENT)?,
        "another answer"
    );
    Ok(())
}

fn developer(client: &Client) -> Result<()> {
    let said =
        json!([{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
    ask(client, json!({"messages": said})).map(drop)
}

fn nulls(client: &Client) -> Result<()> {
    let fields = json!({
        "max_tokens": 4, "temperature": null, "top_p": null, "n": null, "stop": null, "seed": null,
        "presence_penalty": null, "frequency_penalty": null, "logit_bias": null, "logprobs": null,
        "top_logprobs": null, "response_format": null, "tools": null, "tool_choice": null, "stream": null,
        "stream_options": null, "user": null, "max_completion_tokens": null,
    });
    client.chat(fields)?.answer().map(drop)
}

fn unknown(client: &Client) -> Result<()> {
    let fields = json!({
        "service_tier": "auto", "store": false, "metadata": {"a": "b"}, "prompt_cache_key": "x", "verbosity": "low",
        "reasoning_effort": "low", "parallel_tool_calls": true, "user": "me", "not_a_field": [1],
    });
    ask(client, fields).map(drop)
}

fn with_logprobs(client: &Client) -> Result<Value> {
    ask(client, json!({"logprobs": true, "top_logprobs": 3}))
}

fn logprobs(client: &Client) -> Result<()> {
    let answer = with_logprobs(client)?;
    let tokens = list(&answer, "/choices/0/logprobs/content")?;
    let count = number(&answer, "/usage/completion_tokens")?;
    ensure!(
        tokens.len() as u64 == count,
        "{} entries for {count} tokens",
        tokens.len()
    );
    for token in tokens {
        text(token, "/token")?;
        list(token, "/bytes")?;
        let own = token["logprob"].as_f64();
        ensure!(
            own.is_some_and(|p| (-1000.0..=0.0).contains(&p)),
            "{own:?} is no log-probability"
        );
        let top = list(token, "/top_logprobs")?;
        ensure!(top.len() == 3, "{} likeliest tokens", top.len());
        ensure!(
            top[0]["logprob"].as_f64() == own,
            "the greedy token is not the likeliest one"
        );
    }
    Ok(())
}

fn logprobs_text(client: &Client) -> Result<()> {
    let answer = with_logprobs(client)?;
    let tokens = list(&answer, "/choices/0/logprobs/content")?;
    let joined: String = tokens
        .iter()
        .filter_map(|token| token["token"].as_str())
        .collect();
    ensure!(joined == text(&answer, CONTENT)?, "{joined:?}");
    Ok(())
}

fn logit_bias(client: &Client) -> Result<()> {
    let answer = ask(client, json!({"logit_bias": {"40": 100}, "max_tokens": 3}))?;
    let content = text(&answer, CONTENT)?;
    let mut chars = content.chars();
    let first = chars.next();
    ensure!(
        first.is_some() && chars.all(|c| Some(c) == first),
        "{content:?} is not one token three times"
    );
    Ok(())
}

fn penalties(client: &Client) -> Result<()> {
    let fields = json!({"presence_penalty": 1.5, "frequency_penalty": 1.5, "max_tokens": 24});
    ask(client, fields).map(drop)
}

fn json_object(client: &Client) -> Result<()> {
    let fields = json!({"response_format": {"type": "json_object"}, "max_tokens": 200});
    let answer = ask(client, fields)?;
    let content = text(&answer, CONTENT)?;
    if text(&answer, REASON)? == "stop" {
        let value: Value = serde_json::from_str(content)?;
        ensure!(value.is_object(), "{content:?} is no object");
    } else {
        ensure!(
            content.trim_start().starts_with('{'),
            "{content:?} begins no object"
        );
    }
    Ok(())
}

fn json_schema(client: &Client) -> Result<()> {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["yes", "count"],
        "properties": {"yes": {"type": "boolean"}, "count": {"enum": [1, 2, 3]}},
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": schema}});
    let answer = ask(
        client,
        json!({"response_format": format, "max_tokens": 100}),
    )?;
    let value: Value = serde_json::from_str(text(&answer, CONTENT)?)?;
    ensure!(value["yes"].is_boolean(), "no boolean: {value}");
    ensure!(
        [1, 2, 3].map(Value::from).contains(&value["count"]),
        "another number: {value}"
    );
    Ok(())
}

fn cached(client: &Client) -> Result<()> {
    let answer = ask(client, json!({}))?;
    let cached = number(&answer, "/usage/prompt_tokens_details/cached_tokens")?;
    ensure!(
        cached <= number(&answer, "/usage/prompt_tokens")?,
        "more than there are"
    );
    Ok(())
}
