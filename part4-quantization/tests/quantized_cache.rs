//! Packed keys and values: the same as in mlx-lm, nearly the same as dense ones, and as large as they say.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::ops::ControlFlow;

use console::cli::FloatType;
use mlx_rs::Array;
use part4_quantization::cache::KvCache;
use part4_quantization::generate::{Generator, generate};
use part4_quantization::kinds::{CacheKind, empty_cache};
use part4_quantization::model::Model;
use part4_quantization::quantized_cache::{KvBits, QuantizedCache, group_size};
use serde::Deserialize;
use shared::checkpoint::Checkpoint;
use shared::hub;
use shared::layers::{ids_array, to_f32};
use shared::request::Request;
use shared::testing::fixtures;

const STEP: usize = 512;

#[derive(Deserialize)]
struct Expected {
    ids: Vec<u32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    keys: i32,
    values: i32,
    top: Vec<(u32, f32)>,
    greedy: Vec<u32>,
    min_margin: f32,
}

fn tiny() -> Checkpoint {
    let checkpoint = Checkpoint::open("tiny", hub::locate("tiny", None).unwrap()).unwrap();
    Checkpoint {
        dtype: Some(FloatType::F32),
        ..checkpoint
    }
}

fn packed(keys: i32, values: i32) -> CacheKind {
    CacheKind::Quantized(KvBits { keys, values })
}

fn greedy(
    model: &Model,
    checkpoint: &Checkpoint,
    kind: CacheKind,
    ids: &[u32],
    n: usize,
) -> Vec<u32> {
    let request = Request {
        ids: ids.to_vec(),
        max_tokens: n,
        ..Request::default()
    };
    let mut cache = empty_cache(kind, &checkpoint.config);
    let mut generator = Generator::new(model, &mut cache, &request, STEP).unwrap();
    let generation = generate(&mut generator, |_| Ok(ControlFlow::Continue(())));
    generation.unwrap().tokens
}

#[test]
fn logits_and_tokens_are_those_of_mlx_lms_quantized_cache() {
    let expected: Expected = fixtures::json("tiny/kv_quantized.json").unwrap();
    let checkpoint = tiny();
    let model = Model::load(&checkpoint).unwrap();
    let (last, prompt) = expected.ids.split_last().unwrap();
    for case in &expected.cases {
        let kind = packed(case.keys, case.values);
        let mut cache = empty_cache(kind, &checkpoint.config);
        model.hidden(&ids_array(prompt), &mut cache).unwrap();
        let logits = model.next_logits(&ids_array(&[*last]), &mut cache).unwrap();
        let logits = to_f32(&logits).unwrap();
        for (id, expected) in &case.top {
            // A key whose code rounds the other way is one step of its grid away.
            let (found, largest) = (logits[*id as usize], case.top[0].1);
            let margin = 5e-3 * largest.abs();
            assert!(
                (found - expected).abs() < margin,
                "{kind:?}, id {id}: {found}, not {expected}"
            );
        }
        assert!(
            case.min_margin > 1e-3,
            "{kind:?}: two tokens are too close to compare"
        );
        let tokens = greedy(&model, &checkpoint, kind, &expected.ids, case.greedy.len());
        assert_eq!(tokens, case.greedy, "{kind:?}");
    }
}

#[test]
fn eight_bits_give_the_tokens_of_a_dense_cache() {
    let checkpoint = tiny();
    let model = Model::load(&checkpoint).unwrap();
    let expected: Expected = fixtures::json("tiny/kv_quantized.json").unwrap();
    let dense = greedy(&model, &checkpoint, CacheKind::Prealloc, &expected.ids, 48);
    let packed = greedy(&model, &checkpoint, packed(8, 8), &expected.ids, 48);
    assert_eq!(packed, dense);
}

#[test]
fn the_bytes_are_those_of_the_formula_and_room_grows_in_steps() {
    let checkpoint = tiny();
    let model = Model::load(&checkpoint).unwrap();
    let config = &checkpoint.config;
    let ids: Vec<u32> = (0..300).map(|index| 100 + index * 37 % 3900).collect();
    for (keys, values) in [(8, 8), (8, 4), (4, 8), (4, 4)] {
        let mut cache = empty_cache(packed(keys, values), config);
        let d = config.head_dim as u64;
        let scales = 2 * d / group_size(d as i32).unwrap() as u64 * 4; // f32
        let of = |bits: i32| d * bits as u64 / 8 + scales;
        let heads = (config.num_hidden_layers * config.num_key_value_heads) as u64;
        let per_position = heads * (of(keys) + of(values));
        model.hidden(&ids_array(&ids[..255]), &mut cache).unwrap();
        assert_eq!((cache.offset(), cache.capacity()), (255, 256));
        assert_eq!(cache.bytes(), 256 * per_position);
        model.hidden(&ids_array(&ids[255..]), &mut cache).unwrap();
        assert_eq!((cache.offset(), cache.capacity()), (300, 512));
        assert_eq!(cache.bytes(), 512 * per_position);
    }
}

#[test]
fn a_prompt_in_pieces_and_a_step_back_change_nothing() {
    let checkpoint = tiny();
    let model = Model::load(&checkpoint).unwrap();
    let ids: Vec<u32> = (0..300).map(|index| 100 + index * 37 % 3900).collect();
    let kind = packed(8, 4);
    let logits = |pieces: &[usize], trim: i32| {
        let mut cache = empty_cache(kind, &checkpoint.config);
        let mut start = 0;
        for end in pieces {
            model
                .hidden(&ids_array(&ids[start..*end]), &mut cache)
                .unwrap();
            start = *end;
        }
        cache.trim(trim).unwrap();
        let rest = &ids[start - trim as usize..];
        to_f32(&model.next_logits(&ids_array(rest), &mut cache).unwrap()).unwrap()
    };
    let whole = logits(&[299], 0);
    for (pieces, trim) in [
        (&[100, 299][..], 0),
        (&[257, 258, 299], 0),
        (&[270, 299], 29),
    ] {
        let largest = whole
            .iter()
            .fold(0.0_f32, |max, value| max.max(value.abs()));
        for (a, b) in logits(pieces, trim).iter().zip(&whole) {
            assert!(
                (a - b).abs() <= 2e-2 * largest,
                "{pieces:?}: {a} against {b}"
            );
        }
    }
}

#[test]
fn what_is_unpacked_is_near_what_was_stored() {
    let numbers: Vec<f32> = (0..2 * 5 * 64)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0)
        .collect();
    let keys = Array::from_slice(&numbers, &[1, 2, 5, 64]);
    for (bits, step) in [(8, 4.0 / 255.0), (4, 4.0 / 15.0)] {
        let mut cache = QuantizedCache::new(KvBits {
            keys: bits,
            values: bits,
        });
        let (found, _) = cache.update_and_fetch(keys.clone(), keys.clone()).unwrap();
        assert_eq!(found.shape(), keys.shape());
        for (a, b) in to_f32(&found).unwrap().iter().zip(&numbers) {
            assert!((a - b).abs() <= step, "{bits} bits: {a} for {b}");
        }
        let state = cache.state().unwrap();
        assert_eq!(to_f32(&state.keys).unwrap(), to_f32(&found).unwrap());
    }
}

#[test]
fn heads_that_no_group_divides_are_refused() {
    assert_eq!(group_size(128).unwrap(), 64);
    assert_eq!(group_size(96).unwrap(), 32);
    let error = group_size(48).unwrap_err().to_string();
    assert!(
        error.contains("heads of 48 numbers cannot be quantized"),
        "{error}"
    );
    let mut cache = QuantizedCache::new(KvBits { keys: 8, values: 8 });
    let narrow = Array::zeros::<f32>(&[1, 1, 1, 48]).unwrap();
    let error = cache.update_and_fetch(narrow.clone(), narrow).unwrap_err();
    assert!(error.to_string().contains("heads of 48"), "{error}");
    assert!(cache.arrays().is_empty());
    assert!(
        cache
            .state()
            .unwrap_err()
            .to_string()
            .contains("nothing in the cache")
    );
}
