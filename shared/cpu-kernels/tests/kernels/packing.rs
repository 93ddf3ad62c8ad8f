//! Codes into words, as MLX's documentation describes it.

/// Rows of `columns` codes, each row one string of bits, the lowest bit of the first code first.
pub(crate) fn pack(codes: &[u32], columns: usize, bits: usize) -> Vec<u32> {
    codes
        .chunks_exact(columns)
        .flat_map(|row| pack_row(row, bits))
        .collect()
}

fn pack_row(codes: &[u32], bits: usize) -> Vec<u32> {
    let mut bytes = vec![0_u8; codes.len() * bits / 8];
    for (at, code) in codes.iter().enumerate() {
        for bit in 0..bits {
            let place = at * bits + bit;
            bytes[place / 8] |= ((code >> bit & 1) as u8) << (place % 8);
        }
    }
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

#[test]
fn the_packer_of_these_tests_writes_words_known_from_mlx() {
    // 4 bits: the codes are the hexadecimal digits, the last first.
    let codes = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(pack(&codes, 8, 4), [0x8765_4321]);
    // 3 bits: the eleventh code lies in two words.
    let mut codes = [0; 32];
    codes[10] = 7;
    assert_eq!(pack(&codes, 32, 3), [0xc000_0000, 1, 0]);
}
