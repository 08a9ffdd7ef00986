//! Arithmetic on `half2` and `bf16`, with exact sums and products rounded by the `half` crate.

use half::{bf16, f16};

use crate::harness::{Arg, line};
use crate::{bytes_of, floats, random, run, words};
use ptx_emulator::LaunchConfig;

/// Finite numbers from about 2^-6 to 2^6, whose products and sums are exact in `f64`.
fn halves(count: usize, seed: u32) -> Vec<f16> {
    random(count, seed)
        .into_iter()
        .map(|bits| f16::from_bits(0x2400 + (bits as u16 & 0x8000) + (bits >> 16) as u16 % 0x3000))
        .collect()
}

fn brains(count: usize, seed: u32) -> Vec<bf16> {
    random(count, seed)
        .into_iter()
        .map(|bits| bf16::from_bits(0x3c80 + (bits as u16 & 0x8000) + (bits >> 16) as u16 % 0x600))
        .collect()
}

fn round(x: f64) -> f16 {
    f16::from_f64(x)
}

#[test]
fn half2() {
    let n = 100;
    let (a, b, c) = (halves(2 * n, 1), halves(2 * n, 2), halves(2 * n, 3));
    let [mut da, mut db, mut dc] =
        [&a, &b, &c].map(|values| bytes_of(values, |value: f16| value.to_bits().to_le_bytes()));
    let mut out = vec![0; 28 * n];
    run(
        include_str!("../cuda/half2.ptx"),
        "half2_arithmetic",
        LaunchConfig {
            grid: [2, 1, 1],
            ..line(64)
        },
        vec![
            Arg::Bytes(&mut da),
            Arg::Bytes(&mut db),
            Arg::Bytes(&mut dc),
            Arg::Bytes(&mut out),
            Arg::U32(n as u32),
        ],
    );
    let got: Vec<f16> = out
        .chunks_exact(2)
        .map(|chunk| f16::from_le_bytes(chunk.try_into().unwrap()))
        .collect();
    for i in 0..n {
        for lane in 0..2 {
            let [x, y, z] = [&a, &b, &c].map(|values| values[2 * i + lane].to_f64());
            let smaller = x.min(y);
            let want = [
                round(x * y + z),
                round(round(x * y).to_f64() + z),
                round((x - y).clamp(0.0, 1.0)),
                round(smaller.max(z)),
                round(if x > y { 1.0 } else { 0.0 }),
                if lane == 0 {
                    f16::from_f32(x as f32 * 1.5)
                } else {
                    f16::from_f32(y as f32 + 0.25)
                },
                round((-x * y + z.abs()).max(0.0)),
            ];
            for (at, want) in want.into_iter().enumerate() {
                let got = got[2 * (7 * i + at) + lane];
                assert_eq!(got, want, "element {i}.{lane}, result {at}: {x} {y} {z}");
            }
        }
    }
}

#[test]
fn bf16_dot_products() {
    let n = 50;
    let (a, b) = (brains(8 * n, 4), brains(8 * n, 5));
    let [mut da, mut db] =
        [&a, &b].map(|values| bytes_of(values, |value: bf16| value.to_bits().to_le_bytes()));
    let (mut rough, mut fine) = (vec![0; 2 * n], vec![0; 4 * n]);
    run(
        include_str!("../cuda/bf16.ptx"),
        "bf16_dot",
        line(64),
        vec![
            Arg::Bytes(&mut da),
            Arg::Bytes(&mut db),
            Arg::Bytes(&mut rough),
            Arg::Bytes(&mut fine),
            Arg::U32(n as u32),
        ],
    );
    for (row, exact) in floats(&fine).into_iter().enumerate() {
        let pairs = || a[8 * row..][..8].iter().zip(&b[8 * row..][..8]);
        let want = pairs().fold(0.0, |sum: f32, (x, y)| x.to_f32().mul_add(y.to_f32(), sum));
        assert_eq!(exact, want);
        // Each step is exact in `f64`, and rounded once.
        let want = pairs().fold(bf16::ZERO, |sum, (x, y)| {
            bf16::from_f64(x.to_f64() * y.to_f64() + sum.to_f64())
        });
        let want = bf16::from_f64(want.to_f64() * 0.5);
        let got = bf16::from_le_bytes(rough[2 * row..][..2].try_into().unwrap());
        assert_eq!(got, want, "row {row}");
    }
}

#[test]
fn bf16_pairs() {
    let n = 64;
    let (a, b) = (brains(2 * n, 6), brains(2 * n, 7));
    let [mut da, mut db] =
        [&a, &b].map(|values| bytes_of(values, |value: bf16| value.to_bits().to_le_bytes()));
    let mut out = vec![0; 12 * n];
    run(
        include_str!("../cuda/bf16.ptx"),
        "bf16_pairs",
        line(64),
        vec![
            Arg::Bytes(&mut da),
            Arg::Bytes(&mut db),
            Arg::Bytes(&mut out),
            Arg::U32(n as u32),
        ],
    );
    for (i, words) in words(&out).chunks_exact(3).enumerate() {
        for lane in 0..2 {
            let (x, y) = (a[2 * i + lane], b[2 * i + lane]);
            let got = |at: usize| bf16::from_bits((words[at] >> (16 * lane)) as u16);
            let product = bf16::from_f64(x.to_f64() * y.to_f64());
            assert_eq!(
                got(0),
                bf16::from_f64(product.to_f64() + x.to_f64()),
                "{x} {y}"
            );
            assert_eq!(got(1).to_f64(), x.to_f64().min(y.to_f64().abs()));
            let third = (if lane == 0 { x } else { y }).to_f32() / 3.0;
            assert_eq!(got(2), bf16::from_f32(third));
        }
    }
}

/// Numbers of every length, so that quotients have every number of digits.
#[test]
fn division_of_128_bits() {
    let n = 500;
    let numbers = |seed: u32| -> Vec<u128> {
        random(5 * n, seed)
            .chunks_exact(5)
            .map(|words| {
                let bits = words[..4]
                    .iter()
                    .fold(0, |bits, &word| bits << 32 | u128::from(word));
                (bits >> (words[4] % 128)).max(1)
            })
            .collect()
    };
    let (a, b) = (numbers(7), numbers(8));
    let [mut da, mut db] = [&a, &b].map(|values| bytes_of(values, u128::to_le_bytes));
    let [mut quotients, mut remainders] = [vec![0; 16 * n], vec![0; 16 * n]];
    run(
        include_str!("../cuda/division.ptx"),
        "divide",
        LaunchConfig {
            grid: [8, 1, 1],
            ..line(64)
        },
        vec![
            Arg::Bytes(&mut da),
            Arg::Bytes(&mut db),
            Arg::Bytes(&mut quotients),
            Arg::Bytes(&mut remainders),
            Arg::U32(n as u32),
        ],
    );
    let pairs = a.iter().zip(&b);
    let want: Vec<_> = pairs.clone().map(|(a, b)| a / b).collect();
    assert_eq!(quotients, bytes_of(&want, u128::to_le_bytes));
    let want: Vec<_> = pairs.map(|(a, b)| a % b).collect();
    assert_eq!(remainders, bytes_of(&want, u128::to_le_bytes));
}
