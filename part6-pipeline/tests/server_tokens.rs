//! Tokens through the server: which ones, and how likely they are.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod engines;
mod serving;

use std::thread;

use part6_pipeline::ask::Ask;
use serde_json::{Value, json};
use serving::{Server, fixture};
use shared::request::Request;

const F32: [&str; 2] = ["--dtype", "f32"];

fn numbers(value: &Value) -> Vec<Option<f64>> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The request of lm-eval's `local-completions`, to the letter.
#[test]
fn an_evaluation_gets_the_likelihoods_that_mlx_lm_has_of_the_same_texts() {
    let server = Server::start(&F32);
    let quality = fixture("tiny/quality.json");
    let cases = quality["cases"].as_array().unwrap();
    let case = cases.iter().find(|case| case["variant"] == "f32").unwrap();
    let nll: Vec<f64> = serde_json::from_value(case["nll"].clone()).unwrap();
    let body = json!({
        "prompt": quality["ids"], "logprobs": 1, "max_tokens": 1, "echo": true, "temperature": 0, "seed": 1234,
    });
    for round in 0..2 {
        let reply = server.post("/v1/completions", &body);
        assert_eq!(reply.status, 200, "{reply:?}");
        let reply = reply.json();
        assert_eq!(reply["choices"].as_array().unwrap().len(), nll.len());
        for (index, expected) in nll.iter().enumerate() {
            let choice = &reply["choices"][index];
            let lists = &choice["logprobs"];
            let told = numbers(&lists["token_logprobs"]);
            let prompt = quality["ids"][index].as_array().unwrap().len();
            assert_eq!((told.len(), told[0]), (prompt + 1, None));
            let sum: f64 = told[1..prompt].iter().map(|one| one.unwrap()).sum();
            let mean = -sum / (prompt - 1) as f64;
            assert!(
                (mean - expected).abs() < 1e-4,
                "{round}: {mean} and {expected}"
            );
            // As lm-eval finds out whether a token was the likeliest one.
            for (at, own) in told.iter().enumerate().skip(1) {
                let top = lists["top_logprobs"][at].as_object().unwrap();
                let best = top
                    .values()
                    .filter_map(Value::as_f64)
                    .fold(f64::MIN, f64::max);
                let own = own.unwrap();
                assert!(own <= best && (1..=2).contains(&top.len()), "{own} {top:?}");
                assert!(top.contains_key(lists["tokens"][at].as_str().unwrap()));
            }
        }
        let usage = &reply["usage"];
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    }
}

#[test]
fn an_echo_without_an_answer_is_the_prompt_with_its_likelihoods() {
    let server = Server::start(&F32);
    let text = "Once upon a time there was a café.";
    for stream in [false, true] {
        let body = json!({
            "prompt": text, "logprobs": 2, "max_tokens": 0, "echo": true, "temperature": 0, "stream": stream,
        });
        let reply = server.post("/v1/completions", &body);
        let choices: Vec<Value> = if stream {
            let chunks = reply.chunks();
            chunks
                .iter()
                .map(|chunk| chunk["choices"][0].clone())
                .collect()
        } else {
            assert_eq!(reply.json()["usage"]["completion_tokens"], 0);
            vec![reply.json()["choices"][0].clone()]
        };
        let [choice] = &choices[..] else {
            panic!("{choices:?}")
        };
        assert_eq!(
            (&choice["text"], &choice["finish_reason"]),
            (&json!(text), &json!("length"))
        );
        let lists = &choice["logprobs"];
        let chars: Vec<char> = text.chars().collect();
        let tokens = lists["tokens"].as_array().unwrap();
        assert_eq!(numbers(&lists["token_logprobs"])[0], None);
        for (token, offset) in tokens.iter().zip(lists["text_offset"].as_array().unwrap()) {
            let token: Vec<char> = token.as_str().unwrap().chars().collect();
            let rest = &chars[offset.as_u64().unwrap() as usize..];
            assert!(
                rest.starts_with(&token) || token.contains(&'\u{fffd}'),
                "{token:?}"
            );
        }
    }
    let refused = server.post("/v1/completions", &json!({"prompt": text, "max_tokens": 0}));
    assert_eq!(
        (refused.status, refused.param().as_str()),
        (400, "max_tokens")
    );
}

#[test]
fn a_chat_tells_the_bytes_of_its_tokens_and_the_likeliest_ones_in_both_forms() {
    let server = Server::start(&F32);
    let ask = |stream: bool, top: u64| json!({"max_tokens": 8, "temperature": 0, "logprobs": true, "top_logprobs": top, "stream": stream});
    let whole = server.chat(ask(false, 3)).json()["choices"][0].clone();
    let content = whole["logprobs"]["content"].as_array().unwrap();
    assert_eq!(
        (content.len(), &whole["logprobs"]["refusal"]),
        (8, &Value::Null)
    );
    let mut bytes: Vec<u8> = Vec::new();
    for token in content {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["logprob"]), (3, &token["logprob"]));
        assert_eq!(
            (&top[0]["bytes"], &top[0]["token"]),
            (&token["bytes"], &token["token"])
        );
        bytes.extend(serde_json::from_value::<Vec<u8>>(token["bytes"].clone()).unwrap());
    }
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        whole["message"]["content"]
    );
    let chunks = server.chat(ask(true, 3)).chunks();
    let of_chunks = chunks.iter().flat_map(|chunk| {
        let tokens = chunk["choices"][0]["logprobs"]["content"].as_array();
        tokens.cloned().unwrap_or_default()
    });
    assert_eq!(&of_chunks.collect::<Vec<_>>(), content);
    let none = server.chat(ask(false, 0)).json()["choices"][0].clone();
    assert_eq!(none["message"], whole["message"]);
    assert_eq!(none["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

/// Ids as the texts that a client gets of them.
fn texts(tokens: &[u32]) -> Vec<String> {
    let tokenizer = engines::tokenizer();
    let text = |id: &u32| {
        let piece = tokenizer.piece(*id).unwrap().unwrap();
        String::from_utf8_lossy(&piece.bytes).into_owned()
    };
    tokens.iter().map(text).collect()
}

/// The likeliest tokens after a prompt, and how many tokens of it were there already.
fn greedy(server: &Server, ids: &[u32], max_tokens: usize) -> (Vec<String>, u64) {
    let body = json!({
        "prompt": ids, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true, "logprobs": 0,
    });
    let reply = server.post("/v1/completions", &body);
    assert_eq!(reply.status, 200, "{reply:?}");
    let reply = reply.json();
    let tokens = reply["choices"][0]["logprobs"]["tokens"].clone();
    let cached = &reply["usage"]["prompt_tokens_details"]["cached_tokens"];
    (
        serde_json::from_value(tokens).unwrap(),
        cached.as_u64().unwrap(),
    )
}

#[test]
fn cold_warm_alone_and_among_31_others_a_prompt_gets_the_tokens_of_mlx_lm_and_of_part_5() {
    let server = Server::start(&["--dtype", "f32", "--rows", "32"]);
    let expected = fixture("tiny/expected.json");
    let variants = expected["variants"].as_array().unwrap();
    let f32s = variants.iter().find(|one| one["variant"] == "f32").unwrap();
    let list = |value: &Value| serde_json::from_value::<Vec<u32>>(value.clone()).unwrap();
    let of_mlx_lm = f32s["prompts"].as_array().unwrap().iter();
    let of_mlx_lm = of_mlx_lm.map(|prompt| (list(&prompt["ids"]), list(&prompt["greedy"])));
    // Others as well, which begin in the same way in pairs.
    let other = |n: usize| Ask {
        ids: [engines::ids(32, n / 2), engines::ids(n, n)].concat(),
        max_tokens: 24,
        ignore_eos: true,
        ..Ask::default()
    };
    let others: Vec<Ask> = (0..29).map(other).collect();
    let requests: Vec<_> = others.iter().map(|ask| engines::request(ask, 0)).collect();
    let of_part_5 = others.iter().map(|ask| ask.ids.clone());
    let of_part_5 = of_part_5.zip(engines::alone(&requests).into_iter().map(|(ids, _)| ids));
    let all: Vec<(Vec<u32>, Vec<u32>)> = of_mlx_lm.chain(of_part_5).collect();
    assert_eq!(all.len(), 32);
    for (ids, tokens) in &all[..3] {
        let request = Request {
            ids: ids.clone(),
            max_tokens: tokens.len(),
            ..Request::default()
        };
        assert_eq!(engines::alone(&[request])[0].0, *tokens, "part 5 is mlx-lm");
    }
    let mut warm = 0;
    let mut round = |together: bool| {
        let ask = |(ids, tokens): &(Vec<u32>, Vec<u32>)| {
            let (told, cached) = greedy(&server, ids, tokens.len());
            assert_eq!(told, texts(tokens), "{ids:?}, together: {together}");
            usize::from(cached > 0)
        };
        let counts = if together {
            thread::scope(|scope| {
                let asked: Vec<_> = all.iter().map(|one| scope.spawn(|| ask(one))).collect();
                asked.into_iter().map(|one| one.join().unwrap()).sum()
            })
        } else {
            all.iter().map(ask).sum::<usize>()
        };
        warm += counts;
    };
    round(true);
    round(false);
    round(true);
    assert!(warm > 50, "{warm} began with what was known");
}
