//! Packing, unpacking and conversions on the device give the very bytes of the CPU's layouts; layers of joined weights the very products
//! of their parts.

use bitnet_cuda::device::{Buffer, DeviceKind};
use bitnet_cuda::layout::{Layout, LayoutError, MAX_K, PackedWeights};
use bitnet_cuda::ops::{
    BitLinear, OpError, QuantizedActivations, TernaryWeights, quantize_activations,
};
use bitnet_cuda::reference::RowScales;
use integration_tests::drawn;
use integration_tests::{device, floats, poisoned, random, ternary};
use proptest::prelude::*;

#[test]
fn every_layout_packs_unpacks_and_converts_as_on_the_cpu() {
    let device = device();
    let stream = device.default_stream();
    let mut runner = drawn::runner(60);
    let size = |most| {
        prop_oneof![
            1..most,
            prop::sample::select(vec![
                1_usize, 4, 15, 16, 17, 31, 32, 33, 64, 127, 128, 129, 256
            ])
        ]
    };
    runner
        .run(
            &(size(50_usize), size(500_usize), any::<u64>()),
            |(n, k, seed)| {
                let values = ternary(&mut fastrand::Rng::with_seed(seed), n * k);
                let buffer = Buffer::from_slice(&device, &values).unwrap();
                for layout in Layout::ALL {
                    let expected = PackedWeights::pack(layout, &values, n, k).unwrap();
                    let packed = TernaryWeights::pack(&stream, layout, &buffer, n, k).unwrap();
                    assert_eq!(
                        packed.bytes().to_vec().unwrap(),
                        expected.bytes(),
                        "{layout} {n} x {k}"
                    );
                    assert_eq!((packed.n(), packed.k(), packed.layout()), (n, k, layout));

                    let mut unpacked = poisoned::<i8>(&device, n * k);
                    let uploaded = TernaryWeights::from_packed(&device, &expected).unwrap();
                    uploaded.unpack(&stream, &mut unpacked).unwrap();
                    assert_eq!(unpacked.to_vec().unwrap(), values, "{layout} {n} x {k}");

                    for other in Layout::ALL {
                        let converted = uploaded.convert(&stream, other).unwrap();
                        assert_eq!(
                            converted.to_packed().unwrap(),
                            expected.convert(other).unwrap(),
                            "{layout} to {other}, {n} x {k}"
                        );
                    }
                }
                Ok(())
            },
        )
        .unwrap();
}

/// Padded, it is one more than [`MAX_K`].
#[test]
fn the_longest_row_there_can_be_is_packed_and_unpacked() {
    let (device, n, k) = (device(), 1, MAX_K);
    let stream = device.default_stream();
    let values = ternary(&mut random(), k);
    let buffer = Buffer::from_slice(&device, &values).unwrap();
    let packed = TernaryWeights::pack(&stream, Layout::RowMajor, &buffer, n, k).unwrap();
    let expected = PackedWeights::pack(Layout::RowMajor, &values, n, k).unwrap();
    assert!(packed.to_packed().unwrap() == expected);
    let mut unpacked = poisoned::<i8>(&device, k);
    packed.unpack(&stream, &mut unpacked).unwrap();
    assert!(unpacked.to_vec().unwrap() == values);
}

/// `[n, k]` as transformers packs it: four rows to a byte, a quarter of the matrix apart.
fn as_transformers_packs(weights: &[i8], n: usize, k: usize) -> Vec<u8> {
    let quarter = n / 4 * k;
    let byte = |i: usize| {
        (0..4).fold(0, |byte, q| {
            byte | ((weights[i + q * quarter] + 1) as u8) << (2 * q)
        })
    };
    (0..quarter).map(byte).collect()
}

/// Q, K and V as three layers, and as one with a scale for the rows of each.
#[test]
fn projections_of_a_checkpoint_make_one_layer() {
    let (device, mut random) = (device(), random());
    let stream = device.default_stream();
    // Rows as in a file, which has multiples of 4; and any rows, from weights that were packed one by one.
    for (rows, k, m) in [
        ([32, 16, 16], 256, 1),
        ([20, 12, 4], 131, 3),
        ([4, 4, 8], 1, 1),
        ([37, 5, 2], 200, 1),
        ([1, 1, 1], 5, 9),
        ([15, 18, 30], 128, 2),
    ] {
        let x = Buffer::from_slice(&device, &floats(&mut random, m * k, 3.0)).unwrap();
        let mut activations = QuantizedActivations::uninit(&device, m, k).unwrap();
        quantize_activations(&stream, &x, &mut activations).unwrap();
        let projections = [0, 1, 2].map(|part| {
            let (n, layout) = (rows[part], Layout::ALL[part]);
            let weights = ternary(&mut random, n * k);
            let packed = if n.is_multiple_of(4) {
                let bytes = as_transformers_packs(&weights, n, k);
                PackedWeights::from_transformers(layout, &bytes, n / 4, k)
            } else {
                PackedWeights::pack(layout, &weights, n, k)
            };
            let scale = RowScales::per_tensor(n, 0.25 + random.f32()).unwrap();
            (packed.unwrap(), scale)
        });
        let product = |weights: &PackedWeights, scales: &RowScales| {
            let layer = BitLinear::from_packed(&device, weights, scales).unwrap();
            let mut y = poisoned::<f32>(&device, m * layer.n());
            layer
                .forward_quantized(&stream, &activations, &mut y)
                .unwrap();
            y.to_vec().unwrap()
        };
        let [q, k_rows, v] = &projections;
        let weights = PackedWeights::concat(Layout::Tiled, &[&q.0, &k_rows.0, &v.0]).unwrap();
        let scales = RowScales::concat(&[&q.1, &k_rows.1, &v.1]).unwrap();
        let fused = product(&weights, &scales);
        let (total, mut first) = (weights.n(), 0);
        for (weights, scales) in &projections {
            let apart = product(weights, scales);
            for (fused, apart) in fused.chunks(total).zip(apart.chunks(weights.n())) {
                let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
                let fused = &fused[first..first + weights.n()];
                assert_eq!(bits(fused), bits(apart), "{rows:?}, k {k}");
            }
            first += weights.n();
        }
    }
}

#[test]
fn a_value_that_is_not_ternary_is_named() {
    let (device, mut random) = (device(), random());
    let stream = device.default_stream();
    for (n, k) in [(20, 128), (20, 131)] {
        for value in [2, -2, 3, 127, -128] {
            // Alone, and before another one.
            for other in [0, 5] {
                let mut values = ternary(&mut random, n * k);
                values[11 * k + 70] = value;
                values[12 * k] = other;
                let buffer = Buffer::from_slice(&device, &values).unwrap();
                for layout in Layout::ALL {
                    let error = TernaryWeights::pack(&stream, layout, &buffer, n, k).unwrap_err();
                    assert_eq!(
                        error,
                        OpError::Layout(LayoutError::NotTernary {
                            value,
                            row: 11,
                            column: 70
                        })
                    );
                }
            }
        }
    }
}

#[test]
fn tiled_weights_are_moved_in_whole_sectors() {
    let (device, mut random) = (device(), random());
    if device.kind() == DeviceKind::Cuda {
        return;
    }
    let stream = device.default_stream();
    let (n, k) = (64, 512);
    let values = ternary(&mut random, n * k);
    let buffer = Buffer::from_slice(&device, &values).unwrap();
    let (packed, reports) = device
        .profile(|| TernaryWeights::pack(&stream, Layout::Tiled, &buffer, n, k))
        .unwrap();
    let mut unpacked = poisoned::<i8>(&device, n * k);
    let packed = packed.unwrap();
    let (_, unpack) = device
        .profile(|| packed.unpack(&stream, &mut unpacked).unwrap())
        .unwrap();
    let bytes = (n * k) as u64;
    for (reports, [values, codes]) in [(reports, [0, 1]), (unpack, [1, 0])] {
        let [report] = reports.as_slice() else {
            panic!("one launch")
        };
        let [values, codes] = [values, codes].map(|index| &report.arguments[index]);
        assert_eq!(
            values.sectors_read + values.sectors_written,
            bytes / 32,
            "{}",
            report.kernel
        );
        assert_eq!(
            codes.sectors_read + codes.sectors_written,
            bytes / 4 / 32,
            "{}",
            report.kernel
        );
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let device = device();
    let stream = device.default_stream();
    let buffer = Buffer::<i8>::zeroed(&device, 12).unwrap();
    let pack = |n, k| TernaryWeights::pack(&stream, Layout::Tiled, &buffer, n, k);
    assert!(matches!(
        pack(0, 12),
        Err(OpError::Layout(LayoutError::ZeroSize { .. }))
    ));
    assert!(matches!(
        pack(4, 4),
        Err(OpError::Length {
            name: "values",
            expected: 16,
            actual: 12,
            ..
        })
    ));
    let error = pack(3, 4)
        .unwrap()
        .unpack(&stream, &mut poisoned(&device, 11))
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Length {
                name: "values",
                expected: 12,
                actual: 11,
                ..
            }
        ),
        "{error}"
    );
}
