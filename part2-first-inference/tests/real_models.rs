//! Real checkpoints: the built-in model and SmolLM2-135M-Instruct, each in several types, against
//! what mlx-lm made of them.
//!
//! MLX's CPU backend multiplies 16-bit and packed matrices in plain loops, so naive decode of 64
//! tokens would take half an hour there. These variants are checked in one pass over the prompt and
//! mlx-lm's tokens instead: attention is causal, so position `i` of that pass has the logits that
//! naive decode has at step `i`, and the largest of each must be the next token of mlx-lm.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::ops::ControlFlow;

use anyhow::Result;
use mlx_rs::{Array, Dtype, ops};
use part2_first_inference::generate::{Generator, generate};
use part2_first_inference::model::Model;
use serde::Deserialize;
use shared::checkpoint::Checkpoint;
use shared::config::GroupQuantization;
use shared::hub::{self, ModelFiles};
use shared::layers::{ids_array, to_f32};
use shared::request::Request;
use shared::sampling::greedy;
use shared::testing::{convert, fixtures};
use shared::tokenizer::Tokenizer;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    variants: Vec<Variant>,
}

#[derive(Deserialize)]
struct Variant {
    variant: String,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    ids: Vec<u32>,
    /// The largest logits after the prompt: id and value.
    top: Vec<(u32, f32)>,
    greedy: Vec<u32>,
}

fn expected(model: &str, variant: &str) -> Vec<Prompt> {
    let all: Expected = fixtures::json(&format!("{model}/expected.json")).unwrap();
    let found = all.variants.into_iter().find(|v| v.variant == variant);
    found
        .unwrap_or_else(|| panic!("no variant {variant} of {model}"))
        .prompts
}

fn tiny() -> Checkpoint {
    Checkpoint::open("tiny", hub::locate("tiny", None).unwrap()).unwrap()
}

fn smollm2() -> Option<Checkpoint> {
    let path = fixtures::smollm2()?;
    Some(Checkpoint::open("smollm2", ModelFiles::Gguf(path)).unwrap())
}

/// Largest difference to mlx-lm's largest logits after the prompt, relative to the largest.
fn logit_difference(model: &Model, prompt: &Prompt) -> Result<f32> {
    let ours = to_f32(&model.next_logits(&ids_array(&prompt.ids))?)?;
    let deltas = prompt
        .top
        .iter()
        .map(|(id, value)| (ours[*id as usize] - value).abs());
    Ok(deltas.fold(0.0, f32::max) / prompt.top[0].1.abs())
}

/// The greedy choice at each position of mlx-lm's answer.
fn choices(model: &Model, prompt: &Prompt) -> Result<Vec<u32>> {
    let answered = &prompt.greedy[..prompt.greedy.len() - 1];
    let ids = ids_array(&[&prompt.ids, answered].concat());
    let hidden = model.hidden(&ids)?; // [1, L, E]
    let first = prompt.ids.len() as i32 - 1;
    let answer = ops::split_at_indices(&hidden, &[first], 1)?.remove(1);
    let logits: Array = model.logits(&answer)?.squeeze_axes(&[0])?; // [64, V]
    Ok(greedy(&logits)?
        .as_dtype(Dtype::Uint32)?
        .to_vec_cast::<u32>()?)
}

fn naive(model: &Model, prompt: &Prompt) -> Result<Vec<u32>> {
    let request = Request {
        ids: prompt.ids.clone(),
        max_tokens: prompt.greedy.len(),
        ..Request::default()
    };
    let go_on = |_| Ok(ControlFlow::Continue(()));
    Ok(generate(&mut Generator::new(model, &request)?, go_on)?.tokens)
}

fn compare(
    model: &Model,
    prompts: &[Prompt],
    tolerance: f32,
    tokens: impl Fn(&Model, &Prompt) -> Result<Vec<u32>>,
) {
    assert_eq!(prompts.len(), 3);
    for (index, prompt) in prompts.iter().enumerate() {
        let delta = logit_difference(model, prompt).unwrap();
        println!("prompt {index}: relative logit difference {delta:.1e}");
        assert!(
            delta <= tolerance,
            "prompt {index}: {delta} is more than {tolerance}"
        );
        assert_eq!(
            tokens(model, prompt).unwrap(),
            prompt.greedy,
            "prompt {index}"
        );
    }
}

#[test]
fn the_built_in_model_gives_the_tokens_of_mlx_lm_in_bf16() {
    let model = Model::load(&tiny()).unwrap();
    compare(&model, &expected("tiny", "bf16"), 2e-2, choices);
    let first = &expected("tiny", "bf16")[0];
    assert_eq!(naive(&model, first).unwrap(), first.greedy);
}

#[test]
fn the_built_in_model_gives_the_tokens_of_mlx_lm_in_f32() {
    let (config, weights) = convert::dense(&tiny(), Dtype::Float32).unwrap();
    let model = Model::new(&config, weights).unwrap();
    compare(&model, &expected("tiny", "f32"), 2e-5, naive);
}

#[test]
fn smollm2_gives_the_tokens_of_mlx_lm_in_f32() {
    let Some(checkpoint) = smollm2() else { return };
    let (config, weights) = convert::dense(&checkpoint, Dtype::Float32).unwrap();
    let model = Model::new(&config, weights).unwrap();
    compare(&model, &expected("smollm2", "f32"), 2e-5, naive);
}

#[test]
fn smollm2_gives_the_tokens_of_mlx_lm_in_bf16() {
    let Some(checkpoint) = smollm2() else { return };
    let (config, weights) = convert::dense(&checkpoint, Dtype::Bfloat16).unwrap();
    let model = Model::new(&config, weights).unwrap();
    compare(&model, &expected("smollm2", "bf16"), 2e-2, choices);
}

#[test]
fn smollm2_gives_the_tokens_of_mlx_lm_in_4_bits() {
    let Some(checkpoint) = smollm2() else { return };
    let group = GroupQuantization::affine(64, 4);
    let (config, weights) = convert::quantized(&checkpoint, group).unwrap();
    let model = Model::new(&config, weights).unwrap();
    compare(&model, &expected("smollm2", "4-bit"), 1e-4, choices);
}

#[test]
fn smollm2_gives_the_tokens_of_mlx_lm_as_gguf() {
    let Some(checkpoint) = smollm2() else { return };
    let model = Model::load(&checkpoint).unwrap();
    compare(&model, &expected("smollm2", "gguf"), 1e-4, choices);
}

#[test]
fn prompts_are_encoded_as_mlx_lm_encodes_them() {
    for (name, variant, checkpoint) in [
        ("tiny", "bf16", Some(tiny())),
        ("smollm2", "f32", smollm2()),
    ] {
        let Some(c) = checkpoint else { continue };
        let tokenizer = Tokenizer::open(&c).unwrap();
        let texts: Expected = fixtures::json(&format!("{name}/expected.json")).unwrap();
        for (text, prompt) in texts.texts.iter().zip(expected(name, variant)) {
            assert_eq!(
                tokenizer.encode_prompt(text, false).unwrap(),
                prompt.ids,
                "{text}"
            );
        }
    }
}
