//! The ring against mlx-lm's `RotatingKVCache` with the same size and the same kept tokens.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::ops::ControlFlow;

use part3_kv_cache::cache::{Cache, CacheKind};
use part3_kv_cache::generate::{Limits, generate};
use part3_kv_cache::model::Model;
use serde::Deserialize;
use shared::cli::SamplingArgs;
use shared::layers::ids_array;
use shared::testing::fixtures;

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    checkpoint: String,
    ids: Vec<u32>,
    size: i32,
    keep: i32,
    prefill_step: usize,
    greedy: Vec<u32>,
    differs_from_full: bool,
}

fn cases() -> Vec<Case> {
    let expected: Expected = fixtures::json("rotating/expected.json").unwrap();
    expected.cases
}

#[test]
fn the_ring_gives_the_tokens_of_mlx_lm_before_and_after_it_wraps() {
    let cases = cases();
    assert!(cases.iter().any(|case| case.differs_from_full));
    for case in cases {
        let checkpoint = fixtures::checkpoint(&case.checkpoint).unwrap();
        let model = Model::load(&checkpoint).unwrap();
        let (size, keep) = (case.size, case.keep);
        let mut cache = Cache::new(CacheKind::Rotating { size, keep }, &checkpoint.config);
        let limits = Limits {
            max_tokens: case.greedy.len(),
            stop_ids: Vec::new(),
            prefill_step: case.prefill_step,
        };
        let go_on = |_| Ok(ControlFlow::Continue(()));
        let sampling = SamplingArgs::default();
        let generation =
            generate(&model, &mut cache, &case.ids, &limits, &sampling, go_on).unwrap();
        assert_eq!(
            generation.tokens,
            case.greedy,
            "{}, {} tokens, size {size}, keep {keep}, pieces of {}",
            case.checkpoint,
            case.ids.len(),
            case.prefill_step
        );
        assert!(cache.capacity() <= size.max(case.prefill_step as i32));
    }
}

#[test]
fn a_ring_that_was_saved_and_restored_goes_on_as_before() {
    let checkpoint = fixtures::checkpoint(&cases()[0].checkpoint).unwrap();
    let model = Model::load(&checkpoint).unwrap();
    let vocabulary = checkpoint.config.vocab_size as u32;
    for kind in [
        CacheKind::Concat,
        CacheKind::Prealloc,
        CacheKind::Rotating { size: 16, keep: 4 },
    ] {
        let mut cache = Cache::new(kind, &checkpoint.config);
        for id in 0..40 {
            model.hidden(&ids_array(&[id]), &mut cache).unwrap();
        }
        let mut other = Cache::new(kind, &checkpoint.config);
        other
            .restore(cache.state().unwrap(), cache.offset())
            .unwrap();
        for id in (40..60).map(|id| id % vocabulary) {
            let logits = |cache: &mut Cache| {
                let logits = model.next_logits(&ids_array(&[id]), cache).unwrap();
                shared::layers::to_f32(&logits).unwrap()
            };
            let (a, b) = (logits(&mut cache), logits(&mut other));
            let close = a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(close, "{kind:?}, id {id}");
        }
    }
}
