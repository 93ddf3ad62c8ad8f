//! AWQ's and GPTQ's matrices, written by their rules: codes and zeros must come out as they went in.
#![allow(clippy::unwrap_used)]

use repacking::columns::{CODES, Columns, Layout, repack};

const INPUTS: usize = 32;
const OUTPUTS: usize = 16;
const GROUPS: usize = 2;

/// A code or a zero that differs from its neighbours in both directions.
fn code(input: usize, output: usize) -> u32 {
    ((input * 7 + output * 5 + input / 8) % 16) as u32
}

fn scale(group: usize, output: usize) -> f32 {
    0.25 + group as f32 + output as f32 / 64.0
}

/// `values[row][column]` with the nibbles of eight columns in a word, in this order.
fn across(rows: usize, order: [usize; CODES], value: impl Fn(usize, usize) -> u32) -> Vec<u32> {
    let words = (0..rows).flat_map(|row| (0..OUTPUTS / CODES).map(move |word| (row, word)));
    words
        .map(|(row, word)| {
            let nibble =
                |(at, column): (usize, &usize)| value(row, word * CODES + column) << (4 * at);
            order.iter().enumerate().map(nibble).sum()
        })
        .collect()
}

/// AutoAWQ writes column `order[i]` of eight into nibble i.
const AWQ_ORDER: [usize; CODES] = [0, 2, 4, 6, 1, 3, 5, 7];
const PLAIN: [usize; CODES] = [0, 1, 2, 3, 4, 5, 6, 7];

/// What is stored in either layout, its zeros less `less`.
fn written(layout: Layout, less: u32) -> (Vec<u32>, Vec<u32>) {
    let zero = |group: usize, output: usize| code(group, output + 3).max(1) - less;
    match layout {
        Layout::Awq => (
            across(INPUTS, AWQ_ORDER, code),
            across(GROUPS, AWQ_ORDER, zero),
        ),
        Layout::Gptq { .. } => {
            let word = |row: usize, output: usize| -> u32 {
                (0..CODES)
                    .map(|at| code(row * CODES + at, output) << (4 * at))
                    .sum()
            };
            let rows = (0..INPUTS / CODES).flat_map(|row| (0..OUTPUTS).map(move |o| (row, o)));
            let codes = rows.map(|(row, output)| word(row, output)).collect();
            (codes, across(GROUPS, PLAIN, zero))
        }
    }
}

#[test]
fn both_layouts_come_out_as_the_same_rows() {
    let scales: Vec<f32> = (0..GROUPS)
        .flat_map(|group| (0..OUTPUTS).map(move |output| scale(group, output)))
        .collect();
    for (layout, less) in [
        (Layout::Awq, 0),
        (Layout::Gptq { add: 0 }, 0),
        (Layout::Gptq { add: 1 }, 1),
    ] {
        let (codes, zeros) = written(layout, less);
        for zeros in [Some(&zeros[..]), None] {
            let repacked = repack(&Columns {
                codes: &codes,
                zeros,
                scales: &scales,
                inputs: INPUTS,
                outputs: OUTPUTS,
                layout,
            });
            for output in 0..OUTPUTS {
                for input in 0..INPUTS {
                    let word = repacked.codes[output * INPUTS / CODES + input / CODES];
                    let found = word >> (4 * (input % CODES)) & 15;
                    assert_eq!(found, code(input, output), "{layout:?} [{output}, {input}]");
                }
                for group in 0..GROUPS {
                    let zero = zeros.map_or(8, |_| code(group, output + 3).max(1));
                    let (at, scale) = (output * GROUPS + group, scale(group, output));
                    assert_eq!(repacked.scales[at], scale, "{layout:?}");
                    assert_eq!(repacked.biases[at], -(zero as f32) * scale, "{layout:?}");
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "not of whole words")]
fn an_odd_number_of_outputs_is_a_mistake_of_the_caller() {
    repack(&Columns {
        codes: &[0; 4],
        zeros: None,
        scales: &[1.0; 4],
        inputs: 8,
        outputs: 4,
        layout: Layout::Awq,
    });
}
