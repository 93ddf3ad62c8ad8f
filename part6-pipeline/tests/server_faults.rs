//! What a server makes of clients that are broken, slow, gone or hostile: it goes on, and frees what they had.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod serving;

use std::io::{BufRead, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use serving::{PATIENCE, Server, parse, request, with_messages};

/// An answer of many steps, in events.
fn long() -> Value {
    with_messages(json!({"max_tokens": 900, "ignore_eos": true, "stream": true}))
}

#[test]
fn a_client_that_goes_away_while_its_answer_is_made_frees_its_row() {
    let server = Server::start(&["--rows", "2"]);
    let gone = server.begin("/v1/chat/completions", &long());
    let mut stays = server.begin("/v1/chat/completions", &json!({
        "messages": [{"role": "user", "content": "hi"}], "max_tokens": 200, "ignore_eos": true, "stream": true,
    }));
    assert_eq!(server.metric("running"), 2.0);
    drop(gone);
    let left = server.metric("completion_tokens_total");
    let mut rest = String::new();
    stays.read_to_string(&mut rest).unwrap();
    assert!(
        rest.contains("\"length\"") && rest.contains("data: [DONE]"),
        "{rest}"
    );
    server.wait_until_idle();
    // All of the second answer, and no more than a moment of the first one.
    let more = server.metric("completion_tokens_total") - left;
    assert!(more < 500.0, "{more} tokens for nobody");
    server.assert_alive();
}

#[test]
fn a_client_that_goes_away_while_its_prompt_runs_or_waits_is_forgotten() {
    let server = Server::start(&["--rows", "1", "--piece", "16", "--tokens-per-step", "16"]);
    let prompt: Vec<u32> = (0..900).map(|id| 100 + id % 500).collect();
    for stream in [true, false] {
        let body =
            json!({"prompt": prompt, "max_tokens": 100, "ignore_eos": true, "stream": stream});
        let bytes = request(
            server.address,
            "POST",
            "/v1/completions",
            "",
            body.to_string().as_bytes(),
        );
        let gone: Vec<_> = (0..3)
            .map(|_| {
                let mut stream = server.connect();
                stream.write_all(&bytes).unwrap();
                stream
            })
            .collect();
        let end = Instant::now() + PATIENCE;
        while server.metric("running") + server.metric("waiting") < 3.0 {
            assert!(Instant::now() < end, "they do not begin");
        }
        drop(gone);
        server.wait_until_idle();
    }
    assert_eq!(server.metric("completion_tokens_total"), 0.0);
    server.assert_alive();
}

#[test]
fn a_reader_that_stops_reading_holds_up_nobody_and_is_cut_off() {
    let server = Server::start(&["--patience", "1", "--max-body", "8"]);
    // A response that does not fit into the buffers of the system.
    let word = server
        .post("/tokenize", &json!({"content": " something"}))
        .json()["tokens"][0]
        .clone();
    let body = json!({"tokens": vec![word; 1_000_000]}).to_string();
    let mut stopped = server.connect();
    let bytes = request(server.address, "POST", "/detokenize", "", body.as_bytes());
    stopped.write_all(&bytes).unwrap();
    server.assert_alive();
    let mut start = [0; 1000];
    stopped.read_exact(&mut start).unwrap();
    thread::sleep(Duration::from_secs(3));
    let mut rest = Vec::new();
    let _ = stopped.read_to_end(&mut rest);
    let head = String::from_utf8_lossy(&start);
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.unwrap().parse().unwrap();
    assert!(rest.len() + 1000 < length, "all {length} bytes were sent");
    server.assert_alive();
}

#[test]
fn as_many_connections_at_once_as_come_are_all_answered() {
    let server = Server::start(&["--log", "warn"]);
    let clients: Vec<_> = (0..256)
        .map(|number| {
            let mut stream = server.connect();
            let body = with_messages(json!({"max_tokens": 1 + number % 5, "temperature": 0}));
            let bytes = request(
                server.address,
                "POST",
                "/v1/chat/completions",
                "",
                body.to_string().as_bytes(),
            );
            stream.write_all(&bytes).unwrap();
            (number, stream)
        })
        .collect();
    for (number, mut stream) in clients {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let reply = parse(&text).unwrap();
        assert_eq!(reply.status, 200, "{number}: {text}");
        assert_eq!(reply.json()["usage"]["completion_tokens"], 1 + number % 5);
    }
    server.wait_until_idle();
}

#[test]
fn when_the_queue_is_full_clients_are_told_to_come_again() {
    let server = Server::start(&["--rows", "1", "--queue", "1"]);
    let _first = server.begin("/v1/chat/completions", &long());
    let mut second = server.connect();
    let bytes = request(
        server.address,
        "POST",
        "/v1/chat/completions",
        "",
        long().to_string().as_bytes(),
    );
    second.write_all(&bytes).unwrap();
    let end = Instant::now() + PATIENCE;
    while server.metric("waiting") < 1.0 {
        assert!(Instant::now() < end, "it does not wait");
    }
    let reply = server.chat(json!({"max_tokens": 1}));
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, Some("1"))
    );
    assert_eq!(reply.error()["code"], "rate_limit_exceeded");
    drop((_first, second));
    server.wait_until_idle();
    server.assert_alive();
}

#[test]
fn a_body_of_100_megabytes_is_refused_before_and_after_its_length_is_known() {
    let server = Server::start(&[]);
    let before = server.memory();
    let megabyte = vec![b'x'; 1 << 20];
    for head in [
        "Content-Length: 104857600\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        let mut stream = server.connect();
        let start = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}\r\n"
        );
        stream.write_all(start.as_bytes()).unwrap();
        for _ in 0..100 {
            let framed = if head.starts_with("Transfer") {
                [b"100000\r\n", &megabyte[..], b"\r\n"].concat()
            } else {
                megabyte.clone()
            };
            if stream.write_all(&framed).is_err() {
                break;
            }
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(parse(&text).unwrap().status, 413, "{text}");
    }
    if let (Some(before), Some(after)) = (before, server.memory()) {
        assert!(
            after < before + (64 << 20),
            "{before} bytes before, {after} after"
        );
    }
    server.assert_alive();
}

#[test]
fn nonsense_of_every_kind_is_a_400_and_no_harm() {
    let server = Server::start(&["--log", "warn"]);
    let deep = format!(
        "{{\"messages\": {}{}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let stops = with_messages(json!({"stop": vec!["x"; 200]})).to_string();
    let bodies: [&[u8]; 14] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"\xc3\"}]}",
        deep.as_bytes(),
        stops.as_bytes(),
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"max_tokens\": -1}",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"max_tokens\": 1e400}",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"n\": 99999999999999999999}",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"temperature\": -1}",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"logit_bias\": {\"-1\": 5}}",
    ];
    for body in bodies {
        let reply = server.send("POST", "/v1/chat/completions", "", body);
        assert_eq!(
            reply.status,
            400,
            "{}",
            String::from_utf8_lossy(&body[..body.len().min(80)])
        );
        assert!(!reply.error()["message"].as_str().unwrap().is_empty());
    }
    for tokens in [
        json!([-1]),
        json!([4096]),
        json!([1e300]),
        json!(["a"]),
        json!([[1]]),
    ] {
        assert_eq!(
            server
                .post("/detokenize", &json!({"tokens": tokens}))
                .status,
            400
        );
    }
    // A number that is large and possible is no nonsense: the answer is as long as there is room.
    let reply = server.chat(json!({"max_tokens": u64::MAX, "temperature": 0, "stop": ["."]}));
    assert_eq!(reply.status, 200);
    server.assert_alive();
}

#[test]
fn a_request_with_two_lengths_is_never_two_requests() {
    let server = Server::start(&[]);
    let inner = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let heads = [
        "Content-Length: 5\r\nContent-Length: 6\r\n".to_owned(),
        "Content-Length: 5, 6\r\n".to_owned(),
        "Content-Length: -5\r\n".to_owned(),
        "Content-Length: +5\r\n".to_owned(),
        "Content-Length : 5\r\n".to_owned(),
        "Transfer-Encoding: gzip\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        " Content-Length: 5\r\n".to_owned(),
        format!(
            "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n",
            inner.len() + 5
        ),
    ];
    for head in heads {
        let bytes =
            format!("POST /tokenize HTTP/1.1\r\nHost: localhost\r\n{head}\r\n0\r\n\r\n{inner}");
        let mut stream = server.connect();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.starts_with("HTTP/1.1 4"), "{head:?}: {text}");
        assert!(
            !text.contains("\"list\""),
            "{head:?} was two requests: {text}"
        );
    }
    server.assert_alive();
}

#[test]
fn chunks_whose_sizes_are_no_numbers_are_refused_and_what_follows_is_no_request() {
    let server = Server::start(&[]);
    let inner = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for size in [
        "-1",
        "+5",
        "0x5",
        "g",
        "",
        " 5",
        "1_0",
        "ffffffffffffffff",
        "fffffffffffffffffff",
        "5\n",
    ] {
        let head =
            "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let bytes = format!("{head}{size}\r\n{inner}\r\n0\r\n\r\n{inner}");
        let mut stream = server.connect();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(
            text.starts_with("HTTP/1.1 4") || text.is_empty(),
            "{size:?}: {text}"
        );
        assert!(
            !text.contains("\"list\""),
            "{size:?} was two requests: {text}"
        );
    }
    server.assert_alive();
}

#[test]
fn a_request_that_the_memory_could_never_hold_is_refused_and_an_answer_ends_where_it_ends() {
    let server = Server::start(&["--kv-tokens", "128"]);
    let prompt = |length: u32| (0..length).map(|id| 100 + id).collect::<Vec<_>>();
    let ask = |length, max_tokens: u64| {
        let body = json!({"prompt": prompt(length), "max_tokens": max_tokens, "ignore_eos": true});
        server.post("/v1/completions", &body)
    };
    for length in [128, 129, 1000] {
        let reply = ask(length, 1);
        assert_eq!(
            (reply.status, reply.param().as_str()),
            (400, "prompt"),
            "{length}"
        );
        assert_eq!(reply.error()["code"], "context_length_exceeded");
    }
    let reply = ask(100, 1000);
    assert_eq!(reply.json()["usage"]["completion_tokens"], 28);
    assert_eq!(reply.json()["choices"][0]["finish_reason"], "length");
    assert_eq!(ask(127, 5).json()["usage"]["completion_tokens"], 1);
    server.assert_alive();
}

#[test]
fn schemas_that_are_huge_or_impossible_or_made_to_explode_harm_nobody() {
    let server = Server::start(&["--log", "warn"]);
    let mut running = server.begin("/v1/chat/completions", &long());
    let fields: serde_json::Map<String, Value> = (0..40_000)
        .map(|number| (format!("field{number}"), json!({"type": "string"})))
        .collect();
    let huge = json!({"type": "object", "properties": fields});
    assert!(huge.to_string().len() > 1 << 20);
    let nested = (0..100).fold(
        json!({}),
        |inner, _| json!({"type": "array", "items": inner}),
    );
    let impossible = [
        json!({"type": "string", "minLength": 5, "maxLength": 2}),
        json!({"allOf": [{"type": "integer"}, {"type": "string"}]}),
        json!({"type": "integer", "minimum": 5, "maximum": 4}),
        json!(false),
    ];
    let explode = [
        "^(a{1,1000}){1,1000}$",
        "^((a|aa)+)+b$",
        "^(.*a){500}$",
        "^[a-z]{1,1000000}$",
        "(",
    ];
    let mut explode = explode
        .map(|pattern| json!({"type": "string", "pattern": pattern}))
        .to_vec();
    explode.push(nested);
    let refused = [&[huge][..], &impossible].concat();
    let all = refused
        .iter()
        .map(|schema| (true, schema))
        .chain(explode.iter().map(|schema| (false, schema)));
    for (refused, schema) in all {
        let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
        let started = Instant::now();
        let reply = server.chat(json!({"max_tokens": 20, "response_format": format}));
        let told = schema.to_string().chars().take(80).collect::<String>();
        assert!(
            started.elapsed() < PATIENCE / 2,
            "{told} takes {:?}",
            started.elapsed()
        );
        if refused || reply.status != 200 {
            assert_eq!(
                (reply.status, reply.param().starts_with("response_format")),
                (400, true),
                "{told}: {reply:?}"
            );
        }
    }
    let mut rest = String::new();
    running.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("data: [DONE]"), "who came before is answered");
    server.wait_until_idle();
    server.assert_alive();
}

/// Requests of all sizes by 16 clients, some of which leave. Bytes of memory after each third: what the first one leaves
/// is what an allocator keeps for the sizes it has seen.
fn mixed(server: &Server, count: usize) -> [Option<u64>; 3] {
    [0, 1, 2].map(|third| {
        thread::scope(|scope| {
            for client in 0..16 {
                scope.spawn(move || {
                    for number in (client..count / 3).step_by(16) {
                        let seed = third * count / 3 + number;
                        let length = [1, 17, 64, 200, 700][seed % 5] + seed % 13;
                        let prompt: Vec<usize> = (0..length).map(|at| 3 + (at * 7 + seed * 31) % 4000).collect();
                        let body = json!({
                            "prompt": prompt, "max_tokens": 1 + seed * 7 % 40, "n": 1 + usize::from(seed.is_multiple_of(19)),
                            "seed": seed, "stream": seed.is_multiple_of(3), "ignore_eos": true,
                        });
                        if seed.is_multiple_of(11) {
                            drop(server.begin("/v1/completions", &json!({
                                "prompt": prompt, "max_tokens": 200, "ignore_eos": true, "stream": true,
                            })));
                            continue;
                        }
                        let reply = server.post("/v1/completions", &body);
                        assert_eq!(reply.status, 200, "{reply:?}");
                    }
                });
            }
        });
        server.wait_until_idle();
        server.memory()
    })
}

fn memory_is_flat_after(count: usize) {
    let server = Server::start(&["--log", "warn", "--prefix-mb", "16"]);
    let started = Instant::now();
    let memory = mixed(&server, count);
    println!(
        "{count} requests in {:.0?}: {memory:?} bytes in memory after each third",
        started.elapsed()
    );
    if let [_, Some(before), Some(after)] = memory {
        assert!(after < before + (48 << 20), "{before} bytes, then {after}");
    }
    server.assert_alive();
}

#[test]
fn requests_of_mixed_sizes_leave_the_memory_flat() {
    memory_is_flat_after(200);
}

#[test]
#[ignore = "some minutes: 2,000 requests"]
fn two_thousand_requests_of_mixed_sizes_leave_the_memory_flat() {
    memory_is_flat_after(2000);
}

#[test]
fn slow_headers_and_slow_bodies_are_given_up() {
    let server = Server::start(&["--patience", "1"]);
    let mut slow: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for stream in &mut slow {
        stream
            .write_all(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-A: ")
            .unwrap();
    }
    server.assert_alive();
    for mut stream in slow {
        let mut text = String::new();
        let read = stream.read_to_string(&mut text);
        assert!(read.is_ok() && !text.contains("200 OK"), "{read:?} {text}");
    }
    let mut long = b"GET /health HTTP/1.1\r\nHost: localhost\r\n".to_vec();
    long.extend(format!("X-Long: {}\r\n\r\n", "x".repeat(1 << 20)).bytes());
    assert!(server.raw(&long).starts_with("HTTP/1.1 431"));
    let many = (0..200)
        .map(|n| format!("X-{n}: 1\r\n"))
        .collect::<String>();
    let many = format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    assert!(server.raw(many.as_bytes()).starts_with("HTTP/1.1 431"));
    server.assert_alive();
}

#[test]
fn at_sigterm_what_runs_is_completed_and_new_requests_are_sent_away() {
    let mut server = Server::start(&[]);
    let mut running: Vec<_> = (0..8)
        .map(|_| server.begin("/v1/chat/completions", &long()))
        .collect();
    server.signal("TERM");
    server.wait_for("no new requests");
    let reply = server.chat(json!({"max_tokens": 1}));
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (503, Some("5"))
    );
    assert_eq!(server.get("/health").status, 503);
    for stream in &mut running {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("\"finish_reason\":\"length\"") && rest.contains("data: [DONE]"));
    }
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn a_server_that_is_told_to_end_at_once_does_not_wait_for_long_answers() {
    let mut server = Server::start(&["--grace", "0"]);
    let mut running = server.begin("/v1/chat/completions", &long());
    server.signal("TERM");
    let mut line = String::new();
    while running.read_line(&mut line).unwrap_or(0) > 0 {
        line.clear();
    }
    assert!(server.exit().success());
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server_with_an_error() {
    let mut server = Server::spawn(&["--model", "/no/such/model"]);
    server.wait_for("error:");
    assert_eq!(server.exit().code(), Some(1));
}
