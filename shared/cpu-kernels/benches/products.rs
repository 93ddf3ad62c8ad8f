//! One row times the matrices of a small model, in bytes of the matrix per second, and several rows, in
//! multiplications per second: `cargo bench -p cpu-kernels`.

use std::hint::black_box;
use std::time::Duration;

use cpu_kernels::{Floats, Level, Matrix, Packed, SmallFloats, product};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use half::bf16;

/// `[N, K]`: the way down in an MLP of SmolLM2-135M, which is in the caches, and its logits, which are not.
const SHAPES: [[usize; 2]; 2] = [[576, 1536], [49152, 576]];

const GROUP_SIZE: usize = 64;

/// Rows of a batch, and of a prompt where that takes no second.
const ROWS: [usize; 3] = [8, 32, 512];

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("products");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for [n, k] in SHAPES {
        let numbers = weights(n * k);
        let columns = k;
        let weight = Floats::F32(&numbers);
        time(
            &mut group,
            "f32",
            &Matrix::Dense { weight, columns },
            4 * n * k,
        );

        let numbers: Vec<bf16> = numbers.into_iter().map(bf16::from_f32).collect();
        let weight = Floats::Bf16(&numbers);
        time(
            &mut group,
            "bf16",
            &Matrix::Dense { weight, columns },
            2 * n * k,
        );

        let parameters = &numbers[..n * k / GROUP_SIZE];
        let codes: Vec<u32> = (0..(n * k / 8) as u32).map(mixed).collect();
        let packed = Packed {
            codes: &codes,
            scales: Floats::Bf16(parameters),
            biases: Floats::Bf16(parameters),
            bits: 4,
            group_size: GROUP_SIZE,
            columns,
        };
        let bytes = n * k / 2 + 2 * 2 * parameters.len();
        time(&mut group, "4-bit", &Matrix::Packed(packed), bytes);

        let floats = SmallFloats {
            codes: &codes,
            scales: &vec![120; n * k / 32],
            half_scales: &[0.5; 256],
            group_size: 32,
            columns,
        };
        let bytes = n * k / 2 + n * k / 32;
        time(&mut group, "mxfp4", &Matrix::SmallFloats(floats), bytes);
    }
    group.finish();
}

fn time(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, matrix: &Matrix<'_>, bytes: usize) {
    let (n, k) = (matrix.rows(), matrix.columns());
    group.throughput(Throughput::Bytes(bytes as u64));
    time_rows(group, name, matrix, 1);
    for m in ROWS.into_iter().filter(|m| m * n < 1 << 21) {
        group.throughput(Throughput::Elements((m * n * k) as u64));
        time_rows(group, name, matrix, m);
    }
}

fn time_rows(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, matrix: &Matrix<'_>, m: usize) {
    let (n, k) = (matrix.rows(), matrix.columns());
    let x = weights(m * k);
    group.bench_function(BenchmarkId::new(name, format!("{m}x{n}x{k}")), |bencher| {
        bencher.iter(|| product(Level::best(), black_box(&x), black_box(matrix)));
    });
}

/// Numbers between −1 and 1.
fn weights(n: usize) -> Vec<f32> {
    let number = |at| mixed(at) as f32 / (1_u32 << 31) as f32 - 1.0;
    (0..n as u32).map(number).collect()
}

/// Bits without a pattern.
fn mixed(at: u32) -> u32 {
    at.wrapping_mul(0x9e37_79b9)
        .rotate_left(15)
        .wrapping_mul(0x85eb_ca6b)
}

criterion_group!(benches, products);
criterion_main!(benches);
