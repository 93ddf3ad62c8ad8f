//! Perplexity and divergence as mlx-lm and NumPy find them, and what must hold of any score.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::collections::BTreeMap;

use console::cli::FloatType;
use mlx_rs::Array;
use part4_quantization::estimates::Quality;
use part4_quantization::floats::Fit;
use part4_quantization::kinds::{CacheKind, empty_cache};
use part4_quantization::model::Model;
use part4_quantization::quality::{Scored, Scores, Window, logprobs, score, windows};
use part4_quantization::quantize::quantize_weights;
use proptest::prelude::*;
use serde::Deserialize;
use shared::checkpoint::Checkpoint;
use shared::config::{GroupQuantization, Quantization};
use shared::hub;
use shared::sampling::log_softmax;
use shared::testing::fixtures;

#[derive(Deserialize)]
struct Expected {
    ids: Vec<Vec<u32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    variant: String,
    eval_ppl: f64,
    eval_ppl_error: f64,
    divergence_percentiles: [f64; 4],
    nll: Vec<f64>,
    divergence: Vec<f64>,
    flips: Vec<f64>,
    rms_shift: Vec<f64>,
}

fn tiny() -> Checkpoint {
    let checkpoint = Checkpoint::open("tiny", hub::locate("tiny", None).unwrap()).unwrap();
    Checkpoint {
        dtype: Some(FloatType::F32),
        ..checkpoint
    }
}

fn model(checkpoint: &Checkpoint, group: Option<GroupQuantization>) -> Model {
    let weights = checkpoint.load_weights().unwrap();
    let Some(default) = group else {
        return Model::new(&checkpoint.config, weights).unwrap();
    };
    let plan = Quantization {
        default,
        overrides: BTreeMap::new(),
    };
    let (config, weights) = quantize_weights(&checkpoint.config, weights, &plan, Fit::Mlx).unwrap();
    Model::new(&config, weights).unwrap()
}

fn said(checkpoint: &Checkpoint, model: &Model, windows: &[Window]) -> Vec<Array> {
    let of = |window| {
        let mut cache = empty_cache(CacheKind::Prealloc, &checkpoint.config);
        logprobs(model, &mut cache, window).unwrap()
    };
    windows.iter().map(of).collect()
}

fn scored(said: &[Array], base: &[Array], windows: &[Window]) -> Vec<Scores> {
    let each = said.iter().zip(base).zip(windows);
    each.map(|((said, base), window)| score(said, base, window.targets()).unwrap())
        .collect()
}

/// `4-bit g64` → 4 bits in groups of 64.
fn group(variant: &str) -> Option<GroupQuantization> {
    let (bits, group_size) = variant.split_once("-bit g")?;
    Some(GroupQuantization::affine(
        group_size.parse().unwrap(),
        bits.parse().unwrap(),
    ))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn near(found: f64, expected: f64, relative: f64, what: &str) {
    let off = (found - expected).abs();
    assert!(
        off <= relative * expected.abs() + 2e-6,
        "{what}: {found}, expected {expected}"
    );
}

#[test]
fn the_numbers_are_those_of_mlx_lm_and_numpy_on_the_same_tokens() {
    let expected: Expected = fixtures::json("tiny/quality.json").unwrap();
    let checkpoint = tiny();
    let size = expected.ids[0].len();
    let ids = expected.ids.concat();
    let windows = windows(&ids, size, usize::MAX, Scored::All, None).unwrap();
    assert_eq!(windows.len(), expected.ids.len());
    let base = said(&checkpoint, &model(&checkpoint, None), &windows);
    let base_scores = scored(&base, &base, &windows);
    for case in &expected.cases {
        let model = model(&checkpoint, group(&case.variant));
        let scores = scored(&said(&checkpoint, &model, &windows), &base, &windows);
        let quality = Quality::of(&scores, &base_scores).unwrap();
        let name = &case.variant;
        near(quality.perplexity.value, case.eval_ppl, 2e-4, name);
        near(
            quality.perplexity.naive.unwrap(),
            case.eval_ppl_error,
            2e-4,
            name,
        );
        for (index, scores) in scores.iter().enumerate() {
            let what = format!("{name}, window {index}");
            near(mean(&scores.surprise), case.nll[index], 1e-4, &what);
            near(
                mean(&scores.divergence),
                case.divergence[index],
                2e-3,
                &what,
            );
            let rms = mean(&scores.shift.iter().map(|x| x * x).collect::<Vec<_>>()).sqrt();
            near(rms, case.rms_shift[index], 2e-3, &what);
            // Two tokens that are equally likely may change places by rounding, one of them a window.
            let flips = (mean(&scores.flipped) - case.flips[index]).abs() * (size - 1) as f64;
            assert!(flips < 1.5, "{what}: {flips} flips more or less");
        }
        let percentiles = quality
            .divergence_percentiles
            .iter()
            .zip(case.divergence_percentiles);
        for (found, expected) in percentiles {
            near(*found, expected, 5e-3, name);
        }
    }
}

#[test]
fn a_model_does_not_differ_from_itself() {
    let checkpoint = tiny();
    let ids: Vec<u32> = (0..96).map(|index| 100 + index * 37 % 3900).collect();
    let windows = windows(&ids, 24, 4, Scored::All, None).unwrap();
    let base = said(&checkpoint, &model(&checkpoint, None), &windows);
    let scores = scored(&base, &base, &windows);
    let quality = Quality::of(&scores, &scores).unwrap();
    assert_eq!(quality.divergence.value, 0.0);
    assert_eq!(quality.divergence_percentiles, [0.0; 4]);
    assert_eq!((quality.flips.value, quality.rms_shift), (0.0, 0.0));
    assert_eq!((quality.delta.value, quality.delta.error), (0.0, Some(0.0)));
    // The same numbers again: nothing in it is drawn anew.
    assert_eq!(Quality::of(&scores, &scores), Some(quality));
}

#[test]
fn perplexity_of_all_windows_is_the_geometric_mean_of_theirs() {
    let scores: Vec<Scores> = (1..5).map(|index| scores_of(f64::from(index))).collect();
    let whole = Quality::of(&scores, &scores).unwrap().perplexity.value;
    let each = scores
        .chunks(1)
        .map(|one| Quality::of(one, one).unwrap().perplexity.value);
    let product: f64 = each.product();
    assert!((whole - product.powf(0.25)).abs() < 1e-9);
}

fn scores_of(surprise: f64) -> Scores {
    let spread = |offset| surprise + f64::from(offset) / 10.0;
    Scores {
        surprise: (0..8).map(spread).collect(),
        divergence: vec![0.1; 8],
        flipped: vec![0.0; 8],
        shift: vec![0.0; 8],
    }
}

#[test]
fn windows_do_not_overlap_and_score_what_they_say() {
    let ids: Vec<u32> = (10..31).collect();
    let all = windows(&ids, 6, 9, Scored::All, Some(10)).unwrap();
    assert_eq!(all.len(), 3, "three tokens are left over");
    assert_eq!(all[1].ids, [16, 17, 18, 19, 20, 21]);
    assert_eq!(all[1].targets(), [17, 18, 19, 20, 21]);
    let half = windows(&ids, 6, 2, Scored::SecondHalf, Some(1)).unwrap();
    assert_eq!(half.len(), 2);
    assert_eq!(
        half[1].ids,
        [1, 17, 18, 19, 20, 21],
        "the id that starts a text is put first"
    );
    // 255 of 512 in llama.cpp: the prediction of the middle is the first that counts.
    assert_eq!(half[1].targets(), [20, 21]);
    let without = windows(&ids, 6, 2, Scored::SecondHalf, None).unwrap();
    assert_eq!(without[1].ids[0], 16);
    let error = windows(&ids, 22, 1, Scored::All, None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("21 tokens, but a window takes 22"),
        "{error}"
    );
}

#[test]
fn the_second_half_of_a_window_is_scored_as_in_the_whole_window() {
    let checkpoint = tiny();
    let model = model(&checkpoint, None);
    let ids: Vec<u32> = (0..32).map(|index| 100 + index * 37 % 3900).collect();
    let of = |scored| {
        let windows = windows(&ids, 32, 1, scored, None).unwrap();
        let said = said(&checkpoint, &model, &windows);
        self::scored(&said, &said, &windows)[0].surprise.clone()
    };
    let (all, half) = (of(Scored::All), of(Scored::SecondHalf));
    assert_eq!((all.len(), half.len()), (31, 15));
    for (a, b) in all[16..].iter().zip(&half) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn a_model_that_gives_no_numbers_is_refused() {
    let broken = Array::from_slice(&[f32::NAN, 0.0, 0.0, 0.0], &[2, 2]);
    let base = log_softmax(&Array::zeros::<f32>(&[2, 2]).unwrap()).unwrap();
    let error = score(&broken, &base, &[0, 1]).unwrap_err().to_string();
    assert!(error.contains("not finite"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn divergence_is_never_negative_and_what_is_as_likely_moves_nothing(
        logits in prop::collection::vec(-8.0_f32..8.0, 48),
        other in prop::collection::vec(-8.0_f32..8.0, 48),
        shift in -3.0_f32..3.0,
    ) {
        let array = |values: &[f32]| log_softmax(&Array::from_slice(values, &[6, 8])).unwrap();
        let shifted: Vec<f32> = logits.iter().map(|logit| logit + shift).collect();
        let (p, q, same) = (array(&logits), array(&other), array(&shifted));
        let targets = [0, 1, 2, 3, 4, 5];
        let scores = score(&q, &p, &targets).unwrap();
        prop_assert!(scores.divergence.iter().all(|kl| *kl >= -1e-5));
        prop_assert!(scores.shift.iter().all(|dp| dp.abs() <= 1.0));
        let none = score(&same, &p, &targets).unwrap();
        prop_assert!(none.divergence.iter().all(|kl| kl.abs() < 1e-4));
        prop_assert!(none.shift.iter().all(|dp| dp.abs() < 1e-4));
        for ((surprise, row), target) in scores.surprise.iter().zip(other.chunks(8)).zip(targets) {
            let total: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
            let expected = total.ln() - f64::from(row[target as usize]);
            prop_assert!((surprise - expected).abs() < 1e-4);
        }
    }
}
