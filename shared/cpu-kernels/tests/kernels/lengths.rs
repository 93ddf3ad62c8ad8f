//! Lengths that do not fit each other: an answer would be one to another question.

use std::panic::catch_unwind;

use cpu_kernels::{
    Attention, Floats, Level, Matrix, Packed, SmallFloats, Turn, add, attention, norm, product,
    rotate, swiglu,
};

/// The message of the panic. These tests' own output shows it, too.
fn refusal<T>(run: impl FnOnce() -> T + std::panic::UnwindSafe) -> String {
    let Err(panic) = catch_unwind(run) else {
        panic!("an answer");
    };
    let text = panic.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap_or(&"").to_string())
}

fn dense(weight: &[f32], columns: usize) -> Matrix<'_> {
    Matrix::Dense {
        weight: Floats::F32(weight),
        columns,
    }
}

/// `[2, 64]` in 4 bits.
const SOUND: Packed<'_> = Packed {
    codes: &[0; 16],
    scales: Floats::F32(&[1.0; 4]),
    biases: Floats::F32(&[1.0; 4]),
    bits: 4,
    group_size: 32,
    columns: 64,
};

/// `[2, 64]` in mxfp4.
const SMALL: SmallFloats<'_> = SmallFloats {
    codes: &[0; 16],
    scales: &[0; 4],
    half_scales: &[1.0; 256],
    group_size: 32,
    columns: 64,
};

#[test]
fn a_product_of_no_rows_or_with_no_rows_is_empty() {
    for matrix in [dense(&[1.0; 12], 4), Matrix::Packed(SOUND)] {
        assert!(product(Level::best(), &[], &matrix).is_empty());
    }
    for rows in [1, 5] {
        assert!(product(Level::best(), &vec![1.0; 4 * rows], &dense(&[], 4)).is_empty());
    }
}

#[test]
fn half_a_row_is_no_row() {
    let x = [1.0; 64];
    for width in [1, 3, 5, 63, 65] {
        refusal(|| product(Level::best(), &x, &dense(&vec![1.0; 7 * width], width + 1)));
    }
    assert!(refusal(|| product(Level::best(), &x, &dense(&[1.0; 15], 15))).contains("15 columns"));
    assert!(refusal(|| product(Level::best(), &x[..63], &Matrix::Packed(SOUND))).contains("63"));
    refusal(|| norm(Level::best(), &mut [0.0; 64], &[1.0; 5], 1e-5));
}

#[test]
fn a_packed_matrix_of_another_kind_or_with_a_part_too_short_or_too_long_is_refused() {
    let damaged = [
        Packed { bits: 7, ..SOUND },
        Packed { bits: 1, ..SOUND },
        Packed {
            group_size: 16,
            ..SOUND
        },
        Packed {
            group_size: 128,
            ..SOUND
        },
        Packed {
            group_size: 64,
            ..SOUND
        },
        Packed {
            columns: 63,
            ..SOUND
        },
        Packed {
            columns: 96,
            ..SOUND
        },
        Packed { bits: 8, ..SOUND },
        Packed {
            codes: &[0; 17],
            ..SOUND
        },
        Packed {
            codes: &[0; 8],
            ..SOUND
        },
        Packed {
            scales: Floats::F32(&[1.0; 3]),
            ..SOUND
        },
        Packed {
            scales: Floats::F32(&[1.0; 5]),
            ..SOUND
        },
        Packed {
            biases: Floats::F32(&[1.0; 2]),
            ..SOUND
        },
        Packed {
            biases: Floats::F16(&[half::f16::ONE; 4]),
            ..SOUND
        },
    ];
    for (at, packed) in damaged.into_iter().enumerate() {
        let (x, matrix) = (vec![1.0; packed.columns], Matrix::Packed(packed));
        let message = refusal(|| product(Level::best(), &x, &matrix));
        assert!(
            message.contains("no loop") || message.contains("words, scales"),
            "{at}: {message}"
        );
    }
}

#[test]
fn what_stands_between_two_products_is_of_one_length() {
    let turn = |pairs| Turn {
        cos: vec![1.0; pairs],
        sin: vec![0.0; pairs],
    };
    refusal(|| add(Level::best(), &mut [1.0; 9], &[1.0; 8]));
    refusal(|| add(Level::best(), &mut [1.0; 8], &[1.0; 9]));
    refusal(|| swiglu(Level::best(), &mut [1.0; 9], &[1.0; 8]));
    for neighbours in [true, false] {
        refusal(|| rotate(&mut [1.0; 9], &turn(5), neighbours));
    }
}

#[test]
fn heads_of_other_lengths_are_not_attended_to() {
    let numbers = [1.0_f32; 64];
    let attend_to = |q: usize, keys: &[usize], values: &[usize], queries, lengths: &[usize]| {
        let heads = |lengths: &[usize]| {
            lengths
                .iter()
                .map(|length| Floats::F32(&numbers[..*length]))
                .collect()
        };
        let call = Attention {
            q: &numbers[..q],
            keys: heads(keys),
            values: heads(values),
            head_dim: 4,
            queries,
            scale: 1.0,
            lengths,
            causal: true,
            window: None,
        };
        attention(Level::best(), &call)
    };
    let attend = |q, keys: &[usize], values: &[usize], queries| {
        let positions = keys.first().map_or(0, |length| length / 4);
        attend_to(q, keys, values, queries, &[positions])
    };
    assert_eq!(attend(16, &[12, 12], &[12, 12], 2), [1.0; 16]);
    refusal(|| attend(16, &[12, 12], &[12], 2));
    refusal(|| attend(16, &[12, 12], &[12, 8], 2));
    refusal(|| attend(16, &[12, 8], &[12, 12], 2));
    refusal(|| attend(16, &[11, 11], &[11, 11], 2));
    refusal(|| attend(12, &[12, 12], &[12, 12], 2));
    refusal(|| attend(16, &[], &[], 2));
    assert!(refusal(|| attend(32, &[12, 12], &[12, 12], 4)).contains("4 queries at the end of 3"));
    let two = |lengths| attend_to(16, &[12, 12], &[12, 12], 2, lengths);
    assert_eq!(two(&[2, 3]), [1.0; 16]);
    assert!(refusal(|| two(&[3, 4])).contains("4 positions in a cache of 3"));
    assert!(refusal(|| two(&[1, 3])).contains("2 queries at the end of 1"));
    refusal(|| two(&[]));
    refusal(|| two(&[3, 3, 3]));
}

#[test]
fn a_matrix_of_small_floats_with_a_part_too_short_or_too_long_is_refused() {
    let damaged = [
        SmallFloats {
            group_size: 64,
            ..SMALL
        },
        SmallFloats {
            group_size: 16,
            ..SMALL
        },
        SmallFloats {
            columns: 96,
            ..SMALL
        },
        SmallFloats {
            columns: 40,
            ..SMALL
        },
        SmallFloats {
            codes: &[0; 17],
            ..SMALL
        },
        SmallFloats {
            scales: &[0; 3],
            ..SMALL
        },
    ];
    for (at, floats) in damaged.into_iter().enumerate() {
        let (x, matrix) = (vec![1.0; floats.columns], Matrix::SmallFloats(floats));
        let message = refusal(|| product(Level::best(), &x, &matrix));
        assert!(
            message.contains("no loop") || message.contains("words and scales"),
            "{at}: {message}"
        );
    }
}
