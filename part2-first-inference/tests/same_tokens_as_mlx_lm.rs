//! The oracle: logits and greedy tokens of mlx-lm, for a tiny random checkpoint per switch.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::ops::ControlFlow;

use anyhow::Result;
use console::cli::FloatType;
use part2_first_inference::generate::{Generator, generate};
use part2_first_inference::model::Model;
use shared::kernels::with_mlx;
use shared::layers::{ids_array, to_f32};
use shared::request::Request;
use shared::testing::fixtures::{self, ExpectedPrompt};

/// Largest difference that counts as the same logits, relative to the largest logit: sums in
/// another order differ by a few units in the last place of the type.
fn tolerance(dtype: &str) -> f32 {
    match dtype {
        "float32" => 2e-5,
        _ => 2e-2, // bfloat16 and float16 carry 8 and 11 bits
    }
}

fn largest(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(0.0, |largest, value| largest.max(value.abs()))
}

fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len(), "other number of logits");
    let deltas: Vec<f32> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
    largest(&deltas) / largest(theirs)
}

/// Difference of the logits after the last token, and where there are any after every token.
fn logit_difference(model: &Model, prompt: &ExpectedPrompt) -> Result<f32> {
    let ids = ids_array(&prompt.ids);
    let last = difference(&to_f32(&model.next_logits(&ids)?)?, &prompt.logits_last);
    let Some(all) = &prompt.logits_all else {
        return Ok(last);
    };
    let ours = to_f32(&model.logits(&model.hidden(&ids)?)?)?;
    Ok(last.max(difference(&ours, &all.concat())))
}

fn greedy(model: &Model, prompt: &[u32], max_tokens: usize) -> Result<Vec<u32>> {
    let request = Request {
        ids: prompt.to_vec(),
        max_tokens,
        ..Request::default()
    };
    let on_step = |_| Ok(ControlFlow::Continue(()));
    Ok(generate(&mut Generator::new(model, &request)?, on_step)?.tokens)
}

fn assert_is_mlx_lms(name: &str, dtype: &str, model: &Model, prompts: &[ExpectedPrompt]) {
    for (index, prompt) in prompts.iter().enumerate() {
        let delta = logit_difference(model, prompt).unwrap();
        println!("{name:24} prompt {index}: relative logit difference {delta:.1e}");
        let limit = tolerance(dtype);
        assert!(
            delta <= limit,
            "{name}, prompt {index}: {delta} is more than {limit}"
        );
        let tokens = greedy(model, &prompt.ids, prompt.greedy.len()).unwrap();
        assert_eq!(tokens, prompt.greedy, "{name}, prompt {index}");
    }
}

#[test]
fn every_fixture_gives_the_logits_and_greedy_tokens_of_mlx_lm() {
    for name in fixtures::checkpoints().unwrap() {
        let expected = fixtures::expected(&name).unwrap();
        let (dtype, prompts) = (&expected.dtype, &expected.prompts);
        let model = Model::load(&fixtures::checkpoint(&name).unwrap()).unwrap();
        assert_eq!(prompts.len(), 3, "{name}");
        with_mlx(|| assert_is_mlx_lms(&name, dtype, &model, prompts));
        if dtype == "float32" {
            assert_is_mlx_lms(&name, dtype, &model, prompts);
        }
    }
}

/// In 16 bits the random checkpoints are touchy: mlx-lm's own logits lie up to 0.2 from those in
/// float32, because MLX's CPU backend rounds every partial sum. Products that add up in float32, as
/// those of a GPU and our own do, cannot have the same error; they must not have a larger one.
#[test]
fn in_16_bits_our_own_products_are_as_near_to_float32_as_mlx_lms() {
    for name in fixtures::checkpoints().unwrap() {
        let expected = fixtures::expected(&name).unwrap();
        let checkpoint = fixtures::checkpoint(&name).unwrap();
        let mut wide = fixtures::checkpoint(&name).unwrap();
        if expected.dtype != "float32" {
            wide.dtype = Some(FloatType::F32);
        }
        let (model, wide) = (
            Model::load(&checkpoint).unwrap(),
            Model::load(&wide).unwrap(),
        );
        for (index, prompt) in expected.prompts.iter().enumerate() {
            let next = |model: &Model| {
                to_f32(&model.next_logits(&ids_array(&prompt.ids)).unwrap()).unwrap()
            };
            let wide = with_mlx(|| next(&wide));
            let (ours, theirs) = (
                difference(&next(&model), &wide),
                difference(&prompt.logits_last, &wide),
            );
            println!("{name:24} prompt {index}: from float32 {ours:.1e}, mlx-lm {theirs:.1e}");
            assert!(
                ours <= theirs.max(tolerance(&expected.dtype)),
                "{name}, prompt {index}: {ours}, and mlx-lm {theirs}"
            );
        }
    }
}

#[test]
fn every_switch_of_the_configuration_has_a_fixture() {
    let names = fixtures::checkpoints().unwrap();
    let configs: Vec<_> = names
        .iter()
        .map(|name| fixtures::checkpoint(name).unwrap().config)
        .collect();
    let any = |switch: &dyn Fn(&shared::config::ModelConfig) -> bool| configs.iter().any(switch);
    use shared::config::RopeScaling;
    assert!(any(&|c| c.attention_bias && c.attention_out_bias));
    assert!(any(&|c| c.attention_bias && !c.attention_out_bias));
    assert!(any(&|c| c.mlp_bias));
    assert!(any(&|c| c.qk_norm));
    assert!(any(&|c| c.head_dim * c.num_attention_heads != c.hidden_size));
    assert!(any(&|c| c.num_attention_heads > c.num_key_value_heads));
    assert!(any(&|c| c.sliding_window.iter().all(Option::is_some)));
    assert!(any(&|c| c.sliding_window.iter().any(Option::is_some)
        && c.sliding_window.iter().any(Option::is_none)));
    assert!(any(&|c| matches!(
        c.rope.scaling,
        RopeScaling::Linear { .. }
    )));
    assert!(any(&|c| matches!(
        c.rope.scaling,
        RopeScaling::Llama3 { .. }
    )));
    assert!(any(&|c| matches!(c.rope.scaling, RopeScaling::Yarn { .. })));
    assert!(any(&|c| c
        .quantization
        .as_ref()
        .is_some_and(|q| !q.overrides.is_empty())));
}
