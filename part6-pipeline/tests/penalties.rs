//! Penalties and biases belong to a row: what the others of its batch have changes nothing.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod engines;

use engines::{alone, ids, listen, request, settings, spawn, tiny};
use part5_batching as part5;
use part6_pipeline::ask::Ask;
use shared::layers::ids_array;
use shared::sampling::{Penalties, REPETITION_CONTEXT, Sampling};

/// The likeliest ids one after the other, with scores changed on the host, by hand.
fn by_hand(ask: &Ask) -> Vec<u32> {
    let checkpoint = tiny();
    let model = part5::model::Model::load(&checkpoint).unwrap();
    let kind = part5::kinds::CacheKind::Prealloc;
    let mut cache = part5::kinds::empty_cache(kind, &checkpoint.config);
    let (mut all, mut next) = (ask.ids.clone(), ask.ids.clone());
    for _ in 0..ask.max_tokens {
        let logits = model.next_logits(&ids_array(&next), &mut cache).unwrap();
        logits.eval().unwrap();
        let mut scores = logits.try_as_slice::<f32>().unwrap().to_vec();
        for (id, bias) in &ask.penalties.biases {
            scores[*id as usize] += bias;
        }
        let mut recent = all[all.len().saturating_sub(REPETITION_CONTEXT)..].to_vec();
        recent.sort_unstable();
        recent.dedup();
        for id in recent {
            let score = &mut scores[id as usize];
            let penalty = ask.sampling.repetition_penalty;
            *score = if *score < 0.0 {
                *score * penalty
            } else {
                *score / penalty
            };
        }
        let answer = &all[ask.ids.len()..];
        for (id, score) in scores.iter_mut().enumerate() {
            let count = answer.iter().filter(|other| **other as usize == id).count();
            *score -= ask.penalties.frequency * count as f32;
            *score -= ask.penalties.presence * f32::from(u8::from(count > 0));
        }
        let best = scores.iter().copied().fold(f32::MIN, f32::max);
        let id = scores.iter().position(|score| *score == best).unwrap() as u32;
        all.push(id);
        next = vec![id];
    }
    all.split_off(ask.ids.len())
}

fn ask(n: usize) -> Ask {
    let penalties = Penalties {
        presence: [0.0, 1.5, -1.0, 0.0, 2.0][n % 5],
        frequency: [0.0, 0.5, 0.0, 2.0, -0.3][n % 5],
        biases: [
            vec![],
            vec![],
            vec![(100, 12.0), (7, -100.0)],
            vec![(40, 3.0)],
        ][n % 4]
            .clone(),
    };
    Ask {
        ids: ids([30, 16, 5, 47][n % 4], n),
        max_tokens: 24,
        ignore_eos: true,
        sampling: Sampling {
            repetition_penalty: [1.0, 1.3][n / 4 % 2],
            temperature: [0.0, 0.9][n / 10],
            seed: n as u64,
            ..Sampling::default()
        },
        penalties,
        ..Ask::default()
    }
}

#[test]
fn rows_with_penalties_answer_beside_rows_without_what_they_answer_alone() {
    let running = spawn(settings());
    let asks: Vec<Ask> = (0..16).map(ask).collect();
    let submit = |ask: &Ask| running.handle.submit(ask.clone()).unwrap();
    let together: Vec<_> = asks.iter().map(submit).collect();
    let mut changed = 0;
    for (n, mut answer) in together.into_iter().enumerate() {
        let tokens = listen(&mut answer).ids(0);
        assert_eq!(listen(&mut submit(&asks[n])).ids(0), tokens, "{n} alone");
        if asks[n].sampling.temperature == 0.0 {
            assert_eq!(by_hand(&asks[n]), tokens, "{n} by hand");
        }
        let (plain, _) = alone(&[request(&asks[n], 0)]).remove(0);
        if asks[n].penalties == Penalties::default() {
            assert_eq!(plain, tokens, "{n} in part 5");
        } else {
            changed += usize::from(plain != tokens);
        }
    }
    assert!(changed > 6, "{changed}");
}

#[test]
fn a_bias_of_100_forces_a_token_and_one_of_minus_100_bans_it() {
    let running = spawn(settings());
    let plain = Ask {
        penalties: Penalties::default(),
        ..ask(0)
    };
    let with = |biases: Vec<(u32, f32)>, temperature: f32| {
        let penalties = Penalties {
            biases,
            ..Penalties::default()
        };
        let sampling = Sampling {
            temperature,
            ..plain.sampling
        };
        let ask = Ask {
            penalties,
            sampling,
            ..plain.clone()
        };
        listen(&mut running.handle.submit(ask).unwrap()).ids(0)
    };
    let tokens = with(vec![], 0.0);
    for temperature in [0.0, 1.0] {
        assert_eq!(with(vec![(321, 100.0)], temperature), [321; 24]);
        let banned: Vec<(u32, f32)> = (0..3000).map(|id| (id, -100.0)).collect();
        assert!(with(banned, temperature).iter().all(|id| *id >= 3000));
    }
    assert!(!with(vec![(tokens[0], -100.0)], 0.0).contains(&tokens[0]));
}

#[test]
fn a_bias_for_no_token_of_the_model_and_two_for_one_are_refused() {
    let running = spawn(settings());
    for (biases, why) in [
        (vec![(u32::MAX, 1.0)], "has a bias"),
        (vec![(1, 1.0), (1, 2.0)], "two biases"),
    ] {
        let penalties = Penalties {
            biases,
            ..Penalties::default()
        };
        let ask = Ask {
            penalties,
            ..ask(0)
        };
        let heard = listen(&mut running.handle.submit(ask).unwrap());
        assert!(heard.fault.unwrap().to_string().contains(why));
    }
}
