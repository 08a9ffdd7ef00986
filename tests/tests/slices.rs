//! Activations may be slices of a caller's tensors, which begin at any element: the result is that of aligned memory, bit for bit.

use bitnet_cuda::device::{Buffer, Stream};
use bitnet_cuda::launch::GateUp;
use bitnet_cuda::ops::{
    Activation, BitLinear, Norm, OpError, QuantizedActivations, activate, dequantize_activations,
    gated, quantize_activations,
};
use bitnet_cuda::reference::quantize::ActivationGranularity;
use half::{bf16, f16};
use integration_tests::{Number, cast, device, download, floats, int8, random};

const M: usize = 3;
/// Whole vectors, so that aligned rows are read by them.
const K: usize = 256;
const EPS: f32 = 1e-5;
const SILU: Activation = Activation::Silu;

/// On operands, and on quantized activations; it may overwrite any of them.
type Run<T> = fn(&Context, &mut [Buffer<T>], &mut QuantizedActivations) -> Result<(), OpError>;

/// An operation, and how many elements its operands have.
struct Operation<T> {
    name: &'static str,
    lens: &'static [usize],
    run: Run<T>,
}

struct Context {
    stream: Stream,
    norm: Norm,
    layer: BitLinear,
}

const ONE: usize = M * K;

fn operations<T: Number>() -> Vec<Operation<T>> {
    let operation = |name, lens, run| Operation { name, lens, run };
    vec![
        operation("quantize", &[ONE], |on, x, q| {
            quantize_activations(&on.stream, &x[0], q)
        }),
        operation("quantize per tensor", &[ONE], |on, x, q| {
            let device = on.stream.device();
            let tensor = ActivationGranularity::Tensor;
            *q = QuantizedActivations::uninit_with_granularity(device, M, K, tensor)?;
            quantize_activations(&on.stream, &x[0], q)
        }),
        operation("dequantize", &[ONE], |on, x, q| {
            dequantize_activations(&on.stream, q, &mut x[0])
        }),
        operation("activate", &[ONE; 2], |on, x, _| {
            let [input, output] = x else { unreachable!() };
            activate(&on.stream, SILU, input, output)
        }),
        operation("gated, separate", &[ONE; 3], |on, x, _| {
            let [gate, up, output] = x else {
                unreachable!()
            };
            gated(&on.stream, SILU, GateUp::Separate { gate, up }, K, output)
        }),
        operation("gated, concatenated", &[2 * ONE, ONE], |on, x, _| {
            let [both, output] = x else { unreachable!() };
            gated(&on.stream, SILU, GateUp::Concatenated(both), K, output)
        }),
        operation("gated, interleaved", &[2 * ONE, ONE], |on, x, _| {
            let [both, output] = x else { unreachable!() };
            gated(&on.stream, SILU, GateUp::Interleaved(both), K, output)
        }),
        operation("norm", &[ONE; 2], |on, x, _| {
            let [input, output] = x else { unreachable!() };
            on.norm.normalize(&on.stream, input, output)
        }),
        operation("norm of a residual", &[ONE; 3], |on, x, _| {
            let [input, residual, output] = x else {
                unreachable!()
            };
            on.norm.add_normalize(&on.stream, input, residual, output)
        }),
        operation("norm, quantized", &[ONE], |on, x, q| {
            on.norm.normalize_quantize(&on.stream, &x[0], q)
        }),
        operation("norm of a residual, quantized", &[ONE; 2], |on, x, q| {
            let [input, residual] = x else { unreachable!() };
            on.norm
                .add_normalize_quantize(&on.stream, input, residual, q)
        }),
        operation("norm of separate gate and up", &[ONE; 2], |on, x, q| {
            let (gate, up) = (&x[0], &x[1]);
            let gate_up = GateUp::Separate { gate, up };
            on.norm
                .gated_normalize_quantize(&on.stream, SILU, gate_up, q)
        }),
        operation("norm of gate and up", &[2 * ONE], |on, x, q| {
            let gate_up = GateUp::Interleaved(&x[0]);
            on.norm
                .gated_normalize_quantize(&on.stream, SILU, gate_up, q)
        }),
        operation("product", &[ONE; 2], |on, x, _| {
            let [input, output] = x else { unreachable!() };
            on.layer.forward(&on.stream, input, output)
        }),
        operation("product and residual", &[ONE; 2], |on, x, q| {
            let [residual, output] = x else {
                unreachable!()
            };
            on.layer
                .forward_residual(&on.stream, q, Some(residual), output)
        }),
        operation("product of a norm", &[K; 3], |on, x, _| {
            let [input, residual, output] = x else {
                unreachable!()
            };
            on.layer
                .forward_norm(&on.stream, &on.norm, input, Some(residual), output)
        }),
    ]
}

fn check<T: Number>() {
    let (device, mut random) = (device(), random());
    let on = Context {
        stream: device.default_stream(),
        norm: Norm::rms(&device, K, Some(&floats(&mut random, K, 1.5)), EPS).unwrap(),
        layer: BitLinear::from_weights(&device, &floats(&mut random, K * K, 0.5), K, K).unwrap(),
    };
    let values: Vec<T> = cast(&floats(&mut random, 2 * ONE, 3.0));
    for Operation { name, lens, run } in operations::<T>() {
        // What all operands and the quantized activations are afterwards, where one operand begins behind another element.
        let results = |slice: Option<usize>| {
            let first = |index| usize::from(slice == Some(index));
            let wholes: Vec<Buffer<T>> = lens
                .iter()
                .enumerate()
                .map(|(index, len)| {
                    let padded = [&values[..first(index)], &values[..*len]].concat();
                    Buffer::from_slice(&device, &padded).unwrap()
                })
                .collect();
            let views = wholes.iter().zip(lens).enumerate();
            // SAFETY: what they are parts of outlives them, and is not used meanwhile.
            let mut views: Vec<Buffer<T>> = views
                .map(|(index, (whole, &len))| unsafe {
                    let address = whole.device_ptr() + (first(index) * size_of::<T>()) as u64;
                    Buffer::from_raw(&device, address, len).unwrap()
                })
                .collect();
            let values = int8(&mut fastrand::Rng::with_seed(1), ONE);
            let mut q =
                QuantizedActivations::from_values(&device, &values, &[40.0; M], M, K).unwrap();
            run(&on, &mut views, &mut q).unwrap();
            let operands = views.iter().map(|view| view.to_vec().unwrap());
            let operands: Vec<Vec<u8>> = operands
                .map(|operand| bytemuck::cast_slice(&operand).to_vec())
                .collect();
            (operands, download(&q))
        };
        let expected = results(None);
        for operand in 0..lens.len() {
            let actual = results(Some(operand));
            assert!(actual == expected, "{name}, operand {operand}");
        }
    }
}

#[test]
fn of_f32() {
    check::<f32>();
}

#[test]
fn of_f16() {
    check::<f16>();
}

#[test]
fn of_bf16() {
    check::<bf16>();
}
