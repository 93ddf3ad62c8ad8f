//! The bars show what the sampler does.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod common;

use std::collections::BTreeMap;

use common::{SENTENCE, flags, plan, tiny};
use mlx_rs::Array;
use part1_walkthrough::subject::Plan;
use part1_walkthrough::walk::walk;
use shared::sampling::{Sampler, Sampling};

const DRAWS: usize = 400;

/// How often each token comes out of the sampler.
fn drawn(logits: &[f32], args: Sampling, prompt: &[u32]) -> BTreeMap<u32, usize> {
    let logits = Array::from_slice(logits, &[1, logits.len() as i32]);
    let mut counts = BTreeMap::new();
    for seed in 0..DRAWS as u64 {
        let mut sampler = Sampler::new(&Sampling { seed, ..args }, prompt).unwrap();
        let id = sampler.sample(&logits).unwrap().read().unwrap();
        *counts.entry(id).or_insert(0) += 1;
    }
    counts
}

#[test]
fn tokens_come_out_as_often_as_the_bars_say_and_removed_ones_never() {
    let subject = tiny();
    for args in [
        vec![
            "--temperature=0.7",
            "--top-p=0.95",
            "--min-p=0.05",
            "--top-k=2",
        ],
        vec!["--temperature=1.5", "--top-k=5"],
        vec![
            "--temperature=1",
            "--min-p=0.02",
            "--repetition-penalty=1.3",
        ],
        vec!["--temperature=2", "--top-p=0.9"],
    ] {
        let (_, sampling) = flags(&args);
        let trace = walk(
            &subject,
            &Plan {
                sampling,
                max_tokens: 1,
                ..plan(SENTENCE)
            },
        )
        .unwrap();
        let prompt: Vec<u32> = trace.tokens.iter().map(|token| token.id).collect();
        let counts = drawn(&trace.prediction.logits.0, sampling, &prompt);
        let kept = trace
            .prediction
            .bars
            .iter()
            .filter(|bar| bar.removed_by.is_none());
        let kept: BTreeMap<u32, f32> = kept.map(|bar| (bar.id, bar.after)).collect();
        assert!(
            (kept.values().sum::<f32>() - 1.0).abs() < 1e-4,
            "{args:?}: {kept:?}"
        );
        assert!(
            counts.keys().all(|id| kept.contains_key(id)),
            "{args:?}: {counts:?}"
        );
        for (id, probability) in kept {
            let share = *counts.get(&id).unwrap_or(&0) as f32 / DRAWS as f32;
            // Five standard deviations of a share of 400 draws.
            let spread = 5.0 * (probability * (1.0 - probability) / DRAWS as f32).sqrt();
            assert!(
                (share - probability).abs() <= spread + 1e-3,
                "{args:?}: {id} {share} {probability}"
            );
        }
    }
}

#[test]
fn every_removed_token_has_its_filter_and_the_counts_add_up() {
    let (_, sampling) = flags(&[
        "--temperature=0.7",
        "--top-p=0.95",
        "--min-p=0.05",
        "--top-k=2",
    ]);
    let trace = walk(
        &tiny(),
        &Plan {
            sampling,
            max_tokens: 1,
            ..plan(SENTENCE)
        },
    )
    .unwrap();
    let prediction = &trace.prediction;
    assert!(!prediction.example);
    let removed: usize = prediction
        .filters
        .iter()
        .map(|outcome| outcome.removed)
        .sum();
    let kept = prediction.filters.last().unwrap().kept;
    assert_eq!(removed + kept, trace.model.vocabulary);
    assert_eq!(prediction.filters.len(), 3);
    assert!(prediction.filters.iter().all(|outcome| outcome.removed > 0));
    for bar in &prediction.bars {
        assert_eq!(bar.removed_by.is_some(), bar.reason.is_some());
        assert_eq!(bar.removed_by.is_some(), bar.after == 0.0);
    }
}

#[test]
fn the_named_tokens_are_the_first_under_any_setting() {
    let trace = walk(
        &tiny(),
        &Plan {
            max_tokens: 1,
            ..plan(SENTENCE)
        },
    )
    .unwrap();
    let (logits, named) = (&trace.prediction.logits.0, &trace.prediction.named);
    let least = named
        .iter()
        .map(|named| logits[named.id as usize])
        .fold(f32::INFINITY, f32::min);
    let ids: Vec<u32> = named.iter().map(|named| named.id).collect();
    let others = logits
        .iter()
        .enumerate()
        .filter(|(id, _)| !ids.contains(&(*id as u32)));
    assert!(others.into_iter().all(|(_, logit)| *logit <= least));
    assert!(
        ids.windows(2)
            .all(|pair| logits[pair[0] as usize] >= logits[pair[1] as usize])
    );
}
