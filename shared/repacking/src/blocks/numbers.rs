//! Blocks → numbers, in f32.

use super::{GROUP, Kind, affine, float};

/// What the codes of IQ4_NL and IQ4_XS stand for: finer steps where a normal distribution has more
/// numbers.
const TABLE: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

pub(super) fn unpack(kind: Kind, block: &[u8], numbers: &mut [f32]) {
    match kind {
        Kind::Q2_K => q2_k(block, numbers),
        Kind::Q3_K => q3_k(block, numbers),
        Kind::Q6_K => q6_k(block, numbers),
        Kind::IQ4_NL => entries(float(block, 0), &block[2..], numbers),
        Kind::IQ4_XS => iq4_xs(block, numbers),
        affine => {
            for (index, numbers) in numbers.chunks_exact_mut(GROUP).enumerate() {
                let group = affine::group(affine, block, index);
                for (number, code) in numbers.iter_mut().zip(group.codes) {
                    *number = group.scale * f32::from(code) + group.bias;
                }
            }
        }
    }
}

/// Number `at` of 256 has two bits in byte `at % 32` of its half.
fn two_bits(bytes: &[u8], at: usize) -> u8 {
    bytes[32 * (at / 128) + at % 32] >> (2 * (at % 128 / 32)) & 3
}

fn q2_k(block: &[u8], numbers: &mut [f32]) {
    let (d, minimum) = (float(block, 80), float(block, 82));
    for (at, number) in numbers.iter_mut().enumerate() {
        let scales = block[at / 16];
        let (scale, bias) = (d * f32::from(scales & 15), minimum * f32::from(scales >> 4));
        *number = scale * f32::from(two_bits(&block[16..80], at)) - bias;
    }
}

fn q3_k(block: &[u8], numbers: &mut [f32]) {
    let d = float(block, 108);
    let scales = &block[96..108];
    for (at, number) in numbers.iter_mut().enumerate() {
        let group = at / 16;
        let low = scales[group % 8] >> (4 * (group / 8)) & 15;
        let high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        let scale = d * (f32::from(low | high << 4) - 32.0);
        // The third bit says that nothing is taken away.
        let third = block[at % 32] >> (at / 32) & 1;
        let code = f32::from(two_bits(&block[32..96], at)) - 4.0 * f32::from(1 - third);
        *number = scale * code;
    }
}

fn q6_k(block: &[u8], numbers: &mut [f32]) {
    let d = float(block, 208);
    for (at, number) in numbers.iter_mut().enumerate() {
        let (half, within) = (at / 128, at % 128);
        let low = block[64 * half + within % 64] >> (4 * (within / 64)) & 15;
        let high = two_bits(&block[128..192], at);
        let scale = d * f32::from(block[192 + at / 16] as i8);
        *number = scale * (f32::from(low | high << 4) - 32.0);
    }
}

/// 32 numbers, two in a byte that are 16 apart.
fn entries(scale: f32, bytes: &[u8], numbers: &mut [f32]) {
    for (at, number) in numbers.iter_mut().enumerate() {
        let code = bytes[at % 16] >> (4 * (at / 16)) & 15;
        *number = scale * f32::from(TABLE[usize::from(code)]);
    }
}

fn iq4_xs(block: &[u8], numbers: &mut [f32]) {
    let d = float(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (group, numbers) in numbers.chunks_exact_mut(GROUP).enumerate() {
        let low = block[4 + group / 2] >> (4 * (group % 2)) & 15;
        let scale = low | ((high >> (2 * group) & 3) as u8) << 4;
        let scale = d * (f32::from(scale) - 32.0);
        entries(scale, &block[8 + 16 * group..], numbers);
    }
}
