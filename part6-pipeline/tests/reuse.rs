//! A prompt that begins like an earlier one runs only the rest, and gets the very same tokens.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod engines;

use engines::{Heard, alone, ids, limits, listen, request, settings, spawn, tokenizer, wait_until};
use part6_pipeline::ask::{Ask, Event};
use part6_pipeline::handle::Answer;
use part6_pipeline::kinds::CacheKind;
use part6_pipeline::limits::Limits;
use part6_pipeline::quantized_cache::KvBits;
use part6_pipeline::thread::{Running, Settings};
use shared::sampling::Sampling;

const KINDS: [CacheKind; 3] = [
    CacheKind::Prealloc,
    CacheKind::Quantized(KvBits { keys: 8, values: 8 }),
    CacheKind::Rotating { size: 40, sinks: 4 },
];

fn keeping(bytes: u64) -> Settings {
    Settings {
        prefix_bytes: bytes,
        ..settings()
    }
}

fn ask(ids: &[u32], max_tokens: usize) -> Ask {
    Ask {
        ids: ids.to_vec(),
        max_tokens,
        ignore_eos: true,
        ..Ask::default()
    }
}

fn get(running: &Running, ask: &Ask) -> Heard {
    let heard = listen(&mut running.handle.submit(ask.clone()).unwrap());
    assert_eq!(heard.fault, None);
    heard
}

#[test]
fn warm_and_cold_have_the_same_tokens_whatever_stores_the_keys() {
    for kind in KINDS {
        let cold = |ask: &Ask| {
            let running = spawn(Settings {
                kind,
                ..keeping(1 << 30)
            });
            get(&running, ask)
        };
        let prompt = ids(100, 1);
        let running = spawn(Settings {
            kind,
            ..keeping(1 << 30)
        });
        let first = ask(&prompt, 30);
        let mut heard = get(&running, &first);
        assert_eq!(heard.cached, Some(0));
        let warm = get(&running, &first);
        assert_eq!(
            (warm.cached, warm.ids(0)),
            (Some(96), heard.ids(0)),
            "{kind:?}"
        );
        assert_eq!(warm.usage.unwrap().cached_tokens, 96);
        // The next turn of a chat: the prompt, its answer, and more.
        let mut turn = prompt.clone();
        for number in 0..3 {
            turn.extend(heard.ids(0));
            turn.extend(ids(9, number));
            let next = ask(&turn, 20);
            heard = get(&running, &next);
            let whole = turn.len() - 9 - 1;
            let cached = heard.cached.unwrap();
            if let CacheKind::Rotating { .. } = kind {
                assert!(cached > 0 && cached < whole, "from a checkpoint");
            } else {
                assert_eq!(cached, whole / 16 * 16);
            }
            assert_eq!(heard.ids(0), cold(&next).ids(0), "{kind:?}, turn {number}");
        }
    }
}

/// A ring, and pieces of a prompt in which the engine may cut it. One that keeps its first positions shows them to
/// whoever begins a piece, so there the pieces are as short with a checkpoint as without.
const RINGS: [(CacheKind, usize); 3] = [
    (CacheKind::Rotating { size: 40, sinks: 0 }, 64),
    (
        CacheKind::Rotating {
            size: 200,
            sinks: 0,
        },
        48,
    ),
    (CacheKind::Rotating { size: 40, sinks: 4 }, 16),
];

fn ring((kind, piece): (CacheKind, usize), bytes: u64) -> Settings {
    Settings {
        kind,
        limits: Limits { piece, ..limits() },
        ..keeping(bytes)
    }
}

/// The same tokens, as likely but for the last bits: where a prompt was cut, a ring lies in another order.
fn assert_same(heard: &Heard, expected: &Heard, told: &str) {
    assert_eq!(heard.ids(0), expected.ids(0), "{told}");
    for (one, other) in heard.tokens[&0].iter().zip(&expected.tokens[&0]) {
        let (one, other) = (one.logprob.unwrap(), other.logprob.unwrap());
        assert!((one - other).abs() < 1e-4, "{told}: {one} and {other}");
    }
}

fn closely(ids: &[u32], max_tokens: usize) -> Ask {
    Ask {
        logprobs: Some(1),
        ..ask(ids, max_tokens)
    }
}

#[test]
fn where_two_prompts_part_a_ring_keeps_a_checkpoint_for_the_third() {
    for of in RINGS {
        let (cold, running) = (spawn(ring(of, 0)), spawn(ring(of, 1 << 30)));
        for fork in [15, 16, 17, 47, 64, 97, 128, 140] {
            for user in 0..3 {
                let mut prompt = ids(fork, fork);
                prompt.push(7 + user as u32);
                prompt.extend(ids(49 - user, 100 + user));
                let ask = closely(&prompt, 5);
                let (heard, expected) = (get(&running, &ask), get(&cold, &ask));
                let told = format!("{of:?}, {fork}, {user}");
                assert_same(&heard, &expected, &told);
                let known = if user < 2 { 0 } else { fork / 16 * 16 };
                assert_eq!(heard.cached, Some(known), "{told}");
                assert_eq!(heard.usage.unwrap().cached_tokens, known);
                let missed = heard.missed.map(|missed| missed.at);
                assert!(user == 0 || missed == Some(fork), "{told}: {missed:?}");
            }
        }
    }
}

#[test]
fn with_one_system_prompt_and_other_users_a_ring_hits_from_the_third_request_on() {
    for of in RINGS {
        let (cold, running) = (spawn(ring(of, 0)), spawn(ring(of, 1 << 30)));
        let system = ids(200, 3);
        for user in 0..4 {
            let mut chat = [&system[..], &[20 + user as u32], &ids(30, user)].concat();
            let mut known = if user < 2 { 0 } else { 192 };
            for turn in 0..2 {
                let ask = closely(&chat, 12);
                let (heard, expected) = (get(&running, &ask), get(&cold, &ask));
                assert_same(&heard, &expected, &format!("{of:?}, {user}, {turn}"));
                assert_eq!(heard.cached, Some(known), "{of:?}, {user}, {turn}");
                known = (chat.len() - 1) / 16 * 16;
                chat.extend(heard.ids(0));
                chat.extend(ids(9, turn));
            }
        }
    }
}

#[test]
fn checkpoints_at_forks_are_within_the_budget_and_the_oldest_of_them_go() {
    let of = RINGS[0];
    let one = {
        let running = spawn(ring(of, 1 << 30));
        get(&running, &ask(&ids(65, 0), 1));
        running.handle.status().prefix_bytes
    };
    let budget = one * 5 + one / 2;
    let running = spawn(ring(of, budget));
    let cold = spawn(ring(of, 0));
    let mut hits = 0;
    for number in 0..40 {
        // Applications come and go; of each some users at a time.
        let (application, user) = (number / 8, number % 8);
        let mut prompt = ids(70, 50 + application);
        prompt.extend([30 + user as u32, 5, 6, 7]);
        prompt.extend(ids(20, user));
        let (heard, expected) = (
            get(&running, &ask(&prompt, 4)),
            get(&cold, &ask(&prompt, 4)),
        );
        assert_eq!(heard.ids(0), expected.ids(0), "{number}");
        hits += usize::from(heard.cached == Some(64));
        let bytes = running.handle.status().prefix_bytes;
        assert!(bytes <= budget, "{bytes} of {budget}");
    }
    assert_eq!(hits, 5 * 6, "all but the first two of each");
}

/// Listens to so many pieces of a prompt, and leaves.
fn leave_after(pieces: u32, mut answer: Answer) {
    let mut seen = 0;
    while seen < pieces {
        match answer.blocking_next().unwrap() {
            Event::Progress { .. } => seen += 1,
            Event::Delta { .. } => break,
            _ => {}
        }
    }
}

#[test]
fn whoever_leaves_before_the_fork_leaves_no_checkpoint_and_harms_nobody() {
    let of = (CacheKind::Rotating { size: 40, sinks: 0 }, 32);
    let mut running = spawn(ring(of, 1 << 30));
    let cold = spawn(ring(of, 0));
    let common = ids(180, 6);
    let of_user = |user: u32| [&common[..], &[40 + user, 8, 9], &ids(60, user as usize)].concat();
    get(&running, &ask(&of_user(0), 3));
    for pieces in 0..8 {
        let leaves = running.handle.submit(ask(&of_user(1 + pieces), 30));
        leave_after(pieces, leaves.unwrap());
    }
    for user in 20..24 {
        let ask = ask(&of_user(user), 10);
        assert_eq!(get(&running, &ask).ids(0), get(&cold, &ask).ids(0));
    }
    assert_eq!(get(&running, &ask(&of_user(30), 3)).cached, Some(176));
    let status = wait_until(&mut running, |status| status.running == 0);
    assert_eq!((status.waiting, status.kv_tokens), (0, 0));
}

#[test]
fn so_it_is_among_others_and_as_part_5_has_it() {
    let shared = ids(70, 1);
    let asks: Vec<Ask> = (0..12)
        .map(|number| {
            let mut ids = shared[..[70, 16, 33, 48, 64, 15][number % 6]].to_vec();
            ids.extend(engines::ids(1 + number * 3, number));
            Ask {
                sampling: Sampling {
                    temperature: [0.0, 0.9][number % 2],
                    seed: number as u64,
                    ..Sampling::default()
                },
                ..ask(&ids, 12)
            }
        })
        .collect();
    let expected = alone(&asks.iter().map(|ask| request(ask, 0)).collect::<Vec<_>>());
    let running = spawn(keeping(1 << 30));
    for _ in 0..2 {
        let submit = |ask: &Ask| running.handle.submit(ask.clone()).unwrap();
        let answers: Vec<_> = asks.iter().map(submit).collect();
        for (mut answer, (tokens, _)) in answers.into_iter().zip(&expected) {
            assert_eq!(listen(&mut answer).ids(0), *tokens);
        }
    }
    assert!(running.handle.status().cached_tokens > 500);
}

#[test]
fn a_prompt_of_a_block_one_more_and_one_less_leaves_a_token_to_run() {
    let running = spawn(keeping(1 << 30));
    let prompt = ids(64, 2);
    let cold = get(&running, &ask(&prompt, 6)).ids(0);
    for (length, cached) in [
        (15, 0),
        (16, 0),
        (17, 16),
        (31, 16),
        (32, 16),
        (33, 32),
        (64, 48),
    ] {
        let heard = get(&running, &ask(&prompt[..length], 6));
        assert_eq!(heard.cached, Some(cached), "{length}");
        if length == 64 {
            assert_eq!(heard.ids(0), cold);
        }
    }
}

#[test]
fn whoever_leaves_in_any_piece_of_a_prompt_harms_nobody_who_begins_like_it() {
    let prompt = ids(200, 3);
    let [(expected, _)] = &alone(&[request(&ask(&prompt, 10), 0)])[..] else {
        panic!("one answer")
    };
    let mut running = spawn(keeping(1 << 30));
    for pieces in 0..12 {
        // Somebody else with the same prompt is on the way, too.
        let mut other = running.handle.submit(ask(&prompt, 10)).unwrap();
        let leaves = running.handle.submit(ask(&prompt[..190], 10));
        leave_after(pieces, leaves.unwrap());
        assert_eq!(listen(&mut other).ids(0), *expected, "{pieces}");
        assert_eq!(get(&running, &ask(&prompt, 10)).ids(0), *expected);
    }
    let status = wait_until(&mut running, |status| status.running == 0);
    assert_eq!((status.waiting, status.kv_tokens), (0, 0));
}

#[test]
fn a_miss_names_the_first_token_that_differs_and_who_had_another_one() {
    let running = spawn(keeping(1 << 30));
    let first = ids(60, 4);
    let mut answer = running.handle.submit(ask(&first, 2)).unwrap();
    let number = answer.id;
    listen(&mut answer);
    let mut second = first.clone();
    second[37] += 1;
    let heard = get(&running, &ask(&second, 2));
    assert_eq!(heard.cached, Some(32));
    let missed = heard.missed.unwrap();
    assert_eq!((missed.at, missed.by), (37, number));
    let text = |id| tokenizer().decode(&[id], false).unwrap();
    assert_eq!(missed.token, text(second[37]));
    assert_eq!(missed.other, text(first[37]));
    let heard = get(&running, &ask(&second, 2));
    assert_eq!((heard.cached, heard.missed), (Some(48), None));
}

#[test]
fn several_answers_share_a_prompt_and_its_blocks_run_once() {
    let ask = Ask {
        n: 5,
        sampling: Sampling {
            temperature: 1.0,
            seed: 3,
            ..Sampling::default()
        },
        ..ask(&ids(120, 5), 10)
    };
    let expected = alone(&[0, 1, 2, 3, 4].map(|choice| request(&ask, choice)));
    let running = spawn(keeping(1 << 30));
    let heard = get(&running, &ask);
    for (choice, (tokens, _)) in expected.iter().enumerate() {
        assert_eq!(heard.ids(choice), *tokens);
    }
    assert_eq!(running.handle.status().prompt_tokens, 120 + 4 * 8);
}

#[test]
fn the_budget_holds_and_what_does_not_fit_is_computed_again() {
    for kind in KINDS {
        let one = {
            let running = spawn(Settings {
                kind,
                ..keeping(1 << 30)
            });
            get(&running, &ask(&ids(17, 0), 1));
            running.handle.status().prefix_bytes
        };
        assert!(one > 0, "{kind:?}");
        let budget = one * 5 + one / 2;
        let mut running = spawn(Settings {
            kind,
            limits: limits(),
            ..keeping(budget)
        });
        let mut most = 0;
        for number in 0..30 {
            let asks = [number, number / 2].map(|seed| ask(&ids(20 + 5 * seed, seed), 4));
            let answers = asks.map(|ask| running.handle.submit(ask).unwrap());
            for mut answer in answers {
                assert_eq!(listen(&mut answer).ids(0).len(), 4);
            }
            most = most.max(running.handle.status().prefix_bytes);
        }
        assert!(most > 0 && most <= budget, "{most} of {budget}, {kind:?}");
        wait_until(&mut running, |status| status.running == 0);
    }
}
