//! What the host does for a step beside the model: a mask, a look into the tree of prefixes, a plan, a text.
//! `cargo bench -p part6-pipeline --bench host`. `step.rs` has what the model takes.
//!
//! `MODEL=… cargo bench -p part6-pipeline --bench host -- masked_step` takes another model than the built-in one for the
//! steps whose rows have masks.

use std::env;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use console::cli::FloatType;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mlx_rs::{Array, transforms};
use part6_pipeline::ask::{Grammar, TokenInfo};
use part6_pipeline::batch::Batch;
use part6_pipeline::constraint::{Constraint, Vocabulary};
use part6_pipeline::kinds::{CacheKind, empty_cache};
use part6_pipeline::limits::{Limits, Memory, Policy};
use part6_pipeline::model::Model;
use part6_pipeline::prefix::{BLOCK, Prefixes};
use part6_pipeline::scheduler::{Scheduler, SequenceId};
use part6_pipeline::text::Text;
use serde_json::json;
use shared::checkpoint::Checkpoint;
use shared::hub;
use shared::layers::ids_array;
use shared::sampling::{Choice, Sampler, Sampling, sample_rows};
use shared::tokenizer::Tokenizer;

/// What an answer might be: every token of it is allowed by the schema below.
const JSON: &str = r#"{"name": "Lily", "age": 7, "tags": ["happy", "little", "brave"], "home": {"town": "Rome", "old": true}}"#;

fn opened() -> Result<(Tokenizer, usize)> {
    let checkpoint = Checkpoint::open("tiny", hub::locate("tiny", None)?)?;
    Ok((Tokenizer::open(&checkpoint)?, checkpoint.config.vocab_size))
}

fn grammar() -> Grammar {
    Grammar::Schema(json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "home": {"type": "object", "properties": {"town": {"type": "string"}, "old": {"type": "boolean"}}},
        },
        "required": ["name", "age", "tags", "home"],
    }))
}

/// The masks of a whole answer, so many at a time: divided by the tokens, what one step of one row costs.
fn masks(criterion: &mut Criterion) {
    let (tokenizer, size) = opened().expect("the embedded model opens");
    let vocabulary: Arc<Vocabulary> = Vocabulary::new(&tokenizer, size).expect("a vocabulary");
    let ids = tokenizer.encode_bare(JSON).expect("a text");
    let grammar = grammar();
    let mut group = criterion.benchmark_group("mask");
    group.throughput(Throughput::Elements(ids.len() as u64));
    group.bench_function("tokens of a schema", |bencher| {
        bencher.iter_batched(
            || Constraint::new(&vocabulary, &grammar).expect("a schema"),
            |mut constraint| {
                for id in &ids {
                    black_box(constraint.mask().expect("a mask"));
                    constraint.accept(*id).expect("an allowed token");
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Rows of a step that all have a schema, or none.
const ROWS: usize = 16;

/// Positions before their new tokens, give or take the row's number.
const OFFSET: usize = 128;

/// Rows that decode together, each somewhere else in the same text.
struct Rows {
    model: Model,
    batch: Batch,
    samplers: Vec<Sampler>,
    vocabulary: Arc<Vocabulary>,
    text: Vec<u32>,
    /// Of each row what it must match, and how far it is in the text. None without a schema.
    constraints: Vec<Option<(Constraint, usize)>>,
}

impl Rows {
    fn new(masked: bool, temperature: f32) -> Result<Self> {
        let name = env::var("MODEL").unwrap_or_else(|_| "tiny".to_owned());
        let mut checkpoint = Checkpoint::open(&name, hub::locate(&name, None)?)?;
        checkpoint.dtype = Some(FloatType::F32);
        let tokenizer = Tokenizer::open(&checkpoint)?;
        let model = Model::load(&checkpoint)?;
        let kind = CacheKind::Prealloc;
        let mut batch = Batch::new(kind, &checkpoint.config);
        let mut samplers = Vec::new();
        for row in 0..ROWS {
            let mut cache = empty_cache(kind, &checkpoint.config);
            let length = OFFSET + row;
            let ids: Vec<u32> = (0..length as u32).map(|at| 100 + at * 37 % 3900).collect();
            transforms::eval([&model.next_logits(&ids_array(&ids), &mut cache)?])?;
            batch.join(&[SequenceId(row as u64)], &[length], cache)?;
            let seed = row as u64;
            let sampling = Sampling {
                temperature,
                seed,
                ..Sampling::default()
            };
            samplers.push(Sampler::new(&sampling, &[])?);
        }
        let vocabulary = Vocabulary::new(&tokenizer, checkpoint.config.vocab_size)?;
        let text = tokenizer.encode_bare(JSON)?;
        let mut constraints = Vec::new();
        for row in 0..ROWS {
            constraints.push(if masked {
                let at = row * text.len() / ROWS;
                Some((begun(&vocabulary, &text[..at])?, at))
            } else {
                None
            });
        }
        Ok(Self {
            model,
            batch,
            samplers,
            vocabulary,
            text,
            constraints,
        })
    }

    /// A step as the generator has it: while the device computes what the ids are chosen from, the host finds out what
    /// they may be. What was drawn is read, and the text goes on.
    fn step(&mut self) -> Result<u32> {
        let rows = ROWS as u32;
        let ids = Array::from_iter((0..rows).map(|row| 100 + row), &[ROWS as i32, 1]);
        let logits = self.batch.run(&self.model, &ids)?;
        if self.constraints.iter().any(Option::is_some) {
            transforms::async_eval([&logits])?;
        }
        for (constraint, sampler) in self.constraints.iter_mut().zip(&mut self.samplers) {
            if let Some((constraint, _)) = constraint {
                sampler.allow(&constraint.mask()?);
            }
        }
        let next = sample_rows(&mut self.samplers.iter_mut().collect::<Vec<_>>(), &logits)?;
        transforms::async_eval(next.iter().flat_map(Choice::arrays))?;
        let sum = next.iter().map(|next| next.read()).sum();
        for (constraint, at) in self.constraints.iter_mut().flatten() {
            constraint.accept(self.text[*at])?;
            black_box(constraint.forced());
            *at += 1;
        }
        sum
    }

    /// Rows that have come to the end of the text begin again: another answer, and no part of a step.
    fn renew(&mut self) -> Result<()> {
        for (constraint, at) in self.constraints.iter_mut().flatten() {
            if *at == self.text.len() {
                (*constraint, *at) = (begun(&self.vocabulary, &[])?, 0);
            }
        }
        Ok(())
    }
}

fn begun(vocabulary: &Arc<Vocabulary>, ids: &[u32]) -> Result<Constraint> {
    let mut constraint = Constraint::new(vocabulary, &grammar())?;
    ids.iter().try_for_each(|id| constraint.accept(*id))?;
    Ok(constraint)
}

/// A step of 16 rows without and with a schema for each: their difference is what the masks cost beside a device that
/// computes. Greedy rows are chosen from together, others one by one.
fn masked_steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("masked_step");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (how, temperature) in [("greedy", 0.0), ("drawn", 1.0)] {
        for (what, masked) in [("free", false), ("schema", true)] {
            group.bench_function(BenchmarkId::new(how, what), |bencher| {
                let mut rows = Rows::new(masked, temperature).expect("the prompts run");
                bencher.iter_custom(|times| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..times {
                        rows.renew().expect("a schema");
                        let begun = Instant::now();
                        black_box(rows.step().expect("the step runs"));
                        spent += begun.elapsed();
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

/// A prompt of a thousand tokens among a thousand others, of which many begin like it.
fn prefixes(criterion: &mut Criterion) {
    let ids = |seed: u32| -> Vec<u32> {
        let fork = seed as usize * 13 % 1024;
        (0..1024)
            .map(|at| at as u32 + if at < fork { 0 } else { seed })
            .collect()
    };
    let mut tree = Prefixes::new(1 << 30);
    for seed in 1..1000 {
        let values = |range: std::ops::Range<usize>| Ok(vec![(Some(()), 1); range.len() / BLOCK]);
        tree.insert(&ids(seed), 0, values).expect("room");
    }
    let known = ids(77);
    let mut group = criterion.benchmark_group("prefix");
    group.throughput(Throughput::Elements(known.len() as u64));
    group.bench_function("tokens looked up", |bencher| {
        bencher.iter(|| tree.find(black_box(&known)).values.len());
    });
    group.finish();
}

/// A step of 32 answers, while a thousand requests wait.
fn plans(criterion: &mut Criterion) {
    let limits = Limits {
        rows: 32,
        tokens_per_step: 256,
        piece: 128,
        block: 16,
        kv_tokens: usize::MAX,
        policy: Policy::Continuous,
        memory: Memory::Preempt,
        decodes_per_piece: 1,
    };
    let mut scheduler = Scheduler::new(limits).expect("limits that make sense");
    for id in 0..1032 {
        let submitted = scheduler.submit(SequenceId(id), 32, 1 << 50, Duration::ZERO);
        submitted.expect("it fits");
    }
    criterion.bench_function("plan/32 rows", |bencher| {
        bencher.iter(|| {
            let plan = scheduler.plan(black_box(Duration::ZERO));
            for piece in plan.pieces.iter().filter(|piece| piece.last) {
                scheduler.token(piece.id);
            }
            plan.pieces.len()
        });
    });
}

/// Tokens of an answer become text, with two stop texts that never come.
fn texts(criterion: &mut Criterion) {
    let (tokenizer, _) = opened().expect("the embedded model opens");
    let ids = tokenizer.encode_bare(&JSON.repeat(4)).expect("a text");
    let info = |id: &u32| TokenInfo {
        id: *id,
        bytes: Vec::new(),
        logprob: None,
        top: Vec::new(),
    };
    let stops = ["\n\nUser:".to_owned(), "</s>".to_owned()];
    let mut group = criterion.benchmark_group("text");
    group.throughput(Throughput::Elements(ids.len() as u64));
    group.bench_function("tokens", |bencher| {
        bencher.iter(|| {
            let mut text = Text::new(&tokenizer, &stops);
            let pushed = ids.iter().map(|id| text.push(info(id)));
            pushed
                .map(|piece| piece.expect("a token").text.len())
                .sum::<usize>()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = masks, masked_steps, prefixes, plans, texts
}
criterion_main!(benches);
