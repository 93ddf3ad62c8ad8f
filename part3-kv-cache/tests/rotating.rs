//! The ring against mlx-lm's `RotatingKVCache` with the same size and the same kept tokens.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::ops::ControlFlow;

use mlx_rs::Dtype;
use part3_kv_cache::cache::Cache;
use part3_kv_cache::generate::{Generator, generate};
use part3_kv_cache::kinds::{CacheKind, empty_cache};
use part3_kv_cache::model::Model;
use serde::Deserialize;
use shared::checkpoint::Checkpoint;
use shared::config::ModelConfig;
use shared::hub::ModelFiles;
use shared::layers::ids_array;
use shared::request::Request;
use shared::testing::{convert, fixtures};

const SYNTHETIC: &str = "rotating/expected.json";

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

fn cases(file: &str) -> Vec<Case> {
    let expected: Expected = fixtures::json(file).unwrap();
    let cases = expected.cases;
    assert!(cases.iter().any(|case| case.differs_from_full));
    cases
}

fn check(case: &Case, model: &Model, config: &ModelConfig) {
    let (size, sinks) = (case.size, case.keep);
    let mut cache = empty_cache(CacheKind::Rotating { size, sinks }, config);
    let request = Request {
        ids: case.ids.clone(),
        max_tokens: case.greedy.len(),
        ..Request::default()
    };
    let mut generator = Generator::new(model, &mut cache, &request, case.prefill_step).unwrap();
    let generation = generate(&mut generator, |_| Ok(ControlFlow::Continue(()))).unwrap();
    drop(generator);
    assert_eq!(
        generation.tokens,
        case.greedy,
        "{}, {} tokens, size {size}, {sinks} sinks, pieces of {}",
        case.checkpoint,
        case.ids.len(),
        case.prefill_step
    );
    assert!(cache.capacity() <= size.max(case.prefill_step as i32));
}

#[test]
fn the_ring_gives_the_tokens_of_mlx_lm_before_and_after_it_wraps() {
    for case in cases(SYNTHETIC) {
        let checkpoint = fixtures::checkpoint(&case.checkpoint).unwrap();
        let model = Model::load(&checkpoint).unwrap();
        check(&case, &model, &checkpoint.config);
    }
}

#[test]
fn so_does_the_ring_of_a_real_model() {
    let Some(path) = fixtures::smollm2() else {
        return;
    };
    let checkpoint = Checkpoint::open("smollm2", ModelFiles::Gguf(path)).unwrap();
    let (config, weights) = convert::dense(&checkpoint, Dtype::Float32).unwrap();
    let model = Model::new(&config, weights).unwrap();
    for case in cases("rotating/smollm2.json") {
        check(&case, &model, &config);
    }
}

#[test]
fn a_ring_that_was_saved_and_restored_goes_on_as_before() {
    let checkpoint = fixtures::checkpoint(&cases(SYNTHETIC)[0].checkpoint).unwrap();
    let model = Model::load(&checkpoint).unwrap();
    let vocabulary = checkpoint.config.vocab_size as u32;
    for kind in [
        CacheKind::Concat,
        CacheKind::Prealloc,
        CacheKind::Rotating { size: 16, sinks: 4 },
    ] {
        let mut cache = empty_cache(kind, &checkpoint.config);
        for id in 0..40 {
            model.hidden(&ids_array(&[id]), &mut cache).unwrap();
        }
        let mut other = empty_cache(kind, &checkpoint.config);
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
