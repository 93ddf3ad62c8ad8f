//! Types that are MLX's affine quantization in another order.

use super::{Form, GROUP, Kind, float};
use crate::Repacked;

pub(super) fn repack<'b>(
    kind: Kind,
    blocks: impl ExactSizeIterator<Item = &'b [u8]>,
) -> Option<Repacked> {
    let Form::Affine { bits, .. } = kind.form() else {
        return None;
    };
    let groups = blocks.len() * kind.numbers() / GROUP;
    let mut repacked = Repacked {
        codes: Vec::with_capacity(groups * bits),
        scales: Vec::with_capacity(groups),
        biases: Vec::with_capacity(groups),
    };
    for block in blocks {
        for index in 0..kind.numbers() / GROUP {
            let group = group(kind, block, index);
            push_codes(&mut repacked.codes, &group.codes, bits);
            repacked.scales.push(group.scale);
            repacked.biases.push(group.bias);
        }
    }
    Some(repacked)
}

/// 32 codes; a number is `scale · code + bias`.
pub(super) struct Group {
    pub(super) codes: [u8; GROUP],
    pub(super) scale: f32,
    pub(super) bias: f32,
}

/// The group `index` of a block of an affine type.
pub(super) fn group(kind: Kind, block: &[u8], index: usize) -> Group {
    match kind {
        Kind::Q4_0 => symmetric(block, halves(&block[2..]), 8.0),
        Kind::Q4_1 => with_minimum(block, halves(&block[4..])),
        Kind::Q5_0 => symmetric(
            block,
            with_fifth_bits(halves(&block[6..]), &block[2..]),
            16.0,
        ),
        Kind::Q5_1 => with_minimum(block, with_fifth_bits(halves(&block[8..]), &block[4..])),
        // Codes with a sign: the highest bit turned over counts them from −128 on.
        Kind::Q8_0 => symmetric(block, std::array::from_fn(|at| block[2 + at] ^ 0x80), 128.0),
        Kind::Q4_K => of_256(block, quarter(&block[16..], index), index),
        Kind::Q5_K => {
            let mut codes = quarter(&block[48..], index);
            for (code, high) in codes.iter_mut().zip(&block[16..48]) {
                *code |= (high >> index & 1) << 4;
            }
            of_256(block, codes, index)
        }
        other => unreachable!("{other:?} has no affine groups"),
    }
}

/// `d · (code − zero)`
fn symmetric(block: &[u8], codes: [u8; GROUP], zero: f32) -> Group {
    let scale = float(block, 0);
    let bias = -zero * scale;
    Group { codes, scale, bias }
}

/// `d · code + m`
fn with_minimum(block: &[u8], codes: [u8; GROUP]) -> Group {
    let (scale, bias) = (float(block, 0), float(block, 2));
    Group { codes, scale, bias }
}

/// `d · sc · code − dmin · m`, with sc and m of 6 bits.
fn of_256(block: &[u8], codes: [u8; GROUP], index: usize) -> Group {
    let (scale, minimum) = six_bits(&block[4..16], index);
    Group {
        codes,
        scale: float(block, 0) * f32::from(scale),
        bias: -(float(block, 2) * f32::from(minimum)),
    }
}

/// Two codes in a byte that are 16 apart.
fn halves(bytes: &[u8]) -> [u8; GROUP] {
    std::array::from_fn(|at| bytes[at % 16] >> (4 * (at / 16)) & 15)
}

/// Of 128 bytes, 32 with the codes of two groups each: the low halves are of the first.
fn quarter(bytes: &[u8], index: usize) -> [u8; GROUP] {
    let bytes = &bytes[32 * (index / 2)..][..32];
    std::array::from_fn(|at| bytes[at] >> (4 * (index % 2)) & 15)
}

/// Bit i of the 32 in `high` is the highest of code i.
fn with_fifth_bits(mut codes: [u8; GROUP], high: &[u8]) -> [u8; GROUP] {
    for (at, code) in codes.iter_mut().enumerate() {
        *code |= (high[at / 8] >> (at % 8) & 1) << 4;
    }
    codes
}

/// Scale and minimum of the group `index` of 8. The last four have their high bits in the two that the
/// first eight bytes do not need.
fn six_bits(bytes: &[u8], index: usize) -> (u8, u8) {
    if index < 4 {
        return (bytes[index] & 63, bytes[index + 4] & 63);
    }
    let low = bytes[index + 4];
    (
        low & 15 | bytes[index - 4] >> 2 & 48,
        low >> 4 | bytes[index] >> 2 & 48,
    )
}

/// Appends 32 codes as `bits` words.
fn push_codes(words: &mut Vec<u32>, codes: &[u8; GROUP], bits: usize) {
    let (mut waiting, mut count) = (0u64, 0);
    for &code in codes {
        waiting |= u64::from(code) << count;
        count += bits;
        if count >= 32 {
            words.push(waiting as u32);
            waiting >>= 32;
            count -= 32;
        }
    }
}
