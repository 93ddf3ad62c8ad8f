//! The page and what it asks for, as bytes.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod serving;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};
use serving::{PATIENCE, Server};

/// Somebody who watches.
struct Watcher(BufReader<TcpStream>);

impl Watcher {
    fn new(server: &Server) -> Self {
        let mut stream = server.connect();
        let request = format!("GET /live HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
        stream.write_all(request.as_bytes()).unwrap();
        Self(BufReader::new(stream))
    }

    /// The next event: its name and its data.
    fn next(&mut self) -> (String, Value) {
        let (mut name, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            assert!(
                self.0.read_line(&mut line).unwrap() > 0,
                "the stream has ended"
            );
            if let Some(found) = line.strip_prefix("event: ") {
                found.trim().clone_into(&mut name);
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return (name, serde_json::from_str(data).unwrap());
            }
        }
    }

    /// All reports up to one that says that so many answers have ended.
    fn until_ended(&mut self, answers: usize) -> Vec<Value> {
        let mut all = Vec::new();
        let ended = |all: &[Value]| -> usize {
            let ended = all.iter().map(|report: &Value| &report["ended"]);
            ended.map(|ended| ended.as_array().unwrap().len()).sum()
        };
        while ended(&all) < answers {
            let (name, steps) = self.next();
            assert_eq!(name, "steps");
            assert_eq!(steps["lost"], 0);
            all.extend(steps["reports"].as_array().unwrap().clone());
        }
        all
    }
}

fn each<'a>(reports: &'a [Value], key: &'a str) -> impl Iterator<Item = &'a Value> {
    let of = move |report: &'a Value| report[key].as_array().unwrap();
    reports.iter().flat_map(of)
}

#[test]
fn each_token_of_prompts_and_answers_is_in_a_report_of_its_step() {
    let server = Server::start(&["--piece", "16"]);
    let mut watcher = Watcher::new(&server);
    let (name, state) = watcher.next();
    assert_eq!((name.as_str(), &state["state"]), ("state", &json!("ready")));
    assert_eq!(state["limits"]["rows"], 16);

    let prompt = "Once upon a time there was a small dragon who lived in a blue teapot by the sea and \
                  was afraid of the dark";
    let body = json!({"prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": true});
    let usage = server.post("/v1/completions", &body).json()["usage"].clone();
    let reports = watcher.until_ended(1);

    let tokens = usage["prompt_tokens"].as_u64().unwrap();
    let rows: Vec<&Value> = each(&reports, "rows").collect();
    let of = |does: &str| -> u64 {
        let of = rows.iter().filter(|row| row["does"] == does);
        of.map(|row| row["to"].as_u64().unwrap() - row["from"].as_u64().unwrap())
            .sum()
    };
    assert_eq!(of("prompt"), tokens);
    // The last token of a prompt brings the first one of the answer; a step may have run ahead of the end.
    let decoded = of("decode");
    assert!((11..=12).contains(&decoded), "{decoded}");
    let begun: Vec<&Value> = each(&reports, "begun").collect();
    let first = json!({"id": "0", "prompt_tokens": tokens, "cached": 0, "missed": null});
    assert_eq!(begun, [&first]);
    let ended: Vec<&Value> = each(&reports, "ended").collect();
    assert_eq!(ended[0]["why"], "length");
    assert_eq!(ended[0]["tokens"], 12);
    for time in ["queued", "ttft", "tpot"] {
        assert!(ended[0][time].as_f64().unwrap() >= 0.0, "{ended:?}");
    }
    let steps: Vec<u64> = reports
        .iter()
        .filter_map(|report| report["step"].as_u64())
        .collect();
    assert!(steps.windows(2).all(|pair| pair[0] <= pair[1]), "{steps:?}");

    // Another one leaves the way of the first.
    let other = prompt.replace("sea and", "lake and");
    let body = json!({"prompt": other, "max_tokens": 4, "temperature": 0, "n": 2});
    let usage = server.post("/v1/completions", &body).json()["usage"].clone();
    let reports = watcher.until_ended(2);
    let begun: Vec<&Value> = each(&reports, "begun").collect();
    let missed = &begun[0]["missed"];
    assert_eq!(
        begun[0]["cached"],
        usage["prompt_tokens_details"]["cached_tokens"]
    );
    assert!(begun[0]["cached"].as_u64().unwrap() > 0);
    assert_eq!(missed["by"], 0);
    assert!(missed["at"].as_u64() > begun[0]["cached"].as_u64());
    assert_ne!(missed["token"], missed["other"]);
    let ids: Vec<&Value> = each(&reports, "ended").map(|ended| &ended["id"]).collect();
    assert!(
        ids.contains(&&json!("1")) && ids.contains(&&json!("1.1")),
        "{ids:?}"
    );
}

/// A prompt that says the same again and again: what follows the latest tokens is known from before.
#[test]
fn what_was_guessed_and_kept_is_in_the_report_of_its_step_and_adds_up_to_the_metrics() {
    let server = Server::start(&["--lookup", "--always-guess"]);
    let mut watcher = Watcher::new(&server);
    watcher.next();
    let prompt = "The cat sat on the mat. ".repeat(8);
    let body = json!({"prompt": prompt, "max_tokens": 48, "temperature": 0, "ignore_eos": true});
    server.post("/v1/completions", &body);
    let reports = watcher.until_ended(1);
    let sum = |key: &str| -> u64 {
        let rows = each(&reports, "rows");
        rows.map(|row| row[key].as_u64().unwrap()).sum()
    };
    let (guessed, right) = (sum("guessed"), sum("right"));
    assert!(right > 0 && right <= guessed, "{right} of {guessed}");
    let last = &reports.last().unwrap()["guesses"];
    assert_eq!(last["guessed"], guessed);
    assert_eq!(last["right"], right);
    let ended = each(&reports, "ended").next().unwrap();
    assert_eq!(ended["guesses"]["guessed"], guessed);
    assert_eq!(ended["guesses"]["right"], right);
    for (name, value) in [
        ("num_draft_tokens", guessed),
        ("num_accepted_tokens", right),
    ] {
        let name = format!("spec_decode_{name}_total");
        assert_eq!(server.metric(&name), value as f64, "{name}");
    }
    // Each guess that was kept has saved a step.
    let tokens = ended["tokens"].as_u64().unwrap();
    let decoded = each(&reports, "rows").filter(|row| row["does"] == "decode");
    assert!((decoded.count() as u64) < tokens, "{tokens}");
}

#[test]
fn whoever_leaves_is_told_to_have_left_and_who_stops_to_have_stopped() {
    let server = Server::start(&[]);
    let mut watcher = Watcher::new(&server);
    watcher.next();
    let body =
        json!({"prompt": "Once upon", "max_tokens": 900, "ignore_eos": true, "stream": true});
    drop(server.begin("/v1/completions", &body));
    let reports = watcher.until_ended(1);
    assert_eq!(each(&reports, "ended").next().unwrap()["why"], "left");
    let last = reports.last().unwrap();
    assert_eq!(last["kv"]["used"], 0);

    let body = json!({"prompt": "Once upon", "max_tokens": 400, "stop": ["e", "a"]});
    server.post("/v1/completions", &body);
    let reports = watcher.until_ended(1);
    assert_eq!(each(&reports, "ended").next().unwrap()["why"], "stop");
}

#[test]
fn only_so_many_may_watch_and_a_place_is_free_when_one_leaves() {
    let server = Server::start(&[]);
    let mut watchers: Vec<Watcher> = (0..16).map(|_| Watcher::new(&server)).collect();
    for watcher in &mut watchers {
        assert_eq!(watcher.next().0, "state");
    }
    let refused = server.get("/live");
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    watchers.pop();
    let end = Instant::now() + PATIENCE;
    loop {
        let mut stream = server.connect();
        let request = format!("GET /live HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        if status == *b"HTTP/1.1 200" {
            break;
        }
        assert!(Instant::now() < end, "the place stays taken");
    }
}

#[test]
fn the_page_needs_no_key_and_what_it_shows_does() {
    let server = Server::start(&["--api-key", "open sesame"]);
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("data-key=\"needed\""));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"));
    // All that it names is there.
    let (mut seen, mut open) = (
        Vec::new(),
        vec!["page.css".to_owned(), "page.js".to_owned()],
    );
    while let Some(name) = open.pop() {
        if seen.contains(&name) {
            continue;
        }
        let file = server.get(&format!("/page/{name}"));
        assert_eq!(file.status, 200, "{name}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        let imports = file.body.split("from \"./").skip(1);
        open.extend(imports.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        seen.push(name);
    }
    assert!(seen.len() > 12, "{seen:?}");
    assert_eq!(server.get("/page/../src/main.rs").status, 404);
    assert_eq!(server.get("/page/other.js").status, 404);
    for path in ["/live", "/v1/models"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    assert_eq!(server.post("/what-if", &json!({})).status, 401);
    let reply = server.raw(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
    let key = "Authorization: Bearer open sesame\r\n";
    assert_eq!(server.send("GET", "/v1/models", key, b"").status, 200);
}

/// A machine whose steps take 2 ms and 0.1 ms for each row, and 20 requests that come at once.
fn trace() -> Value {
    let step = |rows: usize, at: usize| {
        let context = rows * (20 + at % 97);
        json!({"rows": rows, "context": context, "pieces": [], "ms": 2.0 + 0.1 * rows as f64})
    };
    let prompt = |tokens: usize| json!({"rows": 0, "context": 0, "pieces": [[tokens, 0]], "ms": 2.0 + 0.02 * tokens as f64});
    let steps: Vec<Value> = (0..400)
        .map(|at| {
            if at % 3 == 0 {
                prompt(8 + at % 57)
            } else {
                step(1 + at % 16, at)
            }
        })
        .collect();
    let request =
        |_| json!({"at": 1000.0, "prompt_tokens": 40, "tokens": 50, "ttft": 20.0, "tpot": 3.6});
    json!({"steps": steps, "requests": (0..20).map(request).collect::<Vec<_>>()})
}

fn with(changes: Value) -> Value {
    let mut trace = trace();
    let all = trace.as_object_mut().unwrap();
    all.extend(changes.as_object().unwrap().clone());
    trace
}

#[test]
fn twice_the_users_wait_longer_and_half_the_memory_costs_what_is_computed_again() {
    let server = Server::start(&[]);
    let told = |changes: Value| {
        let reply = server.post("/what-if", &with(changes));
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    };
    let now = told(json!({}));
    assert_eq!(now["measured"]["answers"], 20);
    assert_eq!(now["measured"]["ttft"]["median"], 20.0);
    assert_eq!(now["simulated"], now["what_if"]);
    assert_eq!(now["simulated"]["answers"], 20);
    assert!(now["step_error"].as_f64().unwrap() < 0.05, "{now}");
    // 16 rows of 3.6 ms each: what the trace was made of.
    let tpot = now["simulated"]["tpot"]["median"].as_f64().unwrap();
    assert!((3.0..4.5).contains(&tpot), "{now}");

    let twice = told(json!({"users": 2}));
    assert_eq!(twice["simulated"], now["simulated"]);
    assert_eq!(twice["what_if"]["answers"], 40);
    let ttft = |told: &Value| told["what_if"]["ttft"]["p99"].as_f64().unwrap();
    assert!(ttft(&twice) > 1.5 * ttft(&now), "{twice}");

    let little = told(json!({"kv_tokens": 400}));
    assert!(
        little["what_if"]["preemptions"].as_u64().unwrap() > 0,
        "{little}"
    );
    assert!(ttft(&little) > ttft(&now));
    let more = told(json!({"rows": 32}));
    assert!(
        more["beyond"]
            .as_str()
            .unwrap()
            .contains("measured up to 16"),
        "{more}"
    );
}

#[test]
fn a_trace_that_makes_no_sense_or_is_too_large_is_refused_in_one_line() {
    let server = Server::start(&[]);
    let request = trace()["requests"][0].clone();
    let large =
        json!({"at": 0.0, "prompt_tokens": 1, "tokens": 900_000, "ttft": 1.0, "tpot": null});
    let cases = [
        (json!({"requests": []}), "no request"),
        (json!({"users": 0}), "0 users"),
        (json!({"users": 17}), "17 users"),
        (json!({"rows": 0}), "without rows"),
        (json!({"kv_tokens": 0}), "without rows"),
        (json!({"steps": []}), "too little was seen"),
        (json!({"requests": vec![request; 2049]}), "2049 requests"),
        (
            json!({"requests": [large], "users": 2}),
            "too many to simulate",
        ),
        (
            json!({"requests": [{"at": -1.0, "prompt_tokens": 1, "tokens": 1, "ttft": 1.0}]}),
            "milliseconds",
        ),
        (
            json!({"requests": [{"at": 1.0, "prompt_tokens": 0, "tokens": 1, "ttft": 1.0}]}),
            "no tokens",
        ),
        (
            json!({"requests": [{"at": 1.0, "prompt_tokens": u64::MAX, "tokens": 1, "ttft": 1.0}]}),
            "no such number",
        ),
        (
            json!({"steps": [{"rows": 1, "context": 1, "pieces": [], "ms": -1.0}]}),
            "took no time",
        ),
        (json!({"steps": 3}), "cannot be read"),
    ];
    for (changes, why) in cases {
        let reply = server.post("/what-if", &with(changes.clone()));
        assert_eq!(reply.status, 400, "{why}: {reply:?}");
        let message = reply.error()["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains(why) && !message.contains('\n'),
            "{why}: {message}"
        );
    }
    let nested = "[".repeat(100_000);
    let reply = server.send("POST", "/what-if", "", nested.as_bytes());
    assert_eq!(reply.status, 400);
    server.assert_alive();
}
