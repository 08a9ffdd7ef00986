//! Norm, quantization and product of one token in one kernel: bit for bit the separate kernels, the quantized product of the f64 norm, and each
//! weight read once.

use bitnet_cuda::device::{Buffer, Device, EmulatedConfig, LaunchReport};
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{Activation, BitLinear, Norm, OpError, QuantizedActivations};
use bitnet_cuda::reference::linear::{Epilogue, Shape, accumulate, epilogue};
use bitnet_cuda::reference::norm::{self, normalize};
use bitnet_cuda::reference::{RowScales, fused};
use half::{bf16, f16};
use integration_tests::drawn::{self, Values};
use integration_tests::tolerance::{U, norm_bounds};
use integration_tests::{
    Number, cast, device, download, executed, floats, poisoned, poisoned_activations, random,
    ternary,
};
use proptest::prelude::*;

const EPS: f32 = 1e-5;

/// Index of `weights` among the fused kernels' buffers: after input and gamma.
const WEIGHTS: usize = 2;

/// A token, a norm and a layer.
struct Problem {
    n: usize,
    k: usize,
    x: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    ternary: Vec<i8>,
    row_scales: RowScales,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Problem {
    fn random(random: &mut fastrand::Rng, n: usize, k: usize) -> Self {
        Self {
            n,
            k,
            x: floats(random, k, 3.0),
            gamma: floats(random, k, 1.5),
            beta: floats(random, k, 0.5),
            ternary: ternary(random, n * k),
            row_scales: RowScales::per_row(&floats(random, n, 0.05)).unwrap(),
            bias: floats(random, n, 1.0),
            residual: floats(random, n, 1.0),
        }
    }

    fn layer(&self, device: &Device) -> BitLinear {
        let packed = PackedWeights::pack(Layout::Tiled, &self.ternary, self.n, self.k).unwrap();
        BitLinear::from_packed(device, &packed, &self.row_scales).unwrap()
    }

    /// RMSNorm, LayerNorm with and without bias and parameters; for the device, and for the reference.
    fn norms(&self, device: &Device) -> Vec<(Norm, norm::Norm<'_>)> {
        let Self { gamma, beta, k, .. } = self;
        let eps = f64::from(EPS);
        let rms = norm::Norm::Rms { gamma, eps };
        let layer = |beta| norm::Norm::Layer { gamma, beta, eps };
        vec![
            (Norm::rms(device, *k, Some(gamma), EPS).unwrap(), rms),
            (
                Norm::layer(device, *k, Some(gamma), None, EPS).unwrap(),
                layer(None),
            ),
            (
                Norm::layer(device, *k, Some(gamma), Some(beta), EPS).unwrap(),
                layer(Some(beta)),
            ),
        ]
    }

    /// Runs the fused kernel and compares: with the separate kernels, with the reference's product of what they quantize, and with the
    /// f64 product of the f64 norm, from which a value may be half a step off.
    fn check<X: Number, Y: Number>(
        &self,
        layer: &BitLinear,
        (norm, reference): &(Norm, norm::Norm<'_>),
        bias: bool,
        residual: bool,
    ) {
        let &Self { n, k, .. } = self;
        let device = layer.device().clone();
        let stream = device.default_stream();
        let x = cast::<X>(&self.x);
        let input = Buffer::from_slice(&device, &x).unwrap();
        let residual = residual.then(|| cast::<Y>(&self.residual));
        let residual_buffer = residual
            .as_ref()
            .map(|residual| Buffer::from_slice(&device, residual).unwrap());

        // An early launch takes another path to the loads.
        let default = device.programmatic_launch();
        let [actual, other] = [default, !default].map(|early| {
            device.set_programmatic_launch(early);
            let mut output = poisoned::<Y>(&device, n);
            layer
                .forward_norm(&stream, norm, &input, residual_buffer.as_ref(), &mut output)
                .unwrap();
            output.to_vec().unwrap()
        });
        device.set_programmatic_launch(default);

        let mut quantized = poisoned_activations(&stream, 1, k);
        norm.normalize_quantize(&stream, &input, &mut quantized)
            .unwrap();
        let mut separate = poisoned::<Y>(&device, n);
        layer
            .forward_residual(&stream, &quantized, residual_buffer.as_ref(), &mut separate)
            .unwrap();
        let what = format!("{n} x {k}");
        assert!(bits(&actual) == bits(&other), "{what}");
        assert!(bits(&actual) == bits(&separate.to_vec().unwrap()), "{what}");

        let q = download(&quantized);
        let wide: Option<Vec<f32>> = residual.map(|r| r.iter().map(|r| r.to_f32()).collect());
        let terms = Epilogue {
            activation_scales: &q.scales,
            row_scales: &self.row_scales,
            bias: bias.then_some(&self.bias[..]),
            residual: wide.as_deref(),
        };
        let sums = accumulate(&q.values, &self.ternary, Shape { m: 1, n, k }).unwrap();
        let expected: Vec<Y> = epilogue(&sums, 1, n, &terms).unwrap();
        assert!(bits(&actual) == bits(&expected), "{what}");

        let normalized = normalize(&x, 1, k, reference).unwrap();
        let norm_bounds = norm_bounds(&x, reference, &normalized);
        let row_scales = self.row_scales.expand();
        for (row, y) in actual.iter().enumerate() {
            let weights = &self.ternary[row * k..(row + 1) * k];
            let scale = f64::from(row_scales[row]);
            let terms = || normalized.iter().zip(&norm_bounds).zip(weights);
            let mut truth = scale * terms().map(|((x, _), &w)| x * f64::from(w)).sum::<f64>();
            // The norm's own error, and half a step of the quantization.
            let mut bound = scale.abs()
                * terms()
                    .map(|((_, bound), &w)| {
                        (bound + 0.5 / f64::from(q.scales[0])) * f64::from(w.abs())
                    })
                    .sum::<f64>();
            let mut magnitude = scale.abs()
                * terms()
                    .map(|((x, _), &w)| x.abs() * f64::from(w.abs()))
                    .sum::<f64>();
            if bias {
                truth += f64::from(self.bias[row]);
                magnitude += f64::from(self.bias[row].abs());
            }
            if let Some(wide) = &wide {
                truth += f64::from(wide[row]);
                magnitude += f64::from(wide[row].abs());
            }
            // The quantization's two products, the epilogue's quotient, product and two sums.
            bound += 8.0 * U * magnitude;
            // The output's type.
            bound += truth.abs() / 256.0;
            assert!(
                (f64::from(y.to_f32()) - truth).abs() <= 1.01 * bound,
                "{what}, row {row}: {y} is not {truth} within {bound}",
                y = y.to_f32()
            );
        }
    }
}

fn bits<T: bytemuck::Pod>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// Around the padding of the layout, whole chunks of 8 or not, in registers or not, with less than a tile and several.
const SHAPES: [(usize, usize); 14] = [
    (1, 1),
    (7, 8),
    (16, 127),
    (17, 128),
    (33, 129),
    (31, 255),
    (48, 384),
    (113, 640),
    (64, 2048),
    (160, 2560),
    (19, 2561),
    (32, 8192),
    (15, 8200),
    (18, 20_480),
];

#[test]
fn every_shape_is_the_separate_kernels_and_the_reference() {
    let (device, mut random) = (device(), random());
    for (n, k) in SHAPES {
        let problem = Problem::random(&mut random, n, k);
        let layer = problem.layer(&device);
        for norm in problem.norms(&device) {
            problem.check::<f32, f32>(&layer, &norm, false, false);
            problem.check::<bf16, bf16>(&layer, &norm, false, true);
        }
        let layer = layer.with_bias(&problem.bias).unwrap();
        for norm in problem.norms(&device) {
            problem.check::<f16, f16>(&layer, &norm, true, true);
            problem.check::<bf16, f32>(&layer, &norm, true, false);
        }
    }
}

#[test]
fn a_grid_that_walks_over_many_rows_does_so_too() {
    let (device, mut random) = (device(), random());
    // More groups of rows than blocks that can run at once; with one tile a group, and with two.
    for (n, k) in [(70_001, 9), (280_001, 128)] {
        let problem = Problem::random(&mut random, n, k);
        let layer = problem.layer(&device);
        let norms = problem.norms(&device);
        problem.check::<f16, bf16>(&layer, &norms[0], false, false);
    }
}

#[test]
fn random_shapes_and_values_equal_the_separate_kernels() {
    let device = device();
    drawn::runner(24)
        .run(
            &(
                drawn::size(70),
                drawn::size(4200),
                Values::any(),
                any::<u64>(),
            ),
            |(n, k, values, seed)| {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut problem = Problem::random(&mut random, n, k);
                problem.x = values.of(&mut random, 1, k);
                let layer = problem.layer(&device);
                for norm in problem.norms(&device) {
                    problem.check::<f32, bf16>(&layer, &norm, false, false);
                    problem.check::<f16, f32>(&layer, &norm, false, true);
                }
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn an_activation_function_follows_the_bias() {
    let (device, mut random) = (device(), random());
    let problem = Problem::random(&mut random, 40, 300);
    let stream = device.default_stream();
    let (norm, _) = problem.norms(&device).remove(0);
    let input = Buffer::from_slice(&device, &problem.x).unwrap();
    let mut quantized = poisoned_activations(&stream, 1, 300);
    norm.normalize_quantize(&stream, &input, &mut quantized)
        .unwrap();
    for activation in Activation::ALL {
        let layer = problem.layer(&device).with_bias(&problem.bias).unwrap();
        let layer = layer.with_activation(activation);
        let mut separate = poisoned::<f32>(&device, 40);
        layer
            .forward_quantized(&stream, &quantized, &mut separate)
            .unwrap();
        let mut fused = poisoned::<f32>(&device, 40);
        layer
            .forward_norm(&stream, &norm, &input, None, &mut fused)
            .unwrap();
        assert!(bits(&fused.to_vec().unwrap()) == bits(&separate.to_vec().unwrap()));
    }
}

#[test]
fn a_nan_or_an_infinity_makes_nan_of_all_outputs() {
    let (device, mut random) = (device(), random());
    for special in [f32::NAN, f32::INFINITY] {
        let mut problem = Problem::random(&mut random, 20, 300);
        problem.x[17] = special;
        let layer = problem.layer(&device);
        for (norm, _) in problem.norms(&device) {
            let input = Buffer::from_slice(&device, &problem.x).unwrap();
            let mut y = poisoned::<f32>(&device, 20);
            layer
                .forward_norm(&device.default_stream(), &norm, &input, None, &mut y)
                .unwrap();
            assert!(y.to_vec().unwrap().iter().all(|y| y.is_nan()));
        }
    }
}

#[test]
fn several_tokens_and_wide_ones_go_through_two_kernels() {
    let mut random = random();
    // With the sums of two groups, and what the norm takes, a block's 64 KiB have room for 498 steps of 128 features.
    for (compute_capability, m, n, k, kernels) in [
        ((9, 0), 1, 5, 300_000, 2..=4),
        ((9, 0), 2, 40, 300, 2..=4),
        ((7, 5), 1, 5, 63_744, 1..=1),
        ((7, 5), 1, 5, 63_745, 2..=4),
    ] {
        let device = Device::emulated_with(EmulatedConfig {
            compute_capability,
            ..EmulatedConfig::default()
        })
        .unwrap();
        let x = floats(&mut random, m * k, 2.0);
        let gamma = floats(&mut random, k, 1.0);
        let ternary = ternary(&mut random, n * k);
        let scales = RowScales::per_tensor(n, 0.5).unwrap();
        let packed = PackedWeights::pack(Layout::Tiled, &ternary, n, k).unwrap();
        let layer = BitLinear::from_packed(&device, &packed, &scales).unwrap();
        let norm = Norm::rms(&device, k, Some(&gamma), EPS).unwrap();
        let input = Buffer::from_slice(&device, &x).unwrap();
        let mut y = poisoned::<f32>(&device, m * n);
        let stream = device.default_stream();
        let (result, reports) = device
            .profile(|| layer.forward_norm(&stream, &norm, &input, None, &mut y))
            .unwrap();
        result.unwrap();
        assert!(kernels.contains(&reports.len()), "{m} x {n} x {k}");

        let mut quantized = QuantizedActivations::uninit(&device, m, k).unwrap();
        norm.normalize_quantize(&stream, &input, &mut quantized)
            .unwrap();
        let q = download(&quantized);
        let eps = f64::from(EPS);
        let reference = norm::Norm::Rms { gamma: &gamma, eps };
        let near = fused::norm_quantize(&x, m, k, &reference).unwrap();
        let off = |(a, b): (&i8, &i8)| a.abs_diff(*b);
        assert!(q.values.iter().zip(&near.values).map(off).max() <= Some(1));
        let sums = accumulate(&q.values, &ternary, Shape { m, n, k }).unwrap();
        let terms = Epilogue {
            activation_scales: &q.scales,
            row_scales: &scales,
            bias: None,
            residual: None,
        };
        let expected: Vec<f32> = epilogue(&sums, m, n, &terms).unwrap();
        assert_eq!(y.to_vec().unwrap(), expected);
    }
}

fn counted(n: usize, k: usize, early: bool) -> (LaunchReport, u64) {
    let (device, mut random) = (Device::emulated().unwrap(), random());
    device.set_programmatic_launch(early);
    let problem = Problem::random(&mut random, n, k);
    let layer = problem.layer(&device);
    let (norm, _) = problem.norms(&device).remove(0);
    let input = Buffer::from_slice(&device, &cast::<bf16>(&problem.x)).unwrap();
    let mut y = poisoned::<bf16>(&device, n);
    let stream = device.default_stream();
    let (result, reports) = device
        .profile(|| layer.forward_norm(&stream, &norm, &input, None, &mut y))
        .unwrap();
    result.unwrap();
    let [report] = <[LaunchReport; 1]>::try_from(reports).unwrap();
    (report, layer.weight_bytes() as u64)
}

#[test]
fn each_weight_is_read_once_and_shared_memory_has_no_conflicts() {
    for (n, k) in [(2560, 2560), (1600, 6912), (13824, 2560), (100, 20_480)] {
        let (report, weights) = counted(n, k, true);
        let counters = &report.counters;
        let traffic = &report.arguments[WEIGHTS];
        assert_eq!(traffic.bytes_read, weights, "{n} x {k}");
        // In whole sectors.
        assert_eq!(32 * traffic.sectors_read, weights, "{n} x {k}");
        assert_eq!(counters.shared.bank_conflicts, 0, "{n} x {k}");
        // Of the product, and two a chunk and block for the sum of the values.
        let blocks = u64::from(report.config.grid[0]);
        assert_eq!(
            counters.lane.dp4a,
            (n.next_multiple_of(16) * k / 4) as u64 + blocks * (k / 4) as u64,
            "{n} x {k}"
        );
    }
}

#[test]
fn an_early_launch_prefetches_the_weights_of_each_block_and_gamma() {
    let bulk = |n, k, early| {
        let (report, _) = counted(n, k, early);
        (
            report.config.grid[0],
            executed(&report, "cp.async.bulk.prefetch.L2"),
        )
    };
    assert_eq!(bulk(2560, 2560, true), (80, 80 + 1));
    assert_eq!(bulk(100, 20_480, true), (7, 7 + 1));
    // Launched in its turn, a kernel has loaded gamma with the token, unless the token is wide.
    assert_eq!(bulk(2560, 2560, false), (80, 0));
    assert_eq!(bulk(100, 20_480, false), (7, 1));
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let (device, mut random) = (device(), random());
    let problem = Problem::random(&mut random, 20, 300);
    let layer = problem.layer(&device);
    let stream = device.default_stream();
    let (norm, _) = problem.norms(&device).remove(0);
    let input = Buffer::from_slice(&device, &problem.x).unwrap();
    let mut y = poisoned::<f32>(&device, 20);

    let narrow = Norm::rms(&device, 299, None, EPS).unwrap();
    let error = layer.forward_norm(&stream, &narrow, &input, None, &mut y);
    assert!(
        matches!(
            error,
            Err(OpError::Dimension {
                expected: 300,
                actual: 299,
                ..
            })
        ),
        "{error:?}"
    );
    let short = Buffer::from_slice(&device, &problem.x[..299]).unwrap();
    let error = layer.forward_norm(&stream, &norm, &short, None, &mut y);
    assert!(
        matches!(
            error,
            Err(OpError::Tokens {
                name: "input",
                actual: 299,
                width: 300
            })
        ),
        "{error:?}"
    );
    let empty = Buffer::<f32>::uninit(&device, 0).unwrap();
    let error = layer.forward_norm(&stream, &norm, &empty, None, &mut y);
    assert!(
        matches!(error, Err(OpError::Tokens { actual: 0, .. })),
        "{error:?}"
    );
    let mut short = poisoned::<f32>(&device, 19);
    let error = layer.forward_norm(&stream, &norm, &input, None, &mut short);
    assert!(
        matches!(error, Err(OpError::Length { name: "output", .. })),
        "{error:?}"
    );
    let residual = Buffer::from_slice(&device, &[0.0_f32; 21]).unwrap();
    let error = layer.forward_norm(&stream, &norm, &input, Some(&residual), &mut y);
    assert!(
        matches!(
            error,
            Err(OpError::Length {
                name: "residual",
                ..
            })
        ),
        "{error:?}"
    );
}
