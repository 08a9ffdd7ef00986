//! What the fused kernels of norm and quantization read and write: each byte once.

use bitnet_cuda::device::{Buffer, Device, DeviceKind};
use bitnet_cuda::ops::{GateUp, QuantizedActivations};
use bitnet_cuda::reference::activation::Activation;
use half::{bf16, f16};
use integration_tests::{Number, cast, device, executed, floats, random};

use super::Parameters;

/// Bytes that the launches of `work` read and wrote, all arguments together.
fn traffic(device: &Device, work: impl FnOnce()) -> Option<(u64, u64)> {
    // A GPU does not count.
    if device.kind() == DeviceKind::Cuda {
        work();
        return None;
    }
    let ((), reports) = device.profile(work).unwrap();
    assert_eq!(reports.len(), 1, "one kernel");
    let arguments = &reports[0].arguments;
    Some((
        arguments.iter().map(|argument| argument.bytes_read).sum(),
        arguments
            .iter()
            .map(|argument| argument.bytes_written)
            .sum(),
    ))
}

/// A fused operation reads its input and gamma once and writes its output once: exactly, where rows are whole chunks.
fn check_traffic<T: Number>(m: usize, width: usize) {
    let (device, mut random) = (device(), random());
    let stream = device.default_stream();
    let parameters = Parameters::random(&mut random, width);
    let x = cast::<T>(&floats(&mut random, m * width, 3.0));
    let input = Buffer::from_slice(&device, &x).unwrap();
    let mut residual = Buffer::from_slice(&device, &x).unwrap();
    let mut output = QuantizedActivations::uninit(&device, m, width).unwrap();
    let (m, k) = (m as u64, width as u64);
    // Each token's block reads gamma, which stays in the caches.
    let (tensor, gamma) = (m * k * size_of::<T>() as u64, m * k * 4);
    // int8 values, a scale and a sum.
    let quantized = m * (k.next_multiple_of(128) + 8);
    let [(_, norm), ..] = parameters.norms(&device);

    let moved = traffic(&device, || {
        norm.normalize_quantize(&stream, &input, &mut output)
            .unwrap()
    });
    let Some((read, written)) = moved else { return };
    assert_eq!((read, written), (tensor + gamma, quantized));
    // The promise, with the columns that pad the output counted against it.
    let least = tensor + gamma + m * (k + 8);
    assert!(
        100 * (read + written) <= 105 * least,
        "{} of {least} bytes",
        read + written
    );

    let (read, written) = traffic(&device, || {
        norm.add_normalize_quantize(&stream, &input, &mut residual, &mut output)
            .unwrap()
    })
    .unwrap();
    assert_eq!((read, written), (2 * tensor + gamma, tensor + quantized));

    let gate_up = GateUp::Separate {
        gate: &input,
        up: &residual,
    };
    let (read, written) = traffic(&device, || {
        norm.gated_normalize_quantize(&stream, Activation::SquaredRelu, gate_up, &mut output)
            .unwrap()
    })
    .unwrap();
    assert_eq!((read, written), (2 * tensor + gamma, quantized));
}

#[test]
fn each_byte_is_moved_once() {
    for (m, width) in [
        (1, 2560),
        (1, 8192),
        (5, 1024),
        (8, 6912),
        (2, 16_384),
        (1, 27_648),
        (2, 32_768),
        (1, 65_536),
    ] {
        check_traffic::<f32>(m, width);
        check_traffic::<f16>(m, width);
        check_traffic::<bf16>(m, width);
    }
}

/// Tokens of f16 or bf16, gamma and beta are read, and values are written, in whole sectors.
#[test]
fn every_sector_is_moved_once() {
    let (device, mut random) = (device(), random());
    if device.kind() == DeviceKind::Cuda {
        return;
    }
    let stream = device.default_stream();
    for width in [2560, 6912, 16_384, 27_648] {
        let parameters = Parameters::random(&mut random, width);
        let x = cast::<bf16>(&floats(&mut random, width, 3.0));
        let input = Buffer::from_slice(&device, &x).unwrap();
        let mut residual = Buffer::from_slice(&device, &x).unwrap();
        let mut output = QuantizedActivations::uninit(&device, 1, width).unwrap();
        for (_, norm) in parameters.norms(&device) {
            let ((), reports) = device
                .profile(|| {
                    norm.add_normalize_quantize(&stream, &input, &mut residual, &mut output)
                        .unwrap();
                    let gate_up = GateUp::Separate {
                        gate: &input,
                        up: &residual,
                    };
                    norm.gated_normalize_quantize(&stream, Activation::Silu, gate_up, &mut output)
                        .unwrap();
                })
                .unwrap();
            assert_eq!(reports.len(), 2);
            for report in reports {
                let global = report.counters.global;
                for efficiency in [global.load_efficiency(), global.store_efficiency()] {
                    assert!(
                        efficiency >= 0.95,
                        "{} of {width}: {efficiency}",
                        report.kernel
                    );
                }
            }
        }
    }
}

/// Whatever the number of tokens, the first block has L2 fetch gamma and beta.
#[test]
fn parameters_are_prefetched_once() {
    let (device, mut random) = (device(), random());
    if device.kind() == DeviceKind::Cuda {
        return;
    }
    let stream = device.default_stream();
    let (m, width) = (3, 1000);
    let parameters = Parameters::random(&mut random, width);
    let input = Buffer::from_slice(&device, &floats(&mut random, m * width, 1.0)).unwrap();
    let mut output = QuantizedActivations::uninit(&device, m, width).unwrap();
    for ((_, norm), expected) in parameters.norms(&device).into_iter().zip([1, 2, 1]) {
        let ((), reports) = device
            .profile(|| {
                norm.normalize_quantize(&stream, &input, &mut output)
                    .unwrap();
            })
            .unwrap();
        assert_eq!(executed(&reports[0], "cp.async.bulk.prefetch.L2"), expected);
    }
}

/// Of rows longer than 65,536 elements, what neither registers nor shared memory hold is read again in each step: for the mean of a
/// LayerNorm, the squares, and what is written; for quantization also for the maximum.
#[test]
fn the_rest_of_a_longer_row_is_read_in_each_step() {
    let (device, mut random) = (device(), random());
    let (kept, rest) = (65_536, 8192);
    let width = kept + rest;
    let parameters = Parameters::random(&mut random, width);
    let input = Buffer::from_slice(&device, &floats(&mut random, width, 1.0)).unwrap();
    let mut output = Buffer::<f32>::uninit(&device, width).unwrap();
    let mut quantized = QuantizedActivations::uninit(&device, 1, width).unwrap();
    let stream = device.default_stream();
    // How often the rest is read, with gamma and beta, which are needed in the last one or two steps; what is kept is read once.
    let steps = [(2 + 1, 3 + 2), (3 + 2, 4 + 4), (3 + 1, 4 + 2)];
    let once = [1 + 1, 1 + 2, 1 + 1];
    let norms = parameters.norms(&device).into_iter();
    for (((_, norm), (plain, fused)), once) in norms.zip(steps).zip(once) {
        let bytes = |times: usize| Some(4 * (once * kept + times * rest) as u64);
        let moved = traffic(&device, || {
            norm.normalize(&stream, &input, &mut output).unwrap();
        });
        let Some((read, _)) = moved else { return };
        assert_eq!(Some(read), bytes(plain));
        let moved = traffic(&device, || {
            norm.normalize_quantize(&stream, &input, &mut quantized)
                .unwrap();
        });
        assert_eq!(moved.map(|(read, _)| read), bytes(fused));
    }
}
