//! Products on tensor cores, against exact integer sums.

use half::f16;

use crate::harness::{Arg, line};
use crate::{bytes_of, floats, random, run, words};

/// Small integers as `f16`: every sum is exact, in any order.
#[test]
fn halves() {
    for k in [16usize, 48] {
        let small = |count, seed| -> Vec<i32> {
            let values = random(count, seed);
            values
                .into_iter()
                .map(|bits| (bits >> 8) as i32 % 17 - 8)
                .collect()
        };
        let (a, b, c) = (small(16 * k, 1), small(8 * k, 2), small(128, 3));
        let half = |value: i32| f16::from_f32(value as f32).to_bits().to_le_bytes();
        let (mut da, mut db) = (bytes_of(&a, half), bytes_of(&b, half));
        let mut dc = bytes_of(&c, |value| (value as f32).to_le_bytes());
        run(
            include_str!("../cuda/mma_f16.ptx"),
            "mma_f16",
            line(32),
            vec![
                Arg::Bytes(&mut da),
                Arg::Bytes(&mut db),
                Arg::Bytes(&mut dc),
                Arg::U32(k as u32),
            ],
        );
        for (at, got) in floats(&dc).into_iter().enumerate() {
            let (row, column) = (at / 8, at % 8);
            let sum: i32 = (0..k).map(|i| a[row * k + i] * b[i * 8 + column]).sum();
            assert_eq!(
                got,
                (sum + c[at]) as f32,
                "k {k}, row {row}, column {column}"
            );
        }
    }
}

#[test]
fn bytes() {
    for k in [32usize, 128] {
        let values = |count, seed| -> Vec<i8> {
            random(count, seed)
                .into_iter()
                .map(|bits| (bits >> 11) as i8)
                .collect()
        };
        let (a, b) = (values(16 * k, 4), values(8 * k, 5));
        let [mut da, mut db] = [&a, &b].map(|values| bytes_of(values, i8::to_le_bytes));
        let mut dc = vec![0; 512];
        run(
            include_str!("../cuda/mma_s8.ptx"),
            "mma_s8",
            line(32),
            vec![
                Arg::Bytes(&mut da),
                Arg::Bytes(&mut db),
                Arg::Bytes(&mut dc),
                Arg::U32(k as u32),
            ],
        );
        for (at, got) in words(&dc).into_iter().enumerate() {
            let (row, column) = (at / 8, at % 8);
            let want: i32 = (0..k)
                .map(|i| i32::from(a[row * k + i]) * i32::from(b[column * k + i]))
                .sum();
            assert_eq!(got as i32, want, "k {k}, row {row}, column {column}");
        }
    }
}
