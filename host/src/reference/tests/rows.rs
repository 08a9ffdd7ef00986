//! Norms, activation functions and their fusions.

use super::*;

#[test]
fn norms_of_small_tokens() {
    // Mean square (9 + 16) / 2; by hand.
    let rms = Norm::Rms {
        gamma: &[1.0, 2.0],
        eps: 0.0,
    };
    let y = normalize(&[3.0, -4.0_f32, 0.0, f32::NAN], 2, 2, &rms).unwrap();
    let root = 12.5_f64.sqrt();
    assert_eq!(y[..2], [3.0 / root, -4.0 / root * 2.0]);
    assert!(y[2].is_nan() && y[3].is_nan());
    // Mean 2, variance 1, eps 3: divided by 2.
    let x = [f16::from_f32(1.0), f16::from_f32(3.0)];
    let layer = Norm::Layer {
        gamma: &[1.0, 4.0],
        beta: None,
        eps: 3.0,
    };
    assert_eq!(normalize(&x, 1, 2, &layer), Ok(vec![-0.5, 2.0]));
    let layer = Norm::Layer {
        gamma: &[1.0, 4.0],
        beta: Some(&[10.0, 20.0]),
        eps: 3.0,
    };
    assert_eq!(normalize(&x, 1, 2, &layer), Ok(vec![9.5, 22.0]));
    // A single feature is its own mean.
    let layer = Norm::Layer {
        gamma: &[5.0],
        beta: None,
        eps: 1e-5,
    };
    assert_eq!(normalize(&[7.0_f32], 1, 1, &layer), Ok(vec![0.0]));
}

#[test]
fn activations_at_known_points() {
    // Values at 1 to 16 digits: the logistic function, the normal distribution, and tanh, from tables.
    for (activation, at_one) in [
        (Activation::SquaredRelu, 1.0),
        (Activation::Silu, 0.731_058_578_630_004_9),
        (Activation::GeluErf, 0.841_344_746_068_542_9),
        (Activation::GeluTanh, 0.841_191_990_608_276_8),
    ] {
        approx::assert_relative_eq!(activation.apply(1.0), at_one, max_relative = 1e-15);
        // f(x) - f(-x) = x for the three smooth ones, x^2 for squared ReLU.
        let difference = activation.apply(1.0) - activation.apply(-1.0);
        approx::assert_relative_eq!(difference, 1.0, max_relative = 1e-15);
        assert_eq!(activation.apply(0.0), 0.0);
        assert_eq!(activation.apply(-1e4), 0.0);
        assert!(activation.apply(f64::NAN).is_nan());
        assert!(activate(activation, &[bf16::NAN])[0].is_nan());
    }
    let x = [f16::from_f32(-3.0), f16::from_f32(3.0)];
    assert_eq!(
        gated(Activation::SquaredRelu, &x, &[f16::ONE, f16::NEG_ONE]),
        Ok(vec![0.0, -9.0])
    );
}

#[test]
fn gate_and_up_come_out_of_one_buffer() {
    let buffer: Vec<f32> = (0..12_u8).map(f32::from).collect();
    let (gate, up) = split_gate_up(&buffer, 2, 3, GateUpLayout::Concatenated).unwrap();
    assert_eq!(
        (gate, up),
        (vec![0., 1., 2., 6., 7., 8.], vec![3., 4., 5., 9., 10., 11.])
    );
    let (gate, up) = split_gate_up(&buffer, 2, 3, GateUpLayout::Interleaved).unwrap();
    assert_eq!(
        (gate, up),
        (vec![0., 2., 4., 6., 8., 10.], vec![1., 3., 5., 7., 9., 11.])
    );
}

#[test]
fn fusions_keep_f32_between_their_steps_and_store_the_residual() {
    // 2048 + 1 is a tie in f16 and is stored as 2048; the norm sees what is stored.
    let residual = [f16::from_f32(2048.0), f16::from_f32(-512.0)];
    let x = [f16::ONE, f16::ZERO];
    let norm = Norm::Rms {
        gamma: &[1.0, 1.0],
        eps: 0.0,
    };
    let (residual, q) = add_norm_quantize(&residual, &x, 1, 2, &norm).unwrap();
    assert_eq!(residual.map_f32(), [2048.0, -512.0]);
    // 127 / 4 = 31.75
    assert_eq!((q.values, q.sums), (vec![127, -32], vec![95]));
    // Mean square (16 + 1) / 2 * 512^2, largest magnitude 4 / sqrt(8.5).
    approx::assert_relative_eq!(
        q.scales[0],
        127.0 / (4.0 / 8.5_f32.sqrt()),
        max_relative = 1e-6
    );

    // Squared ReLU of 300 overflows f16 and not f32: 90000 and 40000 keep their ratio.
    let gate = [f16::from_f32(300.0), f16::from_f32(200.0)];
    let up = [f16::ONE, f16::NEG_ONE];
    let q = gated_norm_quantize(Activation::SquaredRelu, &gate, &up, 1, 2, &norm).unwrap();
    // 127 * 4 / 9 = 56.4
    assert_eq!(q.values, [127, -56]);
}
