//! Tools through the server: what the model is told of them, and what a client gets of its calls.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod serving;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use serving::{Reply, Server, fixture};
use tempfile::TempDir;

/// The embedded model with another chat template.
fn with_template(template: &str) -> TempDir {
    let place = TempDir::new().unwrap();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/models/tiny");
    for file in fs::read_dir(tiny).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), place.path().join(file.file_name())).unwrap();
    }
    let config = place.path().join("tokenizer_config.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    value["chat_template"] = template.into();
    fs::write(&config, value.to_string()).unwrap();
    place
}

fn serve(place: &TempDir) -> Server {
    Server::start(&["--model", place.path().to_str().unwrap(), "--dtype", "f32"])
}

fn templates() -> Vec<(String, String)> {
    let fixture = fixture("tokenizers/tools.json");
    let cases = fixture["cases"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    cases
        .map(|case| (text(&case["name"]), text(&case["template"])))
        .collect()
}

#[test]
fn conversations_with_tools_become_the_prompts_that_transformers_writes() {
    let fixture = fixture("tokenizers/tools.json");
    let requests = fixture["requests"].as_array().unwrap();
    for case in fixture["cases"].as_array().unwrap() {
        let place = with_template(case["template"].as_str().unwrap());
        let server = serve(&place);
        for (request, expected) in requests.iter().zip(case["expected"].as_array().unwrap()) {
            let reply = server.post("/apply-template", request);
            if let Some(raises) = expected["raises"].as_str() {
                assert_eq!(reply.status, 422);
                let message = reply.error()["message"].clone();
                assert!(message.as_str().unwrap().contains(raises), "{message}");
            } else {
                assert_eq!(reply.status, 200, "{reply:?}");
                assert_eq!(reply.json()["prompt"], expected["text"], "{}", case["name"]);
            }
        }
    }
}

fn tools() -> Value {
    json!([
        {"type": "function", "function": {"name": "get_weather", "description": "Tells the weather", "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"], "additionalProperties": false,
        }}},
        {"type": "function", "function": {"name": "clock"}},
    ])
}

/// Name and arguments, which must be JSON.
fn called(call: &Value) -> (String, Value) {
    assert_eq!(call["type"], "function");
    assert!(call["id"].as_str().unwrap().len() >= 9);
    let function = &call["function"];
    let arguments = function["arguments"].as_str().unwrap();
    let name = function["name"].as_str().unwrap().to_owned();
    (name, serde_json::from_str(arguments).unwrap())
}

/// As OpenAI's client puts chunks together.
fn put_together(reply: &Reply) -> (Value, String) {
    let chunks = reply.chunks();
    let mut calls: Vec<Value> = Vec::new();
    let mut reason = String::new();
    for chunk in &chunks {
        let choice = &chunk["choices"][0];
        assert!(reason.is_empty(), "after the end: {chunk}");
        if let Some(told) = choice["finish_reason"].as_str() {
            told.clone_into(&mut reason);
            assert_eq!(choice["delta"], json!({}));
        }
        for delta in choice["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let index = delta["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                assert!(delta["id"].is_string() && delta["function"]["name"].is_string());
                assert_eq!(delta["function"]["arguments"], "");
                calls.push(delta.clone());
            } else {
                assert_eq!(index + 1, calls.len());
                assert!(delta.get("id").is_none() && delta["function"].get("name").is_none());
                let arguments = calls[index]["function"]["arguments"].as_str().unwrap();
                let more = delta["function"]["arguments"].as_str().unwrap();
                assert!(!more.is_empty());
                calls[index]["function"]["arguments"] = format!("{arguments}{more}").into();
            }
        }
    }
    assert!(
        chunks.len() > calls.len() + 3,
        "the arguments come in pieces"
    );
    (calls.into(), reason)
}

#[test]
fn a_call_that_has_to_come_meets_the_schema_of_its_tool_in_every_family_whole_and_in_events() {
    for (name, template) in templates() {
        let place = with_template(&template);
        let server = serve(&place);
        let named = json!({"type": "function", "function": {"name": "get_weather"}});
        for (choice, seed) in [(named, 1), (json!("required"), 2), (json!("required"), 3)] {
            let ask = |stream: bool| json!({"tools": tools(), "tool_choice": choice, "max_tokens": 200, "seed": seed, "stream": stream});
            let whole = server.chat(ask(false));
            assert_eq!(whole.status, 200, "{name}: {whole:?}");
            let answer = whole.json()["choices"][0].clone();
            assert_eq!(answer["finish_reason"], "tool_calls", "{name}: {answer}");
            assert_eq!(answer["message"]["content"], Value::Null, "{name}");
            let [call] = &answer["message"]["tool_calls"].as_array().unwrap()[..] else {
                panic!("{answer}")
            };
            let (function, arguments) = called(call);
            if function == "get_weather" {
                assert!(arguments["city"].as_str().unwrap().chars().count() <= 8);
                assert!(["celsius", "fahrenheit"].contains(&arguments["unit"].as_str().unwrap()));
                assert_eq!(arguments.as_object().unwrap().len(), 2);
            } else {
                assert_eq!(
                    (function.as_str(), &choice, &arguments),
                    ("clock", &json!("required"), &json!({}))
                );
            }
            let (calls, reason) = put_together(&server.chat(ask(true)));
            assert_eq!(reason, "tool_calls");
            assert_eq!(called(&calls[0]), (function, arguments), "{name}");
            // The answer goes back with what the tool has said: the prompt of the next turn.
            let next = json!({"messages": [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": null, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": call["id"], "content": "sunny"},
            ], "tools": tools(), "max_tokens": 4});
            let reply = server.chat(next);
            assert_eq!(reply.status, 200, "{name}: {reply:?}");
        }
    }
}

#[test]
fn without_a_call_text_is_text_and_nothing_of_it_is_lost() {
    let (_, template) = templates().remove(0);
    let place = with_template(&template);
    let server = serve(&place);
    let ask = |tools: &Value, choice: &Value, stream: bool| {
        let body = json!({
            "tools": tools, "tool_choice": choice, "max_tokens": 16, "temperature": 0, "stream": stream,
            "logprobs": true, "top_logprobs": 0,
        });
        server.chat(body)
    };
    let plain = ask(&Value::Null, &Value::Null, false).json()["choices"][0].clone();
    let none = ask(&tools(), &json!("none"), false).json()["choices"][0].clone();
    assert_eq!(none["message"], plain["message"]);
    let auto = ask(&tools(), &json!("auto"), false).json()["choices"][0].clone();
    let text = auto["message"]["content"].as_str().unwrap().to_owned();
    assert_eq!(auto["finish_reason"], "length");
    assert!(!text.is_empty() && auto["message"].get("tool_calls").is_none());
    let chunks = ask(&tools(), &json!("auto"), true).chunks();
    let contents = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(contents.collect::<String>(), text);
    let tokens = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(tokens.flatten().count(), 16);
}

#[test]
fn what_cannot_be_called_is_refused_by_name() {
    let (_, template) = templates().remove(0);
    let place = with_template(&template);
    let server = serve(&place);
    let refused = |server: &Server, body: Value| {
        let reply = server.chat(body);
        assert_eq!(reply.status, 400, "{reply:?}");
        reply.param()
    };
    let schema = json!({"type": "json_object"});
    let named = |name: &str| json!({"type": "function", "function": {"name": name}});
    let unmet = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}]);
    for (body, param) in [
        (json!({"tools": 1}), "tools"),
        (json!({"tools": [{"type": "web"}]}), "tools"),
        (
            json!({"tools": tools(), "tool_choice": "sometimes"}),
            "tool_choice",
        ),
        (
            json!({"tools": tools(), "tool_choice": named("other")}),
            "tool_choice",
        ),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (
            json!({"tools": tools(), "parallel_tool_calls": 1}),
            "parallel_tool_calls",
        ),
        (json!({"tools": unmet, "tool_choice": "required"}), "tools"),
    ] {
        assert_eq!(refused(&server, body.clone()), param, "{body}");
    }
    let fine = json!({"tools": tools(), "tool_choice": "none", "response_format": schema, "max_tokens": 4});
    assert_eq!(server.chat(fine).status, 200);
    let tiny = Server::start(&[]);
    assert_eq!(refused(&tiny, json!({"tools": tools()})), "tools");
    let fine = json!({"tools": tools(), "tool_choice": "none", "max_tokens": 2});
    assert_eq!(tiny.chat(fine).status, 200);
    let told = json!({"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]});
    assert_eq!(refused(&tiny, told), "messages");
}

/// What an answer has to be if it does not call.
fn format() -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "told", "schema": {
        "type": "object",
        "properties": {"told": {"type": "string", "maxLength": 9}, "sure": {"$ref": "#/$defs/sure"}},
        "required": ["told", "sure"], "additionalProperties": false, "$defs": {"sure": {"type": "boolean"}},
    }}})
}

fn meets_format(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap();
    assert!(value["told"].as_str().unwrap().chars().count() <= 9);
    assert!(value["sure"].is_boolean() && value.as_object().unwrap().len() == 2);
}

/// Makes the tokens with which one of two texts goes on likelier than all others.
fn rather(server: &Server, text: &str, than: &str) -> Value {
    let ids = |text: &str| -> Vec<u64> {
        let reply = server.post("/tokenize", &json!({"content": text}));
        let ids = reply.json()["tokens"].clone();
        serde_json::from_value(ids).unwrap()
    };
    let others = ids(than);
    let own = ids(text).into_iter().filter(|id| !others.contains(id));
    own.map(|id| (id.to_string(), json!(100))).collect()
}

#[test]
fn beside_tools_an_answer_is_a_call_or_meets_the_format_in_every_family_whole_and_in_events() {
    for (name, template) in templates() {
        let server = serve(&with_template(&template));
        let call = match name.as_str() {
            "llama" => "{\"name\": \"clock\"",
            "mistral" => "[",
            _ => "<tool_call>",
        };
        for (likely, unlikely, calls) in [(call, "{\"told\":", true), ("{\"told\":", call, false)] {
            for seed in 0..2 {
                let bias = rather(&server, likely, unlikely);
                let ask = |stream: bool| {
                    let body = json!({
                        "tools": tools(), "response_format": format(), "max_tokens": 200, "seed": seed,
                        "parallel_tool_calls": false, "logit_bias": bias, "stream": stream,
                    });
                    server.chat(body)
                };
                let whole = ask(false);
                assert_eq!(whole.status, 200, "{name}: {whole:?}");
                let answer = whole.json()["choices"][0].clone();
                let message = &answer["message"];
                if calls {
                    assert_eq!(answer["finish_reason"], "tool_calls", "{name}: {answer}");
                    assert_eq!(message["content"], Value::Null, "{name}");
                    let one = called(&message["tool_calls"][0]);
                    let (streamed, reason) = put_together(&ask(true));
                    assert_eq!(reason, "tool_calls");
                    assert_eq!(streamed.as_array().unwrap().len(), 1);
                    assert_eq!(called(&streamed[0]), one, "{name}");
                    continue;
                }
                assert_eq!(answer["finish_reason"], "stop", "{name}: {answer}");
                assert!(message.get("tool_calls").is_none(), "{name}: {answer}");
                let text = message["content"].as_str().unwrap();
                meets_format(text);
                let chunks = ask(true).chunks();
                let delta = |chunk: &Value| chunk["choices"][0]["delta"].clone();
                let deltas: Vec<Value> = chunks.iter().map(delta).collect();
                assert!(deltas.iter().all(|delta| delta.get("tool_calls").is_none()));
                let texts = deltas.iter().filter_map(|delta| delta["content"].as_str());
                assert_eq!(texts.collect::<String>(), text, "{name}");
            }
        }
    }
}

#[test]
fn an_answer_that_has_to_call_calls_whatever_format_others_would_have() {
    let (_, template) = templates().remove(0);
    let server = serve(&with_template(&template));
    for format in [format(), json!({"type": "json_object"})] {
        let body = json!({
            "tools": tools(), "tool_choice": "required", "response_format": format, "max_tokens": 200, "seed": 1,
        });
        let answer = server.chat(body).json()["choices"][0].clone();
        assert_eq!(answer["finish_reason"], "tool_calls", "{answer}");
        called(&answer["message"]["tool_calls"][0]);
    }
}

#[test]
fn a_format_that_could_be_taken_for_a_call_is_refused_where_calls_have_no_mark() {
    let any = json!({"type": "json_object"});
    let named = |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let person = json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}});
    let people = named(json!({"type": "array", "items": person}));
    let person = named(person);
    for (family, format, fine) in [
        ("qwen", &any, true),
        ("qwen", &person, true),
        ("qwen", &people, true),
        ("llama", &any, false),
        ("llama", &person, false),
        ("llama", &people, true),
        ("mistral", &any, true),
        ("mistral", &person, true),
        ("mistral", &people, false),
    ] {
        let mut all = templates().into_iter();
        let (_, template) = all.find(|(name, _)| name == family).unwrap();
        let server = serve(&with_template(&template));
        let body = json!({"tools": tools(), "response_format": format, "max_tokens": 3});
        let reply = server.chat(body.clone());
        if fine {
            assert_eq!(reply.status, 200, "{family}, {format}: {reply:?}");
            continue;
        }
        assert_eq!(
            (reply.status, reply.param().as_str()),
            (400, "response_format"),
            "{family}, {format}"
        );
        let message = reply.error()["message"].clone();
        assert!(
            message.as_str().unwrap().contains("tool_choice"),
            "{message}"
        );
        for choice in ["none", "required"] {
            let mut body = body.clone();
            body["tool_choice"] = choice.into();
            assert_eq!(server.chat(body).status, 200);
        }
    }
}

#[test]
fn beside_tools_what_is_not_supported_is_told_of_its_own_field() {
    let (_, template) = templates().remove(0);
    let server = serve(&with_template(&template));
    let unmet = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}]);
    let unmet_format =
        json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}});
    for (body, param) in [
        (
            json!({"tools": unmet, "response_format": format()}),
            "tools",
        ),
        (
            json!({"tools": tools(), "response_format": unmet_format}),
            "response_format",
        ),
    ] {
        let reply = server.chat(body);
        assert_eq!(
            (reply.status, reply.param().as_str()),
            (400, param),
            "{reply:?}"
        );
    }
}
