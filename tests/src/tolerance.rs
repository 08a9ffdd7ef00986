//! The bounds of docs/numerics.md on what kernels that accumulate in f32 may differ from the f64 reference.

use bitnet_cuda::reference::Element;
use bitnet_cuda::reference::activation::Activation;
use bitnet_cuda::reference::norm::Norm;

/// Half an ulp of f32, relative.
pub const U: f64 = 1.0 / (1 << 24) as f64;

/// What first-order bounds leave out.
const SECOND_ORDER: f64 = 1.01;

/// Roundings that an addend of a block's sum of `width` elements goes through after its chunk of 8 has been added up: by the thread's
/// chunks, by 32 lanes, by up to 32 warps.
fn block_roundings(width: usize) -> f64 {
    let chunks = width.div_ceil(8);
    let threads = chunks.next_multiple_of(32).min(1024);
    chunks.div_ceil(threads) as f64 + 10.0
}

/// Bounds on the f32 values of a norm of one token, before they are rounded to the output's type. `y` is the f64 truth.
pub fn norm_bounds<T: Element>(token: &[T], norm: &Norm, y: &[f64]) -> Vec<f64> {
    let x: Vec<f64> = token.iter().map(|x| f64::from(x.to_f32())).collect();
    let width = x.len() as f64;
    let roundings = block_roundings(x.len());
    // A square's product, its fused multiply-add, two additions; the division by the width; eps. The root halves them.
    let inverse = (roundings + 6.0) / 2.0 + 2.0;
    let bounds = match *norm {
        Norm::Rms { gamma, .. } => y
            .iter()
            .zip(gamma)
            .map(|(y, gamma)| (inverse + 2.0) * U * y.abs() + subnormal(*gamma))
            .collect::<Vec<_>>(),
        Norm::Layer { gamma, beta, eps } => {
            let mean = x.iter().sum::<f64>() / width;
            let magnitude = x.iter().map(|x| x.abs()).sum::<f64>() / width;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width;
            let root = (variance + eps).sqrt();
            // Three additions inside a chunk, the block's, the division, which may round to a subnormal number.
            let of_mean = (roundings + 4.0) * U * magnitude + f64::from(f32::from_bits(1));
            let shift = of_mean / root;
            y.iter()
                .enumerate()
                .map(|(i, y)| {
                    let gamma = f64::from(gamma[i]);
                    let beta = beta.map_or(0.0, |beta| f64::from(beta[i]));
                    let scaled = (y - beta).abs();
                    (inverse + 4.0) * U * scaled
                        + gamma.abs() * shift
                        + scaled * shift * shift / 2.0
                        + U * y.abs()
                        + subnormal(gamma as f32)
                })
                .collect()
        }
    };
    bounds
        .into_iter()
        .map(|bound| bound * SECOND_ORDER)
        .collect()
}

/// Bound on the f32 value of `activation(x)` against the reference's `y`, whose `1 + erf` and `1 + tanh` cancel in the negative tail:
/// two correct libraries differ there by an ulp of 1, times `x / 2` each.
pub fn activation_bound(activation: Activation, x: f32, y: f64) -> f64 {
    let cancels = matches!(activation, Activation::GeluErf | Activation::GeluTanh) && y.is_finite();
    let of_reference = if cancels {
        f64::EPSILON * f64::from(x).abs()
    } else {
        0.0
    };
    exact_activation_bound(activation, x, y) + of_reference
}

/// Bound on the f32 value of `activation(x)` against its exact value `y`.
pub fn exact_activation_bound(activation: Activation, x: f32, y: f64) -> f64 {
    let x = f64::from(x);
    let relative = match activation {
        Activation::SquaredRelu => 1.0,
        Activation::Silu => 8.0 + 2.0 * x.abs(),
        Activation::GeluTanh => {
            let exponent =
                2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3)).abs();
            8.0 + 4.0 * exponent
        }
        Activation::GeluErf => 17.0 + 1.5 * x * x,
    };
    // Where the function, or the exponential in it, leaves the normal range.
    let absolute = x.abs() * f64::from(f32::MIN_POSITIVE) + subnormal(1.0);
    if y.is_finite() {
        (relative * U * y.abs() + absolute) * SECOND_ORDER
    } else {
        0.0
    }
}

/// Three roundings in the subnormal range, scaled.
fn subnormal(scale: f32) -> f64 {
    3.0 * f64::from(f32::from_bits(1)) * f64::from(scale.abs()).max(1.0)
}

/// Checks that each output is what some f32 within `bounds` of the truth rounds to. Rounding is monotonic, so that the rounded ends of
/// the interval are the bounds. NaN is NaN.
///
/// # Panics
/// With the first output that is not.
#[track_caller]
pub fn assert_within<T: Element>(actual: &[T], expected: &[f64], bounds: &[f64]) {
    assert_eq!(actual.len(), expected.len());
    assert_eq!(actual.len(), bounds.len());
    for (i, ((actual, &expected), &bound)) in actual.iter().zip(expected).zip(bounds).enumerate() {
        let actual = actual.to_f32();
        let end = |value: f64| T::from_f32(value as f32).to_f32();
        let (low, high) = (end(expected - bound), end(expected + bound));
        assert!(
            if expected.is_nan() {
                actual.is_nan()
            } else {
                (low..=high).contains(&actual)
            },
            "element {i}: {actual:e} is not in {low:e}..={high:e}, the truth being {expected:e}"
        );
    }
}
