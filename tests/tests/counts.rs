//! What the kernels execute and move, counted by the emulator: exact, and the same on every machine.

use bitnet_cuda::device::{Buffer, Device, LaunchReport};
use bitnet_cuda::launch::Gemv;
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{BitLinear, Int8xInt2, QuantizedActivations, bitlinear_int8xint2};
use bitnet_cuda::reference::RowScales;
use half::bf16;
use integration_tests::{executed, int8, random, ternary};

/// Index of the GEMV kernels' argument `weights`.
const WEIGHTS: usize = 0;

/// The report of each launch of an `[n, k]` product with `m` tokens, on random data, and the packed weights' bytes.
fn product(m: usize, n: usize, k: usize, variant: Option<Gemv>) -> (Vec<LaunchReport>, u64) {
    let device = Device::emulated().unwrap();
    product_of(&device, Layout::Tiled, m, n, k, variant)
}

fn product_of(
    device: &Device,
    layout: Layout,
    m: usize,
    n: usize,
    k: usize,
    variant: Option<Gemv>,
) -> (Vec<LaunchReport>, u64) {
    let mut random = random();
    let packed = PackedWeights::pack(layout, &ternary(&mut random, n * k), n, k).unwrap();
    let scales = RowScales::per_tensor(n, 0.5).unwrap();
    let layer = match layout {
        Layout::Ladder => BitLinear::from_ladder(device, &packed, &scales).unwrap(),
        _ => BitLinear::from_packed(device, &packed, &scales).unwrap(),
    };
    let layer = match variant {
        Some(variant) => layer.with_variant(variant).unwrap(),
        None => layer.with_tuning(None),
    };
    let values = int8(&mut random, m * k);
    let input = QuantizedActivations::from_values(device, &values, &vec![1.0; m], m, k).unwrap();
    let mut y = Buffer::<f32>::uninit(device, m * n).unwrap();
    let stream = device.default_stream();
    let (result, reports) = device
        .profile(|| layer.forward_quantized(&stream, &input, &mut y))
        .unwrap();
    result.unwrap();
    (reports, packed.bytes().len() as u64)
}

#[test]
fn the_largest_published_layer_takes_at_most_2_5_instructions_a_dp4a() {
    let (reports, _) = product(1, 13824, 2560, None);
    let lanes = reports[0].counters.lane;
    // 16 weights meet 4 dp4a; N and K are not padded.
    assert_eq!(lanes.dp4a, 13824 * 2560 / 4);
    assert!(
        lanes.total as f64 <= 2.5 * lanes.dp4a as f64,
        "{} instructions for {} dp4a in {}",
        lanes.total,
        lanes.dp4a,
        reports[0].kernel
    );
}

#[test]
fn every_variant_reads_each_weight_byte_once_in_whole_sectors() {
    let device = Device::emulated().unwrap();
    let variants = |layout| Gemv::all(layout).map(move |variant| (layout, variant));
    for (layout, variant) in variants(Layout::Tiled).chain(variants(Layout::Ladder)) {
        // An even number of tiles, as some variants take two a block.
        let (reports, packed) =
            product_of(&device, layout, variant.tokens(), 544, 1664, Some(variant));
        assert_eq!(reports.len(), 1, "{}", variant.name());
        let weights = &reports[0].arguments[WEIGHTS];
        assert_eq!(weights.bytes_read, packed, "{}", variant.name());
        // By loads of 16 bytes per lane that leave L1 to the activations.
        let streamed: u64 = reports[0]
            .lines
            .iter()
            .filter(|line| {
                let is = |part| line.instruction.contains(part);
                is("L1::no_allocate") && is(".v4")
            })
            .map(|line| line.bytes)
            .sum();
        assert_eq!(streamed, packed, "{}", variant.name());
        let global = reports[0].counters.global;
        assert!(
            global.load_efficiency() >= 0.95,
            "{}: {}",
            variant.name(),
            global.load_efficiency()
        );
        assert_eq!(
            reports[0].counters.shared.bank_conflicts,
            0,
            "{}",
            variant.name()
        );
    }
}

/// As [`executed`], by a product on 34 tiles.
fn executed_by(device: &Device, variant: &str, text: &str) -> u64 {
    let variant = Gemv::named(variant).unwrap();
    let (n, k) = (544, 2560);
    let (reports, _) = product_of(device, Layout::Tiled, variant.tokens(), n, k, Some(variant));
    executed(&reports[0], text)
}

#[test]
fn an_early_launch_prefetches_every_tile_and_the_token_once() {
    let device = Device::emulated().unwrap();
    let bulk = |variant| executed_by(&device, variant, "cp.async.bulk.prefetch.L2");
    device.set_programmatic_launch(true);
    // One tile a block, two a block, and one for the blocks that split K.
    assert_eq!(bulk("gemv_m1_t1_w1"), 34 + 1);
    assert_eq!(bulk("gemv_m1_t2_w1"), 17 + 1);
    assert_eq!(bulk("gemv_m1_t1_w4_k2"), 34 + 1);
    // Launched in its turn, a kernel has no time for the tiles.
    device.set_programmatic_launch(false);
    assert_eq!(bulk("gemv_m1_t1_w1"), 1);
    assert_eq!(bulk("gemv_m1_t2_w1"), 1);
    assert_eq!(bulk("gemv_m1_t1_w4_k2"), 1);
}

#[test]
fn an_early_launch_for_several_tokens_prefetches_what_each_lane_loads_first() {
    let device = Device::emulated().unwrap();
    let prefetches = || executed_by(&device, "gemv_m8_t2_w4", "prefetch.global.L2");
    device.set_programmatic_launch(true);
    let early = prefetches();
    device.set_programmatic_launch(false);
    // 17 blocks; a warp loads five steps of two tiles, the first three at once.
    assert_eq!(early - prefetches(), 17 * 4 * 32 * 2 * 3);
}

#[test]
fn several_tokens_read_the_weights_as_often_as_one() {
    let device = Device::emulated().unwrap();
    let (n, k) = (1024, 2560);
    for layout in [Layout::Tiled, Layout::Ladder] {
        for m in 1..=8 {
            let (reports, packed) = product_of(&device, layout, m, n, k, None);
            assert_eq!(reports.len(), 1, "{layout} {m}");
            assert_eq!(
                reports[0].arguments[WEIGHTS].bytes_read, packed,
                "{layout} {m}"
            );
        }
    }
}

#[test]
fn an_int8xint2_product_reads_the_weights_once_for_eight_tokens() {
    let (n, k) = (64, 256);
    let device = Device::emulated().unwrap();
    let stream = device.default_stream();
    let packed = PackedWeights::pack(Layout::Ladder, &ternary(&mut random(), n * k), n, k).unwrap();
    let weights = Buffer::from_slice(&device, packed.bytes()).unwrap();
    let ones = |len| Buffer::from_slice(&device, &vec![bf16::ONE; len]).unwrap();
    for (m, passes) in [(1, 1), (2, 1), (8, 1), (9, 2)] {
        let operands = Int8xInt2 {
            activations: &Buffer::from_slice(&device, &int8(&mut random(), m * k)).unwrap(),
            weights: &weights,
            activation_scale: &ones(m),
            row_scale: &ones(1),
            output: &mut ones(m * n),
        };
        let (result, reports) = device
            .profile(|| bitlinear_int8xint2(&stream, operands, m, n, k))
            .unwrap();
        result.unwrap();
        let [report] = <[LaunchReport; 1]>::try_from(reports).unwrap();
        // The pointer in front of it is the activations'.
        let weights = &report.arguments[1];
        let bytes = passes * packed.bytes().len() as u64;
        assert_eq!(weights.bytes_read, bytes, "{m} by {}", report.kernel);
        assert_eq!(report.kernel.contains("_m8_"), m > 1, "{}", report.kernel);
    }
}

#[test]
fn eight_tokens_take_hardly_more_instructions_than_one() {
    let (n, k) = (13824, 2560);
    let total = |m| product(m, n, k, None).0[0].counters.lane.total as f64;
    let (one, eight) = (total(1), total(8));
    assert!(eight <= 1.3 * one, "{eight} and {one}");
}
