//! `RowMajor`: element `4j + i` of a row in bits `2i` of byte `j` of that row, code `w + 1`.
//!
//! The plain layout, for writing and inspecting weights: no block structure, and each row is a whole number of bytes.

/// Byte index and lowest bit of the code at (row, column).
pub(super) fn address(padded_k: usize, row: usize, column: usize) -> (usize, u32) {
    ((row * padded_k + column) / 4, 2 * (column % 4) as u32)
}

/// Packs rows of `k` weights, each row padded to whole bytes.
pub(super) fn pack_rows(rows: &[i8], k: usize, packed: &mut [u8]) {
    for (row, bytes) in rows
        .chunks_exact(k)
        .zip(packed.chunks_exact_mut(k.div_ceil(4)))
    {
        let (fours, rest) = row.as_chunks::<4>();
        for (byte, four) in bytes.iter_mut().zip(fours) {
            *byte = pack_byte(*four);
        }
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            bytes[fours.len()] = pack_byte(last);
        }
    }
}

/// The inverse of [`pack_rows`].
pub(super) fn unpack_rows(packed: &[u8], k: usize, rows: &mut [i8]) {
    for (row, bytes) in rows
        .chunks_exact_mut(k)
        .zip(packed.chunks_exact(k.div_ceil(4)))
    {
        for (weights, byte) in row.chunks_mut(4).zip(bytes) {
            for (i, weight) in weights.iter_mut().enumerate() {
                *weight = (byte >> (2 * i) & 3) as i8 - 1;
            }
        }
    }
}

fn pack_byte(weights: [i8; 4]) -> u8 {
    let code = weights.map(|w| (w + 1) as u8);
    code[0] | code[1] << 2 | code[2] << 4 | code[3] << 6
}
