//! What Microsoft's `bitlinear_int8xint2` computes equals its formula in f32, bit for bit, for every number of tokens.

use bitnet_cuda::device::{Buffer, Device, DeviceError, Graph, Stream};
use bitnet_cuda::launch::{self, Int8xInt2Sizes, LaunchError};
use bitnet_cuda::layout::{Layout, MAX_K, PackedWeights};
use bitnet_cuda::ops::{Int8xInt2, OpError, bitlinear_int8xint2};
use bitnet_cuda::reference::linear::{Shape, accumulate};
use half::bf16;
use integration_tests::{cast, device, drawn, floats, int8, poisoned, random, ternary};
use proptest::prelude::*;

fn check(device: &Device, random: &mut fastrand::Rng, shape: Shape, groups: usize) {
    let Shape { m, n, k } = shape;
    let (weights, values) = (ternary(random, n * k), int8(random, m * k));
    check_of(device, random, shape, groups, &weights, &values);
}

fn check_of(
    device: &Device,
    random: &mut fastrand::Rng,
    shape: Shape,
    groups: usize,
    weights: &[i8],
    values: &[i8],
) {
    let Shape { m, n, k } = shape;
    let positive = |values: Vec<f32>| values.iter().map(|s| s.abs() + 0.5).collect::<Vec<_>>();
    let token_scales: Vec<bf16> = cast(&positive(floats(random, m, 40.0)));
    let row_scales: Vec<bf16> = cast(&floats(random, groups, 0.05));
    let packed = PackedWeights::pack(Layout::Ladder, weights, n, k).unwrap();

    let buffer = |values: &[bf16]| Buffer::from_slice(device, values).unwrap();
    let mut output = poisoned::<bf16>(device, m * n);
    let operands = Int8xInt2 {
        activations: &Buffer::from_slice(device, values).unwrap(),
        weights: &Buffer::from_slice(device, packed.bytes()).unwrap(),
        activation_scale: &buffer(&token_scales),
        row_scale: &buffer(&row_scales),
        output: &mut output,
    };
    bitlinear_int8xint2(&device.default_stream(), operands, m, n, k).unwrap();

    let sums = accumulate(values, weights, shape).unwrap();
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

/// A thread's sums of several tokens hold K up to 698,368, and are the largest where every product is that of -128; beyond it there is a
/// pass over the weights for each token.
#[test]
fn the_longest_row_that_sums_of_several_tokens_hold_and_a_longer_one() {
    let (device, mut random) = (device(), random());
    for k in [698_368, 698_369] {
        let (weights, values) = (vec![1; k], vec![-128; 2 * k]);
        let shape = Shape { m: 2, n: 1, k };
        check_of(&device, &mut random, shape, 1, &weights, &values);
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

/// The launcher, below what checks its caller's buffers: the kernel relies on all of it.
#[test]
fn what_the_kernel_would_not_stay_within_is_refused() {
    let device = device();
    let lengths = [16 + 128 + 128, 48 * 128 / 4, 2, 2, 2 * 40];
    let launched =
        |sizes, [activations, weights, activation_scale, row_scale, output]: [usize; 5]| {
            let scales = |len| Buffer::from_slice(&device, &vec![bf16::ONE; len]).unwrap();
            let operands = Int8xInt2 {
                activations: &Buffer::zeroed(&device, activations).unwrap(),
                weights: &Buffer::zeroed(&device, weights).unwrap(),
                activation_scale: &scales(activation_scale),
                row_scale: &scales(row_scale),
                output: &mut scales(output),
            };
            launch::int8xint2(&device.default_stream(), operands, sizes)
        };
    let sizes = Int8xInt2Sizes {
        m: 2,
        n: 40,
        k: 100,
        k_pitch: 16 + 128,
        groups: 2,
    };
    launched(sizes, lengths).unwrap();
    let names = [
        "activations",
        "weights",
        "activation_scale",
        "row_scale",
        "output",
    ];
    for (index, expected) in names.into_iter().enumerate() {
        let mut short = lengths;
        short[index] -= 1;
        let error = launched(sizes, short).unwrap_err();
        assert!(
            matches!(error, LaunchError::ShortBuffer { name, needed, actual }
                if (name, needed, actual) == (expected, lengths[index], short[index])),
            "{error}"
        );
    }
    let refused = |sizes| launched(sizes, lengths).unwrap_err();
    for k_pitch in [0, 112, 136] {
        assert_eq!(
            refused(Int8xInt2Sizes { k_pitch, ..sizes }),
            LaunchError::Pitch {
                pitch: k_pitch,
                k: 128
            }
        );
    }
    for groups in [0, 3, 80] {
        assert_eq!(
            refused(Int8xInt2Sizes { groups, ..sizes }),
            LaunchError::Groups { groups, n: 40 }
        );
    }
    let too_many = i32::MAX as usize + 1;
    for (wrong, expected) in [
        (Int8xInt2Sizes { m: 0, ..sizes }, ("m", 0)),
        (Int8xInt2Sizes { m: 65_536, ..sizes }, ("m", 65_536)),
        (Int8xInt2Sizes { n: 0, ..sizes }, ("n", 0)),
        (
            Int8xInt2Sizes {
                n: too_many,
                ..sizes
            },
            ("n", too_many),
        ),
        (Int8xInt2Sizes { k: 0, ..sizes }, ("k", 0)),
        (
            Int8xInt2Sizes {
                k: MAX_K + 1,
                ..sizes
            },
            ("k", MAX_K + 1),
        ),
        (
            Int8xInt2Sizes {
                k_pitch: too_many,
                ..sizes
            },
            ("k_pitch", too_many),
        ),
    ] {
        let error = refused(wrong);
        assert!(
            matches!(error, LaunchError::Size { name, value, .. } if (name, value) == expected),
            "{error}"
        );
    }
}

#[test]
fn what_does_not_fit_the_shape_is_refused() {
    let device = device();
    let stream = device.default_stream();
    let (m, n) = (2, 40);
    // The first is copied to padded rows before the launch.
    for k in [100, 128] {
        let run = |[activations, activation_scale, row_scale, output]: [usize; 4]| {
            let scales = |len| Buffer::from_slice(&device, &vec![bf16::ONE; len]).unwrap();
            let operands = Int8xInt2 {
                activations: &Buffer::zeroed(&device, activations).unwrap(),
                weights: &Buffer::zeroed(&device, 48 * 128 / 4).unwrap(),
                activation_scale: &scales(activation_scale),
                row_scale: &scales(row_scale),
                output: &mut scales(output),
            };
            bitlinear_int8xint2(&stream, operands, m, n, k)
        };
        run([m * k, m, 2, m * n]).unwrap();
        for (wrong, expected) in [
            ([m * k - 1, m, 2, m * n], "activations"),
            ([m * k + 1, m, 2, m * n], "activations"),
            ([m * k, m - 1, 2, m * n], "activation_scale"),
            ([m * k, m + 1, 2, m * n], "activation_scale"),
            ([m * k, m, 2, m * n - 1], "output"),
            ([m * k, m, 2, m * n + 1], "output"),
        ] {
            let error = run(wrong).unwrap_err();
            assert!(
                matches!(error, OpError::Length { name, .. } if name == expected),
                "{error}"
            );
        }
        for groups in [0, 3] {
            assert_eq!(
                run([m * k, m, groups, m * n]).unwrap_err(),
                OpError::Launch(LaunchError::Groups { groups, n })
            );
        }
    }
}

/// As slices of other tensors are: activations anywhere, weights at multiples of 16 bytes.
#[test]
fn activations_can_begin_anywhere_and_weights_cannot() {
    let (device, mut random) = (device(), random());
    let stream = device.default_stream();
    let (n, k) = (16, 128);
    let packed = PackedWeights::pack(Layout::Ladder, &ternary(&mut random, n * k), n, k).unwrap();
    let values = int8(&mut random, k);
    let one = Buffer::from_slice(&device, &[bf16::ONE]).unwrap();
    let run = |activations: &Buffer<i8>, weights: &Buffer<u8>| {
        let mut output = poisoned::<bf16>(&device, n);
        let operands = Int8xInt2 {
            activations,
            weights,
            activation_scale: &one,
            row_scale: &one,
            output: &mut output,
        };
        bitlinear_int8xint2(&stream, operands, 1, n, k)?;
        Ok::<_, OpError>(output.to_vec().unwrap())
    };
    let weights = Buffer::from_slice(&device, packed.bytes()).unwrap();
    let expected = run(&Buffer::from_slice(&device, &values).unwrap(), &weights).unwrap();
    let shifted = [&[1][..], &values].concat();
    let shifted = Buffer::from_slice(&device, &shifted).unwrap();
    let more = Buffer::<u8>::zeroed(&device, packed.bytes().len() + 8).unwrap();
    // SAFETY: what they are parts of outlives them.
    let (activations, misaligned) = unsafe {
        (
            Buffer::from_raw(&device, shifted.device_ptr() + 1, k).unwrap(),
            Buffer::from_raw(&device, more.device_ptr() + 8, packed.bytes().len()).unwrap(),
        )
    };
    assert_eq!(run(&activations, &weights).unwrap(), expected);
    assert!(matches!(
        run(&activations, &misaligned),
        Err(OpError::Launch(LaunchError::Device(
            DeviceError::MisalignedPointer { alignment: 16, .. }
        )))
    ));
}

/// The launcher has nothing to copy unaligned activations to, and a load of theirs would lose the device.
#[test]
fn the_launcher_takes_aligned_memory_only() {
    let device = device();
    let one = Buffer::from_slice(&device, &[bf16::ONE]).unwrap();
    let activations = Buffer::<i8>::zeroed(&device, 128 + 16).unwrap();
    let weights = Buffer::<u8>::zeroed(&device, 16 * 128 / 4 + 16).unwrap();
    let run = |activations_at: u64, weights_at: u64| {
        // SAFETY: what they are parts of outlives them.
        let (activations, weights) = unsafe {
            (
                Buffer::from_raw(&device, activations.device_ptr() + activations_at, 128).unwrap(),
                Buffer::from_raw(&device, weights.device_ptr() + weights_at, 16 * 128 / 4).unwrap(),
            )
        };
        let operands = Int8xInt2 {
            activations: &activations,
            weights: &weights,
            activation_scale: &one,
            row_scale: &one,
            output: &mut poisoned::<bf16>(&device, 16),
        };
        let sizes = Int8xInt2Sizes {
            m: 1,
            n: 16,
            k: 128,
            k_pitch: 128,
            groups: 1,
        };
        launch::int8xint2(&device.default_stream(), operands, sizes)?;
        device.synchronize().map_err(LaunchError::from)
    };
    for (activations_at, weights_at) in [(8, 0), (0, 8), (1, 1)] {
        let error = run(activations_at, weights_at).unwrap_err();
        let misaligned = DeviceError::MisalignedPointer {
            address: match activations_at {
                0 => weights.device_ptr() + weights_at,
                _ => activations.device_ptr() + activations_at,
            },
            alignment: 16,
        };
        assert_eq!(error, LaunchError::Device(misaligned));
    }
    run(16, 16).unwrap();
}

/// As it is documented: a graph has launches only.
#[test]
fn a_product_is_captured_unless_its_activations_have_to_be_copied() {
    let (device, mut random) = (device(), random());
    let stream = device.new_stream().unwrap();
    let (n, one) = (16, Buffer::from_slice(&device, &[bf16::ONE]).unwrap());
    for (k, is_copied) in [(128, false), (100, true)] {
        let ternary = ternary(&mut random, n * k);
        let packed = PackedWeights::pack(Layout::Ladder, &ternary, n, k).unwrap();
        let values = int8(&mut random, k);
        let mut output = poisoned::<bf16>(&device, n);
        let activations = Buffer::from_slice(&device, &values).unwrap();
        let weights = Buffer::from_slice(&device, packed.bytes()).unwrap();
        let mut run = |stream: &Stream| {
            let operands = Int8xInt2 {
                activations: &activations,
                weights: &weights,
                activation_scale: &one,
                row_scale: &one,
                output: &mut output,
            };
            bitlinear_int8xint2(stream, operands, 1, n, k)
        };
        let captured = Graph::capture(&stream, &mut run);
        if is_copied {
            let error = captured.unwrap_err();
            assert!(
                matches!(error, OpError::Device(DeviceError::Capturing { .. })),
                "{error}"
            );
            continue;
        }
        captured.unwrap().launch(&stream).unwrap();
        let sums = accumulate(&values, &ternary, Shape { m: 1, n, k }).unwrap();
        let expected: Vec<_> = sums.iter().map(|&sum| bf16::from_f32(sum as f32)).collect();
        assert_eq!(output.to_vec().unwrap(), expected);
    }
}
