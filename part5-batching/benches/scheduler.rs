//! What planning costs: one step of 32 rows, and whole runs in the simulator. `cargo bench --bench scheduler`.

use std::hint::black_box;
use std::time::Duration;

use console::serving::Offered;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use part5_batching::limits::{Limits, Memory, Policy};
use part5_batching::load::{Load, Planned};
use part5_batching::machines::{Chip, Shape};
use part5_batching::scheduler::{Scheduler, SequenceId};
use part5_batching::simulator::simulate;

fn limits() -> Limits {
    Limits {
        rows: 32,
        tokens_per_step: 256,
        piece: 128,
        block: 32,
        kv_tokens: 1 << 20,
        policy: Policy::Continuous,
        memory: Memory::Preempt,
        decodes_per_piece: 1,
    }
}

/// Plans a step of 32 answers, and is told of their tokens; a thousand more requests wait.
fn step(criterion: &mut Criterion) {
    // Answers that outlast the measurement: a row that has ended would cost nothing.
    let limits = Limits {
        kv_tokens: usize::MAX,
        ..limits()
    };
    let mut scheduler = Scheduler::new(limits).expect("limits that make sense");
    for id in 0..1032 {
        scheduler
            .submit(SequenceId(id), 32, 1 << 50, Duration::ZERO)
            .expect("it fits");
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

fn requests(criterion: &mut Criterion) {
    const COUNT: usize = 10_000;
    let planned = |at: usize| Planned {
        due: Duration::from_micros(at as u64 * 500),
        prompt_tokens: 16 + at * 37 % 96,
        output_tokens: 8 + at * 11 % 48,
    };
    let offered = Offered {
        request_rate: 2000.0,
        burstiness: f64::INFINITY,
        max_concurrency: None,
    };
    let load = Load::of(offered, (0..COUNT).map(planned).collect(), 0);
    let shape = Shape::named("smollm2-135m").expect("a known model");
    let times = Chip::named("h100")
        .expect("a known machine")
        .step_times(&shape);
    let mut group = criterion.benchmark_group("simulate");
    group.throughput(Throughput::Elements(COUNT as u64));
    group.bench_function("requests", |bencher| {
        bencher
            .iter(|| simulate(black_box(&load), &limits(), &times, |_, _, _| {}).expect("a run"));
    });
    group.finish();
}

criterion_group!(benches, step, requests);
criterion_main!(benches);
