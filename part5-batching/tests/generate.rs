//! Every answer is the one that part 3 gives alone, whatever else the steps run.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod alone;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use alone::{Both, PACKED, alone, bits_are_equal, generation, keys_and_values, tiny};
use console::cli::FloatType;
use console::metrics::FinishReason;
use mlx_rs::Array;
use mlx_rs::ops::indexing::IndexOp;
use part5_batching::generate::{Generator, prefill};
use part5_batching::invariant;
use part5_batching::kinds::{CacheKind, empty_cache};
use part5_batching::scheduler::{Limits, Memory, Policy, SequenceId};
use part5_batching::stepped::Event;
use part5_batching::together::generate;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use shared::checkpoint::Checkpoint;
use shared::config::{GroupQuantization, Mode, Quantization};
use shared::kernels::{steps_in_flight, with_mlx};
use shared::layers::to_f32;
use shared::machine::active_bytes;
use shared::request::{Request, Step};
use shared::sampling::Sampling;
use shared::testing::fixtures;

const RING: CacheKind = CacheKind::Rotating { size: 16, sinks: 4 };
const NO_SINKS: CacheKind = CacheKind::Rotating { size: 9, sinks: 0 };

/// Room for all.
fn wide() -> Limits {
    Limits {
        rows: 32,
        tokens_per_step: 4096,
        piece: 512,
        block: 1,
        kv_tokens: 1 << 20,
        policy: Policy::Continuous,
        memory: Memory::Preempt,
        decodes_per_piece: 1,
    }
}

/// One request of a run: when it comes, and when its caller gives up.
#[derive(Debug, Clone)]
struct Asked {
    prompt: usize,
    max_tokens: usize,
    arrives: usize,
    cancelled: Option<usize>,
}

/// What came of it.
#[derive(Debug, Default, PartialEq)]
struct Got {
    tokens: Vec<u32>,
    end: Option<FinishReason>,
}

/// Runs them all to their ends; after each step `look` may look.
fn run(
    generator: &mut Generator<'_>,
    asked: &[(Asked, Request)],
    look: impl FnMut(&Generator<'_>, &BTreeMap<SequenceId, Got>),
) -> (Vec<Got>, usize) {
    run_with(generator, asked, |_, _| {}, look)
}

/// The same; before each step `resume` may bring caches.
fn run_with(
    generator: &mut Generator<'_>,
    asked: &[(Asked, Request)],
    mut resume: impl FnMut(&mut Generator<'_>, &BTreeMap<SequenceId, Got>),
    mut look: impl FnMut(&Generator<'_>, &BTreeMap<SequenceId, Got>),
) -> (Vec<Got>, usize) {
    let (mut all, mut preempted) = (BTreeMap::<SequenceId, Got>::new(), 0);
    let mut ids = vec![None; asked.len()];
    for turn in 0.. {
        assert!(turn < 100_000, "no end");
        let now = Duration::from_millis(turn as u64);
        for (id, (asked, request)) in ids.iter_mut().zip(asked) {
            if asked.arrives == turn {
                *id = Some(generator.submit(request.clone(), now).unwrap());
                all.insert(id.unwrap(), Got::default());
            }
            if let (Some(id), true) = (*id, asked.cancelled == Some(turn)) {
                generator.cancel(id).unwrap();
            }
        }
        if ids.iter().all(Option::is_some) {
            generator.close();
            if generator.scheduler().is_idle() {
                break;
            }
        }
        resume(generator, &all);
        let stepped = generator.step(now).unwrap();
        preempted += stepped.plan.preempted.len();
        for Event { id, step } in stepped.events {
            let got = all.get_mut(&id).unwrap();
            assert_eq!(got.end, None, "nothing comes after the end");
            match step.unwrap() {
                Step::Prefill { .. } => {}
                Step::Token { id, .. } => got.tokens.push(id),
                Step::End(reason) => got.end = Some(reason),
            }
        }
        look(generator, &all);
    }
    let got = ids.into_iter().map(|id| all.remove(&id.unwrap()).unwrap());
    (got.collect(), preempted)
}

fn asked() -> impl Strategy<Value = Vec<Asked>> {
    let one = (
        1..=60_usize,
        1..=40_usize,
        0..40_usize,
        prop::option::weighted(0.2, 0..80_usize),
    );
    let one = one.prop_map(|(prompt, max_tokens, arrives, cancelled)| Asked {
        prompt,
        max_tokens,
        arrives,
        cancelled,
    });
    prop::collection::vec(one, 1..9).prop_map(|mut all| {
        all.sort_by_key(|asked| asked.arrives); // numbers rise with time
        all
    })
}

/// Limits of every kind; the memory is little more than the longest request needs.
fn limits(piece: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Limits> {
    let policies = prop::sample::select(vec![
        Policy::Static,
        Policy::Dynamic {
            wait: Duration::from_millis(5),
        },
        Policy::Continuous,
        Policy::Continuous,
    ]);
    let memory = prop::sample::select(vec![Memory::Reserve, Memory::Preempt, Memory::Preempt]);
    (
        (1..=6_usize, 0..60_usize, piece, 1..=16_usize),
        (100..180_usize, policies, memory, 1..4_usize),
    )
        .prop_map(|((rows, more, piece, block), rest)| {
            let (kv_tokens, policy, memory, decodes_per_piece) = rest;
            let block = block.min(piece);
            Limits {
                rows,
                tokens_per_step: block + rows + more,
                piece,
                block,
                kv_tokens,
                policy,
                memory,
                decodes_per_piece,
            }
        })
}

/// Tries `cases` values, the same ones each time.
fn for_each<S: Strategy>(cases: u32, values: S, mut check: impl FnMut(S::Value)) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = TestRunner::new_with_rng(config, rng);
    for _ in 0..cases {
        check(values.new_tree(&mut runner).unwrap().current());
    }
}

/// Sampling of several kinds: greedy, hot, with penalties, filtered, each with a seed of its own.
fn sampling(index: usize) -> Sampling {
    let plain = Sampling {
        seed: index as u64,
        ..Sampling::default()
    };
    match index % 4 {
        0 => plain,
        1 => Sampling {
            temperature: 1.0,
            ..plain
        },
        2 => Sampling {
            repetition_penalty: 1.3,
            ..plain
        },
        _ => Sampling {
            temperature: 0.8,
            top_p: 0.9,
            top_k: 20,
            repetition_penalty: 1.1,
            ..plain
        },
    }
}

fn requests(both: &Both, asked: &[Asked], sampled: bool) -> Vec<(Asked, Request)> {
    let request = |(index, asked): (usize, &Asked)| {
        let request = Request {
            ids: both.ids(asked.prompt, index),
            max_tokens: asked.max_tokens,
            stop_ids: if index % 2 == 0 { vec![5] } else { Vec::new() },
            sampling: sampling(if sampled { index } else { 0 }),
        };
        (asked.clone(), request)
    };
    asked.iter().enumerate().map(request).collect()
}

/// Whether it is what the request gives alone: all of it, or its beginning where its caller gave up.
fn check(got: &Got, alone: &Got, asked: &Asked, what: &str) {
    match got.end {
        Some(_) => assert_eq!(got, alone, "{what}"),
        None => {
            assert!(asked.cancelled.is_some(), "{what} has no end");
            assert!(alone.tokens.starts_with(&got.tokens), "{what}");
        }
    }
}

fn by_part3(both: &Both, kind: CacheKind, request: &Request) -> Got {
    let generation = generation(both, kind, request);
    Got {
        tokens: generation.tokens,
        end: Some(generation.finish_reason),
    }
}

#[test]
fn whatever_the_schedule_each_answer_is_the_one_of_part_3() {
    each_answer_is_the_one_of_part_3();
}

/// On a CPU this is the only one that has a step in flight while the next one is planned.
#[test]
fn so_it_is_with_mlxs_own_operations_and_a_step_ahead() {
    with_mlx(each_answer_is_the_one_of_part_3);
}

fn each_answer_is_the_one_of_part_3() {
    let both = ["llama", "mistral-layer-types"].map(Both::fixture);
    let kinds = prop::sample::select(vec![CacheKind::Prealloc, NO_SINKS]);
    let (mut preempted, mut cancelled) = (0, 0);
    let values = (asked(), limits(1..=128), kinds, 0..2_usize);
    for_each(60, values, |(asked, limits, kind, model)| {
        let both = &both[model];
        let what = format!("{asked:?} with {limits:?}, {kind:?}");
        let mut generator =
            Generator::new(&both.model, &both.config, kind, limits.clone()).unwrap();
        let asked = requests(both, &asked, true);
        let (got, times) = run(&mut generator, &asked, |_, _| {});
        preempted += times;
        for ((asked, request), got) in asked.iter().zip(&got) {
            cancelled += usize::from(got.end.is_none());
            check(got, &by_part3(both, kind, request), asked, &what);
        }
        assert_eq!(
            generator.batch().cache().bytes(),
            0,
            "all memory is given back"
        );
    });
    assert!(preempted > 10 && cancelled > 10, "{preempted}, {cancelled}");
}

/// With the loops of this device, and with MLX's own operations: then a step is in flight while the next one is
/// planned, as on a GPU.
fn both_ways(check: impl Fn()) {
    check();
    with_mlx(check);
}

/// A stream works in order: when an operation that was asked for last is done, all are.
fn wait_for_the_step_in_flight() {
    let last = Array::from_f32(1.0).add(Array::from_f32(1.0)).unwrap();
    last.eval().unwrap();
}

/// Brings those who are next in line the beginnings of what they have to read, in whole blocks, and says of how
/// many positions. The numbers of requests are their places in `asked`.
fn bring_beginnings(
    both: &Both,
    kind: CacheKind,
    asked: &[(Asked, Request)],
    generator: &mut Generator<'_>,
    got: &BTreeMap<SequenceId, Got>,
) -> usize {
    let (mut brought, block) = (0, generator.scheduler().limits().block);
    let next: Vec<SequenceId> = generator.scheduler().next_in_line().collect();
    for id in next.into_iter().filter(|id| id.0 % 3 != 0) {
        let ids = [&asked[id.0 as usize].1.ids[..], &got[&id].tokens].concat();
        // Of some all but the last block, of others half.
        let known = (ids.len() - 1) / (id.0 as usize % 3);
        let known = known - known % block;
        let mut cache = empty_cache(kind, &both.config);
        for piece in ids[..known].chunks(32) {
            prefill(&both.model, &mut cache, piece).unwrap();
        }
        generator.resume(id, cache).unwrap();
        brought += known;
    }
    brought
}

/// Also of those who were preempted, and whose answer has begun.
#[test]
fn a_request_whose_beginning_is_in_a_cache_gives_its_tokens() {
    both_ways(|| {
        let both = ["llama", "mistral-layer-types"].map(Both::fixture);
        let kinds = prop::sample::select(vec![CacheKind::Prealloc, NO_SINKS]);
        let (mut brought, mut preempted) = (0, 0);
        let values = (asked(), limits(1..=64), kinds, 0..2_usize);
        for_each(60, values, |(asked, limits, kind, model)| {
            let both = &both[model];
            let what = format!("{asked:?} with {limits:?}, {kind:?}");
            let mut generator =
                Generator::new(&both.model, &both.config, kind, limits.clone()).unwrap();
            let asked = requests(both, &asked, true);
            let resume = |generator: &mut Generator<'_>, got: &_| {
                brought += bring_beginnings(both, kind, &asked, generator, got);
            };
            let (got, times) = run_with(&mut generator, &asked, resume, |_, _| {});
            preempted += times;
            for ((asked, request), got) in asked.iter().zip(&got) {
                check(got, &by_part3(both, kind, request), asked, &what);
            }
        });
        assert!(brought > 1000 && preempted > 10, "{brought}, {preempted}");
    });
}

#[test]
fn a_cache_that_nobody_waits_for_is_refused() {
    let both = Both::fixture("llama");
    let cache = |positions| {
        let mut cache = empty_cache(CacheKind::Prealloc, &both.config);
        prefill(&both.model, &mut cache, &both.ids(positions, 0)).unwrap();
        cache
    };
    let mut generator =
        Generator::new(&both.model, &both.config, CacheKind::Prealloc, wide()).unwrap();
    let request = Request {
        ids: both.ids(20, 0),
        max_tokens: 4,
        ..Request::default()
    };
    let id = generator.submit(request, Duration::ZERO).unwrap();
    assert!(generator.resume(id, cache(20)).is_err());
    generator.resume(id, cache(16)).unwrap();
    let step = generator.step(Duration::ZERO).unwrap();
    assert_eq!(step.prompt_tokens, 4);
    assert!(generator.resume(id, cache(16)).is_err());
    generator.cancel(id).unwrap();
    assert!(generator.resume(id, cache(16)).is_err());
}

/// How many schedules are tried: `SCHEDULES=10000` for a night.
fn schedules() -> u32 {
    let asked = std::env::var("SCHEDULES").ok();
    asked.map_or(60, |asked| asked.parse().unwrap())
}

#[test]
fn no_schedule_changes_a_bit_where_that_is_promised() {
    if !bits_are_equal() {
        return;
    }
    let names = [
        "llama",
        "llama-bf16",
        "llama-4bit-tied",
        "mistral-sliding-window",
        "qwen3",
    ];
    let both = names.map(Both::fixture);
    let mut compared = 0;
    let values = (asked(), limits(1..=96), 0..names.len());
    for_each(schedules(), values, |(asked, limits, model)| {
        let (both, name) = (&both[model], names[model]);
        invariant::check(CacheKind::Prealloc).unwrap();
        let what = format!("{name}: {asked:?} with {limits:?}");
        let asked = requests(both, &asked, true);
        let alone: Vec<Got> = asked
            .iter()
            .map(|(_, request)| by_part3_in_pieces(both, request))
            .collect();
        // The last token of an answer is not run.
        let stored: Vec<_> = asked
            .iter()
            .zip(&alone)
            .map(|((_, request), alone)| {
                let ids = [&request.ids[..], &alone.tokens].concat();
                keys_and_values(both, &ids, 32)
            })
            .collect();
        let mut generator =
            Generator::new(&both.model, &both.config, CacheKind::Prealloc, limits).unwrap();
        let resume = |generator: &mut Generator<'_>, got: &_| {
            bring_beginnings(both, CacheKind::Prealloc, &asked, generator, got);
        };
        let (got, _) = run_with(&mut generator, &asked, resume, |generator, got| {
            if compared % 3 == 0 {
                stored_bits_are_those_of(&stored, &asked, generator, got, &what);
            }
            compared += 1;
        });
        for (((asked, _), got), alone) in asked.iter().zip(&got).zip(&alone) {
            check(got, alone, asked, &what);
        }
    });
    assert!(compared > 100);
}

/// Fails unless each row of the batch has the keys and values that its request has alone.
fn stored_bits_are_those_of(
    alone: &[Vec<Array>],
    asked: &[(Asked, Request)],
    generator: &Generator<'_>,
    got: &BTreeMap<SequenceId, Got>,
    what: &str,
) {
    let batch = generator.batch();
    for (row, id) in batch.rows().iter().enumerate() {
        let index = id.0 as usize;
        let n = (asked[index].1.ids.len() + got[id].tokens.len() - 1) as i32;
        for (ours, alone) in batch.cache().arrays().zip(&alone[index]) {
            let ours = to_f32(&ours.index((row as i32, .., 0..n, ..))).unwrap();
            let alone = to_f32(&alone.index((.., 0..n, ..))).unwrap();
            let mut pairs = ours.iter().zip(&alone);
            let same = pairs.all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{what}: keys or values of request {index}");
        }
    }
}

/// Part 3 in pieces for which no BLAS is asked.
fn by_part3_in_pieces(both: &Both, request: &Request) -> Got {
    let generation = alone::generation_in_pieces(both, CacheKind::Prealloc, request, 32);
    Got {
        tokens: generation.tokens,
        end: Some(generation.finish_reason),
    }
}

#[test]
fn what_cannot_be_without_a_differing_bit_is_refused() {
    if bits_are_equal() {
        assert!(invariant::check(CacheKind::Prealloc).is_ok());
        assert!(invariant::check(PACKED).is_ok());
    }
    assert!(invariant::check(RING).is_err());
    for name in ["llama", "llama-4bit-tied"] {
        let mut config = Both::fixture(name).config;
        assert!(invariant::check_weights(&config).is_ok());
        let mut group = GroupQuantization::affine(16, 4);
        group.mode = Mode::Nvfp4;
        config.quantization = Some(Quantization {
            default: group,
            overrides: BTreeMap::new(),
        });
        assert!(invariant::check_weights(&config).is_err());
    }
}

#[test]
fn every_architecture_gives_its_tokens_in_a_batch() {
    let asked =
        [(40, 0), (3, 0), (36, 0), (90, 1), (17, 4), (1, 4), (33, 9)].map(|(prompt, arrives)| {
            Asked {
                prompt,
                arrives,
                max_tokens: 12,
                cancelled: None,
            }
        });
    let limits = Limits {
        rows: 4,
        kv_tokens: 150,
        ..wide()
    };
    for name in fixtures::checkpoints().unwrap() {
        let both = Both::fixture(&name);
        let asked = requests(&both, &asked, false);
        for kind in [CacheKind::Prealloc, RING, PACKED] {
            if kind == PACKED && !both.config.head_dim.is_multiple_of(32) {
                continue;
            }
            // With sinks what a token sees depends on the pieces: nothing may be computed again.
            let memory = if kind == RING {
                Memory::Reserve
            } else {
                Memory::Preempt
            };
            let limits = Limits {
                memory,
                ..limits.clone()
            };
            let mut generator = Generator::new(&both.model, &both.config, kind, limits).unwrap();
            let (got, _) = run(&mut generator, &asked, |_, _| {});
            for ((_, request), got) in asked.iter().zip(&got) {
                let alone = alone(&both, kind, &request.ids, request.max_tokens).ids;
                let end = alone.iter().position(|id| request.stop_ids.contains(id));
                let alone = &alone[..end.unwrap_or(alone.len())];
                if bits_are_equal() || fixtures::expected(&name).unwrap().dtype == "float32" {
                    assert_eq!(got.tokens, alone, "{name}, {kind:?}");
                }
            }
        }
    }
}

#[test]
fn rows_with_and_without_penalties_and_temperatures_run_together() {
    both_ways(|| {
        let both = Both::load(&Checkpoint {
            dtype: Some(FloatType::F32),
            ..tiny()
        });
        let asked: Vec<Request> = (0..12)
            .map(|index| Request {
                ids: both.ids(20 + index % 3, index % 3),
                max_tokens: 16,
                stop_ids: Vec::new(),
                sampling: sampling(index),
            })
            .collect();
        let mut generator =
            Generator::new(&both.model, &both.config, CacheKind::Prealloc, wide()).unwrap();
        let got = generate(&mut generator, &asked, |_| Ok(ControlFlow::Continue(()))).unwrap();
        for (got, request) in got.iter().zip(&asked) {
            let alone = generation(&both, CacheKind::Prealloc, request);
            assert_eq!(got.tokens, alone.tokens, "{:?}", request.sampling);
            assert_eq!(got.positions_recomputed, alone.positions_recomputed);
        }
    });
}

#[test]
fn a_seed_is_the_requests_own() {
    both_ways(|| {
        let both = Both::fixture("llama");
        let seeds = [7, 7, 8, 9, 7];
        let asked = seeds.map(|seed| Request {
            ids: both.ids(12, 0),
            max_tokens: 24,
            stop_ids: Vec::new(),
            sampling: Sampling {
                temperature: 1.0,
                seed,
                ..Sampling::default()
            },
        });
        let mut generator =
            Generator::new(&both.model, &both.config, CacheKind::Prealloc, wide()).unwrap();
        let got = generate(&mut generator, &asked, |_| Ok(ControlFlow::Continue(()))).unwrap();
        for (a, first) in got.iter().zip(seeds) {
            for (b, second) in got.iter().zip(seeds) {
                assert_eq!(
                    a.tokens == b.tokens,
                    first == second,
                    "{first} and {second}"
                );
            }
        }
    });
}

#[test]
fn a_stop_token_on_the_last_allowed_token_is_a_stop() {
    both_ways(|| {
        let both = Both::fixture("llama");
        let plain = Request {
            ids: both.ids(12, 0),
            max_tokens: 40,
            ..Request::default()
        };
        let free = generation(&both, CacheKind::Prealloc, &plain).tokens;
        // The first place at which an id comes that was not there before.
        let at = (1..free.len())
            .rfind(|at| !free[..*at].contains(&free[*at]))
            .unwrap();
        let asked = |max_tokens| Request {
            max_tokens,
            stop_ids: vec![free[at]],
            ..plain.clone()
        };
        let asked = [asked(at), asked(at + 1), asked(at + 2), plain.clone()];
        let mut generator =
            Generator::new(&both.model, &both.config, CacheKind::Prealloc, wide()).unwrap();
        let got = generate(&mut generator, &asked, |_| Ok(ControlFlow::Continue(()))).unwrap();
        let got: Vec<_> = got
            .iter()
            .map(|got| (&got.tokens[..], got.finish_reason))
            .collect();
        use FinishReason::{Length, Stop};
        let upto = &free[..at];
        assert_eq!(
            got,
            [
                (upto, Length),
                (upto, Stop),
                (upto, Stop),
                (&free[..], Length)
            ]
        );
    });
}

#[test]
fn a_request_that_fails_ends_alone() {
    both_ways(|| {
        let both = Both::fixture("llama");
        let mut generator =
            Generator::new(&both.model, &both.config, CacheKind::Prealloc, wide()).unwrap();
        let request = Request {
            ids: both.ids(12, 0),
            max_tokens: 10,
            ..Request::default()
        };
        let too_large = Sampling {
            repetition_penalty: 1e-39,
            ..Sampling::default()
        };
        let broken = Request {
            // The scores of ids that have come are divided by it.
            sampling: too_large,
            ..request.clone()
        };
        let ids = [&broken, &request, &broken].map(|request| {
            let now = Duration::ZERO;
            generator.submit(request.clone(), now).unwrap()
        });
        let (mut errors, mut tokens) = (Vec::new(), Vec::new());
        while !generator.scheduler().is_idle() {
            for Event { id, step } in generator.step(Duration::ZERO).unwrap().events {
                match step {
                    Ok(Step::Token { id: token, .. }) if id == ids[1] => tokens.push(token),
                    Ok(_) => {}
                    Err(error) => errors.push((id, error.to_string())),
                }
            }
        }
        assert_eq!(
            errors.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [ids[0], ids[2]]
        );
        assert!(
            errors[0].1.contains("repetition penalty"),
            "{}",
            errors[0].1
        );
        assert_eq!(
            tokens,
            generation(&both, CacheKind::Prealloc, &request).tokens
        );
    });
}

#[test]
fn a_request_that_can_never_fit_is_refused_alone() {
    let both = Both::fixture("llama");
    let limits = Limits {
        kv_tokens: 50,
        rows: 4,
        ..wide()
    };
    let mut generator =
        Generator::new(&both.model, &both.config, CacheKind::Prealloc, limits).unwrap();
    let request = |prompt| Request {
        ids: both.ids(prompt, 0),
        max_tokens: 20,
        ..Request::default()
    };
    let first = generator.submit(request(10), Duration::ZERO).unwrap();
    let error = generator.submit(request(31), Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("31 tokens of prompt"), "{error}");
    assert!(
        generator
            .submit(Request::default(), Duration::ZERO)
            .is_err()
    );
    let second = generator.submit(request(30), Duration::ZERO).unwrap();
    let mut ended = Vec::new();
    while !generator.scheduler().is_idle() {
        let events = generator.step(Duration::ZERO).unwrap().events;
        let ends = events
            .iter()
            .filter(|event| matches!(event.step, Ok(Step::End(_))));
        ended.extend(ends.map(|event| event.id));
    }
    assert_eq!(ended, [first, second]);
}

/// The last token of one is on its way when the other one has to give its memory back: nothing is left to run.
#[test]
fn memory_is_given_back_by_a_step_that_runs_nothing() {
    both_ways(|| {
        let both = Both::fixture("llama");
        let limits = Limits {
            kv_tokens: 21,
            ..wide()
        };
        let mut generator =
            Generator::new(&both.model, &both.config, CacheKind::Prealloc, limits).unwrap();
        let asked = [(8, 4), (6, 14)].map(|(prompt, max_tokens)| Asked {
            prompt,
            max_tokens,
            arrives: 0,
            cancelled: None,
        });
        let mut asked = requests(&both, &asked, false);
        for (_, request) in &mut asked {
            request.stop_ids.clear();
        }
        let (got, preempted) = run(&mut generator, &asked, |_, _| {});
        for ((asked, request), got) in asked.iter().zip(&got) {
            let alone = by_part3(&both, CacheKind::Prealloc, request);
            check(got, &alone, asked, "memory for 21 positions");
        }
        // Where no step is ahead, the first one has ended before.
        assert_eq!(preempted, steps_in_flight() - 1);
    });
}

#[test]
fn a_step_says_what_it_ran() {
    let both = Both::fixture("llama");
    let limits = Limits { piece: 8, ..wide() };
    let mut generator =
        Generator::new(&both.model, &both.config, CacheKind::Prealloc, limits).unwrap();
    for prompt in [20, 6] {
        let request = Request {
            ids: both.ids(prompt, 0),
            max_tokens: 4,
            ..Request::default()
        };
        generator.submit(request, Duration::ZERO).unwrap();
    }
    let mut steps = Vec::new();
    while !generator.scheduler().is_idle() {
        let step = generator.step(Duration::ZERO).unwrap();
        let events = step.events.into_iter().map(|event| match event.step {
            Ok(Step::Prefill { seen }) => format!("{} seen {seen}", event.id.0),
            Ok(Step::Token { positions, .. }) => format!("{} token of {positions}", event.id.0),
            Ok(Step::End(reason)) => format!("{} {reason}", event.id.0),
            Err(error) => panic!("{error}"),
        });
        let events: Vec<_> = events.collect();
        steps.push(format!(
            "{} + {}: {}",
            step.rows,
            step.prompt_tokens,
            events.join(", ")
        ));
    }
    assert_eq!(
        steps,
        [
            "0 + 14: 0 seen 8, 1 token of 6",
            "1 + 8: 0 seen 16, 1 token of 1",
            "1 + 4: 0 token of 4, 1 token of 1",
            "2 + 0: 0 token of 1, 1 token of 1, 1 length",
            "1 + 0: 0 token of 1",
            "1 + 0: 0 token of 1, 0 length",
        ]
    );
    let idle = generator.step(Duration::ZERO).unwrap();
    assert!(idle.plan.pieces.is_empty() && idle.events.is_empty());
}

#[test]
fn five_thousand_steps_leave_nothing_behind() {
    let both = Both::fixture("mistral-layer-types");
    let request = |index: usize| Request {
        ids: both.ids(5 + index % 40, index),
        max_tokens: 60 + index % 30,
        stop_ids: Vec::new(),
        sampling: sampling(index),
    };
    let limits = Limits { rows: 6, ..wide() };
    let mut generator =
        Generator::new(&both.model, &both.config, CacheKind::Prealloc, limits).unwrap();
    let (mut steps, mut asked, mut idle) = (0, 0, Vec::new());
    while steps < 5000 {
        for _ in 0..24 {
            generator
                .submit(request(asked % 24), Duration::ZERO)
                .unwrap();
            asked += 1;
        }
        while !generator.scheduler().is_idle() {
            generator.step(Duration::ZERO).unwrap();
            steps += 1;
        }
        idle.push(active_bytes().unwrap());
    }
    // The first round leaves what is kept for the next one. Every buffer has some bytes: none more is held.
    assert!(idle.len() > 10, "{idle:?}");
    assert!(idle[1..].iter().all(|bytes| *bytes == idle[1]), "{idle:?}");
}

#[test]
fn a_long_answer_among_short_ones_leaves_nothing_behind_at_any_step() {
    both_ways(|| {
        let both = Both::fixture("llama");
        let limits = Limits { rows: 4, ..wide() };
        let mut generator = Generator::new(&both.model, &both.config, NO_SINKS, limits).unwrap();
        let mut submit = |max_tokens| {
            let request = Request {
                ids: both.ids(10, 1),
                max_tokens,
                ..Request::default()
            };
            generator.submit(request, Duration::ZERO).unwrap();
        };
        submit(2000);
        for _ in 0..300 {
            submit(10);
        }
        let mut bytes = Vec::new();
        for step in 0..1900 {
            generator.step(Duration::ZERO).unwrap();
            if step > 1000 && generator.scheduler().running() == 1 {
                wait_for_the_step_in_flight();
                bytes.push(active_bytes().unwrap());
            }
        }
        // A ring sees as much at each step. The least of many: MLX's thread may still hold what it has just used.
        let least = |bytes: &[u64]| bytes.iter().copied().min().unwrap();
        let (first, last) = (least(&bytes[..100]), least(&bytes[bytes.len() - 100..]));
        assert!(
            bytes.len() > 500 && last <= first,
            "from {first} to {last} bytes"
        );
    });
}
