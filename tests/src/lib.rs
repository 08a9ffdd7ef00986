//! What the integration tests share: the device under test, and random data with a printed seed.

pub mod drawn;
pub mod golden;
pub mod tolerance;

use bitnet_cuda::device::{Buffer, Device, LaunchReport, Stream};
use bitnet_cuda::launch::Float;
use bitnet_cuda::ops::{QuantizedActivations, quantize_activations};
use bitnet_cuda::reference::Element;
use bitnet_cuda::reference::quantize;

/// The device that `BITNET_TEST_DEVICE` names (`cuda`, `cuda:<ordinal>`, `emulated`); the emulator where it is not set.
///
/// # Panics
/// When that device cannot be opened.
pub fn device() -> Device {
    let name = std::env::var("BITNET_TEST_DEVICE").unwrap_or_else(|_| "emulated".to_owned());
    Device::from_name(&name).unwrap_or_else(|error| panic!("BITNET_TEST_DEVICE={name}: {error}"))
}

/// A generator with a fresh seed, which is printed (and so shown where a test fails). `BITNET_TEST_SEED` repeats a run.
///
/// # Panics
/// When `BITNET_TEST_SEED` is not a number.
pub fn random() -> fastrand::Rng {
    let seed = match std::env::var("BITNET_TEST_SEED") {
        Ok(seed) => seed.parse().expect("BITNET_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("BITNET_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// `len` ternary weights.
pub fn ternary(random: &mut fastrand::Rng, len: usize) -> Vec<i8> {
    (0..len).map(|_| random.i8(-1..=1)).collect()
}

/// `len` int8 values, the whole range.
pub fn int8(random: &mut fastrand::Rng, len: usize) -> Vec<i8> {
    (0..len).map(|_| random.i8(..)).collect()
}

/// `len` floats in `-scale..scale`.
pub fn floats(random: &mut fastrand::Rng, len: usize, scale: f32) -> Vec<f32> {
    (0..len)
        .map(|_| (random.f32() * 2.0 - 1.0) * scale)
        .collect()
}

/// How often lanes executed an instruction with this text in its line of PTX.
pub fn executed(report: &LaunchReport, text: &str) -> u64 {
    let lines = report.lines.iter();
    lines
        .filter(|line| line.instruction.contains(text))
        .map(|line| line.lane_instructions)
        .sum()
}

/// A buffer of bytes that no correct output is full of.
///
/// # Panics
/// When the device has not enough memory.
pub fn poisoned<T: bytemuck::Pod>(device: &Device, len: usize) -> Buffer<T> {
    let mut buffer = Buffer::uninit(device, len).unwrap();
    buffer.fill_bytes(0xa5).unwrap();
    buffer
}

/// Quantized activations `[m, k]` that hold something else than an operation is about to write.
///
/// # Panics
/// When the device cannot quantize.
pub fn poisoned_activations(stream: &Stream, m: usize, k: usize) -> QuantizedActivations {
    let mut activations = QuantizedActivations::uninit(stream.device(), m, k).unwrap();
    let poison = Buffer::from_slice(stream.device(), &vec![-12345.0_f32; m * k]).unwrap();
    quantize_activations(stream, &poison, &mut activations).unwrap();
    activations
}

/// The same floats in another type, each rounded.
pub fn cast<T: Element>(values: &[f32]) -> Vec<T> {
    values.iter().map(|&value| T::from_f32(value)).collect()
}

/// Copies quantized activations to the host, without padding.
///
/// # Panics
/// When the padding is not zero.
pub fn download(activations: &QuantizedActivations) -> quantize::QuantizedActivations {
    let (m, k) = (activations.m(), activations.k());
    let values = activations.values().to_vec().unwrap();
    let rows = values.chunks(activations.k_padded()).take(m);
    let mut unpadded = Vec::with_capacity(m * k);
    for row in rows {
        assert!(row[k..].iter().all(|&q| q == 0), "padding of {m} x {k}");
        unpadded.extend(&row[..k]);
    }
    quantize::QuantizedActivations {
        values: unpadded,
        scales: activations.scales().to_vec().unwrap(),
        sums: activations.sums().to_vec().unwrap(),
    }
}

/// Checks that two quantizations are equal bit for bit; which NaN a scale is does not matter.
///
/// # Panics
/// When they are not.
#[track_caller]
pub fn assert_same(
    actual: &quantize::QuantizedActivations,
    expected: &quantize::QuantizedActivations,
) {
    assert_eq!(actual.values, expected.values);
    assert_eq!(actual.sums, expected.sums);
    let bits = |scales: &[f32]| -> Vec<u32> {
        let one_nan = |scale: &f32| if scale.is_nan() { f32::NAN } else { *scale };
        scales
            .iter()
            .map(|scale| one_nan(scale).to_bits())
            .collect()
    };
    assert_eq!(bits(&actual.scales), bits(&expected.scales));
}

/// A float type that both the device and the reference know.
pub trait Number: Float + Element {}

impl<T: Float + Element> Number for T {}
