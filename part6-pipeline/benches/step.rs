//! One step of the model, with the same ids in every part: `cargo bench -p part6-pipeline`.
//!
//! MLX is lazy, so each iteration ends in reading the chosen id: without that only the building of
//! the graph would be timed.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mlx_rs::Array;
use part6_pipeline::batch::Batch;
use part6_pipeline::cache::Cache;
use part6_pipeline::kinds::{CacheKind, empty_cache};
use part6_pipeline::model::Model;
use part6_pipeline::scheduler::SequenceId;
use shared::checkpoint::Checkpoint;
use shared::hub;
use shared::layers::ids_array;
use shared::sampling::{Sampler, Sampling, greedy, sample_rows};

/// Tokens in the prompt, or positions before the new token.
const LENGTHS: [usize; 3] = [32, 128, 512];

/// Rows that decode together, and how many positions are before their new tokens, give or take the row's
/// number: no two rows are equally long.
const ROWS: [usize; 4] = [1, 4, 16, 32];
const OFFSET: usize = 128;

fn embedded_model() -> Result<Model> {
    Model::load(&Checkpoint::open("tiny", hub::locate("tiny", None)?)?)
}

/// Ids that repeat nothing for a while: what they say does not matter, only how many there are.
fn ids(count: usize) -> Vec<u32> {
    (0..count as u32)
        .map(|index| 100 + index * 37 % 3900)
        .collect()
}

fn next_id(model: &Model, cache: &mut Cache, ids: &[u32]) -> Result<u32> {
    Ok(greedy(&model.next_logits(&ids_array(ids), cache)?)?.try_item_exact::<u32>()?)
}

fn cache() -> Result<Cache> {
    let checkpoint = Checkpoint::open("tiny", hub::locate("tiny", None)?)?;
    Ok(empty_cache(CacheKind::Prealloc, &checkpoint.config))
}

fn prefill(criterion: &mut Criterion) {
    let model = embedded_model().expect("the embedded model loads");
    let mut group = criterion.benchmark_group("prefill");
    for length in LENGTHS {
        let ids = ids(length);
        group.throughput(Throughput::Elements(length as u64));
        group.bench_with_input(BenchmarkId::new("tokens", length), &ids, |bencher, ids| {
            bencher.iter_batched(
                || cache().expect("a cache"),
                |mut cache| next_id(&model, &mut cache, black_box(ids)).expect("the step runs"),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn decode_step(criterion: &mut Criterion) {
    let model = embedded_model().expect("the embedded model loads");
    let mut group = criterion.benchmark_group("decode_step");
    for offset in LENGTHS {
        let ids = ids(offset + 1);
        let mut cache = cache().expect("a cache");
        next_id(&model, &mut cache, &ids[..offset]).expect("the prompt runs");
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(BenchmarkId::new("offset", offset), &ids, |bencher, ids| {
            // The step that part 2 runs over the whole sequence; one back, so that each is alike.
            bencher.iter(|| {
                let id = next_id(&model, &mut cache, black_box(&ids[offset..]));
                cache.trim(1).expect("the step is in the cache");
                id.expect("the step runs")
            });
        });
    }
    for rows in ROWS {
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::new("rows", rows), |bencher| {
            let mut batch = batch(&model, rows).expect("the prompts run");
            let mut samplers: Vec<Sampler> = (0..rows)
                .map(|_| Sampler::new(&Sampling::default(), &[]).expect("a sampler"))
                .collect();
            bencher.iter(|| next_ids(&model, &mut batch, &mut samplers).expect("the step runs"));
        });
    }
    group.finish();
}

/// So many rows with a prompt behind them.
fn batch(model: &Model, rows: usize) -> Result<Batch> {
    let checkpoint = Checkpoint::open("tiny", hub::locate("tiny", None)?)?;
    let mut batch = Batch::new(CacheKind::Prealloc, &checkpoint.config);
    for row in 0..rows {
        let mut cache = cache()?;
        next_id(model, &mut cache, &ids(OFFSET + row))?;
        batch.join(&[SequenceId(row as u64)], &[cache.offset() as usize], cache)?;
    }
    Ok(batch)
}

/// A step of all rows, read by the host (the sum of the ids, so that none is forgotten). It cannot go back, so the rows grow by one token each time.
fn next_ids(model: &Model, batch: &mut Batch, samplers: &mut [Sampler]) -> Result<u32> {
    let rows = samplers.len() as i32;
    let ids = Array::from_iter((0..rows as u32).map(|row| 100 + row), &[rows, 1]);
    let logits = batch.run(model, &ids)?;
    let next = sample_rows(&mut samplers.iter_mut().collect::<Vec<_>>(), &logits)?;
    next.iter().map(|next| next.read()).sum()
}

criterion_group! {
    name = benches;
    // Short enough to watch: under two minutes, even where MLX runs on the CPU.
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = prefill, decode_step
}
criterion_main!(benches);
