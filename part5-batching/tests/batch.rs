//! A row of a batch is what it is alone, whoever is beside it, comes and goes.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod alone;

use alone::{Answer, Both, PACKED, alone, bits_are_equal, prefill, same, tiny};
use console::cli::FloatType;
use mlx_rs::{Array, Dtype};
use part5_batching::batch::Batch;
use part5_batching::kinds::{CacheKind, empty_cache};
use part5_batching::scheduler::SequenceId;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use shared::checkpoint::Checkpoint;
use shared::layers::to_f32;
use shared::testing::fixtures;

/// A row: how long its prompt is, in which step it joins, and for how many steps it stays.
#[derive(Debug, Clone, Copy)]
struct Stay {
    prompt: usize,
    joins: usize,
    steps: usize,
}

impl Stay {
    fn new(prompt: usize, joins: usize, steps: usize) -> Self {
        Self {
            prompt,
            joins,
            steps,
        }
    }
}

/// Runs the rows together and compares each step of each with the row alone.
fn check(both: &Both, kind: CacheKind, stays: &[Stay], what: &str) {
    let prompts: Vec<Vec<u32>> = (0..)
        .zip(stays)
        .map(|(seed, stay)| both.ids(stay.prompt, seed))
        .collect();
    let answers: Vec<Answer> = prompts
        .iter()
        .zip(stays)
        .map(|(prompt, stay)| alone(both, kind, prompt, stay.steps))
        .collect();
    let mut batch = Batch::new(kind, &both.config);
    for step in 0..stays
        .iter()
        .map(|stay| stay.joins + stay.steps)
        .max()
        .unwrap()
    {
        for (row, stay) in stays.iter().enumerate() {
            let id = SequenceId(row as u64);
            if stay.joins + stay.steps == step {
                batch.leave(id).unwrap();
            }
            if stay.joins == step {
                let mut cache = empty_cache(kind, &both.config);
                let logits = prefill(&both.model, &mut cache, &prompts[row]);
                same(&logits, &answers[row].logits[0], what);
                batch
                    .join(&[id], &[cache.offset() as usize], cache)
                    .unwrap();
            }
        }
        let rows: Vec<usize> = batch.rows().iter().map(|id| id.0 as usize).collect();
        if rows.is_empty() {
            continue;
        }
        let ids = rows
            .iter()
            .map(|row| answers[*row].ids[step - stays[*row].joins]);
        let ids = Array::from_iter(ids, &[rows.len() as i32, 1]);
        let logits = batch.run(&both.model, &ids).unwrap();
        let logits = to_f32(&logits).unwrap();
        for (row, logits) in rows.into_iter().zip(logits.chunks(both.config.vocab_size)) {
            let at = step - stays[row].joins + 1;
            let what = format!("{what}, {kind:?}, row {row} of {stays:?}, token {at}");
            same(logits, &answers[row].logits[at], &what);
        }
    }
}

const RING: CacheKind = CacheKind::Rotating { size: 16, sinks: 4 };
const NO_SINKS: CacheKind = CacheKind::Rotating { size: 9, sinks: 0 };

#[test]
fn a_row_has_the_bits_that_it_has_alone_for_every_architecture_and_cache() {
    let stays = [
        Stay::new(1, 0, 12),
        Stay::new(300, 0, 5),
        Stay::new(7, 0, 30),
        Stay::new(17, 2, 20),
        Stay::new(33, 6, 3),
        Stay::new(16, 6, 9),
    ];
    for name in fixtures::checkpoints().unwrap() {
        let both = Both::fixture(&name);
        for kind in [CacheKind::Prealloc, RING, NO_SINKS] {
            check(&both, kind, &stays, &name);
        }
        if both.config.head_dim.is_multiple_of(32) {
            check(&both, PACKED, &stays, &name);
        }
    }
}

#[test]
fn so_it_does_in_the_embedded_model_in_both_types() {
    let stays = [
        Stay::new(250, 0, 12),
        Stay::new(40, 0, 4),
        Stay::new(90, 3, 9),
    ];
    for dtype in [None, Some(FloatType::F32)] {
        let both = Both::load(&Checkpoint { dtype, ..tiny() });
        for kind in [CacheKind::Prealloc, RING, PACKED] {
            check(&both, kind, &stays, "tiny");
        }
    }
}

#[test]
fn a_window_is_counted_from_the_rows_own_position() {
    for name in [
        "mistral-sliding-window",
        "mistral-layer-types",
        "qwen2-sliding-window",
    ] {
        let both = Both::fixture(name);
        for first in [1, 21] {
            let stays: Vec<Stay> = (first..first + 20).map(|n| Stay::new(n, 0, 12)).collect();
            for kind in [CacheKind::Prealloc, NO_SINKS] {
                check(&both, kind, &stays, name);
            }
        }
    }
}

#[test]
fn rows_come_and_go_at_random_and_no_row_notices() {
    let both = Both::fixture("qwen3-8bit-mixed");
    let stay = (1..=300_usize, 0..20_usize, 1..20_usize);
    let stays = prop::collection::vec(stay.prop_map(|(a, b, c)| Stay::new(a, b, c)), 1..8);
    let kinds = prop::sample::select(vec![CacheKind::Prealloc, RING, NO_SINKS, PACKED]);
    let config = Config {
        cases: 40,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tried = runner.run(&(stays, kinds), |(stays, kind)| {
        check(&both, kind, &stays, "at random");
        Ok(())
    });
    tried.unwrap();
}

/// Where the keys and values of a batch are.
fn addresses(batch: &Batch) -> Vec<usize> {
    let address = |array: &Array| {
        array.eval().unwrap();
        array.try_as_slice::<f32>().unwrap().as_ptr() as usize
    };
    batch.cache().arrays().map(address).collect()
}

#[test]
fn nobody_who_stays_is_copied() {
    if !bits_are_equal() {
        return; // a GPU's memory has no such addresses
    }
    let checkpoint = Checkpoint {
        dtype: Some(FloatType::F32),
        ..tiny()
    };
    let both = Both::load(&checkpoint);
    let mut batch = Batch::new(CacheKind::Prealloc, &both.config);
    let join = |batch: &mut Batch, row: u64| {
        let mut cache = empty_cache(CacheKind::Prealloc, &both.config);
        prefill(&both.model, &mut cache, &both.ids(10, row as usize));
        batch
            .join(&[SequenceId(row)], &[cache.offset() as usize], cache)
            .unwrap();
    };
    for row in 0..5 {
        join(&mut batch, row); // there are 8 slots then
    }
    let before = addresses(&batch);
    let step = |batch: &mut Batch| {
        let rows = batch.rows().len() as i32;
        let logits = batch.run(
            &both.model,
            &Array::from_iter(100..100 + rows as u32, &[rows, 1]),
        );
        logits.unwrap().eval().unwrap();
    };
    for row in 5..20 {
        step(&mut batch);
        assert_eq!(addresses(&batch), before, "a step");
        join(&mut batch, row);
        assert_eq!(addresses(&batch), before, "{row} joins");
        batch.leave(SequenceId(row - 4)).unwrap();
        assert_eq!(addresses(&batch), before, "{} leaves", row - 4);
    }
}

#[test]
fn a_batch_without_rows_holds_no_memory() {
    let both = Both::fixture("llama");
    let mut batch = Batch::new(CacheKind::Prealloc, &both.config);
    for _ in 0..2 {
        let mut cache = empty_cache(CacheKind::Prealloc, &both.config);
        prefill(&both.model, &mut cache, &both.ids(10, 1));
        batch
            .join(&[SequenceId(3)], &[cache.offset() as usize], cache)
            .unwrap();
        assert!(batch.cache().bytes() > 0);
        batch.leave(SequenceId(9)).unwrap(); // nobody
        assert_eq!(batch.rows(), [SequenceId(3)]);
        batch.leave(SequenceId(3)).unwrap();
        assert_eq!(batch.cache().bytes(), 0);
    }
}

#[test]
fn ids_of_other_rows_than_there_are_is_an_error() {
    let both = Both::fixture("llama");
    let mut batch = Batch::new(CacheKind::Prealloc, &both.config);
    let ids = Array::zeros::<u32>(&[2, 1])
        .unwrap()
        .as_dtype(Dtype::Uint32)
        .unwrap();
    assert!(batch.run(&both.model, &ids).is_err());
}
