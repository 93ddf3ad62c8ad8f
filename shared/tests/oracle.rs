//! Layers and sampler against what mlx-lm computes with the same numbers.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use mlx_rs::{Array, random};
use serde::Deserialize;
use serde_json::Value;
use shared::config::ModelConfig;
use shared::layers::{Offsets, Rope, to_f32};
use shared::sampling::{
    self, Sampling, keep_min_p, keep_top_k, keep_top_p, log_softmax, penalize_repeats,
};
use shared::testing::fixtures;

#[derive(Deserialize)]
struct Expected {
    logits: Vec<Vec<f32>>,
    filters: Vec<Filter>,
    chains: Vec<Chain>,
    penalties: Vec<Penalty>,
}

#[derive(Deserialize)]
struct Filter {
    logits: usize,
    filter: String,
    value: f32,
    kept: Vec<usize>,
}

#[derive(Deserialize)]
struct Chain {
    logits: usize,
    temperature: f32,
    top_p: f32,
    min_p: f32,
    top_k: usize,
    filtered: Vec<Option<f32>>,
    seeds: Vec<u64>,
    draws: Vec<u32>,
}

#[derive(Deserialize)]
struct Penalty {
    logits: usize,
    penalty: f32,
    context_size: usize,
    tokens: Vec<u32>,
    output: Vec<f32>,
}

fn sampling_fixture() -> Expected {
    fixtures::json("ops/sampling.json").unwrap()
}

fn row(values: &[f32]) -> Array {
    Array::from_slice(values, &[1, values.len() as i32])
}

#[test]
fn filters_keep_the_tokens_that_mlx_lm_keeps() {
    let fixture = sampling_fixture();
    assert!(!fixture.filters.is_empty());
    for case in &fixture.filters {
        let logprobs = log_softmax(&row(&fixture.logits[case.logits])).unwrap();
        let kept = match case.filter.as_str() {
            "top_k" => keep_top_k(&logprobs, case.value as i32),
            "top_p" => keep_top_p(&logprobs, case.value),
            "min_p" => keep_min_p(&logprobs, case.value),
            other => panic!("unknown filter {other}"),
        };
        let kept = to_f32(&kept.unwrap()).unwrap();
        let kept: Vec<usize> = (0..kept.len()).filter(|&i| kept[i].is_finite()).collect();
        assert_eq!(
            kept, case.kept,
            "{} {} of {}",
            case.filter, case.value, case.logits
        );
    }
}

#[test]
fn a_chain_filters_and_draws_as_mlx_lm_does() {
    let fixture = sampling_fixture();
    assert!(!fixture.chains.is_empty());
    for (index, case) in fixture.chains.iter().enumerate() {
        let args = Sampling {
            temperature: case.temperature,
            top_p: case.top_p,
            min_p: case.min_p,
            top_k: case.top_k,
            ..Sampling::default()
        };
        let logprobs = log_softmax(&row(&fixture.logits[case.logits])).unwrap();
        let filtered = sampling::filter(&logprobs, &args).unwrap();
        for (ours, theirs) in to_f32(&filtered).unwrap().iter().zip(&case.filtered) {
            match theirs {
                None => assert!(ours.is_infinite(), "chain {index}"),
                Some(theirs) => assert!((ours - theirs).abs() < 1e-5, "chain {index}"),
            }
        }
        for (seed, draw) in case.seeds.iter().zip(&case.draws) {
            let cooled = sampling::cool(&filtered, case.temperature).unwrap();
            let key = random::key(*seed).unwrap();
            let id = random::categorical(&cooled, -1, None, &key).unwrap();
            assert_eq!(id.item_exact::<u32>(), *draw, "chain {index}, seed {seed}");
        }
    }
}

#[test]
fn repeats_are_penalised_as_mlx_lm_does() {
    let fixture = sampling_fixture();
    assert!(!fixture.penalties.is_empty());
    for case in &fixture.penalties {
        let recent = &case.tokens[case.tokens.len().saturating_sub(case.context_size)..];
        let ids = Array::from_slice(recent, &[recent.len() as i32]);
        let output = penalize_repeats(&row(&fixture.logits[case.logits]), &ids, case.penalty);
        for (ours, theirs) in to_f32(&output.unwrap()).unwrap().iter().zip(&case.output) {
            assert!((ours - theirs).abs() < 1e-5);
        }
    }
}

#[derive(Deserialize)]
struct RopeFixture {
    dims: usize,
    shape: Vec<i32>,
    x: Vec<f32>,
    variants: Vec<RopeVariant>,
}

#[derive(Deserialize)]
struct RopeVariant {
    name: String,
    base: f32,
    traditional: bool,
    scaling: Value,
    outputs: Vec<RopeOutput>,
}

#[derive(Deserialize)]
struct RopeOutput {
    offset: i32,
    output: Vec<f32>,
}

#[test]
fn rotations_are_those_of_mlx_lm_near_and_far() {
    let fixture: RopeFixture = fixtures::json("ops/rope.json").unwrap();
    let x = Array::from_slice(&fixture.x, &fixture.shape);
    assert!(fixture.variants.len() >= 5);
    for variant in &fixture.variants {
        let config = serde_json::json!({
            "model_type": "llama", "hidden_size": fixture.dims, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8,
            "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
            "rope_theta": variant.base, "rope_traditional": variant.traditional,
            "rope_scaling": variant.scaling,
        });
        let rope = Rope::new(&ModelConfig::from_json(&config.to_string(), None).unwrap());
        for case in &variant.outputs {
            let [turned] = rope.forward([&x], &Offsets::All(case.offset)).unwrap();
            let ours = to_f32(&turned).unwrap();
            // A wavelength that differs in its last bit turns by 5000 · 2⁻²⁴ rad more at 5,000.
            let tolerance = 1e-5 + 2e-7 * case.offset as f32;
            for (ours, theirs) in ours.iter().zip(&case.output) {
                let close = (ours - theirs).abs() <= tolerance;
                assert!(
                    close,
                    "{} at {}: {ours} for {theirs}",
                    variant.name, case.offset
                );
            }
        }
    }
}

#[test]
fn a_filter_in_steps_is_the_filter() {
    use sampling::Filter::{MinP, TopK, TopP};
    let logits = row(&[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -4.0]);
    let logprobs = log_softmax(&logits).unwrap();
    let args = Sampling {
        temperature: 1.0,
        top_p: 0.97,
        min_p: 0.1,
        top_k: 3,
        ..Sampling::default()
    };
    let steps = sampling::filter_steps(&logprobs, &args).unwrap();
    let filters: Vec<sampling::Filter> = steps.iter().map(|(filter, _)| *filter).collect();
    assert_eq!(filters, [TopP, MinP, TopK]);
    let kept = |x: &Array| {
        let values = to_f32(x).unwrap();
        values.iter().filter(|value| value.is_finite()).count()
    };
    let counts: Vec<usize> = steps.iter().map(|(_, left)| kept(left)).collect();
    assert_eq!(counts, [6, 5, 3]);
    let whole = to_f32(&sampling::filter(&logprobs, &args).unwrap()).unwrap();
    assert_eq!(to_f32(&steps[2].1).unwrap(), whole);
    assert!(
        sampling::filter_steps(&logprobs, &Sampling::default())
            .unwrap()
            .is_empty()
    );
}
