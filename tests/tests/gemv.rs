//! W2A8 products equal the reference, bit for bit: every variant, shape and output type, on the device under test.

use bitnet_cuda::device::{Buffer, Device};
use bitnet_cuda::launch::{Float, Gemv};
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{BitLinear, QuantizedActivations};
use bitnet_cuda::reference::linear::{Epilogue, Shape, accumulate, epilogue};
use bitnet_cuda::reference::{Element, RowScales};
use half::{bf16, f16};
use integration_tests::{device, floats, int8, random, ternary};

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

    fn activations(&self, device: &Device) -> QuantizedActivations {
        let Shape { m, k, .. } = self.shape;
        QuantizedActivations::from_values(device, m, k, &self.values, &self.token_scales).unwrap()
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
            let operands = Operands::random(&mut random, 3, n, k);
            let packed = PackedWeights::pack(Layout::Ladder, &operands.ternary, n, k).unwrap();
            let layer = BitLinear::from_ladder(&device, &packed, &operands.row_scales).unwrap();
            operands.check::<f32>(&layer.with_variant(variant).unwrap(), false, false);
        }
    }
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
    for (n, k) in [(3, 4096), (17, 130_944)] {
        for weight in [-1, 1] {
            let packed = PackedWeights::pack(Layout::Tiled, &vec![weight; n * k], n, k).unwrap();
            let layer =
                BitLinear::from_packed(&device, &packed, &RowScales::per_tensor(n, 1.0).unwrap())
                    .unwrap();
            let input =
                QuantizedActivations::from_values(&device, 1, k, &vec![-128; k], &[1.0]).unwrap();
            let mut y = Buffer::<f32>::uninit(&device, n).unwrap();
            layer
                .forward_quantized(&device.default_stream(), &input, &mut y)
                .unwrap();
            // 128 * 130944 < 2^24: the float is the sum.
            assert_eq!(
                y.to_vec().unwrap(),
                vec![-128.0 * f32::from(weight) * k as f32; n]
            );
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
    use safetensors::SafeTensors;
    let device = device();
    let stream = device.default_stream();
    for (m, n, k) in [
        (1, 16, 32),
        (1, 48, 128),
        (1, 640, 2560),
        (3, 64, 6912),
        (8, 256, 512),
    ] {
        let bytes = std::fs::read(format!("golden/w2a8_m{m}_n{n}_k{k}.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let data = |name: &str| file.tensor(name).unwrap().data().to_vec();
        let words = |name: &str| -> Vec<[u8; 4]> { data(name).as_chunks::<4>().0.to_vec() };
        let f32s =
            |name: &str| -> Vec<f32> { words(name).into_iter().map(f32::from_le_bytes).collect() };
        let sums: Vec<f32> = words("accumulator")
            .into_iter()
            .map(|word| i32::from_le_bytes(word) as f32)
            .collect();
        let values: Vec<i8> = data("activation").iter().map(|&byte| byte as i8).collect();

        for (layout, name) in [
            (Layout::RowMajor, "packed_row_major"),
            (Layout::Ladder, "packed_ladder"),
        ] {
            let packed = PackedWeights::from_bytes(layout, n, k, data(name)).unwrap();
            let run = |weight_scale: f32, token_scales: &[f32]| {
                let scales = RowScales::per_tensor(n, weight_scale).unwrap();
                let layer = BitLinear::from_packed(&device, &packed, &scales).unwrap();
                let input = QuantizedActivations::from_values(&device, m, k, &values, token_scales)
                    .unwrap();
                let mut y = Buffer::<f32>::uninit(&device, m * n).unwrap();
                layer.forward_quantized(&stream, &input, &mut y).unwrap();
                y.to_vec().unwrap()
            };
            // Below 2^24 the float is the integer sum.
            assert_eq!(
                run(1.0, &vec![1.0; m]),
                sums,
                "{m} x {n} x {k} from {layout}"
            );
            for (y, expected) in run(f32s("weight_scale")[0], &f32s("activation_scale"))
                .iter()
                .zip(f32s("output_f32"))
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
