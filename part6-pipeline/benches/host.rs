//! What the host does for a step beside the model: a mask, a look into the tree of prefixes, a plan, a text.
//! `cargo bench -p part6-pipeline --bench host`. `step.rs` has what the model takes.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use part6_pipeline::ask::{Grammar, TokenInfo};
use part6_pipeline::constraint::{Constraint, Vocabulary};
use part6_pipeline::limits::{Limits, Memory, Policy};
use part6_pipeline::prefix::{BLOCK, Prefixes};
use part6_pipeline::scheduler::{Scheduler, SequenceId};
use part6_pipeline::text::Text;
use serde_json::json;
use shared::checkpoint::Checkpoint;
use shared::hub;
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
    targets = masks, prefixes, plans, texts
}
criterion_main!(benches);
