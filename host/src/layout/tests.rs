//! Layouts against the formulas of their docs, and against each other. The golden bytes are compared in the
//! integration tests.

use proptest::prelude::*;

use super::{Layout, LayoutError, MAX_K, PackedWeights};

/// Tiled bytes from the sentence that defines them, read from the byte's side: which four rows does it hold?
fn tiled_by_definition(weights: &[i8], n: usize, k: usize) -> Vec<u8> {
    let at = |row: usize, column: usize| {
        let inside = row < n && column < k;
        if inside { weights[row * k + column] } else { 0 }
    };
    let (row_tiles, k_blocks) = (n.div_ceil(16), k.div_ceil(128));
    let mut bytes = Vec::new();
    for row_tile in 0..row_tiles {
        for k_block in 0..k_blocks {
            for offset in 0..512 {
                let (group, column) = (offset >> 7, 128 * k_block + (offset & 127));
                let codes = (0..4).map(|slot| {
                    (at(16 * row_tile + 4 * group + slot, column) + 1) as u8 * 4_u8.pow(slot as u32)
                });
                bytes.push(codes.sum());
            }
        }
    }
    bytes
}

/// Shapes around every padding boundary, and weights to fill them.
fn matrix() -> impl Strategy<Value = (usize, usize, Vec<i8>)> {
    let n = prop_oneof![1..=50_usize, Just(16), Just(64)];
    let k = prop_oneof![1..=300_usize, Just(32), Just(128), Just(256)];
    (n, k).prop_flat_map(|(n, k)| {
        let weights = prop::collection::vec(-1..=1_i8, n * k);
        (Just(n), Just(k), weights)
    })
}

proptest! {
    #[test]
    fn every_pair_of_layouts_converts_without_loss((n, k, weights) in matrix()) {
        for from in Layout::ALL {
            let packed = PackedWeights::pack(from, &weights, n, k).unwrap();
            prop_assert_eq!(packed.bytes().len(), from.packed_len(n, k).unwrap());
            prop_assert_eq!(packed.unpack(), weights.as_slice());
            for to in Layout::ALL {
                let converted = packed.convert(to).unwrap();
                prop_assert_eq!(&converted, &PackedWeights::pack(to, &weights, n, k).unwrap());
                let bytes = converted.into_bytes();
                let checked = PackedWeights::from_bytes(to, bytes, n, k).unwrap();
                prop_assert_eq!(checked.convert(from).unwrap(), packed.clone());
            }
        }
    }

    /// Rows that were cut anywhere and packed apart, in any layouts, are those that were packed together.
    #[test]
    fn parts_of_a_matrix_become_the_whole((n, k, weights) in matrix(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4)) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(n) + 1).chain([n]).collect();
        ends.sort_unstable();
        ends.dedup();
        let starts = [0].into_iter().chain(ends.iter().copied());
        let parts: Vec<PackedWeights> = starts.zip(&ends).zip(Layout::ALL.into_iter().cycle()).map(|((start, &end), layout)| {
            PackedWeights::pack(layout, &weights[start * k..end * k], end - start, k).unwrap()
        }).collect();
        let parts: Vec<&PackedWeights> = parts.iter().collect();
        for layout in Layout::ALL {
            let whole = PackedWeights::pack(layout, &weights, n, k).unwrap();
            prop_assert_eq!(PackedWeights::concat(layout, &parts).unwrap(), whole);
        }
    }

    #[test]
    fn tiled_is_what_its_docs_say((n, k, weights) in matrix()) {
        let packed = PackedWeights::pack(Layout::Tiled, &weights, n, k).unwrap();
        prop_assert_eq!(packed.bytes(), tiled_by_definition(&weights, n, k));
    }

    /// Writing the unused code over any one field is found, and named by its place.
    #[test]
    fn a_damaged_code_is_named((n, k, weights) in matrix(), place in any::<prop::sample::Index>()) {
        for layout in Layout::ALL {
            let unused = if layout == Layout::Ladder { 0 } else { 3 };
            let (row, column) = { let index = place.index(n * k); (index / k, index % k) };
            // The byte and field that hold a weight are those that change with it.
            let mut other = weights.clone();
            other[row * k + column] = if weights[row * k + column] == 0 { 1 } else { 0 };
            let mut bytes = PackedWeights::pack(layout, &weights, n, k).unwrap().into_bytes();
            let changed = PackedWeights::pack(layout, &other, n, k).unwrap().into_bytes();
            let byte = (0..bytes.len()).find(|&i| bytes[i] != changed[i]).unwrap();
            let shift = (bytes[byte] ^ changed[byte]).trailing_zeros() & !1;
            bytes[byte] = bytes[byte] & !(3 << shift) | unused << shift;
            prop_assert_eq!(
                PackedWeights::from_bytes(layout, bytes, n, k),
                Err(LayoutError::InvalidCode { layout, code: unused, row, column })
            );
        }
    }
}

/// More tiles than threads, so that a thread uses its rows again, and a last tile of one row.
#[test]
fn many_tiles_convert_as_few_do() {
    let (n, k) = (16 * 300 + 1, 5);
    let weights = vec![1; n * k];
    for from in Layout::ALL {
        let packed = PackedWeights::pack(from, &weights, n, k).unwrap();
        for to in Layout::ALL {
            assert_eq!(
                packed.convert(to).unwrap(),
                PackedWeights::pack(to, &weights, n, k).unwrap(),
                "{from} to {to}"
            );
        }
    }
}

#[test]
fn a_value_that_is_not_ternary_is_named() {
    for value in [i8::MIN, -2, 2, i8::MAX] {
        let mut weights = vec![1; 7 * 33];
        weights[3 * 33 + 5] = value;
        weights[6 * 33] = value;
        for layout in Layout::ALL {
            assert_eq!(
                PackedWeights::pack(layout, &weights, 7, 33),
                Err(LayoutError::NotTernary {
                    value,
                    row: 3,
                    column: 5
                })
            );
        }
    }
}

#[test]
fn padding_other_than_weight_zero_is_named() {
    // One row of three weights: the fourth field of the only byte is padding.
    let packed = PackedWeights::from_bytes(Layout::RowMajor, vec![0b10_01_00_10], 1, 3);
    let error = LayoutError::PaddingNotZero {
        layout: Layout::RowMajor,
        n: 1,
        k: 3,
        code: 2,
        zero: 1,
        row: 0,
        column: 3,
    };
    assert_eq!(packed, Err(error));

    // A single weight: row 1 is padding; it begins with Ladder's second word, and in bits 2 and 3 of Tiled's first byte.
    for (layout, byte, shift, zero, code) in
        [(Layout::Ladder, 4, 0, 2, 1), (Layout::Tiled, 0, 2, 1, 2)]
    {
        let mut bytes = PackedWeights::pack(layout, &[1], 1, 1)
            .unwrap()
            .into_bytes();
        assert_eq!(bytes[byte] >> shift & 3, zero);
        bytes[byte] = bytes[byte] & !(3 << shift) | code << shift;
        let (row, column) = (1, 0);
        assert_eq!(
            PackedWeights::from_bytes(layout, bytes, 1, 1),
            Err(LayoutError::PaddingNotZero {
                layout,
                n: 1,
                k: 1,
                code,
                zero,
                row,
                column
            })
        );
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    for layout in Layout::ALL {
        for (n, k) in [(0, 8), (8, 0), (0, 0)] {
            let zero = LayoutError::ZeroSize { n, k };
            assert_eq!(layout.packed_len(n, k), Err(zero.clone()));
            assert_eq!(PackedWeights::pack(layout, &[], n, k), Err(zero.clone()));
            assert_eq!(PackedWeights::from_bytes(layout, vec![], n, k), Err(zero));
        }
        let k = MAX_K + 1;
        assert_eq!(layout.packed_len(1, k), Err(LayoutError::KTooLarge { k }));
        assert!(layout.packed_len(1, MAX_K).is_ok());
        for n in [
            usize::MAX,
            isize::MAX as usize / 2,
            isize::MAX as usize / 128 + 1,
        ] {
            assert_eq!(
                layout.packed_len(n, 128),
                Err(LayoutError::SizeOverflow { n, k: 128 })
            );
        }
        assert_eq!(
            PackedWeights::pack(layout, &[0; 5], 2, 3),
            Err(LayoutError::WrongWeightCount {
                n: 2,
                k: 3,
                expected: 6,
                actual: 5
            })
        );
        let expected = layout.packed_len(2, 3).unwrap();
        for actual in [0, expected - 1, expected + 1] {
            assert_eq!(
                PackedWeights::from_bytes(layout, vec![0x55; actual], 2, 3),
                Err(LayoutError::WrongByteCount {
                    layout,
                    n: 2,
                    k: 3,
                    expected,
                    actual
                })
            );
        }
    }
}

#[test]
fn the_longest_row_cannot_overflow_and_a_longer_one_could() {
    let largest_product = 128_i64;
    assert!(MAX_K as i64 * largest_product <= i64::from(i32::MAX));
    assert!((MAX_K as i64 + 1) * largest_product > i64::from(i32::MAX));
}

#[test]
fn errors_name_the_place_and_the_fix() {
    let damaged = PackedWeights::from_bytes(Layout::Ladder, vec![0; 128], 16, 32).unwrap_err();
    assert_eq!(
        damaged.to_string(),
        "code 0 at row 0, column 0 stands for no weight in Ladder: \
         the bytes are damaged or in another layout"
    );
    assert_eq!(
        PackedWeights::from_transformers(Layout::Tiled, &[0x55], 1, 2)
            .unwrap_err()
            .to_string(),
        "1 bytes given for a matrix of 4 x 2 as transformers packs it: pass 2, one for four weights"
    );
    let part = |k| PackedWeights::pack(Layout::RowMajor, &vec![1; k], 1, k).unwrap();
    assert_eq!(
        PackedWeights::concat(Layout::Tiled, &[&part(3), &part(3), &part(2)])
            .unwrap_err()
            .to_string(),
        "matrix 2 has k = 2, but matrix 0 has 3: only layers with the same input can be one"
    );
    assert_eq!(
        PackedWeights::concat(Layout::Tiled, &[]),
        Err(LayoutError::ZeroSize { n: 0, k: 0 })
    );
    let long = Layout::Tiled
        .packed_len(1, MAX_K + 1)
        .unwrap_err()
        .to_string();
    assert!(
        long.contains("16777216") && long.contains("16777215"),
        "{long}"
    );
}
