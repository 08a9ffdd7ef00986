//! What cannot be done is a typed error that names the thing and the value, and nothing is written.

use bitnet_cuda::device::{Buffer, Device, DeviceError, EmulatedConfig};
use bitnet_cuda::launch::{Gemv, Input, LaunchError, Output};
use bitnet_cuda::layout::{Layout, LayoutError, MAX_K, PackedWeights};
use bitnet_cuda::ops::{BitLinear, Norm, OpError, QuantizedActivations, quantize_activations};
use bitnet_cuda::reference::RowScales;
use integration_tests::device;

fn layer(device: &Device, n: usize, k: usize) -> BitLinear {
    BitLinear::from_weights(device, &vec![1.0_f32; n * k], n, k).unwrap()
}

#[test]
fn zero_sizes_are_refused() {
    let device = device();
    assert!(matches!(
        QuantizedActivations::uninit(&device, 0, 8),
        Err(OpError::Size {
            name: "m",
            value: 0,
            ..
        })
    ));
    assert!(matches!(
        QuantizedActivations::uninit(&device, 8, 0),
        Err(OpError::Size {
            name: "k",
            value: 0,
            ..
        })
    ));
    assert!(matches!(
        PackedWeights::pack(Layout::Tiled, &[], 0, 4),
        Err(LayoutError::ZeroSize { n: 0, k: 4 })
    ));
    let error = BitLinear::from_weights::<f32>(&device, &[], 4, 0).unwrap_err();
    assert!(
        error.to_string().contains('4') && error.to_string().contains('0'),
        "{error}"
    );

    let layer = layer(&device, 4, 8);
    let (x, mut y) = (
        Buffer::<f32>::zeroed(&device, 0).unwrap(),
        Buffer::<f32>::zeroed(&device, 0).unwrap(),
    );
    let error = layer
        .forward(&device.default_stream(), &x, &mut y)
        .unwrap_err();
    assert!(
        matches!(error, OpError::Tokens { actual: 0, .. }),
        "{error}"
    );
}

#[test]
fn a_shape_that_nothing_can_hold_is_refused_before_its_weights_are_looked_at() {
    let device = device();
    let error = |n, k| BitLinear::from_weights(&device, &[f32::NAN], n, k).unwrap_err();
    let k = 1 << 40;
    assert_eq!(error(1, k), LayoutError::KTooLarge { k }.into());
    let n = usize::MAX / 2;
    assert_eq!(error(n, 4), LayoutError::SizeOverflow { n, k: 4 }.into());
}

#[test]
fn k_beyond_the_overflow_bound_is_refused() {
    let device = device();
    let error = QuantizedActivations::uninit(&device, 1, MAX_K + 1).unwrap_err();
    assert!(matches!(error, OpError::Size { name: "k", .. }), "{error}");
    assert!(
        error.to_string().contains("16777216") && error.to_string().contains("16777215"),
        "{error}"
    );
    assert!(matches!(
        Layout::Tiled.packed_len(1, MAX_K + 1),
        Err(LayoutError::KTooLarge { .. })
    ));
}

#[test]
fn a_variant_refuses_a_k_that_its_accumulators_cannot_hold() {
    let device = device();
    let k = 4_500_000;
    let packed = PackedWeights::pack(Layout::Tiled, &vec![1; k], 1, k).unwrap();
    let layer =
        BitLinear::from_packed(&device, &packed, &RowScales::per_tensor(1, 1.0).unwrap()).unwrap();
    assert!(layer.variant(1).shape().max_k() >= k as u64);
    let error = layer
        .with_variant(Gemv::named("gemv_m1_t1_w1").unwrap())
        .unwrap_err();
    assert!(
        matches!(error, OpError::Launch(LaunchError::VariantK { .. })),
        "{error}"
    );
}

#[test]
fn a_variant_for_another_layout_is_refused_and_those_that_exist_are_named() {
    let device = device();
    let scales = RowScales::per_tensor(16, 1.0).unwrap();
    let layer = |layout| {
        let packed = PackedWeights::pack(layout, &[1; 16 * 128], 16, 128).unwrap();
        match layout {
            Layout::Ladder => BitLinear::from_ladder(&device, &packed, &scales).unwrap(),
            _ => BitLinear::from_packed(&device, &packed, &scales).unwrap(),
        }
    };
    for (layout, other) in [
        (Layout::Tiled, Layout::Ladder),
        (Layout::Ladder, Layout::Tiled),
    ] {
        let variant = Gemv::all(other).next().unwrap();
        let error = layer(layout).with_variant(variant).unwrap_err();
        let names: Vec<_> = Gemv::all(layout).map(|own| own.name()).collect();
        let expected = LaunchError::VariantLayout {
            variant: variant.name().to_owned(),
            layout,
            known: names.join(", "),
        };
        assert_eq!(error, OpError::Launch(expected));
        let own = Gemv::all(layout).last().unwrap();
        let chosen = layer(layout).with_variant(own).unwrap();
        assert_eq!(chosen.variant(1), own);
    }
    let error = Gemv::named("gemv_m1").unwrap_err();
    assert!(
        matches!(&error, LaunchError::UnknownVariant { name, .. } if name == "gemv_m1"),
        "{error}"
    );
}

/// The first eight of nine tokens have room, and activations would be quantized before all of them.
#[test]
fn nothing_is_launched_where_a_later_launch_would_not_fit() {
    let device = Device::emulated().unwrap();
    let stream = device.default_stream();
    let layer = layer(&device, 4, 8);
    let x = Buffer::from_slice(&device, &[1.0_f32; 9 * 8]).unwrap();
    let values = QuantizedActivations::from_values(&device, &[1; 9 * 8], &[1.0; 9], 9, 8).unwrap();
    let [mut short, mut y] =
        [35, 36].map(|len| Buffer::from_slice(&device, &vec![7.0_f32; len]).unwrap());
    let (results, reports) = device
        .profile(|| {
            let residual = Buffer::from_slice(&device, &[0.0_f32; 35]).unwrap();
            [
                layer.forward(&stream, &x, &mut short),
                layer.forward_quantized(&stream, &values, &mut short),
                layer.forward_residual(&stream, &values, Some(&residual), &mut y),
            ]
        })
        .unwrap();
    for (result, wrong) in results.into_iter().zip(["output", "output", "residual"]) {
        let error = result.unwrap_err();
        assert!(
            matches!(error, OpError::Length { name, expected: 36, actual: 35, .. } if name == wrong),
            "{error}"
        );
    }
    assert!(reports.is_empty(), "{reports:?}");
    assert_eq!(short.to_vec().unwrap(), [7.0; 35]);
    assert_eq!(y.to_vec().unwrap(), [7.0; 36]);
}

#[test]
fn lengths_that_do_not_match_are_refused_and_nothing_is_written() {
    let device = device();
    let stream = device.default_stream();
    let layer = layer(&device, 4, 8);
    let mut y = Buffer::from_slice(&device, &[7.0_f32; 8]).unwrap();

    for actual in [0, 7, 15] {
        let uneven = Buffer::<f32>::zeroed(&device, actual).unwrap();
        let error = layer.forward(&stream, &uneven, &mut y).unwrap_err();
        let expected = OpError::Tokens {
            name: "input",
            actual,
            width: 8,
        };
        assert_eq!(error, expected);
        assert!(
            error.to_string().contains("8 elements for each token"),
            "{error}"
        );
    }

    let one_token = Buffer::<f32>::zeroed(&device, 8).unwrap();
    let error = layer.forward(&stream, &one_token, &mut y).unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Length {
                name: "output",
                expected: 4,
                actual: 8,
                ..
            }
        ),
        "{error}"
    );

    for (values, scales, wrong) in [(15, 2, "values"), (16, 3, "scale")] {
        let (values, scales) = (vec![1; values], vec![1.0; scales]);
        let error = QuantizedActivations::from_values(&device, &values, &scales, 2, 8).unwrap_err();
        assert!(
            matches!(error, OpError::Length { name, .. } if name == wrong),
            "{error}"
        );
    }

    let mut quantized = QuantizedActivations::uninit(&device, 2, 16).unwrap();
    let error = quantize_activations(&stream, &one_token, &mut quantized).unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Length {
                name: "input",
                expected: 32,
                actual: 8,
                ..
            }
        ),
        "{error}"
    );
    let error = layer
        .forward_quantized(&stream, &quantized, &mut y)
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Dimension {
                expected: 8,
                actual: 16,
                ..
            }
        ),
        "{error}"
    );

    let error = layer.with_bias(&[0.0; 3]).unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Length {
                name: "bias",
                expected: 4,
                actual: 3,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(y.to_vec().unwrap(), [7.0; 8]);
}

#[test]
fn a_buffer_shorter_than_what_a_kernel_touches_is_refused() {
    let mut buffer = Buffer::<f32>::zeroed(&device(), 8).unwrap();
    for (first, len) in [(0, 8), (3, 5), (8, 0)] {
        Input::slice("x", &buffer, first, len).unwrap();
        Output::slice("y", &mut buffer, first, len).unwrap();
    }
    for (first, len, needed) in [(0, 9, 9), (4, 5, 9), (9, 0, 9), (1, usize::MAX, usize::MAX)] {
        let short = |name| LaunchError::ShortBuffer {
            name,
            needed,
            actual: 8,
        };
        let error = Input::slice("x", &buffer, first, len).unwrap_err();
        assert_eq!(error, short("x"));
        let text = error.to_string();
        assert!(
            text.contains("`x`") && text.contains(&needed.to_string()),
            "{text}"
        );
        let error = Output::slice("y", &mut buffer, first, len).unwrap_err();
        assert_eq!(error, short("y"));
    }
    assert!(Input::new("x", &buffer, 9).is_err() && Output::new("y", &mut buffer, 9).is_err());
}

#[test]
fn weights_and_biases_that_are_not_finite_are_named() {
    let device = device();
    let error = BitLinear::from_weights(&device, &[1.0_f32, f32::NAN, 1.0, 1.0], 2, 2).unwrap_err();
    assert!(error.to_string().contains("NaN"), "{error}");
    let error = layer(&device, 2, 2)
        .with_bias(&[0.0, f32::INFINITY])
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpError::NonFinite {
                name: "bias",
                index: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(RowScales::per_tensor(2, f32::NAN).is_err());
}

#[test]
fn scales_that_do_not_cover_the_rows_are_refused() {
    let packed = PackedWeights::pack(Layout::Ladder, &[1; 12], 3, 4).unwrap();
    let error = BitLinear::from_packed(&device(), &packed, &RowScales::per_tensor(4, 1.0).unwrap())
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpError::Dimension {
                expected: 3,
                actual: 4,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn buffers_of_two_devices_in_one_call_are_refused() {
    let (device, other) = (device(), Device::emulated().unwrap());
    let layer = layer(&device, 4, 8);
    let x = Buffer::<f32>::zeroed(&other, 8).unwrap();
    let mut y = Buffer::from_slice(&device, &[7.0_f32; 4]).unwrap();
    let stream = device.default_stream();
    let is_named = |operand: &str, result: Result<(), OpError>| {
        let text = result.unwrap_err().to_string();
        assert!(
            text.starts_with(&format!("buffer `{operand}` of kernel ")),
            "{text}"
        );
        assert!(text.contains(other.name()), "{text}");
        let stream_is_on = match device.name() == other.name() {
            true => "another device of the same name",
            false => device.name(),
        };
        assert!(
            text.contains(&format!("but the stream is on {stream_is_on}")),
            "{text}"
        );
    };
    is_named("input", layer.forward(&stream, &x, &mut y));
    let x = Buffer::<f32>::zeroed(&device, 8).unwrap();
    let layer_there = self::layer(&other, 4, 8);
    is_named("weights", layer_there.forward(&stream, &x, &mut y));
    assert_eq!(y.to_vec().unwrap(), [7.0; 4]);
    let mut y_there = Buffer::<f32>::zeroed(&other, 4).unwrap();
    is_named("output", layer.forward(&stream, &x, &mut y_there));
    // Also one without parameters.
    let norm = Norm::rms(&other, 8, None, 1e-5).unwrap();
    let mut normalized = Buffer::<f32>::zeroed(&device, 8).unwrap();
    let error = norm.normalize(&stream, &x, &mut normalized).unwrap_err();
    assert!(
        matches!(&error, OpError::Device(DeviceError::DeviceMismatch { what, .. }) if what == "the norm"),
        "{error}"
    );
}

#[test]
fn ptx_that_is_cut_off_or_too_new_is_refused() {
    let device = device();
    let (_, ptx) = bitnet_cuda::launch::ptx_for(device.compute_capability()).unwrap();
    let error = device.load_module(&ptx[..ptx.len() / 2]).unwrap_err();
    assert!(matches!(error, DeviceError::InvalidPtx { .. }), "{error}");

    let old = Device::emulated_with(EmulatedConfig {
        compute_capability: (7, 5),
        ..EmulatedConfig::default()
    })
    .unwrap();
    let (arch, newest) = bitnet_cuda::launch::ptx_for((9, 0)).unwrap();
    assert_eq!(arch, 90);
    let error = old.load_module(newest).unwrap_err();
    assert!(matches!(error, DeviceError::PtxTarget { .. }), "{error}");
    assert!(
        error.to_string().contains("sm_90") && error.to_string().contains("sm_75"),
        "{error}"
    );
}
