//! How likely tokens are: what the engine tells is what the model says of them, whoever else is in the batch, and what
//! mlx-lm says.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod engines;

use std::sync::Arc;

use engines::{Heard, ids, limits, listen, request, settings, spawn, tiny};
use mlx_rs::ops;
use part5_batching as part5;
use part6_pipeline::ask::{Ask, Grammar, TokenInfo};
use part6_pipeline::kinds::CacheKind;
use part6_pipeline::limits::Limits;
use part6_pipeline::thread::Running;
use serde_json::Value;
use shared::layers::ids_array;
use shared::sampling::{Sampling, log_softmax};

/// Of a token what every other one has at its place: log-probabilities of the whole vocabulary, by part 5's model in
/// one run.
fn offline(ids: &[u32]) -> Vec<Vec<f32>> {
    let checkpoint = tiny();
    let model = part5::model::Model::load(&checkpoint).unwrap();
    let mut cache =
        part5::kinds::empty_cache(part5::kinds::CacheKind::Prealloc, &checkpoint.config);
    let hidden = model.hidden(&ids_array(ids), &mut cache).unwrap();
    let all = log_softmax(&model.logits(&hidden).unwrap()).unwrap();
    let all = ops::squeeze_axes(&all, &[0]).unwrap();
    all.eval().unwrap();
    let vocabulary = checkpoint.config.vocab_size;
    let numbers = all.try_as_slice::<f32>().unwrap();
    numbers.chunks(vocabulary).map(<[f32]>::to_vec).collect()
}

fn near(a: f32, b: f32) -> bool {
    (a - b).abs() < 1e-4
}

/// A token is as likely as `row` says, and so are the likeliest ones, of which there are so many.
fn assert_is(info: &TokenInfo, row: &[f32], top: usize) {
    let own = info.logprob.unwrap();
    assert!(near(own, row[info.id as usize]), "{info:?}");
    let mut best: Vec<f32> = row.to_vec();
    best.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(info.top.len(), top);
    for ((id, _, logprob), expected) in info.top.iter().zip(best) {
        assert!(near(*logprob, expected) && near(*logprob, row[*id as usize]));
    }
    assert!(info.top.is_sorted_by(|a, b| a.2 >= b.2));
}

/// Of the prompt from its second token on and of the answer.
fn assert_all(ask: &Ask, heard: &Heard) {
    assert_eq!(heard.fault, None);
    let all: Vec<u32> = [ask.ids.clone(), heard.ids(0)].concat();
    let rows = offline(&all);
    if let Some(top) = ask.prompt_logprobs {
        let prompt = heard.prompt.as_ref().unwrap();
        let told: Vec<u32> = prompt.iter().map(|info| info.id).collect();
        assert_eq!(told, ask.ids);
        assert_eq!((prompt[0].logprob, prompt[0].top.len()), (None, 0));
        for (info, row) in prompt[1..].iter().zip(&rows) {
            assert_is(info, row, top);
        }
    } else {
        assert!(heard.prompt.is_none());
    }
    let answer = heard.tokens.get(&0).into_iter().flatten();
    for (info, row) in answer.zip(&rows[ask.ids.len() - 1..]) {
        match ask.logprobs {
            Some(top) => assert_is(info, row, top),
            None => assert_eq!((info.logprob, info.top.len()), (None, 0)),
        }
    }
}

fn ask(prompt: usize, seed: usize, max_tokens: usize) -> Ask {
    Ask {
        ids: ids(prompt, seed),
        max_tokens,
        ignore_eos: true,
        ..Ask::default()
    }
}

/// With all that can be asked for and without.
fn asks() -> Vec<Ask> {
    let sampling = |n: usize| Sampling {
        temperature: [0.0, 0.9, 0.7][n % 3],
        top_k: 3 * (n % 2),
        repetition_penalty: [1.0, 1.2][n / 2 % 2],
        seed: n as u64,
        ..Sampling::default()
    };
    let ask = |n: usize| Ask {
        sampling: sampling(n),
        logprobs: [Some(5), None, Some(0), Some(20)][n % 4],
        prompt_logprobs: [Some(3), None, Some(0), None, Some(20)][n % 5],
        ..ask(
            [70, 15, 16, 17, 1, 130, 33, 48][n % 8],
            n,
            [12, 5, 20, 1][n % 4],
        )
    };
    (0..16).map(ask).collect()
}

fn submit(running: &Running, ask: &Ask) -> Heard {
    listen(&mut running.handle.submit(ask.clone()).unwrap())
}

#[test]
fn tokens_of_prompts_and_answers_are_as_likely_as_the_model_says_alone_and_among_others() {
    let running = spawn(settings());
    let all = asks();
    let submit = |ask: &Ask| running.handle.submit(ask.clone()).unwrap();
    let together: Vec<_> = all.iter().map(submit).collect();
    for (ask, mut answer) in all.iter().zip(together) {
        let heard = listen(&mut answer);
        assert_all(ask, &heard);
        let alone = listen(&mut submit(ask));
        assert_all(ask, &alone);
        // To be told of them changes nothing of the answer.
        let plain = Ask {
            logprobs: None,
            prompt_logprobs: None,
            ..ask.clone()
        };
        let plain = listen(&mut submit(&plain));
        assert_eq!(plain.ids(0), heard.ids(0));
        assert_eq!(alone.ids(0), heard.ids(0));
    }
    running.end().unwrap();
}

#[test]
fn a_prompt_that_is_known_runs_again_if_its_tokens_are_asked_for_and_others_go_on_from_it() {
    for kind in [
        CacheKind::Prealloc,
        CacheKind::Rotating { size: 64, sinks: 0 },
    ] {
        let mut settings = settings();
        (settings.kind, settings.prefix_bytes) = (kind, 50_000_000);
        let running = spawn(settings);
        let plain = ask(50, 1, 4);
        let scored = Ask {
            prompt_logprobs: Some(2),
            logprobs: Some(2),
            ..plain.clone()
        };
        assert_eq!(submit(&running, &plain).cached, Some(0));
        for _ in 0..2 {
            let heard = submit(&running, &scored);
            assert_eq!(heard.cached, Some(0), "all of it runs");
            assert_all(&scored, &heard);
        }
        let heard = submit(&running, &plain);
        assert_eq!(heard.cached, Some(48));
        // What comes from the cache is as likely as if it had just run.
        let answer = Ask {
            prompt_logprobs: None,
            ..scored
        };
        let heard = submit(&running, &answer);
        assert_eq!(heard.cached, Some(48));
        assert_all(&answer, &heard);
        running.end().unwrap();
    }
}

#[test]
fn with_no_token_of_an_answer_the_prompt_may_fill_the_context() {
    let context = tiny().config.max_position_embeddings;
    let running = spawn(settings());
    let full = Ask {
        prompt_logprobs: Some(1),
        logprobs: Some(1),
        ..ask(context, 3, 0)
    };
    let heard = submit(&running, &full);
    assert_all(&full, &heard);
    assert_eq!(heard.usage.unwrap().completion_tokens, 0);
    assert_eq!(heard.tokens.get(&0).map_or(0, Vec::len), 0);
}

#[test]
fn rows_that_lose_their_memory_tell_each_token_once() {
    let mut settings = settings();
    settings.limits = Limits {
        kv_tokens: 160,
        ..limits()
    };
    let running = spawn(settings);
    let ask = |seed: usize| Ask {
        logprobs: Some(1),
        prompt_logprobs: Some(1),
        ..ask(30, seed, 60)
    };
    let answers: Vec<_> = (0..4)
        .map(|seed| running.handle.submit(ask(seed)).unwrap())
        .collect();
    for (seed, mut answer) in answers.into_iter().enumerate() {
        let heard = listen(&mut answer);
        assert_eq!(heard.ids(0).len(), 60);
        assert_all(&ask(seed), &heard);
    }
    assert!(running.handle.status().preemptions > 0);
}

#[test]
fn several_answers_tell_of_their_prompt_once() {
    let mut settings = settings();
    settings.prefix_bytes = 50_000_000;
    let running = spawn(settings);
    let ask = Ask {
        n: 3,
        prompt_logprobs: Some(1),
        logprobs: Some(1),
        ..ask(40, 2, 6)
    };
    let heard = submit(&running, &ask); // it listens to one list of the prompt's tokens
    assert_all(&ask, &heard);
    assert_eq!(heard.tokens.len(), 3);
    assert!(heard.tokens.values().all(|tokens| tokens.len() == 6));
}

#[test]
fn what_a_grammar_forces_has_its_likelihood_among_all_tokens() {
    let running = spawn(settings());
    let schema = serde_json::json!({"type": "object", "properties": {"a_long_name": {"enum": [1, 2]}},
        "required": ["a_long_name"], "additionalProperties": false});
    let ask = Ask {
        grammar: Some(Arc::new(Grammar::Schema(schema))),
        ignore_eos: false,
        logprobs: Some(4),
        ..ask(20, 4, 60)
    };
    let heard = submit(&running, &ask);
    assert_all(&ask, &heard);
    assert!(heard.texts[&0].contains("a_long_name"));
    let free = Ask {
        logprobs: None,
        ..ask
    };
    assert_eq!(submit(&running, &free).texts, heard.texts);
}

#[test]
fn whoever_scores_a_text_gets_the_id_that_ends_the_answer_as_its_last_token() {
    let running = spawn(settings());
    let prompt = (0..).map(|seed| Ask {
        ignore_eos: false,
        ..ask(30, seed, 300)
    });
    // Some answer that the model ends itself.
    let mut ended = prompt.filter_map(|ask| {
        let tokens = submit(&running, &ask).ids(0);
        (tokens.len() < 300).then_some((ask, tokens))
    });
    let (ask, tokens) = ended.next().unwrap();
    let ask = Ask {
        ids: [ask.ids.clone(), tokens].concat(),
        max_tokens: 1,
        logprobs: Some(1),
        ..ask
    };
    assert!(submit(&running, &ask).ids(0).is_empty());
    let scored = Ask {
        prompt_logprobs: Some(1),
        ..ask
    };
    let heard = submit(&running, &scored);
    let stops = request(&scored, 0).stop_ids;
    assert!(matches!(heard.ids(0)[..], [id] if stops.contains(&id)));
    assert!(heard.texts.get(&0).is_none_or(String::is_empty));
    assert_all(&scored, &heard);
}

fn fixture(name: &str) -> Value {
    let path = format!(
        "{}/../assets/fixtures/tiny/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn texts_are_as_likely_as_mlx_lm_says() {
    let running = spawn(settings());
    let quality = fixture("quality.json");
    let case = (quality["cases"].as_array().unwrap().iter()).find(|case| case["variant"] == "f32");
    let nll: Vec<f64> = serde_json::from_value(case.unwrap()["nll"].clone()).unwrap();
    let texts: Vec<Vec<u32>> = serde_json::from_value(quality["ids"].clone()).unwrap();
    assert!(texts.len() == nll.len() && nll.len() > 3);
    for (ids, expected) in texts.into_iter().zip(nll) {
        let ask = Ask {
            ids,
            prompt_logprobs: Some(0),
            ..Ask::default()
        };
        let told = submit(&running, &ask).prompt.unwrap();
        let sum: f64 = told[1..]
            .iter()
            .map(|info| f64::from(info.logprob.unwrap()))
            .sum();
        let mean = -sum / (told.len() - 1) as f64;
        assert!((mean - expected).abs() < 1e-4, "{mean} and {expected}");
    }
    let expected = fixture("expected.json");
    let f32s =
        (expected["variants"].as_array().unwrap().iter()).find(|one| one["variant"] == "f32");
    for prompt in f32s.unwrap()["prompts"].as_array().unwrap() {
        let top: Vec<(u32, f32)> = serde_json::from_value(prompt["top"].clone()).unwrap();
        let ask = Ask {
            ids: serde_json::from_value(prompt["ids"].clone()).unwrap(),
            max_tokens: 1,
            logprobs: Some(20),
            ignore_eos: true,
            ..Ask::default()
        };
        let heard = submit(&running, &ask);
        let told = &heard.tokens[&0][0].top;
        for ((id, _, logprob), (theirs, logit)) in told.iter().zip(&top) {
            assert_eq!(id, theirs);
            let (ours, theirs) = (logprob - told[0].2, logit - top[0].1);
            assert!((ours - theirs).abs() < 1e-3, "{ours} and {theirs} of {id}");
        }
    }
}
