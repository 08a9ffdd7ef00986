//! W2A8 products equal the reference, bit for bit: every variant, shape and output type, on the device under test.

use bitnet_cuda::device::{Buffer, Device, EmulatedConfig};
use bitnet_cuda::launch::{Float, Gemv};
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{BitLinear, QuantizedActivations};
use bitnet_cuda::reference::linear::{Epilogue, Shape, accumulate, epilogue};
use bitnet_cuda::reference::{Element, RowScales};
use half::{bf16, f16};
use integration_tests::golden::Golden;
use integration_tests::{device, drawn, floats, int8, poisoned, random, ternary};
use proptest::prelude::*;

/// Random operands of a product.
struct Operands {
    shape: Shape,
    ternary: Vec<i8>,
    values: Vec<i8>,
    token_scales: Vec<f32>,
    row_scales: RowScales,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Operands {
    fn random(random: &mut fastrand::Rng, m: usize, n: usize, k: usize) -> Self {
        let row_scales: Vec<f32> = floats(random, n, 0.05);
        Self {
            shape: Shape { m, n, k },
            ternary: ternary(random, n * k),
            values: int8(random, m * k),
            token_scales: floats(random, m, 20.0).iter().map(|s| s + 30.0).collect(),
            row_scales: RowScales::per_row(&row_scales).unwrap(),
            bias: floats(random, n, 1.0),
            residual: floats(random, m * n, 1.0),
        }
    }

    fn layer(&self, device: &Device) -> BitLinear {
        let packed =
            PackedWeights::pack(Layout::Tiled, &self.ternary, self.shape.n, self.shape.k).unwrap();
        BitLinear::from_packed(device, &packed, &self.row_scales).unwrap()
    }

    fn ladder_layer(&self, device: &Device) -> BitLinear {
        let Shape { n, k, .. } = self.shape;
        let packed = PackedWeights::pack(Layout::Ladder, &self.ternary, n, k).unwrap();
        BitLinear::from_ladder(device, &packed, &self.row_scales).unwrap()
    }

    fn activations(&self, device: &Device) -> QuantizedActivations {
        let Shape { m, k, .. } = self.shape;
        QuantizedActivations::from_values(device, &self.values, &self.token_scales, m, k).unwrap()
    }

    /// Runs `layer` and compares with the reference's order of operations.
    fn check<T: Float + Element + PartialEq + std::fmt::Debug>(
        &self,
        layer: &BitLinear,
        bias: bool,
        residual: bool,
    ) {
        let Shape { m, n, .. } = self.shape;
        let device = layer.device().clone();
        // Values of the residual that `T` holds exactly, so that both sides add the same.
        let residual: Option<Vec<T>> =
            residual.then(|| self.residual.iter().map(|&r| T::from_f32(r)).collect());
        let residual_f32: Option<Vec<f32>> = residual
            .as_ref()
            .map(|r| r.iter().map(|&r| r.to_f32()).collect());
        let terms = Epilogue {
            activation_scales: &self.token_scales,
            row_scales: &self.row_scales,
            bias: bias.then_some(&self.bias[..]),
            residual: residual_f32.as_deref(),
        };
        let sums = accumulate(&self.values, &self.ternary, self.shape).unwrap();
        let expected: Vec<T> = epilogue(&sums, m, n, &terms).unwrap();

        let residual = residual.map(|r| Buffer::from_slice(&device, &r).unwrap());
        let mut y = Buffer::<T>::uninit(&device, m * n).unwrap();
        y.fill_bytes(0xff).unwrap();
        layer
            .forward_residual(
                &device.default_stream(),
                &self.activations(&device),
                residual.as_ref(),
                &mut y,
            )
            .unwrap();
        assert_eq!(
            y.to_vec().unwrap(),
            expected,
            "{:?} {}",
            self.shape,
            layer.variant(m).name()
        );
    }
}

/// Prime, around the padding of the layout, one tile and many, one step and many.
const SHAPES: [(usize, usize); 14] = [
    (1, 1),
    (1, 127),
    (7, 33),
    (15, 128),
    (16, 129),
    (17, 31),
    (33, 640),
    (48, 1025),
    (100, 100),
    (113, 257),
    (31, 4097),
    (64, 2560),
    (257, 384),
    (20, 8191),
];

#[test]
fn every_variant_equals_the_reference_on_every_shape() {
    let device = device();
    let mut random = random();
    for variant in Gemv::all(Layout::Tiled) {
        for (n, k) in SHAPES {
            let operands = Operands::random(&mut random, variant.tokens(), n, k);
            let layer = operands.layer(&device).with_variant(variant).unwrap();
            operands.check::<f32>(&layer, false, false);
        }
    }
}

#[test]
fn ladder_weights_give_the_same_as_they_are() {
    let device = device();
    let mut random = random();
    for variant in Gemv::all(Layout::Ladder) {
        for (n, k) in SHAPES {
            for m in [1, 3, 8] {
                let operands = Operands::random(&mut random, m, n, k);
                let layer = operands.ladder_layer(&device);
                let heuristic = Gemv::choose(device.capabilities(), Layout::Ladder, m, n, k);
                assert_eq!(Some(layer.variant(m)), heuristic, "{m} x {n} x {k}");
                operands.check::<f32>(&layer.with_variant(variant).unwrap(), false, false);
            }
        }
    }
}

#[test]
fn older_gpus_run_every_variant_too() {
    let mut random = random();
    for compute_capability in [(7, 5), (8, 0)] {
        let config = EmulatedConfig {
            compute_capability,
            ..EmulatedConfig::default()
        };
        let device = Device::emulated_with(config).unwrap();
        for (n, k) in [(17, 31), (33, 640), (48, 1025)] {
            for variant in Gemv::all(Layout::Tiled) {
                let operands = Operands::random(&mut random, variant.tokens(), n, k);
                let layer = operands.layer(&device).with_variant(variant).unwrap();
                operands.check::<f32>(&layer, false, false);
            }
            for variant in Gemv::all(Layout::Ladder) {
                let operands = Operands::random(&mut random, variant.tokens(), n, k);
                let layer = operands
                    .ladder_layer(&device)
                    .with_variant(variant)
                    .unwrap();
                operands.check::<f32>(&layer, false, false);
            }
        }
    }
}

#[test]
fn k_is_split_where_there_are_few_rows() {
    let device = Device::emulated().unwrap();
    let splits = |m, n, k| {
        let variant = Gemv::choose(device.capabilities(), Layout::Tiled, m, n, k).unwrap();
        variant.shape().splits
    };
    for (n, k) in [(64, 32768), (640, 27648)] {
        assert!(splits(1, n, k) > 1, "{n} x {k}");
        assert!(splits(8, n, k) > 1, "{n} x {k}");
    }
    for (n, k) in [(1024, 4096), (2560, 2560), (13824, 2560), (55296, 5120)] {
        assert_eq!(splits(1, n, k), 1, "{n} x {k}");
        assert_eq!(splits(8, n, k), 1, "{n} x {k}");
    }
}

#[test]
fn shapes_and_values_drawn_at_random_equal_the_reference() {
    let device = device();
    let values = prop_oneof![
        // Any, the ends of the range, all alike.
        Just([-128_i8, 127].to_vec()),
        any::<i8>().prop_map(|value| vec![value]),
        Just((i8::MIN..=i8::MAX).collect::<Vec<_>>()),
    ];
    // The least and the largest scale of quantized activations; and one that makes outputs subnormal.
    let scales = prop::sample::select(vec![127.0 / 1e-5, 127.0 / 3e38, 1e38, 31.0_f32]);
    let sizes = (1..10_usize, drawn::size(140), drawn::size(2100));
    let terms = (any::<bool>(), any::<bool>());
    drawn::runner(80)
        .run(
            &(sizes, values, scales, terms, any::<u64>()),
            |((m, n, k), values, scale, (bias, residual), seed)| {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut operands = Operands::random(&mut random, m, n, k);
                operands.token_scales[0] = scale;
                operands
                    .values
                    .fill_with(|| values[random.usize(..values.len())]);
                let mut layers = [operands.layer(&device), operands.ladder_layer(&device)];
                if bias {
                    layers = layers.map(|layer| layer.with_bias(&operands.bias).unwrap());
                }
                for layer in &layers {
                    operands.check::<f32>(layer, bias, residual);
                    operands.check::<f16>(layer, bias, residual);
                    operands.check::<bf16>(layer, bias, residual);
                }
                Ok(())
            },
        )
        .unwrap();
}

/// Split variants for different numbers of tokens share a layer's workspace: what one leaves behind is what another one finds.
#[test]
fn split_products_follow_each_other_on_one_layer() {
    let device = device();
    let mut random = random();
    let (n, k) = (97, 2000);
    let operands: Vec<Operands> = [1, 8, 1, 5, 8, 1]
        .iter()
        .map(|&m| Operands::random(&mut random, m, n, k))
        .collect();
    let split = |variant: &Gemv| variant.shape().splits > 1;
    let variants: Vec<Gemv> = Gemv::all(Layout::Tiled).filter(split).collect();
    assert!(variants.len() >= 4);
    let first = &operands[0];
    let mut layer = first.layer(&device);
    for round in 0..variants.len() {
        for operands in &operands {
            let m = operands.shape.m;
            let fitting: Vec<&Gemv> = variants.iter().filter(|v| v.fits(m, k)).collect();
            layer = layer.with_variant(*fitting[round % fitting.len()]).unwrap();
            // The layer's weights, with other tokens.
            let operands = Operands {
                shape: operands.shape,
                ternary: first.ternary.clone(),
                values: operands.values.clone(),
                token_scales: operands.token_scales.clone(),
                row_scales: first.row_scales.clone(),
                bias: Vec::new(),
                residual: Vec::new(),
            };
            operands.check::<f32>(&layer, false, false);
        }
    }
}

#[test]
fn split_products_have_bias_residual_and_every_output_type() {
    let device = device();
    let mut random = random();
    let split = |variant: &Gemv| variant.shape().splits > 1;
    let variants: Vec<Gemv> = Gemv::all(Layout::Tiled).filter(split).collect();
    assert!(variants.len() >= 4);
    for variant in variants {
        let operands = Operands::random(&mut random, variant.tokens(), 97, 2000);
        let layer = operands.layer(&device).with_variant(variant).unwrap();
        let layer = layer.with_bias(&operands.bias).unwrap();
        for residual in [false, true] {
            operands.check::<f32>(&layer, true, residual);
            operands.check::<f16>(&layer, true, residual);
            operands.check::<bf16>(&layer, true, residual);
        }
    }
}

#[test]
fn split_products_run_on_several_streams_at_once() {
    let device = device();
    let mut random = random();
    let (n, k) = (97, 2000);
    let operands = Operands::random(&mut random, 1, n, k);
    let layer = operands
        .layer(&device)
        .with_variant(Gemv::named("gemv_m1_t1_w4_k4").unwrap())
        .unwrap();
    let terms = Epilogue {
        activation_scales: &operands.token_scales,
        row_scales: &operands.row_scales,
        bias: None,
        residual: None,
    };
    let sums = accumulate(&operands.values, &operands.ternary, operands.shape).unwrap();
    let expected: Vec<f32> = epilogue(&sums, 1, n, &terms).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let stream = device.new_stream().unwrap();
                let input = operands.activations(&device);
                for _ in 0..20 {
                    let mut y = poisoned::<f32>(&device, n);
                    layer.forward_quantized(&stream, &input, &mut y).unwrap();
                    assert_eq!(y.to_vec().unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn a_k_beyond_what_several_tokens_take_goes_token_by_token() {
    let device = device();
    let capabilities = device.capabilities();
    // 64 times a row's sum of unsigned products would not fit.
    let k = 8 << 20;
    let variant = Gemv::choose(capabilities, Layout::Tiled, 8, 1, k).unwrap();
    assert_eq!(variant.tokens(), 1);
    let near = Gemv::choose(capabilities, Layout::Tiled, 8, 1, 1 << 16).unwrap();
    assert_eq!(near.tokens(), 8);
}

#[test]
fn every_number_of_tokens_equals_the_reference() {
    let device = device();
    let mut random = random();
    for m in (1..=9).chain([15, 16, 17, 24, 31]) {
        let operands = Operands::random(&mut random, m, 45, 300);
        operands.check::<f32>(&operands.layer(&device), false, false);
    }
}

#[test]
fn every_output_type_is_rounded_once_with_and_without_bias_and_residual() {
    let device = device();
    let mut random = random();
    for (m, n, k) in [(1, 50, 200), (3, 33, 513), (8, 16, 128)] {
        let operands = Operands::random(&mut random, m, n, k);
        for (bias, residual) in [(false, false), (true, false), (false, true), (true, true)] {
            let layer = operands.layer(&device);
            let layer = if bias {
                layer.with_bias(&operands.bias).unwrap()
            } else {
                layer
            };
            operands.check::<f32>(&layer, bias, residual);
            operands.check::<f16>(&layer, bias, residual);
            operands.check::<bf16>(&layer, bias, residual);
        }
    }
}

#[test]
fn sums_are_exact_at_the_ends_of_their_range() {
    let device = device();
    // All products 128, and all -128: the sums of largest magnitude. Unit scales make outputs the sums.
    for (m, n, k) in [(1, 3, 4096), (1, 17, 130_944), (8, 17, 130_944)] {
        for weight in [-1, 1] {
            let packed = PackedWeights::pack(Layout::Tiled, &vec![weight; n * k], n, k).unwrap();
            let layer =
                BitLinear::from_packed(&device, &packed, &RowScales::per_tensor(n, 1.0).unwrap())
                    .unwrap();
            let input =
                QuantizedActivations::from_values(&device, &vec![-128; m * k], &vec![1.0; m], m, k)
                    .unwrap();
            let mut y = poisoned::<f32>(&device, m * n);
            layer
                .forward_quantized(&device.default_stream(), &input, &mut y)
                .unwrap();
            // 128 * 130944 < 2^24: the float is the sum.
            assert_eq!(
                y.to_vec().unwrap(),
                vec![-128.0 * f32::from(weight) * k as f32; m * n]
            );
        }
    }
}

/// At the largest K of a variant with the fewest warps: beyond it an accumulator's 64-fold sum of a row could overflow.
#[test]
fn sums_are_exact_at_the_largest_k_that_a_variant_takes() {
    let device = device();
    for (name, k) in [
        ("gemv_m1_t1_w1", 5461 * 128),
        ("gemv_m8_t2_w2", 2 * 682 * 128),
    ] {
        let variant = Gemv::named(name).unwrap();
        assert_eq!(variant.shape().max_k(), k as u64, "{name}");
        let m = variant.tokens();
        for weight in [-1, 1] {
            let packed = PackedWeights::pack(Layout::Tiled, &vec![weight; 4 * k], 4, k).unwrap();
            let scales = RowScales::per_tensor(4, 1.0).unwrap();
            let layer = BitLinear::from_packed(&device, &packed, &scales).unwrap();
            let layer = layer.with_variant(variant).unwrap();
            let values = vec![-128; m * k];
            let input =
                QuantizedActivations::from_values(&device, &values, &vec![1.0; m], m, k).unwrap();
            let mut y = poisoned::<f32>(&device, m * 4);
            layer
                .forward_quantized(&device.default_stream(), &input, &mut y)
                .unwrap();
            // A power of two times less than 2^24.
            let expected = -128.0 * f32::from(weight) * k as f32;
            assert_eq!(y.to_vec().unwrap(), vec![expected; m * 4], "{name}");
        }
    }
}

#[test]
fn a_published_shape_equals_the_reference() {
    let mut random = random();
    let operands = Operands::random(&mut random, 1, 2560, 2560);
    operands.check::<bf16>(&operands.layer(&device()), false, false);
}

#[test]
fn the_golden_products_come_out_from_both_published_layouts() {
    let device = device();
    let stream = device.default_stream();
    for (m, n, k) in [
        (1, 16, 32),
        (1, 48, 128),
        (1, 640, 2560),
        (3, 64, 6912),
        (8, 256, 512),
    ] {
        let file = Golden::open(&format!("w2a8_m{m}_n{n}_k{k}.safetensors"));
        let sums: Vec<f32> = file
            .i32("accumulator")
            .into_iter()
            .map(|sum| sum as f32)
            .collect();
        let values = file.i8("activation");

        for (layout, name) in [
            (Layout::RowMajor, "packed_row_major"),
            (Layout::Ladder, "packed_ladder"),
        ] {
            let packed = PackedWeights::from_bytes(layout, file.u8(name), n, k).unwrap();
            let run = |weight_scale: f32, token_scales: &[f32]| {
                let scales = RowScales::per_tensor(n, weight_scale).unwrap();
                let layer = BitLinear::from_packed(&device, &packed, &scales).unwrap();
                let input = QuantizedActivations::from_values(&device, &values, token_scales, m, k)
                    .unwrap();
                let mut y = poisoned::<f32>(&device, m * n);
                layer.forward_quantized(&stream, &input, &mut y).unwrap();
                y.to_vec().unwrap()
            };
            // Below 2^24 the float is the integer sum.
            assert_eq!(
                run(1.0, &vec![1.0; m]),
                sums,
                "{m} x {n} x {k} from {layout}"
            );
            for (y, expected) in run(file.f32("weight_scale")[0], &file.f32("activation_scale"))
                .iter()
                .zip(file.f32("output_f32"))
            {
                // Two roundings here and one there, of 2^-24 each.
                assert!(
                    (y - expected).abs() <= 3.0 * f32::EPSILON / 2.0 * expected.abs(),
                    "{y} and {expected}"
                );
            }
        }
    }
}

#[test]
fn a_choice_of_variants_that_do_not_fit_is_ignored_and_tuning_replaces_it() {
    let device = device();
    let layer = || BitLinear::from_weights(&device, &[0.5_f32; 48 * 256], 48, 256).unwrap();
    let chosen = layer();
    let single = |layout| {
        let variants = Gemv::all(layout).filter(|variant| variant.tokens() == 1);
        variants.max_by_key(|variant| variant.shape().threads())
    };
    let ladder = layer().with_variants(|_| single(Layout::Ladder));
    let tiled = layer().with_variants(|_| single(Layout::Tiled));
    assert_eq!(Some(tiled.variant(1)), single(Layout::Tiled));
    assert_ne!(tiled.variant(1), chosen.variant(1));
    for m in 1..=8 {
        assert_eq!(ladder.variant(m), chosen.variant(m), "{m}");
        assert!(m == 1 || tiled.variant(m) == chosen.variant(m), "{m}");
    }
    assert_eq!(tiled.with_tuning(None).variant(1), chosen.variant(1));
}
