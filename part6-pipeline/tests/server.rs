//! What a server says to well-meant requests, over real connections.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod serving;

use serde_json::{Value, json};
use serving::Server;

#[test]
fn a_chat_is_answered_whole_and_in_events_with_the_same_text() {
    let server = Server::start(&[]);
    let body = |stream: bool| json!({"max_tokens": 12, "temperature": 0, "stream": stream});
    let whole = server.chat(body(false)).json();
    assert_eq!(whole["object"], "chat.completion");
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["logprobs"], Value::Null);
    assert_eq!(whole["usage"]["completion_tokens"], 12);

    let reply = server.chat(body(true));
    assert_eq!(
        reply.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    let chunks = reply.chunks();
    let deltas = |key: &str| {
        chunks
            .iter()
            .map(|chunk| chunk["choices"][0]["delta"][key].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(deltas("role")[0], "assistant");
    assert!(
        deltas("role")[1..].iter().all(Value::is_null),
        "{chunks:#?}"
    );
    let text: String = deltas("content").iter().filter_map(Value::as_str).collect();
    assert_eq!(text, choice["message"]["content"]);
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert_eq!(last["choices"][0]["delta"], json!({}));
    for chunk in others {
        let choice = chunk["choices"][0].as_object().unwrap();
        assert_eq!(choice["finish_reason"], Value::Null);
        assert_eq!(
            (&chunk["id"], &chunk["created"]),
            (&last["id"], &last["created"])
        );
        assert!(chunk.get("usage").is_none(), "nobody asked for it");
    }
}

#[test]
fn usage_comes_in_a_chunk_without_choices_and_is_null_in_all_others() {
    let server = Server::start(&[]);
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let body = json!({
            "messages": [{"role": "user", "content": "hi"}], "prompt": "hi", "max_tokens": 3,
            "stream": true, "stream_options": {"include_usage": true},
        });
        let chunks = server.post(path, &body).chunks();
        let (last, others) = chunks.split_last().unwrap();
        assert_eq!(last["choices"], json!([]));
        assert!(last["usage"]["prompt_tokens"].as_u64().unwrap() > 0);
        assert_eq!(last["usage"]["completion_tokens"], 3);
        for chunk in others {
            assert_eq!(chunk.get("usage"), Some(&Value::Null), "{chunk}");
            assert_eq!(chunk["choices"].as_array().unwrap().len(), 1, "{chunk}");
        }
    }
}

#[test]
fn prompts_are_texts_and_ids_one_and_many_and_each_has_its_answers() {
    let server = Server::start(&[]);
    let ask = |prompt: Value, n: u64| {
        let body = json!({"prompt": prompt, "max_tokens": 5, "temperature": 0, "n": n});
        let reply = server.post("/v1/completions", &body);
        assert_eq!(reply.status, 200, "{reply:?}");
        let json = reply.json();
        let choices = json["choices"].as_array().unwrap().clone();
        let texts: Vec<String> = (choices.iter().enumerate())
            .map(|(index, choice)| {
                assert_eq!(choice["index"], index);
                choice["text"].as_str().unwrap().to_owned()
            })
            .collect();
        texts
    };
    let ids = server
        .post("/tokenize", &json!({"prompt": "Once upon"}))
        .json()["tokens"]
        .clone();
    let one = ask(json!("Once upon"), 1);
    assert_eq!(ask(ids.clone(), 1), one);
    let other = ask(json!("The cat"), 1);
    let both = [one[0].clone(), other[0].clone()];
    assert_eq!(ask(json!(["Once upon", "The cat"]), 1), both);
    assert_eq!(ask(json!([ids, "The cat"]), 1), both);
    let twice = [&both[0], &both[0], &both[1], &both[1]].map(String::clone);
    assert_eq!(ask(json!(["Once upon", "The cat"]), 2), twice);
}

#[test]
fn an_echo_begins_with_the_prompt_in_both_forms() {
    let server = Server::start(&[]);
    let body = |stream: bool| json!({"prompt": "Once upon", "max_tokens": 4, "temperature": 0, "echo": true, "stream": stream});
    let whole = server.post("/v1/completions", &body(false)).json();
    let text = whole["choices"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("Once upon") && text.len() > 9, "{text}");
    let chunks = server.post("/v1/completions", &body(true)).chunks();
    let texts = chunks
        .iter()
        .map(|chunk| chunk["choices"][0]["text"].as_str().unwrap());
    assert_eq!(texts.collect::<String>(), text);
}

#[test]
fn text_and_ids_go_both_ways_in_the_words_of_vllm_and_of_llama_cpp() {
    let server = Server::start(&[]);
    let text = "Once upon a time, café";
    let vllm = server
        .post(
            "/tokenize",
            &json!({"prompt": text, "add_special_tokens": false}),
        )
        .json();
    let llama = server.post("/tokenize", &json!({"content": text})).json();
    assert_eq!(vllm["tokens"], llama["tokens"]);
    assert_eq!(vllm["count"], vllm["tokens"].as_array().unwrap().len());
    let back = server
        .post("/detokenize", &json!({"tokens": vllm["tokens"]}))
        .json();
    assert_eq!(
        (&back["prompt"], &back["content"]),
        (&json!(text), &json!(text))
    );
    let pieces = server
        .post("/tokenize", &json!({"content": text, "with_pieces": true}))
        .json();
    let bytes: Vec<u8> = (pieces["tokens"].as_array().unwrap().iter())
        .flat_map(|token| match &token["piece"] {
            Value::String(text) => text.as_bytes().to_vec(),
            bytes => serde_json::from_value(bytes.clone()).unwrap(),
        })
        .collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), text);
    let info = server.get("/tokenizer_info").json();
    assert_eq!(info["eos_token"], "<|im_end|>");
    let said = json!({"messages": [{"role": "user", "content": "hi"}]});
    let prompt = server.post("/apply-template", &said).json()["prompt"].clone();
    assert_eq!(
        prompt,
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    );
    let of_chat = server.post("/tokenize", &said).json()["tokens"].clone();
    let of_text = server.post("/tokenize", &json!({"content": prompt})).json()["tokens"].clone();
    assert_eq!(of_chat, of_text);
}

#[test]
fn what_is_wrong_has_its_status_and_openais_shape() {
    let server = Server::start(&["--max-body", "1"]);
    let reply = server.chat(json!({"temperature": 3}));
    assert_eq!((reply.status, reply.param().as_str()), (400, "temperature"));
    let reply = server.chat(json!({"model": "gpt-5"}));
    assert_eq!(
        (reply.status, reply.error()["code"].clone()),
        (404, json!("model_not_found"))
    );
    let reply = server.get("/v1/nothing");
    assert_eq!(
        (reply.status, reply.error()["type"].clone()),
        (404, json!("invalid_request_error"))
    );
    let reply = server.get("/v1/chat/completions");
    assert_eq!(
        (reply.status, reply.error()["param"].clone()),
        (405, Value::Null)
    );
    assert_eq!(reply.header("allow"), Some("POST"));
    let reply = server.post("/v1/responses", &json!({"input": "hi"}));
    assert_eq!(reply.status, 404);
    assert!(
        reply.error()["message"]
            .as_str()
            .unwrap()
            .contains("/v1/chat/completions")
    );
    let reply =
        server.chat(json!({"messages": [{"role": "user", "content": "x".repeat(2_000_000)}]}));
    assert_eq!(
        (reply.status, reply.error()["type"].clone()),
        (413, json!("invalid_request_error"))
    );
    let reply = server.post("/v1/completions", &json!({"prompt": "hello ".repeat(3000)}));
    assert_eq!(
        (reply.status, reply.error()["code"].clone()),
        (400, json!("context_length_exceeded"))
    );
    server.assert_alive();
}

#[test]
fn a_key_is_needed_for_all_but_health_and_is_never_told() {
    let server = Server::start(&["--api-key", "sesame-123", "--log", "debug"]);
    assert_eq!(server.get("/health").status, 200);
    let reply = server.get("/v1/models");
    assert_eq!(
        (reply.status, reply.error()["code"].clone()),
        (401, json!("invalid_api_key"))
    );
    assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    for (header, status) in [
        ("Authorization: Bearer sesame-123\r\n", 200),
        ("authorization: bearer sesame-123\r\n", 200),
        ("Authorization: Bearer sesame-124\r\n", 401),
        ("Authorization: Bearer sesame-1234\r\n", 401),
        ("Authorization: Bearer\r\n", 401),
        ("Authorization: sesame-123\r\n", 401),
    ] {
        assert_eq!(
            server.send("GET", "/v1/models", header, b"").status,
            status,
            "{header}"
        );
    }
    server.get("/at/the/end");
    let told = server.told_until("/at/the/end").join("\n");
    assert!(
        told.contains("/v1/models") && !told.contains("sesame"),
        "{told}"
    );
}

#[test]
fn only_our_own_names_and_pages_that_are_listed_are_answered() {
    let server = Server::start(&[
        "--allow-host",
        "mac.local",
        "--cors",
        "https://page.example",
    ]);
    let host = |host: &str| {
        let bytes = format!("GET /v1/models HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        serving::parse(&server.raw(bytes.as_bytes()))
            .unwrap()
            .status
    };
    for ours in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1:80",
        "[::1]:80",
        "10.0.0.7",
        "mac.local:8080",
    ] {
        assert_eq!(host(&format!("Host: {ours}\r\n")), 200, "{ours}");
    }
    for other in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "mac.local.",
        "a b",
    ] {
        assert_ne!(host(&format!("Host: {other}\r\n")), 200, "{other}");
    }
    assert_eq!(host(""), 400);
    assert_eq!(host("Host: localhost\r\nHost: evil.example\r\n"), 400);

    let page =
        |origin: &str| server.send("GET", "/v1/models", &format!("Origin: {origin}\r\n"), b"");
    let listed = page("https://page.example");
    assert_eq!(
        listed.header("access-control-allow-origin"),
        Some("https://page.example")
    );
    for origin in ["https://evil.example", "null", "http://page.example"] {
        let reply = page(origin);
        assert_eq!(
            (reply.status, reply.header("access-control-allow-origin")),
            (403, None)
        );
    }
    let ask = "Origin: https://page.example\r\nAccess-Control-Request-Method: POST\r\n";
    let reply = server.send("OPTIONS", "/v1/chat/completions", ask, b"");
    assert_eq!(reply.status, 204);
    assert!(
        reply
            .header("access-control-allow-headers")
            .unwrap()
            .contains("authorization")
    );
}

#[test]
fn a_model_answers_to_its_own_name_and_to_others_that_it_was_given() {
    let server = Server::start(&["--alias", "owner/model", "--alias", "gpt-5"]);
    let list = server.get("/v1/models").json();
    assert_eq!(list["data"][0]["id"], "owner/model");
    assert_eq!(
        server.get("/v1/models/owner/model").json()["object"],
        "model"
    );
    assert_eq!(server.get("/v1/models/other").status, 404);
    for (name, status) in [
        ("tiny", 200),
        ("gpt-5", 200),
        ("owner/model", 200),
        ("", 200),
        ("other", 404),
    ] {
        let reply = server.chat(json!({"model": name, "max_tokens": 1}));
        assert_eq!(reply.status, status, "{name}");
    }
}

#[test]
fn the_description_names_every_path_that_there_is() {
    let server = Server::start(&[]);
    let description = server.get("/openapi.json").json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3."));
    let mut paths: Vec<&String> = description["paths"].as_object().unwrap().keys().collect();
    paths.sort();
    let expected = [
        "/apply-template",
        "/detokenize",
        "/health",
        "/live",
        "/metrics",
        "/tokenize",
        "/tokenizer_info",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/v1/models/{model}",
        "/what-if",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn the_description_says_what_events_and_tokens_are() {
    let server = Server::start(&[]);
    let description = server.get("/openapi.json").json();
    for (path, data) in [
        ("/paths/~1v1~1chat~1completions/post", "ChatChunk"),
        ("/paths/~1v1~1completions/post", "Completion"),
        ("/paths/~1live/get", "LiveData"),
    ] {
        let responses = &description.pointer(path).unwrap()["responses"];
        let event = &responses["200"]["content"]["text/event-stream"]["schema"];
        assert_eq!(event["required"], json!(["data"]), "{path}");
        let text = &event["properties"]["data"];
        assert_eq!(text["type"], "string", "{path}");
        let schema = text["contentSchema"]["$ref"].as_str().unwrap();
        assert_eq!(schema, format!("#/components/schemas/{data}"));
        assert!(description.pointer(&schema[1..]).is_some(), "{schema}");
    }
    let schemas = &description["components"]["schemas"];
    let types = |name: &str| -> Vec<Value> {
        let all = schemas[name]["oneOf"].as_array().unwrap().iter();
        all.map(|one| one.get("type").or(one.get("$ref")).unwrap().clone())
            .collect()
    };
    let [state, steps] =
        ["EngineState", "Steps"].map(|name| json!(format!("#/components/schemas/{name}")));
    assert_eq!(types("LiveData"), [state, steps]);
    let items = schemas["Tokenized"]["properties"]["tokens"]["items"].clone();
    assert_eq!(items, json!({"$ref": "#/components/schemas/IdOrPiece"}));
    let piece = json!("#/components/schemas/Piece");
    assert_eq!(types("IdOrPiece"), [json!("integer"), piece]);
    assert_eq!(types("TextOrBytes"), ["string", "array"]);
}

#[test]
fn counters_count_requests_tokens_and_times() {
    let server = Server::start(&[]);
    server.chat(json!({"max_tokens": 5, "temperature": 0}));
    server.get("/made-up/path");
    let text = server.get("/metrics").body;
    for line in [
        "pipeline_requests_total{path=\"/v1/chat/completions\",status=\"200\"} 1",
        "pipeline_requests_total{path=\"other\",status=\"404\"} 1",
        "pipeline_completion_tokens_total 5",
        "pipeline_time_to_first_token_seconds_count 1",
        "pipeline_inter_token_seconds_count 4",
        "pipeline_request_seconds_count 1",
    ] {
        assert!(
            text.lines().any(|other| other == line),
            "no {line} in {text}"
        );
    }
}
