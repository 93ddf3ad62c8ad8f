//! One step of the model, with the same ids in every part: `cargo bench -p part1-walkthrough`.
//!
//! Here each operation is written out and keeps its result; part 2 times the fused ones. Both compute in
//! the checkpoint's own type.
//!
//! MLX is lazy, so each iteration ends in reading the chosen id: without that only the building of
//! the graph would be timed.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use part1_walkthrough::llama::Llama;
use part1_walkthrough::pass::Pass;
use shared::checkpoint::Checkpoint;
use shared::hub;
use shared::sampling::greedy;

/// Tokens in the prompt, or positions before the new token.
const LENGTHS: [usize; 3] = [32, 128, 512];

fn embedded_model() -> Result<Llama> {
    Llama::load(&Checkpoint::open("tiny", hub::locate("tiny", None)?)?)
}

/// Ids that repeat nothing for a while: what they say does not matter, only how many there are.
fn ids(count: usize) -> Vec<u32> {
    (0..count as u32)
        .map(|index| 100 + index * 37 % 3900)
        .collect()
}

fn next_id(model: &Llama, ids: &[u32]) -> Result<u32> {
    let pass = Pass::run(model, ids, None)?;
    Ok(greedy(&pass.next_logits(model)?)?.try_item_exact::<u32>()?)
}

fn prefill(criterion: &mut Criterion) {
    let model = embedded_model().expect("the embedded model loads");
    let mut group = criterion.benchmark_group("prefill");
    for length in LENGTHS {
        let ids = ids(length);
        group.throughput(Throughput::Elements(length as u64));
        group.bench_with_input(BenchmarkId::new("tokens", length), &ids, |bencher, ids| {
            bencher.iter(|| next_id(&model, black_box(ids)).expect("the step runs"));
        });
    }
    group.finish();
}

fn decode_step(criterion: &mut Criterion) {
    let model = embedded_model().expect("the embedded model loads");
    let mut group = criterion.benchmark_group("decode_step");
    for offset in LENGTHS {
        // Naive decode has no step of one token: it runs the prompt and the new token again.
        let ids = ids(offset + 1);
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(BenchmarkId::new("offset", offset), &ids, |bencher, ids| {
            bencher.iter(|| next_id(&model, black_box(ids)).expect("the step runs"));
        });
    }
    group.finish();
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
