//! Kernels against each other, on the device that there is: `BITNET_BENCH_DEVICE` (`cuda`, `emulated`), else the first GPU, else the
//! emulator.
//!
//! On a GPU the times are the device's, by events around replays of a graph, with warm caches and without programmatic launch. On the emulator criterion's times are the emulator's own, on the host's CPU: they
//! say how fast it interprets, and nothing of a GPU; its counts, which are exact, are printed before each.

use bitnet_cuda::device::{Buffer, Device, DeviceKind, Graph, Stream};
use bitnet_cuda::launch::Gemv;
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{
    BitLinear, Int8xInt2, Norm, OpError, QuantizedActivations, bitlinear_int8xint2,
    quantize_activations,
};
use bitnet_cuda::reference::RowScales;
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use half::bf16;
use std::time::Duration;

/// Launches of a graph.
const LAUNCHES: u64 = 64;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Weights that fill a GPU, or that the emulator is done with soon.
fn shape(device: &Device) -> (usize, usize) {
    match device.kind() {
        DeviceKind::Cuda => (13_824, 2560),
        DeviceKind::Emulated => (128, 1024),
    }
}

fn device() -> Device {
    let name = std::env::var("BITNET_BENCH_DEVICE").unwrap_or_else(|_| "auto".to_owned());
    let device = Device::from_name(&name)
        .unwrap_or_else(|error| panic!("BITNET_BENCH_DEVICE={name}: {error}"));
    // Launched early, kernels overlap.
    device.set_programmatic_launch(false);
    device
}

/// What criterion's times are on this device.
fn clock(device: &Device) -> &'static str {
    match device.kind() {
        DeviceKind::Cuda => "GPU time by events",
        DeviceKind::Emulated => "the emulator's wall time",
    }
}

fn measure(
    group: &mut Group<'_>,
    name: &str,
    stream: &Stream,
    mut launch: impl FnMut() -> Result<(), OpError>,
) {
    if stream.device().kind() == DeviceKind::Emulated {
        let (result, reports) = stream
            .device()
            .profile(&mut launch)
            .expect("the emulator counts");
        result.expect("the launch is valid");
        let (mut warp, mut lane, mut sectors) = (0, 0, 0);
        for report in &reports {
            warp += report.counters.warp.total;
            lane += report.counters.lane.total;
            sectors += report.counters.global.load_sectors + report.counters.global.store_sectors;
        }
        println!(
            "{name}: {} launches, {warp} warp instructions, {sectors} sectors",
            reports.len()
        );
        group.throughput(Throughput::Elements(lane));
        group.bench_function(name, |bencher| {
            bencher.iter(|| launch().expect("the launch is valid"))
        });
        return;
    }
    // Launched one by one, the kernels would wait for the host, which takes longer to submit one than most take to run.
    let graph = Graph::capture(stream, |_| (0..LAUNCHES).try_for_each(|_| launch()))
        .expect("the launch is valid");
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let replays = iterations.div_ceil(LAUNCHES);
            // Keeps the GPU busy while the first of those that are timed is submitted.
            graph.launch(stream).expect("the device works");
            let start = stream.record().expect("the device works");
            for _ in 0..replays {
                graph.launch(stream).expect("the device works");
            }
            let end = stream.record().expect("the device works");
            let milliseconds = start
                .elapsed_ms(&end)
                .expect("the device works")
                .expect("a GPU has times");
            let launches = (replays * LAUNCHES) as f64;
            Duration::from_secs_f64(f64::from(milliseconds) / 1e3 * iterations as f64 / launches)
        });
    });
}

struct Inputs {
    packed: PackedWeights,
    values: Vec<i8>,
}

impl Inputs {
    fn new((n, k): (usize, usize), m: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let ternary: Vec<i8> = (0..n * k).map(|_| random.i8(-1..=1)).collect();
        Self {
            packed: PackedWeights::pack(Layout::Tiled, &ternary, n, k).expect("ternary weights"),
            values: (0..m * k).map(|_| random.i8(..)).collect(),
        }
    }
}

/// Every variant for one token and for eight.
fn variants(criterion: &mut Criterion) {
    let device = device();
    let (stream, (n, k)) = (device.default_stream(), shape(&device));
    for m in [1, 8] {
        let mut group =
            criterion.benchmark_group(format!("gemv {m} x {n} x {k}, {}", clock(&device)));
        let inputs = Inputs::new((n, k), m);
        let scales = RowScales::per_tensor(n, 1.0).expect("a finite scale");
        let input = QuantizedActivations::from_values(&device, &inputs.values, &vec![1.0; m], m, k)
            .expect("fits");
        let mut output = Buffer::<bf16>::uninit(&device, m * n).expect("fits");
        for variant in
            Gemv::all(Layout::Tiled).filter(|variant| variant.tokens() == m && variant.fits(m, k))
        {
            let layer = BitLinear::from_packed(&device, &inputs.packed, &scales).expect("fits");
            let layer = layer
                .with_variant(variant)
                .expect("the variant takes this K");
            measure(&mut group, variant.name(), &stream, || {
                layer.forward_quantized(&stream, &input, &mut output)
            });
        }
        group.finish();
    }
}

/// The same product from this project's layout, and from Ladder by the kernel with the interface of Microsoft's.
fn layouts(criterion: &mut Criterion) {
    let device = device();
    let (stream, (n, k)) = (device.default_stream(), shape(&device));
    let mut group =
        criterion.benchmark_group(format!("layouts, 1 x {n} x {k}, {}", clock(&device)));
    let inputs = Inputs::new((n, k), 1);
    let scales = RowScales::per_tensor(n, 1.0).expect("a finite scale");
    let layer = BitLinear::from_packed(&device, &inputs.packed, &scales).expect("fits");
    let input =
        QuantizedActivations::from_values(&device, &inputs.values, &[1.0], 1, k).expect("fits");
    let mut output = Buffer::<bf16>::uninit(&device, n).expect("fits");
    measure(&mut group, "Tiled", &stream, || {
        layer.forward_quantized(&stream, &input, &mut output)
    });

    let ladder = inputs.packed.convert(Layout::Ladder).expect("fits");
    let weights = Buffer::from_slice(&device, ladder.bytes()).expect("fits");
    let activations = Buffer::from_slice(&device, &inputs.values).expect("fits");
    let one = Buffer::from_slice(&device, &[bf16::ONE]).expect("fits");
    measure(&mut group, "Ladder", &stream, || {
        let operands = Int8xInt2 {
            activations: &activations,
            weights: &weights,
            activation_scale: &one,
            row_scale: &one,
            output: &mut output,
        };
        bitlinear_int8xint2(&stream, operands, 1, n, k)
    });
    group.finish();
}

/// A norm and a quantization in one kernel, and in two.
fn fused(criterion: &mut Criterion) {
    let device = device();
    let stream = device.default_stream();
    let (m, width) = (8, 2560);
    let mut group = criterion.benchmark_group(format!(
        "rmsnorm + quantize, {m} x {width}, {}",
        clock(&device)
    ));
    let mut random = fastrand::Rng::with_seed(1);
    let host: Vec<bf16> = (0..m * width)
        .map(|_| bf16::from_f32(random.f32() - 0.5))
        .collect();
    let norm = Norm::rms(&device, width, None, 1e-5).expect("a valid norm");
    let input = Buffer::from_slice(&device, &host).expect("fits");
    let mut between = Buffer::<bf16>::uninit(&device, m * width).expect("fits");
    let mut output = QuantizedActivations::uninit(&device, m, width).expect("fits");
    measure(&mut group, "fused", &stream, || {
        norm.normalize_quantize(&stream, &input, &mut output)
    });
    measure(&mut group, "separate", &stream, || {
        norm.normalize(&stream, &input, &mut between)?;
        quantize_activations(&stream, &between, &mut output)
    });
    group.finish();
}

/// A norm, a quantization and a product of one token in one kernel, and in two; the bare product beside them.
fn fused_product(criterion: &mut Criterion) {
    let device = device();
    let (stream, (n, k)) = (device.default_stream(), shape(&device));
    let mut group = criterion.benchmark_group(format!(
        "rmsnorm + quantize + gemv, 1 x {n} x {k}, {}",
        clock(&device)
    ));
    let inputs = Inputs::new((n, k), 1);
    let scales = RowScales::per_tensor(n, 1.0).expect("a finite scale");
    let layer = BitLinear::from_packed(&device, &inputs.packed, &scales).expect("fits");
    let norm = Norm::rms(&device, k, None, 1e-5).expect("a valid norm");
    let host: Vec<bf16> = inputs
        .values
        .iter()
        .map(|&q| bf16::from_f32(f32::from(q)))
        .collect();
    let input = Buffer::from_slice(&device, &host).expect("fits");
    let mut quantized =
        QuantizedActivations::from_values(&device, &inputs.values, &[1.0], 1, k).expect("fits");
    let mut output = Buffer::<bf16>::uninit(&device, n).expect("fits");
    measure(&mut group, "fused", &stream, || {
        layer.forward_norm(&stream, &norm, &input, None, &mut output)
    });
    measure(&mut group, "separate", &stream, || {
        norm.normalize_quantize(&stream, &input, &mut quantized)?;
        layer.forward_quantized(&stream, &quantized, &mut output)
    });
    measure(&mut group, "gemv alone", &stream, || {
        layer.forward_quantized(&stream, &quantized, &mut output)
    });
    group.finish();
}

criterion_group! {
    name = kernels;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(200));
    targets = variants, layouts, fused, fused_product
}
criterion_main!(kernels);
