//! Guesses change when tokens come, and never which.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod engines;

use std::sync::Arc;

use console::cli::{FloatType, ModelArgs};
use console::metrics::FinishReason;
use engines::{
    Heard, alone, ids, limits, listen, model, request, settings, spawn, tiny, tokenizer, wait_until,
};
use mlx_rs::Array;
use part6_pipeline::ask::{Ask, Event, Grammar};
use part6_pipeline::kinds::{CacheKind, empty_cache};
use part6_pipeline::limits::{Limits, Memory};
use part6_pipeline::model::Model;
use part6_pipeline::quantized_cache::KvBits;
use part6_pipeline::speculate::{Speculation, Way};
use part6_pipeline::thread::{Running, Settings};
use serde_json::json;
use shared::checkpoint::Checkpoint;
use shared::hub;
use shared::layers::ids_array;
use shared::sampling::{Penalties, Sampler, Sampling};

/// Looks up at every step, whether it pays or not.
fn guessing(most: usize) -> Settings {
    by(Way::Lookup, most)
}

fn by(way: Way, most: usize) -> Settings {
    Settings {
        speculation: Speculation {
            way,
            most,
            always: true,
        },
        ..settings()
    }
}

/// The smaller model that is built in.
fn draft() -> Way {
    Way::Draft(ModelArgs {
        model: "tiny-draft".to_owned(),
        ..model()
    })
}

fn get(running: &Running, ask: &Ask) -> Heard {
    let heard = listen(&mut running.handle.submit(ask.clone()).unwrap());
    assert_eq!(heard.fault, None);
    heard
}

/// All at once.
fn all(running: &Running, asks: &[Ask]) -> Vec<Heard> {
    let submit = |ask: &Ask| running.handle.submit(ask.clone()).unwrap();
    let mut answers: Vec<_> = asks.iter().map(submit).collect();
    answers.iter_mut().map(listen).collect()
}

/// A text that an answer may repeat parts of.
fn told(text: &str) -> Vec<u32> {
    let text = format!("{text} {text} {text}");
    tokenizer().encode_prompt(&text, true).unwrap()
}

fn texts() -> [Vec<u32>; 4] {
    [
        told("The sun rises in the east and sets in the west."),
        told("fn add(a: u32, b: u32) -> u32 { a + b }"),
        ids(40, 3),
        told("Once upon a time there was a little dog who had a red ball."),
    ]
}

fn long(ids: Vec<u32>, max_tokens: usize) -> Ask {
    Ask {
        ids,
        max_tokens,
        ignore_eos: true,
        ..Ask::default()
    }
}

fn guessed(heard: &[Heard]) -> (usize, usize) {
    let guesses = heard.iter().map(|heard| heard.usage.unwrap().guesses);
    guesses.fold((0, 0), |(guessed, right), one| {
        (guessed + one.guessed, right + one.right)
    })
}

#[test]
fn alone_and_in_a_batch_the_tokens_are_those_of_part_5() {
    let asks: Vec<Ask> = texts().map(|ids| long(ids, 50)).into();
    let expected = alone(&asks.iter().map(|ask| request(ask, 0)).collect::<Vec<_>>());
    for (way, most) in [
        (Way::Lookup, 4),
        (Way::Lookup, 16),
        (draft(), 1),
        (draft(), 5),
    ] {
        let running = spawn(by(way, most));
        let one_by_one: Vec<Heard> = asks.iter().map(|ask| get(&running, ask)).collect();
        let together = all(&running, &asks);
        for heard in [&one_by_one, &together] {
            for (heard, (tokens, reason)) in heard.iter().zip(&expected) {
                assert_eq!((&heard.ids(0), heard.ends[&0].0), (tokens, *reason));
            }
            let (guessed, right) = guessed(heard);
            assert!(0 < right && right < guessed, "{right} of {guessed}");
        }
        // They began together, and most of their steps brought more than a token each.
        let status = running.handle.status();
        assert!(status.steps < 5 * 50 * 4 / 4, "{}", status.steps);
    }
}

#[test]
fn at_a_temperature_the_draws_are_the_requests_own_with_and_without_guesses() {
    let asks: Vec<Ask> = (0..12)
        .map(|number| Ask {
            sampling: Sampling {
                temperature: [0.3, 0.8, 1.2][number % 3],
                top_p: [1.0, 0.9][number % 2],
                top_k: [0, 5, 40][number % 3],
                min_p: [0.0, 0.0, 0.05][number % 3],
                repetition_penalty: [1.0, 1.0, 1.0, 1.2][number % 4],
                seed: number as u64,
            },
            penalties: Penalties {
                presence: [0.0, 0.5, 0.0][number % 3],
                frequency: [0.0, 0.0, 0.3, -0.2][number % 4],
                biases: [vec![], vec![(17, 2.0), (260, -3.0)]][number % 2].clone(),
            },
            logprobs: [None, Some(2)][number / 2 % 2],
            ..long(texts()[number % 4].clone(), 40)
        })
        .collect();
    let plain = spawn(settings());
    let expected: Vec<Heard> = asks.iter().map(|ask| get(&plain, ask)).collect();
    for way in [Way::Lookup, draft()] {
        let running = spawn(by(way, 5));
        let heard = all(&running, &asks);
        for (heard, expected) in heard.iter().zip(&expected) {
            assert_eq!(heard.tokens, expected.tokens, "and their log-probabilities");
            assert_eq!(heard.texts, expected.texts);
        }
        let (guessed, right) = guessed(&heard);
        assert!(0 < right && right < guessed, "{right} of {guessed}");
    }
}

#[test]
fn under_a_schema_the_tokens_are_the_same_and_what_it_forbids_is_not_run() {
    let schema = json!({
        "type": "object",
        "properties": {
            "names": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 9, "maxItems": 12},
            "count": {"type": "integer"},
            "about": {"type": "string", "maxLength": 30},
        },
        "required": ["names", "count", "about"],
        "additionalProperties": false,
    });
    let grammars = [
        Grammar::Schema(schema),
        Grammar::Regex("(ab|ba){20,30}".to_owned()),
        Grammar::Json,
    ];
    let asks: Vec<Ask> = (0..12)
        .map(|number| Ask {
            grammar: Some(Arc::new(grammars[number % 3].clone())),
            sampling: Sampling {
                temperature: [0.0, 0.9][number / 3 % 2],
                seed: number as u64,
                ..Sampling::default()
            },
            ignore_eos: false,
            ..long(texts()[number % 4].clone(), 80)
        })
        .collect();
    let packed = CacheKind::Quantized(KvBits { keys: 8, values: 8 });
    for (kind, way) in [
        (CacheKind::Prealloc, Way::Lookup),
        (packed, Way::Lookup),
        (CacheKind::Prealloc, draft()),
    ] {
        let plain = spawn(Settings { kind, ..settings() });
        let expected: Vec<Heard> = asks.iter().map(|ask| get(&plain, ask)).collect();
        let running = spawn(Settings { kind, ..by(way, 6) });
        let mut mixed = asks.clone();
        mixed.push(long(texts()[0].clone(), 60)); // one that may say anything
        let heard = all(&running, &mixed);
        for (heard, expected) in heard.iter().zip(&expected) {
            assert_eq!(
                (&heard.tokens, &heard.ends),
                (&expected.tokens, &expected.ends)
            );
            let (own, other) = (heard.usage.unwrap(), expected.usage.unwrap());
            assert_eq!(own.forced_tokens, other.forced_tokens);
        }
        let (guessed, right) = guessed(&heard[..12]);
        assert!(0 < right && right <= guessed, "{right} of {guessed}");
    }
}

#[test]
fn an_answer_ends_within_a_guess_as_it_would_have_without() {
    let prompt = texts()[0].clone();
    let whole = long(prompt.clone(), 60);
    let plain = spawn(settings());
    let running = spawn(guessing(8));
    let expected = get(&plain, &whole);
    let text = &expected.texts[&0];
    let letters: Vec<char> = text.chars().collect();
    for max_tokens in 1..24 {
        let ask = long(prompt.clone(), max_tokens);
        let heard = get(&running, &ask);
        assert_eq!(heard.ids(0), expected.ids(0)[..max_tokens]);
        assert_eq!(heard.ends[&0].0, FinishReason::Length);
        assert_eq!(heard.usage.unwrap().completion_tokens, max_tokens);
    }
    for from in (0..letters.len() - 3).step_by(5) {
        let ask = Ask {
            stop: vec![letters[from..from + 3].iter().collect()],
            ..whole.clone()
        };
        let (heard, expected) = (get(&running, &ask), get(&plain, &ask));
        assert_eq!(
            (&heard.texts, &heard.tokens, &heard.ends),
            (&expected.texts, &expected.tokens, &expected.ends)
        );
        let tokens = |heard: &Heard| heard.usage.unwrap().completion_tokens;
        assert_eq!(tokens(&heard), tokens(&expected));
    }
    // An id that ends an answer may be guessed, too: where the prompt has it, it was the end of something.
    let mut ends = prompt;
    ends.extend(tokenizer().stop_ids().iter().copied().take(1));
    let (first, second) = (ends[ends.len() - 3], ends[ends.len() - 2]);
    ends.extend([first, second]);
    let ask = Ask {
        ignore_eos: false,
        ..long(ends, 40)
    };
    let (heard, expected) = (get(&running, &ask), get(&plain, &ask));
    assert_eq!(
        (&heard.tokens, &heard.ends),
        (&expected.tokens, &expected.ends)
    );
    let freed = wait_until(&mut spawn(guessing(8)), |status| status.running == 0);
    assert_eq!(freed.kv_tokens, 0);
}

#[test]
fn rows_that_lose_their_memory_or_begin_with_a_known_prefix_guess_on() {
    let asks: Vec<Ask> = texts().map(|ids| long(ids, 60)).into();
    let expected = alone(&asks.iter().map(|ask| request(ask, 0)).collect::<Vec<_>>());
    let most = asks.iter().map(|ask| ask.ids.len()).max().unwrap() + 60;
    for way in [Way::Lookup, draft()] {
        let mut running = spawn(Settings {
            limits: Limits {
                kv_tokens: most + 40,
                ..limits()
            },
            ..by(way, 6)
        });
        for (heard, (tokens, _)) in all(&running, &asks).iter().zip(&expected) {
            assert_eq!(&heard.ids(0), tokens);
        }
        let status = wait_until(&mut running, |status| status.running == 0);
        assert!(status.preemptions > 0 && status.kv_tokens == 0);
    }
    let reserved = spawn(Settings {
        limits: Limits {
            kv_tokens: 2 * most,
            memory: Memory::Reserve,
            ..limits()
        },
        prefix_bytes: 1 << 30,
        ..guessing(6)
    });
    for round in 0..2 {
        for (heard, (tokens, _)) in all(&reserved, &asks).iter().zip(&expected) {
            assert_eq!(&heard.ids(0), tokens);
            assert_eq!(heard.cached.unwrap() > 0, round > 0);
        }
    }
    // The next turn begins with an answer whose positions were partly those of guesses.
    for (ask, (tokens, _)) in asks.iter().zip(&expected) {
        let mut turn = [&ask.ids[..], tokens].concat();
        let whole = turn.len();
        turn.extend(ids(5, 9));
        let ask = long(turn, 20);
        let heard = get(&reserved, &ask);
        assert!(
            heard.cached.unwrap() + 17 > whole,
            "{:?} of {whole}",
            heard.cached
        );
        assert_eq!(heard.ids(0), alone(&[request(&ask, 0)])[0].0);
    }
}

#[test]
fn whoever_leaves_while_guesses_are_tried_out_frees_its_row_and_harms_nobody() {
    let mut running = spawn(guessing(6));
    let other = long(texts()[1].clone(), 120);
    let expected = alone(&[request(&other, 0)]).remove(0).0;
    let mut stays = running.handle.submit(other).unwrap();
    for round in 0..6 {
        let mut leaves = running
            .handle
            .submit(long(texts()[round % 4].clone(), 300))
            .unwrap();
        let mut deltas = 0;
        while deltas <= round {
            let event = leaves.blocking_next().unwrap();
            deltas += usize::from(matches!(event, Event::Delta { .. }));
        }
    }
    assert_eq!(listen(&mut stays).ids(0), expected);
    let status = wait_until(&mut running, |status| status.running == 0);
    assert_eq!((status.waiting, status.kv_tokens), (0, 0));
}

#[test]
fn keys_and_values_in_8_bits_are_guessed_with_and_a_ring_says_that_it_cannot() {
    let kind = CacheKind::Quantized(KvBits { keys: 8, values: 8 });
    let asks: Vec<Ask> = texts().map(|ids| long(ids, 60)).into();
    let plain = spawn(Settings { kind, ..settings() });
    let running = spawn(Settings {
        kind,
        ..guessing(6)
    });
    let expected: Vec<Heard> = asks.iter().map(|ask| get(&plain, ask)).collect();
    for (heard, expected) in all(&running, &asks).iter().zip(&expected) {
        assert_eq!(heard.tokens, expected.tokens);
    }
    let ring = Settings {
        kind: CacheKind::Rotating { size: 40, sinks: 4 },
        ..guessing(6)
    };
    let mut running = part6_pipeline::engine::Engine::spawn(ring).unwrap();
    let state = engines::runtime().block_on(running.handle.loaded());
    assert!(format!("{state:?}").contains("rotating cache"), "{state:?}");
    assert!(running.end().is_err());
}

#[test]
fn who_guesses_wrongly_stops_and_loses_little() {
    let running = spawn(Settings {
        speculation: Speculation {
            always: false,
            ..guessing(16).speculation
        },
        ..settings()
    });
    // After a pair of tokens always others come, so what is looked up is wrong.
    let pairs = (0..60).flat_map(|number| [700, 701, 900 + number * 3]);
    let asks: Vec<Ask> = (0..3).map(|_| long(pairs.clone().collect(), 200)).collect();
    let expected = alone(&[request(&asks[0], 0)]).remove(0).0;
    for ask in &asks {
        assert_eq!(get(&running, ask).ids(0), expected);
    }
    // What is right so often that it pays is no adversary: it may go on.
    let all = Sampling {
        temperature: 5.0,
        ..Sampling::default()
    };
    let mut wild = asks[0].clone();
    wild.sampling = all;
    let heard = get(&running, &wild);
    let guesses = heard.usage.unwrap().guesses;
    assert!(guesses.guessed < 60, "{guesses:?}");
}

#[test]
fn a_draft_of_another_vocabulary_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let source =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/models/tiny-draft");
    for file in std::fs::read_dir(source).unwrap() {
        let file = file.unwrap();
        let to = folder.path().join(file.file_name());
        if file.file_name() == "tokenizer.json" {
            let text = std::fs::read_to_string(file.path()).unwrap();
            let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
            let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
            let (a, b) = (vocabulary["A"].clone(), vocabulary["B"].clone());
            (vocabulary["A"], vocabulary["B"]) = (b, a);
            std::fs::write(to, json.to_string()).unwrap();
        } else {
            std::fs::copy(file.path(), to).unwrap();
        }
    }
    let way = Way::Draft(ModelArgs {
        model: folder.path().display().to_string(),
        ..model()
    });
    let mut running = part6_pipeline::engine::Engine::spawn(by(way, 4)).unwrap();
    let state = engines::runtime().block_on(running.handle.loaded());
    let told = format!("{state:?}");
    assert!(told.contains("take a draft of the same family"), "{told}");
    assert!(
        told.contains("for it and") && !told.contains('\n'),
        "{told}"
    );
    assert!(running.end().is_err());
}

/// The logits of the likeliest tokens after a text, by both models: a small vocabulary.
fn small(text: &str, tokens: usize) -> [Vec<f32>; 2] {
    let ids = ids_array(&tokenizer().encode_prompt(text, true).unwrap());
    let [own, other] = ["tiny", "tiny-draft"].map(|name| {
        let mut checkpoint = Checkpoint::open(name, hub::locate(name, None).unwrap()).unwrap();
        checkpoint.dtype = Some(FloatType::F32);
        let model = Model::load(&checkpoint).unwrap();
        let mut cache = empty_cache(CacheKind::Prealloc, &checkpoint.config);
        let logits = model.next_logits(&ids, &mut cache).unwrap();
        logits.eval().unwrap();
        logits.try_as_slice::<f32>().unwrap().to_vec()
    });
    let mut order: Vec<usize> = (0..own.len()).collect();
    order.sort_by(|a, b| own[*b].total_cmp(&own[*a]));
    order.truncate(tokens);
    [own, other].map(|logits| order.iter().map(|id| logits[*id]).collect())
}

fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
    let exp = |logit: &f32| f64::from(*logit / temperature).exp();
    let total: f64 = logits.iter().map(exp).sum();
    logits.iter().map(|logit| exp(logit) / total).collect()
}

/// Σ (seen − expected)² / expected, and how many terms the sum has: outcomes of which fewer than 5 are expected are one.
fn chi_square(counts: &[u64], probabilities: &[f64]) -> (f64, usize) {
    let all = counts.iter().sum::<u64>() as f64;
    let pairs = counts.iter().zip(probabilities);
    let pairs = pairs.map(|(seen, p)| (*seen as f64, p * all));
    let (rare, mut terms): (Vec<_>, Vec<_>) = pairs.partition(|(_, expected)| *expected < 5.0);
    let sum = |of: &dyn Fn(&(f64, f64)) -> f64| rare.iter().map(of).sum::<f64>();
    let rare = (sum(&|pair| pair.0), sum(&|pair| pair.1));
    terms.extend(Some(rare).filter(|(_, expected)| *expected > 0.5));
    let square = |(seen, expected): &(f64, f64)| (seen - expected).powi(2) / expected;
    (terms.iter().map(square).sum(), terms.len())
}

/// In 1 of 1,000 cases chance alone makes more, with this many outcomes less one (Wilson and Hilferty).
fn most_by_chance(outcomes: usize) -> f64 {
    let degrees = (outcomes - 1) as f64;
    let part = 2.0 / (9.0 * degrees);
    degrees * (1.0 - part + 3.0902 * part.sqrt()).powi(3)
}

/// A token is guessed with the draft's probabilities and drawn with the model's, by the same random numbers; if they
/// agree, the guess stands, and if not, what was drawn comes instead. Whatever the draft thinks, what comes is
/// distributed as the model says.
#[test]
fn over_100_000_draws_what_comes_is_distributed_as_the_model_says() {
    const DRAWS: u64 = 25_000;
    let texts = [
        "The small red",
        "The sun is",
        "fn add(a",
        "Explain why the sky",
    ];
    for (text, temperature) in texts.into_iter().zip([2.0, 3.0, 1.5, 2.5]) {
        let [own, other] = small(text, 10);
        let (p, q) = (softmax(&own, temperature), softmax(&other, temperature));
        let array = |logits: &[f32]| Array::from_slice(logits, &[1, logits.len() as i32]);
        let (own, other) = (array(&own), array(&other));
        let (mut counts, mut accepted) = (vec![0_u64; p.len()], 0_u64);
        for seed in 0..DRAWS {
            let sampling = Sampling {
                temperature,
                seed,
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(&sampling, &[]).unwrap();
            let guess = sampler.clone().sample(&other).unwrap().read().unwrap();
            let drawn = sampler.sample(&own).unwrap().read().unwrap();
            counts[drawn as usize] += 1;
            accepted += u64::from(guess == drawn);
        }
        let (chi_square, terms) = chi_square(&counts, &p);
        assert!(terms > 5, "{text:?} has one answer");
        let limit = most_by_chance(terms);
        assert!(
            chi_square < limit,
            "{text:?}: {chi_square:.1} of {limit:.1}"
        );
        // One random number picks from both where it falls among their sums: they agree where the two parts of a token
        // overlap. min(1, p/q) would accept a share of Σ min(p, q), the most there is.
        let (mut sums, mut agree) = ([0.0, 0.0], 0.0);
        for (p, q) in p.iter().zip(&q) {
            let ends = [sums[0] + p, sums[1] + q];
            agree += f64::max(0.0, ends[0].min(ends[1]) - sums[0].max(sums[1]));
            sums = ends;
        }
        let most: f64 = p.iter().zip(&q).map(|(p, q)| p.min(*q)).sum();
        let share = accepted as f64 / DRAWS as f64;
        let chance = 4.0 * (0.25 / DRAWS as f64).sqrt();
        assert!((share - agree).abs() < chance, "{share} are not {agree}");
        assert!(agree < most + 1e-9);
        println!(
            "{text:?}: {share:.3} accepted, by min(1, p/q) {most:.3}; chi-square {chi_square:.1} of {limit:.1}"
        );
    }
}

#[test]
fn answers_that_were_guessed_at_are_distributed_as_the_model_says() {
    const ANSWERS: usize = 1500;
    let prompt = tokenizer()
        .encode_prompt("Once upon a time there was a", true)
        .unwrap();
    let sampling = |seed: usize| Sampling {
        temperature: 3.0,
        top_k: 4,
        seed: seed as u64,
        ..Sampling::default()
    };
    // All pairs of first tokens, and how likely each is.
    let checkpoint = tiny();
    let model = Model::load(&checkpoint).unwrap();
    let four = |ids: &[u32]| {
        let mut cache = empty_cache(CacheKind::Prealloc, &checkpoint.config);
        let logits = model.next_logits(&ids_array(ids), &mut cache).unwrap();
        logits.eval().unwrap();
        let logits = logits.try_as_slice::<f32>().unwrap();
        let mut best: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1));
        let scores: Vec<f32> = best[..4].iter().map(|(_, logit)| *logit).collect();
        let ids = best.into_iter().map(|(id, _)| id);
        ids.zip(softmax(&scores, 3.0)).collect::<Vec<_>>()
    };
    let mut pairs = Vec::new();
    for (first, p) in four(&prompt) {
        let next = four(&[&prompt[..], &[first]].concat());
        pairs.extend(next.into_iter().map(|(second, q)| ([first, second], p * q)));
    }
    let running = spawn(Settings {
        prefix_bytes: 1 << 20,
        ..by(draft(), 2)
    });
    let mut counts = vec![0; pairs.len()];
    let (mut tried, mut right) = (0, 0);
    for first in (0..ANSWERS).step_by(50) {
        let asks = (first..first + 50).map(|seed| Ask {
            sampling: sampling(seed),
            ..long(prompt.clone(), 4)
        });
        let heard = all(&running, &asks.collect::<Vec<_>>());
        for heard in &heard {
            let ids = &heard.ids(0)[..2];
            let pair = pairs.iter().position(|(pair, _)| pair == ids).unwrap();
            counts[pair] += 1;
        }
        let (more, more_right) = guessed(&heard);
        (tried, right) = (tried + more, right + more_right);
    }
    assert!(
        tried >= ANSWERS && 0 < right && right < tried,
        "{right} of {tried}"
    );
    let probabilities: Vec<f64> = pairs.iter().map(|(_, p)| *p).collect();
    let (chi_square, terms) = chi_square(&counts, &probabilities);
    assert!(terms > 6, "{probabilities:?}");
    let limit = most_by_chance(terms);
    assert!(chi_square < limit, "{chi_square:.1} of {limit:.1}");
}
