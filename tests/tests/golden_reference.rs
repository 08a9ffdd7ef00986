//! The CPU reference and the weight layouts against the golden files, tensor by tensor.
//!
//! The files are NumPy's answers (`golden/make_golden.py`) and share no code with what is tested. Integers, scales and
//! packed bytes must be equal bit for bit. Floats that NumPy computed in f64 and rounded once to f32 may differ by the
//! rounding and by what the two libraries' `exp`, `tanh` and `erf` differ in f64; each comparison states its bound.
//! A tensor that no test takes is an error, so that nothing in a file goes unchecked.

use std::fs;

use approx::assert_relative_eq;
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::reference::activation::{Activation, activate, gated};
use bitnet_cuda::reference::fused::bit_linear;
use bitnet_cuda::reference::linear::{Epilogue, Shape, accumulate, epilogue, linear_f64};
use bitnet_cuda::reference::norm::{Norm, normalize};
use bitnet_cuda::reference::quantize::{
    ActivationGranularity, WeightGranularity, quantize_activations, quantize_weights_ternary,
};
use bitnet_cuda::reference::{Element, RowScales};
use bitnet_cuda::tensor_file::TensorFile;
use half::bf16;
use integration_tests::golden::{self, Golden};

/// Half a unit in the last place of f32, relative: what one rounding of the f64 truth costs.
const HALF_ULP: f64 = 1.0 / (1 << 24) as f64;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Each golden f32 is within `ulps` halves of a unit of our f64 value, or within `f32::MIN_POSITIVE / 2^24` of it
/// where it is subnormal.
#[track_caller]
fn assert_rounded(ours: &[f64], golden: &[f32], half_ulps: f64) {
    assert_eq!(ours.len(), golden.len());
    for (&ours, &golden) in ours.iter().zip(golden) {
        assert_relative_eq!(
            ours,
            f64::from(golden),
            max_relative = half_ulps * HALF_ULP,
            epsilon = f64::from(f32::MIN_POSITIVE) * HALF_ULP
        );
    }
}

#[test]
fn w2a8_files() {
    let mut files: Vec<_> = fs::read_dir(golden::folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("w2a8_"))
        .collect();
    files.sort();
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        check_w2a8(&file);
    }
}

fn check_w2a8(file: &str) {
    let golden = Golden::open(file);
    let weights = golden.i8("weight");
    let activations = golden.i8("activation");
    let ([n, k], [m, _]) = (
        <[usize; 2]>::try_from(golden.shape("weight")).unwrap(),
        <[usize; 2]>::try_from(golden.shape("activation")).unwrap(),
    );
    let shape = Shape { m, n, k };
    assert_eq!(file, format!("w2a8_m{m}_n{n}_k{k}.safetensors"));

    for (layout, name) in [
        (Layout::Ladder, "packed_ladder"),
        (Layout::RowMajor, "packed_row_major"),
    ] {
        let expected = golden.u8(name);
        let packed = PackedWeights::pack(layout, &weights, n, k).unwrap();
        assert_eq!(packed.bytes(), expected, "{file} {name}");
        let read = PackedWeights::from_bytes(layout, expected, n, k).unwrap();
        assert_eq!(read.unpack(), weights, "{file} {name}");
        let tiled = read.convert(Layout::Tiled).unwrap();
        assert_eq!(tiled.unpack(), weights, "{file} {name} through Tiled");
    }

    let acc = accumulate(&activations, &weights, shape).unwrap();
    assert_eq!(acc, golden.i32("accumulator"), "{file}");

    let row_scales = RowScales::per_tensor(n, golden.f32("weight_scale")[0]).unwrap();
    let terms = Epilogue {
        activation_scales: &golden.f32("activation_scale"),
        row_scales: &row_scales,
        bias: None,
        residual: None,
    };
    let expected = golden.f32("output_f32");
    // The f64 formula is NumPy's, operation for operation.
    let truth = linear_f64(&activations, &weights, shape, &terms).unwrap();
    let rounded: Vec<f32> = truth.iter().map(|&y| y as f32).collect();
    assert_eq!(bits(&rounded), bits(&expected), "{file}");
    // In f32: one rounding each for the quotient and the product (the sums here are below 2^24, so exact), and the
    // golden value's own.
    assert!(acc.iter().all(|acc| acc.abs() < 1 << 24));
    let f32_order: Vec<f32> = epilogue(&acc, m, n, &terms).unwrap();
    let f32_order: Vec<f64> = f32_order.into_iter().map(f64::from).collect();
    assert_rounded(&f32_order, &expected, 3.01);
    golden.finish();
}

#[test]
fn elementwise_file() {
    let golden = Golden::open("elementwise.safetensors");
    let x = golden.f32("x");
    let [m, k] = golden.shape("x").try_into().unwrap();

    check_quantized(&golden, &x, m, k, "quantized", "quantized_scale");
    let x_bf16 = golden.take("x_bf16_bits", |b| bf16::from_bits(u16::from_le_bytes(b)));
    check_quantized(
        &golden,
        &x_bf16,
        m,
        k,
        "quantized_from_bf16",
        "quantized_from_bf16_scale",
    );
    let rounded: Vec<_> = x.iter().map(|&x| bf16::from_f32(x)).collect();
    assert_eq!(rounded, x_bf16);

    let weight = golden.f32("weight");
    let [rows, columns] = golden.shape("weight").try_into().unwrap();
    let quantized =
        quantize_weights_ternary(&weight, rows, columns, WeightGranularity::Tensor).unwrap();
    assert_eq!(quantized.values, golden.i8("weight_ternary"));
    let expected = bits(&golden.f32("weight_scale"));
    assert_eq!(vec![expected[0]; rows], bits(&quantized.scales.expand()));

    let (gamma, beta) = (golden.f32("gamma"), golden.f32("beta"));
    let rms = Norm::Rms {
        gamma: &gamma,
        eps: 1e-5,
    };
    let layer = Norm::Layer {
        gamma: &gamma,
        beta: Some(&beta),
        eps: 1e-5,
    };
    // The golden value's rounding, and a margin of 1e-9 for f64 sums in another order. Where LayerNorm's two terms
    // cancel, the margin is that of the larger one.
    let rms = normalize(&x, m, k, &rms).unwrap();
    assert_rounded(&rms, &golden.f32("rms_norm_eps1e-5"), 1.01);
    let layer = normalize(&x, m, k, &layer).unwrap();
    assert_rounded(&layer, &golden.f32("layer_norm_eps1e-5"), 1.01);

    let (gate, up) = (golden.f32("gate"), golden.f32("up"));
    for (activation, name) in [
        (Activation::SquaredRelu, "relu2"),
        (Activation::Silu, "silu"),
        (Activation::GeluErf, "gelu_erf"),
        (Activation::GeluTanh, "gelu_tanh"),
    ] {
        assert_rounded_gelu(
            activation,
            &activate(activation, &gate),
            &golden.f32(name),
            &gate,
        );
        let scale: Vec<_> = gate.iter().zip(&up).map(|(gate, up)| gate * up).collect();
        let ours = gated(activation, &gate, &up).unwrap();
        assert_rounded_gelu(
            activation,
            &ours,
            &golden.f32(&format!("{name}_times_up")),
            &scale,
        );
    }
    golden.finish();
}

/// As [`assert_rounded`]; for the GELUs, whose `1 + erf` and `1 + tanh` cancel in the negative tail down to the last
/// bits of f64, the f64 unit `2^-52` times the size of the input is allowed on top.
#[track_caller]
fn assert_rounded_gelu(activation: Activation, ours: &[f64], golden: &[f32], inputs: &[f32]) {
    let cancels = matches!(activation, Activation::GeluErf | Activation::GeluTanh);
    assert_eq!(ours.len(), golden.len());
    for ((&ours, &golden), &input) in ours.iter().zip(golden).zip(inputs) {
        let cancelled = if cancels {
            f64::EPSILON * f64::from(input).abs()
        } else {
            0.0
        };
        assert_relative_eq!(
            ours,
            f64::from(golden),
            max_relative = 1.01 * HALF_ULP,
            epsilon = f64::from(f32::MIN_POSITIVE) * HALF_ULP + cancelled
        );
    }
}

#[track_caller]
fn check_quantized<T: Element>(
    golden: &Golden,
    x: &[T],
    m: usize,
    k: usize,
    values: &str,
    scales: &str,
) {
    let ours = quantize_activations(x, m, k, ActivationGranularity::Token).unwrap();
    let values = golden.i8(values);
    assert_eq!(ours.values, values);
    assert_eq!(bits(&ours.scales), bits(&golden.f32(scales)));
    for (token, sum) in ours.sums.iter().enumerate() {
        let expected: i64 = values[token * k..][..k].iter().map(|&q| i64::from(q)).sum();
        assert_eq!(i64::from(*sum), expected);
    }
}

/// BitLinear of a real layer, from float weights to float outputs, read the way that a user's files are.
#[test]
fn real_layer() {
    let path = golden::folder().join("real/minilm_layer0.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let golden = Golden::open("real/minilm_layer0.safetensors");
    let hidden = file.matrix("hidden").unwrap();
    assert_eq!(hidden.data, golden.f32("hidden"));
    // Where the hidden states come from; no op takes them.
    assert_eq!(golden.i32("token_ids").len(), hidden.rows);
    for (layer, weight) in [
        ("query", "encoder.layer.0.attention.self.query.weight"),
        ("intermediate", "encoder.layer.0.intermediate.dense.weight"),
    ] {
        let w = file.matrix(weight).unwrap();
        assert_eq!([w.rows, w.cols].as_slice(), golden.shape(weight));
        assert_eq!(w.data, golden.f32(weight));
        let shape = Shape {
            m: hidden.rows,
            n: w.rows,
            k: w.cols,
        };
        let quantized =
            quantize_weights_ternary(&w.data, shape.n, shape.k, WeightGranularity::Tensor).unwrap();
        let scale = golden.f32(&format!("{layer}.weight_scale"))[0];
        assert_eq!(
            quantized.scales.ranges()[0].scale.to_bits(),
            scale.to_bits(),
            "{layer}"
        );

        let expected = golden.f32(&format!("{layer}.bitlinear"));
        let ours: Vec<f32> = bit_linear(
            &hidden.data,
            &quantized.values,
            shape,
            &quantized.scales,
            None,
            None,
        )
        .unwrap();
        let ours: Vec<f64> = ours.into_iter().map(f64::from).collect();
        // As for the W2A8 files: quotient, product, and the golden value's rounding.
        assert_rounded(&ours, &expected, 3.01);
    }
    golden.finish();
}
