//! The products that are measured.

/// Weights `[n, k]`: the layers of BitNet's 2B4T, 3B and 700M models, those of larger models, and powers of two.
pub const SHAPES: [(usize, usize); 13] = [
    (2560, 2560),
    (3840, 2560),
    (13_824, 2560),
    (2560, 6912),
    (3200, 3200),
    (4800, 3200),
    (3200, 10_240),
    (20_480, 3200),
    (55_296, 5120),
    (5120, 27_648),
    (8192, 32_768),
    (4096, 16_384),
    (1024, 4096),
];

/// Bytes that this project's layers keep of a weight matrix `[n, k]`: 2 bits a weight, padded to tiles of 16 x 128, and an f32 scale
/// a row.
pub fn packed_bytes(n: usize, k: usize) -> usize {
    n.next_multiple_of(16) * k.next_multiple_of(128) / 4 + n * size_of::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_cuda::layout::Layout;

    #[test]
    fn packed_bytes_are_those_of_the_layout() {
        for (n, k) in SHAPES.into_iter().chain([(33, 300), (1, 1)]) {
            let layout = Layout::Tiled.packed_len(n, k).expect("a valid shape");
            assert_eq!(packed_bytes(n, k), layout + 4 * n);
        }
    }
}
