//! Eight threads on four streams of one pooled device: buffers of mixed sizes come and go while products run.
//!
//! `BITNET_SOAK=full` runs a million allocations and fifty thousand products; by default it is a tenth of that.

use bitnet_cuda::device::{Buffer, Device, MemoryPoolConfig, Stream};
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{BitLinear, QuantizedActivations};
use bitnet_cuda::reference::RowScales;
use bitnet_cuda::reference::linear::{Shape, accumulate};

const THREADS: usize = 8;
const STREAMS: usize = 4;
/// Blocks from this size on are the buddy allocator's.
const SLAB_LIMIT: usize = 1 << 20;
const LARGEST: usize = 4 << 20;
const SHAPES: [(usize, usize, usize); 4] = [(1, 16, 128), (2, 24, 96), (1, 33, 200), (5, 16, 64)];

/// A layer, its input, and its integer sums, which with scales of 1 are its output.
struct Product {
    layer: BitLinear,
    input: QuantizedActivations,
    expected: Vec<f32>,
}

fn product(device: &Device, seed: u64, (m, n, k): (usize, usize, usize)) -> Product {
    let mut random = fastrand::Rng::with_seed(seed);
    let ternary: Vec<i8> = (0..n * k).map(|_| random.i8(-1..=1)).collect();
    let values: Vec<i8> = (0..m * k).map(|_| random.i8(..)).collect();
    let sums = accumulate(&values, &ternary, Shape { m, n, k }).unwrap();
    let packed = PackedWeights::pack(Layout::Tiled, &ternary, n, k).unwrap();
    let scales = RowScales::per_tensor(n, 1.0).unwrap();
    Product {
        layer: BitLinear::from_packed(device, &packed, &scales).unwrap(),
        input: QuantizedActivations::from_values(device, &values, &vec![1.0; m], m, k).unwrap(),
        expected: sums.into_iter().map(|sum| sum as f32).collect(),
    }
}

/// One thread's share; its random numbers depend on `thread` alone.
fn work(
    device: &Device,
    stream: &Stream,
    products: &[Product],
    thread: usize,
    (allocations, ops): (usize, usize),
) {
    let mut random = fastrand::Rng::with_seed(thread as u64);
    let mut live: Vec<(Buffer<u8>, u8)> = Vec::new();
    let ratio = allocations / ops;
    for step in 0..allocations {
        // From the slabs, of all their classes, and now and then from the buddy allocator.
        let sizes = match random.u8(..) {
            0 => SLAB_LIMIT..LARGEST,
            _ => 1..1 << random.u32(4..17),
        };
        let bytes = random.usize(sizes);
        let mut buffer = Buffer::uninit(device, bytes).unwrap();
        if step % 16 == 0 {
            buffer.fill_bytes(step as u8).unwrap();
            live.push((buffer, step as u8));
        }
        if live.len() > 24 {
            let (buffer, value) = live.swap_remove(random.usize(..24));
            assert!(
                buffer.to_vec().unwrap().iter().all(|&byte| byte == value),
                "somebody else wrote to the block"
            );
        }
        if step % ratio == 0 {
            let product = &products[random.usize(..products.len())];
            let mut output = Buffer::<f32>::uninit(device, product.expected.len()).unwrap();
            product
                .layer
                .forward_quantized(stream, &product.input, &mut output)
                .unwrap();
            // The others are dropped with their work in flight.
            if step % (4 * ratio) == 0 {
                assert_eq!(output.to_vec().unwrap(), product.expected);
            }
        }
    }
}

#[test]
fn many_threads_neither_leak_nor_disturb_each_other() {
    let full = std::env::var("BITNET_SOAK").is_ok_and(|size| size == "full");
    let (allocations, ops) = if full {
        (1_000_000, 50_000)
    } else {
        (100_000, 5_000)
    };
    let share = (allocations / THREADS, ops / THREADS);
    let name = std::env::var("BITNET_TEST_DEVICE").unwrap_or_else(|_| "emulated".to_owned());
    let device = Device::from_name(&name).unwrap();
    let free_before = device.memory_info().unwrap().free_bytes;
    let config = MemoryPoolConfig {
        chunk_bytes: 8 << 20,
        ..MemoryPoolConfig::default()
    };
    let pool = device.enable_pool(config).unwrap();
    let products: Vec<_> = SHAPES
        .iter()
        .enumerate()
        .map(|(seed, &shape)| product(&device, seed as u64, shape))
        .collect();
    let streams: Vec<_> = (0..STREAMS).map(|_| device.new_stream().unwrap()).collect();
    let base = pool.metrics();

    let mut held = Vec::new();
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (device, products, stream) = (&device, &products, &streams[thread % STREAMS]);
                let half = (share.0 / 2, share.1 / 2);
                scope.spawn(move || work(device, stream, products, thread, half));
            }
        });
        device.synchronize().unwrap();
        pool.trim(usize::MAX).unwrap();
        let metrics = pool.metrics();
        assert_eq!(metrics.in_use_bytes, base.in_use_bytes);
        assert_eq!(metrics.pending_bytes, 0);
        held.push(metrics.held_bytes);
    }
    let done = pool.metrics().allocations - base.allocations;
    assert!(done >= (allocations + ops) as u64 * 9 / 10, "{done}");
    let metrics = pool.metrics();
    let of_buddy = metrics
        .histogram
        .iter()
        .filter(|(bytes, _)| *bytes >= SLAB_LIMIT);
    let large: u64 = of_buddy.map(|(_, count)| count).sum();
    assert!(large >= done / 512, "{large} of {done}");
    // By the luck of the threads' order, the second half needs at most one more of the largest blocks for each thread.
    assert!(held[1] <= held[0] + THREADS * LARGEST, "{held:?}");

    drop((products, streams));
    pool.trim(0).unwrap();
    assert_eq!(pool.metrics().held_bytes, 0);
    if name == "emulated" {
        assert_eq!(device.memory_info().unwrap().free_bytes, free_before);
    }
}
