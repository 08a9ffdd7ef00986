//! What Microsoft's `bitlinear_int8xint2` computes equals its formula in f32, bit for bit, for every number of tokens.

use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{Int8xInt2, bitlinear_int8xint2};
use bitnet_cuda::reference::linear::{Shape, accumulate};
use half::bf16;
use integration_tests::{cast, device, drawn, floats, int8, poisoned, random, ternary};
use proptest::prelude::*;

fn check(device: &Device, random: &mut fastrand::Rng, shape: Shape, groups: usize) {
    let Shape { m, n, k } = shape;
    let (weights, values) = (ternary(random, n * k), int8(random, m * k));
    let positive = |values: Vec<f32>| values.iter().map(|s| s.abs() + 0.5).collect::<Vec<_>>();
    let token_scales: Vec<bf16> = cast(&positive(floats(random, m, 40.0)));
    let row_scales: Vec<bf16> = cast(&floats(random, groups, 0.05));
    let packed = PackedWeights::pack(Layout::Ladder, &weights, n, k).unwrap();

    let buffer = |values: &[bf16]| Buffer::from_slice(device, values).unwrap();
    let mut output = poisoned::<bf16>(device, m * n);
    let operands = Int8xInt2 {
        activations: &Buffer::from_slice(device, &values).unwrap(),
        weights: &Buffer::from_slice(device, packed.bytes()).unwrap(),
        activation_scale: &buffer(&token_scales),
        row_scale: &buffer(&row_scales),
        output: &mut output,
    };
    bitlinear_int8xint2(&device.default_stream(), operands, m, n, k).unwrap();

    let sums = accumulate(&values, &weights, shape).unwrap();
    let expected = sums.iter().enumerate().map(|(index, &sum)| {
        let (token, row) = (index / n, index % n);
        let scale = row_scales[row / (n / groups)].to_f32();
        bf16::from_f32(sum as f32 / token_scales[token].to_f32() * scale).to_bits()
    });
    let actual: Vec<u16> = output
        .to_vec()
        .unwrap()
        .iter()
        .map(|y| y.to_bits())
        .collect();
    assert_eq!(actual, expected.collect::<Vec<_>>(), "{shape:?}");
}

#[test]
fn every_number_of_tokens_and_a_pitch_that_is_padded() {
    let (device, mut random) = (device(), random());
    for m in [1, 2, 3, 7, 8, 9, 16, 17, 31] {
        for (n, k, groups) in [(48, 128, 3), (33, 100, 1), (64, 2560, 2), (16, 32, 16)] {
            check(&device, &mut random, Shape { m, n, k }, groups);
        }
    }
}

/// Sums long enough for each number of warps that a variant has, with a part of a step at the end.
#[test]
fn every_length_of_a_row() {
    let (device, mut random) = (device(), random());
    for k in [288, 544, 1056, 2080, 4128, 8224, 32_800] {
        for m in [1, 9] {
            check(&device, &mut random, Shape { m, n: 48, k }, 1);
        }
    }
}

#[test]
fn random_shapes() {
    let device = device();
    drawn::runner(32)
        .run(
            &(
                1..20_usize,
                1..40_usize,
                1..4_usize,
                1..700_usize,
                any::<u64>(),
            ),
            |(m, rows, groups, k, seed)| {
                let shape = Shape {
                    m,
                    n: rows * groups,
                    k,
                };
                check(&device, &mut fastrand::Rng::with_seed(seed), shape, groups);
                Ok(())
            },
        )
        .unwrap();
}
