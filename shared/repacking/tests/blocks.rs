//! Blocks of random bytes against the numbers that `gguf`, llama.cpp's own Python package, makes of them.
#![allow(clippy::unwrap_used)]

use repacking::blocks::{Form, GROUP, Kind, repack, unpack};
use repacking::{Repacked, to_bf16, to_f16};

const FIXTURE: &[u8] = include_bytes!("../../../assets/fixtures/ops/gguf-blocks.bin");

/// Numbers of each type.
const NUMBERS: usize = 512;

/// Each type with blocks and their numbers.
fn cases() -> Vec<(Kind, &'static [u8], Vec<f32>)> {
    let mut rest = FIXTURE;
    let mut next = |bytes: usize| {
        let (taken, left) = rest.split_at(bytes);
        rest = left;
        taken
    };
    let cases = Kind::ALL.map(|kind| {
        let blocks = next(NUMBERS / kind.numbers() * kind.bytes());
        let (numbers, _) = next(4 * NUMBERS).as_chunks();
        let numbers = numbers.iter().copied().map(f32::from_le_bytes).collect();
        (kind, blocks, numbers)
    });
    assert!(rest.is_empty());
    cases.to_vec()
}

/// Code `at` of a string of bits.
fn code(repacked: &Repacked, bits: usize, at: usize) -> u32 {
    (0..bits)
        .map(|bit| {
            let bit_at = at * bits + bit;
            (repacked.codes[bit_at / 32] >> (bit_at % 32) & 1) << bit
        })
        .sum()
}

#[test]
fn every_type_gives_the_numbers_of_its_own_package_to_the_last_bit() {
    for (kind, blocks, numbers) in cases() {
        assert_eq!(unpack(kind, blocks), numbers, "{kind:?}");
    }
}

#[test]
fn repacked_codes_stand_for_the_same_numbers() {
    let mut affine = 0;
    for (kind, blocks, numbers) in cases() {
        let Form::Affine {
            bits,
            exact_in_16_bits,
        } = kind.form()
        else {
            assert!(repack(kind, blocks).is_none(), "{kind:?}");
            continue;
        };
        affine += 1;
        let repacked = repack(kind, blocks).unwrap();
        assert_eq!(repacked.codes.len() * 32, numbers.len() * bits, "{kind:?}");
        for (at, number) in numbers.iter().enumerate() {
            let (scale, bias) = (repacked.scales[at / GROUP], repacked.biases[at / GROUP]);
            let found = scale * code(&repacked, bits, at) as f32 + bias;
            assert_eq!(found, *number, "{kind:?}, number {at}");
        }
        for floats in [repacked.scales, repacked.biases] {
            let rounded = to_f16(&floats).unwrap();
            let same = floats
                .iter()
                .zip(rounded)
                .all(|(float, rounded)| rounded.to_f32() == *float);
            assert_eq!(same, exact_in_16_bits, "{kind:?}");
        }
    }
    assert_eq!(affine, 7);
}

#[test]
fn numbers_beyond_the_range_of_16_bits_are_not_rounded_to_infinity() {
    assert!(to_f16(&[65_504.0, -65_504.0, f32::INFINITY]).is_some());
    assert!(to_f16(&[1.0, 65_520.0]).is_none());
    let wide = to_bf16(&[1e30])[0].to_f32();
    assert!((wide / 1e30 - 1.0).abs() < 1.0 / 256.0);
}

#[test]
#[should_panic(expected = "not whole blocks of Q4_K")]
fn half_a_block_is_a_mistake_of_the_caller() {
    unpack(Kind::Q4_K, &[0; 143]);
}
