//! An engine on its thread gives each client what part 5 gives alone, and no client can harm another one.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod engines;

use console::cli::ModelArgs;
use console::metrics::FinishReason;
use engines::{
    alone, ids, limits, listen, request, runtime, settings, spawn, tokenizer, wait_until,
};
use part6_pipeline::ask::{Ask, Event, Fault};
use part6_pipeline::engine::Engine;
use part6_pipeline::handle::{Refusal, State};
use part6_pipeline::limits::{Limits, Policy};
use part6_pipeline::thread::Settings;
use shared::sampling::Sampling;

/// Asks of many kinds, some greedy and some not.
fn asks() -> Vec<Ask> {
    let ask = |n: usize| Ask {
        ids: ids([1, 15, 16, 17, 40, 100, 33, 5, 64, 250][n], n),
        max_tokens: [1, 30, 12, 25, 40, 8, 2, 60, 33, 10][n],
        ignore_eos: n.is_multiple_of(3),
        sampling: Sampling {
            temperature: [0.0, 0.8][n % 2],
            top_p: [1.0, 0.9][n / 5],
            seed: n as u64,
            repetition_penalty: [1.0, 1.1][usize::from(n == 7)],
            ..Sampling::default()
        },
        ..Ask::default()
    };
    (0..10).map(ask).collect()
}

#[test]
fn alone_and_among_others_an_ask_gets_the_tokens_of_part_5() {
    let asks = asks();
    let requests: Vec<_> = asks.iter().map(|ask| request(ask, 0)).collect();
    let expected = alone(&requests);
    let running = spawn(settings());
    let mut together: Vec<_> = (asks.iter())
        .map(|ask| running.handle.submit(ask.clone()).unwrap())
        .collect();
    for (number, answer) in together.iter_mut().enumerate() {
        let heard = listen(answer);
        assert_eq!(heard.fault, None);
        assert_eq!(
            (heard.ids(0), heard.ends[&0].0),
            expected[number],
            "{number} of many"
        );
    }
    for (ask, (tokens, reason)) in asks.iter().zip(&expected) {
        let heard = listen(&mut running.handle.submit(ask.clone()).unwrap());
        assert_eq!((&heard.ids(0), &heard.ends[&0]), (tokens, &(*reason, None)));
        let text = tokenizer().decode(tokens, true).unwrap();
        assert_eq!(heard.texts.get(&0).cloned().unwrap_or_default(), text);
        let usage = heard.usage.unwrap();
        assert_eq!(usage.prompt_tokens, ask.ids.len());
        assert_eq!(usage.completion_tokens, tokens.len());
    }
    running.end().unwrap();
}

#[test]
fn a_long_prompt_tells_how_far_it_is() {
    let running = spawn(settings());
    let ask = Ask {
        ids: ids(70, 1),
        max_tokens: 1,
        ..Ask::default()
    };
    let heard = listen(&mut running.handle.submit(ask).unwrap());
    assert_eq!(heard.progress, [16, 32, 48, 64]);
    assert_eq!(heard.cached, Some(0));
}

#[test]
fn several_answers_to_a_prompt_are_those_of_the_seeds_that_follow() {
    let ask = Ask {
        ids: ids(30, 1),
        max_tokens: 20,
        n: 4,
        sampling: Sampling {
            temperature: 1.0,
            seed: 7,
            ..Sampling::default()
        },
        ..Ask::default()
    };
    let expected = alone(&[0, 1, 2, 3].map(|choice| request(&ask, choice)));
    let running = spawn(settings());
    let heard = listen(&mut running.handle.submit(ask).unwrap());
    for (choice, (tokens, reason)) in expected.iter().enumerate() {
        assert_eq!(
            (&heard.ids(choice), heard.ends[&choice].0),
            (tokens, *reason)
        );
    }
    assert_ne!(heard.ids(0), heard.ids(1));
    let usage = heard.usage.unwrap();
    let tokens = expected.iter().map(|(tokens, _)| tokens.len()).sum();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (30, tokens));
}

/// An answer of so many tokens.
fn long(prompt: usize, seed: usize, max_tokens: usize) -> Ask {
    Ask {
        ids: ids(prompt, seed),
        max_tokens,
        ignore_eos: true,
        ..Ask::default()
    }
}

#[test]
fn whoever_leaves_while_it_decodes_or_while_its_prompt_runs_frees_its_row_within_a_step() {
    for prompt in [8, 1000] {
        let mut running = spawn(settings());
        let mut other = running.handle.submit(long(8, 3, 400)).unwrap();
        let mut answer = running
            .handle
            .submit(long(prompt, 1, 1010 - prompt))
            .unwrap();
        loop {
            let event = answer.blocking_next().unwrap();
            if matches!(event, Event::Delta { .. } | Event::Progress { .. }) {
                break;
            }
        }
        assert_eq!(running.handle.status().running, 2);
        drop(answer);
        let steps = running.handle.status().steps;
        let freed = wait_until(&mut running, |status| status.running == 1);
        // The step that was under way, and the one that says so.
        assert!(freed.steps <= steps + 2, "{} after {steps}", freed.steps);
        assert!(freed.kv_tokens < 450);
        assert_eq!(listen(&mut other).ids(0).len(), 400);
    }
}

#[test]
fn whoever_leaves_before_it_has_a_row_is_forgotten() {
    let mut settings = settings();
    settings.limits = Limits {
        rows: 1,
        ..limits()
    };
    let mut running = spawn(settings);
    let mut first = running.handle.submit(long(4, 0, 50)).unwrap();
    let second = running.handle.submit(long(4, 1, 50)).unwrap();
    let mut third = running.handle.submit(long(4, 2, 5)).unwrap();
    drop(second);
    let heard = [listen(&mut first), listen(&mut third)];
    assert_eq!(heard.map(|heard| heard.ids(0).len()), [50, 5]);
    let status = wait_until(&mut running, |status| status.running == 0);
    assert_eq!((status.waiting, status.completion_tokens), (0, 55));
    assert_eq!(status.kv_tokens, 0);
}

#[test]
fn a_stop_text_over_token_borders_ends_the_text_before_it_and_is_never_shown() {
    let ask = long(20, 5, 60);
    let [(tokens, _)] = &alone(&[request(&ask, 0)])[..] else {
        panic!("one answer")
    };
    let text = tokenizer().decode(tokens, true).unwrap();
    let characters: Vec<char> = text.chars().collect();
    let running = spawn(settings());
    let mut over_borders = 0;
    for (from, length) in [(0, 1), (5, 2), (11, 3), (17, 5), (20, 9), (30, 12)] {
        let stop: String = characters[from..from + length].iter().collect();
        let before = &text[..text.find(&stop).unwrap()];
        let one = tokens.iter().any(|id| {
            let token = tokenizer().decode(&[*id], true).unwrap();
            token.contains(&stop)
        });
        over_borders += usize::from(!one);
        let ask = Ask {
            // The others begin in the same way, and do not come.
            stop: vec![format!("{stop}\u{1}"), stop.clone(), format!("{text}!")],
            ..ask.clone()
        };
        let heard = listen(&mut running.handle.submit(ask).unwrap());
        assert_eq!(heard.texts.get(&0).map_or("", String::as_str), before);
        assert_eq!(heard.ends[&0], (FinishReason::Stop, Some(stop)));
        assert!(tokens.starts_with(&heard.ids(0)));
    }
    assert!(over_borders > 2);
    let ask = Ask {
        stop: vec![
            format!("{text}!"),
            characters[3..].iter().chain(&['!']).collect(),
        ],
        ..ask
    };
    let heard = listen(&mut running.handle.submit(ask).unwrap());
    assert_eq!(heard.texts[&0], text, "what was held back comes at the end");
    assert_eq!(heard.ends[&0], (FinishReason::Length, None));
    assert_eq!(heard.ids(0), *tokens);
}

#[test]
fn an_engine_that_drains_finishes_what_has_begun_and_nothing_else() {
    let mut settings = settings();
    settings.limits.rows = 2;
    let mut running = spawn(settings);
    let submit = |seed| running.handle.submit(long(40, seed, 100)).unwrap();
    let mut answers: Vec<_> = (0..4).map(submit).collect();
    for answer in &mut answers[..2] {
        assert!(matches!(
            answer.blocking_next(),
            Some(Event::Started { .. })
        ));
    }
    running.handle.drain();
    wait_until(&mut running, |status| status.state == State::Draining);
    let refused = running.handle.submit(long(4, 9, 4)).unwrap_err();
    assert_eq!(refused, Refusal::Unavailable(State::Draining));
    for (number, answer) in answers.iter_mut().enumerate() {
        let mut tokens = 0;
        let mut last = None;
        while let Some(event) = answer.blocking_next() {
            if let Event::Delta { tokens: new, .. } = &event {
                tokens += new.len();
            }
            last = Some(event);
        }
        if number < 2 {
            assert!(matches!(last, Some(Event::Done(_))) && tokens == 100);
        } else {
            assert!(matches!(last, Some(Event::Failed(Fault::Engine(_)))));
        }
    }
    let handle = running.handle.clone();
    running.end().unwrap();
    assert_eq!(handle.status().state, State::Stopped);
}

#[test]
fn what_could_never_run_is_refused_alone() {
    let mut settings = settings();
    settings.limits.kv_tokens = 128;
    let running = spawn(settings);
    let mut good = running.handle.submit(long(10, 1, 100)).unwrap();
    let bad = [
        (long(0, 0, 5), "no tokens"),
        (long(100, 0, 29), "do not fit into memory for 128 positions"),
        (long(5, 0, usize::MAX), "more than the context"),
        (
            Ask {
                n: 0,
                ..long(5, 0, 5)
            },
            "0 answers",
        ),
        (
            Ask {
                stop: vec![String::new()],
                ..long(5, 0, 5)
            },
            "empty",
        ),
        (
            Ask {
                ids: vec![1, u32::MAX],
                ..long(5, 0, 5)
            },
            "token id 4294967295",
        ),
    ];
    for (ask, why) in bad {
        let heard = listen(&mut running.handle.submit(ask).unwrap());
        let Some(Fault::Ask(told)) = heard.fault else {
            panic!("{why}: {heard:?}")
        };
        assert!(told.contains(why), "{told}");
    }
    let heard = listen(&mut good);
    assert_eq!((heard.fault.clone(), heard.ids(0).len()), (None, 100));
}

#[test]
fn an_engine_that_cannot_open_its_model_says_why_to_all_that_ask() {
    let model = ModelArgs {
        model: "/no/such/model".to_owned(),
        revision: None,
        dtype: None,
    };
    let mut running = Engine::spawn(Settings {
        model,
        ..settings()
    })
    .unwrap();
    let State::Dead(why) = runtime().block_on(running.handle.loaded()) else {
        panic!("it lives")
    };
    assert!(why.contains("/no/such/model"), "{why}");
    assert!(running.handle.submit(long(1, 1, 1)).is_err());
    assert_eq!(
        format!("the engine has failed: {why}"),
        running.end().unwrap_err().to_string()
    );
}

#[test]
fn an_engine_waits_for_no_full_batch() {
    let mut settings = settings();
    settings.limits.policy = Policy::Static;
    assert!(Engine::spawn(settings).is_err());
}

#[test]
fn rows_that_lose_their_memory_answer_as_if_they_had_not() {
    let mut settings = settings();
    settings.limits.kv_tokens = 160;
    let asks: Vec<Ask> = (0..4).map(|seed| long(30, seed, 60)).collect();
    let expected = alone(&asks.iter().map(|ask| request(ask, 0)).collect::<Vec<_>>());
    let mut running = spawn(settings);
    let submit = |ask: &Ask| running.handle.submit(ask.clone()).unwrap();
    let answers: Vec<_> = asks.iter().map(submit).collect();
    for (mut answer, (tokens, _)) in answers.into_iter().zip(expected) {
        let heard = listen(&mut answer);
        assert_eq!(heard.ids(0), tokens);
        assert_eq!(heard.progress, [16], "nothing is told of what runs again");
    }
    assert!(wait_until(&mut running, |status| status.running == 0).preemptions > 0);
}
