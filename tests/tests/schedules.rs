//! The order in which warps and blocks run changes no bit of any kernel's result, and no check of the emulator finds anything in any order.

use std::collections::BTreeSet;

use bitnet_cuda::device::{Buffer, Device, EmulatedConfig, Stream};
use bitnet_cuda::launch::{Float, GateUp, Gemv, Int8xInt2, ptx_for};
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{
    self, BitLinear, Norm, QuantizedActivations, TernaryWeights, WeightQuantizer,
    dequantize_activations, quantize_activations, quantize_weights,
};
use bitnet_cuda::reference::activation::Activation;
use bitnet_cuda::reference::quantize::{ActivationGranularity, WeightGranularity};
use bitnet_cuda::reference::{Element, RowScales};
use bytemuck::Pod;
use half::{bf16, f16};
use integration_tests::{cast, floats, int8, ternary};

const SEEDS: u64 = 16;
/// The same inputs for every schedule.
const DATA_SEED: u64 = 7;

/// What a schedule gave: the bytes of each output, with a name.
#[derive(Default)]
struct Results(Vec<(String, Vec<u8>)>);

impl Results {
    fn add<T: Pod>(&mut self, name: impl Into<String>, buffer: &Buffer<T>) {
        let bytes = bytemuck::cast_slice(&buffer.to_vec().unwrap()).to_vec();
        self.0.push((name.into(), bytes));
    }

    fn add_activations(&mut self, name: &str, activations: &QuantizedActivations) {
        self.add(format!("{name}: values"), activations.values());
        self.add(format!("{name}: scales"), activations.scales());
        self.add(format!("{name}: sums"), activations.sums());
    }
}

fn device(compute_capability: (u32, u32), seed: Option<u64>) -> Device {
    Device::emulated_with(EmulatedConfig {
        compute_capability,
        seed,
        ..EmulatedConfig::default()
    })
    .unwrap()
}

/// Runs `work` in ascending order and in sixteen others. The kernels that it launched.
fn in_every_order(
    compute_capability: (u32, u32),
    work: fn(&Stream, &mut fastrand::Rng, &mut Results),
) -> BTreeSet<String> {
    let run = |seed| {
        let device = device(compute_capability, seed);
        let mut results = Results::default();
        let ((), reports) = device
            .profile(|| {
                let mut random = fastrand::Rng::with_seed(DATA_SEED);
                work(&device.default_stream(), &mut random, &mut results);
            })
            .unwrap();
        (results.0, reports)
    };
    let (expected, reports) = run(None);
    for seed in 0..SEEDS {
        for ((name, bytes), (_, want)) in run(Some(seed)).0.iter().zip(&expected) {
            assert!(bytes == want, "{name} depends on the schedule: seed {seed}");
        }
    }
    assert!(!expected.is_empty());
    reports.into_iter().map(|report| report.kernel).collect()
}

fn products(stream: &Stream, random: &mut fastrand::Rng, results: &mut Results) {
    let device = stream.device();
    let (n, k) = (70, 1152);
    let packed = PackedWeights::pack(Layout::Tiled, &ternary(random, n * k), n, k).unwrap();
    let scales = RowScales::per_row(&floats(random, n, 0.05)).unwrap();
    let bias = floats(random, n, 1.0);
    for layout in [Layout::Tiled, Layout::Ladder] {
        for variant in Gemv::all(layout) {
            let m = variant.tokens();
            let values = int8(random, m * k);
            let input =
                QuantizedActivations::from_values(device, &values, &vec![1.5; m], m, k).unwrap();
            let layer = match layout {
                Layout::Ladder => {
                    let packed = packed.convert(Layout::Ladder).unwrap();
                    BitLinear::from_ladder(device, &packed, &scales).unwrap()
                }
                _ => BitLinear::from_packed(device, &packed, &scales).unwrap(),
            };
            let layer = layer
                .with_variant(variant)
                .unwrap()
                .with_bias(&bias)
                .unwrap();
            let mut output = Buffer::<bf16>::uninit(device, m * n).unwrap();
            layer
                .forward_quantized(stream, &input, &mut output)
                .unwrap();
            results.add(variant.name(), &output);
        }
    }
}

/// Microsoft's interface: the variant follows from the number of tokens and K.
fn ladder_products(stream: &Stream, random: &mut fastrand::Rng, results: &mut Results) {
    for k in [256, 768, 1536, 8192, 32_768] {
        for m in [1, 10] {
            ladder_product(stream, random, results, m, k);
        }
    }
}

fn ladder_product(
    stream: &Stream,
    random: &mut fastrand::Rng,
    results: &mut Results,
    m: usize,
    k: usize,
) {
    let device = stream.device();
    let n = 48;
    let packed = PackedWeights::pack(Layout::Ladder, &ternary(random, n * k), n, k).unwrap();
    let weights = Buffer::from_slice(device, packed.bytes()).unwrap();
    let activations = Buffer::from_slice(device, &int8(random, m * k)).unwrap();
    let scales: Vec<bf16> = cast(&floats(random, m, 3.0));
    let mut output = Buffer::uninit(device, m * n).unwrap();
    let operands = Int8xInt2 {
        activations: &activations,
        weights: &weights,
        activation_scale: &Buffer::from_slice(device, &scales).unwrap(),
        row_scale: &Buffer::from_slice(device, &[bf16::ONE]).unwrap(),
        output: &mut output,
    };
    ops::bitlinear_int8xint2(stream, operands, m, n, k).unwrap();
    results.add(format!("int8xint2 {m} {k}"), &output);
}

/// Norm, quantization and product in one kernel: rows in registers, and wide ones.
fn normed_products(stream: &Stream, random: &mut fastrand::Rng, results: &mut Results) {
    for (n, k) in [(40, 256), (40, 257)] {
        normed_product(stream, random, results, n, k);
    }
}

/// With so many rows that the variant for two tiles is chosen.
fn large_normed_product(stream: &Stream, random: &mut fastrand::Rng, results: &mut Results) {
    normed_product(stream, random, results, 16_384, 2560);
}

fn normed_product(
    stream: &Stream,
    random: &mut fastrand::Rng,
    results: &mut Results,
    n: usize,
    k: usize,
) {
    let device = stream.device();
    let packed = PackedWeights::pack(Layout::Tiled, &ternary(random, n * k), n, k).unwrap();
    let scales = RowScales::per_tensor(n, 0.5).unwrap();
    let layer = BitLinear::from_packed(device, &packed, &scales).unwrap();
    let norm = Norm::rms(device, k, Some(&floats(random, k, 2.0)), 1e-5).unwrap();
    let input = Buffer::from_slice(device, &floats(random, k, 4.0)).unwrap();
    let mut output = Buffer::<f32>::uninit(device, n).unwrap();
    layer
        .forward_norm(stream, &norm, &input, None, &mut output)
        .unwrap();
    results.add(format!("norm and product {n} x {k}"), &output);
}

/// Widths of every row-wise variant: in registers, with an odd width, several chunks a thread, wide.
const WIDTHS: [usize; 6] = [264, 2561, 8200, 16_400, 24_584, 33_000];

fn norms(stream: &Stream, random: &mut fastrand::Rng, results: &mut Results) {
    let device = stream.device();
    let m = 2;
    for k in WIDTHS {
        let upload = |random: &mut fastrand::Rng| {
            Buffer::from_slice(device, &cast::<f16>(&floats(random, m * k, 3.0))).unwrap()
        };
        let (input, mut residual, up) = (upload(random), upload(random), upload(random));
        let beta = floats(random, k, 1.0);
        let norm = Norm::layer(device, k, None, Some(&beta), 1e-5).unwrap();
        let mut output = Buffer::<f16>::uninit(device, m * k).unwrap();
        norm.normalize(stream, &input, &mut output).unwrap();
        results.add(format!("norm {k}"), &output);
        let mut quantized = QuantizedActivations::uninit(device, m, k).unwrap();
        norm.add_normalize_quantize(stream, &input, &mut residual, &mut quantized)
            .unwrap();
        results.add(format!("residual {k}"), &residual);
        results.add_activations(&format!("norm and quantize {k}"), &quantized);
        let gate_up = GateUp::Separate {
            gate: &input,
            up: &up,
        };
        norm.gated_normalize_quantize(stream, Activation::Silu, gate_up, &mut quantized)
            .unwrap();
        results.add_activations(&format!("gate, norm and quantize {k}"), &quantized);
    }
}

fn quantizations(stream: &Stream, random: &mut fastrand::Rng, results: &mut Results) {
    let device = stream.device();
    let m = 2;
    for k in WIDTHS {
        let input = Buffer::from_slice(device, &floats(random, m * k, 3.0)).unwrap();
        for granularity in [ActivationGranularity::Token, ActivationGranularity::Tensor] {
            let mut quantized =
                QuantizedActivations::uninit_with_granularity(device, m, k, granularity).unwrap();
            quantize_activations(stream, &input, &mut quantized).unwrap();
            results.add_activations(&format!("quantize {k} {granularity:?}"), &quantized);
            let mut back = Buffer::<f32>::uninit(device, m * k).unwrap();
            dequantize_activations(stream, &quantized, &mut back).unwrap();
            results.add(format!("dequantize {k} {granularity:?}"), &back);
        }
    }
    let mut output = Buffer::<bf16>::uninit(device, 1000).unwrap();
    let input = Buffer::from_slice(device, &cast::<bf16>(&floats(random, 1000, 3.0))).unwrap();
    ops::activate(stream, Activation::GeluTanh, &input, &mut output).unwrap();
    results.add("activation", &output);
}

fn weights(stream: &Stream, random: &mut fastrand::Rng, results: &mut Results) {
    fn one<T: Float + Element>(
        stream: &Stream,
        random: &mut fastrand::Rng,
        results: &mut Results,
        quantizer: WeightQuantizer,
    ) {
        let device = stream.device();
        let (n, k) = (37, 300);
        let weights = Buffer::from_slice(device, &cast::<T>(&floats(random, n * k, 0.1))).unwrap();
        for granularity in [WeightGranularity::Tensor, WeightGranularity::Channel] {
            let quantized =
                quantize_weights(stream, &weights, n, k, quantizer, granularity).unwrap();
            results.add(
                format!("{quantizer:?} {granularity:?}"),
                quantized.weights().bytes(),
            );
            let mut back = Buffer::<T>::uninit(device, n * k).unwrap();
            quantized.dequantize(stream, &mut back).unwrap();
            results.add(format!("{quantizer:?} {granularity:?}, back"), &back);
        }
    }
    one::<f32>(stream, random, results, WeightQuantizer::Ternary);
    one::<bf16>(stream, random, results, WeightQuantizer::Binary);
    let device = stream.device();
    let (n, k) = (37, 300);
    let values = Buffer::from_slice(device, &ternary(random, n * k)).unwrap();
    for (from, to) in [
        (Layout::Tiled, Layout::Ladder),
        (Layout::Ladder, Layout::RowMajor),
        (Layout::RowMajor, Layout::Tiled),
    ] {
        let packed = TernaryWeights::pack(stream, from, &values, n, k).unwrap();
        results.add(format!("{from:?}"), packed.bytes());
        results.add(
            format!("{from:?} to {to:?}"),
            packed.convert(stream, to).unwrap().bytes(),
        );
        let mut unpacked = Buffer::uninit(device, n * k).unwrap();
        packed.unpack(stream, &mut unpacked).unwrap();
        results.add(format!("{from:?}, back"), &unpacked);
    }
}

#[test]
fn sixteen_schedules_give_the_same_bits_for_every_kernel() {
    let mut launched = BTreeSet::new();
    for work in [
        products,
        ladder_products,
        normed_products,
        norms,
        quantizations,
        weights,
    ] {
        launched.extend(in_every_order((9, 0), work));
    }
    // A smaller GPU has enough rows earlier.
    launched.extend(in_every_order((7, 5), large_normed_product));
    let (_, ptx) = ptx_for((9, 0)).unwrap();
    let entries: BTreeSet<String> = ptx
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(".visible .entry "))
        .filter_map(|line| line.split('(').next())
        .map(|name| name.trim().to_owned())
        .collect();
    assert!(entries.len() > 40, "{entries:?}");
    let missing: Vec<_> = entries.difference(&launched).collect();
    assert!(missing.is_empty(), "never launched: {missing:?}");
}
