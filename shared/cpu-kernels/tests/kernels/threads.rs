//! The number of threads, which a process asks for once.

use std::env;
use std::process::Command;

use cpu_kernels::{Attention, Floats, Level, attention, product};

use crate::chance::Chance;
use crate::matrices::{Example, Kind};

/// Tells a process of a test that it is to print its part.
const PRINT: &str = "CPU_KERNELS_TEST_PRINT";

#[test]
fn the_number_of_threads_changes_no_bit() {
    if env::var_os(PRINT).is_some() {
        println!("\nprinted {:016x} {}", digest(), cpu_kernels::threads());
        return;
    }
    let test = "threads::the_number_of_threads_changes_no_bit";
    let one = with_threads("1", test);
    let digest = one.strip_suffix(" 1").expect("one thread");
    for threads in ["2", "7"] {
        assert_eq!(with_threads(threads, test), format!("{digest} {threads}"));
    }
}

#[test]
fn a_slip_of_the_hand_starts_no_million_threads() {
    if env::var_os(PRINT).is_some() {
        println!("\nprinted {}", cpu_kernels::threads());
        return;
    }
    let test = "threads::a_slip_of_the_hand_starts_no_million_threads";
    for threads in [1_000_000, usize::MAX] {
        assert_eq!(with_threads(&threads.to_string(), test), "1024");
    }
}

/// What a test prints in a process of its own.
fn with_threads(threads: &str, test: &str) -> String {
    let program = env::current_exe().expect("this test has a file");
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(PRINT, "1")
        .env("OMP_NUM_THREADS", threads)
        .output()
        .expect("this test starts again");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("printed "));
    line.unwrap_or_else(|| panic!("nothing printed in {text}"))
        .to_owned()
}

/// A hash of the bits of products, rows and attention large enough for several threads.
fn digest() -> u64 {
    let (mut chance, mut bits) = (Chance(7), Vec::new());
    for kind in Kind::all() {
        let (n, k) = (401, kind.columns(769));
        let matrix = Example::new(kind, n, k, &mut chance, Chance::floats);
        for m in [1, 5] {
            let x = chance.floats(m * k);
            bits.extend(product(Level::best(), &x, &matrix.rows(0..n)));
        }
    }
    bits.extend(nine_heads(&mut chance));
    let add = |hash: u64, number: f32| {
        (hash ^ u64::from(number.to_bits())).wrapping_mul(0x0000_0100_0000_01b3)
    };
    bits.into_iter().fold(0xcbf2_9ce4_8422_2325, add)
}

fn nine_heads(chance: &mut Chance) -> Vec<f32> {
    let (d, positions) = (64, 300);
    let numbers = chance.floats(2 * 3 * positions * d);
    let (keys, values) = numbers.split_at(3 * positions * d);
    let heads = |numbers| <[f32]>::chunks_exact(numbers, positions * d).map(Floats::F32);
    let call = Attention {
        q: &chance.floats(9 * d),
        keys: heads(keys).collect(),
        values: heads(values).collect(),
        head_dim: d,
        queries: 1,
        scale: 0.125,
        lengths: &[positions, 170, 299],
        causal: true,
        window: Some(250),
    };
    attention(Level::best(), &call)
}
